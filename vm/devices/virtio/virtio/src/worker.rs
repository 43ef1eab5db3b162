use crate::Event;
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

/// Tells a worker to end.
#[derive(Debug, Clone)]
pub struct Stop(Arc<Signal>);

#[derive(Debug)]
struct Signal {
    is_set: AtomicBool,
    event: Event,
}

/// What ended a wait.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum Wakeup {
    /// At least one of the descriptors is ready, or the time is over.
    Ready,
    /// The worker is to end.
    Stop,
}

impl Stop {
    /// Whether the worker is to end. Costs next to nothing.
    pub fn is_set(&self) -> bool {
        self.0.is_set.load(Ordering::Acquire)
    }

    /// Waits until one of `fds` is readable (or has an error), or the worker is to end.
    pub fn wait(&self, fds: &[BorrowedFd<'_>]) -> io::Result<Wakeup> {
        self.poll(fds, PollFlags::IN, None)
    }

    /// Waits until `fd` is writable (or has an error), or the worker is to end.
    pub fn wait_writable(&self, fd: BorrowedFd<'_>) -> io::Result<Wakeup> {
        self.poll(&[fd], PollFlags::OUT, None)
    }

    /// Waits until `duration` is over, or the worker is to end.
    pub fn sleep(&self, duration: Duration) -> io::Result<Wakeup> {
        // What a timespec cannot say is longer than anybody waits.
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

/// A thread that works on queues until it is stopped.
///
/// A thread of its own per queue wakes up on a notification with nothing between it and the kernel.
#[derive(Debug)]
pub struct Worker<T> {
    stop: Stop,
    thread: JoinHandle<T>,
}

impl<T: Send + 'static> Worker<T> {
    /// Runs `work` on a thread called `name`, of which the kernel shows 15 bytes. `work` returns soon after
    /// its [`Stop`] says so, and gives back the queues it has.
    pub fn spawn(
        name: impl Into<String>,
        work: impl FnOnce(&Stop) -> T + Send + 'static,
    ) -> io::Result<Self> {
        let stop = Stop(Arc::new(Signal {
            is_set: AtomicBool::new(false),
            event: Event::new()?,
        }));
        let thread = std::thread::Builder::new().name(name.into()).spawn({
            let stop = stop.clone();
            move || work(&stop)
        })?;
        Ok(Self { stop, thread })
    }

    /// Tells the worker to end, without waiting for it.
    pub fn ask_to_stop(&self) {
        self.stop.0.is_set.store(true, Ordering::Release);
        self.stop.0.event.set();
    }

    /// Ends the worker, waits until it is gone, and gives what it had. A panic of the worker goes on here.
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
        let bell = Arc::new(Event::new().unwrap());
        let rung = Arc::new(Event::new().unwrap());
        let worker = Worker::spawn("worker", {
            let (bell, rung) = (bell.clone(), rung.clone());
            move |stop: &Stop| {
                let mut count = 0;
                while stop.wait(&[bell.as_fd()]).unwrap() == Wakeup::Ready {
                    assert!(bell.clear());
                    count += 1;
                    rung.set();
                }
                assert!(stop.is_set());
                count
            }
        })
        .unwrap();
        let mut polled = [PollFd::new(&*rung, PollFlags::IN)];
        bell.set();
        rustix::event::poll(&mut polled, None).unwrap();
        assert_eq!(worker.stop(), 1);
    }
}
