//! What happens when the guest ends.

use crate::exit::ExitCode;
use openvmm_defs::event::HaltReason;

/// What happens when the guest ends in one way.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default)]
pub(crate) enum GuestAction {
    /// openvmm ends, with the exit code of the reason.
    #[default]
    End,
    /// openvmm ends with this exit code.
    Exit(u8),
    /// The VM stays as it is, to be inspected.
    Halt,
}

/// What happens when the guest ends, by how it ends.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default)]
pub(crate) struct GuestActions {
    /// It reset the machine, and the machine is not to start again.
    pub(crate) reset: GuestAction,
    /// It powered off or hibernated.
    pub(crate) shutdown: GuestAction,
    /// A VP shut down (triple fault), or its kernel panicked.
    pub(crate) crash: GuestAction,
}

/// What openvmm does when the VM has halted.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) enum OnHalt {
    /// It ends.
    Exit(ExitCode),
    /// It goes on without a running guest.
    Stay,
}

impl GuestActions {
    /// What to do when the VM has halted for this reason.
    pub(crate) fn on_halt(self, reason: &HaltReason) -> OnHalt {
        let action = match reason {
            HaltReason::Reset => self.reset,
            HaltReason::PowerOff | HaltReason::Hibernate => self.shutdown,
            HaltReason::TripleFault { .. } | HaltReason::GuestPanic => self.crash,
            HaltReason::Hypervisor(_) | HaltReason::Error(_) => GuestAction::End,
        };
        match action {
            GuestAction::End => OnHalt::Exit(reason.into()),
            GuestAction::Exit(code) => OnHalt::Exit(ExitCode(code.into())),
            GuestAction::Halt => OnHalt::Stay,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_to_end_has_its_action() {
        let actions = GuestActions {
            reset: GuestAction::Exit(9),
            shutdown: GuestAction::Halt,
            crash: GuestAction::End,
        };
        let failed = || HaltReason::Error("broken".into());
        for (reason, expected) in [
            (HaltReason::Reset, OnHalt::Exit(ExitCode(9))),
            (HaltReason::PowerOff, OnHalt::Stay),
            (HaltReason::Hibernate, OnHalt::Stay),
            (HaltReason::GuestPanic, OnHalt::Exit(ExitCode::GUEST_PANIC)),
            (failed(), OnHalt::Exit(ExitCode::FAILURE)),
        ] {
            assert_eq!(actions.on_halt(&reason), expected, "{}", reason.name());
        }
        let exit = GuestActions {
            shutdown: GuestAction::Exit(0),
            ..GuestActions::default()
        };
        let hibernated = exit.on_halt(&HaltReason::Hibernate);
        assert_eq!(hibernated, OnHalt::Exit(ExitCode(0)));
    }
}
