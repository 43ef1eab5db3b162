//! The worker that processes one queue.

use crate::request::BlkStatus;
use crate::request::Request;
use crate::request::RequestParser;
use crate::stats::BlkStats;
use disk_backend::Completion;
use disk_backend::Disk;
use disk_backend::DiskError;
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

/// A queue starts nothing more while the operations in flight affect this many bytes: as much as fast disks need to be
/// busy, and as little as slow ones do in a moment. So a stop never has to wait for long.
const MAX_BYTES_IN_FLIGHT: u64 = 4 << 20;
/// The most bytes that are read or written by one operation. Larger requests are split.
const MAX_TRANSFER: u64 = 1 << 20;
/// The most bytes that are overwritten with zeroes by one operation, which a disk may have to write.
const MAX_ZEROES: u64 = 8 << 20;
/// The most bytes that are discarded by one operation.
const MAX_DISCARD: u64 = 64 << 20;
/// The bits of a token that are the key of its request. The others are its [`weight`]. No queue has more requests.
const KEY_BITS: u32 = 16;

/// The most bytes that `operation` may affect.
fn limit(operation: &DiskOperation) -> u64 {
    match operation {
        DiskOperation::Read { .. } | DiskOperation::Write { .. } => MAX_TRANSFER,
        DiskOperation::WriteZeroes { .. } => MAX_ZEROES,
        DiskOperation::Discard { .. } => MAX_DISCARD,
        DiskOperation::Flush => 0,
    }
}

/// The bytes that `operation` counts as while it is in flight. A discard moves none.
fn weight(operation: &DiskOperation) -> u64 {
    match operation {
        DiskOperation::Discard { extent } => extent.len.min(MAX_TRANSFER),
        _ => operation.extent().len,
    }
}

/// What the queues of a device share.
pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
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
    /// Operations that were started and have not completed.
    pending: usize,
    failed: bool,
    /// A flush must follow, so that the data survives a power loss.
    flush_after: bool,
}

/// The operations of a request that are not started yet, last one first.
#[derive(Debug)]
struct Unstarted {
    key: usize,
    operations: Vec<DiskOperation>,
}

/// The state of the worker.
pub(crate) struct QueueWorker<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) queue: &'a mut VirtQueue,
    disk: Box<dyn DiskQueue>,
    parser: RequestParser,
    /// By the key in the token of their operations.
    in_flight: Slab<InFlight>,
    /// What is left of the request that was taken last. No other is taken before all of it is started, so that it can be
    /// put back.
    unstarted: Option<Unstarted>,
    /// The operations that were started and have not completed.
    operations: usize,
    /// The sum of their weights.
    bytes: u64,
    completions: Vec<Completion>,
}

impl<'a> QueueWorker<'a> {
    pub(crate) fn new(
        shared: &'a Shared,
        queue: &'a mut VirtQueue,
        disk: Box<dyn DiskQueue>,
        parser: RequestParser,
    ) -> Self {
        Self {
            shared,
            queue,
            disk,
            parser,
            in_flight: Slab::new(),
            unstarted: None,
            operations: 0,
            bytes: 0,
            completions: Vec::new(),
        }
    }

    /// Processes the queue until the worker must stop or fails. Nothing is in flight afterwards. A request that was
    /// started in part is available to the next worker.
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

    /// Waits until nothing is in flight.
    fn drain(&mut self) -> Result<(), QueueFailure> {
        while self.operations != 0 {
            let result = self.disk.wait(&mut self.completions);
            self.complete()?;
            result.map_err(QueueFailure::Disk)?;
        }
        // All requests taken before it have completed. Doing it again from its start is allowed: the driver does not
        // know how far it came.
        if let Some(unstarted) = self.unstarted.take()
            && let Some(request) = self.in_flight.try_remove(unstarted.key)
        {
            self.queue.put_back(request.chain);
        }
        Ok(())
    }

