//! The engine: hibernation of a VM, from one start to the next.

use crate::capture;
use crate::capture::CaptureError;
use crate::config::Config;
use crate::config::Mode;
use crate::event::HibernationEvent;
use crate::event::HibernationEventSink;
use crate::event::Level;
use crate::event::Stored;
use crate::image::Architecture;
use crate::image::FirmwareDescription;
use crate::image::FirmwareImage;
use crate::image::FirmwareTarget;
use crate::image::PinnedFiles;
use crate::probe;
use crate::probe::Candidate;
use crate::probe::IntactRecord;
use crate::probe::Probe;
use crate::record::NewRecord;
use crate::record::Record;
use crate::record::RecordError;
use crate::record::RecordReader;
use crate::record::Restorer;
use crate::refusal::Refusal;
use crate::refusal::RefusalReason;
use crate::saved_state;
use crate::sequence_note::SequenceNote;
use crate::sequence_note::SequenceNoteFile;
use crate::state_machine::Consumer;
use crate::state_machine::Effect;
use crate::state_machine::HibernationState;
use crate::state_machine::ImageStatus;
use crate::state_machine::Input;
use crate::state_machine::Message;
use crate::state_machine::Outcome;
use crate::state_machine::ProbeOutcome;
use crate::state_machine::StateMachine;
use crate::storage::FileChange;
use crate::storage::HibernationFile;
use crate::storage::Storage;
use crate::storage::StorageError;
use crate::storage::StorageErrorKind;
use crate::storage::StoreChange;
use crate::token;
use crate::token::TokenOutcome;
use crate::token::TokenValue;
use mesh::saved_state::RestoreError;
use mesh::saved_state::SaveError;
use mesh::saved_state::SavedState;
use platform_digest::Digest;
use platform_digest::PlatformView;
use serde::Serialize;
use std::time::Duration;
use std::time::Instant;

/// The hibernation of a VM.
///
/// Every call blocks until the store is done, so a task of an executor must not make them.
pub struct HibernationEngine {
    config: Config,
    architecture: Architecture,
    machine: StateMachine,
    storage: Option<Box<dyn Storage>>,
    note_file: Option<SequenceNoteFile>,
    note: Option<SequenceNote>,
    /// The pinned file whose content is settled after the capture.
    late_file: Option<String>,
    events: HibernationEventSink,
    /// The probe of the start that is under way.
    probe: Option<Probe>,
    /// The record of the running firmware, if it is stored.
    record: Option<Record>,
    last_event: Option<HibernationEvent>,
}

/// What the VMM has to do to start the VM.
#[derive(Debug)]
pub enum StartPlan {
    /// Load the host's firmware. Hibernation takes no part in this start.
    HostFirmware,
    /// Load the host's firmware, then call [`HibernationEngine::capture`] before anything is written near it
    /// and before the VPs run.
    Capture,
    /// Load the host's firmware, call [`HibernationEngine::discard`], then go on as for [`StartPlan::Capture`].
    Discard,
    /// Call [`HibernationEngine::restore_firmware`] instead of loading the host's firmware, give the firmware
    /// these files, and start at the entry point that the call returns.
    Restore(PinnedFiles),
}

/// The token of a hibernated guest could not be stored.
#[derive(Debug, thiserror::Error)]
#[error("the token of the hibernated guest could not be stored after {attempts} attempts")]
pub struct TokenNotDurable {
    /// The number of attempts.
    pub attempts: u32,
    /// The error of the last attempt.
    #[source]
    pub source: StorageError,
}

/// The state of a VM's hibernation, for inspection.
#[derive(Debug, Clone, Serialize)]
pub struct Inspection {
    /// The configuration.
    pub config: Config,
    /// The state.
    #[serde(rename = "machine")]
    pub state: HibernationState,
    /// Whether there is a store.
    pub has_store: bool,
    /// The record of the running firmware, if it is stored.
    pub record: Option<Record>,
    /// The sequence note beside the store.
    #[serde(rename = "witness")]
    pub note: Option<SequenceNote>,
    /// The last event.
    pub last_event: Option<HibernationEvent>,
}

