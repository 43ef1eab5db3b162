//! What an observer of a VM hears of its hibernation.

use crate::machine::Consumer;
use crate::record::ImageId;
use crate::token::TokenValue;
use platform_digest::Digest;
use serde::Serialize;
use std::fmt;

/// Something that happened. Serialized, it has its name in the field `event`; displayed, it is a
/// sentence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum HibernationEvent {
    /// The firmware that is about to run is in the store.
    Captured {
        /// Which record.
        image_id: ImageId,
        /// Its digest.
        image_digest: Digest,
        /// Its length in bytes.
        image_len: u64,
        /// Whether it had to be written.
        stored: Stored,
        /// How long that took.
        milliseconds: u64,
    },
    /// The firmware that is about to run is not in the store. A hibernated guest will wake on whatever
    /// firmware the host then has.
    NotCaptured {
        /// A stable name of the reason.
        reason: &'static str,
        /// The reason in words.
        detail: String,
        /// What to do about it.
        advice: &'static str,
    },
    /// The stored firmware is in the machine.
    Restored {
        /// Which record.
        image_id: ImageId,
        /// Its digest.
        image_digest: Digest,
        /// Its length in bytes.
        image_len: u64,
        /// How long that took, with validating it.
        milliseconds: u64,
    },
    /// The token was taken out of the store.
    Consumed {
        /// What was the sign.
        by: Consumer,
    },
    /// The token should have been taken out of the store, and was not. It is tried again when the guest
    /// next powers off or resets.
    NotConsumed {
        /// What was the sign.
        by: Consumer,
        /// Why.
        detail: String,
    },
    /// The token is durable: the guest is hibernated.
    TokenWritten {
        /// What it says.
        token: TokenValue,
    },
    /// The token could not be made durable.
    TokenNotWritten {
        /// What it was to say.
        token: TokenValue,
        /// Why.
        detail: String,
    },
    /// The token was to say that the firmware is stored, and it turned out not to be.
    ImageLost {
        /// Why.
        detail: String,
    },
    /// A token was deleted because the guest went down in an orderly way.
    TokenCleared,
    /// The token should have been deleted, and was not.
    TokenNotCleared {
        /// Why.
        detail: String,
    },
    /// The machine went down before the operating system took over: the next start resumes again.
    TokenKept,
    /// The operator gave the hibernated session up.
    Discarded,
    /// The start was refused.
    Refused {
        /// A stable name of the reason.
        reason: &'static str,
        /// The reason in words.
        detail: String,
        /// What is different about the machine.
        differences: Vec<String>,
        /// What to do about it.
        advice: &'static str,
    },
    /// The store has a token, and hibernation is off: it is left alone.
    TokenIgnored,
    /// Hibernation is on, and there is no store to keep anything in.
    NoStore,
    /// The guest wakes on the host's firmware, because its own was not stored.
    NotPinned {
        /// What the token says.
        token: TokenValue,
    },
    /// What should be a token is none, and there is no stored firmware either.
    CorruptTokenIgnored {
        /// What is wrong with it.
        detail: String,
    },
    /// The guest wakes on the host's firmware, because the operator wants it so.
    CurrentFirmwareUsed {
        /// What would have happened otherwise.
        instead_of: String,
    },
    /// The guest hibernated, and nothing could be recorded.
    HibernatedUntracked,
}

/// Whether a captured record had to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stored {
    /// The store had it already.
    Unchanged,
    /// It was written.
    Written,
}

/// How much an event matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// All is well.
    Info,
    /// Something will not work as hoped.
    Warning,
    /// Something failed.
    Error,
}

impl HibernationEvent {
    /// How much it matters.
    pub fn level(&self) -> Level {
        match self {
            Self::Captured { .. }
            | Self::Restored { .. }
            | Self::Consumed { .. }
            | Self::TokenWritten {
                token: TokenValue::Stored,
            }
            | Self::TokenCleared
            | Self::TokenKept
            | Self::Discarded => Level::Info,
            Self::NotCaptured { .. }
            | Self::TokenWritten { .. }
            | Self::NotConsumed { .. }
            | Self::TokenIgnored
            | Self::NoStore
            | Self::NotPinned { .. }
            | Self::CorruptTokenIgnored { .. }
            | Self::CurrentFirmwareUsed { .. }
            | Self::HibernatedUntracked => Level::Warning,
            Self::TokenNotWritten { .. }
            | Self::ImageLost { .. }
            | Self::TokenNotCleared { .. }
            | Self::Refused { .. } => Level::Error,
        }
    }
}

