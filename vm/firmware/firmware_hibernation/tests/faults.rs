//! Stores that fail: absence, damage and failures of token and record are told apart, and firmware that a hibernated guest
//! may need is not replaced.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use firmware_hibernation::*;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use support::*;
use vmgs::FileId;
use vmgs::MemoryDevice;
use vmgs::Protection;
use vmgs::testing::Fault;
use vmgs::testing::RecordingDevice;

/// What fails, and how.
#[derive(Debug, Clone, Copy)]
struct Failure {
    file: HibernationFile,
    call: Call,
    kind: StorageErrorKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Len,
    Read,
}

/// A store that fails when a file is read.
struct Failing {
    inner: vmgs::Vmgs,
    failure: Failure,
}

impl Failing {
    fn check(&self, file: HibernationFile, call: Call) -> Result<(), StorageError> {
        let failure = self.failure;
        if (file, call) == (failure.file, failure.call) {
            return Err(StorageError::new(failure.kind, "injected"));
        }
        Ok(())
    }
}

impl Storage for Failing {
    fn state(&mut self) -> Result<StoreState, StorageError> {
        let state = self.inner.state()?;
        Ok(StoreState {
            size: LARGE,
            ..state
        })
    }
    fn len(&mut self, file: HibernationFile) -> Result<Option<u64>, StorageError> {
        self.check(file, Call::Len)?;
        Storage::len(&mut self.inner, file)
    }
    fn read_start(&mut self, file: HibernationFile, len: usize) -> Result<Vec<u8>, StorageError> {
        self.check(file, Call::Read)?;
        self.inner.read_start(file, len)
    }
    fn read(
        &mut self,
        file: HibernationFile,
        sink: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        self.check(file, Call::Read)?;
        Storage::read(&mut self.inner, file, sink)
    }
    fn commit(&mut self, change: StoreChange) -> Result<(), StorageError> {
        Storage::commit(&mut self.inner, change)
    }
    fn record_place(&mut self) -> Result<RecordPlace, StorageError> {
        self.inner.record_place()
    }
}

/// A VM on this store, which fails.
fn failing(device: &MemoryDevice, heard: &Heard, failure: Failure) -> HibernationEngine {
    let storage = Failing {
        inner: open(device.clone(), None),
        failure,
    };
    HibernationEngine::new(
        Config::new(Mode::On, Isolation::None, TakeoverSignal::AcpiWake).unwrap(),
        Architecture::X86_64,
        Some(Box::new(storage)),
        heard.sink(),
    )
}

const KINDS: [StorageErrorKind; 3] = [
    StorageErrorKind::Corrupt,
    StorageErrorKind::Io,
    StorageErrorKind::Locked,
];

#[test]
fn a_record_that_is_absent_damaged_or_unreadable_is_told_apart() {
    let corrupt_token: &[u8] = &[0xfe; 8];
    for (token_bytes, call, kind, expected) in [
        (None, Call::Len, StorageErrorKind::Corrupt, "image_corrupt"),
        (None, Call::Read, StorageErrorKind::Corrupt, "image_corrupt"),
        (None, Call::Len, StorageErrorKind::Io, "image_unreadable"),
        (None, Call::Read, StorageErrorKind::Io, "image_unreadable"),
        (
            None,
            Call::Len,
            StorageErrorKind::Locked,
            "image_unreadable",
        ),
        (
            None,
            Call::Read,
            StorageErrorKind::Locked,
            "image_unreadable",
        ),
        // A corrupt token stops the start unless there is certainly no firmware.
        (
            Some(corrupt_token),
            Call::Len,
            StorageErrorKind::Corrupt,
            "token_corrupt",
        ),
        (
            Some(corrupt_token),
            Call::Read,
            StorageErrorKind::Corrupt,
            "token_corrupt",
        ),
        (
            Some(corrupt_token),
            Call::Len,
            StorageErrorKind::Io,
            "image_unreadable",
        ),
        (
            Some(corrupt_token),
            Call::Read,
            StorageErrorKind::Io,
            "image_unreadable",
        ),
        (
            Some(b"HIBPREP1"),
            Call::Read,
            StorageErrorKind::Io,
            "image_unreadable",
        ),
    ] {
        let device = hibernated(1);
        if let Some(bytes) = token_bytes {
            edit(&device, TOKEN, |token| *token = bytes.to_vec());
        }
        let before = device.to_vec();
        let failure = Failure {
            file: HibernationFile::Record,
            call,
            kind,
        };
        let heard = Heard::default();
        let refusal = start(&mut failing(&device, &heard, failure), 2).unwrap_err();
        assert_eq!(
            refusal.reason.code(),
            expected,
            "{token_bytes:?} {failure:?}"
        );
        assert_eq!(heard.names(), ["refused"], "{failure:?}");
        assert!(device.to_vec() == before, "{failure:?}");
    }
    // And the token: damage of it is known, a failure is not.
    for call in [Call::Len, Call::Read] {
        for kind in KINDS {
            let failure = Failure {
                file: HibernationFile::Token,
                call,
                kind,
            };
            let device = hibernated(1);
            let heard = Heard::default();
            let refusal = start(&mut failing(&device, &heard, failure), 2).unwrap_err();
            let expected = match kind {
                StorageErrorKind::Corrupt => "token_corrupt",
                _ => "token_unreadable",
            };
            assert_eq!(refusal.reason.code(), expected, "{failure:?}");
        }
    }
}

