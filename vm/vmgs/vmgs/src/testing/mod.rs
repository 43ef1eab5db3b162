//! Devices that record writes and inject faults, for tests of what uses a store.

mod recording;

pub use recording::Fault;
pub use recording::FaultModel;
pub use recording::Operation;
pub use recording::RecordingDevice;
