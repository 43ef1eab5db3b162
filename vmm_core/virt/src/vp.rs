use crate::Error;
use crate::IoBus;
use crate::VpIndex;
use crate::x86::Registers;
use crate::x86::VpState;
use std::sync::Arc;

/// A VP not yet bound to its thread.
pub trait VpBinder: Send {
    /// The VP's index.
    fn index(&self) -> VpIndex;

    /// Binds the VP to the calling thread.
    fn bind(self: Box<Self>) -> Result<Box<dyn Vp>, Error>;
}

/// Makes a VP leave the guest.
pub trait VpKick: Send + Sync {
    /// Makes the VP's `run` in progress, or else its next one, return [`VpStop::Requested`] before another
    /// guest instruction is executed. Callable from any thread, the VP's own included.
    fn kick(&self);
}

/// Why a VP's `run` returned.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum VpStop {
    /// It was kicked.
    Requested,
    /// The guest's VP shut down: an exception while delivering a double fault.
    TripleFault,
}

/// Why running a VP failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The hypervisor cannot emulate an instruction.
    #[error(
        "{vp}: the hypervisor cannot emulate the instruction at {rip:#x}: [{}]",
        bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ")
    )]
    Emulation {
        /// The VP.
        vp: VpIndex,
        /// Linear address of the instruction.
        rip: u64,
        /// Up to 15 bytes from there; empty where they could not be read.
        bytes: Vec<u8>,
    },
    /// The hypervisor could not enter the guest.
    #[error("{vp}: entering the guest failed, hardware reason {reason:#x}")]
    FailEntry {
        /// The VP.
        vp: VpIndex,
        /// The hardware's reason code.
        reason: u64,
    },
    /// The hypervisor gave up on the VP.
    #[error("{vp}: hypervisor internal error {suberror}, data {data:x?}")]
    Internal {
        /// The VP.
        vp: VpIndex,
        /// The hypervisor's error code.
        suberror: u32,
        /// The data that came with the code.
        data: Vec<u64>,
    },
    /// An exit that the backend does not handle.
    #[error("{vp}: unexpected exit {exit}")]
    UnexpectedExit {
        /// The VP.
        vp: VpIndex,
        /// The exit, by the hypervisor's name or number.
        exit: String,
    },
    /// A call to the hypervisor failed.
    #[error("{vp}: running the guest failed")]
    Hypervisor {
        /// The VP.
        vp: VpIndex,
        /// The failed call.
        #[source]
        source: Error,
    },
}

/// A VP bound to its thread.
pub trait Vp {
    /// The VP's index.
    fn index(&self) -> VpIndex;

    /// Stops the VP, from any thread.
    fn kicker(&self) -> Arc<dyn VpKick>;

    /// Runs the guest until the VP is kicked or shuts down. On return no guest access is half done: the VP's state is
    /// complete.
    fn run(&mut self, io: &dyn IoBus) -> Result<VpStop, RunError>;

    /// The registers that debugging and booting need.
    fn registers(&mut self) -> Result<Registers, Error>;

    /// Sets those registers.
    fn set_registers(&mut self, registers: &Registers) -> Result<(), Error>;

    /// Writes MSRs, in order, as firmware would have.
    fn set_msrs(&mut self, msrs: &[(u32, u64)]) -> Result<(), Error>;

    /// Returns the VP to power-on: the first VP at the reset vector, the others waiting to be started.
    fn reset(&mut self) -> Result<(), Error>;

    /// Reads the VP's whole state.
    fn save(&mut self) -> Result<VpState, Error>;

    /// Writes the VP's whole state.
    fn restore(&mut self, state: &VpState) -> Result<(), Error>;
}
