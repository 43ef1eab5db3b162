//! Hibernation as a VMM uses it, on good and on failing stores.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use firmware_hibernation::*;
use support::*;
use vmgs::FileId;
use vmgs::MemoryDevice;
use vmgs::OpenOptions;
use vmgs::Protection;
use vmgs::Vmgs;
use vmgs::testing::Fault;
use vmgs::testing::RecordingDevice;

/// A device that records what is done to it, with an empty store.
fn recording() -> RecordingDevice {
    let device = RecordingDevice::new(512, vec![0; 64 * 4096]);
    Vmgs::format(Box::new(device.clone()), OpenOptions::default()).unwrap();
    device
}

#[test]
fn a_guest_resumes_on_its_own_firmware() {
    let heard = Heard::default();
    let device = formatted(64);
    let mut vm = on(&device, &heard);
    assert_eq!(start(&mut vm, 1).unwrap(), Ran::Host);
    assert_eq!(heard.names(), ["captured"]);
    hibernate(&mut vm).unwrap();
    assert_eq!(heard.names(), ["token_written"]);
    assert_eq!(token(&device), Some(vec![0xff; 8]));

    // Three hibernations in a chain, each on a host with other firmware.
    for host in [2, 3, 4] {
        let mut vm = on(&device, &heard);
        assert_eq!(start(&mut vm, host).unwrap(), Ran::restored(1));
        assert_eq!(heard.names(), ["restored"]);
        assert_eq!(
            token(&device),
            Some(vec![0xff; 8]),
            "not before it has woken"
        );
        vm.wake();
        assert_eq!(heard.names(), ["consumed"]);
        assert_eq!(token(&device), None);
        hibernate(&mut vm).unwrap();
        assert_eq!(heard.names(), ["token_written"]);
    }

    // A clean power off, and the host's firmware runs.
    let mut vm = on(&device, &heard);
    start(&mut vm, 5).unwrap();
    vm.wake();
    vm.power_off();
    assert_eq!(heard.names(), ["restored", "consumed"]);
    let mut vm = on(&device, &heard);
    assert_eq!(start(&mut vm, 5).unwrap(), Ran::Host);
    assert_eq!(heard.names(), ["captured"]);
}

#[test]
fn a_full_size_image_through_the_broker() {
    let device = RecordingDevice::new(512, vec![0; 32 << 20]);
    let store = Vmgs::format(Box::new(device.clone()), OpenOptions::default()).unwrap();
    let (client, _) = vmgs_broker::Broker::spawn(store).unwrap();
    let heard = Heard::default();
    let new = || {
        HibernationEngine::new(
            Config::new(Mode::On, Isolation::None, TakeoverSignal::AcpiWake).unwrap(),
            Architecture::X86_64,
            Some(Box::new(BrokerStorage::new(client.clone()))),
            heard.sink(),
        )
    };
    let image: Vec<u8> = (0..6 << 20).map(|i: u32| (i / 3) as u8).collect();
    let image = FirmwareImage::new().part("code", 0xffa0_0000, image);
    let begin = |vm: &mut HibernationEngine| {
        let view = usual_machine();
        assert!(matches!(vm.start(&view).unwrap(), StartPlan::Capture));
        let description = FirmwareDescription::reset_vector();
        assert_eq!(
            vm.capture(&description, image.clone(), &tables(1), &view),
            ImageStatus::Stored
        );
        vm.run();
    };
    let mut vm = new();
    begin(&mut vm);
    let (_, flushes) = device.counts();
    vm.power_off();

    // Unchanged, it is not written again.
    let before = device.operations().len();
    let mut vm = new();
    begin(&mut vm);
    assert_eq!(device.operations().len(), before);
    assert!(flushes <= 4 + 5, "{flushes} with those of formatting");
    let events = heard.take();
    let stored = |event: &HibernationEvent| match event {
        HibernationEvent::Captured { stored, .. } => *stored,
        event => panic!("{event:?}"),
    };
    assert_eq!(stored(&events[0]), Stored::Written);
    assert_eq!(stored(&events[1]), Stored::Unchanged);

    // What the guest announces, and the token: one commit each.
    for what in [announce, |vm: &mut HibernationEngine| {
        vm.hibernate().unwrap();
    }] {
        device.restart();
        what(&mut vm);
        let (writes, flushes) = device.counts();
        assert!(
            writes <= 3 && flushes <= 2,
            "{writes} writes, {flushes} flushes"
        );
    }

    let mut vm = new();
    let StartPlan::Restore(pinned) = vm.start(&usual_machine()).unwrap() else {
        panic!("it does not resume");
    };
    assert_eq!(pinned, tables(1));
    let mut flash = Flash::default();
    vm.restore_firmware(&mut flash).unwrap();
    assert!(flash.parts == contents(&image));
}

