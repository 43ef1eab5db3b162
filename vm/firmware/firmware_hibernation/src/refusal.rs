//! Why a start is refused, and what to do about it.

use crate::config::Override;
use crate::image::Architecture;
use crate::image::TargetError;
use crate::record::RecordError;
use crate::storage::Occupant;
use crate::storage::StorageError;
use crate::token::CorruptToken;
use error_chain::Chain;
use platform_digest::Difference;
use std::fmt;

/// A refused start. The store is as it was, with the token.
#[derive(Debug)]
pub struct Refusal {
    /// The reason. The text of the refusal has it with its causes.
    pub reason: RefusalReason,
}

impl std::error::Error for Refusal {}

/// Why a start is refused.
#[derive(Debug, thiserror::Error)]
pub enum RefusalReason {
    /// The token cannot be read.
    #[error("the hibernation token cannot be read")]
    UnreadableToken(#[source] StorageError),
    /// The token is corrupt, and there is stored firmware.
    #[error("the hibernation token is corrupt")]
    CorruptToken(#[source] CorruptToken),
    /// The token says that firmware is stored, but there is none.
    #[error(
        "the token says that the guest's firmware is stored, but it is not{}",
        instead_of_image(instead.as_ref())
    )]
    MissingImage {
        /// What is in its place.
        instead: Option<Occupant>,
    },
    /// The stored firmware is damaged.
    #[error("the stored firmware is corrupt")]
    CorruptImage(#[source] RecordError),
    /// The stored firmware cannot be read.
    #[error("the stored firmware cannot be read")]
    UnreadableImage(#[source] StorageError),
    /// The stored firmware is for another architecture.
    #[error("the guest hibernated on {hibernated}, but this machine is {started}")]
    OtherArchitecture {
        /// When it hibernated.
        hibernated: Architecture,
        /// At this start.
        started: Architecture,
    },
    /// The machine is not the one that the guest hibernated on.
    #[error("the machine has changed since the guest hibernated")]
    OtherMachine(Vec<Difference>),
    /// The store is an older copy.
    #[error("the store is an older copy: it is at change {found}, but change {noted} was noted")]
    OlderStore {
        /// The sequence number of the store.
        found: u32,
        /// The sequence number that was noted.
        noted: u32,
    },
    /// The store is gone.
    #[error("the guest hibernated, but its store is gone")]
    StoreGone,
    /// The stored firmware is not what is loaded since the VM was started.
    #[error(
        "the guest's hibernated session needs other firmware than what is loaded; there differ: {}",
        .0.join(", ")
    )]
    OtherFirmware(Vec<String>),
    /// The stored firmware could not be restored.
    #[error("the stored firmware could not be restored")]
    NotRestored(#[source] RecordError),
    /// The entry point of the restored firmware could not be found.
    #[error("the entry point of the restored firmware could not be found")]
    NoEntry(#[source] TargetError),
    /// The entry point of the restored firmware is not the stored one.
    #[error("the entry point of the restored firmware is {found:#x} instead of {stored:#x}")]
    OtherEntry {
        /// When it hibernated.
        stored: u64,
        /// At this start.
        found: u64,
    },
    /// The operator discarded the session, but the store could not be changed.
    #[error("the hibernated session could not be discarded")]
    NotDiscarded(#[source] StorageError),
}

impl RefusalReason {
    /// A stable name, for events and scripts.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnreadableToken(_) => "token_unreadable",
            Self::CorruptToken(_) => "token_corrupt",
            Self::MissingImage { .. } => "image_missing",
            Self::CorruptImage(_) => "image_corrupt",
            Self::UnreadableImage(_) => "image_unreadable",
            Self::OtherArchitecture { .. } => "architecture_changed",
            Self::OtherMachine(_) => "machine_changed",
            Self::OlderStore { .. } => "store_older",
            Self::StoreGone => "store_gone",
            Self::OtherFirmware(_) => "firmware_changed",
            Self::NotRestored(_) => "not_restored",
            Self::NoEntry(_) => "entry_not_found",
            Self::OtherEntry { .. } => "entry_moved",
            Self::NotDiscarded(_) => "not_discarded",
        }
    }

    /// The differences between the machines, one line each.
    pub fn differences(&self) -> Vec<String> {
        match self {
            Self::OtherMachine(differences) => {
                differences.iter().map(ToString::to_string).collect()
            }
            _ => Vec::new(),
        }
    }

    /// What to try before using an override.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::UnreadableToken(_) | Self::UnreadableImage(_) => {
                "make the store readable (check its disk and its key) and start again"
            }
            Self::CorruptToken(_)
            | Self::MissingImage { .. }
            | Self::CorruptImage(_)
            | Self::OtherEntry { .. }
            | Self::NoEntry(_) => "put back a copy of the store made since the guest hibernated",
            Self::OtherArchitecture { .. } | Self::OtherMachine(_) => {
                "start the VM with the configuration it hibernated with"
            }
            Self::OlderStore { .. } => {
                "put back the newest copy of the store, or, if this one is to be used, delete the note beside it \
                 (STORE.seen)"
            }
            Self::StoreGone => {
                "put back the store, or, if it was deleted on purpose, delete the note too (STORE.seen)"
            }
            Self::OtherFirmware(_) => "start the VM again",
            Self::NotRestored(_) => "start again with a machine that has room for the firmware",
            Self::NotDiscarded(_) => "make the store writable and start again",
        }
    }

    /// The reason with its causes, on one line.
    pub fn in_full(&self) -> String {
        Chain(self).to_string()
    }

    /// The overrides that allow the start.
    pub fn ways_on(&self) -> &'static [Override] {
        match self {
            Self::NotDiscarded(_) => &[Override::CurrentFirmware],
            _ => &Override::ALL,
        }
    }
}

fn instead_of_image(instead: Option<&Occupant>) -> String {
    instead.map_or_else(String::new, |Occupant { file, what }| {
        format!(" (file {file} has {what})")
    })
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = &self.reason;
        write!(
            f,
            "the guest is hibernated and was not started: {}",
            reason.in_full()
        )?;
        for difference in reason.differences() {
            write!(f, "\n  {difference}")?;
        }
        write!(
            f,
            "\nthe token was kept, so that nothing is lost; {}",
            reason.advice()
        )?;
        for way in reason.ways_on() {
            write!(f, "\nor override: {way} ({})", way.meaning())?;
        }
        Ok(())
    }
}
