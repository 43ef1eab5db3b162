//! What the next start would do.

use crate::config::Override;
use crate::image::Architecture;
use crate::probe;
use crate::probe::Candidate;
use crate::record::Record;
use crate::refusal::RefusalReason;
use crate::sequence_note::SequenceNoteFile;
use crate::state_machine::ProbeOutcome;
use crate::storage::HibernationFile;
use crate::storage::Storage;
use crate::token::TokenValue;
use platform_digest::PlatformView;
use serde::Serialize;
use std::fmt;

/// What the next start would do, and why.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// What it would do.
    pub next_start: NextStart,
    /// Why, in words.
    pub reason: String,
    /// The value of the token; `None` if there is none or it is not valid.
    pub token: Option<TokenValue>,
    /// The stored firmware, also without a token; `None` if there is none or it is damaged.
    pub stored: Option<Record>,
    /// What is wrong with the stored firmware.
    pub stored_problem: Option<String>,
    /// A stable name of the reason for which the start would be refused.
    pub refusal: Option<&'static str>,
    /// The differences between the machines, if one was given to compare.
    pub differences: Vec<String>,
    /// What to do, if the start would be refused.
    pub advice: Option<&'static str>,
    /// The overrides that would allow a refused start.
    pub ways_on: Vec<Override>,
    /// Whether the machine to be started was compared with the one the guest hibernated on.
    pub machine_compared: bool,
}

/// What a start would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NextStart {
    /// Start on the host's firmware and store it.
    Cold,
    /// Resume on the host's firmware, with a warning: the guest's own is not stored.
    ResumeUnpinned,
    /// Resume on the stored firmware.
    Resume,
    /// Refuse to start.
    Refuse,
}

impl fmt::Display for NextStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cold => "a cold start on the host's firmware",
            Self::ResumeUnpinned => "a resume on the host's firmware, with a warning",
            Self::Resume => "a resume on the stored firmware",
            Self::Refuse => "a refusal",
        })
    }
}

/// Finds out what a start with hibernation on would do. Reads and validates the stored firmware, and changes
/// nothing. `machine` is the machine that would be started, if known.
pub fn status(
    storage: &mut dyn Storage,
    machine: Option<(Architecture, &PlatformView)>,
    note: Option<&SequenceNoteFile>,
) -> Status {
    let candidate = machine.map(|(architecture, view)| Candidate { architecture, view });
    let note = note.and_then(SequenceNoteFile::read);
    let probe = probe::probe(storage, candidate, note);
    let (stored, stored_problem) = match probe.stored {
        Some(intact) => (Some(intact.record), None),
        None => match storage.len(HibernationFile::Record) {
            Ok(None) => (None, None),
            _ => match probe::read_record(storage) {
                Ok(intact) => (Some(intact.record), None),
                Err(reason) => (None, Some(reason.in_full())),
            },
        },
    };
    let (next_start, reason) = match probe.outcome {
        ProbeOutcome::NotHibernated | ProbeOutcome::Disabled { .. } | ProbeOutcome::NoStore => {
            (NextStart::Cold, "the guest is not hibernated".to_owned())
        }
        ProbeOutcome::NotStored => (
            NextStart::ResumeUnpinned,
            match probe.token {
                Some(token) => format!("the token says: {token}"),
                None => "the token says that the firmware was not stored".to_owned(),
            },
        ),
        ProbeOutcome::CorruptToken => (
            NextStart::ResumeUnpinned,
            match probe.corrupt {
                Some(corrupt) => {
                    format!("the token is corrupt ({corrupt}), and no firmware is stored")
                }
                None => "the token is corrupt, and no firmware is stored".to_owned(),
            },
        ),
        ProbeOutcome::Stored => (
            NextStart::Resume,
            match probe.token {
                Some(TokenValue::Stored) => {
                    "the guest is hibernated, and its firmware is stored and intact"
                }
                _ => "the guest may be hibernated, and its firmware is stored and intact",
            }
            .to_owned(),
        ),
        ProbeOutcome::Unusable => (
            NextStart::Refuse,
            probe
                .refusal
                .as_ref()
                .map(RefusalReason::in_full)
                .unwrap_or_default(),
        ),
    };
    let refusal = probe.refusal.as_ref();
    Status {
        next_start,
        reason,
        token: probe.token,
        stored,
        stored_problem,
        refusal: refusal.map(RefusalReason::code),
        differences: refusal.map(RefusalReason::differences).unwrap_or_default(),
        advice: refusal.map(RefusalReason::advice),
        ways_on: refusal.map_or_else(Vec::new, |reason| reason.ways_on().to_vec()),
        machine_compared: machine.is_some(),
    }
}
