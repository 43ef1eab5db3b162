//! The firmware of a guest's session: which one runs, and what is kept for a guest that hibernates.

use crate::machine::plan::MachineShape;
use crate::machine::view;
use crate::machine::vmgs_store::PlannedStore;
use acpi_spec::TABLES_FILE;
use firmware_hibernation::Architecture;
use firmware_hibernation::Config;
use firmware_hibernation::EntryRule;
use firmware_hibernation::FirmwareDescription;
use firmware_hibernation::FirmwareImage;
use firmware_hibernation::FirmwareTarget;
use firmware_hibernation::HibernationEngine;
use firmware_hibernation::HibernationEvent;
use firmware_hibernation::ImagePart;
use firmware_hibernation::Isolation;
use firmware_hibernation::Mode;
use firmware_hibernation::Override;
use firmware_hibernation::RESET_VECTOR;
use firmware_hibernation::Refusal;
use firmware_hibernation::SequenceNoteFile;
use firmware_hibernation::Sleep;
use firmware_hibernation::StartPlan;
use firmware_hibernation::Storage;
use firmware_hibernation::TakeoverSignal;
use firmware_hibernation::TargetError;
use firmware_hibernation::TokenNotDurable;
use loader::msvm;
use loader::msvm::MsvmImage;
use loader::ovmf::ROM_END;
use machine_parts::Ending;
use machine_parts::HaltReason;
use mesh::saved_state::RestoreError;
use mesh::saved_state::SaveError;
use mesh::saved_state::SavedState;
use openvmm_defs::config::HibernationConfig;
use openvmm_defs::start::Start;
use parking_lot::Mutex;
use platform_digest::PlatformDisk;
use platform_digest::PlatformView;
use serde_json::Value;
use sleep_port::SleepAnnouncement;
use sleep_port::SleepState;
use state_unit::ResetError;
use state_unit::StateUnit;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The name of the image's only part.
const CODE: &str = "code";
/// The largest image that is taken from a store, in bytes.
const MAX_CODE: u64 = ovmf_image::MAX_SIZE;

/// Hears of what happens to the firmware that is kept.
pub(crate) type HibernationSink = Arc<dyn Fn(HibernationEvent) + Send + Sync>;

/// Where firmware is, and how it is entered.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) enum FirmwarePlace {
    /// In a ROM that ends at 4 GiB, at the reset vector.
    Rom,
    /// In RAM, at its SEC phase.
    Ram,
}

impl FirmwarePlace {
    /// The address of an image of `len` bytes, if there is one.
    fn gpa(self, len: u64) -> Option<u64> {
        match self {
            Self::Rom => ROM_END.checked_sub(len),
            Self::Ram => Some(msvm::BASE),
        }
    }

    fn entry_rule(self) -> EntryRule {
        match self {
            Self::Rom => EntryRule::ResetVector,
            Self::Ram => EntryRule::SecCore,
        }
    }

    /// The signal that an operating system has taken over from the firmware.
    fn takeover(self) -> TakeoverSignal {
        match self {
            Self::Rom => TakeoverSignal::AcpiWake,
            // The firmware's ACPI tables do not tell of `_WAK`.
            Self::Ram => TakeoverSignal::RuntimeHandoff,
        }
    }
}

/// The firmware that runs, and what it was given: by the host, or from the store.
pub(crate) struct LoadedFirmware {
    /// The image.
    pub code: Arc<[u8]>,
    /// The address at which it is entered.
    pub entry_gpa: u64,
    /// What the firmware is given that a hibernated guest relies on, such as files of the firmware configuration device.
    pub files: BTreeMap<String, Vec<u8>>,
    pub origin: FilesOrigin,
}

/// Where a firmware's files are from.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) enum FilesOrigin {
    /// They describe the machine, and follow what the firmware does with it.
    Machine,
    /// They were stored for a hibernated guest, and stay as they are.
    Stored,
}

impl LoadedFirmware {
    /// The code as it is stored for a hibernated guest.
    fn image(&self, place: FirmwarePlace) -> FirmwareImage {
        let code = &self.code;
        let gpa = place.gpa(code.len() as u64).unwrap_or_default();
        FirmwareImage::new().part(CODE, gpa, code.clone())
    }

