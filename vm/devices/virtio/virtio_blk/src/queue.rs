//! The worker that processes one queue.

use crate::request::BlkStatus;
use crate::request::Request;
use crate::request::RequestParser;
use crate::stats::BlkStats;
use disk_backend::Completion;
use disk_backend::DiskOperation;
use disk_backend::DiskQueue;
use slab::Slab;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use virtio::DescriptorChain;
use virtio::DeviceSignals;
use virtio::QueueError;
use virtio::VirtQueue;
use virtio::WakeupPolicy;

/// The number of bytes to submit before checking for completions. Disks may copy data at submission, and the driver
/// should learn of the first requests before the last ones are done.
const ROUND: u64 = 256 << 10;

/// What the queues of a device share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) disk: String,
    pub(crate) signals: DeviceSignals,
    pub(crate) stats: Arc<BlkStats>,
    pub(crate) caching: Caching,
    /// Set, with each worker's event signalled, when the workers must stop.
    pub(crate) stop: AtomicBool,
}

/// Whether writes may be reported as done before they would survive a power loss.
#[derive(Debug)]
pub(crate) enum Caching {
    /// They may: the driver flushes.
    WriteBack,
    /// They may not.
    WriteThrough,
    /// They may while this is set, by the driver.
    Selectable(Arc<AtomicBool>),
}

impl Caching {
    fn is_write_through(&self) -> bool {
        match self {
            Self::WriteBack => false,
            Self::WriteThrough => true,
            Self::Selectable(write_back) => !write_back.load(Ordering::Relaxed),
        }
    }
}

/// Why a queue cannot be processed any more.
#[derive(Debug, thiserror::Error)]
enum QueueFailure {
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error("the disk queue failed")]
    Disk(#[source] io::Error),
}

/// What to do after requests were taken.
enum NextStep {
    /// Look for more requests.
    Continue,
    /// Wait for a notification of the driver or for a completion.
    Wait,
}

/// A request that the disk works on.
#[derive(Debug)]
pub(crate) struct InFlight {
    chain: DescriptorChain,
    /// Operations that have not completed.
    pending: usize,
    failed: bool,
    /// A flush must follow, so that the data survives a power loss.
    flush_after: bool,
}

/// The state of the worker.
pub(crate) struct QueueWorker<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) queue: &'a mut VirtQueue,
    pub(crate) disk: Box<dyn DiskQueue>,
    pub(crate) parser: RequestParser,
    /// By the token of their operations.
    pub(crate) in_flight: Slab<InFlight>,
    pub(crate) completions: Vec<Completion>,
}

