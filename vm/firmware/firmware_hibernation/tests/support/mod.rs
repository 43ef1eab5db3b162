//! Machines, firmware and guests for the tests.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test uses a part; one that cannot go on has failed"
)]

use firmware_hibernation::*;
use platform_digest::AddressRange;
use platform_digest::PlatformDevice;
use platform_digest::PlatformView;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::Mutex;
use vmgs::BlockDevice;
use vmgs::FileId;
use vmgs::MemoryDevice;
use vmgs::OpenOptions;
use vmgs::Protection;
use vmgs::Vmgs;

/// A machine with so many MiB of memory, and these devices.
pub fn machine(memory_mib: u64, devices: &[&str]) -> PlatformView {
    PlatformView {
        ram: vec![AddressRange::new(0, memory_mib << 20)],
        apic_ids: vec![0, 1],
        devices: devices
            .iter()
            .map(|name| PlatformDevice {
                name: (*name).into(),
                pci: None,
                identity: "virtio-blk".into(),
            })
            .collect(),
        ..PlatformView::default()
    }
}

pub fn usual_machine() -> PlatformView {
    machine(2048, &["disk0"])
}

/// Firmware of a version: two parts, of which the size also depends on the version.
pub fn firmware(version: u8) -> FirmwareImage {
    let code_len = 4096 * (1 + usize::from(version % 2));
    let bytes = |len: usize, salt: usize| -> Vec<u8> {
        (0..len)
            .map(|i| (i / 5 + salt) as u8 ^ version.wrapping_mul(37))
            .collect()
    };
    FirmwareImage::new()
        .part("data", 0xffe0_0000, bytes(4096, 1))
        .part("code", 0x1_0000_0000 - code_len as u64, bytes(code_len, 2))
}

/// What a VMM gives firmware of a version.
pub fn tables(version: u8) -> PinnedFiles {
    PinnedFiles::from([
        ("etc/acpi/tables".into(), vec![version; 700]),
        ("etc/e820".into(), vec![version ^ 0xff; 40]),
        ("etc/empty".into(), Vec::new()),
    ])
}

/// Bytes of an image, part by part.
pub fn contents(image: &FirmwareImage) -> Vec<(ImagePart, Vec<u8>)> {
    image
        .parts()
        .iter()
        .map(|(part, content)| (part.clone(), content.to_vec()))
        .collect()
}

/// A machine's flash.
#[derive(Default)]
pub struct Flash {
    pub parts: Vec<(ImagePart, Vec<u8>)>,
    pub refuse: bool,
    pub entry: Option<u64>,
}

impl FirmwareTarget for Flash {
    fn prepare(&mut self, parts: &[ImagePart]) -> Result<(), TargetError> {
        if self.refuse {
            return Err("the flash is too small".into());
        }
        self.parts = parts
            .iter()
            .map(|part| (part.clone(), vec![0; part.len as usize]))
            .collect();
        Ok(())
    }

    fn write(&mut self, part: usize, offset: u64, bytes: &[u8]) -> Result<(), TargetError> {
        let from = offset as usize;
        self.parts[part].1[from..from + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn find_entry(&mut self, _: EntryRule) -> Result<Option<u64>, TargetError> {
        Ok(self.entry)
    }
}

/// Collects events.
#[derive(Clone, Default)]
pub struct Heard(pub Arc<Mutex<Vec<HibernationEvent>>>);

impl Heard {
    pub fn sink(&self) -> HibernationEventSink {
        let heard = self.0.clone();
        Box::new(move |event| heard.lock().unwrap().push(event))
    }

    pub fn take(&self) -> Vec<HibernationEvent> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    /// The names of the events since the last call.
    pub fn names(&self) -> Vec<String> {
        self.take()
            .iter()
            .map(|event| {
                let json = serde_json::to_value(event).unwrap();
                json["event"].as_str().unwrap().to_owned()
            })
            .collect()
    }
}

/// A store that reports any size, so that a small device will do, of which every crash can be tried.
pub struct Resized<S> {
    pub inner: S,
    pub size: u64,
}

impl<S: Storage> Storage for Resized<S> {
    fn state(&mut self) -> Result<StoreState, StorageError> {
        Ok(StoreState {
            size: self.size,
            ..self.inner.state()?
        })
    }
    fn len(&mut self, file: HibernationFile) -> Result<Option<u64>, StorageError> {
        self.inner.len(file)
    }
    fn read_start(&mut self, file: HibernationFile, len: usize) -> Result<Vec<u8>, StorageError> {
        self.inner.read_start(file, len)
    }
    fn read(
        &mut self,
        file: HibernationFile,
        sink: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        self.inner.read(file, sink)
    }
    fn commit(&mut self, change: StoreChange) -> Result<(), StorageError> {
        self.inner.commit(change)
    }
    fn record_place(&mut self) -> Result<RecordPlace, StorageError> {
        self.inner.record_place()
    }
}

/// A store that tells of each file that is read as a whole, and asks before each change.
pub struct Watched<S, R, C> {
    pub inner: S,
    pub on_read: R,
    pub on_commit: C,
}

impl<S, R, C> Storage for Watched<S, R, C>
where
    S: Storage,
    R: FnMut(HibernationFile) + Send,
    C: FnMut(&StoreChange) -> Result<(), StorageError> + Send,
{
    fn state(&mut self) -> Result<StoreState, StorageError> {
        self.inner.state()
    }
    fn len(&mut self, file: HibernationFile) -> Result<Option<u64>, StorageError> {
        self.inner.len(file)
    }
    fn read_start(&mut self, file: HibernationFile, len: usize) -> Result<Vec<u8>, StorageError> {
        self.inner.read_start(file, len)
    }
    fn read(
        &mut self,
        file: HibernationFile,
        sink: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        (self.on_read)(file);
        self.inner.read(file, sink)
    }
    fn commit(&mut self, change: StoreChange) -> Result<(), StorageError> {
        (self.on_commit)(&change)?;
        self.inner.commit(change)
    }
    fn record_place(&mut self) -> Result<RecordPlace, StorageError> {
        self.inner.record_place()
    }
}

/// How a VM is configured.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    pub mode: Mode,
    pub consume: ConsumePolicy,
    pub takeover: TakeoverSignal,
    pub key: Option<u8>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            mode: Mode::On,
            consume: ConsumePolicy::Handoff,
            takeover: TakeoverSignal::AcpiWake,
            key: None,
        }
    }
}

