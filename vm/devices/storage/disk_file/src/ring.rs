//! Disk queues on io_uring: one system call both submits operations and waits for the first completion or event.
#![allow(
    unsafe_code,
    reason = "the kernel accesses memory given to it by address until it reports completion"
)]

use crate::engine::OpenFile;
use crate::job::Call;
use crate::job::Job;
use crate::page_cache::PageCache;
use disk_backend::Completion;
use disk_backend::DiskOperation;
use disk_backend::DiskQueue;
use disk_backend::EventSet;
use io_uring::IoUring;
use io_uring::Probe;
use io_uring::cqueue;
use io_uring::opcode;
use io_uring::squeue;
use io_uring::types;
use rustix::io::Errno;
use slab::Slab;
use std::collections::VecDeque;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsRawFd as _;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// The most operations in flight at once.
const MAX_IN_FLIGHT: usize = 1024;
/// `user_data` of the poll of event 0; those of the other events follow. Below are the keys of operations in flight.
const EVENT: u64 = 1 << 32;
/// `IORING_ENTER_GETEVENTS`: let the kernel post completions, without waiting for one.
const GET_EVENTS: u32 = 1;

fn new_ring(entries: u32) -> io::Result<IoUring> {
    // Completions are posted when the one thread that uses the ring asks for them (Linux 6.1).
    let mut builder = IoUring::builder();
    builder.setup_single_issuer().setup_defer_taskrun();
    match builder.build(entries) {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => IoUring::new(entries),
        result => result,
    }
}

/// Checks that the host has io_uring, allows it, and supports all operations a disk needs.
pub(crate) fn probe() -> io::Result<()> {
    let ring = new_ring(4)?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    // Since Linux 5.13, as are multishot polls.
    if !ring.params().is_feature_resource_tagging() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let needed = [
        opcode::Read::CODE,
        opcode::Write::CODE,
        opcode::Readv::CODE,
        opcode::Writev::CODE,
        opcode::Fsync::CODE,
        opcode::Fallocate::CODE,
        opcode::PollAdd::CODE,
    ];
    if needed.iter().any(|&code| !probe.is_supported(code)) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(())
}

struct InFlight {
    token: u64,
    job: Job,
}

/// A completion queue entry.
struct Entry {
    user_data: u64,
    /// A count, or a negated errno.
    result: i32,
    /// Whether the kernel will post more entries for the same submission.
    more: bool,
}

impl From<cqueue::Entry> for Entry {
    fn from(entry: cqueue::Entry) -> Self {
        Self {
            user_data: entry.user_data(),
            result: entry.result(),
            more: cqueue::more(entry.flags()),
        }
    }
}

/// A disk queue on a ring. Belongs to the thread that opened it.
pub(crate) struct RingQueue {
    ring: IoUring,
    file: Arc<OpenFile>,
    events: EventSet,
    /// Indices of events that no poll is pending for.
    unwatched: Vec<usize>,
    /// Operations that the kernel works on or that are about to be submitted; their keys are `user_data`.
    in_flight: Slab<InFlight>,
    /// The most operations in flight at once.
    depth: usize,
    /// Keys of operations whose next call is to be submitted.
    to_submit: Vec<usize>,
    backlog: VecDeque<InFlight>,
    completed: Vec<Completion>,
    page_cache: PageCache,
    /// Entries taken from the completion queue and not handled yet; kept between calls for its allocation.
    entries: Vec<Entry>,
}

