//! The firmware that is kept for a hibernated guest: the machine's side of it.

use firmware_hibernation::Architecture;
use firmware_hibernation::BrokerStorage;
use firmware_hibernation::Config;
use firmware_hibernation::FirmwareDescription;
use firmware_hibernation::FirmwareImage;
use firmware_hibernation::FirmwareTarget;
use firmware_hibernation::HibernationEngine;
use firmware_hibernation::HibernationEvent;
use firmware_hibernation::ImagePart;
use firmware_hibernation::Isolation;
use firmware_hibernation::Mode;
use firmware_hibernation::Refusal;
use firmware_hibernation::SequenceNoteFile;
use firmware_hibernation::StartPlan;
use firmware_hibernation::Storage;
use firmware_hibernation::TakeoverSignal;
use firmware_hibernation::TargetError;
use firmware_hibernation::TokenNotDurable;
use openvmm_defs::config::Preservation;
use platform_digest::PlatformView;
use serde_json::Value;
use sleep_port::SleepAnnouncement;
use sleep_port::SleepState;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use vmgs_broker::VmgsClient;

/// The name of the image's only part.
const CODE: &str = "code";
/// Flash memory ends here.
pub(super) const FLASH_END: u64 = 1 << 32;
/// The largest image that is taken from a store, in bytes.
const MAX_CODE: u64 = ovmf_image::MAX_SIZE;

/// Hears of what happens to the firmware that is kept.
pub(crate) type HibernationSink = Arc<dyn Fn(HibernationEvent) + Send + Sync>;

/// What runs, and what it was given: from the host, or from the store.
#[derive(Clone)]
pub(super) struct Loaded {
    /// The content of the ROM that ends at 4 GiB.
    pub code: Arc<[u8]>,
    /// The files of the firmware configuration device that are part of what the guest remembers.
    pub files: BTreeMap<String, Vec<u8>>,
}

/// The store, and the file that it is in.
#[derive(Clone, Copy)]
pub(super) struct Store<'a> {
    pub client: &'a VmgsClient,
    pub path: &'a Path,
}

/// A VM's hibernation, and the firmware of this start.
pub(crate) struct PreservedFirmware {
    hibernation: HibernationEngine,
    view: PlatformView,
    loaded: Loaded,
    /// The VPs have not run since the firmware was loaded.
    fresh: bool,
}

/// Why a machine cannot be reset.
#[derive(Debug, thiserror::Error)]
pub enum RestartError {
    /// The start was refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// What is to run is not what is in flash memory.
    #[error(
        "the guest's hibernated session needs other firmware than what is loaded; start the VM anew"
    )]
    OtherFirmware,
}

impl PreservedFirmware {
    /// Decides what runs: what `host` gives, or what is stored for a guest that hibernated.
    pub(super) fn start<E: From<Refusal>>(
        mode: Mode,
        preservation: Preservation,
        store: Option<Store<'_>>,
        events: HibernationSink,
        view: PlatformView,
        host: impl FnOnce() -> Result<Loaded, E>,
    ) -> Result<Self, E> {
        let mut config = Config::new(mode, Isolation::None, TakeoverSignal::AcpiWake)
            .unwrap_or_else(|firmware_hibernation::IsolatedVm| unreachable!("it is not isolated"));
        config.consume = preservation.consume;
        config.requested = preservation.requested;
        let storage = store
            .map(|store| Box::new(BrokerStorage::new(store.client.clone())) as Box<dyn Storage>);
        let mut hibernation = HibernationEngine::new(
            config,
            Architecture::X86_64,
            storage,
            Box::new(move |event| events(event)),
        );
        if let Some(note) = store.and_then(|store| SequenceNoteFile::beside(store.path)) {
            hibernation = hibernation.with_sequence_note(note);
        }
        let plan = hibernation.start(&view)?;
        let loaded = match &plan {
            StartPlan::HostFirmware | StartPlan::Capture => host()?,
            StartPlan::Restore(pinned) => {
                let mut rom = Rom::default();
                hibernation.restore_firmware(&mut rom)?;
                Loaded {
                    code: rom.code.into(),
                    files: pinned.clone(),
                }
            }
        };
        let mut preserved = Self {
            hibernation,
            view,
            loaded,
            fresh: true,
        };
        if let StartPlan::Capture = plan {
            preserved.capture();
        }
        Ok(preserved)
    }