/// Firmware whose tables are settled while it runs is stored with those, and at the next start it is still the same.
#[test]
fn a_file_that_is_settled_late_is_stored_as_the_guest_got_it() {
    const LATE: &str = "etc/acpi/tables";
    let device = recording();
    let heard = Heard::default();
    let image = || firmware(1);
    let description = FirmwareDescription::reset_vector();
    let pinned = |late: u8| {
        let mut files = tables(1);
        files.insert(LATE.to_owned(), vec![late; 100]);
        files
    };
    let new = || {
        let store = open(device.clone(), None);
        vm(store, Setup::default(), &heard).with_late_file(LATE)
    };
    let begin = |vm: &mut HibernationEngine| {
        let view = usual_machine();
        assert!(matches!(vm.start(&view).unwrap(), StartPlan::Capture));
        let status = vm.capture(&description, image(), &pinned(0), &view);
        assert_eq!(status, ImageStatus::Stored);
        vm.run();
        heard.take();
        device.operations().len()
    };
    let mut vm = new();
    let captured = begin(&mut vm);
    vm.settle_file(&description, image(), &pinned(7), &usual_machine());
    let settled = device.operations().len();
    assert!(settled > captured);
    vm.settle_file(&description, image(), &pinned(7), &usual_machine());
    assert_eq!(device.operations().len(), settled);
    vm.power_off();

    // What was settled last time is not undone, and it is the same again.
    let mut vm = new();
    assert_eq!(begin(&mut vm), settled);
    vm.settle_file(&description, image(), &pinned(7), &usual_machine());
    assert_eq!(device.operations().len(), settled);
    hibernate(&mut vm).unwrap();

    let mut vm = new();
    let StartPlan::Restore(files) = vm.start(&usual_machine()).unwrap() else {
        panic!("it does not resume");
    };
    assert_eq!(files, pinned(7));
    let mut flash = Flash::default();
    vm.restore_firmware(&mut flash).unwrap();
    vm.run();
    vm.wake();
    vm.power_off();

    // Another one is stored instead.
    let mut vm = new();
    begin(&mut vm);
    vm.settle_file(&description, image(), &pinned(8), &usual_machine());
    hibernate(&mut vm).unwrap();
    let StartPlan::Restore(files) = new().start(&usual_machine()).unwrap() else {
        panic!("it does not resume");
    };
    assert_eq!(files, pinned(8));
}

#[test]
fn a_token_costs_two_flushes_on_a_store_just_opened() {
    let device = recording();
    for _ in 0..3 {
        let heard = Heard::default();
        let mut vm = vm(open(device.clone(), None), Setup::default(), &heard);
        start(&mut vm, 1).unwrap();
        device.restart();
        vm.wake();
        let (_, flushes) = device.counts();
        assert!(flushes <= 2, "consuming took {flushes}");
        announce(&mut vm);
        device.restart();
        vm.hibernate().unwrap();
        let (writes, flushes) = device.counts();
        assert!(
            writes <= 3 && flushes <= 2,
            "{writes} writes, {flushes} flushes"
        );
    }
}

