//! The interrupt controllers: MADT (ACPI 6.5, 5.2.12).

use crate::platform::AcpiPlatform;
use crate::platform::InterruptControllers;
use crate::platform::Processor;
use crate::table::Table;
use acpi_tables::Aml;
use acpi_tables::madt::EnabledStatus;
use acpi_tables::madt::IoApic;
use acpi_tables::madt::ProcessorLocalApic;
use zerocopy::Immutable;
use zerocopy::IntoBytes;
use zerocopy::little_endian::U16;
use zerocopy::little_endian::U32;

/// That of ACPI 6.5, as the FADT.
const REVISION: u8 = 6;
const LOCAL_APIC_ADDRESS: u32 = 0xfee0_0000;
const IO_APIC_ADDRESS: u32 = 0xfec0_0000;
const IO_APIC_ID: u8 = 0;

/// The flag for a machine with 8259 PICs.
const PCAT_COMPAT: u32 = 1;
/// The UIDs that mean all processors.
const ALL_UIDS: u8 = u8::MAX;
const ALL_X2APIC_UIDS: u32 = u32::MAX;
/// The largest id in a local APIC entry; larger ids need an x2APIC entry.
const MAX_XAPIC_ID: u32 = 0xfe;

/// Interrupt source override flags (MPS INTI flags).
const CONFORMS_TO_BUS: u16 = 0;
const ACTIVE_HIGH: u16 = 0b01;
const LEVEL_TRIGGERED: u16 = 0b11 << 2;

#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct InterruptSourceOverride {
    kind: u8,
    length: u8,
    bus: u8,
    source: u8,
    gsi: U32,
    flags: U16,
}

impl InterruptSourceOverride {
    fn new(irq: u8, gsi: u32, flags: u16) -> Self {
        Self {
            kind: 2,
            length: size_of::<Self>() as u8,
            bus: 0,
            source: irq,
            gsi: gsi.into(),
            flags: flags.into(),
        }
    }
}

#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct LocalApicNmi {
    kind: u8,
    length: u8,
    uid: u8,
    // A 16-bit field at an odd offset.
    flags: [u8; 2],
    lint: u8,
}

#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct LocalX2Apic {
    kind: u8,
    length: u8,
    reserved: U16,
    x2apic_id: U32,
    flags: U32,
    uid: U32,
}

#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct LocalX2ApicNmi {
    kind: u8,
    length: u8,
    flags: U16,
    uid: U32,
    lint: u8,
    reserved: [u8; 3],
}

/// The MADT.
pub(crate) fn madt(platform: &AcpiPlatform) -> Table {
    let has_pic = platform.interrupt_controllers == InterruptControllers::IoApicAndPic;
    let mut body = Vec::new();
    body.extend_from_slice(&LOCAL_APIC_ADDRESS.to_le_bytes());
    body.extend_from_slice(&if has_pic { PCAT_COMPAT } else { 0 }.to_le_bytes());

    let mut has_x2apic = false;
    for p in &platform.processors {
        match local_apic(p) {
            LocalApic::XApic(entry) => entry.to_aml_bytes(&mut body),
            LocalApic::X2Apic(entry) => {
                has_x2apic = true;
                body.extend_from_slice(entry.as_bytes());
            }
        }
    }

    IoApic::new(IO_APIC_ID, IO_APIC_ADDRESS, 0).to_aml_bytes(&mut body);
    if has_pic {
        // The output of the PICs is connected to input 0 of the I/O APIC.
        body.extend_from_slice(InterruptSourceOverride::new(0, 2, CONFORMS_TO_BUS).as_bytes());
    }
    body.extend_from_slice(
        InterruptSourceOverride::new(
            platform.sci_irq,
            platform.sci_irq.into(),
            ACTIVE_HIGH | LEVEL_TRIGGERED,
        )
        .as_bytes(),
    );

    body.extend_from_slice(
        LocalApicNmi {
            kind: 4,
            length: size_of::<LocalApicNmi>() as u8,
            uid: ALL_UIDS,
            flags: CONFORMS_TO_BUS.to_le_bytes(),
            lint: 1,
        }
        .as_bytes(),
    );
    if has_x2apic {
        body.extend_from_slice(
            LocalX2ApicNmi {
                kind: 10,
                length: size_of::<LocalX2ApicNmi>() as u8,
                flags: CONFORMS_TO_BUS.into(),
                uid: ALL_X2APIC_UIDS.into(),
                lint: 1,
                reserved: [0; 3],
            }
            .as_bytes(),
        );
    }
    Table::with_header(*b"APIC", REVISION, &body)
}

enum LocalApic {
    XApic(ProcessorLocalApic),
    X2Apic(LocalX2Apic),
}

/// A local APIC entry if the ids fit in it, as operating systems expect; otherwise an x2APIC entry.
fn local_apic(p: &Processor) -> LocalApic {
    match (u8::try_from(p.uid), u8::try_from(p.apic_id)) {
        (Ok(uid), Ok(apic_id)) if uid != ALL_UIDS && p.apic_id <= MAX_XAPIC_ID => LocalApic::XApic(
            ProcessorLocalApic::new(uid, apic_id, EnabledStatus::Enabled),
        ),
        _ => LocalApic::X2Apic(LocalX2Apic {
            kind: 9,
            length: size_of::<LocalX2Apic>() as u8,
            reserved: 0.into(),
            x2apic_id: p.apic_id.into(),
            flags: 1.into(),
            uid: p.uid.into(),
        }),
    }
}