    fn description(&self, place: FirmwarePlace) -> FirmwareDescription {
        FirmwareDescription {
            architecture: Architecture::X86_64,
            entry_rule: place.entry_rule(),
            entry_gpa: self.entry_gpa,
            version: None,
        }
    }
}

/// How a VM hibernates, and the store that its session is kept in.
pub(crate) struct SessionConfig {
    pub place: FirmwarePlace,
    pub hibernation: HibernationConfig,
    pub requested: Option<Override>,
    /// The machine as configured.
    pub view: PlatformView,
    pub storage: Option<Box<dyn Storage>>,
    /// The file in which the store's sequence number is noted.
    pub sequence_note: Option<SequenceNoteFile>,
    pub events: HibernationSink,
}

/// The firmware of one session of a guest, and what its hibernation needs. A session goes on across resets and ends when
/// the guest powers off; one that ends in a hibernation goes on at the next start.
pub(crate) struct FirmwareSession {
    place: FirmwarePlace,
    hibernation: HibernationEngine,
    view: PlatformView,
    loaded: LoadedFirmware,
    /// What is written to the store before the VPs run.
    pending: Pending,
    /// The VPs have not run since the firmware was loaded.
    fresh: bool,
}

/// What a start writes to the store.
#[derive(Debug, Copy, Clone, Default)]
enum Pending {
    #[default]
    Nothing,
    /// The firmware.
    Capture,
    /// The hibernated session is deleted, and the firmware stored.
    Discard,
}

impl Pending {
    fn of(plan: &StartPlan) -> Self {
        match plan {
            StartPlan::HostFirmware | StartPlan::Restore(_) => Self::Nothing,
            StartPlan::Capture => Self::Capture,
            StartPlan::Discard => Self::Discard,
        }
    }
}

impl SessionConfig {
    /// That of `machine`, whose guest relies on `view`.
    pub(crate) fn new(
        place: FirmwarePlace,
        machine: &MachineShape<'_>,
        view: PlatformView,
        store: Option<&PlannedStore>,
        start: &Start,
        events: HibernationSink,
    ) -> Self {
        Self {
            place,
            hibernation: machine.config.hibernation,
            requested: match start {
                Start::Boot(options) => options.hibernation_override,
                Start::Restore(_) => None,
            },
            view,
            storage: store.map(PlannedStore::storage),
            sequence_note: store.and_then(PlannedStore::sequence_note),
            events,
        }
    }

    fn into_hibernation(self) -> (HibernationEngine, PlatformView) {
        let mode = match self.hibernation.enabled {
            true => Mode::On,
            false => Mode::Off,
        };
        let mut config = Config::new(mode, Isolation::None, self.place.takeover())
            .unwrap_or_else(|firmware_hibernation::IsolatedVm| unreachable!("it is not isolated"));
        config.consume = self.hibernation.consume;
        config.requested = self.requested;
        let events = self.events;
        let mut hibernation = HibernationEngine::new(
            config,
            Architecture::X86_64,
            self.storage,
            Box::new(move |event| events(event)),
        );
        if self.place == FirmwarePlace::Rom {
            hibernation = hibernation.with_late_file(TABLES_FILE);
        }
        if let Some(note) = self.sequence_note {
            hibernation = hibernation.with_sequence_note(note);
        }
        (hibernation, self.view)
    }
}

impl FirmwareSession {
    /// Decides which firmware runs: what `host` returns, or what is stored for a guest that hibernated. Nothing is
    /// written.
    pub(crate) fn plan<E: From<Refusal>>(
        config: SessionConfig,
        host: impl FnOnce() -> Result<LoadedFirmware, E>,
    ) -> Result<Self, E> {
        let place = config.place;
        let (mut hibernation, view) = config.into_hibernation();
        let plan = hibernation.start(&view)?;
        let loaded = match &plan {
            StartPlan::HostFirmware | StartPlan::Capture | StartPlan::Discard => host()?,
            StartPlan::Restore(pinned) => {
                let mut stored = StoredImage::at(place);
                let entry_gpa = hibernation.restore_firmware(&mut stored)?;
                LoadedFirmware {
                    code: stored.code.into(),
                    entry_gpa,
                    files: pinned.clone(),
                    origin: FilesOrigin::Stored,
                }
            }
        };
        Ok(Self {
            place,
            hibernation,
            view,
            loaded,
            pending: Pending::of(&plan),
            fresh: true,
        })
    }

