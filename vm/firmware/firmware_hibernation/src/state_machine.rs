//! The state machine of hibernation. It takes inputs and returns effects; it has none of its own.

use crate::config::ConsumePolicy;
use crate::config::Override;
use crate::config::TakeoverSignal;
use serde::Serialize;

/// Whether the firmware that runs is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageStatus {
    /// It is: it can be restored after a hibernation.
    Stored,
    /// It is not.
    NotStored,
}

/// What a start began with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The guest was not hibernated.
    Cold,
    /// A token, which stays in the store for now.
    Token,
}

/// The state of a VM with regard to hibernation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum HibernationState {
    /// It does not run, and the store was not probed.
    Off,
    /// It runs, and hibernation is off or has no store: nothing is read or written.
    Untracked,
    /// The operator discarded the hibernated session; token and record are being deleted.
    Discarding,
    /// It is about to start on the host's firmware, which is to be captured.
    Capturing {
        /// What the start began with.
        origin: Origin,
    },
    /// It is about to start on the stored firmware, which is to be restored.
    Restoring,
    /// It runs, and the store has no token, or one that says that it may be about to hibernate.
    Running {
        /// Whether the firmware that runs is stored.
        image: ImageStatus,
    },
    /// It runs after a start with a token, which is still in the store: after a crash the next start uses it.
    Waking {
        /// Whether the firmware that runs is stored.
        image: ImageStatus,
        /// Whether an operating system was seen that is past the decision to resume.
        taken_over: bool,
    },
    /// The start was refused.
    Refused,
}

/// The outcome of probing the store before a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ProbeOutcome {
    /// Hibernation is off.
    Disabled {
        /// Whether there is a token nevertheless.
        token: bool,
    },
    /// There is no store.
    NoStore,
    /// There is no token, or one that says that the guest did not hibernate.
    NotHibernated,
    /// A token, without stored firmware.
    NotStored,
    /// The guest is or may be hibernated, with stored firmware that is intact and belongs to this machine.
    Stored,
    /// The guest is or may be hibernated, and its firmware cannot be restored.
    Unusable,
    /// A corrupt token, without stored firmware.
    CorruptToken,
}

/// An input of the state machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Input {
    /// The VM is to be started.
    Start {
        /// The outcome of probing the store.
        found: ProbeOutcome,
        /// The override of the operator.
        requested: Option<Override>,
    },
    /// Deleting token and record in one commit ended.
    Discarded(Outcome),
    /// The capture ended.
    Captured(ImageStatus),
    /// The restore ended.
    Restored(Outcome),
    /// The VPs are about to run.
    Run,
    /// The guest ran its ACPI method `_PTS` (ACPI 6.5, section 7.4.1).
    Prepare(Sleep),
    /// The guest ran its ACPI method `_WAK` (ACPI 6.5, section 7.4.5) for S4.
    Wake,
    /// The firmware signalled that it handed over to an operating system.
    RuntimeHandoff,
    /// The guest powered the machine off (S5).
    PowerOff,
    /// The guest or the operator reset the machine.
    Reset,
    /// The guest hibernated (S4).
    Hibernate,
    /// The VM ended in another way: a triple fault, a failure, or the operator stopped it.
    Crash,
}

/// What a guest prepares for by `_PTS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sleep {
    /// S1 to S3: a sleep in which memory keeps its content.
    Suspend,
    /// S4.
    Hibernate,
    /// S5. An initial RAM disk that waits for the passphrase of the hibernation image can do this too.
    PowerOff,
}

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Outcome {
    /// It succeeded.
    Done,
    /// It failed, with no effect.
    Failed,
}

/// An effect that the engine performs, in the order they are returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Effect {
    /// Emit an event.
    Say(Message),
    /// Make durable that the guest may be about to hibernate.
    MarkPreparing,
    /// Make the token durable.
    WriteToken(ImageStatus),
    /// Delete the token: the guest has resumed.
    Consume(Consumer),
    /// Delete the token, if there is one.
    ClearToken,
}

/// The event of [`Effect::Say`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Message {
    /// The store has a token, but hibernation is off.
    TokenIgnored,
    /// Hibernation is on, but there is no store.
    NoStore,
    /// The guest resumes on the host's firmware, because its own is not stored.
    NotPinned,
    /// The token is corrupt and no firmware is stored: the start goes on.
    CorruptTokenIgnored,
    /// The guest starts on the host's firmware, because the operator asked for it.
    CurrentFirmwareUsed,
    /// The machine went down, and no operating system was seen taking over: the token stays.
    TokenKept,
    /// The guest hibernated, but nothing was recorded.
    HibernatedUntracked,
}