#[test]
fn running_and_powering_off_write_nothing() {
    let device = recording();
    let mut vm = vm(
        open(device.clone(), None),
        Setup::default(),
        &Heard::default(),
    );
    start(&mut vm, 1).unwrap();
    device.restart();
    vm.prepare(Sleep::Suspend);
    vm.reset();
    start(&mut vm, 1).unwrap();
    vm.prepare(Sleep::PowerOff);
    vm.power_off();
    assert_eq!(device.operations(), []);
}

#[test]
fn changed_firmware_is_stored_again() {
    let heard = Heard::default();
    let device = formatted(64);
    let written = |version: u8, tables: &PinnedFiles, view: &platform_digest::PlatformView| {
        let mut vm = on(&device, &heard);
        assert!(matches!(vm.start(view).unwrap(), StartPlan::Capture));
        let description = FirmwareDescription::reset_vector();
        vm.capture(&description, firmware(version), tables, view);
        match heard.take()[..] {
            [HibernationEvent::Captured { stored, .. }] => stored,
            ref events => panic!("{events:?}"),
        }
    };
    let view = usual_machine();
    assert_eq!(written(1, &tables(1), &view), Stored::Written);
    assert_eq!(written(1, &tables(1), &view), Stored::Unchanged);
    let other = written(2, &tables(1), &view);
    assert_eq!(other, Stored::Written, "other firmware");
    let other = written(2, &tables(2), &view);
    assert_eq!(other, Stored::Written, "other tables");
    let other = written(2, &tables(2), &machine(1024, &[]));
    assert_eq!(other, Stored::Written, "other machine");
    let same = written(2, &tables(2), &machine(1024, &[]));
    assert_eq!(same, Stored::Unchanged);
}

#[test]
fn a_damaged_record_is_stored_again() {
    let len = open(hibernated(1), None)
        .file_info(RECORD)
        .unwrap()
        .valid_bytes as usize;
    // In the header, the table, each part of the image, and the files that the firmware was given.
    for at in [60, 300, 1500, 6000, 12000, len - 700, len - 1] {
        let heard = Heard::default();
        let device = formatted(64);
        let mut first = on(&device, &heard);
        start(&mut first, 1).unwrap();
        first.power_off();
        edit(&device, RECORD, |record| record[at] ^= 0x40);
        heard.take();
        let mut vm = on(&device, &heard);
        start(&mut vm, 1).unwrap();
        match &heard.take()[..] {
            [event @ HibernationEvent::Captured { stored, .. }] => {
                assert_eq!(*stored, Stored::Repaired, "byte {at}");
                assert_eq!(event.level(), Level::Warning);
            }
            events => panic!("byte {at}: {events:?}"),
        }
        hibernate(&mut vm).unwrap();
        assert_eq!(token(&device), Some(vec![0xff; 8]), "byte {at}");
        let mut vm = on(&device, &heard);
        assert_eq!(start(&mut vm, 2).unwrap(), Ran::restored(1), "byte {at}");
    }
}

/// Without hibernation only the token of a guest that hibernated is worth a word.
#[test]
fn without_hibernation_a_store_without_a_session_is_no_news() {
    let off = Setup {
        mode: Mode::Off,
        ..Setup::default()
    };
    let heard = Heard::default();
    let device = formatted(64);
    let begin = |device: &MemoryDevice| {
        let mut vm = vm(open(device.clone(), None), off, &heard);
        assert_eq!(start(&mut vm, 1).unwrap(), Ran::Host);
        heard.names()
    };
    assert_eq!(begin(&device), [""; 0]);
    edit(&device, TOKEN, |token| *token = vec![0; 8]);
    assert_eq!(begin(&device), [""; 0]);
    assert_eq!(begin(&hibernated(1)), ["token_ignored"]);
}

