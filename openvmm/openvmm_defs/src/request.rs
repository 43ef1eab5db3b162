//! What a front end can ask of a running VM.

pub use machine_parts::Change;
use mesh::Rpc;
use serde_json::Value;

/// A request to the VM's worker.
#[derive(Debug)]
pub enum VmRequest {
    /// Stop the VPs and the guest's clocks.
    Pause(Rpc<(), Result<Change, RequestError>>),
    /// Let them go on.
    Resume(Rpc<(), Result<Change, RequestError>>),
    /// Reset the machine and start anew; a paused VM stays paused.
    Reset(Rpc<(), Result<(), RequestError>>),
    /// Press the power button.
    PowerButton(Rpc<(), Result<(), RequestError>>),
    /// The live tree of the VM's state.
    Inspect(Rpc<(), Value>),
    /// Stop the VM for good and bring out what its serial ports still hold.
    Stop(Rpc<(), ()>),
}

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The VM has halted.
    #[error("the VM has halted")]
    Halted,
    /// The VM is paused, and the request needs a running guest.
    #[error("the VM is paused; resume it first")]
    Paused,
    /// Something failed; the text says what.
    #[error("{0}")]
    Failed(String),
}
