//! What is flushed before what.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod fixture;

use fixture::*;
use vmgs::testing::FaultModel;
use vmgs::testing::Operation;
use vmgs::testing::RecordingDevice;
use vmgs::*;

/// The recorded operations: `headers` for a write below block 2, `blocks` for another, `flush`.
fn steps(device: &RecordingDevice) -> Vec<&'static str> {
    device
        .operations()
        .iter()
        .map(|operation| match operation {
            Operation::Write(offset, _) if *offset < 8192 => "headers",
            Operation::Write(..) => "blocks",
            Operation::Flush => "flush",
            Operation::LostFlush => "lost",
        })
        .collect()
}

#[test]
fn formatting_flushes_after_each_of_its_steps() {
    for sector in [512, 4096] {
        let device = RecordingDevice::new(sector, vec![0; 64 * 4096]);
        Vmgs::format(Box::new(device.clone()), OpenOptions::default()).unwrap();
        assert_eq!(
            steps(&device),
            [
                "headers", "flush", // The header that is not active is wiped,
                "headers", "flush", // then the other one.
                "blocks", "blocks", "flush", // The tables,
                "headers", "flush", // and the header that leads to them.
            ]
        );
    }
}

#[test]
fn a_commit_flushes_before_and_after_its_header() {
    let device = RecordingDevice::new(512, vec![0; 64 * 4096]);
    let mut store = Vmgs::format(Box::new(device.clone()), OpenOptions::default()).unwrap();
    device.restart();
    store.write(ID, Protection::Plain, b"x").unwrap();
    let expected = ["blocks", "blocks", "flush", "headers", "flush"];
    assert_eq!(steps(&device), expected);
}

#[test]
fn what_scrub_wiped_does_not_come_back() {
    for sector in [512, 4096] {
        let device = RecordingDevice::new(sector, vec![0; 32 * 4096]);
        let mut store = Vmgs::format(Box::new(device.clone()), OpenOptions::default()).unwrap();
        let secrets = b"secret".repeat(2000);
        store.write(ID, Protection::Plain, &secrets).unwrap();
        store.delete(ID).unwrap();
        device.restart();
        store.scrub().unwrap();
        let total = device.operations().len();
        let mut checked = 0;
        device.for_each_crash(FaultModel::LoseUnflushed, |cut, what, image| {
            if cut == total {
                checked += 1;
                assert!(!image.windows(6).any(|w| w == b"secret"), "{what}");
            }
        });
        assert_eq!(checked, 1);
    }
}

/// A new name is durable only when its directory is synchronized, for which it is opened.
#[test]
fn growing_synchronizes_the_directory_after_replacing_the_file() {
    use rustix::fs::inotify;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vm.vmgs");
    let file = std::fs::File::create_new(&path).unwrap();
    create_file(&file, 4 << 20, Container::Vhd1, None).unwrap();
    let events = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
    let wanted = inotify::WatchFlags::OPEN | inotify::WatchFlags::MOVED_TO;
    inotify::add_watch(&events, dir.path(), wanted).unwrap();
    grow_file(&path, Container::Vhd1, 8 << 20, |_| ()).unwrap();
    let mut buffer = [const { std::mem::MaybeUninit::uninit() }; 4096];
    let mut reader = inotify::Reader::new(&events, &mut buffer);
    let mut seen = Vec::new();
    while let Ok(event) = reader.next() {
        if event.events().contains(inotify::ReadFlags::MOVED_TO) {
            seen.push("replaced");
        } else if event.events().contains(inotify::ReadFlags::ISDIR) {
            seen.push("directory opened");
        }
    }
    assert_eq!(seen, ["replaced", "directory opened"]);
}
