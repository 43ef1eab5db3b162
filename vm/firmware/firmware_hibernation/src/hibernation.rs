//! The driver: a VM's hibernation, from one start to the next.

mod effects;
mod saved;

use crate::capture;
use crate::capture::CaptureError;
use crate::config::Config;
use crate::config::Mode;
use crate::event::EventSink;
use crate::event::HibernationEvent;
use crate::event::Level;
use crate::event::Stored;
use crate::image::Architecture;
use crate::image::FirmwareDescription;
use crate::image::FirmwareImage;
use crate::image::FirmwareTarget;
use crate::image::Pinned;
use crate::look;
use crate::look::Candidate;
use crate::look::Look;
use crate::look::Sound;
use crate::machine::Effect;
use crate::machine::Event;
use crate::machine::Found;
use crate::machine::Image;
use crate::machine::Machine;
use crate::machine::Outcome;
use crate::machine::State;
use crate::record::NewRecord;
use crate::record::Record;
use crate::record::RecordError;
use crate::record::RecordReader;
use crate::record::Restorer;
use crate::refusal::Refusal;
use crate::refusal::RefusalReason;
use crate::storage::HibernationFile;
use crate::storage::Storage;
use crate::storage::StorageError;
use crate::storage::StorageErrorKind;
use crate::token;
use crate::token::TokenOutcome;
use crate::token::TokenValue;
use crate::witness;
use crate::witness::Note;
use crate::witness::WitnessPlace;
use platform_digest::PlatformView;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

/// A VM's hibernation.
///
/// Every call waits for the store where it has to; none is for a task of an executor or for a VP that
/// must not stop.
pub struct Hibernation {
    config: Config,
    architecture: Architecture,
    machine: Machine,
    storage: Option<Box<dyn Storage>>,
    witness: Option<Box<dyn WitnessPlace>>,
    note: Option<Note>,
    events: Box<dyn EventSink>,
    /// What was found before the start that is under way.
    look: Option<Look>,
    /// The firmware that runs, if it is in the store.
    record: Option<Record>,
    last_event: Option<HibernationEvent>,
}

/// What the VMM has to do for a start.
#[derive(Debug)]
pub enum StartPlan {
    /// Hibernation has no part in it: load the host's firmware.
    HostFirmware,
    /// Load the host's firmware, and before anything is written near it or the VPs run, call
    /// [`Hibernation::capture`].
    Capture,
    /// Give the firmware what it was given then, call [`Hibernation::restore_firmware`] instead of loading the
    /// host's, and start at the entry that it returns.
    Restore(Box<StoredView>),
}

/// What a hibernated guest has to find again.
#[derive(Debug, Clone)]
pub struct StoredView {
    /// Its firmware.
    pub record: Record,
    /// What the firmware was given.
    pub pinned: Pinned,
    /// The machine it ran on, which this one was found to be like, but perhaps for the tables that are
    /// pinned.
    pub platform: PlatformView,
}

/// The token of a guest that hibernated is not in the store.
#[derive(Debug, thiserror::Error)]
#[error("the token of the hibernated guest could not be stored after {attempts} attempts")]
pub struct TokenNotDurable {
    /// How often it was tried.
    pub attempts: u32,
    /// Why the last attempt failed.
    #[source]
    pub source: StorageError,
}

/// What is shown of a VM's hibernation.
#[derive(Debug, Clone, Serialize)]
pub struct Inspection {
    /// What was configured.
    pub config: Config,
    /// Where the VM is.
    pub machine: State,
    /// Whether there is a store.
    pub has_store: bool,
    /// The firmware that runs, if it is in the store.
    pub record: Option<Record>,
    /// What was noted outside the store.
    pub witness: Option<Note>,
    /// What happened last.
    pub last_event: Option<HibernationEvent>,
}

/// What has to be done with the VMM's help.
enum Pending {
    Nothing,
    Capture,
    Restore,
    Refuse,
}

impl Hibernation {
    /// The hibernation of a VM that is off. Without a store, hibernation that is on has nothing but
    /// warnings to give.
    pub fn new(
        config: Config,
        architecture: Architecture,
        storage: Option<Box<dyn Storage>>,
        events: Box<dyn EventSink>,
    ) -> Self {
        Self {
            machine: Machine::new(config.consume, config.takeover),
            config,
            architecture,
            storage,
            witness: None,
            note: None,
            events,
            look: None,
            record: None,
            last_event: None,
        }
    }

