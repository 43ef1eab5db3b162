//! The engine: hibernation of a VM, from one start to the next.

mod effects;

use crate::capture;
use crate::capture::CaptureError;
use crate::capture::TokenAtCapture;
use crate::config::Config;
use crate::config::Mode;
use crate::event::HibernationEvent;
use crate::event::HibernationEventSink;
use crate::event::Stored;
use crate::image::Architecture;
use crate::image::FirmwareDescription;
use crate::image::FirmwareImage;
use crate::image::FirmwareTarget;
use crate::image::PinnedFiles;
use crate::probe;
use crate::probe::Candidate;
use crate::probe::Probe;
use crate::record::NewRecord;
use crate::record::Record;
use crate::refusal::Refusal;
use crate::refusal::RefusalReason;
use crate::restore::differing;
use crate::restore::restore_record;
use crate::saved_state;
use crate::sequence_note::SequenceNote;
use crate::sequence_note::SequenceNoteFile;
use crate::state_machine::Effect;
use crate::state_machine::HibernationState;
use crate::state_machine::ImageStatus;
use crate::state_machine::Input;
use crate::state_machine::Outcome;
use crate::state_machine::ProbeOutcome;
use crate::state_machine::Sleep;
use crate::state_machine::StateMachine;
use crate::storage::FileChange;
use crate::storage::HibernationFile;
use crate::storage::Occupant;
use crate::storage::RecordPlace;
use crate::storage::Storage;
use crate::storage::StorageError;
use crate::storage::StorageErrorKind;
use crate::storage::StoreChange;
use crate::token;
use crate::token::TokenOutcome;
use crate::token::TokenValue;
use log_limit::LogLimit;
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
    /// The guest has halted, and the record was written or read since.
    record_is_intact: bool,
    last_event: Option<HibernationEvent>,
    /// Limits what a guest can cause on a store that fails.
    mark_log: LogLimit,
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
            record_is_intact: false,
            last_event: None,
            mark_log: LogLimit::new(),
        }
    }

    /// Notes the sequence number of the store in `file`, to detect an older copy of the store.
    #[must_use]
    pub fn with_sequence_note(mut self, file: SequenceNoteFile) -> Self {
        self.note_file = Some(file);
        self
    }

    /// The content of the pinned file `name` is settled only when the firmware asks for it, and given to
    /// [`Self::settle_file`] when the guest is about to hibernate. It is likely what was stored for the last session, so
    /// that is kept until then.
    #[must_use]
    pub fn with_late_file(mut self, name: &str) -> Self {
        self.late_file = Some(name.to_owned());
        self
    }

    /// Decides how the VM starts, and writes nothing. `view` is the configured machine; its digests of tables are not
    /// compared.
    pub fn start(&mut self, view: &PlatformView) -> Result<StartPlan, Refusal> {
        self.record = None;
        self.record_is_intact = false;
        self.probe = None;
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
        let token = match self.probe.take().and_then(|probe| probe.corrupt) {
            Some(_) => TokenAtCapture::Delete,
            None => TokenAtCapture::Keep,
        };
        let result = self.try_capture(description, image, pinned, view, token, is_same);
        self.report_place();
        let status = match result {
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
                self.report_not_captured(&error);
                if token == TokenAtCapture::Delete {
                    self.clear_token();
                }
                ImageStatus::NotStored
            }
        };
        self.replace_outdated_note();
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
        let token = TokenAtCapture::Keep;
        match self.try_capture(
            description,
            image,
            pinned,
            view,
            token,
            Record::is_equivalent,
        ) {
            Ok((record, _)) => self.record = Some(record),
            Err(error) => {
                // No record is left, so the token will not say that there is one.
                self.record = None;
                self.report_not_captured(&error);
            }
        }
    }

    fn report_not_captured(&mut self, error: &CaptureError) {
        self.emit(HibernationEvent::NotCaptured {
            reason: error.code(),
            detail: error.in_full(),
            advice: error.advice(),
        });
    }

    /// Reports if the usual file of the record has other data.
    fn report_place(&mut self) {
        let place = self.storage.as_mut().and_then(|s| s.record_place().ok());
        if let Some(RecordPlace {
            file: used,
            occupant: Some(Occupant { file, what }),
        }) = place
        {
            self.emit(HibernationEvent::PlaceTaken {
                file,
                occupant: what,
                used,
            });
        }
    }

    fn try_capture(
        &mut self,
        description: &FirmwareDescription,
        image: FirmwareImage,
        pinned: &PinnedFiles,
        view: &PlatformView,
        token: TokenAtCapture,
        is_same: impl Fn(&Record, &Record) -> bool,
    ) -> Result<(Record, Stored), CaptureError> {
        let Some(storage) = &mut self.storage else {
            let error = StorageError::new(StorageErrorKind::Io, "there is no store");
            return Err(CaptureError::Store(error));
        };
        match NewRecord::new(description, image, pinned, view) {
            Ok(new) => capture::store(&mut **storage, &new, token, is_same),
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
            let reason = RefusalReason::MissingImage { instead: None };
            self.probe = Some(Probe::unusable(reason));
            self.handle(Input::Restored(Outcome::Failed));
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

    /// Goes on with the firmware that is loaded, after a reset: checks that it and the files it was given are the stored
    /// ones. Call only after [`StartPlan::Restore`], instead of [`HibernationEngine::restore_firmware`].
    pub fn keep_firmware(
        &mut self,
        image: &FirmwareImage,
        pinned: &PinnedFiles,
    ) -> Result<(), Refusal> {
        let stored = self.probe.take().and_then(|probe| probe.stored);
        let reason = match stored {
            None => RefusalReason::MissingImage { instead: None },
            Some(stored) => {
                let differing = differing(&stored, image, pinned);
                if differing.is_empty() {
                    self.record = Some(stored.record);
                    self.handle(Input::Restored(Outcome::Done));
                    return Ok(());
                }
                RefusalReason::OtherFirmware(differing)
            }
        };
        self.probe = Some(Probe::unusable(reason));
        self.handle(Input::Restored(Outcome::Failed));
        Err(self.refuse())
    }

    /// The VPs are about to run.
    pub fn run(&mut self) {
        self.handle(Input::Run);
    }

    /// The guest ran its ACPI method `_PTS`, for this state.
    pub fn prepare(&mut self, sleep: Sleep) {
        self.handle(Input::Prepare(sleep));
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
    /// Call only when the guest has halted, before [`Self::hibernate`], which does not read the record again if this wrote
    /// it. `description`, `image` and `pinned` are those of the capture. After a failure the record is as it was: a guest that
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
            self.record_is_intact = true;
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
        self.record_is_intact = false;
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

    fn refuse(&mut self) -> Refusal {
        let reason = self.probe.take().and_then(|probe| probe.refusal);
        let reason = reason.unwrap_or(RefusalReason::MissingImage { instead: None });
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
                self.probe = None;
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
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