/// Why a token was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Consumer {
    /// The policy is to delete it before the VPs run.
    Start,
    /// The operating system resumed: it ran `_WAK` for S4.
    Wake,
    /// The firmware handed over to an operating system.
    RuntimeHandoff,
}

/// The state machine.
#[derive(Debug, Clone)]
pub(crate) struct StateMachine {
    consume: ConsumePolicy,
    takeover: TakeoverSignal,
    state: HibernationState,
}

impl StateMachine {
    /// Starts in [`HibernationState::Off`].
    pub(crate) fn new(consume: ConsumePolicy, takeover: TakeoverSignal) -> Self {
        Self::in_state(consume, takeover, HibernationState::Off)
    }

    /// Starts in this state.
    pub(crate) fn in_state(
        consume: ConsumePolicy,
        takeover: TakeoverSignal,
        state: HibernationState,
    ) -> Self {
        Self {
            consume,
            takeover,
            state,
        }
    }

    /// The present state.
    pub(crate) fn state(&self) -> HibernationState {
        self.state
    }

    /// Takes an input and returns the effects. An input that is not expected in the state is ignored.
    pub(crate) fn handle(&mut self, input: Input) -> Vec<Effect> {
        let (next, effects) = self.step(input);
        self.state = next;
        effects
    }

    fn step(&self, input: Input) -> (HibernationState, Vec<Effect>) {
        use Effect::ClearToken;
        use Effect::Say;
        let state = self.state;
        let stay = (state, Vec::new());
        let off = |effects: Vec<Effect>| (HibernationState::Off, effects);
        match (state, input) {
            // A start probes the store anew in every state.
            (_, Input::Start { found, requested }) => start(found, requested),

            (HibernationState::Off | HibernationState::Refused, _) => stay,

            (HibernationState::Untracked, Input::Hibernate) => {
                off(vec![Say(Message::HibernatedUntracked)])
            }
            (HibernationState::Untracked, Input::PowerOff | Input::Reset | Input::Crash) => {
                off(vec![])
            }

            (HibernationState::Discarding, Input::Discarded(Outcome::Done)) => (
                HibernationState::Capturing {
                    origin: Origin::Cold,
                },
                vec![],
            ),
            (HibernationState::Discarding, Input::Discarded(Outcome::Failed)) => {
                (HibernationState::Refused, vec![])
            }

            (HibernationState::Capturing { origin }, Input::Captured(image)) => match origin {
                Origin::Cold => (HibernationState::Running { image }, vec![]),
                Origin::Token => (waking(image), vec![]),
            },

            (HibernationState::Restoring, Input::Restored(Outcome::Done)) => {
                (waking(ImageStatus::Stored), vec![])
            }
            (HibernationState::Restoring, Input::Restored(Outcome::Failed)) => {
                (HibernationState::Refused, vec![])
            }

            // The VM went down before it ran: the store is not changed.
            (
                HibernationState::Discarding
                | HibernationState::Capturing { .. }
                | HibernationState::Restoring,
                Input::PowerOff | Input::Reset | Input::Hibernate | Input::Crash,
            ) => off(vec![]),

            // If writing the token fails, or the power does before it is written, this tells the next start not
            // to replace the stored firmware.
            (
                HibernationState::Running {
                    image: ImageStatus::Stored,
                },
                Input::Prepare(Sleep::Hibernate),
            ) => (state, vec![Effect::MarkPreparing]),
            (HibernationState::Running { .. }, Input::PowerOff | Input::Reset) => {
                off(vec![ClearToken])
            }
            (HibernationState::Running { image }, Input::Hibernate) => {
                off(vec![Effect::WriteToken(image)])
            }
            (HibernationState::Running { .. }, Input::Crash) => off(vec![]),

            (HibernationState::Waking { image, taken_over }, input) => {
                self.waking(image, taken_over, input)
            }

            (
                HibernationState::Untracked
                | HibernationState::Discarding
                | HibernationState::Capturing { .. }
                | HibernationState::Restoring
                | HibernationState::Running { .. },
                _,
            ) => stay,
        }
    }