impl QueueWorker<'_> {
    /// Processes the queue until the worker must stop or fails. Nothing is in flight afterwards.
    pub(crate) fn run(mut self) {
        let result = self.process().and_then(|()| self.drain());
        let Err(failure) = result else {
            return;
        };
        self.shared.signals.fail(&failure);
        // Waits until the disk no longer uses guest memory.
        drop(self.disk);
        if let QueueFailure::Disk(_) = failure {
            for request in self.in_flight.drain() {
                let result = finish(self.queue, &self.parser, request.chain, BlkStatus::IoError);
                if let Err(error) = result {
                    tracing::debug!(%error, "failed to complete a request of a failed queue");
                    return;
                }
            }
            if let Err(error) = self.queue.interrupt() {
                tracing::debug!(%error, "failed to interrupt for a failed queue");
            }
        }
    }

    fn process(&mut self) -> Result<(), QueueFailure> {
        let mut wakeup_policy = WakeupPolicy::of_this_thread();
        let mut since_wakeup = 0;
        while !self.shared.stop.load(Ordering::Acquire) {
            let (taken, next) = self.take()?;
            since_wakeup += taken;
            self.queue.interrupt()?;
            let result = match next {
                NextStep::Continue => self.disk.poll(&mut self.completions),
                NextStep::Wait => {
                    wakeup_policy.about_to_wait(std::mem::take(&mut since_wakeup));
                    self.disk.wait(&mut self.completions)
                }
            };
            // A queue that fails reports what completed before.
            self.complete()?;
            result.map_err(QueueFailure::Disk)?;
        }
        Ok(())
    }

    /// Waits until nothing is in request.
    fn drain(&mut self) -> Result<(), QueueFailure> {
        while !self.in_flight.is_empty() {
            let result = self.disk.wait(&mut self.completions);
            self.complete()?;
            result.map_err(QueueFailure::Disk)?;
        }
        Ok(())
    }

    /// Takes and starts requests of the driver. Returns their number.
    fn take(&mut self) -> Result<(usize, NextStep), QueueFailure> {
        let size = usize::from(self.queue.size());
        self.queue.disable_kicks()?;
        let mut bytes = 0;
        // Bounds a driver that makes chains available twice, or faster than they are processed.
        for taken in 0..size {
            if bytes >= ROUND {
                return Ok((taken, NextStep::Continue));
            }
            if self.in_flight.len() >= size {
                // Wait for a completion.
                return Ok((taken, NextStep::Wait));
            }
            match self.queue.next()? {
                Some(chain) => {
                    bytes += u64::from(chain.readable.len()) + u64::from(chain.writable.len());
                    self.start(chain)?;
                }
                None => {
                    let next = match self.queue.enable_kicks()? {
                        true => NextStep::Continue,
                        false => NextStep::Wait,
                    };
                    return Ok((taken, next));
                }
            }
        }
        Ok((size, NextStep::Continue))
    }

    fn start(&mut self, chain: DescriptorChain) -> Result<(), QueueError> {
        let operations = match self.parser.request(&chain) {
            Request::Disk(operations) => operations,
            Request::Done(status) => {
                let stats = &self.shared.stats;
                BlkStats::add(&stats.others, 1);
                if status != BlkStatus::Ok {
                    BlkStats::add(&stats.failed, 1);
                }
                return finish(self.queue, &self.parser, chain, status);
            }
        };
        let changes = !matches!(
            operations.first(),
            Some(DiskOperation::Read { .. } | DiskOperation::Flush)
        );
        let key = self.in_flight.insert(InFlight {
            chain,
            pending: operations.len(),
            failed: false,
            flush_after: changes && self.shared.caching.is_write_through(),
        });
        for operation in operations {
            self.count(&operation);
            self.disk.submit(key as u64, operation);
        }
        Ok(())
    }

    fn count(&self, operation: &DiskOperation) {
        let stats = &self.shared.stats;
        match operation {
            DiskOperation::Read { buffers, .. } => {
                BlkStats::add(&stats.reads, 1);
                BlkStats::add(&stats.read_bytes, buffers.len());
            }
            DiskOperation::Write { buffers, .. } => {
                BlkStats::add(&stats.writes, 1);
                BlkStats::add(&stats.written_bytes, buffers.len());
            }
            DiskOperation::Flush => BlkStats::add(&stats.flushes, 1),
            DiskOperation::Discard { .. } | DiskOperation::WriteZeroes { .. } => {
                BlkStats::add(&stats.others, 1);
            }
        }
    }

    /// Completes the requests whose operations have completed, and interrupts once for all of them.
    fn complete(&mut self) -> Result<(), QueueError> {
        for completion in self.completions.drain(..) {
            let token = completion.token;
            let key = token as usize;
            let Some(request) = self.in_flight.get_mut(key) else {
                continue;
            };
            if let Err(error) = completion.result {
                request.failed = true;
                let device = self.shared.signals.name();
                self.shared.stats.failed(device, &self.shared.disk, &error);
            }
            request.pending -= 1;
            if request.pending != 0 {
                continue;
            }
            if request.flush_after && !request.failed {
                request.flush_after = false;
                request.pending = 1;
                self.disk.submit(token, DiskOperation::Flush);
                continue;
            }
            let request = self.in_flight.remove(key);
            let status = match request.failed {
                false => BlkStatus::Ok,
                true => BlkStatus::IoError,
            };
            finish(self.queue, &self.parser, request.chain, status)?;
        }
        self.queue.interrupt()
    }
}

/// Completes `chain` with its status.
fn finish(
    queue: &mut VirtQueue,
    parser: &RequestParser,
    chain: DescriptorChain,
    status: BlkStatus,
) -> Result<(), QueueError> {
    let written = chain.writable.len();
    if let Some(last) = written.checked_sub(1) {
        let status = [status.to_byte()];
        chain.writable.write(&parser.memory, last, &status);
    }
    queue.complete(chain, written)
}
