//! The thread that works on one queue.

use crate::flight::Flight;
use crate::flight::Flights;
use crate::request::Interpreter;
use crate::request::Request;
use crate::request::Status;
use crate::stats::Stats;
use disk_backend::Completion;
use disk_backend::DiskQueue;
use disk_backend::Operation;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use virtio::Chain;
use virtio::DeviceSignals;
use virtio::Preemption;
use virtio::QueueError;
use virtio::VirtQueue;

/// Requests of this many bytes are started before completions are looked for. Disks may copy data as they are asked to,
/// and the driver is to hear of the first requests before the last ones are done.
const ROUND: u64 = 256 << 10;

/// What the queues of a device share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) disk: String,
    pub(crate) signals: DeviceSignals,
    pub(crate) stats: Arc<Stats>,
    pub(crate) caching: Caching,
    /// Set, with each queue's event signalled, when the queues are to be given back.
    pub(crate) stop: AtomicBool,
}

/// Whether writes may be reported as done before they would survive a loss of power.
#[derive(Debug)]
pub(crate) enum Caching {
    /// They may: the driver flushes.
    Back,
    /// They may not.
    Through,
    /// They may while this is set, which is up to the driver.
    Chosen(Arc<AtomicBool>),
}

impl Caching {
    fn is_through(&self) -> bool {
        match self {
            Self::Back => false,
            Self::Through => true,
            Self::Chosen(back) => !back.load(Ordering::Relaxed),
        }
    }
}

/// Why a queue is not worked on any more.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error("the queue to the disk is broken")]
    Disk(#[source] io::Error),
}

/// What to do when requests were taken.
enum Then {
    /// There may be more of them.
    LookAgain,
    /// Wait for the driver's notification, or for a completion.
    Wait,
}

/// The state of the thread.
pub(crate) struct QueueWorker<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) queue: &'a mut VirtQueue,
    pub(crate) disk: Box<dyn DiskQueue>,
    pub(crate) interpreter: Interpreter,
    pub(crate) flights: Flights,
    pub(crate) completions: Vec<Completion>,
}

impl QueueWorker<'_> {
    /// Works until told to stop, or beyond repair. Nothing is in flight afterwards.
    pub(crate) fn run(mut self) {
        let result = self.work().and_then(|()| self.drain());
        let Err(failure) = result else {
            return;
        };
        self.shared.signals.fail(&failure);
        // Dropping waits for the disk to let the guest's memory go.
        drop(self.disk);
        if let Failure::Disk(_) = failure {
            while let Some(flight) = self.flights.pop() {
                let end = finish(self.queue, &self.interpreter, flight.chain, Status::IoError);
                if let Err(error) = end {
                    tracing::debug!(%error, "failed to end a request of a broken queue");
                    return;
                }
            }
            if let Err(error) = self.queue.interrupt() {
                tracing::debug!(%error, "failed to interrupt for a broken queue");
            }
        }
    }

    fn work(&mut self) -> Result<(), Failure> {
        let mut preemption = Preemption::of_this_thread();
        let mut since_wakeup = 0;
        while !self.shared.stop.load(Ordering::Acquire) {
            let (taken, then) = self.take()?;
            since_wakeup += taken;
            self.queue.interrupt()?;
            match then {
                Then::LookAgain => self.disk.poll(&mut self.completions),
                Then::Wait => {
                    preemption.about_to_wait(std::mem::take(&mut since_wakeup));
                    self.disk.wait(&mut self.completions)
                }
            }
            .map_err(Failure::Disk)?;
            self.complete()?;
        }
        Ok(())
    }

    /// Waits for what is in flight.
    fn drain(&mut self) -> Result<(), Failure> {
        while self.flights.len() != 0 {
            self.disk
                .wait(&mut self.completions)
                .map_err(Failure::Disk)?;
            self.complete()?;
        }
        Ok(())
    }

    /// Starts requests of the driver, and says how many.
    fn take(&mut self) -> Result<(usize, Then), Failure> {
        let size = usize::from(self.queue.size());
        self.queue.disable_kicks()?;
        let mut bytes = 0;
        // A driver that makes chains available twice, or faster than they are worked on, gets no more than this.
        for taken in 0..size {
            if bytes >= ROUND {
                return Ok((taken, Then::LookAgain));
            }
            if self.flights.len() >= size {
                // A completion is what to wait for.
                return Ok((taken, Then::Wait));
            }
            match self.queue.next()? {
                Some(chain) => {
                    bytes += u64::from(chain.readable.len()) + u64::from(chain.writable.len());
                    self.start(chain)?;
                }
                None => {
                    let then = match self.queue.enable_kicks()? {
                        true => Then::LookAgain,
                        false => Then::Wait,
                    };
                    return Ok((taken, then));
                }
            }
        }
        Ok((size, Then::LookAgain))
    }

    fn start(&mut self, chain: Chain) -> Result<(), QueueError> {
        let operations = match self.interpreter.request(&chain) {
            Request::Disk(operations) => operations,
            Request::Done(status) => {
                let stats = &self.shared.stats;
                Stats::add(&stats.others, 1);
                if status != Status::Ok {
                    Stats::add(&stats.failed, 1);
                }
                return finish(self.queue, &self.interpreter, chain, status);
            }
        };
        let changes = !matches!(
            operations.first(),
            Some(Operation::Read { .. } | Operation::Flush)
        );
        let token = self.flights.insert(Flight {
            chain,
            pending: operations.len(),
            failed: false,
            flush_after: changes && self.shared.caching.is_through(),
        });
        for operation in operations {
            self.count(&operation);
            self.disk.submit(token, operation);
        }
        Ok(())
    }

    fn count(&self, operation: &Operation) {
        let stats = &self.shared.stats;
        match operation {
            Operation::Read { buffers, .. } => {
                Stats::add(&stats.reads, 1);
                Stats::add(&stats.read_bytes, buffers.len());
            }
            Operation::Write { buffers, .. } => {
                Stats::add(&stats.writes, 1);
                Stats::add(&stats.written_bytes, buffers.len());
            }
            Operation::Flush => Stats::add(&stats.flushes, 1),
            Operation::Discard { .. } | Operation::WriteZeroes { .. } => {
                Stats::add(&stats.others, 1);
            }
        }
    }

    /// Ends the requests whose operations have completed, and interrupts once for all of them.
    fn complete(&mut self) -> Result<(), QueueError> {
        for completion in self.completions.drain(..) {
            let token = completion.token;
            let Some(flight) = self.flights.get(token) else {
                continue;
            };
            if let Err(error) = completion.result {
                flight.failed = true;
                let device = self.shared.signals.name();
                self.shared.stats.failed(device, &self.shared.disk, &error);
            }
            flight.pending -= 1;
            if flight.pending != 0 {
                continue;
            }
            if flight.flush_after && !flight.failed {
                flight.flush_after = false;
                flight.pending = 1;
                self.disk.submit(token, Operation::Flush);
                continue;
            }
            if let Some(flight) = self.flights.remove(token) {
                let status = match flight.failed {
                    false => Status::Ok,
                    true => Status::IoError,
                };
                finish(self.queue, &self.interpreter, flight.chain, status)?;
            }
        }
        self.queue.interrupt()
    }
}

/// Gives `chain` back with its status.
fn finish(
    queue: &mut VirtQueue,
    interpreter: &Interpreter,
    chain: Chain,
    status: Status,
) -> Result<(), QueueError> {
    let written = chain.writable.len();
    if let Some(last) = written.checked_sub(1) {
        let status = [status.to_byte()];
        chain.writable.write(&interpreter.memory, last, &status);
    }
    queue.complete(chain, written)
}
