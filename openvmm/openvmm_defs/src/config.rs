//! The configuration a VM is built from. It says what exists; how the VM starts is not part of it.
//!
//! It is encoded with numbered fields, to be stored or sent to another process. A number is never used again for
//! another field.

use crate::devices::ChipsetDeviceConfig;
use crate::devices::PciDeviceConfig;
use firmware_hibernation::ConsumePolicy;
use firmware_uefi::LogLevel;
use minicbor::Decode;
use minicbor::Encode;
use std::path::PathBuf;
use uefi_nvram::SecureBoot;
use virt::IrqchipMode;
use virt::TopologyConfig;

/// A virtual machine.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct VmConfig {
    /// The VPs.
    #[n(1)]
    pub topology: TopologyConfig,
    /// Where the interrupt controllers are.
    #[n(2)]
    pub irqchip: IrqchipMode,
    /// Guest RAM.
    #[n(3)]
    pub memory: MemoryConfig,
    /// What the VM runs first.
    #[n(4)]
    pub load_mode: LoadMode,
    /// The devices with fixed addresses, besides those that every machine has.
    #[n(5)]
    pub chipset_devices: Vec<ChipsetDeviceConfig>,
    /// Whether and how the guest can hibernate.
    #[n(6)]
    pub hibernation: HibernationConfig,
    /// The PCI functions, besides those of the chipset.
    #[n(7)]
    pub pci_devices: Vec<PciDeviceConfig>,
    /// The VMGS file that keeps the VM's state. It is created if it does not exist.
    #[cbor(n(8), with = "mesh::encoding::optional_path", has_nil)]
    pub vmgs: Option<PathBuf>,
    /// The VM's identity, in the order in which it is printed. The same for the VM's whole life.
    #[cbor(n(9), with = "minicbor::bytes")]
    pub uuid: [u8; 16],
    /// That the VM's state is kept in memory until the VM ends, and how.
    #[n(10)]
    pub vmgs_memory: Option<VmgsMemory>,
    /// Whether the guest is offered VMX or SVM, so that it can have guests of its own.
    #[cbor(n(11), default)]
    pub nested: bool,
}

/// How the VM's state is kept in memory.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Encode, Decode)]
pub enum VmgsMemory {
    /// A new store of this size in bytes.
    #[n(0)]
    New(#[n(0)] u64),
    /// Changes to the VMGS file, which is not written.
    #[n(1)]
    Overlay,
}

/// Whether and how the guest can hibernate.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct HibernationConfig {
    /// Whether the guest is offered ACPI S4.
    #[n(1)]
    pub enabled: bool,
    /// When the token of a hibernated guest is deleted from the VMGS file.
    #[n(2)]
    pub consume: ConsumePolicy,
}

/// Guest RAM.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct MemoryConfig {
    /// Size in bytes.
    #[n(1)]
    pub size: u64,
    /// The file that backs it; anonymous memory where `None`.
    #[cbor(n(2), with = "mesh::encoding::optional_path", has_nil)]
    pub file: Option<PathBuf>,
    /// The kind of host pages.
    #[n(3)]
    pub pages: HostPages,
    /// When the host provides the memory.
    #[n(4)]
    pub population: Population,
    /// Whether other processes can map it. A file always can be; other memory only if this says so.
    #[n(5)]
    pub sharing: Option<Sharing>,
}

/// Whether other processes can map guest RAM.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Sharing {
    /// They can, through a file descriptor.
    #[n(0)]
    Shared,
}

/// The kind of host pages that guest RAM consists of.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(index_only)]
pub enum HostPages {
    /// The host chooses, and may merge pages to huge ones.
    #[default]
    #[n(0)]
    Default,
    /// Pages of 2 MiB of the host's pool.
    #[n(1)]
    Huge,
    /// Pages of 1 GiB of the host's pool.
    #[n(2)]
    Huge1G,
    /// Small pages, never merged to huge ones.
    #[n(3)]
    Small,
}

/// When the host provides guest RAM.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(index_only)]
pub enum Population {
    /// When the guest touches it.
    #[default]
    #[n(0)]
    OnDemand,
    /// Before the guest starts.
    #[n(1)]
    Prealloc,
}

