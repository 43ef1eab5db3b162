//! A disk that fails on command.

use crate::Completion;
use crate::Disk;
use crate::DiskError;
use crate::DiskInfo;
use crate::DiskOperation;
use crate::DiskQueue;
use parking_lot::Mutex;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

#[derive(Default)]
struct Plan {
    after: usize,
    count: usize,
    errno: i32,
    queue_fails: bool,
}

/// Controls a [`FaultyDisk`].
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<Plan>>);

impl Faults {
    /// Makes the next `count` operations fail with `errno`.
    pub fn fail_next(&self, count: usize, errno: i32) {
        self.fail_after(0, count, errno);
    }

    /// Makes `count` operations fail with `errno` once `after` more have been done.
    pub fn fail_after(&self, after: usize, count: usize, errno: i32) {
        let queue_fails = false;
        *self.0.lock() = Plan {
            after,
            count,
            errno,
            queue_fails,
        };
    }

    /// Makes queues fail from their next operation on, which does not complete. No queue can be opened any more.
    pub fn break_queues(&self) {
        self.0.lock().queue_fails = true;
    }

    fn take(&self) -> Option<i32> {
        let mut plan = self.0.lock();
        if plan.after > 0 {
            plan.after -= 1;
            return None;
        }
        plan.count = plan.count.checked_sub(1)?;
        Some(plan.errno)
    }

    fn check_queue(&self) -> io::Result<()> {
        if self.0.lock().queue_fails {
            return Err(io::Error::other("the queue was made to fail"));
        }
        Ok(())
    }
}

/// A disk that forwards operations to another one, unless it is made to fail.
pub struct FaultyDisk {
    inner: Arc<dyn Disk>,
    faults: Faults,
}

impl FaultyDisk {
    /// Creates a disk over `inner` that fails when `faults` says so.
    pub fn new(inner: Arc<dyn Disk>, faults: Faults) -> Self {
        Self { inner, faults }
    }
}

impl Disk for FaultyDisk {
    fn info(&self) -> &DiskInfo {
        self.inner.info()
    }

    fn flush(&self) -> Result<(), DiskError> {
        match self.faults.take() {
            None => self.inner.flush(),
            Some(errno) => Err(failure(&DiskOperation::Flush, errno)),
        }
    }

    fn open_queue(
        self: Arc<Self>,
        depth: u16,
        events: &[BorrowedFd<'_>],
    ) -> io::Result<Box<dyn DiskQueue>> {
        self.faults.check_queue()?;
        Ok(Box::new(FaultyQueue {
            inner: self.inner.clone().open_queue(depth, events)?,
            faults: self.faults.clone(),
            failed: Vec::new(),
            submitted: false,
        }))
    }
}

fn failure(operation: &DiskOperation, errno: i32) -> DiskError {
    DiskError::Io {
        operation: operation.name(),
        offset: operation.extent().offset,
        source: io::Error::from_raw_os_error(errno),
    }
}

struct FaultyQueue {
    inner: Box<dyn DiskQueue>,
    faults: Faults,
    failed: Vec<Completion>,
    /// Whether an operation was submitted since the last check.
    submitted: bool,
}

impl FaultyQueue {
    fn check(&mut self) -> io::Result<()> {
        match std::mem::take(&mut self.submitted) {
            true => self.faults.check_queue(),
            false => Ok(()),
        }
    }
}

impl DiskQueue for FaultyQueue {
    fn submit(&mut self, token: u64, operation: DiskOperation) {
        self.submitted = true;
        match self.faults.take() {
            None => self.inner.submit(token, operation),
            Some(errno) => self.failed.push(Completion {
                token,
                result: Err(failure(&operation, errno)),
            }),
        }
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) -> io::Result<()> {
        self.check()?;
        completions.append(&mut self.failed);
        self.inner.poll(completions)
    }

    fn wait(&mut self, completions: &mut Vec<Completion>) -> io::Result<()> {
        self.check()?;
        if self.failed.is_empty() {
            return self.inner.wait(completions);
        }
        self.poll(completions)
    }
}
