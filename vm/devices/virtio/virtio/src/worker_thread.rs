//! Threads that process queues.

use crate::EventFd;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

/// Tells a worker thread to stop.
#[derive(Debug, Clone)]
pub struct StopSignal(Arc<Signal>);

#[derive(Debug)]
struct Signal {
    is_set: AtomicBool,
    event: EventFd,
}

/// What ended a wait.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum Wakeup {
    /// At least one of the descriptors is ready, or the time is up.
    Ready,
    /// The worker must stop.
    Stop,
}

impl StopSignal {
    /// Whether the worker must stop. Cheap.
    pub fn is_set(&self) -> bool {
        self.0.is_set.load(Ordering::Acquire)
    }

    /// Waits until one of `fds` is readable (or has an error), or the worker must stop.
    pub fn wait(&self, fds: &[BorrowedFd<'_>]) -> io::Result<Wakeup> {
        self.poll(fds, PollFlags::IN, None)
    }

    /// Waits until `fd` is writable (or has an error), or the worker must stop.
    pub fn wait_writable(&self, fd: BorrowedFd<'_>) -> io::Result<Wakeup> {
        self.poll(&[fd], PollFlags::OUT, None)
    }

    /// Waits until `duration` has passed, or the worker must stop.
    pub fn sleep(&self, duration: Duration) -> io::Result<Wakeup> {
        // A duration that does not fit into a timespec is unlimited for all purposes.
        let timeout = Timespec::try_from(duration).ok();
        self.poll(&[], PollFlags::empty(), timeout.as_ref())
    }

    fn poll(
        &self,
        fds: &[BorrowedFd<'_>],
        flags: PollFlags,
        timeout: Option<&Timespec>,
    ) -> io::Result<Wakeup> {
        let mut polled = Vec::with_capacity(fds.len() + 1);
        polled.push(PollFd::new(&self.0.event, PollFlags::IN));
        polled.extend(fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, flags)));
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut polled, timeout))?;
        if polled[0].revents().is_empty() {
            Ok(Wakeup::Ready)
        } else {
            Ok(Wakeup::Stop)
        }
    }
}

/// A thread that processes queues until it is stopped.
///
/// With one thread per queue, the kernel wakes the right thread directly on a notification.
#[derive(Debug)]
pub struct WorkerThread<T> {
    stop: StopSignal,
    thread: JoinHandle<T>,
}

impl<T: Send + 'static> WorkerThread<T> {
    /// Runs `work` on a thread called `name`, of which the kernel shows 15 bytes. `work` must return soon after
    /// its [`StopSignal`] is set, with the queues it has.
    pub fn spawn(
        name: impl Into<String>,
        work: impl FnOnce(&StopSignal) -> T + Send + 'static,
    ) -> io::Result<Self> {
        let stop = StopSignal(Arc::new(Signal {
            is_set: AtomicBool::new(false),
            event: EventFd::new()?,
        }));
        let thread = std::thread::Builder::new().name(name.into()).spawn({
            let stop = stop.clone();
            move || work(&stop)
        })?;
        Ok(Self { stop, thread })
    }

    /// Tells the worker to stop, without waiting for it.
    pub fn ask_to_stop(&self) {
        self.stop.0.is_set.store(true, Ordering::Release);
        self.stop.0.event.set();
    }

    /// Stops the worker, waits for it, and returns what `work` returned. Resumes a panic of the worker.
    pub fn stop(self) -> T {
        self.ask_to_stop();
        match self.thread.join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;

    #[test]
    fn a_worker_wakes_up_and_stops() {
        let kick = Arc::new(EventFd::new().unwrap());
        let seen = Arc::new(EventFd::new().unwrap());
        let worker = WorkerThread::spawn("worker", {
            let (kick, seen) = (kick.clone(), seen.clone());
            move |stop: &StopSignal| {
                let mut count = 0;
                while stop.wait(&[kick.as_fd()]).unwrap() == Wakeup::Ready {
                    assert!(kick.clear());
                    count += 1;
                    seen.set();
                }
                assert!(stop.is_set());
                count
            }
        })
        .unwrap();
        let mut polled = [PollFd::new(&*seen, PollFlags::IN)];
        kick.set();
        rustix::event::poll(&mut polled, None).unwrap();
        assert_eq!(worker.stop(), 1);
    }
}