#[test]
fn a_record_that_cannot_be_read_when_the_guest_hibernates_is_not_promised() {
    for kind in KINDS {
        let device = formatted(64);
        let heard = Heard::default();
        let failure = Failure {
            file: HibernationFile::Record,
            call: Call::Read,
            kind,
        };
        let mut vm = failing(&device, &heard, failure);
        start(&mut vm, 1).unwrap();
        assert_eq!(heard.names(), ["captured"]);
        hibernate(&mut vm).unwrap();
        assert_eq!(heard.names(), ["image_lost", "token_written"], "{kind:?}");
        assert_eq!(token(&device), Some(1_u64.to_le_bytes().to_vec()));
    }
}

/// A store of other firmware whose disk fails while firmware is being stored.
#[test]
fn firmware_whose_storing_failed_leaves_no_outdated_record() {
    for n in 0..12 {
        let device = RecordingDevice::new(512, vec![0; 64 * 4096]);
        let options = vmgs::OpenOptions::default();
        vmgs::Vmgs::format(Box::new(device.clone()), options).unwrap();
        let heard = Heard::default();
        let mut old = vm(open(device.clone(), None), Setup::default(), &heard);
        start(&mut old, 1).unwrap();
        old.power_off();
        drop(old);
        heard.take();

        let mut next = vm(open(device.clone(), None), Setup::default(), &heard);
        device.inject(Some(Fault::Fails(n)));
        start(&mut next, 2).unwrap();
        device.inject(None);
        let captured = heard.names() == ["captured"];
        hibernate(&mut next).unwrap();
        drop(next);
        let stored = open(device.clone(), None).read(TOKEN).unwrap() == [0xff; 8];
        assert_eq!(stored, captured, "fault {n}");
        let mut last = vm(open(device.clone(), None), Setup::default(), &heard);
        let ran = start(&mut last, 3).unwrap();
        let expected = if captured {
            Ran::restored(2)
        } else {
            Ran::Host
        };
        assert_eq!(ran, expected, "fault {n}");
    }
}

#[test]
fn a_full_store_keeps_room_for_the_token() {
    let heard = Heard::default();
    let mut fitted = 0;
    for blocks in 6..20 {
        let device = formatted(blocks);
        let mut vm = on(&device, &heard);
        start(&mut vm, 1).unwrap();
        let captured = heard.names() == ["captured"];
        // With the record stored, the token always has room, whichever way the guest hibernates.
        hibernate(&mut vm).unwrap_or_else(|error| panic!("{blocks} blocks: {error}"));
        let value = if captured { u64::MAX } else { 1 };
        assert_eq!(
            token(&device),
            Some(value.to_le_bytes().to_vec()),
            "{blocks} blocks"
        );
        assert_eq!(
            open(device, None).is_allocated(RECORD),
            captured,
            "{blocks} blocks"
        );
        fitted += u32::from(captured);
        heard.take();
    }
    assert!((1..14).contains(&fitted), "{fitted}");
}

