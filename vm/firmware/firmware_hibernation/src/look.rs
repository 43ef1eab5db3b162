//! Finding out what a start has before it, without changing anything.

use crate::image::Architecture;
use crate::machine::Found;
use crate::record::Collected;
use crate::record::Collector;
use crate::record::Record;
use crate::record::RecordError;
use crate::record::RecordReader;
use crate::record::RecordVisitor;
use crate::refusal::RefusalReason;
use crate::storage::HibernationFile;
use crate::storage::Storage;
use crate::storage::StorageError;
use crate::storage::StorageErrorKind;
use crate::token;
use crate::token::CorruptToken;
use crate::token::TokenOutcome;
use crate::token::TokenValue;
use crate::witness::Note;
use platform_digest::Aspect;
use platform_digest::Difference;
use platform_digest::PlatformView;
use platform_digest::differences;
use std::ops::ControlFlow;

/// What there is.
pub(crate) struct Look {
    pub(crate) found: Found,
    /// What the token says, if it is one.
    pub(crate) token: Option<TokenValue>,
    /// What is wrong with the token, where that does not stop the start.
    pub(crate) corrupt: Option<CorruptToken>,
    /// Why the start is refused, unless there is an override.
    pub(crate) refusal: Option<RefusalReason>,
    /// The stored firmware, if it can be used.
    pub(crate) sound: Option<Sound>,
}

/// Stored firmware that was read from start to end and found to be what was stored.
pub(crate) struct Sound {
    pub(crate) record: Record,
    pub(crate) checksums: Vec<u32>,
    pub(crate) collected: Collected,
}

/// The machine that is to be started.
#[derive(Clone, Copy)]
pub(crate) struct Candidate<'a> {
    pub(crate) architecture: Architecture,
    pub(crate) view: &'a PlatformView,
}

/// Looks. Without a candidate, what depends on the machine is not found out.
pub(crate) fn look(
    storage: &mut dyn Storage,
    candidate: Option<Candidate<'_>>,
    note: Option<Note>,
) -> Look {
    let mut look = Look {
        found: Found::NotHibernated,
        token: None,
        corrupt: None,
        refusal: None,
        sound: None,
    };
    let unusable = |mut look: Look, found, reason| {
        look.found = found;
        look.refusal = Some(reason);
        look
    };
    let outcome = token::read(storage);
    if let TokenOutcome::Found(value) = &outcome {
        look.token = Some(*value);
    }
    let hibernated = !matches!(
        outcome,
        TokenOutcome::Missing | TokenOutcome::Found(TokenValue::NotHibernated)
    );
    if let Some(note) = note
        && (note.hibernated || hibernated)
        && !matches!(outcome, TokenOutcome::Unreadable(_))
        && let Ok(state) = storage.state()
        && note.is_newer_than(state.sequence)
    {
        let reason = RefusalReason::OlderStore {
            found: state.sequence,
            noted: note.sequence,
        };
        return unusable(look, Found::Unusable, reason);
    }
    match outcome {
        TokenOutcome::Missing | TokenOutcome::Found(TokenValue::NotHibernated) => {}
        TokenOutcome::Found(TokenValue::NotStored | TokenValue::Version { .. }) => {
            look.found = Found::NotStored;
        }
        TokenOutcome::Found(TokenValue::Stored) => match usable(storage, candidate) {
            Ok(sound) => {
                look.found = Found::Stored;
                look.sound = Some(sound);
            }
            Err(reason) => return unusable(look, Found::Unusable, reason),
        },
        TokenOutcome::Corrupt(corrupt) => match read_record(storage) {
            Err(RefusalReason::MissingImage) => {
                look.found = Found::CorruptToken;
                look.corrupt = Some(corrupt);
            }
            // What should be a token is none, and whether there is firmware cannot be told.
            Err(reason @ RefusalReason::UnreadableImage(_)) => {
                return unusable(look, Found::Unusable, reason);
            }
            // Firmware that is damaged as well speaks for a damaged store, not for a guest that is off.
            Ok(_) | Err(_) => {
                let reason = RefusalReason::CorruptToken(corrupt);
                return unusable(look, Found::CorruptTokenWithImage, reason);
            }
        },
        TokenOutcome::Unreadable(error) => {
            let reason = RefusalReason::UnreadableToken(error);
            return unusable(look, Found::UnreadableToken, reason);
        }
    }
    look
}

/// The stored firmware, if it is sound and belongs to the candidate.
fn usable(
    storage: &mut dyn Storage,
    candidate: Option<Candidate<'_>>,
) -> Result<Sound, RefusalReason> {
    let sound = read_record(storage)?;
    let Some(candidate) = candidate else {
        return Ok(sound);
    };
    if sound.record.architecture != candidate.architecture {
        return Err(RefusalReason::OtherArchitecture {
            hibernated: sound.record.architecture,
            started: candidate.architecture,
        });
    }
    let differences = pinnable_differences(&sound.collected.platform, candidate.view);
    if !differences.is_empty() {
        return Err(RefusalReason::OtherMachine(differences));
    }
    Ok(sound)
}

/// What is different about the machine, besides the tables: the guest is given those it had.
fn pinnable_differences(hibernated: &PlatformView, started: &PlatformView) -> Vec<Difference> {
    differences(hibernated, started)
        .into_iter()
        .filter(|difference| match difference.aspect() {
            Aspect::Memory | Aspect::Processors | Aspect::Mmio | Aspect::Devices => true,
            Aspect::Acpi | Aspect::Smbios => false,
        })
        .collect()
}

/// Reads all of the record and validates it.
pub(crate) fn read_record(storage: &mut dyn Storage) -> Result<Sound, RefusalReason> {
    let len = match storage.len(HibernationFile::Record) {
        Ok(Some(len)) => len,
        Ok(None) => return Err(RefusalReason::MissingImage),
        Err(error) => return Err(unreadable(error)),
    };
    let mut collector = Collector::default();
    let (record, checksums) = stream(storage, RecordReader::new(len), &mut collector)?;
    let collected = collector.finish().map_err(RefusalReason::CorruptImage)?;
    Ok(Sound {
        record,
        checksums,
        collected,
    })
}

/// Passes the record through a reader.
pub(crate) fn stream(
    storage: &mut dyn Storage,
    mut reader: RecordReader,
    visitor: &mut dyn RecordVisitor,
) -> Result<(Record, Vec<u32>), RefusalReason> {
    let mut failure = None;
    let read = storage.read(
        HibernationFile::Record,
        &mut |bytes| match reader.push(bytes, visitor) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failure = Some(error);
                ControlFlow::Break(())
            }
        },
    );
    match (failure, read) {
        (Some(error), _) => Err(RefusalReason::CorruptImage(error)),
        (None, Err(error)) => Err(unreadable(error)),
        (None, Ok(())) => reader.finish().map_err(RefusalReason::CorruptImage),
    }
}

fn unreadable(error: StorageError) -> RefusalReason {
    match error.kind {
        StorageErrorKind::Corrupt => RefusalReason::CorruptImage(RecordError::Damaged(error)),
        _ => RefusalReason::UnreadableImage(error),
    }
}
