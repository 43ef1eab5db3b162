//! Starts that are refused, and the overrides.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use firmware_hibernation::*;
use support::*;
use vmgs::MemoryDevice;

/// Checks that the start is refused for this reason, that nothing changes, and that both overrides work.
fn refused(device: &MemoryDevice, expected: &str, view: &platform_digest::PlatformView) -> Refusal {
    let heard = Heard::default();
    let before = device.to_vec();
    let refusal = start_on(&mut on(device, &heard), 2, view).unwrap_err();
    assert_eq!(refusal.reason.code(), expected, "{refusal}");
    assert_eq!(heard.names(), ["refused"]);
    assert!(
        device.to_vec() == before,
        "{expected}: the store has changed"
    );
    let status = status(
        &mut open(device.clone(), None),
        Some((Architecture::X86_64, view)),
        None,
    );
    assert_eq!(status.next_start, NextStart::Refuse);
    assert_eq!(status.refusal, Some(expected));
    let text = refusal.to_string();
    for needle in [
        "token was kept",
        "override: discard",
        "override: current-firmware",
    ] {
        assert!(text.contains(needle), "{text}");
    }

    // On the host's firmware: token and record stay until the guest has shown itself.
    let copy = MemoryDevice::with_bytes(512, before.clone());
    let mut vm = overridden(&copy, &heard, Override::CurrentFirmware);
    assert_eq!(start_on(&mut vm, 2, view).unwrap(), Ran::Host);
    assert_eq!(heard.names(), ["current_firmware_used"]);
    assert!(copy.to_vec() == before);
    // It applies once.
    vm.crash();
    assert_eq!(
        start_on(&mut vm, 2, view).unwrap_err().reason.code(),
        expected
    );
    let mut vm = overridden(&copy, &heard, Override::CurrentFirmware);
    start_on(&mut vm, 2, view).unwrap();
    vm.prepare(Sleep::Hibernate);
    vm.hibernate().unwrap();
    assert_eq!(
        token(&copy),
        Some(1u64.to_le_bytes().to_vec()),
        "it is not what is stored"
    );
    heard.take();

    // Given up: like a cold start.
    let copy = MemoryDevice::with_bytes(512, before);
    let mut vm = overridden(&copy, &heard, Override::Discard);
    assert_eq!(start_on(&mut vm, 2, view).unwrap(), Ran::Host);
    let names = heard.names();
    let without_place: Vec<_> = names.iter().filter(|name| *name != "place_taken").collect();
    assert_eq!(without_place, ["discarded", "captured"]);
    assert_eq!(token(&copy), None);
    refusal
}

#[test]
fn a_damaged_store_is_refused_with_the_reason() {
    let view = usual_machine();
    // A flipped bit, in each region of the record.
    let len = open(hibernated(1), None)
        .file_info(RECORD)
        .unwrap()
        .valid_bytes as usize;
    for at in [9, 60, 250, 300, 900, 2000, 8000, len - 1] {
        let device = hibernated(1);
        edit(&device, RECORD, |record| record[at] ^= 0x10);
        let refusal = refused(&device, "image_corrupt", &view);
        assert!(!refusal.reason.in_full().is_empty());
    }
    // Truncated, extended.
    for new_len in [8, 100, 256, len - 1, len + 1] {
        let device = hibernated(1);
        edit(&device, RECORD, |record| record.resize(new_len, 0));
        refused(&device, "image_corrupt", &view);
    }
    // Emptied, replaced by something else, or no longer known as a record.
    for (change, words) in [
        (
            (|record| record.clear()) as fn(&mut Vec<u8>),
            "an empty file",
        ),
        (
            |record| *record = vec![7; 32768],
            "32768 bytes of other data (beginning 07 07 ",
        ),
        (|record| record[0] ^= 0x10, "bytes of other data"),
    ] {
        let device = hibernated(1);
        edit(&device, RECORD, change);
        let refusal = refused(&device, "image_missing", &view);
        assert!(refusal.to_string().contains("file 19 has"), "{refusal}");
        assert!(refusal.to_string().contains(words), "{refusal}");
    }
    // Gone.
    let device = hibernated(1);
    open(device.clone(), None).delete(RECORD).unwrap();
    refused(&device, "image_missing", &view);
    // The token is none, and the firmware is there.
    let (mut stored, mut none) = ([0; 16], [0; 16]);
    stored[..8].fill(0xff);
    none[15] = 1;
    for bytes in [
        &[0xff; 7][..],
        &[],
        &[0xfe; 8],
        &[1; 16],
        &[0xff; 16],
        &stored,
        &none,
        b"HIBPREP2",
    ] {
        let device = hibernated(1);
        edit(&device, TOKEN, |token| *token = bytes.to_vec());
        refused(&device, "token_corrupt", &view);
    }
    // Both are damaged: nothing says that the guest is off.
    let device = hibernated(1);
    edit(&device, TOKEN, |token| *token = vec![0xfe; 8]);
    edit(&device, RECORD, |record| record.truncate(100));
    refused(&device, "token_corrupt", &view);
}