    /// Takes and starts requests of the driver. Returns their number.
    fn take(&mut self) -> Result<(usize, NextStep), QueueFailure> {
        let size = usize::from(self.queue.size());
        self.queue.disable_kicks()?;
        let (mut bytes, mut taken) = (0, 0);
        // Bounds a driver that makes chains available twice, or faster than they are processed.
        while taken < size {
            if bytes >= ROUND {
                return Ok((taken, NextStep::Continue));
            }
            if self.bytes >= MAX_BYTES_IN_FLIGHT {
                // Wait for a completion.
                return Ok((taken, NextStep::Wait));
            }
            if self.unstarted.is_some() {
                bytes += self.start_next();
                continue;
            }
            if self.in_flight.len() >= size {
                return Ok((taken, NextStep::Wait));
            }
            match self.queue.next()? {
                Some(chain) => {
                    taken += 1;
                    bytes += self.start(chain)?;
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
        Ok((taken, NextStep::Continue))
    }

    /// Starts the request in `chain`, maybe in part. Returns the number of bytes that it moves for now.
    fn start(&mut self, chain: DescriptorChain) -> Result<u64, QueueError> {
        let mut operations = match self.parser.request(&chain) {
            Request::Disk(operations) => operations,
            Request::Done(status) => {
                let stats = &self.shared.stats;
                BlkStats::add(&stats.others, 1);
                if status != BlkStatus::Ok {
                    BlkStats::add(&stats.failed, 1);
                }
                let bytes = chain.readable.len().max(chain.writable.len());
                finish(self.queue, &self.parser, chain, status)?;
                return Ok(bytes.into());
            }
        };
        operations
            .iter()
            .for_each(|operation| self.count(operation));
        // A request is refused as a whole.
        let refused = operations
            .iter()
            .filter(|operation| operation.extent().len > limit(operation))
            .find_map(|operation| self.shared.disk.info().check(operation).err());
        if let Some(error) = refused {
            self.failed(&error);
            finish(self.queue, &self.parser, chain, BlkStatus::IoError)?;
            return Ok(0);
        }
        let changes = !matches!(
            operations.first(),
            Some(DiskOperation::Read { .. } | DiskOperation::Flush)
        );
        let key = self.in_flight.insert(InFlight {
            chain,
            pending: 0,
            failed: false,
            flush_after: changes && self.shared.caching.is_write_through(),
        });
        operations.reverse();
        self.unstarted = Some(Unstarted { key, operations });
        Ok(self.start_next())
    }

    /// Starts operations of the unstarted request until it is started or enough is in flight. Returns the number of bytes
    /// that they move.
    fn start_next(&mut self) -> u64 {
        let Some(mut unstarted) = self.unstarted.take() else {
            return 0;
        };
        let mut bytes = 0;
        while let Some(next) = unstarted.operations.last_mut() {
            if bytes >= ROUND || self.bytes >= MAX_BYTES_IN_FLIGHT {
                self.unstarted = Some(unstarted);
                break;
            }
            let limit = limit(next);
            let operation = if next.extent().len > limit {
                next.take_front(limit)
            } else {
                match unstarted.operations.pop() {
                    Some(operation) => operation,
                    None => break,
                }
            };
            bytes += weight(&operation);
            self.submit(unstarted.key, operation);
        }
        bytes
    }

    /// Starts `operation` of the request with `key`.
    fn submit(&mut self, key: usize, operation: DiskOperation) {
        let weight = weight(&operation);
        self.bytes += weight;
        self.operations += 1;
        if let Some(request) = self.in_flight.get_mut(key) {
            request.pending += 1;
        }
        self.disk.submit(key as u64 | weight << KEY_BITS, operation);
    }

    fn failed(&self, error: &DiskError) {
        let device = self.shared.signals.name();
        let disk = &self.shared.disk.info().name;
        self.shared.stats.failed(device, disk, error);
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
        let mut completions = std::mem::take(&mut self.completions);
        for Completion { token, result } in completions.drain(..) {
            self.operations -= 1;
            self.bytes -= token >> KEY_BITS;
            let key = (token & ((1 << KEY_BITS) - 1)) as usize;
            if let Err(error) = &result {
                self.failed(error);
            }
            let Some(request) = self.in_flight.get_mut(key) else {
                continue;
            };
            request.failed |= result.is_err();
            request.pending -= 1;
            // The rest of a failed request is not done.
            let is_unstarted = |unstarted: &mut Unstarted| unstarted.key == key;
            if request.failed {
                self.unstarted.take_if(is_unstarted);
            }
            if request.pending != 0 || self.unstarted.as_mut().is_some_and(is_unstarted) {
                continue;
            }
            if request.flush_after && !request.failed {
                request.flush_after = false;
                self.submit(key, DiskOperation::Flush);
                continue;
            }
            let request = self.in_flight.remove(key);
            let status = match request.failed {
                false => BlkStatus::Ok,
                true => BlkStatus::IoError,
            };
            finish(self.queue, &self.parser, request.chain, status)?;
        }
        self.completions = completions;
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

#[cfg(test)]
#[path = "queue_test.rs"]
mod tests;