/// A reset goes on with the firmware in memory, if it is the stored one.
#[test]
fn firmware_in_memory_is_kept_if_it_is_the_stored_one() {
    let device = hibernated(1);
    let heard = Heard::default();
    let again = |image: FirmwareImage, files: PinnedFiles| {
        let mut vm = on(&device, &heard);
        assert!(matches!(
            vm.start(&usual_machine()).unwrap(),
            StartPlan::Restore(_)
        ));
        let kept = vm.keep_firmware(&image, &files);
        (vm, kept.map_err(|refusal| refusal.reason.code()))
    };
    let (mut vm, kept) = again(firmware(1), tables(1));
    assert_eq!(kept, Ok(()));
    assert_eq!(heard.names(), [""; 0]);
    // The session goes on: it hibernates again.
    vm.run();
    vm.wake();
    hibernate(&mut vm).unwrap();
    assert_eq!(heard.names(), ["consumed", "token_written"]);
    assert_eq!(token(&device), Some(vec![0xff; 8]));
    for (image, files) in [(firmware(2), tables(1)), (firmware(1), tables(2))] {
        let (vm, kept) = again(image, files);
        assert_eq!(kept, Err("firmware_changed"));
        assert_eq!(vm.state(), HibernationState::Refused);
        assert_eq!(heard.names(), ["refused"]);
    }
}

/// Why nothing was stored.
fn reason(heard: &Heard) -> &'static str {
    match &heard.take()[..] {
        [HibernationEvent::NotCaptured { reason, advice, .. }] => {
            assert!(!advice.is_empty());
            reason
        }
        events => panic!("{events:?}"),
    }
}

#[test]
fn stores_without_space_let_the_vm_start() {
    let heard = Heard::default();
    // Too small: the store says its true size.
    let config = || Config::new(Mode::On, Isolation::None, TakeoverSignal::AcpiWake).unwrap();
    for (size, expected) in [
        (4 << 20, false),
        ((32 << 20) - 512, false),
        (32 << 20, true),
    ] {
        let device = MemoryDevice::new(512, size);
        let store = Vmgs::format(Box::new(device.clone()), OpenOptions::default()).unwrap();
        let mut vm = HibernationEngine::new(
            config(),
            Architecture::X86_64,
            Some(Box::new(store)),
            heard.sink(),
        );
        assert_eq!(start(&mut vm, 1).unwrap(), Ran::Host);
        if expected {
            assert_eq!(heard.names(), ["captured"]);
        } else {
            let events = heard.0.lock().unwrap().clone();
            let [HibernationEvent::NotCaptured { detail, advice, .. }] = &events[..] else {
                panic!("{events:?}");
            };
            assert!(detail.contains(&format!("has {size} bytes")), "{detail}");
            assert!(advice.contains("vmgstool grow"), "{advice}");
            assert_eq!(reason(&heard), "store_too_small");
        }
        hibernate(&mut vm).unwrap();
        let value = if expected { u64::MAX } else { 1 };
        assert_eq!(token(&device), Some(value.to_le_bytes().to_vec()));
        heard.take();
    }

    // Full.
    let device = formatted(6);
    let mut vm = on(&device, &heard);
    assert_eq!(start(&mut vm, 1).unwrap(), Ran::Host);
    assert_eq!(reason(&heard), "store_full");

    // Fragmented: every other file of one block is deleted.
    let device = formatted(24);
    let mut store = open(device.clone(), None);
    let mut ids = Vec::new();
    for id in 20..60 {
        match store.write(FileId(id), Protection::Plain, &[1]) {
            Ok(()) => ids.push(FileId(id)),
            Err(_) => break,
        }
    }
    for id in ids.iter().step_by(2) {
        store.delete(*id).unwrap();
    }
    drop(store);
    let mut vm = on(&device, &heard);
    assert_eq!(start(&mut vm, 1).unwrap(), Ran::Host);
    assert_eq!(reason(&heard), "store_fragmented");

    // Read-only.
    let device = formatted(64);
    let options = OpenOptions {
        access: vmgs::StoreAccess::ReadOnly,
        ..OpenOptions::default()
    };
    let store = Vmgs::open(Box::new(device), options).unwrap();
    let mut vm = support::vm(store, Setup::default(), &heard);
    assert_eq!(start(&mut vm, 1).unwrap(), Ran::Host);
    assert_eq!(reason(&heard), "store_read_only");
    vm.prepare(Sleep::Hibernate);
    let error = vm.hibernate().unwrap_err();
    assert_eq!(error.attempts, 1, "trying again is no use");
    assert_eq!(heard.names(), ["token_not_written"]);

    // Absent.
    let mut vm = HibernationEngine::new(config(), Architecture::X86_64, None, heard.sink());
    assert_eq!(start(&mut vm, 1).unwrap(), Ran::Host);
    assert_eq!(heard.names(), ["no_store"]);
    vm.hibernate().unwrap();
    assert_eq!(heard.names(), ["hibernated_untracked"]);

    // Locked.
    let device = formatted(64);
    open(device.clone(), None)
        .encrypt(&vmgs::Key::new([3; 32]))
        .unwrap();
    let mut vm = on(&device, &heard);
    assert_eq!(start(&mut vm, 1).unwrap(), Ran::Host);
    assert_eq!(reason(&heard), "store_locked");
}