pub fn open(device: impl BlockDevice + 'static, key: Option<u8>) -> Vmgs {
    let mut store = Vmgs::open(Box::new(device), OpenOptions::default()).unwrap();
    if let Some(key) = key {
        store.unlock(&vmgs::Key::new([key; 32])).unwrap();
    }
    store
}

pub const LARGE: u64 = 32 << 20;

/// A VM that is off, on a store that reports to be large enough.
pub fn vm(store: Vmgs, setup: Setup, heard: &Heard) -> HibernationEngine {
    vm_with(store, setup, heard, None)
}

pub fn vm_with(
    store: Vmgs,
    setup: Setup,
    heard: &Heard,
    requested: Option<Override>,
) -> HibernationEngine {
    let mut config = Config::new(setup.mode, Isolation::None, setup.takeover).unwrap();
    config.consume = setup.consume;
    config.requested = requested;
    let storage = Resized {
        inner: store,
        size: LARGE,
    };
    HibernationEngine::new(
        config,
        Architecture::X86_64,
        Some(Box::new(storage)),
        heard.sink(),
    )
}

/// What ran after a start.
#[derive(Debug, PartialEq, Eq)]
pub enum Ran {
    /// The host's firmware.
    Host,
    /// What was restored: image and tables.
    Restored(Vec<(ImagePart, Vec<u8>)>, PinnedFiles),
}

impl Ran {
    /// Restored firmware of a version.
    pub fn restored(version: u8) -> Self {
        Self::Restored(contents(&firmware(version)), tables(version))
    }
}

/// Starts a VM on a host that has firmware of this version.
pub fn start(vm: &mut HibernationEngine, host: u8) -> Result<Ran, Refusal> {
    start_on(vm, host, &usual_machine())
}

pub fn start_on(vm: &mut HibernationEngine, host: u8, view: &PlatformView) -> Result<Ran, Refusal> {
    let ran = match vm.start(view)? {
        StartPlan::HostFirmware => Ran::Host,
        plan @ (StartPlan::Capture | StartPlan::Discard) => {
            if let StartPlan::Discard = plan {
                vm.discard()?;
            }
            vm.capture(
                &FirmwareDescription::reset_vector(),
                firmware(host),
                &tables(host),
                view,
            );
            Ran::Host
        }
        StartPlan::Restore(pinned) => {
            let mut flash = Flash::default();
            let entry = vm.restore_firmware(&mut flash)?;
            assert_eq!(entry, RESET_VECTOR);
            Ran::Restored(flash.parts, pinned)
        }
    };
    vm.run();
    Ok(ran)
}

/// The guest's operating system takes over.
pub fn take_over(vm: &mut HibernationEngine, setup: Setup) {
    match setup.takeover {
        TakeoverSignal::AcpiWake => vm.wake(),
        TakeoverSignal::RuntimeHandoff => vm.runtime_handoff(),
    }
}

/// The guest hibernates as Linux does: it also runs `_WAK` before it powers the machine off.
pub fn hibernate(vm: &mut HibernationEngine) -> Result<(), TokenNotDurable> {
    announce(vm);
    vm.hibernate()
}

/// What a guest announces before it hibernates.
pub fn announce(vm: &mut HibernationEngine) {
    vm.prepare(Sleep::Hibernate);
    vm.wake();
    vm.prepare(Sleep::Hibernate);
}

pub const TOKEN: FileId = FileId::HIBERNATION_TOKEN;
pub const RECORD: FileId = FileId::HIBERNATION_FIRMWARE;

pub fn formatted(blocks: usize) -> MemoryDevice {
    let device = MemoryDevice::new(512, blocks * 4096);
    Vmgs::format(Box::new(device.clone()), OpenOptions::default()).unwrap();
    device
}

pub fn on(device: &MemoryDevice, heard: &Heard) -> HibernationEngine {
    vm(open(device.clone(), None), Setup::default(), heard)
}

pub fn overridden(device: &MemoryDevice, heard: &Heard, way: Override) -> HibernationEngine {
    vm_with(
        open(device.clone(), None),
        Setup::default(),
        heard,
        Some(way),
    )
}

pub fn token(device: &MemoryDevice) -> Option<Vec<u8>> {
    match open(device.clone(), None).read(TOKEN) {
        Ok(token) => Some(token),
        Err(vmgs::Error::NotAllocated(_)) => None,
        Err(error) => panic!("{error}"),
    }
}

/// A store whose guest hibernated under this firmware.
pub fn hibernated(version: u8) -> MemoryDevice {
    let device = formatted(64);
    let mut vm = on(&device, &Heard::default());
    assert_eq!(start(&mut vm, version).unwrap(), Ran::Host);
    hibernate(&mut vm).unwrap();
    assert_eq!(token(&device), Some(vec![0xff; 8]));
    device
}

pub fn edit(device: &MemoryDevice, id: FileId, change: impl FnOnce(&mut Vec<u8>)) {
    let mut store = open(device.clone(), None);
    let mut content = store.read(id).unwrap_or_default();
    change(&mut content);
    store.write(id, Protection::Plain, &content).unwrap();
}
