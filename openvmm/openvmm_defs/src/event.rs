//! What happens to a VM, as its front ends hear of it.

use firmware_hibernation::HibernationEvent;
use std::time::Instant;
use virt::VpIndex;
use virt::x86::Registers;

/// An event, and when it happened.
#[derive(Debug, Clone)]
pub struct VmEvent {
    /// When.
    pub at: Instant,
    /// What.
    pub kind: VmEventKind,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum VmEventKind {
    /// Everything the configuration names exists.
    Created,
    /// VPs were allowed to run for the first time.
    Started,
    /// The boot processor is about to execute its first instruction.
    FirstInstruction,
    /// A user stopped the VM.
    Paused,
    /// A user let the VM go on.
    Resumed,
    /// The guest or a user reset the VM, and it starts anew.
    Reset,
    /// A user pressed the power button.
    PowerButton,
    /// Something of the firmware that is kept for a hibernated guest.
    Hibernation(HibernationEvent),
    /// The VM runs no more.
    Halted(HaltReason),
}

/// Why a VM runs no more.
#[derive(Debug, Clone)]
pub enum HaltReason {
    /// The guest powered off.
    PowerOff,
    /// The guest hibernated.
    Hibernate,
    /// The guest reset the machine, and the VM was to end then.
    Reset,
    /// The guest's kernel panicked.
    GuestPanic,
    /// A VP shut down.
    TripleFault {
        /// Which.
        vp: VpIndex,
        /// Its registers, where they could be read.
        registers: Option<Box<Registers>>,
    },
    /// The hypervisor could not go on with a VP; the text says how.
    Hypervisor(String),
    /// The VMM failed; the text says how.
    Error(String),
}

impl HaltReason {
    /// The reason's stable name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::PowerOff => "power_off",
            Self::Hibernate => "hibernate",
            Self::Reset => "reset",
            Self::GuestPanic => "guest_panic",
            Self::TripleFault { .. } => "triple_fault",
            Self::Hypervisor(_) => "hypervisor_error",
            Self::Error(_) => "error",
        }
    }
}