/// A store whose guest hibernated under firmware 1 when nothing could be written any more.
fn hibernated_on_failing_disk(
    kind: StorageErrorKind,
    announced_before: bool,
    note: Option<SequenceNoteFile>,
) -> MemoryDevice {
    let device = formatted(64);
    let broken = Arc::new(AtomicBool::new(false));
    let is_broken = broken.clone();
    let storage = Watched {
        inner: Resized {
            inner: open(device.clone(), None),
            size: LARGE,
        },
        on_read: |_| (),
        on_commit: move |_: &StoreChange| match is_broken.load(Ordering::Relaxed) {
            true => Err(StorageError::new(kind, "injected")),
            false => Ok(()),
        },
    };
    let heard = Heard::default();
    let mut vm = HibernationEngine::new(
        Config::new(Mode::On, Isolation::None, TakeoverSignal::AcpiWake).unwrap(),
        Architecture::X86_64,
        Some(Box::new(storage)),
        heard.sink(),
    );
    if let Some(note) = note {
        vm = vm.with_sequence_note(note);
    }
    start(&mut vm, 1).unwrap();
    if announced_before {
        announce(&mut vm);
    }
    broken.store(true, Ordering::Relaxed);
    let error = vm.hibernate().unwrap_err();
    assert_eq!(error.attempts, 3, "{kind:?} may pass");
    assert_eq!(heard.names(), ["captured", "token_not_written"]);
    device
}

#[test]
fn a_token_that_could_not_be_written_does_not_cost_the_session() {
    // The guest announced it, or there is a note beside the store.
    let dir = tempfile::tempdir().unwrap();
    let note = || SequenceNoteFile(dir.path().join("seen"));
    for (announced, kind) in [
        (true, StorageErrorKind::Io),
        (true, StorageErrorKind::NoSpace),
        (false, StorageErrorKind::NoSpace),
    ] {
        let device = hibernated_on_failing_disk(kind, announced, Some(note()));
        for host in [2, 3] {
            let heard = Heard::default();
            let mut next =
                vm(open(device.clone(), None), Setup::default(), &heard).with_sequence_note(note());
            let status = status(&mut open(device.clone(), None), None, Some(&note()));
            assert_eq!(status.next_start, NextStart::Resume, "{announced}");
            assert!(
                status.reason.contains("may be hibernated"),
                "{}",
                status.reason
            );
            assert_eq!(
                start(&mut next, host).unwrap(),
                Ran::restored(1),
                "{announced}"
            );
            assert_eq!(heard.names(), ["restored"]);
            next.crash();
        }
        let mut next = vm(
            open(device.clone(), None),
            Setup::default(),
            &Heard::default(),
        )
        .with_sequence_note(note());
        start(&mut next, 2).unwrap();
        next.wake();
        next.power_off();
        drop(next);
        let mut next = vm(
            open(device.clone(), None),
            Setup::default(),
            &Heard::default(),
        )
        .with_sequence_note(note());
        assert_eq!(start(&mut next, 2).unwrap(), Ran::Host, "{announced}");
    }
    // Without a note, what the guest announced is enough.
    let device = hibernated_on_failing_disk(StorageErrorKind::NoSpace, true, None);
    let mut next = vm(open(device, None), Setup::default(), &Heard::default());
    assert_eq!(start(&mut next, 2).unwrap(), Ran::restored(1));
}

/// The first bytes of the state of another program's virtual TPM.
fn foreign() -> Vec<u8> {
    (0..32768_u32).map(|i| (i / 7) as u8 | 1).collect()
}