    /// The session of a machine that is to be restored. `saved` is the state of this unit.
    pub(crate) fn resume(config: SessionConfig, saved: &SavedState) -> Result<Self, RestoreError> {
        let saved: SavedSession = saved.decode()?;
        let place = config.place;
        let (hibernation, view) = config.into_hibernation();
        Ok(Self {
            place,
            hibernation,
            view,
            loaded: saved.loaded(),
            pending: Pending::Nothing,
            fresh: false,
        })
    }

    pub(crate) fn loaded(&self) -> &LoadedFirmware {
        &self.loaded
    }

    /// Writes to the store what the plan says. The VPs have not run.
    fn commit(&mut self) -> Result<(), Refusal> {
        match std::mem::take(&mut self.pending) {
            Pending::Nothing => return Ok(()),
            Pending::Capture => {}
            Pending::Discard => self.hibernation.discard()?,
        }
        // A failure was reported as an event, and the VM starts without.
        self.hibernation.capture(
            &self.loaded.description(self.place),
            self.loaded.image(self.place),
            &self.loaded.files,
            &view::without_contents(&self.view),
        );
        Ok(())
    }

    /// Keeps what is on the disks, for a guest that has hibernated and writes them no more.
    fn pin_disks(&mut self, disks: impl FnOnce() -> Vec<PlatformDisk>) {
        // Without hibernation nothing is compared.
        if self.view.disks.is_none() {
            return;
        }
        self.view.disks = Some(disks());
        self.hibernation.repin(
            &self.loaded.description(self.place),
            self.loaded.image(self.place),
            &self.loaded.files,
            &self.view,
        );
    }

    /// Stores what the firmware was given as [`TABLES_FILE`], unless that is stored: the guest is about to hibernate, and
    /// will rely on it. Most sessions end in another way, and are spared the write.
    fn store_tables(&mut self) {
        self.hibernation.settle_file(
            &self.loaded.description(self.place),
            self.loaded.image(self.place),
            &self.loaded.files,
            &view::without_contents(&self.view),
        );
    }

    /// The machine was reset, and is about to start again with the firmware that is loaded. Refused if the hibernated
    /// session needs other firmware, or other files.
    fn restart(&mut self) -> Result<(), Refusal> {
        self.hibernation.reset();
        match self.hibernation.start(&self.view)? {
            plan @ (StartPlan::HostFirmware | StartPlan::Capture | StartPlan::Discard) => {
                self.pending = Pending::of(&plan);
                self.commit()?;
            }
            StartPlan::Restore(_) => {
                let image = self.loaded.image(self.place);
                let files = &self.loaded.files;
                self.hibernation.keep_firmware(&image, files)?;
            }
        }
        self.fresh = true;
        Ok(())
    }

    /// The guest's ACPI code announced that it goes to sleep, or that it woke.
    fn announced(&mut self, announcement: SleepAnnouncement) {
        match announcement {
            SleepAnnouncement::PreparingToSleep(state) => {
                let sleep = match state {
                    SleepState::S1 | SleepState::S2 | SleepState::S3 => Sleep::Suspend,
                    SleepState::S4 => {
                        self.store_tables();
                        Sleep::Hibernate
                    }
                    SleepState::S5 => Sleep::PowerOff,
                };
                self.hibernation.prepare(sleep);
            }
            SleepAnnouncement::Woke(SleepState::S4) => self.hibernation.wake(),
            SleepAnnouncement::Woke(_) => {}
        }
    }

    /// Makes durable how the guest ended.
    fn settle(&mut self, ending: Ending<'_>) -> Result<(), TokenNotDurable> {
        match ending {
            Ending::Halted(HaltReason::PowerOff) => self.hibernation.power_off(),
            // The machine does not start again, so its reset ends the session.
            Ending::Halted(HaltReason::Reset) => self.hibernation.reset(),
            Ending::Halted(HaltReason::Hibernate) => {
                self.store_tables();
                self.hibernation.hibernate()?;
            }
            Ending::Stopped
            | Ending::Halted(
                HaltReason::GuestPanic
                | HaltReason::TripleFault { .. }
                | HaltReason::Hypervisor(_)
                | HaltReason::Error(_),
            ) => self.hibernation.crash(),
        }
        Ok(())
    }
}

