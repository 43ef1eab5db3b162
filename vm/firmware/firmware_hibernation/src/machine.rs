//! The state machine: what happens to the VM goes in, what is to be done comes out. It does nothing
//! itself.

use crate::config::ConsumePolicy;
use crate::config::Override;
use crate::config::TakeoverSignal;
use serde::Serialize;

/// Whether the firmware that runs is in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Image {
    /// It is, and a hibernation can rely on it.
    Stored,
    /// It is not.
    NotStored,
}

/// What a session started from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The guest was not hibernated.
    Cold,
    /// A token, which stays in the store for now.
    Token,
}

/// Where a VM is in its life, as far as hibernation cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum State {
    /// It is not running, and what it starts from was not looked at.
    Off,
    /// It runs, and hibernation is off or has no store: nothing is read or written.
    Untracked,
    /// The operator gave the hibernated session up; the store is being told.
    Discarding,
    /// It is about to start on the host's firmware, which is being captured.
    Capturing {
        /// What it starts from.
        origin: Origin,
    },
    /// It is about to start on the stored firmware, which is being restored.
    Restoring,
    /// It runs, and the store has no token.
    Running {
        /// Whether a hibernation can be pinned.
        image: Image,
    },
    /// It runs since a token was found, and the token is still in the store: a crash goes back to it.
    Waking {
        /// Whether a hibernation can be pinned.
        image: Image,
        /// Whether there was a sign that the operating system, and not only the firmware, is running.
        taken_over: bool,
    },
    /// It was not allowed to start.
    Refused,
}

/// What looking at the store before a start came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Found {
    /// Hibernation is off.
    Disabled {
        /// Whether there is a token all the same.
        token: bool,
    },
    /// There is no store.
    NoStore,
    /// No token, or one that says that the guest did not hibernate.
    NotHibernated,
    /// A token without firmware.
    NotStored,
    /// A token with firmware, which is sound and belongs to this machine.
    Stored,
    /// A token with firmware, which cannot be used.
    Unusable,
    /// Bytes that are no token, beside firmware that is sound.
    CorruptTokenWithImage,
    /// Bytes that are no token, and no firmware.
    CorruptToken,
    /// The token could not be read.
    UnreadableToken,
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// The VM is to be started.
    Start {
        /// What the store says.
        found: Found,
        /// What the operator says.
        requested: Option<Override>,
    },
    /// Discarding ended.
    Discarded(Outcome),
    /// Capturing ended.
    Captured(Image),
    /// Restoring ended.
    Restored(Outcome),
    /// The VPs are about to run.
    Run,
    /// The guest ran its ACPI method `_PTS` (ACPI 6.5, section 7.4.1): its operating system is alive.
    PrepareToSleep,
    /// The guest ran its ACPI method `_WAK` (ACPI 6.5, section 7.4.5) for S4.
    Wake,
    /// The firmware handed the machine over to the operating system, and said so.
    RuntimeHandoff,
    /// The guest powered the machine off (S5).
    PowerOff,
    /// The guest, or the operator, reset the machine.
    Reset,
    /// The guest hibernated (S4).
    Hibernate,
    /// The VM ended in any other way: a triple fault, a failure, an operator who stopped it.
    Crash,
}

/// How something ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Well.
    Done,
    /// It did not happen.
    Failed,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Say this.
    Say(Message),
    /// Refuse the start.
    Refuse,
    /// Delete token and record in one commit, and say how it [ended](Event::Discarded).
    Discard,
    /// Store the firmware that is about to run, unless it is stored already, and say how it
    /// [ended](Event::Captured).
    Capture,
    /// Put the stored firmware into the machine, and say how it [ended](Event::Restored).
    Restore,
    /// Make the token durable before anybody is told that the guest hibernated.
    WriteToken(Image),
    /// The token has served: delete it.
    Consume(Consumer),
    /// Delete the token if there is one.
    ClearToken,
}

