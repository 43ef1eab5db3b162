//! The VM worker: builds a VM from its configuration and runs it.
#![forbid(unsafe_code)]

mod handle;
mod launch;
mod machine;
mod resolvers;
mod worker;

pub use handle::VmHandle;
pub use launch::LaunchError;
pub use launch::LaunchOptions;
pub use launch::check_memory;
pub use launch::launch;
pub use machine::BootError;
pub use machine::FirmwareDeviceError;
pub use machine::LoadGuestError;
pub use machine::MachineError;
pub use machine::MediaError;
pub use machine::MemorySizeError;
pub use machine::ProcessorError;
pub use machine::RestorableVm;
pub use machine::RestoreSnapshotError;
pub use machine::SavedDiskError;
pub use machine::SnapshotSummary;
pub use machine::UefiError;
pub use machine::VariablesError;
pub use machine::VmgsError;
pub use machine::open_snapshot;
pub use machine_parts::VpError;
pub use vm_resource::ResolveError;
pub use worker::VmEventSink;
