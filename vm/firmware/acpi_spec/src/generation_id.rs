//! The generation ID (Microsoft's Virtual Machine Generation ID specification): 128 bits in memory that change
//! when the machine is cloned or rolled back, and an event that signals the change.

use crate::table::Table;
use acpi_tables::Aml;
use acpi_tables::AmlSink;
use acpi_tables::aml::Device;
use acpi_tables::aml::Method;
use acpi_tables::aml::Name;
use acpi_tables::aml::Notify;
use acpi_tables::aml::Package;
use acpi_tables::aml::Path;
use acpi_tables::aml::Scope;

/// Offset of the ID in its memory, in bytes. The memory before it is zero, so that firmware that looks for a table header
/// there finds none and keeps the memory.
pub const GENERATION_ID_OFFSET: u32 = 40;

/// The notification value for a changed ID.
const CHANGED: u8 = 0x80;

const REVISION: u8 = 2;

/// An integer that is encoded in 32 bits whatever its value, so that it can be overwritten.
struct Address(u32);

impl Aml for Address {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        // DWordPrefix.
        sink.byte(0x0c);
        sink.dword(self.0);
    }
}

/// The number of bytes after the address in the SSDT: the high half, which is zero.
const AFTER_ADDRESS: usize = 1;

/// The SSDT of the device. Its address field is [`GENERATION_ID_OFFSET`], to which the address of the memory is added; see
/// [`address_field`].
pub(crate) fn ssdt(event: u8) -> Table {
    let mut body = Vec::new();
    let handler = format!("_E{event:02X}");
    let device = Path::new("\\_SB_.VGEN");
    let notify = Notify::new(&device, &CHANGED);
    let handler = Method::new(Path::new(&handler), 0, false, vec![&notify]);
    Scope::new(Path::new("\\_GPE"), vec![&handler]).to_aml_bytes(&mut body);

    // Last in the table, so that its offset is known.
    let high_half = 0u8;
    let address = Package::new(vec![&Address(GENERATION_ID_OFFSET), &high_half]);
    let mut device = Vec::new();
    Device::new(
        Path::new("VGEN"),
        vec![
            // The ID of the device on Hyper-V.
            &Name::new(Path::new("_HID"), &"MSFT1002"),
            // The ID that the specification requires, which has not the form of an ACPI ID. Linux knows it too.
            &Name::new(Path::new("_CID"), &"VM_Gen_Counter"),
            &Name::new(Path::new("_DDN"), &"VM_Gen_Counter"),
            &Name::new(Path::new("ADDR"), &address),
        ],
    )
    .to_aml_bytes(&mut device);
    body.extend(Scope::raw(Path::new("\\_SB_"), device));
    Table::with_header(*b"SSDT", REVISION, &body)
}

/// Offset and size of the address in the SSDT, in bytes.
pub(crate) fn address_field(ssdt: &Table) -> (usize, usize) {
    let size = size_of::<u32>();
    (ssdt.bytes.len() - AFTER_ADDRESS - size, size)
}