/// What the operator should hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Message {
    /// The store has a token, and hibernation is off: it is left alone.
    TokenIgnored,
    /// Hibernation is on, and there is no store.
    NoStore,
    /// The guest wakes on the host's firmware, because its own was not stored.
    NotPinned,
    /// What should be a token is none; there is no stored firmware either, and the start goes on.
    CorruptTokenIgnored,
    /// The guest wakes on the host's firmware because the operator wants it so.
    CurrentFirmwareUsed,
    /// The machine went down before the operating system took over; the token stays.
    TokenKept,
    /// The guest hibernated, and nothing could be recorded.
    HibernatedUntracked,
}

/// What ended the time of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Consumer {
    /// The policy to do so before the VPs run.
    Start,
    /// The guest's operating system woke up: it ran `_WAK` for S4.
    Wake,
    /// The firmware handed the machine over.
    RuntimeHandoff,
}

/// A state machine.
#[derive(Debug, Clone)]
pub struct Machine {
    consume: ConsumePolicy,
    takeover: TakeoverSignal,
    state: State,
}

impl Machine {
    /// A machine that is off.
    pub fn new(consume: ConsumePolicy, takeover: TakeoverSignal) -> Self {
        Self::in_state(consume, takeover, State::Off)
    }

    /// A machine in this state.
    pub fn in_state(consume: ConsumePolicy, takeover: TakeoverSignal, state: State) -> Self {
        Self {
            consume,
            takeover,
            state,
        }
    }

    /// Where it is.
    pub fn state(&self) -> State {
        self.state
    }

    /// Takes an event in, and gives out what is to be done about it. What makes no sense in a state
    /// changes nothing.
    pub fn handle(&mut self, event: Event) -> Vec<Effect> {
        let (next, effects) = self.step(event);
        self.state = next;
        effects
    }

    fn step(&self, event: Event) -> (State, Vec<Effect>) {
        use Effect::ClearToken;
        use Effect::Say;
        let state = self.state;
        let stay = (state, Vec::new());
        let off = |effects: Vec<Effect>| (State::Off, effects);
        match (state, event) {
            // Whatever was before, a start looks at the store anew.
            (_, Event::Start { found, requested }) => start(found, requested),

            (State::Off | State::Refused, _) => stay,

            (State::Untracked, Event::Hibernate) => off(vec![Say(Message::HibernatedUntracked)]),
            (State::Untracked, Event::PowerOff | Event::Reset | Event::Crash) => off(vec![]),

            (State::Discarding, Event::Discarded(Outcome::Done)) => (
                State::Capturing {
                    origin: Origin::Cold,
                },
                vec![Effect::Capture],
            ),
            (State::Discarding, Event::Discarded(Outcome::Failed)) => {
                (State::Refused, vec![Effect::Refuse])
            }

            (State::Capturing { origin }, Event::Captured(image)) => match origin {
                Origin::Cold => (State::Running { image }, vec![]),
                Origin::Token => (waking(image), vec![]),
            },

            (State::Restoring, Event::Restored(Outcome::Done)) => (waking(Image::Stored), vec![]),
            (State::Restoring, Event::Restored(Outcome::Failed)) => {
                (State::Refused, vec![Effect::Refuse])
            }

            // The VM went down before it ran: the store stays as it is.
            (
                State::Discarding | State::Capturing { .. } | State::Restoring,
                Event::PowerOff | Event::Reset | Event::Hibernate | Event::Crash,
            ) => off(vec![]),

            (State::Running { .. }, Event::PowerOff | Event::Reset) => off(vec![ClearToken]),
            (State::Running { image }, Event::Hibernate) => off(vec![Effect::WriteToken(image)]),
            (State::Running { .. }, Event::Crash) => off(vec![]),

            (State::Waking { image, taken_over }, event) => self.waking(image, taken_over, event),

            (
                State::Untracked
                | State::Discarding
                | State::Capturing { .. }
                | State::Restoring
                | State::Running { .. },
                _,
            ) => stay,
        }
    }