#[test]
fn old_firmware_is_deleted_to_make_space() {
    let heard = Heard::default();
    // Room for one record, and not for two.
    let device = formatted(12);
    for version in [1, 3, 1] {
        let mut vm = on(&device, &heard);
        start(&mut vm, version).unwrap();
        assert_eq!(heard.names(), ["captured"], "{version}");
        vm.power_off();
    }
    hibernate_from_cold(&device, 3);
    let mut vm = on(&device, &heard);
    assert_eq!(start(&mut vm, 1).unwrap(), Ran::restored(3));
}

fn hibernate_from_cold(device: &MemoryDevice, version: u8) {
    let mut vm = on(device, &Heard::default());
    assert_eq!(start(&mut vm, version).unwrap(), Ran::Host);
    hibernate(&mut vm).unwrap();
}

#[test]
fn a_failed_capture_leaves_no_old_record() {
    let heard = Heard::default();
    let device = formatted(64);
    let mut vm = on(&device, &heard);
    start(&mut vm, 1).unwrap();
    vm.power_off();
    // An image that no record can be made of: not whole pages.
    let odd = FirmwareImage::new().part("code", 0xffff_f000, vec![1; 100]);
    let mut vm = on(&device, &heard);
    vm.start(&usual_machine()).unwrap();
    let description = FirmwareDescription::reset_vector();
    heard.take();
    let image = vm.capture(&description, odd, &tables(1), &usual_machine());
    assert_eq!(image, ImageStatus::NotStored);
    assert_eq!(reason(&heard), "image_unfit");
    assert!(open(device.clone(), None).file_info(RECORD).is_err());
    hibernate(&mut vm).unwrap();
    assert_eq!(token(&device), Some(1u64.to_le_bytes().to_vec()));
}

#[test]
fn a_guest_without_stored_firmware_resumes_with_a_warning() {
    let heard = Heard::default();
    for raw in [1u64, 0x0109] {
        let device = formatted(64);
        edit(&device, TOKEN, |token| *token = raw.to_le_bytes().to_vec());
        let mut vm = on(&device, &heard);
        assert_eq!(start(&mut vm, 2).unwrap(), Ran::Host);
        assert_eq!(heard.names(), ["not_pinned", "captured"]);
        assert!(token(&device).is_some());
        vm.wake();
        assert_eq!(token(&device), None);
        // From now on its firmware is kept.
        hibernate(&mut vm).unwrap();
        let mut vm = on(&device, &heard);
        assert_eq!(start(&mut vm, 3).unwrap(), Ran::restored(2));
        heard.take();
    }
    // A token of zero is none.
    let device = formatted(64);
    edit(&device, TOKEN, |token| *token = vec![0; 8]);
    let mut vm = on(&device, &heard);
    assert_eq!(start(&mut vm, 2).unwrap(), Ran::Host);
    assert_eq!(heard.names(), ["captured"]);
}