#[test]
fn data_of_other_programs_is_never_replaced_or_deleted() {
    let heard = Heard::default();
    let usual = FileId::HIBERNATION_FIRMWARE;
    // Large enough, and too small for any firmware.
    for (blocks, fits) in [(64, true), (14, false)] {
        let device = formatted(blocks);
        edit(&device, usual, |content| *content = foreign());
        let mut vm = on(&device, &heard);
        assert_eq!(start(&mut vm, 1).unwrap(), Ran::Host);
        let events = heard.take();
        let HibernationEvent::PlaceTaken {
            file,
            occupant,
            used,
        } = &events[0]
        else {
            panic!("{events:?}");
        };
        assert_eq!((*file, *used), (19, Some(56)));
        assert_eq!(
            occupant,
            "32768 bytes of other data (beginning 01 01 01 01 01 01 01 01)"
        );
        hibernate(&mut vm).unwrap();
        let mut store = open(device.clone(), None);
        assert_eq!(store.read(usual).unwrap(), foreign());
        assert_eq!(store.is_allocated(FileId(56)), fits);
        drop(store);
        heard.take();
        let mut vm = on(&device, &heard);
        let ran = start(&mut vm, 2).unwrap();
        assert_eq!(ran, if fits { Ran::restored(1) } else { Ran::Host });
        heard.take();
        // Discarding the session spares it too.
        drop(vm);
        let mut vm = overridden(&device, &heard, Override::Discard);
        start(&mut vm, 3).unwrap();
        assert_eq!(open(device.clone(), None).read(usual).unwrap(), foreign());
        heard.take();
    }

    // Found again if the other data is gone, and replaced there.
    let device = formatted(64);
    edit(&device, usual, |content| *content = foreign());
    start(&mut on(&device, &heard), 1).unwrap();
    open(device.clone(), None).delete(usual).unwrap();
    let mut vm = on(&device, &heard);
    start(&mut vm, 2).unwrap();
    hibernate(&mut vm).unwrap();
    let store = open(device.clone(), None);
    assert!(!store.is_allocated(usual) && store.is_allocated(FileId(56)));
    drop(store);
    assert_eq!(
        start(&mut on(&device, &heard), 3).unwrap(),
        Ran::restored(2)
    );
    heard.take();

    // No id is free.
    let device = formatted(64);
    for id in std::iter::once(19).chain(56..=62) {
        edit(&device, FileId(id), |content| *content = vec![7; 100]);
    }
    let before: Vec<_> = open(device.clone(), None)
        .files()
        .map(|(id, _)| id)
        .collect();
    let mut vm = on(&device, &heard);
    start(&mut vm, 1).unwrap();
    match &heard.take()[..] {
        [
            HibernationEvent::PlaceTaken { used: None, .. },
            HibernationEvent::NotCaptured { reason, .. },
        ] => assert_eq!(*reason, "no_free_file"),
        events => panic!("{events:?}"),
    }
    let after: Vec<_> = open(device.clone(), None)
        .files()
        .map(|(id, _)| id)
        .collect();
    assert_eq!(before, after);
}

/// An encrypted store cannot tell whose a damaged file is.
#[test]
fn a_damaged_encrypted_file_is_not_replaced() {
    let setup = Setup {
        key: Some(7),
        ..Setup::default()
    };
    let device = formatted(64);
    open(device.clone(), None)
        .encrypt(&vmgs::Key::new([7; 32]))
        .unwrap();
    let heard = Heard::default();
    let mut first = vm(open(device.clone(), Some(7)), setup, &heard);
    start(&mut first, 1).unwrap();
    hibernate(&mut first).unwrap();
    drop(first);
    let store = open(device.clone(), Some(7));
    let (block, _) = store.file_location(RECORD).unwrap();
    drop(store);
    let mut bytes = device.to_vec();
    bytes[block as usize * 4096 + 300] ^= 1;
    let damaged = MemoryDevice::with_bytes(512, bytes);
    heard.take();
    let mut next = vm(open(damaged.clone(), Some(7)), setup, &heard);
    let refusal = start(&mut next, 2).unwrap_err();
    assert_eq!(refusal.reason.code(), "image_corrupt");
    drop(next);
    open(damaged.clone(), Some(7)).delete(TOKEN).unwrap();
    heard.take();
    let mut next = vm(open(damaged.clone(), Some(7)), setup, &heard);
    start(&mut next, 2).unwrap();
    assert_eq!(heard.names(), ["place_taken", "captured"]);
    hibernate(&mut next).unwrap();
    drop(next);
    let mut last = vm(open(damaged, Some(7)), setup, &heard);
    assert_eq!(start(&mut last, 3).unwrap(), Ran::restored(2));
}

/// Stores that plain files of a token and a record at 19 were written to by an earlier version.
#[test]
fn a_store_of_an_earlier_version_resumes() {
    let source = hibernated(1);
    let record = open(source, None).read(RECORD).unwrap();
    let device = formatted(64);
    let mut store = open(device.clone(), None);
    store.write(FileId(19), Protection::Plain, &record).unwrap();
    store
        .write(FileId(14), Protection::Plain, &[0xff; 8])
        .unwrap();
    drop(store);
    let heard = Heard::default();
    let mut vm = on(&device, &heard);
    assert_eq!(start(&mut vm, 2).unwrap(), Ran::restored(1));
    assert_eq!(heard.names(), ["restored"]);
}