    /// A session that started from a token, which is still in the store.
    fn waking(&self, image: Image, taken_over: bool, event: Event) -> (State, Vec<Effect>) {
        let stay = (self.state, Vec::new());
        let consume = |by| (State::Running { image }, vec![Effect::Consume(by)]);
        let seen = |by| match self.consume {
            ConsumePolicy::AtStart | ConsumePolicy::Handoff => consume(by),
            ConsumePolicy::NextTransition => {
                let taken_over = true;
                (State::Waking { image, taken_over }, vec![])
            }
        };
        let keep = (State::Off, vec![Effect::Say(Message::TokenKept)]);
        match event {
            Event::Run if self.consume == ConsumePolicy::AtStart => consume(Consumer::Start),
            // An operating system that prepares to sleep is running. If it makes a hibernation image,
            // it runs `_WAK` after that, before it powers the machine off: no sign of waking.
            Event::PrepareToSleep => {
                let taken_over = true;
                (State::Waking { image, taken_over }, vec![])
            }
            Event::Wake if !taken_over => seen(Consumer::Wake),
            Event::RuntimeHandoff
                if !taken_over && self.takeover == TakeoverSignal::RuntimeHandoff =>
            {
                seen(Consumer::RuntimeHandoff)
            }
            // A machine without hand-off signal learns from nothing but this that an operating system
            // was there which had lost or given up its hibernated session.
            Event::PowerOff if taken_over || self.takeover == TakeoverSignal::AcpiWake => {
                (State::Off, vec![Effect::ClearToken])
            }
            // Firmware and loaders reset the machine too, and so does an operating system that failed to
            // wake: the hibernated session may still be there.
            Event::Reset if taken_over => (State::Off, vec![Effect::ClearToken]),
            Event::Hibernate if taken_over || self.takeover == TakeoverSignal::AcpiWake => {
                (State::Off, vec![Effect::WriteToken(image)])
            }
            Event::PowerOff | Event::Reset | Event::Hibernate | Event::Crash => keep,
            Event::Start { .. }
            | Event::Discarded(_)
            | Event::Captured(_)
            | Event::Restored(_)
            | Event::Run
            | Event::Wake
            | Event::RuntimeHandoff => stay,
        }
    }
}

fn waking(image: Image) -> State {
    State::Waking {
        image,
        taken_over: false,
    }
}

fn start(found: Found, requested: Option<Override>) -> (State, Vec<Effect>) {
    use Effect::Say;
    let capture = |origin, mut effects: Vec<Effect>| {
        effects.push(Effect::Capture);
        (State::Capturing { origin }, effects)
    };
    let discard = (State::Discarding, vec![Effect::Discard]);
    // What is stored stays as it is: the token may still need it.
    let current = (
        waking(Image::NotStored),
        vec![Say(Message::CurrentFirmwareUsed)],
    );
    match (found, requested) {
        (Found::Disabled { token: true }, _) => {
            (State::Untracked, vec![Say(Message::TokenIgnored)])
        }
        (Found::Disabled { token: false }, _) => (State::Untracked, vec![]),
        (Found::NoStore, _) => (State::Untracked, vec![Say(Message::NoStore)]),
        (Found::NotHibernated, _) => capture(Origin::Cold, vec![]),
        (_, Some(Override::Discard)) => discard,
        (Found::NotStored, _) => capture(Origin::Token, vec![Say(Message::NotPinned)]),
        (Found::CorruptToken, _) => capture(Origin::Token, vec![Say(Message::CorruptTokenIgnored)]),
        (
            Found::Stored | Found::Unusable | Found::CorruptTokenWithImage | Found::UnreadableToken,
            Some(Override::CurrentFirmware),
        ) => current,
        (Found::Stored, None) => (State::Restoring, vec![Effect::Restore]),
        (Found::Unusable | Found::CorruptTokenWithImage | Found::UnreadableToken, None) => {
            (State::Refused, vec![Effect::Refuse])
        }
    }
}

#[cfg(test)]
#[path = "machine_test.rs"]
mod tests;