/// What a VM runs first.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum LoadMode {
    /// A Linux kernel, without firmware.
    #[n(0)]
    LinuxDirect(#[n(0)] LinuxDirect),
    /// UEFI firmware for PCs, of the OVMF family.
    #[n(1)]
    PcUefi(#[n(0)] PcUefi),
    /// The UEFI firmware of Hyper-V's generation-2 VMs.
    #[n(2)]
    HypervUefi(#[n(0)] HypervUefi),
    /// A guest in an IGVM file.
    #[n(3)]
    Igvm(#[n(0)] Igvm),
}

/// A guest in an IGVM file: its memory and its first instruction.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Igvm {
    /// The file.
    #[cbor(n(1), with = "mesh::encoding::path")]
    pub file: PathBuf,
    /// The command line, for files that take one.
    #[n(2)]
    pub cmdline: Option<String>,
    /// The machine that the guest expects.
    #[n(3)]
    pub host: IgvmHost,
}

/// The machine that the guest in an IGVM file expects, and what the host adds to the file. The file does not say it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum IgvmHost {
    /// That of a Linux kernel that is started directly, with the host's ACPI tables.
    #[n(0)]
    Linux,
    /// That of UEFI firmware for PCs. The firmware is part of the file: the pages below 4 GiB.
    #[n(1)]
    PcUefi(#[n(0)] IgvmPcUefi),
    /// That of UEFI firmware of Hyper-V's generation-2 VMs, with its configuration.
    #[n(2)]
    HypervUefi(#[n(0)] IgvmHypervUefi),
}

/// What belongs to UEFI firmware of a generation-2 VM that is part of an IGVM file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct IgvmHypervUefi {
    /// How the firmware behaves.
    #[n(1)]
    pub settings: HypervUefiSettings,
    /// The device that it asks for services.
    #[n(2)]
    pub device: UefiDeviceConfig,
}

/// What belongs to UEFI firmware that is part of an IGVM file.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct IgvmPcUefi {
    /// Where its variables are kept.
    #[n(1)]
    pub variables: UefiVariables,
    /// A kernel for the firmware to start, before anything its variables name.
    #[n(2)]
    pub kernel: Option<UefiKernel>,
}

/// What machine there is for what the VM runs first.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum MachineProfile {
    /// A PC without firmware.
    LinuxDirect,
    /// A PC with flash memory for firmware.
    PcUefi,
    /// A generation-2 VM of Hyper-V.
    HypervUefi,
}

impl LoadMode {
    /// The machine for it.
    pub fn profile(&self) -> MachineProfile {
        match self {
            Self::LinuxDirect(_) => MachineProfile::LinuxDirect,
            Self::PcUefi(_) => MachineProfile::PcUefi,
            Self::HypervUefi(_) => MachineProfile::HypervUefi,
            Self::Igvm(igvm) => match igvm.host {
                IgvmHost::Linux => MachineProfile::LinuxDirect,
                IgvmHost::PcUefi(_) => MachineProfile::PcUefi,
                IgvmHost::HypervUefi(_) => MachineProfile::HypervUefi,
            },
        }
    }

    /// Whether UEFI firmware for PCs runs first.
    pub fn is_pc_uefi(&self) -> bool {
        self.profile() == MachineProfile::PcUefi
    }
}

/// UEFI firmware that runs from RAM. Its variables are kept in the VMGS store, or in memory if there is none.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct HypervUefi {
    /// The firmware's image.
    #[cbor(n(1), with = "mesh::encoding::path")]
    pub firmware: PathBuf,
    /// How the firmware behaves.
    #[n(2)]
    pub settings: HypervUefiSettings,
    /// The device that it asks for services.
    #[n(3)]
    pub device: UefiDeviceConfig,
}

/// The device that UEFI firmware in RAM asks for services.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct UefiDeviceConfig {
    /// What the variables start with.
    #[n(1)]
    pub secure_boot: SecureBoot,
    /// Which lines of the firmware's log get into the host's.
    #[n(2)]
    pub log_level: LogLevel,
}

