//! Queues on io_uring: one system call both starts operations and waits for what completes first, one of them or an
//! event.
#![allow(
    unsafe_code,
    reason = "the kernel works on memory that is handed to it by address, until it says that it is done"
)]

use crate::engine::OpenFile;
use crate::job::Call;
use crate::job::Job;
use crate::page_cache::PageCache;
use disk_backend::Completion;
use disk_backend::DiskQueue;
use disk_backend::Events;
use disk_backend::Operation;
use io_uring::IoUring;
use io_uring::Probe;
use io_uring::cqueue;
use io_uring::opcode;
use io_uring::squeue;
use io_uring::types;
use rustix::io::Errno;
use std::collections::VecDeque;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsRawFd as _;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// Operations in flight at once, at most.
const MAX_FLIGHTS: usize = 1024;
/// `user_data` of completions that are not a flight's: the index of an event from here on.
const EVENT: u64 = 1 << 32;
/// `IORING_ENTER_GETEVENTS`: take completions in, without waiting for one.
const GET_EVENTS: u32 = 1;

fn new_ring(entries: u32) -> io::Result<IoUring> {
    // Completions are taken in by the one thread that uses the ring, when it asks (Linux 6.1).
    let mut builder = IoUring::builder();
    builder.setup_single_issuer().setup_defer_taskrun();
    match builder.build(entries) {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => IoUring::new(entries),
        result => result,
    }
}