impl HibernationEngine {
    /// The hibernation of a VM that is off. If hibernation is on without a store, it only emits warnings.
    pub fn new(
        config: Config,
        architecture: Architecture,
        storage: Option<Box<dyn Storage>>,
        events: HibernationEventSink,
    ) -> Self {
        Self {
            machine: StateMachine::new(config.consume, config.takeover),
            config,
            architecture,
            storage,
            note_file: None,
            note: None,
            late_file: None,
            events,
            probe: None,
            record: None,
            last_event: None,
        }
    }

    /// Notes the sequence number of the store in `file`, to detect an older copy of the store.
    #[must_use]
    pub fn with_sequence_note(mut self, file: SequenceNoteFile) -> Self {
        self.note_file = Some(file);
        self
    }

    /// The content of the pinned file `name` is settled only when the firmware asks for it, and then given to
    /// [`Self::settle_file`]. Until then it is likely what was stored for the last session, so that is kept.
    #[must_use]
    pub fn with_late_file(mut self, name: &str) -> Self {
        self.late_file = Some(name.to_owned());
        self
    }

    /// Decides how the VM starts, and writes nothing. `view` is the configured machine; its digests of tables are not
    /// compared.
    pub fn start(&mut self, view: &PlatformView) -> Result<StartPlan, Refusal> {
        self.record = None;
        self.read_note();
        let found = self.probe(view);
        let requested = self.config.requested.take();
        self.handle(Input::Start { found, requested });
        match self.machine.state() {
            HibernationState::Refused => Err(self.refuse()),
            HibernationState::Discarding => Ok(StartPlan::Discard),
            HibernationState::Capturing { .. } => Ok(StartPlan::Capture),
            HibernationState::Restoring => {
                let stored = self.probe.as_ref().and_then(|probe| probe.stored.as_ref());
                let pinned = stored.map(|stored| stored.collected.pinned.clone());
                Ok(StartPlan::Restore(pinned.unwrap_or_default()))
            }
            _ => Ok(StartPlan::HostFirmware),
        }
    }

    fn read_note(&mut self) {
        self.note = match &self.note_file {
            Some(file) if self.config.mode() == Mode::On => file.read(),
            _ => None,
        };
    }

    fn probe(&mut self, view: &PlatformView) -> ProbeOutcome {
        let candidate = Candidate {
            architecture: self.architecture,
            view,
        };
        match (&mut self.storage, self.config.mode()) {
            (None, Mode::On) => ProbeOutcome::NoStore,
            (None, Mode::Off) => ProbeOutcome::Disabled { token: false },
            (Some(storage), Mode::Off) => {
                // Most stores have no token, which the file table tells without reading anything.
                let token = matches!(storage.len(HibernationFile::Token), Ok(Some(_)))
                    && !matches!(
                        token::read(&mut **storage),
                        TokenOutcome::Found(TokenValue::NotHibernated)
                    );
                ProbeOutcome::Disabled { token }
            }
            (Some(storage), Mode::On) => {
                let probe = probe::probe(&mut **storage, Some(candidate), self.note);
                let outcome = probe.outcome;
                self.probe = Some(probe);
                outcome
            }
        }
    }

    /// Stores the host's firmware, which is loaded and has not run, and the files that it is given. Call only after
    /// [`StartPlan::Capture`]. A failure is emitted as an event and does not stop the start.
    pub fn capture(
        &mut self,
        description: &FirmwareDescription,
        image: FirmwareImage,
        pinned: &PinnedFiles,
        view: &PlatformView,
    ) -> ImageStatus {
        if !matches!(self.machine.state(), HibernationState::Capturing { .. }) {
            return ImageStatus::NotStored;
        }
        let started = Instant::now();
        let late = self.late_file.clone();
        let is_same = |old: &Record, new: &Record| match &late {
            Some(name) => old.is_equivalent_except(new, name),
            None => old.is_equivalent(new),
        };
        let status = match self.try_capture(description, image, pinned, view, is_same) {
            Ok((record, stored)) => {
                self.emit(HibernationEvent::Captured {
                    image_id: record.image_id,
                    image_digest: record.image_digest,
                    image_len: record.image_len,
                    stored,
                    milliseconds: milliseconds(started.elapsed()),
                });
                self.record = Some(record);
                ImageStatus::Stored
            }
            Err(error) => {
                self.emit(HibernationEvent::NotCaptured {
                    reason: error.code(),
                    detail: error.in_full(),
                    advice: error.advice(),
                });
                ImageStatus::NotStored
            }
        };
        self.handle(Input::Captured(status));
        status
    }