#[test]
fn a_corrupt_token_without_firmware_is_only_a_warning() {
    let heard = Heard::default();
    let device = formatted(64);
    edit(&device, TOKEN, |token| *token = vec![9; 3]);
    let mut vm = on(&device, &heard);
    assert_eq!(start(&mut vm, 2).unwrap(), Ran::Host);
    assert_eq!(heard.names(), ["corrupt_token_ignored", "captured"]);
    assert_eq!(token(&device), None, "it is passed once");
    // However the VM ends, the next start is as usual.
    vm.reset();
    assert_eq!(start(&mut vm, 2).unwrap(), Ran::Host);
    vm.crash();
    let mut vm = on(&device, &heard);
    assert_eq!(start(&mut vm, 3).unwrap(), Ran::Host);
    assert_eq!(heard.names(), ["captured", "captured"]);
}

#[test]
fn a_corrupt_token_goes_together_with_what_makes_it_stop_a_start() {
    // Values of a future version, and of another length.
    for bytes in [&[2, 0, 0, 0, 0, 0, 0, 1][..], &[9; 3], &[0; 16]] {
        let device = vmgs::testing::RecordingDevice::new(512, vec![0; 64 * 4096]);
        vmgs::Vmgs::format(Box::new(device.clone()), vmgs::OpenOptions::default()).unwrap();
        let mut store = open(device.clone(), None);
        store.write(TOKEN, vmgs::Protection::Plain, bytes).unwrap();
        drop(store);
        device.restart();
        let heard = Heard::default();
        let mut first = vm(open(device.clone(), None), Setup::default(), &heard);
        start(&mut first, 1).unwrap();
        for model in vmgs::testing::FaultModel::ALL {
            device.for_each_crash(model, |cut, what, content| {
                let device = MemoryDevice::with_bytes(512, content);
                let mut vm = on(&device, &Heard::default());
                let ran = start(&mut vm, 2).unwrap_or_else(|e| panic!("{cut} {what}: {e}"));
                assert_eq!(ran, Ran::Host);
                vm.crash();
                let mut vm = on(&device, &Heard::default());
                start(&mut vm, 2).unwrap();
            });
        }
    }
}

#[test]
fn a_corrupt_token_is_passed_once_without_space_for_firmware() {
    let heard = Heard::default();
    let device = formatted(6);
    edit(&device, TOKEN, |token| *token = vec![9; 3]);
    let mut vm = on(&device, &heard);
    assert_eq!(start(&mut vm, 2).unwrap(), Ran::Host);
    assert_eq!(
        heard.names(),
        ["corrupt_token_ignored", "not_captured", "token_cleared"]
    );
    assert_eq!(token(&device), None);
}

#[test]
fn a_changed_machine_is_refused_with_its_differences() {
    let device = hibernated(1);
    let refusal = refused(&device, "machine_changed", &machine(4096, &["disk0"]));
    assert!(
        refusal
            .to_string()
            .contains("memory: hibernated with 2048 MiB, started with 4096 MiB"),
        "{refusal}"
    );
    for way in [
        "override: discard (discards the hibernated session)",
        "override: current-firmware (starts on the host's firmware",
    ] {
        assert!(refusal.to_string().contains(way), "{refusal}");
    }
    let mut other = machine(1024, &["net0"]);
    other.apic_ids.push(2);
    let refusal = refused(&device, "machine_changed", &other);
    let differences = refusal.reason.differences();
    for aspect in ["memory: ", "processors: ", "devices: "] {
        assert!(
            differences.iter().any(|line| line.starts_with(aspect)),
            "{differences:?}"
        );
    }
    // Each aspect alone.
    let mut other = usual_machine();
    other.mmio = vec![platform_digest::MmioRange {
        name: "pci64".into(),
        range: platform_digest::AddressRange::new(64 << 30, 1 << 30),
    }];
    let refusal = refused(&device, "machine_changed", &other);
    let differences = refusal.reason.differences();
    assert!(
        matches!(&differences[..], [line] if line.starts_with("mmio: hibernated without pci64")),
        "{differences:?}"
    );
    // Tables that the guest is given again make no difference.
    let mut view = usual_machine();
    view.acpi = platform_digest::BlobDigest::of([("dsdt", &b"other"[..])]);
    let mut vm = on(&device, &Heard::default());
    assert_eq!(start_on(&mut vm, 2, &view).unwrap(), Ran::restored(1));
}

