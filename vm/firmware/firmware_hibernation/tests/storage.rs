//! A VMGS store as the storage of token and record: what a read, a failure and absence are.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use firmware_hibernation::*;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use support::*;
use vmgs::BlockDevice;
use vmgs::MemoryDevice;

/// A device that does not work while `fails` is set.
struct Failing {
    inner: MemoryDevice,
    fails: Arc<AtomicBool>,
    error: io::ErrorKind,
}

impl Failing {
    fn check(&self) -> io::Result<()> {
        match self.fails.load(Ordering::Relaxed) {
            true => Err(self.error.into()),
            false => Ok(()),
        }
    }
}

impl BlockDevice for Failing {
    fn sector_size(&self) -> u32 {
        self.inner.sector_size()
    }
    fn sector_count(&self) -> u64 {
        self.inner.sector_count()
    }
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.check()?;
        self.inner.read_at(offset, buf)
    }
    fn write_at(&mut self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.check()?;
        self.inner.write_at(offset, buf)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.check()?;
        self.inner.flush()
    }
}

fn failing(error: io::ErrorKind) -> (vmgs::Vmgs, Arc<AtomicBool>) {
    let fails = Arc::new(AtomicBool::new(false));
    let device = Failing {
        inner: hibernated(1),
        fails: fails.clone(),
        error,
    };
    (open(device, None), fails)
}

#[test]
fn a_read_that_is_stopped_is_no_failure() {
    let (mut store, fails) = failing(io::ErrorKind::TimedOut);
    let mut pieces = 0;
    Storage::read(&mut store, HibernationFile::Record, &mut |_| {
        pieces += 1;
        ControlFlow::Break(())
    })
    .unwrap();
    assert_eq!(pieces, 1);
    fails.store(true, Ordering::Relaxed);
    let error = Storage::read(&mut store, HibernationFile::Token, &mut |_| {
        ControlFlow::Continue(())
    })
    .unwrap_err();
    assert_eq!(error.kind, StorageErrorKind::Io);
}

#[test]
fn a_full_host_disk_is_told_from_other_failures() {
    for (error, expected) in [
        (io::ErrorKind::StorageFull, StorageErrorKind::DiskFull),
        (io::ErrorKind::QuotaExceeded, StorageErrorKind::DiskFull),
        (io::ErrorKind::TimedOut, StorageErrorKind::Io),
    ] {
        let (mut store, fails) = failing(error);
        fails.store(true, Ordering::Relaxed);
        let change = StoreChange::of_token(FileChange::Delete);
        let failed = Storage::commit(&mut store, change).unwrap_err();
        assert_eq!(failed.kind, expected, "{error}");
    }
}

#[test]
fn a_store_whose_broker_is_gone_has_no_answer() {
    let store = open(hibernated(1), None);
    let (broker, client) = vmgs_broker::Broker::new(store);
    drop(broker);
    let mut storage = BrokerStorage::new(client);
    for file in [HibernationFile::Token, HibernationFile::Record] {
        let error = storage.len(file).unwrap_err();
        assert_eq!(error.kind, StorageErrorKind::Io, "{file}");
    }
}