/// How the UEFI firmware of a generation-2 VM behaves.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct HypervUefiSettings {
    /// Where its console is. Where there is a serial port if not given.
    #[n(1)]
    pub console: Option<FirmwareConsole>,
    /// How strictly it protects its memory.
    #[n(2)]
    pub memory_protection: FirmwareMemoryProtection,
    /// What it does when nothing boots.
    #[n(3)]
    pub boot_failure: BootFailure,
    /// When it tries the default boot path.
    #[n(4)]
    pub default_boot: DefaultBoot,
    /// Whether its debugger takes COM1.
    #[n(5)]
    pub debugger: bool,
    /// Whether all DMA goes through bounce buffers.
    #[n(6)]
    pub dma_bounce: bool,
}

/// Where a firmware's console is.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum FirmwareConsole {
    /// On the video device.
    #[n(0)]
    Video,
    /// On COM1.
    #[n(1)]
    Com1,
    /// On COM2.
    #[n(2)]
    Com2,
    /// Nowhere.
    #[n(3)]
    None,
}

/// How strictly firmware protects its memory. Some boot loaders fail if it does.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(index_only)]
pub enum FirmwareMemoryProtection {
    /// Not at all.
    #[default]
    #[n(0)]
    Off,
    /// As its authors recommend.
    #[n(1)]
    Default,
    /// As strictly as it can.
    #[n(2)]
    Strict,
    /// As strictly as boot loaders of Linux bear.
    #[n(3)]
    Relaxed,
}

/// What firmware does when nothing boots.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(index_only)]
pub enum BootFailure {
    /// It shows its front page.
    #[default]
    #[n(0)]
    FrontPage,
    /// It powers off.
    #[n(1)]
    PowerOff,
}

/// When firmware tries the default boot path.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(index_only)]
pub enum DefaultBoot {
    /// When there are no boot entries.
    #[default]
    #[n(0)]
    WithoutEntries,
    /// Always.
    #[n(1)]
    Always,
}

/// UEFI firmware in flash memory, and what it starts.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PcUefi {
    /// The firmware's code; or code and variables in one file, of which the variables are not written.
    #[cbor(n(1), with = "mesh::encoding::path")]
    pub code: PathBuf,
    /// Where its variables are kept.
    #[n(2)]
    pub variables: UefiVariables,
    /// A kernel for the firmware to start, before anything its variables name.
    #[n(3)]
    pub kernel: Option<UefiKernel>,
}

/// Where UEFI variables are kept.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum UefiVariables {
    /// In memory, until the VM ends. Their initial content is in the file, if there is one.
    #[n(0)]
    #[cbor(map)]
    Memory(#[cbor(n(1), with = "mesh::encoding::optional_path", has_nil)] Option<PathBuf>),
    /// In a file, which is written.
    #[n(1)]
    #[cbor(map)]
    File(#[cbor(n(1), with = "mesh::encoding::path")] PathBuf),
    /// In the VMGS file. The initial content is the template that belongs to the firmware.
    #[n(2)]
    Vmgs,
}

/// A Linux kernel that UEFI firmware starts by its EFI stub.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct UefiKernel {
    /// A bzImage with EFI stub, or any EFI program.
    #[cbor(n(1), with = "mesh::encoding::path")]
    pub kernel: PathBuf,
    /// The initial RAM disk.
    #[cbor(n(2), with = "mesh::encoding::optional_path", has_nil)]
    pub initrd: Option<PathBuf>,
    /// The kernel's command line.
    #[n(3)]
    pub cmdline: String,
}

/// A Linux kernel started directly.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct LinuxDirect {
    /// bzImage or ELF vmlinux.
    #[cbor(n(1), with = "mesh::encoding::path")]
    pub kernel: PathBuf,
    /// The initial RAM disk.
    #[cbor(n(2), with = "mesh::encoding::optional_path", has_nil)]
    pub initrd: Option<PathBuf>,
    /// The kernel's command line.
    #[n(3)]
    pub cmdline: String,
    /// How the kernel is entered.
    #[n(4)]
    pub protocol: BootProtocol,
}

/// How a Linux kernel is entered.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(index_only)]
pub enum BootProtocol {
    /// The 64-bit protocol, or PVH for a kernel that has only that.
    #[default]
    #[n(0)]
    Auto,
    /// The 64-bit boot protocol.
    #[n(1)]
    Linux64,
    /// The PVH entry of an ELF kernel.
    #[n(2)]
    Pvh,
}

#[cfg(test)]
#[path = "config_test.rs"]
mod tests;
