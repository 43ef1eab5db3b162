//! What would happen at the next start, without starting.

use crate::config::Override;
use crate::image::Architecture;
use crate::look;
use crate::look::Candidate;
use crate::machine::Found;
use crate::record::Record;
use crate::refusal::RefusalReason;
use crate::storage::HibernationFile;
use crate::storage::Storage;
use crate::token::TokenValue;
use crate::witness;
use crate::witness::WitnessPlace;
use platform_digest::PlatformView;
use serde::Serialize;
use std::fmt;

/// What would happen at the next start, and why.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// What would happen.
    pub next_start: NextStart,
    /// Why, in words.
    pub reason: String,
    /// What the token says; `None` if there is none or it is no token.
    pub token: Option<TokenValue>,
    /// The stored firmware, whether a token relies on it or not; `None` if there is none or it is damaged.
    pub stored: Option<Record>,
    /// What is wrong with the stored firmware.
    pub stored_problem: Option<String>,
    /// A stable name of the reason for which the start would be refused.
    pub refusal: Option<&'static str>,
    /// What is different about the machine, if one was given to compare with.
    pub differences: Vec<String>,
    /// What to do, if the start would be refused.
    pub advice: Option<&'static str>,
    /// The overrides with which a refused start would go on.
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
    /// Start on the host's firmware although the guest hibernated on another, with a warning.
    ResumeUnpinned,
    /// Restore the stored firmware.
    Resume,
    /// Refuse.
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

/// Says what a start with hibernation on would do. Reads all of the stored firmware to validate it, and
/// changes nothing. `machine` is what would be started, if that is known.
pub fn status(
    storage: &mut dyn Storage,
    machine: Option<(Architecture, &PlatformView)>,
    witness: Option<&mut dyn WitnessPlace>,
) -> Status {
    let candidate = machine.map(|(architecture, view)| Candidate { architecture, view });
    let note = witness.and_then(witness::read);
    let look = look::look(storage, candidate, note);
    let (stored, stored_problem) = match look.sound {
        Some(sound) => (Some(sound.record), None),
        None => match storage.len(HibernationFile::Record) {
            Ok(None) => (None, None),
            _ => match look::read_record(storage) {
                Ok(sound) => (Some(sound.record), None),
                Err(reason) => (None, Some(reason.in_full())),
            },
        },
    };
    let (next_start, reason) = match look.found {
        Found::NotHibernated | Found::Disabled { .. } | Found::NoStore => (
            NextStart::Cold,
            "the guest is not hibernated: there is no token, or it says so".to_owned(),
        ),
        Found::NotStored => (
            NextStart::ResumeUnpinned,
            match look.token {
                Some(token) => format!("the token says: {token}"),
                None => "the token says that the firmware was not stored".to_owned(),
            },
        ),
        Found::CorruptToken => (
            NextStart::ResumeUnpinned,
            match look.corrupt {
                Some(corrupt) => {
                    format!("the token is corrupt ({corrupt}), and no firmware is stored")
                }
                None => "the token is corrupt, and no firmware is stored".to_owned(),
            },
        ),
        Found::Stored => (
            NextStart::Resume,
            "the guest is hibernated, and its firmware is stored and sound".to_owned(),
        ),
        Found::Unusable | Found::CorruptTokenWithImage | Found::UnreadableToken => (
            NextStart::Refuse,
            look.refusal
                .as_ref()
                .map(RefusalReason::in_full)
                .unwrap_or_default(),
        ),
    };
    let refusal = look.refusal.as_ref();
    Status {
        next_start,
        reason,
        token: look.token,
        stored,
        stored_problem,
        refusal: refusal.map(RefusalReason::code),
        differences: refusal.map(RefusalReason::differences).unwrap_or_default(),
        advice: refusal.map(RefusalReason::advice),
        ways_on: refusal.map_or_else(Vec::new, |reason| reason.ways_on().to_vec()),
        machine_compared: machine.is_some(),
    }
}

/// Several lines for an operator.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "next start: {}", self.next_start)?;
        writeln!(f, "because: {}", self.reason)?;
        for difference in &self.differences {
            writeln!(f, "  {difference}")?;
        }
        if let Some(advice) = self.advice {
            writeln!(f, "advice: {advice}")?;
        }
        for way in &self.ways_on {
            writeln!(f, "or override: {way} ({})", way.meaning())?;
        }
        match self.token {
            Some(token) => writeln!(f, "token: {token}")?,
            None => writeln!(f, "token: none")?,
        }
        match (&self.stored, &self.stored_problem) {
            (Some(record), _) => {
                writeln!(
                    f,
                    "stored firmware: {} bytes for {}, SHA-256 {}, id {}",
                    record.image_len, record.architecture, record.image_digest, record.image_id
                )?;
                if let Some(version) = &record.firmware_version {
                    writeln!(f, "firmware version: {version}")?;
                }
            }
            (None, Some(problem)) => writeln!(f, "stored firmware: {problem}")?,
            (None, None) => writeln!(f, "stored firmware: none")?,
        }
        if !self.machine_compared && self.next_start == NextStart::Resume {
            writeln!(
                f,
                "note: the machine's configuration was not compared; a start does that"
            )?;
        }
        Ok(())
    }
}