    /// The step in [`HibernationState::Waking`].
    fn waking(
        &self,
        image: ImageStatus,
        taken_over: bool,
        input: Input,
    ) -> (HibernationState, Vec<Effect>) {
        let stay = (self.state, Vec::new());
        let taken = HibernationState::Waking {
            image,
            taken_over: true,
        };
        let consume = |by| {
            (
                HibernationState::Running { image },
                vec![Effect::Consume(by)],
            )
        };
        let seen = |by| match self.consume {
            ConsumePolicy::AtStart | ConsumePolicy::Handoff => consume(by),
            ConsumePolicy::NextTransition => (taken, vec![]),
        };
        let keep = (HibernationState::Off, vec![Effect::Say(Message::TokenKept)]);
        match input {
            Input::Run if self.consume == ConsumePolicy::AtStart => consume(Consumer::Start),
            // An operating system that prepares to sleep is past the decision to resume. When it hibernates, it
            // also runs `_WAK` before it powers off, so that later `_WAK` calls do not show that it resumed.
            Input::Prepare(Sleep::Hibernate) => {
                let effects = match image {
                    ImageStatus::Stored => vec![Effect::MarkPreparing],
                    ImageStatus::NotStored => vec![],
                };
                (taken, effects)
            }
            Input::Prepare(Sleep::Suspend) => (taken, vec![]),
            // An initial RAM disk that waits for a passphrase may power off too, so that this counts only by the
            // policy that accepts it.
            Input::Prepare(Sleep::PowerOff) if self.consume == ConsumePolicy::NextTransition => {
                (taken, vec![])
            }
            Input::Wake if !taken_over => seen(Consumer::Wake),
            Input::RuntimeHandoff
                if !taken_over && self.takeover == TakeoverSignal::RuntimeHandoff =>
            {
                seen(Consumer::RuntimeHandoff)
            }
            // Firmware, boot loaders and an operating system that did not get to resume power off and reset the
            // machine too: the hibernated session may still exist.
            Input::PowerOff | Input::Reset if taken_over => {
                (HibernationState::Off, vec![Effect::ClearToken])
            }
            // Only an operating system hibernates.
            Input::Hibernate if taken_over || self.takeover == TakeoverSignal::AcpiWake => {
                (HibernationState::Off, vec![Effect::WriteToken(image)])
            }
            Input::PowerOff | Input::Reset | Input::Hibernate | Input::Crash => keep,
            Input::Start { .. }
            | Input::Discarded(_)
            | Input::Captured(_)
            | Input::Restored(_)
            | Input::Run
            | Input::Prepare(Sleep::PowerOff)
            | Input::Wake
            | Input::RuntimeHandoff => stay,
        }
    }
}

fn waking(image: ImageStatus) -> HibernationState {
    HibernationState::Waking {
        image,
        taken_over: false,
    }
}

fn start(found: ProbeOutcome, requested: Option<Override>) -> (HibernationState, Vec<Effect>) {
    use Effect::Say;
    let capture = |origin, effects| (HibernationState::Capturing { origin }, effects);
    let discard = (HibernationState::Discarding, vec![]);
    // The record stays: the token may still need it.
    let current = (
        waking(ImageStatus::NotStored),
        vec![Say(Message::CurrentFirmwareUsed)],
    );
    match (found, requested) {
        (ProbeOutcome::Disabled { token: true }, _) => (
            HibernationState::Untracked,
            vec![Say(Message::TokenIgnored)],
        ),
        (ProbeOutcome::Disabled { token: false }, _) => (HibernationState::Untracked, vec![]),
        (ProbeOutcome::NoStore, _) => (HibernationState::Untracked, vec![Say(Message::NoStore)]),
        (ProbeOutcome::NotHibernated, _) => capture(Origin::Cold, vec![]),
        (_, Some(Override::Discard)) => discard,
        (ProbeOutcome::NotStored, _) => capture(Origin::Token, vec![Say(Message::NotPinned)]),
        // The capture deletes it.
        (ProbeOutcome::CorruptToken, _) => {
            capture(Origin::Cold, vec![Say(Message::CorruptTokenIgnored)])
        }
        (ProbeOutcome::Stored | ProbeOutcome::Unusable, Some(Override::CurrentFirmware)) => current,
        (ProbeOutcome::Stored, None) => (HibernationState::Restoring, vec![]),
        (ProbeOutcome::Unusable, None) => (HibernationState::Refused, vec![]),
    }
}

#[cfg(test)]
#[path = "state_machine_test.rs"]
mod tests;