/// The saved state of a session.
#[derive(minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
struct SavedSession {
    #[cbor(n(0), with = "minicbor::bytes")]
    code: Vec<u8>,
    #[n(1)]
    files: BTreeMap<String, Vec<u8>>,
    #[n(2)]
    hibernation: SavedState,
    #[n(3)]
    fresh: bool,
    /// Whether the files describe the machine; absent in states of sessions whose files never changed.
    #[n(4)]
    files_of_machine: Option<bool>,
    /// Where the firmware is entered; absent in states of firmware that starts at the reset vector.
    #[n(5)]
    entry_gpa: Option<u64>,
}

impl SavedSession {
    fn loaded(self) -> LoadedFirmware {
        LoadedFirmware {
            code: self.code.into(),
            entry_gpa: self.entry_gpa.unwrap_or(RESET_VECTOR),
            files: self.files,
            origin: match self.files_of_machine {
                Some(true) => FilesOrigin::Machine,
                Some(false) | None => FilesOrigin::Stored,
            },
        }
    }
}

/// A session that the machine's units, its power requests and the guest's sleep announcements share.
#[derive(Clone)]
pub(crate) struct SharedSession(Arc<Mutex<FirmwareSession>>);

impl SharedSession {
    pub(crate) fn new(session: FirmwareSession) -> Self {
        Self(Arc::new(Mutex::new(session)))
    }

    /// Writes to the store what the plan says. The VPs have not run.
    pub(crate) fn commit(&self) -> Result<(), Refusal> {
        self.0.lock().commit()
    }

    /// A file of the firmware is settled: while the machine is built, before [`Self::commit`]; [`TABLES_FILE`] on the thread
    /// of the VP that asks for it.
    pub(crate) fn set_file(&self, name: &str, content: Vec<u8>) {
        self.0.lock().loaded.files.insert(name.to_owned(), content);
    }

    /// Acts on a sleep announcement, on the VP's thread: the guest does not go on before it is acted on.
    pub(crate) fn announced(&self, announcement: SleepAnnouncement) {
        self.0.lock().announced(announcement);
    }

    /// The firmware handed over to an operating system, on the VP's thread.
    pub(crate) fn handed_over(&self) {
        self.0.lock().hibernation.runtime_handoff();
    }

    /// Keeps what is on the disks, for a guest that has hibernated.
    pub(crate) fn pin_disks(&self, disks: impl FnOnce() -> Vec<PlatformDisk>) {
        self.0.lock().pin_disks(disks);
    }

    /// Makes durable how the guest ended.
    pub(crate) fn settle(&self, ending: Ending<'_>) -> Result<(), TokenNotDurable> {
        self.0.lock().settle(ending)
    }
}

impl StateUnit for SharedSession {
    fn start(&mut self) {
        let mut session = self.0.lock();
        if std::mem::take(&mut session.fresh) {
            session.hibernation.run();
        }
    }

    fn reset(&mut self) -> Result<(), ResetError> {
        let restarted = self.0.lock().restart();
        restarted.map_err(|error| ResetError(error.into()))
    }

    fn save(&mut self) -> Result<SavedState, SaveError> {
        let session = self.0.lock();
        Ok(SavedState::encode(&SavedSession {
            code: session.loaded.code.to_vec(),
            files: session.loaded.files.clone(),
            hibernation: session.hibernation.save()?,
            fresh: session.fresh,
            files_of_machine: Some(session.loaded.origin == FilesOrigin::Machine),
            entry_gpa: (session.place != FirmwarePlace::Rom).then_some(session.loaded.entry_gpa),
        }))
    }

    fn restore(&mut self, state: &SavedState) -> Result<(), RestoreError> {
        let saved: SavedSession = state.decode()?;
        let mut session = self.0.lock();
        session.hibernation.restore(&saved.hibernation)?;
        session.fresh = saved.fresh;
        session.loaded = saved.loaded();
        Ok(())
    }

    fn inspect(&self) -> Value {
        serde_json::to_value(self.0.lock().hibernation.inspect()).unwrap_or(Value::Null)
    }
}