#[test]
fn without_hibernation_the_store_is_not_changed() {
    let heard = Heard::default();
    let device = hibernated(1);
    let before = device.to_vec();
    let off = Setup {
        mode: Mode::Off,
        ..Setup::default()
    };
    let mut vm = vm(open(device.clone(), None), off, &heard);
    assert_eq!(start(&mut vm, 2).unwrap(), Ran::Host);
    assert_eq!(heard.names(), ["token_ignored"]);
    vm.reset();
    start(&mut vm, 2).unwrap();
    vm.power_off();
    start(&mut vm, 2).unwrap();
    hibernate(&mut vm).unwrap();
    assert!(device.to_vec() == before);
}

#[test]
fn a_hibernation_that_was_announced_and_did_not_happen_leaves_nothing() {
    let heard = Heard::default();
    for reset in [false, true] {
        let device = formatted(64);
        let mut vm = on(&device, &heard);
        start(&mut vm, 1).unwrap();
        announce(&mut vm);
        assert_eq!(token(&device), Some(b"HIBPREP1".to_vec()));
        heard.take();
        match reset {
            true => vm.reset(),
            false => vm.power_off(),
        }
        assert_eq!(heard.names(), ["token_cleared"]);
        assert_eq!(token(&device), None);
    }
}

#[test]
fn a_hibernation_without_stored_firmware_is_not_announced() {
    let device = formatted(6);
    let mut vm = on(&device, &Heard::default());
    start(&mut vm, 1).unwrap();
    announce(&mut vm);
    assert_eq!(token(&device), None);
}

#[test]
fn writing_the_token_survives_one_failure() {
    for n in 0..8 {
        for fault in [Fault::Fails(n), Fault::FailsAfterEffect(n)] {
            let heard = Heard::default();
            let device = recording();
            let mut first = vm(open(device.clone(), None), Setup::default(), &heard);
            start(&mut first, 1).unwrap();
            device.inject(Some(fault));
            // A single failure is got over.
            hibernate(&mut first).unwrap();
            device.inject(None);
            drop(first);
            let mut next = vm(open(device.clone(), None), Setup::default(), &heard);
            assert_eq!(start(&mut next, 2).unwrap(), Ran::restored(1), "{fault:?}");
        }
    }
}

#[test]
fn the_token_does_not_name_lost_firmware() {
    let heard = Heard::default();
    for damage in [false, true] {
        let device = recording();
        let mut vm = vm(open(device.clone(), None), Setup::default(), &heard);
        start(&mut vm, 1).unwrap();
        if damage {
            // The disk forgets a sector of the record behind the store's back.
            let content = device.content();
            let at = content.windows(8).position(|w| w == b"HIBFWIMG").unwrap();
            let mut raw = device.clone();
            vmgs::BlockDevice::write_at(&mut raw, at as u64 + 2048, &[0; 512]).unwrap();
        }
        heard.take();
        hibernate(&mut vm).unwrap();
        let token = open(device, None).read(TOKEN).unwrap();
        if damage {
            assert_eq!(heard.names(), ["image_lost", "token_written"]);
            assert_eq!(token, 1u64.to_le_bytes());
        } else {
            assert_eq!(heard.names(), ["token_written"]);
            assert_eq!(token, [0xff; 8]);
        }
    }
}

#[test]
fn inspection_and_status_are_serializable() {
    let device = hibernated(1);
    let mut vm = on(&device, &Heard::default());
    start(&mut vm, 2).unwrap();
    let json = serde_json::to_value(vm.inspect()).unwrap();
    assert_eq!(json["machine"]["state"], "waking");
    assert_eq!(json["config"]["consume"], "handoff");
    assert_eq!(json["record"]["entry_rule"], "reset_vector");
    assert_eq!(json["last_event"]["event"], "restored");
    drop(vm);
    let status = status(&mut open(device, None), None, None);
    let json = serde_json::to_value(&status).unwrap();
    assert_eq!(json["next_start"], "resume");
    assert_eq!(json["token"], "stored");
    assert_eq!(json["machine_compared"], false);
}
