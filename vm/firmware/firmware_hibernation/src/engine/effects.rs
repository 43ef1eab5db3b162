//! The effects of the state machine: the token, the note, and the events.

use super::HibernationEngine;
use super::TokenNotDurable;
use crate::config::Mode;
use crate::event::HibernationEvent;
use crate::event::Level;
use crate::probe;
use crate::sequence_note::SequenceNote;
use crate::state_machine::Consumer;
use crate::state_machine::Effect;
use crate::state_machine::ImageStatus;
use crate::state_machine::Message;
use crate::storage::StorageError;
use crate::token;
use crate::token::TokenValue;

impl HibernationEngine {
    pub(super) fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Say(message) => self.say(message),
            Effect::WriteToken(image) => {
                // A failure was emitted as an event.
                let _ = self.write_token(image);
            }
            Effect::MarkPreparing => self.mark_preparing(),
            Effect::Consume(by) => self.consume(by),
            Effect::ClearToken => self.clear_token(),
        }
    }

    fn say(&mut self, message: Message) {
        let probe = self.probe.as_ref();
        let event = match message {
            Message::TokenIgnored => HibernationEvent::TokenIgnored,
            Message::NoStore => HibernationEvent::NoStore,
            Message::NotPinned => HibernationEvent::NotPinned {
                token: probe
                    .and_then(|probe| probe.token)
                    .unwrap_or(TokenValue::NotStored),
            },
            Message::CorruptTokenIgnored => HibernationEvent::CorruptTokenIgnored {
                detail: probe
                    .and_then(|probe| probe.corrupt)
                    .map(|corrupt| corrupt.to_string())
                    .unwrap_or_default(),
            },
            Message::CurrentFirmwareUsed => HibernationEvent::CurrentFirmwareUsed {
                instead_of: probe.and_then(|probe| probe.refusal.as_ref()).map_or_else(
                    || "the stored firmware would have been restored".into(),
                    |reason| format!("the start would have been refused: {}", reason.in_full()),
                ),
            },
            Message::TokenKept => HibernationEvent::TokenKept,
            Message::HibernatedUntracked if self.config.mode() == Mode::Off => return,
            Message::HibernatedUntracked => HibernationEvent::HibernatedUntracked,
        };
        self.emit(event);
    }

    /// Makes the token durable. It says that the firmware is stored only if the stored record is still intact.
    pub(super) fn write_token(&mut self, image: ImageStatus) -> Result<(), TokenNotDurable> {
        let stored = image == ImageStatus::Stored && self.is_image_still_stored();
        let Some(storage) = &mut self.storage else {
            return Ok(());
        };
        let token = if stored {
            TokenValue::Stored
        } else {
            TokenValue::NotStored
        };
        match token::write(&mut **storage, stored) {
            Ok(()) => {
                self.write_note(true);
                self.emit(HibernationEvent::TokenWritten { token });
                Ok(())
            }
            Err((attempts, source)) => {
                if stored {
                    // If the store is not changed any more, this keeps the next start from replacing the firmware.
                    self.write_note(true);
                }
                let detail = source.to_string();
                self.emit(HibernationEvent::TokenNotWritten { token, detail });
                Err(TokenNotDurable { attempts, source })
            }
        }
    }

    /// Makes durable that the guest may be about to hibernate. It does not wait for a failure to pass: the guest is still
    /// running, and the token is written later.
    fn mark_preparing(&mut self) {
        if let (Some(storage), Some(_)) = (&mut self.storage, &self.record)
            && let Err(error) = token::prepare(&mut **storage)
            && let Some(suppressed) = self.mark_log.allow()
        {
            tracing::warn!(
                %error,
                suppressed,
                "the guest is about to hibernate, and that could not be noted in the store"
            );
        }
    }

    /// Reads and validates the record of the running firmware again, which may have been stored long ago.
    fn is_image_still_stored(&mut self) -> bool {
        if std::mem::take(&mut self.record_is_intact) {
            return true;
        }
        let (Some(storage), Some(record)) = (&mut self.storage, &self.record) else {
            return false;
        };
        let detail = match probe::read_record(&mut **storage) {
            Ok(intact) if intact.record.is_equivalent(record) => return true,
            Ok(_) => "it was replaced".to_owned(),
            Err(reason) => reason.in_full(),
        };
        self.emit(HibernationEvent::ImageLost { detail });
        false
    }

    fn consume(&mut self, by: Consumer) {
        let event = match self.delete_token() {
            Ok(_) => HibernationEvent::Consumed { by },
            Err(error) => HibernationEvent::NotConsumed {
                by,
                detail: error.to_string(),
            },
        };
        self.emit(event);
    }

    pub(super) fn clear_token(&mut self) {
        match self.delete_token() {
            Ok(true) => self.emit(HibernationEvent::TokenCleared),
            Ok(false) => {}
            Err(error) => self.emit(HibernationEvent::TokenNotCleared {
                detail: error.to_string(),
            }),
        }
    }

    /// Deletes the token. Returns whether there was one.
    fn delete_token(&mut self) -> Result<bool, StorageError> {
        let Some(storage) = &mut self.storage else {
            return Ok(false);
        };
        let deleted = token::delete(&mut **storage)?;
        self.write_note(false);
        Ok(deleted)
    }

    /// Notes that the guest hibernated, or that the noted hibernation is over.
    pub(super) fn write_note(&mut self, hibernated: bool) {
        // A guest that never hibernated has no note.
        if hibernated || self.note.is_some_and(|note| note.hibernated) {
            self.note_sequence(hibernated);
        }
    }

    /// Notes the sequence number of the store.
    fn note_sequence(&mut self, hibernated: bool) {
        let (Some(storage), Some(file)) = (&mut self.storage, &self.note_file) else {
            return;
        };
        let Ok(state) = storage.state() else {
            return;
        };
        let note = SequenceNote {
            sequence: state.sequence,
            hibernated,
        };
        match file.write(note) {
            Ok(()) => self.note = Some(note),
            Err(error) => {
                tracing::warn!(%error, path = %file.0.display(), "cannot write the sequence note");
            }
        }
    }

    /// Replaces a note that belongs to another store, which had this one's name. Otherwise this store would be taken for
    /// an older copy of that once it has a token.
    pub(super) fn replace_outdated_note(&mut self) {
        let sequence = match self.storage.as_mut().map(|storage| storage.state()) {
            Some(Ok(state)) => state.sequence,
            _ => return,
        };
        if self.note.is_some_and(|note| note.is_newer_than(sequence)) {
            self.note_sequence(false);
        }
    }

    pub(super) fn emit(&mut self, event: HibernationEvent) {
        match event.level() {
            // The caller of `start` or `restore_firmware` reports it as an error.
            _ if matches!(event, HibernationEvent::Refused { .. }) => {
                tracing::debug!("{event}");
            }
            Level::Info => tracing::info!("{event}"),
            Level::Warning => tracing::warn!("{event}"),
            Level::Error => tracing::error!("{event}"),
        }
        self.last_event = Some(event.clone());
        (self.events)(event);
    }
}