    /// The same, with a place outside the store that tells when the store is an older copy.
    #[must_use]
    pub fn with_witness(mut self, place: Box<dyn WitnessPlace>) -> Self {
        self.witness = Some(place);
        self
    }

    /// The machine is to be started: as it was when the guest hibernated, or anew. `view` is the machine
    /// as it is configured; its digests of tables do not matter yet.
    pub fn start(&mut self, view: &PlatformView) -> Result<StartPlan, Refusal> {
        self.record = None;
        self.read_note();
        let found = self.look(view);
        let requested = self.config.requested.take();
        match self.handle(Event::Start { found, requested }) {
            Pending::Refuse => Err(self.refuse()),
            Pending::Capture => Ok(StartPlan::Capture),
            Pending::Nothing => Ok(StartPlan::HostFirmware),
            Pending::Restore => match self.look.as_ref().and_then(|look| look.sound.as_ref()) {
                Some(sound) => Ok(StartPlan::Restore(Box::new(StoredView {
                    record: sound.record.clone(),
                    pinned: sound.collected.pinned.clone(),
                    platform: sound.collected.platform.clone(),
                }))),
                None => Ok(StartPlan::HostFirmware),
            },
        }
    }

    fn read_note(&mut self) {
        self.note = match &mut self.witness {
            Some(place) if self.config.mode() == Mode::On => witness::read(&mut **place),
            _ => None,
        };
    }

    fn look(&mut self, view: &PlatformView) -> Found {
        let candidate = Candidate {
            architecture: self.architecture,
            view,
        };
        match (&mut self.storage, self.config.mode()) {
            (None, Mode::On) => Found::NoStore,
            (None, Mode::Off) => Found::Disabled { token: false },
            (Some(storage), Mode::Off) => {
                // An answer from the file table: nothing of the token is read.
                let token = storage.len(HibernationFile::Token);
                let token = matches!(token, Ok(Some(_)))
                    && !matches!(
                        token::read(&mut **storage),
                        TokenOutcome::Found(TokenValue::NotHibernated)
                    );
                Found::Disabled { token }
            }
            (Some(storage), Mode::On) => {
                let look = look::look(&mut **storage, Some(candidate), self.note);
                let found = look.found;
                self.look = Some(look);
                found
            }
        }
    }

    /// Stores the host's firmware, which is in the machine and has not run, with what it was given. Only
    /// after [`StartPlan::Capture`]. A failure is told as an event, and no reason not to start.
    pub fn capture(
        &mut self,
        description: &FirmwareDescription,
        image: Arc<dyn FirmwareImage>,
        pinned: &Pinned,
        view: &PlatformView,
    ) -> Image {
        if !matches!(self.machine.state(), State::Capturing { .. }) {
            return Image::NotStored;
        }
        let started = Instant::now();
        let result = self.try_capture(description, image, pinned, view);
        let captured = match result {
            Ok((record, stored)) => {
                self.emit(HibernationEvent::Captured {
                    image_id: record.image_id,
                    image_digest: record.image_digest,
                    image_len: record.image_len,
                    stored,
                    milliseconds: milliseconds(started.elapsed()),
                });
                self.record = Some(record);
                Image::Stored
            }
            Err(error) => {
                self.emit(HibernationEvent::NotCaptured {
                    reason: error.code(),
                    detail: error.in_full(),
                    advice: error.advice(),
                });
                Image::NotStored
            }
        };
        self.handle(Event::Captured(captured));
        captured
    }

    fn try_capture(
        &mut self,
        description: &FirmwareDescription,
        image: Arc<dyn FirmwareImage>,
        pinned: &Pinned,
        view: &PlatformView,
    ) -> Result<(Record, Stored), CaptureError> {
        let Some(storage) = &mut self.storage else {
            let error = StorageError::new(StorageErrorKind::Io, "there is no store");
            return Err(CaptureError::Store(error));
        };
        match NewRecord::new(description, image, pinned, view) {
            Ok(new) => capture::store(&mut **storage, &new),
            Err(error) => {
                capture::delete_if_present(&mut **storage);
                Err(error.into())
            }
        }
    }