#[test]
fn a_failed_restore_is_refused() {
    for (flash, expected) in [
        (
            Flash {
                refuse: true,
                ..Flash::default()
            },
            "not_restored",
        ),
        (
            Flash {
                entry: Some(0xffe0_0000),
                ..Flash::default()
            },
            "entry_moved",
        ),
    ] {
        let device = hibernated(1);
        let heard = Heard::default();
        let mut vm = on(&device, &heard);
        assert!(matches!(
            vm.start(&usual_machine()).unwrap(),
            StartPlan::Restore(_)
        ));
        let mut flash = flash;
        let refusal = vm.restore_firmware(&mut flash).unwrap_err();
        assert_eq!(refusal.reason.code(), expected);
        assert_eq!(heard.names(), ["refused"]);
        assert_eq!(vm.state(), HibernationState::Refused);
        assert!(token(&device).is_some());
    }
    // Processors of another kind.
    let device = hibernated(1);
    let config = Config::new(Mode::On, Isolation::None, TakeoverSignal::AcpiWake).unwrap();
    let mut vm = HibernationEngine::new(
        config,
        Architecture::Aarch64,
        Some(Box::new(open(device, None))),
        Heard::default().sink(),
    );
    let refusal = vm.start(&usual_machine()).unwrap_err();
    assert_eq!(refusal.reason.code(), "architecture_changed");
}

#[test]
fn an_older_copy_of_the_store_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let heard = Heard::default();
    let new = |device: &MemoryDevice, requested| {
        let witness = SequenceNoteFile(dir.path().join("vm.seen"));
        vm_with(
            open(device.clone(), None),
            Setup::default(),
            &heard,
            requested,
        )
        .with_sequence_note(witness)
    };
    let device = formatted(64);
    let mut vm = new(&device, None);
    start(&mut vm, 1).unwrap();
    assert!(
        !dir.path().join("vm.seen").exists(),
        "nothing worth noting yet"
    );
    let before_hibernation = device.to_vec();
    hibernate(&mut vm).unwrap();
    let hibernated = device.to_vec();

    // As it is, it resumes.
    let mut vm = new(&device, None);
    assert_eq!(start(&mut vm, 2).unwrap(), Ran::restored(1));
    vm.crash();

    // A copy from before the hibernation knows nothing of it: the session would be lost without a word.
    let old = MemoryDevice::with_bytes(512, before_hibernation);
    let mut vm = new(&old, None);
    let refusal = start(&mut vm, 2).unwrap_err();
    assert_eq!(refusal.reason.code(), "store_older");
    let found = status(
        &mut open(old.clone(), None),
        None,
        Some(&SequenceNoteFile(dir.path().join("vm.seen"))),
    );
    assert_eq!(found.refusal, Some("store_older"));
    // Without the note it cannot be told.
    let unwitnessed = status(&mut open(old, None), None, None);
    assert_eq!(unwitnessed.next_start, NextStart::Cold);

    // The guest wakes and is shut down. A copy from when it was hibernated is old too.
    let mut vm = new(&device, None);
    start(&mut vm, 2).unwrap();
    vm.wake();
    vm.power_off();
    let old = MemoryDevice::with_bytes(512, hibernated);
    let mut vm = new(&old, None);
    let refusal = start(&mut vm, 2).unwrap_err();
    assert_eq!(refusal.reason.code(), "store_older");
    // The override, and then it is the store again.
    let mut vm = new(&old, Some(Override::Discard));
    assert_eq!(start(&mut vm, 2).unwrap(), Ran::Host);
    vm.power_off();
    let mut vm = new(&old, None);
    assert_eq!(start(&mut vm, 2).unwrap(), Ran::Host);
    // And the right one still works.
    let mut vm = new(&device, None);
    assert_eq!(start(&mut vm, 2).unwrap(), Ran::Host);
}