impl RingQueue {
    pub(crate) fn open(
        file: Arc<OpenFile>,
        depth: u16,
        events: &[BorrowedFd<'_>],
    ) -> io::Result<Self> {
        let depth = usize::from(depth).clamp(1, MAX_IN_FLIGHT);
        // Room for each operation and each event, so that the submission queue is never full.
        let ring = new_ring((depth + events.len()).next_power_of_two() as u32)?;
        let mut queue = Self {
            ring,
            file,
            events: EventSet::new(events)?,
            unwatched: (0..events.len()).collect(),
            in_flight: Slab::with_capacity(depth),
            depth,
            to_submit: Vec::new(),
            backlog: VecDeque::new(),
            completed: Vec::new(),
            page_cache: PageCache::default(),
            entries: Vec::new(),
        };
        // Events are watched from now on.
        queue.fill()?;
        queue.enter(0)?;
        Ok(queue)
    }

    /// Puts everything that can be started into the submission queue.
    fn fill(&mut self) -> io::Result<()> {
        for index in std::mem::take(&mut self.unwatched) {
            let Some(fd) = self.events.fds().nth(index) else {
                continue;
            };
            // Reports every signal until a completion says that it no longer does. The eventfd itself is never reset:
            // a signal to a signalled eventfd is reported too.
            let entry = opcode::PollAdd::new(types::Fd(fd.as_raw_fd()), libc::POLLIN as u32)
                .multi(true)
                .build()
                .user_data(EVENT + index as u64);
            // SAFETY: takes no memory; the descriptor lives as long as the ring.
            unsafe { self.push(&entry) }?;
        }
        while self.in_flight.len() < self.depth
            && let Some(operation) = self.backlog.pop_front()
        {
            self.to_submit.push(self.in_flight.insert(operation));
        }
        while let Some(key) = self.to_submit.pop() {
            if let Some(operation) = self.in_flight.get(key) {
                let file = types::Fd(self.file.file.as_raw_fd());
                let entry = entry(file, &operation.job.call()).user_data(key as u64);
                // SAFETY: the memory belongs to the job, which stays in `in_flight` and is not advanced until the kernel has
                // reported completion; see also `drop`.
                unsafe { self.push(&entry) }?;
            }
        }
        Ok(())
    }

    /// # Safety
    ///
    /// What `entry` points to must stay valid until its completion has been handled.
    unsafe fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: as the caller promises.
        unsafe { self.ring.submission().push(entry) }
            .map_err(|_| io::Error::other("the submission queue is full"))
    }

