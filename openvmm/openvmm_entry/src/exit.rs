//! The process's exit codes. They are part of the documented interface.

use openvmm_defs::event::HaltReason;

/// How the process ends.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) enum ExitReason {
    /// The guest powered off.
    PowerOff,
    /// The VMM or the host failed.
    Failure,
    /// The command line or the configuration is wrong.
    Config,
    /// The hypervisor is missing, not permitted, or failed.
    Hypervisor,
    /// A VP of the guest shut down (triple fault).
    TripleFault,
    /// The guest reset the machine, with `--halt-on-reset`.
    Reset,
    /// The guest's kernel panicked.
    GuestPanic,
    /// The guest hibernated.
    Hibernated,
    /// The user quit from the console.
    Quit,
    /// A signal ended the VM.
    Signal(i32),
}

impl ExitReason {
    /// The exit code.
    pub(crate) fn code(self) -> i32 {
        match self {
            Self::PowerOff => 0,
            Self::Failure => 1,
            Self::Config => 2,
            Self::Hypervisor => 3,
            Self::TripleFault => 4,
            Self::Reset => 5,
            Self::GuestPanic => 6,
            Self::Hibernated => 7,
            Self::Quit => 8,
            Self::Signal(number) => 128 + number,
        }
    }
}

impl From<&HaltReason> for ExitReason {
    fn from(reason: &HaltReason) -> Self {
        match reason {
            HaltReason::PowerOff => Self::PowerOff,
            HaltReason::Hibernate => Self::Hibernated,
            HaltReason::Reset => Self::Reset,
            HaltReason::GuestPanic => Self::GuestPanic,
            HaltReason::TripleFault { .. } => Self::TripleFault,
            HaltReason::Hypervisor(_) => Self::Hypervisor,
            HaltReason::Error(_) => Self::Failure,
        }
    }
}
