//! Why a start is refused, and how to go on.

use crate::config::Override;
use crate::image::Architecture;
use crate::image::TargetError;
use crate::record::RecordError;
use crate::storage::StorageError;
use crate::token::CorruptToken;
use error_chain::Chain;
use platform_digest::Difference;
use std::fmt;

/// A start that was refused. The token is still in the store, and nothing else there has changed.
#[derive(Debug, thiserror::Error)]
#[error("{}", explain(.reason))]
pub struct Refusal {
    /// Why. Its causes are in what this displays.
    pub reason: RefusalReason,
}

/// Why a start is refused.
#[derive(Debug, thiserror::Error)]
pub enum RefusalReason {
    /// There may be a token, but it cannot be read.
    #[error("the hibernation token cannot be read")]
    UnreadableToken(#[source] StorageError),
    /// There is stored firmware, and what should be the token is none.
    #[error("the hibernation token is corrupt")]
    CorruptToken(#[source] CorruptToken),
    /// The token says that firmware is stored, and none is.
    #[error("the token says that the guest's firmware is stored, and it is not")]
    MissingImage,
    /// The stored firmware is damaged.
    #[error("the stored firmware is corrupt")]
    CorruptImage(#[source] RecordError),
    /// The stored firmware cannot be read.
    #[error("the stored firmware cannot be read")]
    UnreadableImage(#[source] StorageError),
    /// The stored firmware is for other processors.
    #[error("the guest hibernated on {hibernated}, and this machine is {started}")]
    OtherArchitecture {
        /// Then.
        hibernated: Architecture,
        /// Now.
        started: Architecture,
    },
    /// The guest hibernated on a machine that was different.
    #[error("the machine has changed since the guest hibernated")]
    OtherMachine(Vec<Difference>),
    /// The store is an older copy of what it was.
    #[error(
        "the store is an older copy: it is at change {found}, and change {noted} was seen of it"
    )]
    OlderStore {
        /// The store's sequence number.
        found: u32,
        /// The highest that was noted.
        noted: u32,
    },
    /// The stored firmware could not be put into the machine.
    #[error("the stored firmware could not be restored")]
    NotRestored(#[source] RecordError),
    /// The entry point could not be found in what was restored.
    #[error("the entry point of the restored firmware could not be found")]
    NoEntry(#[source] TargetError),
    /// What was restored starts elsewhere than it did.
    #[error("the restored firmware starts at {found:#x} instead of {stored:#x}")]
    OtherEntry {
        /// Then.
        stored: u64,
        /// Now.
        found: u64,
    },
    /// The operator wants the session discarded, and the store could not be told.
    #[error("the hibernated session could not be discarded")]
    NotDiscarded(#[source] StorageError),
}

impl RefusalReason {
    /// A stable name, for events and scripts.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnreadableToken(_) => "token_unreadable",
            Self::CorruptToken(_) => "token_corrupt",
            Self::MissingImage => "image_missing",
            Self::CorruptImage(_) => "image_corrupt",
            Self::UnreadableImage(_) => "image_unreadable",
            Self::OtherArchitecture { .. } => "architecture_changed",
            Self::OtherMachine(_) => "machine_changed",
            Self::OlderStore { .. } => "store_older",
            Self::NotRestored(_) => "not_restored",
            Self::NoEntry(_) => "entry_not_found",
            Self::OtherEntry { .. } => "entry_moved",
            Self::NotDiscarded(_) => "not_discarded",
        }
    }

    /// What is different about the machine, a line each.
    pub fn differences(&self) -> Vec<String> {
        match self {
            Self::OtherMachine(differences) => {
                differences.iter().map(ToString::to_string).collect()
            }
            _ => Vec::new(),
        }
    }

    /// What to try before an override.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::UnreadableToken(_) | Self::UnreadableImage(_) => {
                "make the store readable (is its disk well, was its key given?) and start again"
            }
            Self::CorruptToken(_)
            | Self::MissingImage
            | Self::CorruptImage(_)
            | Self::OtherEntry { .. }
            | Self::NoEntry(_) => "put back a copy of the store made since the guest hibernated",
            Self::OtherArchitecture { .. } | Self::OtherMachine(_) => {
                "start the VM with the configuration it hibernated with"
            }
            Self::OlderStore { .. } => "put back the newest copy of the store",
            Self::NotRestored(_) => "start again with a machine that has room for the firmware",
            Self::NotDiscarded(_) => "make the store writable and start again",
        }
    }

    /// The reason with its causes, on one line.
    pub fn in_full(&self) -> String {
        Chain(self).to_string()
    }

    /// The overrides with which the start would go on.
    pub fn ways_on(&self) -> &'static [Override] {
        match self {
            Self::NotDiscarded(_) => &[Override::CurrentFirmware],
            _ => &Override::ALL,
        }
    }
}

fn explain(reason: &RefusalReason) -> impl fmt::Display + '_ {
    struct Explain<'a>(&'a RefusalReason);
    impl fmt::Display for Explain<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let reason = self.0;
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
    Explain(reason)
}