    /// The late file is settled: `pinned` has what the firmware of this session is given. Unless that is stored, stores
    /// the firmware again, with the same description, image and view as at its capture. Does nothing if the firmware is
    /// not stored; a failure is emitted as an event.
    pub fn settle_file(
        &mut self,
        description: &FirmwareDescription,
        image: FirmwareImage,
        pinned: &PinnedFiles,
        view: &PlatformView,
    ) {
        let (Some(record), Some(name)) = (&self.record, &self.late_file) else {
            return;
        };
        let settled = pinned.get(name).map(|bytes| Digest::of(bytes));
        if record.pinned_digest(name) == settled {
            return;
        }
        match self.try_capture(description, image, pinned, view, Record::is_equivalent) {
            Ok((record, _)) => self.record = Some(record),
            Err(error) => {
                // No record is left, so the token will not say that there is one.
                self.record = None;
                self.emit(HibernationEvent::NotCaptured {
                    reason: error.code(),
                    detail: error.in_full(),
                    advice: error.advice(),
                });
            }
        }
    }

    fn try_capture(
        &mut self,
        description: &FirmwareDescription,
        image: FirmwareImage,
        pinned: &PinnedFiles,
        view: &PlatformView,
        is_same: impl Fn(&Record, &Record) -> bool,
    ) -> Result<(Record, Stored), CaptureError> {
        let Some(storage) = &mut self.storage else {
            let error = StorageError::new(StorageErrorKind::Io, "there is no store");
            return Err(CaptureError::Store(error));
        };
        match NewRecord::new(description, image, pinned, view) {
            Ok(new) => capture::store(&mut **storage, &new, is_same),
            Err(error) => {
                capture::delete_if_present(&mut **storage);
                Err(error.into())
            }
        }
    }

    /// Restores the stored firmware to `target`. Call only after [`StartPlan::Restore`]. Returns the guest-physical
    /// address of the entry point.
    pub fn restore_firmware(&mut self, target: &mut dyn FirmwareTarget) -> Result<u64, Refusal> {
        let started = Instant::now();
        let stored = self.probe.take().and_then(|probe| probe.stored);
        let (Some(storage), Some(stored)) = (&mut self.storage, stored) else {
            self.probe = Some(Probe::unusable(RefusalReason::MissingImage));
            return Err(self.refuse());
        };
        match restore_record(&mut **storage, &stored, target) {
            Ok(entry) => {
                let record = stored.record;
                self.emit(HibernationEvent::Restored {
                    image_id: record.image_id,
                    image_digest: record.image_digest,
                    image_len: record.image_len,
                    milliseconds: milliseconds(started.elapsed()),
                });
                self.record = Some(record);
                self.handle(Input::Restored(Outcome::Done));
                Ok(entry)
            }
            Err(reason) => {
                self.probe = Some(Probe::unusable(reason));
                self.handle(Input::Restored(Outcome::Failed));
                Err(self.refuse())
            }
        }
    }

    /// The VPs are about to run.
    pub fn run(&mut self) {
        self.handle(Input::Run);
    }

    /// The guest ran its ACPI method `_PTS`.
    pub fn prepare_to_sleep(&mut self) {
        self.handle(Input::PrepareToSleep);
    }

    /// The guest ran its ACPI method `_WAK` for S4.
    pub fn wake(&mut self) {
        self.handle(Input::Wake);
    }

    /// The firmware handed over to an operating system.
    pub fn runtime_handoff(&mut self) {
        self.handle(Input::RuntimeHandoff);
    }