impl fmt::Display for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "the VM is about to run",
            Self::Wake => "the guest woke up",
            Self::RuntimeHandoff => "the firmware handed the machine over",
        })
    }
}

impl fmt::Display for HibernationEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Captured {
                image_len, stored, ..
            } => match stored {
                Stored::Unchanged => write!(f, "the guest's firmware is in the store already"),
                Stored::Written => {
                    write!(f, "the guest's firmware ({image_len} bytes) was stored")
                }
            },
            Self::NotCaptured { detail, advice, .. } => write!(
                f,
                "the guest's firmware was not stored, a hibernated guest may not wake after the host's \
                 firmware changed: {detail}; {advice}"
            ),
            Self::Restored {
                image_len,
                milliseconds,
                ..
            } => write!(
                f,
                "the guest is hibernated: its firmware ({image_len} bytes) was restored in {milliseconds} \
                 ms"
            ),
            Self::Consumed { by } => write!(f, "{by}: the hibernation token was deleted"),
            Self::NotConsumed { by, detail } => write!(
                f,
                "{by}, and the hibernation token could not be deleted: {detail}; it is tried again when the \
                 guest goes down"
            ),
            Self::TokenWritten { token } => write!(f, "the guest is hibernated; token: {token}"),
            Self::TokenNotWritten { token, detail } => write!(
                f,
                "the guest hibernated, and the token ({token}) could not be stored: {detail}; start it on \
                 this host's present firmware"
            ),
            Self::ImageLost { detail } => {
                write!(
                    f,
                    "the guest's firmware is not in the store any more: {detail}"
                )
            }
            Self::TokenCleared => write!(f, "the hibernation token was deleted"),
            Self::TokenNotCleared { detail } => write!(
                f,
                "the hibernation token could not be deleted: {detail}; the next start uses the stored \
                 firmware once more"
            ),
            Self::TokenKept => write!(
                f,
                "the machine went down before an operating system took over: the hibernation token stays"
            ),
            Self::Discarded => write!(f, "the hibernated session was discarded"),
            Self::Refused { detail, advice, .. } => {
                write!(
                    f,
                    "the hibernated guest was not started: {detail}; {advice}"
                )
            }
            Self::TokenIgnored => write!(
                f,
                "the guest is hibernated, and hibernation is off: it starts on the host's firmware, and the \
                 token stays"
            ),
            Self::NoStore => write!(
                f,
                "hibernation is on, and there is no VMGS store: a hibernated guest may not wake after the \
                 host's firmware changed; give the VM a store of at least 32 MiB"
            ),
            Self::NotPinned { token } => write!(
                f,
                "the guest is hibernated and its firmware is not stored ({token}): it wakes on the host's \
                 firmware, which must not have changed"
            ),
            Self::CorruptTokenIgnored { detail } => write!(
                f,
                "the hibernation token is corrupt ({detail}) and no firmware is stored: the guest starts on \
                 the host's firmware"
            ),
            Self::CurrentFirmwareUsed { instead_of } => write!(
                f,
                "the guest starts on the host's firmware as asked for; otherwise: {instead_of}"
            ),
            Self::HibernatedUntracked => write!(
                f,
                "the guest hibernated without a record of its firmware: it may not wake after the host's \
                 firmware changed"
            ),
        }
    }
}

/// Who is told of events. Called on the thread that caused them.
pub trait EventSink: Send {
    /// Something happened.
    fn event(&mut self, event: HibernationEvent);
}

impl<F: FnMut(HibernationEvent) + Send> EventSink for F {
    fn event(&mut self, event: HibernationEvent) {
        self(event);
    }
}