    pub(super) fn loaded(&self) -> &Loaded {
        &self.loaded
    }

    fn capture(&mut self) {
        let code = &self.loaded.code;
        let image = FirmwareImage::new().part(CODE, FLASH_END - code.len() as u64, code.clone());
        // A failure was told as an event, and is no reason not to start.
        self.hibernation.capture(
            &FirmwareDescription::reset_vector(),
            image,
            &self.loaded.files,
            &self.view,
        );
    }

    /// The machine was reset, and is about to start over with the firmware that it has.
    pub(crate) fn restart(&mut self) -> Result<(), RestartError> {
        self.hibernation.reset();
        match self.hibernation.start(&self.view)? {
            StartPlan::HostFirmware => {}
            StartPlan::Capture => self.capture(),
            StartPlan::Restore(_) => {
                let mut rom = Rom::default();
                self.hibernation.restore_firmware(&mut rom)?;
                if *rom.code != *self.loaded.code {
                    return Err(RestartError::OtherFirmware);
                }
            }
        }
        self.fresh = true;
        Ok(())
    }

    /// The VPs are about to run.
    pub(crate) fn run(&mut self) {
        if std::mem::take(&mut self.fresh) {
            self.hibernation.run();
        }
    }

    /// The guest said that it goes to sleep, or that it woke.
    pub(crate) fn announced(&mut self, announcement: SleepAnnouncement) {
        match announcement {
            SleepAnnouncement::PreparingToSleep(_) => self.hibernation.prepare_to_sleep(),
            SleepAnnouncement::Woke(SleepState::S4) => self.hibernation.wake(),
            SleepAnnouncement::Woke(_) => {}
        }
    }

    /// The guest reset the machine, which does not start over.
    pub(crate) fn reset(&mut self) {
        self.hibernation.reset();
    }

    /// The guest powered the machine off.
    pub(crate) fn powered_off(&mut self) {
        self.hibernation.power_off();
    }

    /// The guest hibernated; durable when this returns.
    pub(crate) fn hibernated(&mut self) -> Result<(), TokenNotDurable> {
        self.hibernation.hibernate()
    }

    /// The VM ended in any other way.
    pub(crate) fn crashed(&mut self) {
        self.hibernation.crash();
    }

    pub(crate) fn inspect(&self) -> Value {
        serde_json::to_value(self.hibernation.inspect()).unwrap_or(Value::Null)
    }
}

/// Takes an image from the store, to be put into flash memory.
#[derive(Default)]
struct Rom {
    code: Vec<u8>,
}

impl FirmwareTarget for Rom {
    fn prepare(&mut self, parts: &[ImagePart]) -> Result<(), TargetError> {
        let [part] = parts else {
            return Err(format!("the image has {} parts instead of one", parts.len()).into());
        };
        let ends_below_4g = part.gpa.checked_add(part.len) == Some(FLASH_END);
        if part.name != CODE || !ends_below_4g || part.len > MAX_CODE {
            return Err(format!(
                "the image's part {} at {:#x} with {:#x} bytes is no ROM of a PC",
                part.name, part.gpa, part.len
            )
            .into());
        }
        self.code = Vec::with_capacity(part.len as usize);
        Ok(())
    }

    fn write(&mut self, _part: usize, offset: u64, bytes: &[u8]) -> Result<(), TargetError> {
        // In ascending order, of a part that was found to fit.
        if offset != self.code.len() as u64 || offset + bytes.len() as u64 > MAX_CODE {
            return Err("the image does not come in order".into());
        }
        self.code.extend(bytes);
        Ok(())
    }
}
