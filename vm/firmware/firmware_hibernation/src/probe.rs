//! Examining the store before a start, without changing it.

use crate::image::Architecture;
use crate::record::Collected;
use crate::record::Collector;
use crate::record::Record;
use crate::record::RecordError;
use crate::record::RecordReader;
use crate::record::RecordVisitor;
use crate::refusal::RefusalReason;
use crate::sequence_note::NO_STORE;
use crate::sequence_note::SequenceNote;
use crate::state_machine::ProbeOutcome;
use crate::storage::HibernationFile;
use crate::storage::Storage;
use crate::storage::StorageError;
use crate::storage::StorageErrorKind;
use crate::token;
use crate::token::CorruptToken;
use crate::token::TokenOutcome;
use crate::token::TokenValue;
use platform_digest::Aspect;
use platform_digest::Difference;
use platform_digest::PlatformView;
use platform_digest::differences;
use std::ops::ControlFlow;

/// The result of [`probe`].
pub(crate) struct Probe {
    pub(crate) outcome: ProbeOutcome,
    /// The value of the token, if it is valid.
    pub(crate) token: Option<TokenValue>,
    /// What is wrong with the token, if that does not stop the start.
    pub(crate) corrupt: Option<CorruptToken>,
    /// Why the start is refused, unless there is an override.
    pub(crate) refusal: Option<RefusalReason>,
    /// The stored firmware, if it can be used.
    pub(crate) stored: Option<IntactRecord>,
}

impl Probe {
    fn new(outcome: ProbeOutcome) -> Self {
        Self {
            outcome,
            token: None,
            corrupt: None,
            refusal: None,
            stored: None,
        }
    }

    /// The stored firmware cannot be used.
    pub(crate) fn unusable(reason: RefusalReason) -> Self {
        Self {
            refusal: Some(reason),
            ..Self::new(ProbeOutcome::Unusable)
        }
    }
}

/// A record that was read as a whole and found intact.
pub(crate) struct IntactRecord {
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

/// Examines the store before a start. Without a candidate, the stored machine is not compared.
pub(crate) fn probe(
    storage: &mut dyn Storage,
    candidate: Option<Candidate<'_>>,
    note: Option<SequenceNote>,
) -> Probe {
    let token = token::read(storage);
    let value = match &token {
        TokenOutcome::Found(value) => Some(*value),
        _ => None,
    };
    let probe = match is_older_copy(storage, &token, note) {
        Some(reason) => Probe::unusable(reason),
        None => probe_token(storage, candidate, token, note),
    };
    Probe {
        token: value,
        ..probe
    }
}

/// Whether the store is gone, or an older copy of the one that was noted.
fn is_older_copy(
    storage: &mut dyn Storage,
    token: &TokenOutcome,
    note: Option<SequenceNote>,
) -> Option<RefusalReason> {
    let note = note?;
    let found = storage.state().ok()?.sequence;
    let noted = note.sequence;
    let older = note
        .is_newer_than(found)
        .then_some(RefusalReason::OlderStore { found, noted });
    match token {
        TokenOutcome::Missing | TokenOutcome::Found(TokenValue::NotHibernated) => {
            if !note.hibernated {
                None
            } else if found == NO_STORE {
                Some(RefusalReason::StoreGone)
            } else if matches!(storage.len(HibernationFile::Record), Ok(None)) {
                // Firmware was never stored here: the store is another one, which somebody made on purpose.
                None
            } else {
                older
            }
        }
        TokenOutcome::Found(_) | TokenOutcome::Corrupt(_) => older,
        TokenOutcome::Unreadable(_) => None,
    }
}

/// Whether the token of the last hibernation could not be written: this is noted, and nothing has changed since.
fn is_token_lost(storage: &mut dyn Storage, note: Option<SequenceNote>) -> bool {
    note.is_some_and(|note| {
        note.hibernated
            && storage
                .state()
                .is_ok_and(|state| state.sequence == note.sequence)
            && !matches!(storage.len(HibernationFile::Record), Ok(None))
    })
}

fn probe_token(
    storage: &mut dyn Storage,
    candidate: Option<Candidate<'_>>,
    token: TokenOutcome,
    note: Option<SequenceNote>,
) -> Probe {
    match token {
        TokenOutcome::Missing | TokenOutcome::Found(TokenValue::NotHibernated)
            if !is_token_lost(storage, note) =>
        {
            Probe::new(ProbeOutcome::NotHibernated)
        }
        TokenOutcome::Found(TokenValue::NotStored | TokenValue::Version { .. }) => {
            Probe::new(ProbeOutcome::NotStored)
        }
        TokenOutcome::Missing | TokenOutcome::Found(_) => match usable(storage, candidate) {
            Ok(intact) => Probe {
                stored: Some(intact),
                ..Probe::new(ProbeOutcome::Stored)
            },
            Err(reason) => Probe::unusable(reason),
        },
        TokenOutcome::Corrupt(corrupt) => match read_record(storage) {
            Err(RefusalReason::MissingImage { .. }) => Probe {
                corrupt: Some(corrupt),
                ..Probe::new(ProbeOutcome::CorruptToken)
            },
            // Whether there is firmware is unknown.
            Err(reason @ RefusalReason::UnreadableImage(_)) => Probe::unusable(reason),
            // If the firmware is damaged too, the store is: the guest may well be hibernated.
            Ok(_) | Err(_) => Probe::unusable(RefusalReason::CorruptToken(corrupt)),
        },
        TokenOutcome::Unreadable(error) => Probe::unusable(RefusalReason::UnreadableToken(error)),
    }
}

/// Reads the stored firmware and checks that it belongs to the candidate.
fn usable(
    storage: &mut dyn Storage,
    candidate: Option<Candidate<'_>>,
) -> Result<IntactRecord, RefusalReason> {
    let intact = read_record(storage)?;
    let Some(candidate) = candidate else {
        return Ok(intact);
    };
    if intact.record.architecture != candidate.architecture {
        return Err(RefusalReason::OtherArchitecture {
            hibernated: intact.record.architecture,
            started: candidate.architecture,
        });
    }
    let differences = relevant_differences(&intact.collected.platform, candidate.view);
    if !differences.is_empty() {
        return Err(RefusalReason::OtherMachine(differences));
    }
    Ok(intact)
}

/// The differences between the machines, except for the tables: the guest is given the pinned ones.
fn relevant_differences(hibernated: &PlatformView, started: &PlatformView) -> Vec<Difference> {
    differences(hibernated, started)
        .into_iter()
        .filter(|difference| match difference.aspect() {
            Aspect::Memory
            | Aspect::Processors
            | Aspect::Mmio
            | Aspect::Devices
            | Aspect::Disks
            | Aspect::BootFiles => true,
            Aspect::Acpi | Aspect::Smbios => false,
        })
        .collect()
}

/// Reads and validates the whole record.
pub(crate) fn read_record(storage: &mut dyn Storage) -> Result<IntactRecord, RefusalReason> {
    let len = match storage.len(HibernationFile::Record) {
        Ok(Some(len)) => len,
        Ok(None) => {
            let place = storage.record_place().ok();
            return Err(RefusalReason::MissingImage {
                instead: place.and_then(|place| place.occupant),
            });
        }
        Err(error) => return Err(unreadable(error)),
    };
    let mut collector = Collector::default();
    let (record, checksums) = read_with(storage, RecordReader::new(len), &mut collector)?;
    let collected = collector.finish().map_err(RefusalReason::CorruptImage)?;
    Ok(IntactRecord {
        record,
        checksums,
        collected,
    })
}

/// Reads the record with `reader`.
pub(crate) fn read_with(
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