    /// The guest powered the machine off.
    pub fn power_off(&mut self) {
        self.handle(Input::PowerOff);
    }

    /// The machine was reset. The next [`start`](HibernationEngine::start) probes the store anew.
    pub fn reset(&mut self) {
        self.handle(Input::Reset);
    }

    /// The VM ended in another way.
    pub fn crash(&mut self) {
        self.handle(Input::Crash);
    }

    /// Stores the firmware that runs again, if it is stored, with what has become known of the machine since its capture.
    /// `description`, `image` and `pinned` are those of the capture. After a failure the record is as it was: a guest that
    /// hibernates then wakes on its firmware, but what `view` adds is not compared.
    pub fn repin(
        &mut self,
        description: &FirmwareDescription,
        image: FirmwareImage,
        pinned: &PinnedFiles,
        view: &PlatformView,
    ) {
        let (Some(storage), Some(record)) = (&mut self.storage, &self.record) else {
            return;
        };
        let new = match NewRecord::new(description, image, pinned, view) {
            Ok(new) => new,
            Err(error) => {
                tracing::warn!(error = %error_chain::Chain(&error), "the machine as it is now is not stored");
                return;
            }
        };
        if record.is_equivalent(new.record()) {
            return;
        }
        let written = storage.commit(StoreChange::of_record(FileChange::Write {
            len: new.record().len,
            source: Box::new(new.stream()),
        }));
        // A failure may have come after the change.
        let is_stored = written.is_ok()
            || probe::read_record(&mut **storage)
                .is_ok_and(|intact| intact.record.is_equivalent(new.record()));
        if is_stored {
            self.record = Some(new.record().clone());
        } else if let Err(error) = written {
            tracing::warn!(%error, "the machine as it is now is not stored");
        }
    }

    /// The guest hibernated. That is durable when this returns; report it only then.
    pub fn hibernate(&mut self) -> Result<(), TokenNotDurable> {
        let effects = self.machine.handle(Input::Hibernate);
        let mut result = Ok(());
        for effect in effects {
            if let Effect::WriteToken(image) = effect {
                result = self.write_token(image);
            } else {
                self.perform(effect);
            }
        }
        result
    }

    /// The present state.
    pub fn state(&self) -> HibernationState {
        self.machine.state()
    }

    /// The state for inspection.
    pub fn inspect(&self) -> Inspection {
        Inspection {
            config: self.config.clone(),
            state: self.machine.state(),
            has_store: self.storage.is_some(),
            record: self.record.clone(),
            note: self.note,
            last_event: self.last_event.clone(),
        }
    }

    /// Saves the state: the phase, and the identity of the running firmware if it is stored. The store, the sequence
    /// note, the configuration and an override for the next start are not part of it. Fails between
    /// [`start`](HibernationEngine::start) and the end of the capture or the restore of the firmware.
    pub fn save(&self) -> Result<SavedState, SaveError> {
        saved_state::save(self.machine.state(), self.record.as_ref())
    }

    /// Restores a saved state, instead of a start, in a VM with the same store and configuration. After an error
    /// nothing has changed. An override for the next start is dropped.
    pub fn restore(&mut self, state: &SavedState) -> Result<(), RestoreError> {
        let (state, record) = saved_state::restore(state)?;
        let invalid = |reason: &str| Err(RestoreError::Invalid(reason.into()));
        if let Some(record) = &record
            && record.architecture != self.architecture
        {
            return invalid("the firmware is for another architecture than this machine");
        }
        if let HibernationState::Running { .. } | HibernationState::Waking { .. } = state
            && (self.storage.is_none() || self.config.mode() == Mode::Off)
        {
            return invalid(
                "the guest was saved with a VMGS store and hibernation on; give the VM its store and turn \
                 hibernation on",
            );
        }
        self.machine = StateMachine::in_state(self.config.consume, self.config.takeover, state);
        self.record = record;
        self.probe = None;
        self.config.requested = None;
        self.read_note();
        Ok(())
    }

