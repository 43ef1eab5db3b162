//! The configuration a VM is built from. It says what exists; how the VM starts is not part of it.

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
    pub firmware: Firmware,
    /// COM1 to COM4.
    pub com_ports: [SerialConfig; 4],
    /// A debug console port, and where its output goes.
    pub debugcon: Option<(u16, SerialConfig)>,
    /// Whether the guest is offered ACPI S4.
    pub hibernation: Hibernation,
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
pub enum Firmware {
    /// A Linux kernel, without any firmware.
    LinuxDirect(LinuxDirect),
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

/// Where a serial port's line ends.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SerialConfig {
    /// There is no such port.
    #[default]
    None,
    /// The front end's console: its standard input and output.
    Console,
    /// Standard error; output only.
    Stderr,
    /// A file, made anew; output only.
    File(PathBuf),
    /// A Unix socket that one client at a time connects to.
    Listen(PathBuf),
    /// A new pseudo-terminal.
    Pty,
}

/// Whether the guest is offered ACPI S4.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default)]
pub enum Hibernation {
    /// `_S4` is not there.
    #[default]
    Off,
    /// The guest can hibernate.
    On,
}
