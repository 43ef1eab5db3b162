//! What becomes known of the machine after its firmware was stored.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use firmware_hibernation::*;
use platform_digest::DiskContent;
use platform_digest::PlatformDisk;
use platform_digest::PlatformView;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use support::*;

fn with_disk(content: DiskContent) -> PlatformView {
    PlatformView {
        disks: Some(vec![PlatformDisk {
            name: "disk0".into(),
            size: 1 << 30,
            sector: 512,
            read_only: false,
            serial: String::new(),
            content,
        }]),
        ..usual_machine()
    }
}

fn known(text: &str) -> PlatformView {
    with_disk(DiskContent::Known(text.into()))
}

fn repin(vm: &mut HibernationEngine, view: &PlatformView) {
    vm.repin(
        &FirmwareDescription::reset_vector(),
        firmware(1),
        &tables(1),
        view,
    );
}

#[test]
fn the_machine_is_compared_as_it_was_when_the_guest_hibernated() {
    let device = formatted(64);
    let heard = Heard::default();
    let mut vm = on(&device, &heard);
    start_on(&mut vm, 1, &with_disk(DiskContent::NotRead)).unwrap();
    repin(&mut vm, &known("XFS 1"));
    let before = device.to_vec();
    repin(&mut vm, &known("XFS 1"));
    assert!(device.to_vec() == before, "the same is not written again");
    hibernate(&mut vm).unwrap();
    assert_eq!(token(&device), Some(vec![0xff; 8]));
    assert_eq!(heard.names(), ["captured", "token_written"]);

    let mut vm = on(&device, &heard);
    let refusal = start_on(&mut vm, 2, &known("XFS 2")).unwrap_err();
    assert_eq!(refusal.reason.code(), "machine_changed");
    assert_eq!(
        refusal.reason.differences(),
        ["disks: hibernated with disk0 containing XFS 1, started with disk0 containing XFS 2"]
    );
    let ran = start_on(&mut on(&device, &heard), 2, &known("XFS 1")).unwrap();
    assert_eq!(ran, Ran::restored(1));
}

/// A record of several MiB: it is written once, and read only if it may have been damaged since it was written.
#[test]
fn the_record_is_written_or_read_when_the_guest_hibernates_and_not_both() {
    let device = formatted(64);
    let (writes, reads) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let counted = || {
        let taken = |count: &AtomicU32| count.swap(0, Ordering::Relaxed);
        (taken(&writes), taken(&reads))
    };
    let (written, read) = (writes.clone(), reads.clone());
    let storage = Watched {
        inner: Resized {
            inner: open(device.clone(), None),
            size: LARGE,
        },
        on_read: move |file| {
            if file == HibernationFile::Record {
                read.fetch_add(1, Ordering::Relaxed);
            }
        },
        on_commit: move |change: &StoreChange| {
            if matches!(change.record, FileChange::Write { .. }) {
                written.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        },
    };
    let config = Config::new(Mode::On, Isolation::None, TakeoverSignal::AcpiWake).unwrap();
    let heard = Heard::default();
    let storage = Some(Box::new(storage) as Box<dyn Storage>);
    let mut vm = HibernationEngine::new(config, Architecture::X86_64, storage, heard.sink());
    start_on(&mut vm, 1, &with_disk(DiskContent::NotRead)).unwrap();
    assert_eq!(counted(), (1, 0));
    announce(&mut vm);
    repin(&mut vm, &known("XFS 1"));
    vm.hibernate().unwrap();
    assert_eq!(counted(), (1, 0));

    // The next session has nothing new.
    vm.reset();
    let ran = start_on(&mut vm, 2, &known("XFS 1")).unwrap();
    assert_eq!(ran, Ran::restored(1));
    counted();
    announce(&mut vm);
    repin(&mut vm, &known("XFS 1"));
    vm.hibernate().unwrap();
    assert_eq!(counted(), (0, 1));

    // What was intact in one session may be damaged in the next, or on the machine that a saved state is restored on.
    for (saved, old, new) in [(false, "XFS 1", "XFS 2"), (true, "XFS 2", "XFS 3")] {
        start_on(&mut vm, 2, &known(old)).unwrap();
        let state = vm.save().unwrap();
        announce(&mut vm);
        repin(&mut vm, &known(new));
        if saved {
            vm.restore(&state).unwrap();
        } else {
            vm.reset();
            start_on(&mut vm, 2, &known(new)).unwrap();
        }
        counted();
        hibernate(&mut vm).unwrap();
        assert_eq!(counted(), (0, 1), "saved: {saved}");
    }
}

#[test]
fn firmware_that_is_not_stored_is_not_stored_later() {
    let device = hibernated(1);
    let heard = Heard::default();
    let mut vm = overridden(&device, &heard, Override::CurrentFirmware);
    start(&mut vm, 2).unwrap();
    let before = device.to_vec();
    repin(&mut vm, &known("XFS 1"));
    assert!(device.to_vec() == before);
}

/// However little room the store has, the guest wakes on its firmware.
#[test]
fn a_failure_leaves_the_firmware_stored() {
    let mut seen = [false; 2];
    for blocks in 10..40 {
        let device = formatted(blocks);
        let heard = Heard::default();
        let mut vm = on(&device, &heard);
        start_on(&mut vm, 1, &with_disk(DiskContent::NotRead)).unwrap();
        if heard.names() != ["captured"] {
            continue;
        }
        let record = |device| open(device, None).read(RECORD).unwrap();
        let before = record(device.clone());
        repin(&mut vm, &known("XFS 1"));
        seen[usize::from(record(device.clone()) != before)] = true;
        hibernate(&mut vm).unwrap();
        assert_eq!(token(&device), Some(vec![0xff; 8]), "{blocks} blocks");
        let ran = start_on(&mut on(&device, &heard), 2, &known("XFS 1")).unwrap();
        assert_eq!(ran, Ran::restored(1), "{blocks} blocks");
    }
    assert_eq!(seen, [true, true], "both have to be tried");
}