    /// Puts the stored firmware into the machine. Only after [`StartPlan::Restore`]. Returns the
    /// guest-physical address of its first instruction.
    pub fn restore_firmware(&mut self, target: &mut dyn FirmwareTarget) -> Result<u64, Refusal> {
        let started = Instant::now();
        let look = self.look.take();
        let (Some(storage), Some(sound)) = (&mut self.storage, look.and_then(|look| look.sound))
        else {
            let reason = RefusalReason::MissingImage;
            self.look = Some(failed_look(reason));
            return Err(self.refuse());
        };
        match put_back(&mut **storage, &sound, target) {
            Ok(entry) => {
                let record = sound.record;
                self.emit(HibernationEvent::Restored {
                    image_id: record.image_id,
                    image_digest: record.image_digest,
                    image_len: record.image_len,
                    milliseconds: milliseconds(started.elapsed()),
                });
                self.record = Some(record);
                self.handle(Event::Restored(Outcome::Done));
                Ok(entry)
            }
            Err(reason) => {
                self.look = Some(failed_look(reason));
                self.handle(Event::Restored(Outcome::Failed));
                Err(self.refuse())
            }
        }
    }

    /// The VPs are about to run.
    pub fn run(&mut self) {
        self.handle(Event::Run);
    }

    /// The guest ran its ACPI method `_PTS`.
    pub fn prepare_to_sleep(&mut self) {
        self.handle(Event::PrepareToSleep);
    }

    /// The guest ran its ACPI method `_WAK` for S4.
    pub fn wake(&mut self) {
        self.handle(Event::Wake);
    }

    /// The firmware handed the machine over to an operating system.
    pub fn runtime_handoff(&mut self) {
        self.handle(Event::RuntimeHandoff);
    }

    /// The guest powered the machine off.
    pub fn power_off(&mut self) {
        self.handle(Event::PowerOff);
    }

    /// The machine was reset. The next [`start`](Hibernation::start) looks at the store anew.
    pub fn reset(&mut self) {
        self.handle(Event::Reset);
    }

    /// The VM ended in any other way.
    pub fn crash(&mut self) {
        self.handle(Event::Crash);
    }

    /// The guest hibernated. When this returns, that is durable; only then may anybody be told.
    pub fn hibernate(&mut self) -> Result<(), TokenNotDurable> {
        let effects = self.machine.handle(Event::Hibernate);
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

    /// Where the VM is.
    pub fn state(&self) -> State {
        self.machine.state()
    }

    /// What is to be shown.
    pub fn inspect(&self) -> Inspection {
        Inspection {
            config: self.config.clone(),
            machine: self.machine.state(),
            has_store: self.storage.is_some(),
            record: self.record.clone(),
            witness: self.note,
            last_event: self.last_event.clone(),
        }
    }

    /// Passes an event through the machine, and does what it says.
    fn handle(&mut self, event: Event) -> Pending {
        let before = self.machine.state();
        let effects = self.machine.handle(event);
        tracing::debug!(?before, ?event, after = ?self.machine.state(), "hibernation");
        let mut pending = Pending::Nothing;
        for effect in effects {
            match self.perform(effect) {
                Pending::Nothing => {}
                next => pending = next,
            }
        }
        pending
    }

    fn emit(&mut self, event: HibernationEvent) {
        match event.level() {
            // The caller of `start` or `restore` has it as an error to report.
            _ if matches!(event, HibernationEvent::Refused { .. }) => {
                tracing::debug!(?event, "{event}");
            }
            Level::Info => tracing::info!(?event, "{event}"),
            Level::Warning => tracing::warn!(?event, "{event}"),
            Level::Error => tracing::error!(?event, "{event}"),
        }
        self.last_event = Some(event.clone());
        self.events.event(event);
    }
}

/// Reads the record once more, into the machine.
fn put_back(
    storage: &mut dyn Storage,
    sound: &Sound,
    target: &mut dyn FirmwareTarget,
) -> Result<u64, RefusalReason> {
    let reader = RecordReader::again(sound.record.len, sound.checksums.clone());
    let (record, _) = match look::stream(storage, reader, &mut Restorer(target)) {
        Ok(read) => read,
        Err(RefusalReason::CorruptImage(error)) => return Err(RefusalReason::NotRestored(error)),
        Err(error) => return Err(error),
    };
    if record != sound.record {
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

fn failed_look(reason: RefusalReason) -> Look {
    Look {
        found: Found::Unusable,
        token: None,
        corrupt: None,
        refusal: Some(reason),
        sound: None,
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