/// Whether the host has io_uring, allows it, and knows all operations a disk takes.
pub(crate) fn probe() -> io::Result<()> {
    let ring = new_ring(4)?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    // Since Linux 5.13, as is that events are reported again and again.
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

struct Flight {
    token: u64,
    job: Job,
}

/// A queue on a ring. Belongs to the thread that opened it.
pub(crate) struct RingQueue {
    ring: IoUring,
    file: Arc<OpenFile>,
    events: Events,
    /// Events not watched at the moment.
    unwatched: Vec<usize>,
    /// What the kernel works on, by `user_data`.
    flights: Vec<Option<Flight>>,
    /// Places in `flights` that are free.
    free: Vec<usize>,
    /// Flights to begin, or to go on with.
    to_start: Vec<usize>,
    backlog: VecDeque<Flight>,
    completed: Vec<Completion>,
    page_cache: PageCache,
    /// Kept for its memory.
    entries: Vec<cqueue::Entry>,
}

impl RingQueue {
    pub(crate) fn open(
        file: Arc<OpenFile>,
        depth: u16,
        events: &[BorrowedFd<'_>],
    ) -> io::Result<Self> {
        let flights = usize::from(depth).clamp(1, MAX_FLIGHTS);
        // A place for each flight and each event, so that the submission queue is never full.
        let places = flights + events.len();
        let ring = new_ring(places.next_power_of_two() as u32)?;
        let mut queue = Self {
            ring,
            file,
            events: Events::new(events)?,
            unwatched: (0..events.len()).collect(),
            flights: (0..flights).map(|_| None).collect(),
            free: (0..flights).collect(),
            to_start: Vec::new(),
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

    fn in_flight(&self) -> usize {
        self.flights.len() - self.free.len()
    }

    /// Puts everything that can be started into the submission queue.
    fn fill(&mut self) -> io::Result<()> {
        for index in std::mem::take(&mut self.unwatched) {
            let Some(fd) = self.events.fds().nth(index) else {
                continue;
            };
            // Reports every signal, until it says that it does not any more. The event itself is never reset: a signal to
            // a signalled eventfd is reported too.
            let entry = opcode::PollAdd::new(types::Fd(fd.as_raw_fd()), libc::POLLIN as u32)
                .multi(true)
                .build()
                .user_data(EVENT + index as u64);
            // SAFETY: takes no memory; the descriptor lives as long as the ring.
            unsafe { self.push(&entry) }?;
        }
        while let Some(flight) = self.backlog.pop_front() {
            let Some(place) = self.free.pop() else {
                self.backlog.push_front(flight);
                break;
            };
            self.flights[place] = Some(flight);
            self.to_start.push(place);
        }
        while let Some(place) = self.to_start.pop() {
            if let Some(flight) = &self.flights[place] {
                let file = types::Fd(self.file.file.as_raw_fd());
                let entry = entry(file, &flight.job.call()).user_data(place as u64);
                // SAFETY: the memory belongs to the flight's job, which stays in place, and is not advanced, until the kernel
                // has reported the end of this; see also `drop`.
                unsafe { self.push(&entry) }?;
            }
        }
        Ok(())
    }

    /// # Safety
    ///
    /// What `entry` points to must stay valid until its completion was taken in.
    unsafe fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.ring.submission().push(entry) }
            .map_err(|_| io::Error::other("the submission queue is full"))
    }

    /// Submits, waits for `want` completions, and lets the kernel put them in the completion queue.
    fn enter(&mut self, want: u32) -> io::Result<()> {
        let count = self.ring.submission().len() as u32;
        let submitter = self.ring.submitter();
        // SAFETY: no argument is a pointer. What the entries point to is valid, as `push` was promised.
        match unsafe { submitter.enter::<libc::sigset_t>(count, want, GET_EVENTS, None) } {
            Ok(_) => Ok(()),
            // Signals; and memory or the completion queue being short, which completions make better.
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

    /// Takes completions in, and says whether an event was signalled.
    fn take_in(&mut self) -> io::Result<bool> {
        let mut signalled = false;
        let mut entries = std::mem::take(&mut self.entries);
        entries.extend(self.ring.completion());
        for entry in entries.drain(..) {
            let data = entry.user_data();
            if let Some(event) = data.checked_sub(EVENT) {
                if entry.result() < 0 {
                    return Err(io::Error::from_raw_os_error(-entry.result()));
                }
                signalled = true;
                if !cqueue::more(entry.flags()) {
                    self.unwatched.push(event as usize);
                }
                continue;
            }
            let place = data as usize;
            let Some(flight) = &mut self.flights[place] else {
                continue;
            };
            let result = match usize::try_from(entry.result()) {
                Ok(count) => Ok(count),
                Err(_) => Err(Errno::from_raw_os_error(-entry.result())),
            };
            match flight.job.advance(result) {
                ControlFlow::Continue(()) => self.to_start.push(place),
                ControlFlow::Break(result) => {
                    self.file.end(&flight.job, &result);
                    let token = flight.token;
                    self.completed.push(Completion { token, result });
                    self.flights[place] = None;
                    self.free.push(place);
                }
            }
        }
        self.entries = entries;
        Ok(signalled)
    }
}

/// The entry for a call. The file is not registered with the ring, which is taken down some time after its process has
/// ended, and would keep the file locked until then.
fn entry(file: types::Fd, call: &Call<'_>) -> squeue::Entry {
    // The length of one piece is of 32 bits, and the kernel does at most 2 GiB anyway.
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
    fn submit(&mut self, token: u64, operation: Operation) {
        match self.file.begin(operation) {
            Ok(mut job) => match self.page_cache.try_read(&self.file, &mut job) {
                ControlFlow::Continue(()) => self.backlog.push_back(Flight { token, job }),
                ControlFlow::Break(result) => self.completed.push(Completion { token, result }),
            },
            Err(result) => self.completed.push(Completion { token, result }),
        }
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) -> io::Result<()> {
        self.fill()?;
        // If all was done by the way, there is nothing to ask the kernel for; events are seen at the next wait.
        if self.in_flight() != 0 {
            self.enter(0)?;
            self.take_in()?;
        }
        completions.append(&mut self.completed);
        Ok(())
    }

    fn wait(&mut self, completions: &mut Vec<Completion>) -> io::Result<()> {
        if !self.completed.is_empty() {
            return self.poll(completions);
        }
        loop {
            self.fill()?;
            self.enter(1)?;
            if self.take_in()? || !self.completed.is_empty() {
                completions.append(&mut self.completed);
                return Ok(());
            }
        }
    }
}

impl Drop for RingQueue {
    /// Waits until the kernel uses no memory any more.
    fn drop(&mut self) {
        // What is not submitted yet, or would go on, is left.
        self.backlog.clear();
        let left = loop {
            // Flights that would go on are not with the kernel.
            let left = self.in_flight() - self.to_start.len();
            if left == 0 {
                break Ok(());
            }
            if let Err(e) = self.enter(1).and_then(|()| self.take_in()) {
                break Err(e);
            }
        };
        if let Err(error) = left {
            // Never seen; but the kernel may still write there, so that memory is not given back.
            tracing::error!(disk = self.file.info.name, %error, "failed to wait for disk I/O");
            std::mem::forget(std::mem::take(&mut self.flights));
        }
    }
}