#[test]
fn a_start_alone_writes_nothing() {
    for requested in [
        None,
        Some(Override::Discard),
        Some(Override::CurrentFirmware),
    ] {
        let device = hibernated(1);
        let before = device.to_vec();
        let heard = Heard::default();
        let mut vm = match requested {
            Some(way) => overridden(&device, &heard, way),
            None => on(&device, &heard),
        };
        vm.start(&usual_machine()).unwrap();
        assert!(device.to_vec() == before, "{requested:?}");
    }
}

#[test]
fn an_unreadable_token_is_refused() {
    let device = hibernated(1);
    open(device.clone(), None)
        .encrypt(&vmgs::Key::new([3; 32]))
        .unwrap();
    // Encrypted when it is next written, and then unreadable without the key.
    let setup = Setup {
        key: Some(3),
        ..Setup::default()
    };
    let heard = Heard::default();
    let mut unlocked = vm(open(device.clone(), Some(3)), setup, &heard);
    assert_eq!(start(&mut unlocked, 2).unwrap(), Ran::restored(1));
    unlocked.wake();
    hibernate(&mut unlocked).unwrap();
    assert!(
        open(device.clone(), Some(3))
            .file_info(TOKEN)
            .unwrap()
            .encrypted
    );
    heard.take();
    let mut locked = vm(open(device, None), Setup::default(), &heard);
    let refusal = start(&mut locked, 2).unwrap_err();
    assert_eq!(refusal.reason.code(), "token_unreadable");
}

/// A store whose disk returns another content from the second read on.
struct Fickle {
    inner: vmgs::Vmgs,
    reads: usize,
    change: fn(&mut [u8]),
}

impl Storage for Fickle {
    fn state(&mut self) -> Result<StoreState, StorageError> {
        self.inner.state()
    }
    fn len(&mut self, file: HibernationFile) -> Result<Option<u64>, StorageError> {
        Storage::len(&mut self.inner, file)
    }
    fn read_start(&mut self, file: HibernationFile, len: usize) -> Result<Vec<u8>, StorageError> {
        self.inner.read_start(file, len)
    }
    fn read(
        &mut self,
        file: HibernationFile,
        sink: &mut dyn FnMut(&[u8]) -> std::ops::ControlFlow<()>,
    ) -> Result<(), StorageError> {
        self.reads += 1;
        let fickle = self.reads > 1;
        Storage::read(&mut self.inner, file, &mut |bytes| {
            let mut bytes = bytes.to_vec();
            if fickle {
                (self.change)(&mut bytes);
            }
            sink(&bytes)
        })
    }
    fn commit(&mut self, change: StoreChange) -> Result<(), StorageError> {
        Storage::commit(&mut self.inner, change)
    }
    fn record_place(&mut self) -> Result<RecordPlace, StorageError> {
        self.inner.record_place()
    }
}

/// Another identifier, in a header that is valid.
fn other_header(record: &mut [u8]) {
    record[64] ^= 1;
    let crc = crc32fast::hash(&record[..248]);
    record[248..252].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn a_record_that_changes_during_the_restore_is_refused() {
    for (change, what) in [
        ((|record| record[3000] ^= 1) as fn(&mut [u8]), "code"),
        (other_header, "header"),
    ] {
        let device = hibernated(1);
        let config = Config::new(Mode::On, Isolation::None, TakeoverSignal::AcpiWake).unwrap();
        let storage = Fickle {
            inner: open(device.clone(), None),
            reads: 0,
            change,
        };
        let heard = Heard::default();
        let mut vm = HibernationEngine::new(
            config,
            Architecture::X86_64,
            Some(Box::new(storage)),
            heard.sink(),
        );
        let refusal = start(&mut vm, 2).unwrap_err();
        assert_eq!(refusal.reason.code(), "not_restored");
        let text = refusal.reason.in_full();
        assert!(text.contains("changed while it was being read"), "{text}");
        assert!(text.contains(what) || what == "code", "{text}");
        assert_eq!(vm.state(), HibernationState::Refused);
        assert_eq!(token(&device), Some(vec![0xff; 8]));
        assert_eq!(heard.names(), ["refused"]);
    }
}
