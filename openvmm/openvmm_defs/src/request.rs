//! What a front end can ask of a running VM.

pub use machine_parts::Change;
use mesh::Attachments;
use mesh::InspectTree;
use mesh::RemoteError;
use mesh::Rpc;
use minicbor::Decode;
use minicbor::Encode;
use std::path::PathBuf;

/// A request to the VM's worker, which may be in another process.
#[derive(Debug, Encode, Decode)]
#[cbor(context_bound = "AsMut<Attachments>")]
pub enum VmRequest {
    /// Stop the VPs and the guest's clocks.
    #[n(0)]
    #[cbor(map)]
    Pause(#[n(1)] Rpc<(), Result<Change, RequestError>>),
    /// Start the VPs and the guest's clocks again.
    #[n(1)]
    #[cbor(map)]
    Resume(#[n(1)] Rpc<(), Result<Change, RequestError>>),
    /// Reset the machine and start it again; a paused VM stays paused.
    #[n(2)]
    #[cbor(map)]
    Reset(#[n(1)] Rpc<(), Result<(), RequestError>>),
    /// Press the power button.
    #[n(3)]
    #[cbor(map)]
    PowerButton(#[n(1)] Rpc<(), Result<(), RequestError>>),
    /// Show the VM's present state.
    #[n(4)]
    #[cbor(map)]
    Inspect(#[n(1)] Rpc<(), InspectTree>),
    /// Stop the VM for good and write out what its serial ports still hold.
    #[n(5)]
    #[cbor(map)]
    Stop(#[n(1)] Rpc<(), ()>),
    /// Write a snapshot. The VM is paused meanwhile, and then goes on as it was.
    #[n(6)]
    #[cbor(map)]
    SaveSnapshot(#[n(1)] Rpc<SaveSnapshot, Result<SavedSnapshot, RequestError>>),
}

/// Where a snapshot is to be written.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SaveSnapshot {
    /// The directory. It must not exist, and its parent must.
    #[cbor(n(1), with = "mesh::encoding::path")]
    pub dir: PathBuf,
}

/// A snapshot that was written.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SavedSnapshot {
    /// The size of guest RAM in bytes.
    #[n(1)]
    pub memory: u64,
    /// How much of it was stored, in bytes: pages of zeros are not.
    #[n(2)]
    pub stored: u64,
    /// How long the guest was stopped for it, in milliseconds. Zero if it was paused anyway.
    #[n(3)]
    pub paused_ms: u64,
}

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, thiserror::Error)]
pub enum RequestError {
    /// The VM has halted.
    #[error("the VM has halted")]
    #[n(0)]
    Halted,
    /// The VM is paused, and the request needs a running guest.
    #[error("the VM is paused; resume it first")]
    #[n(1)]
    Paused,
    /// Something failed.
    #[error(transparent)]
    #[n(2)]
    #[cbor(map)]
    Failed(#[n(1)] RemoteError),
}
