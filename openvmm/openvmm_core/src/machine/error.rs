use super::firmware::BootError;
use super::firmware::FirmwareDeviceError;
use super::firmware::UefiError;
use super::guest::LoadGuestError;
use super::memory::MemorySizeError;
use super::processor::ProcessorError;
use super::snapshot::SavedDiskError;
use super::vmgs_store::VmgsError;
use chipset_device::MissingService;
use guest_memory::MemoryError;
use machine_parts::LifecycleError;
use machine_parts::VpError;
use openvmm_defs::devices::PciSlotError;
use vm_resource::ResolveError;

/// Why a machine cannot be built, or reset.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The hypervisor failed.
    #[error(transparent)]
    Hypervisor(#[from] virt::Error),
    /// The VPs' threads failed.
    #[error(transparent)]
    Vps(#[from] VpError),
    /// The saved machine's guest would not find its processor's features.
    #[error(transparent)]
    Processor(#[from] ProcessorError),
    /// The saved machine lacks a device.
    #[error("the saved machine has no state of the device {0}, which this machine has")]
    NoSavedState(String),
    /// A disk of the saved machine is not what it was.
    #[error(transparent)]
    SavedDisk(#[from] SavedDiskError),
    /// The processors cannot be arranged.
    #[error(transparent)]
    Topology(#[from] virt::TopologyError),
    /// Guest RAM cannot have its size.
    #[error(transparent)]
    MemorySize(#[from] MemorySizeError),
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
    /// The firmware's devices cannot be built.
    #[error(transparent)]
    FirmwareDevices(#[from] FirmwareDeviceError),
    /// A PCI function cannot be where it is to be.
    #[error(transparent)]
    PciSlot(#[from] PciSlotError),
    /// The devices have more MSI-X vectors than the hypervisor.
    #[error(
        "the devices need {needed} interrupt vectors (MSI-X), and the hypervisor has {available}; give the disks fewer \
         queues (queues=N), or use fewer devices"
    )]
    MsiVectors {
        /// The number that they need.
        needed: u32,
        /// The number that there are.
        available: u32,
    },
    /// A device cannot be built.
    #[error(transparent)]
    Device(#[from] ResolveError),
    /// The devices do not offer what the machine needs.
    #[error(transparent)]
    Service(#[from] MissingService),
    /// The devices do not fit together.
    #[error(transparent)]
    Chipset(#[from] vmotherboard::ChipsetError),
    /// The parts' names or dependencies are wrong.
    #[error("the machine's parts do not fit together")]
    Units(#[from] state_unit::BuildUnitsError),
    /// What runs first cannot be loaded, or the saved machine cannot be restored.
    #[error(transparent)]
    Lifecycle(#[from] LifecycleError<LoadGuestError>),
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
        let memory = |error: &MemoryError| match error {
            MemoryError::File { .. }
            | MemoryError::NotRegular { .. }
            | MemoryError::FileInUse { .. }
            | MemoryError::FileSize { .. }
            | MemoryError::NotHugePages { .. }
            | MemoryError::HugePages { .. }
            | MemoryError::DeviceRegion { .. } => true,
            MemoryError::Map { .. }
            | MemoryError::Memfd { .. }
            | MemoryError::Preallocate { .. } => false,
        };
        match self {
            Self::Memory(error) => memory(error),
            Self::Vmgs(error) => !error.is_host_failure(),
            _ => matches!(
                self,
                Self::Topology(_)
                    | Self::MemorySize(_)
                    | Self::Processor(_)
                    | Self::NoSavedState(_)
                    | Self::SavedDisk(_)
                    | Self::Boot(_)
                    | Self::FirmwareDevices(_)
                    | Self::PciSlot(_)
                    | Self::MsiVectors { .. }
                    | Self::Device(_)
                    | Self::Chipset(_)
            ),
        }
    }
}
