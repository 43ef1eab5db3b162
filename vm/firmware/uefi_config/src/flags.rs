//! The flags: what the machine has, and how the firmware behaves.

use bitfield_struct::bitfield;

/// The flags of the firmware. The default has none set.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct UefiFlags {
    /// There are 16550 serial ports.
    pub serial_ports: bool,
    /// The firmware waits when it cannot boot.
    pub pause_after_boot_failure: bool,
    /// Network boot prefers IPv6.
    pub pxe_prefers_ipv6: bool,
    /// The firmware's debugger takes COM1.
    pub debugger: bool,
    /// An OEMP table is loaded.
    pub oemp_table: bool,
    /// There is a TPM.
    pub tpm: bool,
    /// ACPI S4 is offered, and the memory map stays the same from boot to boot.
    pub hibernation: bool,
    /// Where the firmware's console is.
    #[bits(2)]
    pub console: ConsoleMode,
    /// The memory attributes table is published.
    pub memory_attributes_table: bool,
    /// There is a battery.
    pub virtual_battery: bool,
    /// There is SGX memory.
    pub sgx_memory: bool,
    /// The guest boots from the file system on VMBus.
    pub vmbfs_boot: bool,
    /// Additional PCRs are measured.
    pub measure_additional_pcrs: bool,
    /// Power off, instead of showing the front page, when nothing boots.
    pub disable_front_page: bool,
    /// The default boot path is tried even if there are boot entries.
    pub default_boot_always_attempt: bool,
    /// Low-power S0 idle is offered.
    pub low_power_s0_idle: bool,
    /// The firmware boots from virtual PCI devices.
    pub vpci_boot: bool,
    /// Processor idle states are offered.
    pub processor_idle: bool,
    /// The TPM has no SHA-384 bank.
    pub drop_sha384_bank: bool,
    /// Network media are present unless told otherwise.
    pub media_present_by_default: bool,
    /// How strictly the firmware protects its memory.
    #[bits(2)]
    pub memory_protection: MemoryProtection,
    /// IMC is on when the machine is isolated.
    pub imc_when_isolated: bool,
    /// There is a watchdog for the guest.
    pub guest_watchdog: bool,
    /// The TPM has locality registers.
    pub tpm_locality_registers: bool,
    /// The DUID of DHCPv6 is link-layer address and time.
    pub dhcp6_duid_llt: bool,
    /// There is CXL memory.
    pub cxl_memory: bool,
    /// The MTRRs of all processors are set already.
    pub mtrrs_initialized: bool,
    /// Reserved.
    #[bits(1)]
    __: bool,
    /// There is no VMBus.
    pub vmbus_disabled: bool,
    /// PCI functions have their addresses already, and the firmware keeps those.
    pub pci_preassigned: bool,
    /// DMA goes through bounce buffers.
    pub force_dma_bounce: bool,
    /// There is a baseboard management controller.
    pub ipmi_bmc: bool,
    #[bits(30)]
    __: u32,
}

/// Where the firmware's console is.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum ConsoleMode {
    /// On the video device.
    #[default]
    Video = 0,
    /// On the first serial port.
    Com1 = 1,
    /// On the second serial port.
    Com2 = 2,
    /// Nowhere.
    None = 3,
}

impl ConsoleMode {
    const fn into_bits(self) -> u8 {
        self as u8
    }

    const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::Video,
            1 => Self::Com1,
            2 => Self::Com2,
            _ => Self::None,
        }
    }
}

/// How strictly the firmware protects its memory. Some boot loaders fail under [`Default`](Self::Default) and
/// [`Strict`](Self::Strict).
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum MemoryProtection {
    /// Not at all.
    #[default]
    Off = 0,
    /// As the firmware's authors recommend.
    Default = 1,
    /// As strictly as it can.
    Strict = 2,
    /// As strictly as boot loaders of Linux bear.
    Relaxed = 3,
}

impl MemoryProtection {
    const fn into_bits(self) -> u8 {
        self as u8
    }

    const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::Off,
            1 => Self::Default,
            2 => Self::Strict,
            _ => Self::Relaxed,
        }
    }
}
