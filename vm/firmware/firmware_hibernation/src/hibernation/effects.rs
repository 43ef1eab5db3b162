//! Doing what the state machine says.

use super::Hibernation;
use super::Pending;
use super::TokenNotDurable;
use super::failed_look;
use crate::config::Mode;
use crate::event::HibernationEvent;
use crate::look;
use crate::machine::Consumer;
use crate::machine::Effect;
use crate::machine::Event;
use crate::machine::Image;
use crate::machine::Message;
use crate::machine::Outcome;
use crate::refusal::Refusal;
use crate::refusal::RefusalReason;
use crate::storage::Change;
use crate::storage::StorageError;
use crate::storage::StorageErrorKind;
use crate::token;
use crate::token::TokenOutcome;
use crate::token::TokenValue;
use crate::witness::Note;

/// How often a token is tried to be written.
const TOKEN_ATTEMPTS: u32 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deleted {
    Token,
    Nothing,
}

impl Hibernation {
    pub(super) fn perform(&mut self, effect: Effect) -> Pending {
        match effect {
            Effect::Say(message) => self.say(message),
            Effect::Refuse => return Pending::Refuse,
            Effect::Capture => return Pending::Capture,
            Effect::Restore => return Pending::Restore,
            Effect::Discard => return self.discard(),
            Effect::WriteToken(image) => {
                // The event told of the failure.
                let _ = self.write_token(image);
            }
            Effect::Consume(by) => self.consume(by),
            Effect::ClearToken => self.clear(),
        }
        Pending::Nothing
    }

    fn say(&mut self, message: Message) {
        let look = self.look.as_ref();
        let event = match message {
            Message::TokenIgnored => HibernationEvent::TokenIgnored,
            Message::NoStore => HibernationEvent::NoStore,
            Message::NotPinned => HibernationEvent::NotPinned {
                token: look
                    .and_then(|look| look.token)
                    .unwrap_or(TokenValue::NotStored),
            },
            Message::CorruptTokenIgnored => HibernationEvent::CorruptTokenIgnored {
                detail: look
                    .and_then(|look| look.corrupt)
                    .map(|corrupt| corrupt.to_string())
                    .unwrap_or_default(),
            },
            Message::CurrentFirmwareUsed => HibernationEvent::CurrentFirmwareUsed {
                instead_of: look.and_then(|look| look.refusal.as_ref()).map_or_else(
                    || "the stored firmware would have been restored".into(),
                    |reason| format!("the start would have been refused: {}", reason.in_full()),
                ),
            },
            Message::TokenKept => HibernationEvent::TokenKept,
            Message::HibernatedUntracked => {
                if self.config.mode() == Mode::Off {
                    return;
                }
                HibernationEvent::HibernatedUntracked
            }
        };
        self.emit(event);
    }

    pub(super) fn refuse(&mut self) -> Refusal {
        let reason = self
            .look
            .take()
            .and_then(|look| look.refusal)
            .unwrap_or(RefusalReason::MissingImage);
        self.emit(HibernationEvent::Refused {
            reason: reason.code(),
            detail: reason.in_full(),
            differences: reason.differences(),
            advice: reason.advice(),
        });
        Refusal { reason }
    }

    fn discard(&mut self) -> Pending {
        let result = match &mut self.storage {
            Some(storage) => storage.commit(Change::delete_both()),
            None => Ok(()),
        };
        match result {
            Ok(()) => {
                self.take_note(false);
                self.emit(HibernationEvent::Discarded);
                self.handle(Event::Discarded(Outcome::Done))
            }
            Err(error) => {
                self.look = Some(failed_look(RefusalReason::NotDiscarded(error)));
                self.handle(Event::Discarded(Outcome::Failed))
            }
        }
    }

    /// Makes the token durable, having made sure that it is true.
    pub(super) fn write_token(&mut self, image: Image) -> Result<(), TokenNotDurable> {
        let stored = image == Image::Stored && self.is_image_still_there();
        let value = if stored {
            TokenValue::Stored
        } else {
            TokenValue::NotStored
        };
        let Some(storage) = &mut self.storage else {
            return Ok(());
        };
        let bytes = token::encode(stored);
        let mut attempts = 0;
        let result = loop {
            attempts += 1;
            // A session that started from this token and has not outlived it needs no other.
            if matches!(token::read(&mut **storage), TokenOutcome::Found(found) if found == value) {
                break Ok(());
            }
            match storage.commit(Change::write_token(bytes)) {
                Ok(()) => break Ok(()),
                Err(error) if error.kind == StorageErrorKind::Io && attempts < TOKEN_ATTEMPTS => {
                    tracing::warn!(%error, attempts, "writing the hibernation token failed");
                }
                Err(error) => break Err(error),
            }
        };
        match result {
            Ok(()) => {
                self.take_note(true);
                self.emit(HibernationEvent::TokenWritten { token: value });
                Ok(())
            }
            Err(source) => {
                self.emit(HibernationEvent::TokenNotWritten {
                    token: value,
                    detail: source.to_string(),
                });
                Err(TokenNotDurable { attempts, source })
            }
        }
    }

    /// Whether the store has the firmware that runs, whole: it was stored long ago.
    fn is_image_still_there(&mut self) -> bool {
        let (Some(storage), Some(record)) = (&mut self.storage, &self.record) else {
            return false;
        };
        let detail = match look::read_record(&mut **storage) {
            Ok(sound) if sound.record.is_equivalent(record) => return true,
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

    fn clear(&mut self) {
        match self.delete_token() {
            Ok(Deleted::Token) => self.emit(HibernationEvent::TokenCleared),
            Ok(Deleted::Nothing) => {}
            Err(error) => self.emit(HibernationEvent::TokenNotCleared {
                detail: error.to_string(),
            }),
        }
    }

    fn delete_token(&mut self) -> Result<Deleted, StorageError> {
        let Some(storage) = &mut self.storage else {
            return Ok(Deleted::Nothing);
        };
        let deleted = if matches!(
            token::read(&mut **storage),
            TokenOutcome::Missing | TokenOutcome::Found(TokenValue::NotHibernated)
        ) {
            Deleted::Nothing
        } else {
            storage.commit(Change::delete_token())?;
            Deleted::Token
        };
        self.take_note(false);
        Ok(deleted)
    }

    /// Notes outside the store how new it is.
    fn take_note(&mut self, hibernated: bool) {
        let (Some(storage), Some(place)) = (&mut self.storage, &mut self.witness) else {
            return;
        };
        // A guest that never hibernated leaves no note.
        if !hibernated && self.note.is_none_or(|note| !note.hibernated) {
            return;
        }
        let Ok(state) = storage.state() else {
            return;
        };
        let note = Note {
            sequence: state.sequence,
            hibernated,
        };
        match place.write(&note.encode()) {
            Ok(()) => self.note = Some(note),
            Err(error) => tracing::warn!(%error, "the store's age could not be noted"),
        }
    }
}
