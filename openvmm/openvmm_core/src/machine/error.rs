use super::firmware::BootError;
use super::firmware::UefiError;
use super::pci::PciError;
use super::serial::SerialError;
use super::vmgs_store::VmgsError;
use guest_memory::LayoutError;
use guest_memory::MemoryError;
use machine_parts::VpError;

/// Why a machine cannot be built, or reset.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The hypervisor failed.
    #[error(transparent)]
    Hypervisor(#[from] virt::Error),
    /// The VPs' threads failed.
    #[error(transparent)]
    Vps(#[from] VpError),
    /// The processors cannot be arranged.
    #[error(transparent)]
    Topology(#[from] virt::TopologyError),
    /// Guest RAM cannot be laid out.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Guest RAM cannot be had.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The ACPI tables cannot be made.
    #[error("the ACPI tables cannot be made")]
    Acpi(#[from] acpi_spec::AcpiError),
    /// What runs first cannot be loaded.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The VMGS file cannot be used.
    #[error(transparent)]
    Vmgs(#[from] VmgsError),
    /// The firmware's devices cannot be made.
    #[error(transparent)]
    Uefi(#[from] UefiError),
    /// The chipset's bridges cannot be made.
    #[error("the PCI bridges cannot be made")]
    Bridges(#[from] pci_core::LayoutError),
    /// A PCI device cannot be made.
    #[error(transparent)]
    Pci(#[from] PciError),
    /// A serial port has no other end.
    #[error(transparent)]
    Serial(#[from] SerialError),
    /// The devices do not fit together.
    #[error(transparent)]
    Chipset(#[from] vmotherboard::BuildError),
    /// The parts' names or dependencies are wrong.
    #[error("the machine's parts do not fit together")]
    Units(#[from] state_unit::BuildError),
    /// The parts are not in a state to start from.
    #[error(transparent)]
    State(#[from] state_unit::WrongState),
    /// A part cannot be reset.
    #[error(transparent)]
    Reset(#[from] state_unit::ResetUnitsError),
}

impl MachineError {
    /// Whether the hypervisor is at fault.
    pub fn is_hypervisor(&self) -> bool {
        matches!(self, Self::Hypervisor(_) | Self::Vps(VpError::Bind { .. }))
    }

    /// Whether a hibernated guest could not be resumed as it was.
    pub fn is_refused_resume(&self) -> bool {
        matches!(self, Self::Boot(BootError::Uefi(UefiError::Refused(_))))
    }

    /// Whether another configuration, or other files, would help.
    pub fn is_config(&self) -> bool {
        matches!(
            self,
            Self::Topology(_)
                | Self::Layout(_)
                | Self::Boot(_)
                | Self::Serial(_)
                | Self::Uefi(_)
                | Self::Vmgs(_)
                | Self::Pci(_)
                | Self::Chipset(_)
        )
    }
}
