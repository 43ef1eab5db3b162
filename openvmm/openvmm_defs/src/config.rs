//! The configuration a VM is built from. It says what exists; how the VM starts is not part of it.

use crate::devices::ChipsetDeviceConfig;
use crate::devices::PciDeviceConfig;
use firmware_hibernation::ConsumePolicy;
use std::path::PathBuf;
use virt::IrqchipMode;
use virt::TopologyConfig;

/// A virtual machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmConfig {
    /// The VPs.
    pub topology: TopologyConfig,
    /// Where the interrupt controllers are.
    pub irqchip: IrqchipMode,
    /// Guest RAM.
    pub memory: MemoryConfig,
    /// What the VM runs first.
    pub load_mode: LoadMode,
    /// The devices with fixed addresses, besides those that every machine has.
    pub chipset_devices: Vec<ChipsetDeviceConfig>,
    /// Whether and how the guest can hibernate.
    pub hibernation: HibernationConfig,
    /// The PCI functions, besides those of the chipset.
    pub pci_devices: Vec<PciDeviceConfig>,
    /// The VMGS file that keeps the VM's state. Made if it does not exist.
    pub vmgs: Option<PathBuf>,
    /// The VM's identity, in the order in which it is printed. The same for its whole life.
    pub uuid: [u8; 16],
}

/// Whether and how the guest can hibernate.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default)]
pub struct HibernationConfig {
    /// Whether the guest is offered ACPI S4.
    pub enabled: bool,
    /// When the token of a hibernated guest is deleted from the VMGS file.
    pub consume: ConsumePolicy,
}

/// Guest RAM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryConfig {
    /// Bytes.
    pub size: u64,
    /// The file behind it; anonymous memory where `None`.
    pub file: Option<PathBuf>,
    /// Which host pages to use.
    pub pages: HostPages,
    /// When the host gives the memory.
    pub population: Population,
}

/// Which host pages guest RAM is made of.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default)]
pub enum HostPages {
    /// What the host chooses.
    #[default]
    Default,
    /// Pages of the host's huge page pool.
    Huge,
}

/// When the host gives guest RAM.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default)]
pub enum Population {
    /// As the guest touches it.
    #[default]
    OnDemand,
    /// Before the guest starts.
    Prealloc,
}

/// What a VM runs first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadMode {
    /// A Linux kernel, without any firmware.
    LinuxDirect(LinuxDirect),
    /// UEFI firmware for PCs, of the OVMF family.
    PcUefi(PcUefi),
}

/// UEFI firmware in flash memory, and what it is told to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PcUefi {
    /// The firmware's code; or code and variables in one file, of which the variables are not written.
    pub code: PathBuf,
    /// Where its variables are kept.
    pub variables: UefiVariables,
    /// A kernel for the firmware to start, before anything its variables name.
    pub kernel: Option<UefiKernel>,
}

/// Where UEFI variables are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UefiVariables {
    /// They last as long as the VM, and begin as in the file, or with none.
    Memory(Option<PathBuf>),
    /// In a file, which is written.
    File(PathBuf),
    /// In the VMGS file. New ones begin as in the template that goes with the firmware.
    Vmgs,
}

/// A Linux kernel that UEFI firmware starts by its EFI stub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UefiKernel {
    /// A bzImage with EFI stub, or any EFI program.
    pub kernel: PathBuf,
    /// The initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// The kernel's command line.
    pub cmdline: String,
}

/// A Linux kernel started directly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinuxDirect {
    /// bzImage or ELF vmlinux.
    pub kernel: PathBuf,
    /// The initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// The kernel's command line.
    pub cmdline: String,
    /// How the kernel is entered.
    pub protocol: BootProtocol,
}

/// How a Linux kernel is entered.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default)]
pub enum BootProtocol {
    /// The 64-bit protocol, or PVH for a kernel that has only that.
    #[default]
    Auto,
    /// The 64-bit boot protocol.
    Linux64,
    /// The PVH entry of an ELF kernel.
    Pvh,
}