    /// Submits, waits for `want` completions, and lets the kernel post them to the completion queue.
    fn enter(&mut self, want: u32) -> io::Result<()> {
        let count = self.ring.submission().len() as u32;
        let submitter = self.ring.submitter();
        // SAFETY: no argument is a pointer. What the entries point to is valid, as the callers of `push` promise.
        match unsafe { submitter.enter::<libc::sigset_t>(count, want, GET_EVENTS, None) } {
            Ok(_) => Ok(()),
            // A signal; or a shortage of memory or completion queue space, which handling completions relieves.
            Err(e)
                if matches!(
                    e.raw_os_error(),
                    Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)
                ) =>
            {
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    /// Handles all posted completions, whether or not one of them is an error. Returns whether an event was signalled.
    fn handle_completions(&mut self) -> io::Result<bool> {
        let mut signalled = Ok(false);
        let mut entries = std::mem::take(&mut self.entries);
        entries.extend(self.ring.completion().map(Entry::from));
        for entry in entries.drain(..) {
            let result = match usize::try_from(entry.result) {
                Ok(count) => Ok(count),
                Err(_) => Err(Errno::from_raw_os_error(-entry.result)),
            };
            let Some(event) = entry.user_data.checked_sub(EVENT) else {
                self.advance(entry.user_data as usize, result);
                continue;
            };
            signalled = match (signalled, result) {
                (Ok(_), Ok(_)) => Ok(true),
                (Ok(_), Err(errno)) => Err(errno.into()),
                (Err(first), _) => Err(first),
            };
            if !entry.more {
                self.unwatched.push(event as usize);
            }
        }
        self.entries = entries;
        signalled
    }

    /// Advances the operation with `key` by the result of its call.
    fn advance(&mut self, key: usize, result: Result<usize, Errno>) {
        let Some(operation) = self.in_flight.get_mut(key) else {
            return;
        };
        match operation.job.advance(result) {
            ControlFlow::Continue(()) => self.to_submit.push(key),
            ControlFlow::Break(result) => {
                let InFlight { token, job } = self.in_flight.remove(key);
                self.file.end(&job, &result);
                self.completed.push(Completion { token, result });
            }
        }
    }

    fn poll_ring(&mut self) -> io::Result<()> {
        self.fill()?;
        // If everything completed without the ring, the kernel need not be asked; events are seen at the next wait.
        if !self.in_flight.is_empty() {
            self.enter(0)?;
            self.handle_completions()?;
        }
        Ok(())
    }

    fn wait_for_any(&mut self) -> io::Result<()> {
        loop {
            self.fill()?;
            self.enter(1)?;
            if self.handle_completions()? || !self.completed.is_empty() {
                return Ok(());
            }
        }
    }
}

/// The submission queue entry for a call. The file is not registered with the ring: the kernel tears a ring down some
/// time after its process has ended, and the file would stay locked until then.
fn entry(file: types::Fd, call: &Call<'_>) -> squeue::Entry {
    // The length of one piece has 32 bits, and the kernel transfers at most 2 GiB per call anyway.
    let len = |piece: &libc::iovec| piece.iov_len.min(1 << 30) as u32;
    match call {
        Call::Read { offset, pieces } => match pieces {
            [piece] => opcode::Read::new(file, piece.iov_base.cast(), len(piece))
                .offset(*offset)
                .build(),
            _ => opcode::Readv::new(file, pieces.as_ptr(), pieces.len() as u32)
                .offset(*offset)
                .build(),
        },
        Call::Write { offset, pieces } => match pieces {
            [piece] => opcode::Write::new(file, piece.iov_base.cast(), len(piece))
                .offset(*offset)
                .build(),
            _ => opcode::Writev::new(file, pieces.as_ptr(), pieces.len() as u32)
                .offset(*offset)
                .build(),
        },
        Call::Sync => opcode::Fsync::new(file)
            .flags(types::FsyncFlags::DATASYNC)
            .build(),
        Call::Allocate { mode, extent } => opcode::Fallocate::new(file, extent.len)
            .offset(extent.offset)
            .mode(mode.bits() as i32)
            .build(),
    }
}

impl DiskQueue for RingQueue {
    fn submit(&mut self, token: u64, operation: DiskOperation) {
        match self.file.begin(operation) {
            Ok(mut job) => match self.page_cache.try_read(&self.file, &mut job) {
                ControlFlow::Continue(()) => self.backlog.push_back(InFlight { token, job }),
                ControlFlow::Break(result) => self.completed.push(Completion { token, result }),
            },
            Err(result) => self.completed.push(Completion { token, result }),
        }
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) -> io::Result<()> {
        let result = self.poll_ring();
        completions.append(&mut self.completed);
        result
    }

    fn wait(&mut self, completions: &mut Vec<Completion>) -> io::Result<()> {
        if !self.completed.is_empty() {
            return self.poll(completions);
        }
        let result = self.wait_for_any();
        completions.append(&mut self.completed);
        result
    }
}

impl Drop for RingQueue {
    /// Waits until the kernel no longer uses any memory.
    fn drop(&mut self) {
        // Operations that are not submitted yet, or need further calls, are abandoned.
        self.backlog.clear();
        // Operations in `to_submit` are not with the kernel.
        while self.in_flight.len() > self.to_submit.len() {
            if let Err(error) = self.enter(1) {
                // Never seen; but the kernel may still write to the memory, so it is leaked.
                tracing::error!(
                    disk = self.file.info.name,
                    %error,
                    "failed to wait for disk I/O; its memory is leaked"
                );
                std::mem::forget(std::mem::take(&mut self.in_flight));
                return;
            }
            // Events no longer matter.
            let _ = self.handle_completions();
        }
    }
}

#[cfg(test)]
#[path = "ring_test.rs"]
mod tests;