/// Takes an image from the store.
struct StoredImage {
    place: FirmwarePlace,
    code: Vec<u8>,
}

impl StoredImage {
    fn at(place: FirmwarePlace) -> Self {
        Self {
            place,
            code: Vec::new(),
        }
    }
}

impl FirmwareTarget for StoredImage {
    fn prepare(&mut self, parts: &[ImagePart]) -> Result<(), TargetError> {
        let [part] = parts else {
            return Err(format!("the image has {} parts instead of one", parts.len()).into());
        };
        let fits = part.len > 0 && self.place.gpa(part.len) == Some(part.gpa);
        if part.name != CODE || !fits || part.len > MAX_CODE {
            return Err(format!(
                "the image's part {} at {:#x} with {:#x} bytes is no {}",
                part.name,
                part.gpa,
                part.len,
                match self.place {
                    FirmwarePlace::Rom => "ROM of a PC",
                    FirmwarePlace::Ram => "firmware of a generation-2 VM of Hyper-V",
                }
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

    fn find_entry(&mut self, _rule: EntryRule) -> Result<Option<u64>, TargetError> {
        match self.place {
            FirmwarePlace::Rom => Ok(None),
            FirmwarePlace::Ram => {
                let image = MsvmImage::new(self.code.as_slice().into())?;
                Ok(Some(image.entry_gpa()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: &str, gpa: u64, len: u64) -> ImagePart {
        let name = name.to_owned();
        ImagePart { name, gpa, len }
    }

    #[test]
    fn only_an_image_that_is_a_rom_of_a_pc_is_taken_from_a_store() {
        let good = part(CODE, ROM_END - 0x2000, 0x2000);
        for parts in [
            vec![],
            vec![good.clone(), good.clone()],
            vec![part("vars", good.gpa, good.len)],
            vec![part(CODE, good.gpa, 0x1000)],
            vec![part(CODE, good.gpa, u64::MAX)],
            vec![part(CODE, ROM_END - MAX_CODE - 0x1000, MAX_CODE + 0x1000)],
        ] {
            let mut rom = StoredImage::at(FirmwarePlace::Rom);
            assert!(rom.prepare(&parts).is_err(), "{parts:?}");
        }
        let mut rom = StoredImage::at(FirmwarePlace::Rom);
        rom.prepare(&[good]).unwrap();
        assert!(rom.write(0, 1, &[1]).is_err());
        rom.write(0, 0, &[1]).unwrap();
        rom.write(0, 1, &[2, 3]).unwrap();
        assert_eq!(rom.code, [1, 2, 3]);
    }

    #[test]
    fn an_image_has_at_most_the_largest_size() {
        let mut ram = StoredImage::at(FirmwarePlace::Ram);
        ram.prepare(&[part(CODE, msvm::BASE, MAX_CODE)]).unwrap();
        ram.code.resize(MAX_CODE as usize - 1, 0);
        assert!(ram.write(0, MAX_CODE - 1, &[1, 2]).is_err());
        ram.write(0, MAX_CODE - 1, &[1]).unwrap();
        assert!(ram.write(0, MAX_CODE, &[1]).is_err());
    }

    #[test]
    fn an_image_for_ram_is_entered_at_its_sec_phase() {
        let bytes = ovmf_image::constructed::msvm();
        let good = part(CODE, 0x10_0000, bytes.len() as u64);
        for parts in [
            part(CODE, ROM_END - good.len, good.len),
            part(CODE, 0x10_1000, good.len),
            part(CODE, 0x10_0000, 0),
            part(CODE, 0x10_0000, MAX_CODE + 0x1000),
        ] {
            let mut ram = StoredImage::at(FirmwarePlace::Ram);
            assert!(ram.prepare(&[parts]).is_err());
        }
        let mut ram = StoredImage::at(FirmwarePlace::Ram);
        ram.prepare(&[good]).unwrap();
        ram.write(0, 0, &bytes).unwrap();
        let entry = ram.find_entry(EntryRule::SecCore).unwrap();
        let expected = MsvmImage::new(bytes.into()).unwrap().entry_gpa();
        assert_eq!(entry, Some(expected));
        ram.code.truncate(0x1000);
        assert!(ram.find_entry(EntryRule::SecCore).is_err());
    }
}
