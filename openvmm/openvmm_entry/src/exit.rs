//! The process's exit codes. They are part of the documented interface.

use openvmm_defs::event::HaltReason;

/// The process's exit code.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) struct ExitCode(pub(crate) i32);

impl ExitCode {
    /// The guest powered off, or a command succeeded.
    pub(crate) const SUCCESS: Self = Self(0);
    /// The VMM or the host failed.
    pub(crate) const FAILURE: Self = Self(1);
    /// The command line or the configuration is wrong.
    pub(crate) const CONFIG: Self = Self(2);
    /// The hypervisor is missing, not permitted, or failed.
    pub(crate) const HYPERVISOR: Self = Self(3);
    /// A VP of the guest shut down (triple fault).
    pub(crate) const TRIPLE_FAULT: Self = Self(4);
    /// The guest reset the machine, with `--halt-on-reset`.
    pub(crate) const RESET: Self = Self(5);
    /// The guest's kernel panicked.
    pub(crate) const GUEST_PANIC: Self = Self(6);
    /// The guest hibernated.
    pub(crate) const HIBERNATED: Self = Self(7);
    /// The user quit from the console.
    pub(crate) const QUIT: Self = Self(8);

    /// A signal ended the VM.
    pub(crate) fn signal(number: i32) -> Self {
        Self(128 + number)
    }
}

impl From<&HaltReason> for ExitCode {
    fn from(reason: &HaltReason) -> Self {
        match reason {
            HaltReason::PowerOff => Self::SUCCESS,
            HaltReason::Hibernate => Self::HIBERNATED,
            HaltReason::Reset => Self::RESET,
            HaltReason::GuestPanic => Self::GUEST_PANIC,
            HaltReason::TripleFault { .. } => Self::TRIPLE_FAULT,
            HaltReason::Hypervisor(_) => Self::HYPERVISOR,
            HaltReason::Error(_) => Self::FAILURE,
        }
    }
}
