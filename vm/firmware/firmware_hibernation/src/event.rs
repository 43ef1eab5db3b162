//! The events of hibernation.

use crate::state_machine::Consumer;
use crate::token::TokenValue;
use platform_digest::Digest;
use serde::Serialize;
use std::fmt;
use uuid::Uuid;

/// An event. Serialized, its name is in the field `event`; displayed, it is a sentence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum HibernationEvent {
    /// The firmware that is about to run is stored.
    Captured {
        /// The identifier of the record.
        image_id: Uuid,
        /// The digest of the image.
        image_digest: Digest,
        /// The length of the image in bytes.
        image_len: u64,
        /// Whether it was written.
        stored: Stored,
        /// How long the capture took.
        milliseconds: u64,
    },
    /// The firmware that is about to run could not be stored. If the guest hibernates, it will resume on the
    /// firmware that the host has then.
    NotCaptured {
        /// A stable name of the reason.
        reason: &'static str,
        /// The reason in words.
        detail: String,
        /// What to do about it.
        advice: &'static str,
    },
    /// The usual file of the stored firmware has other data, which was not replaced.
    PlaceTaken {
        /// Its number.
        file: u32,
        /// What it seems to have, in words.
        occupant: String,
        /// The file that is used instead; `None` if all have other data.
        used: Option<u32>,
    },
    /// The stored firmware was restored.
    Restored {
        /// The identifier of the record.
        image_id: Uuid,
        /// The digest of the image.
        image_digest: Digest,
        /// The length of the image in bytes.
        image_len: u64,
        /// How long validating and restoring took.
        milliseconds: u64,
    },
    /// The token was deleted, because the guest has resumed.
    Consumed {
        /// What showed it.
        by: Consumer,
    },
    /// The guest has resumed, but the token could not be deleted. That is tried again when the guest powers off or
    /// resets.
    NotConsumed {
        /// What showed it.
        by: Consumer,
        /// Why.
        detail: String,
    },
    /// The token is durable: the guest is hibernated.
    TokenWritten {
        /// Its value.
        token: TokenValue,
    },
    /// The token could not be made durable.
    TokenNotWritten {
        /// Its value.
        token: TokenValue,
        /// Why.
        detail: String,
    },
    /// The guest hibernates, and the stored firmware is no longer there or damaged.
    ImageLost {
        /// Why.
        detail: String,
    },
    /// The token was deleted because the guest powered off or reset.
    TokenCleared,
    /// The guest powered off or reset, but the token could not be deleted.
    TokenNotCleared {
        /// Why.
        detail: String,
    },
    /// The machine went down, and no operating system was seen taking over: the token stays for the next start.
    TokenKept,
    /// The operator discarded the hibernated session.
    Discarded,
    /// The start was refused.
    Refused {
        /// A stable name of the reason.
        reason: &'static str,
        /// The reason in words.
        detail: String,
        /// The differences between the machines.
        differences: Vec<String>,
        /// What to do about it.
        advice: &'static str,
    },
    /// The store has a token, but hibernation is off: the token stays.
    TokenIgnored,
    /// Hibernation is on, but there is no store.
    NoStore,
    /// Hibernation is on, and UEFI variables are lost when the VM ends: a guest that notes there where its image is does
    /// not find it.
    VariablesInMemory,
    /// The guest resumes on the host's firmware, because its own is not stored.
    NotPinned {
        /// What the token says.
        token: TokenValue,
    },
    /// The token is corrupt, and no firmware is stored.
    CorruptTokenIgnored {
        /// What is wrong with it.
        detail: String,
    },
    /// The guest starts on the host's firmware, because the operator asked for it.
    CurrentFirmwareUsed {
        /// What would have happened without the override.
        instead_of: String,
    },
    /// The guest hibernated, but nothing was recorded.
    HibernatedUntracked,
}

/// Whether a captured record had to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stored {
    /// An equivalent record was in the store.
    Unchanged,
    /// It was written.
    Written,
    /// The record in the store was damaged, and was written again.
    Repaired,
}

/// The severity of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As expected.
    Info,
    /// Something may not work later.
    Warning,
    /// Something failed.
    Error,
}

impl HibernationEvent {
    /// Its severity.
    pub fn level(&self) -> Level {
        match self {
            Self::Captured {
                stored: Stored::Repaired,
                ..
            } => Level::Warning,
            Self::Captured { .. }
            | Self::PlaceTaken { .. }
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
            | Self::VariablesInMemory
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
                Stored::Unchanged => write!(f, "the guest's firmware is stored already"),
                Stored::Written => {
                    write!(f, "the guest's firmware ({image_len} bytes) was stored")
                }
                Stored::Repaired => write!(
                    f,
                    "the stored firmware was damaged, and the guest's firmware ({image_len} bytes) was stored \
                     again; check the disk that the store is on"
                ),
            },
            Self::PlaceTaken {
                file,
                occupant,
                used,
            } => {
                write!(f, "file {file} of the store has {occupant}, which stays")?;
                match used {
                    Some(used) => write!(f, ": the guest's firmware is kept in file {used}"),
                    None => Ok(()),
                }
            }
            Self::NotCaptured { detail, advice, .. } => write!(
                f,
                "the guest's firmware was not stored, so a hibernated guest may not resume after the host's \
                 firmware changes: {detail}; {advice}"
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
                "{by}, but the hibernation token could not be deleted: {detail}; that is tried again when the \
                 guest powers off or resets"
            ),
            Self::TokenWritten { token } => write!(f, "the guest is hibernated; token: {token}"),
            Self::TokenNotWritten { token, detail } => write!(
                f,
                "the guest hibernated, but the token ({token}) could not be stored: {detail}; start it on \
                 this host's present firmware"
            ),
            Self::ImageLost { detail } => {
                write!(
                    f,
                    "the guest's firmware is no longer in the store: {detail}"
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
                "the machine went down, and the guest was not seen resuming: the hibernation token stays (if the \
                 guest was booted anew and shut down, start it once with --hibernation-override discard)"
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
                 host's firmware changes; give the VM a store of at least 32 MiB"
            ),
            Self::VariablesInMemory => write!(
                f,
                "hibernation is on, and the firmware's variables are kept in memory: what a guest notes there of its \
                 hibernation image (systemd: HibernateLocation) is lost when the VM ends, and it may not resume; give \
                 the VM a store for them (--vmgs FILE or --uefi-vars FILE)"
            ),
            Self::NotPinned { token } => write!(
                f,
                "the guest is hibernated and its firmware is not stored ({token}): it wakes on the host's \
                 firmware, which must not have changed"
            ),
            Self::CorruptTokenIgnored { detail } => write!(
                f,
                "the hibernation token is corrupt ({detail}) and no firmware is stored: the token is deleted, \
                 and the guest starts on the host's firmware"
            ),
            Self::CurrentFirmwareUsed { instead_of } => write!(
                f,
                "the guest starts on the host's firmware as asked for; otherwise: {instead_of}"
            ),
            Self::HibernatedUntracked => write!(
                f,
                "the guest hibernated without a record of its firmware: it may not wake after the host's \
                 firmware changes"
            ),
        }
    }
}

/// Receives the events, on the thread that caused them.
pub type HibernationEventSink = Box<dyn FnMut(HibernationEvent) + Send>;
