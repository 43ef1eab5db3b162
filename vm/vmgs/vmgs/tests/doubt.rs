//! Flushes that fail: Linux drops what it could not write, and reads it back from its cache nevertheless.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod fixture;

use fixture::*;
use vmgs::testing::Fault;
use vmgs::testing::FaultModel;
use vmgs::testing::Operation;
use vmgs::testing::RecordingDevice;
use vmgs::*;

fn open_on(device: &RecordingDevice) -> Vmgs {
    Vmgs::open(Box::new(device.clone()), OpenOptions::default()).unwrap()
}

/// The number of writes and flushes of a commit up to the flush of its header.
fn header_flush(device: &RecordingDevice) -> usize {
    let operations = device.operations();
    assert_eq!(operations.last(), Some(&Operation::Flush));
    operations.len() - 1
}

/// How the store goes on after the doubt.
#[derive(Debug, Clone, Copy)]
enum Next {
    Reloaded,
    Reopened,
    /// Reopened in the state that another process saved.
    Restored,
}

/// A device with a store in which flushing the header of the change of file 20 to `lost` failed.
fn doubtful(sector: u32, blocks: usize) -> (RecordingDevice, Vmgs) {
    let device = RecordingDevice::new(sector, vec![0; blocks * 4096]);
    let mut store = Vmgs::format(Box::new(device.clone()), OpenOptions::default()).unwrap();
    store.write(ID, Protection::Plain, b"zero").unwrap();
    device.restart();
    store.write(ID, Protection::Plain, b"one").unwrap();
    let flush = header_flush(&device);
    device.restart();
    device.inject(Some(Fault::LosesUnflushed(flush)));
    let error = store.write(ID, Protection::Plain, b"lost").unwrap_err();
    assert!(matches!(error, Error::Flush(_)), "{error}");
    assert!(store.is_in_doubt());
    (device, store)
}

#[test]
fn after_a_lost_flush_the_header_is_written_again() {
    for sector in [512, 4096] {
        for blocks in [32, 10, 7] {
            for next in [Next::Reloaded, Next::Reopened, Next::Restored] {
                let (device, mut store) = doubtful(sector, blocks);
                match next {
                    Next::Reloaded => store.reload().unwrap(),
                    Next::Reopened => store = open_on(&device),
                    Next::Restored => {
                        let saved = open_on(&device).save().unwrap();
                        let (device, options) = (Box::new(device.clone()), OpenOptions::default());
                        store = Vmgs::restore(device, options, &saved).unwrap();
                    }
                }
                assert!(!store.is_in_doubt());
                assert_eq!(store.read(ID).unwrap(), b"lost");
                store.write(FileId(21), Protection::Plain, b"next").unwrap();
                let total = device.operations().len();
                for model in FaultModel::ALL {
                    device.for_each_crash(model, |cut, what, image| {
                        let place = format!("{sector} {blocks} {next:?} {model:?} {cut}: {what}");
                        let image = MemoryDevice::with_bytes(sector, image);
                        let mut store = Vmgs::open(Box::new(image), OpenOptions::default())
                            .unwrap_or_else(|error| panic!("{place}: {error}"));
                        let content = store.read(ID).unwrap();
                        if cut == total {
                            assert_eq!(content, b"lost", "{place}");
                            assert_eq!(store.read(FileId(21)).unwrap(), b"next", "{place}");
                        } else {
                            assert!(content == b"one" || content == b"lost", "{place}");
                        }
                    });
                }
            }
        }
    }
}

/// A caller that finds the change made must be able to make sure that it lasts.
#[test]
fn a_commit_of_nothing_makes_durable_what_was_read() {
    for sector in [512, 4096] {
        let (device, mut store) = doubtful(sector, 32);
        store.reload().unwrap();
        assert_eq!(store.read(ID).unwrap(), b"lost");
        store.commit(Commit::new()).unwrap();
        let total = device.operations().len();
        let mut checked = 0;
        device.for_each_crash(FaultModel::Torn, |_, _, _| ());
        device.for_each_crash(FaultModel::LoseUnflushed, |cut, what, image| {
            if cut == total {
                checked += 1;
                let image = MemoryDevice::with_bytes(sector, image);
                assert_eq!(open(&image).read(ID).unwrap(), b"lost", "{what}");
            }
        });
        assert_eq!(checked, 1);
        // Now it is known to be durable.
        device.restart();
        store.commit(Commit::new()).unwrap();
        assert_eq!(device.counts(), (0, 0));
    }
}

/// The flush before the header fails: the change did not happen, and can be made again.
#[test]
fn after_a_lost_flush_of_content_the_change_can_be_made_again() {
    for sector in [512, 4096] {
        let device = RecordingDevice::new(sector, vec![0; 32 * 4096]);
        let mut store = Vmgs::format(Box::new(device.clone()), OpenOptions::default()).unwrap();
        device.restart();
        device.inject(Some(Fault::LosesUnflushed(0)));
        let content = pattern(9000);
        store.write(ID, Protection::Plain, &content).unwrap_err();
        assert!(!store.is_in_doubt());
        store.write(ID, Protection::Plain, &content).unwrap();
        let total = device.operations().len();
        device.for_each_crash(FaultModel::LoseUnflushed, |cut, what, image| {
            let image = MemoryDevice::with_bytes(sector, image);
            let read = open(&image).read(ID);
            match read {
                Ok(found) => assert_eq!(found, content, "{cut}: {what}"),
                Err(error) => assert!(cut < total, "{what}: {error}"),
            }
        });
    }
}

#[test]
fn reloading_takes_what_the_device_has() {
    let (device, mut store) = new_store(512, 64);
    store.write(ID, Protection::Plain, b"old").unwrap();
    let mut other = open(&device);
    other.write(ID, Protection::Plain, b"new").unwrap();
    other.encrypt(&key(1)).unwrap();
    store.reload().unwrap();
    assert_eq!(store.active_header(), other.active_header());
    assert_eq!(store.read(ID).unwrap(), b"new");
    assert!(store.is_locked());
}
