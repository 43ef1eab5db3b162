//! The fixed hardware: FADT (ACPI 6.5, 5.2.9) and FACS (5.2.10).

use crate::platform::AcpiPlatform;
use crate::table::OEM_ID;
use crate::table::OEM_REVISION;
use crate::table::OEM_TABLE_ID;
use crate::table::Pointer;
use crate::table::Table;
use acpi_tables::Aml;
use acpi_tables::facs::FACS;
use acpi_tables::fadt::FADTBuilder;
use acpi_tables::fadt::Flags;
use acpi_tables::fadt::PmProfile;
use acpi_tables::gas::AccessSize;
use acpi_tables::gas::AddressSpace;
use acpi_tables::gas::GAS;

/// IA-PC boot architecture flags (ACPI 6.5, table 5.11).
mod boot_flags {
    pub(super) const LEGACY_DEVICES: u16 = 1 << 0;
    pub(super) const I8042: u16 = 1 << 1;
    pub(super) const VGA_NOT_PRESENT: u16 = 1 << 2;
    pub(super) const CMOS_RTC_NOT_PRESENT: u16 = 1 << 5;
}

/// Offsets in the FADT of the fields that point to other tables.
mod offset {
    pub(super) const FIRMWARE_CTRL: usize = 36;
    pub(super) const DSDT: usize = 40;
    pub(super) const X_DSDT: usize = 140;
}

/// The same for the whole life of a VM: an operating system that resumes from its disk compares the value with
/// the one it hibernated with, and takes a difference for different hardware.
const HARDWARE_SIGNATURE: u32 = 0;

/// A P_LVL2 or P_LVL3 latency that says that the state is not supported.
const NO_C_STATE: u16 = 0xffff;

/// Offset of GPE0 in the power-management block.
const GPE0: u16 = 0x20;
/// Size of GPE0 in bytes: half of them status bits, half enable bits.
const GPE0_LEN: u8 = 16;

/// The FADT that names tables `facs` and `dsdt`.
pub(crate) fn fadt(platform: &AcpiPlatform, facs: usize, dsdt: usize) -> Table {
    let pm = Registers(platform.pm_base);
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .preferred_pm_profile(PmProfile::EnterpriseServer);

    fadt.sci_int = u16::from(platform.sci_irq).into();
    // No SMI command port: the hardware is in ACPI mode from reset, and SCI_EN always reads 1.
    fadt.smi_cmd = 0.into();

    fadt.pm1a_evt_blk = pm.port(0x0).into();
    fadt.pm1_evt_len = 4;
    fadt.x_pm1a_evt_blk = pm.gas(0x0, 32, AccessSize::WordAccess);
    fadt.pm1a_cnt_blk = pm.port(0x4).into();
    fadt.pm1_cnt_len = 2;
    fadt.x_pm1a_cnt_blk = pm.gas(0x4, 16, AccessSize::WordAccess);
    fadt.pm_tmr_blk = pm.port(0x8).into();
    fadt.pm_tmr_len = 4;
    fadt.x_pm_tmr_blk = pm.gas(0x8, 32, AccessSize::DwordAccess);
    fadt.gpe0_blk = pm.port(GPE0).into();
    fadt.gpe0_blk_len = GPE0_LEN;
    fadt.x_gpe0_blk = pm.gas(GPE0, GPE0_LEN * 8, AccessSize::ByteAccess);

    fadt.reset_reg = Registers(platform.reset.port).gas(0, 8, AccessSize::ByteAccess);
    fadt.reset_value = platform.reset.value;

    fadt.p_lvl2_lat = NO_C_STATE.into();
    fadt.p_lvl3_lat = NO_C_STATE.into();
    fadt.century = platform
        .rtc
        .as_ref()
        .and_then(|rtc| rtc.century_index)
        .unwrap_or(0);
    fadt.iapc_boot_arch = boot_architecture(platform).into();

    let mut fadt = fadt
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        // PwrButton stays clear: the power button is in the fixed registers.
        .flag(Flags::SlpButton)
        .flag(Flags::FixRtc)
        .flag(Flags::TmrValExt)
        .flag(Flags::ResetRegSup)
        .flag(Flags::UsePlatformClock);
    if platform.ps2.is_none() {
        fadt = fadt.flag(Flags::Headless);
    }

    let mut bytes = Vec::new();
    fadt.finalize().to_aml_bytes(&mut bytes);
    let mut table = Table::from_complete(*b"FACP", bytes);
    table.pointers = vec![
        // X_FIRMWARE_CTRL stays zero: it excludes FIRMWARE_CTRL, and the FACS is below 4 GiB.
        Pointer {
            offset: offset::FIRMWARE_CTRL,
            size: 4,
            target: facs,
        },
        Pointer {
            offset: offset::DSDT,
            size: 4,
            target: dsdt,
        },
        Pointer {
            offset: offset::X_DSDT,
            size: 8,
            target: dsdt,
        },
    ];
    table
}

fn boot_architecture(platform: &AcpiPlatform) -> u16 {
    let mut flags = boot_flags::VGA_NOT_PRESENT;
    if !platform.com_ports.is_empty() || platform.ps2.is_some() {
        flags |= boot_flags::LEGACY_DEVICES;
    }
    if platform.ps2.is_some() {
        flags |= boot_flags::I8042;
    }
    if platform.rtc.is_none() {
        flags |= boot_flags::CMOS_RTC_NOT_PRESENT;
    }
    flags
}

/// The FACS.
pub(crate) fn facs() -> Table {
    let mut facs = FACS::new();
    facs.hardware_signature = HARDWARE_SIGNATURE.into();
    facs.version = 2;
    let mut bytes = Vec::new();
    facs.to_aml_bytes(&mut bytes);
    Table {
        signature: *b"FACS",
        bytes,
        alignment: 64,
        pointers: Vec::new(),
        checksums: Vec::new(),
    }
}

/// Registers from a base port.
struct Registers(u16);

impl Registers {
    fn port(&self, offset: u16) -> u32 {
        u32::from(self.0) + u32::from(offset)
    }

    fn gas(&self, offset: u16, bits: u8, access: AccessSize) -> GAS {
        GAS::new(
            AddressSpace::SystemIo,
            bits,
            0,
            access,
            self.port(offset).into(),
        )
    }
}