    /// Passes an input to the state machine and performs the effects.
    fn handle(&mut self, input: Input) {
        let before = self.machine.state();
        let effects = self.machine.handle(input);
        tracing::debug!(?before, ?input, after = ?self.machine.state(), "hibernation");
        for effect in effects {
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Say(message) => self.say(message),
            Effect::WriteToken(image) => {
                // A failure was emitted as an event.
                let _ = self.write_token(image);
            }
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

    fn refuse(&mut self) -> Refusal {
        let reason = self.probe.take().and_then(|probe| probe.refusal);
        let reason = reason.unwrap_or(RefusalReason::MissingImage);
        self.emit(HibernationEvent::Refused {
            reason: reason.code(),
            detail: reason.in_full(),
            differences: reason.differences(),
            advice: reason.advice(),
        });
        Refusal { reason }
    }

    /// Discards the hibernated session: deletes token and stored firmware. Call only after [`StartPlan::Discard`].
    pub fn discard(&mut self) -> Result<(), Refusal> {
        let result = match &mut self.storage {
            Some(storage) => storage.commit(StoreChange::delete_both()),
            None => Ok(()),
        };
        let outcome = match result {
            Ok(()) => {
                self.write_note(false);
                self.emit(HibernationEvent::Discarded);
                Outcome::Done
            }
            Err(error) => {
                self.probe = Some(Probe::unusable(RefusalReason::NotDiscarded(error)));
                Outcome::Failed
            }
        };
        self.handle(Input::Discarded(outcome));
        match outcome {
            Outcome::Done => Ok(()),
            Outcome::Failed => Err(self.refuse()),
        }
    }

    /// Makes the token durable. It says that the firmware is stored only if the stored record is still intact.
    fn write_token(&mut self, image: ImageStatus) -> Result<(), TokenNotDurable> {
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
                let detail = source.to_string();
                self.emit(HibernationEvent::TokenNotWritten { token, detail });
                Err(TokenNotDurable { attempts, source })
            }
        }
    }

    /// Reads and validates the record of the running firmware again, which may have been stored long ago.
    fn is_image_still_stored(&mut self) -> bool {
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

    fn clear_token(&mut self) {
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

    /// Notes the sequence number of the store.
    fn write_note(&mut self, hibernated: bool) {
        let (Some(storage), Some(file)) = (&mut self.storage, &self.note_file) else {
            return;
        };
        // A guest that never hibernated has no note.
        if !hibernated && self.note.is_none_or(|note| !note.hibernated) {
            return;
        }
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

    fn emit(&mut self, event: HibernationEvent) {
        match event.level() {
            // The caller of `start` or `restore_firmware` reports it as an error.
            _ if matches!(event, HibernationEvent::Refused { .. }) => {
                tracing::debug!(?event, "{event}");
            }
            Level::Info => tracing::info!(?event, "{event}"),
            Level::Warning => tracing::warn!(?event, "{event}"),
            Level::Error => tracing::error!(?event, "{event}"),
        }
        self.last_event = Some(event.clone());
        (self.events)(event);
    }
}

/// Reads the record again and writes its image to `target`. Returns the entry point.
fn restore_record(
    storage: &mut dyn Storage,
    stored: &IntactRecord,
    target: &mut dyn FirmwareTarget,
) -> Result<u64, RefusalReason> {
    let reader = RecordReader::again(stored.record.len, stored.checksums.clone());
    let (record, _) = match probe::read_with(storage, reader, &mut Restorer(target)) {
        Err(RefusalReason::CorruptImage(error)) => return Err(RefusalReason::NotRestored(error)),
        result => result?,
    };
    if record != stored.record {
        let error = RecordError::Changed("header".into());
        return Err(RefusalReason::NotRestored(error));
    }
    match target.find_entry(record.entry_rule) {
        Ok(None) => Ok(record.entry_gpa),
        Ok(Some(found)) if found == record.entry_gpa => Ok(found),
        Ok(Some(found)) => Err(RefusalReason::OtherEntry {
            stored: record.entry_gpa,
            found,
        }),
        Err(error) => Err(RefusalReason::NoEntry(error)),
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
