//! How a disk's system calls are made.

use crate::direct::Alignment;
use crate::guard::FormatGuard;
use crate::job::Job;
use crate::lock;
use crate::system_call;
use disk_backend::DiskError;
use disk_backend::DiskInfo;
use disk_backend::DiskOperation;
use std::fs::File;
use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

/// How a disk's I/O is made asynchronous.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default, minicbor::Encode, minicbor::Decode)]
#[cbor(index_only)]
pub enum Engine {
    /// io_uring if the host allows it, else threads.
    #[default]
    #[n(0)]
    Auto,
    /// io_uring, or an error.
    #[n(1)]
    IoUring,
    /// A pool of blocking threads.
    #[n(2)]
    Threads,
}

/// An open disk, as its queues use it. The file is locked.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) file: File,
    pub(crate) info: DiskInfo,
    /// A flush failed. The kernel reports that once and then considers the pages clean, so it is remembered here.
    flush_failed: AtomicBool,
    /// Refuses writes that change the format, if it was not given.
    guard: Option<FormatGuard>,
    /// I/O is direct, and asks for this.
    pub(crate) direct: Option<Alignment>,
}

impl OpenFile {
    pub(crate) fn new(
        file: File,
        info: DiskInfo,
        guard: Option<FormatGuard>,
        direct: Option<Alignment>,
    ) -> Self {
        Self {
            file,
            info,
            flush_failed: AtomicBool::new(false),
            guard,
            direct,
        }
    }

    /// Begins an operation, or returns its result if there is nothing to do or it cannot be done.
    pub(crate) fn begin(&self, mut operation: DiskOperation) -> Result<Job, Result<(), DiskError>> {
        self.info.check(&operation).map_err(Err)?;
        if let Some(guard) = &self.guard {
            guard.check(&self.info.name, &mut operation).map_err(Err)?;
        }
        let mut job = Job::new(operation);
        if job.is_empty() {
            return Err(Ok(()));
        }
        if job.is_flush() && self.flush_failed.load(Ordering::Acquire) {
            return Err(Err(DiskError::FlushFailed));
        }
        if let Some(alignment) = self.direct {
            job.align(alignment).map_err(Err)?;
        }
        Ok(job)
    }

    /// Makes everything that completed survive a power loss.
    pub(crate) fn flush(&self) -> Result<(), DiskError> {
        let mut job = match self.begin(DiskOperation::Flush) {
            Ok(job) => job,
            Err(result) => return result,
        };
        let result = run(&self.file, &mut job);
        self.end(&job, &result);
        result
    }

    /// Records the result of `job`.
    pub(crate) fn end(&self, job: &Job, result: &Result<(), DiskError>) {
        if job.is_flush() && result.is_err() {
            self.flush_failed.store(true, Ordering::Release);
        }
    }
}

/// Performs `job` on `file`, and waits for it.
pub(crate) fn run(file: &File, job: &mut Job) -> Result<(), DiskError> {
    loop {
        let result = system_call::run(file, &job.call());
        if let ControlFlow::Break(result) = job.advance(result) {
            return result;
        }
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        // Closing does the same, but the kernel may close a little later.
        lock::unlock(&self.file);
    }
}
