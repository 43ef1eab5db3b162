//! Split virtqueues (2.7), the device's side.

use crate::Buffer;
use crate::DescriptorChain;
use crate::DeviceSignals;
use crate::EventFd;
use crate::common_config::QueueConfig;
use guest_memory::GuestMemory;
use std::os::fd::AsFd as _;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::sync::atomic::fence;
use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::Queue;
use virtio_queue::QueueOwnedT as _;
use virtio_queue::QueueT as _;
use virtio_queue::desc::split::Descriptor;
use vm_memory::Bytes as _;
use vm_memory::GuestAddress;
use vm_memory::GuestMemory as _;
use vm_memory::GuestMemoryMmap;
use vm_memory::Permissions;

/// The most descriptors in a chain: more than drivers use, and as many as vectored I/O takes.
const MAX_DESCRIPTORS: usize = 1023;

/// A violation of the protocol of a queue by the driver.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The rings are not at addresses where rings can be.
    #[error(
        "queue {index}: rings of {size} entries cannot be at {descriptors:#x}, {available:#x} and {used:#x}"
    )]
    Layout {
        /// The queue.
        index: u16,
        /// Entries in each ring.
        size: u16,
        /// The guest-physical address of the descriptor table.
        descriptors: u64,
        /// The guest-physical address of the available ring.
        available: u64,
        /// The guest-physical address of the used ring.
        used: u64,
    },
    /// An index is invalid, or a ring is outside of guest memory.
    #[error("queue {index}: invalid ring")]
    Ring {
        /// The queue.
        index: u16,
        /// What is wrong.
        #[source]
        source: virtio_queue::Error,
    },
    /// A descriptor chain is malformed.
    #[error("queue {index}: chain {head}: {reason}")]
    Chain {
        /// The queue.
        index: u16,
        /// The chain's first descriptor.
        head: u16,
        /// What is wrong.
        reason: &'static str,
    },
}

/// Counters of a queue since the device was created.
#[derive(Debug, Default)]
pub struct QueueStats {
    /// Notifications of the driver that were seen.
    pub kicks: AtomicU64,
    /// Chains completed.
    pub chains: AtomicU64,
    /// Interrupts raised.
    pub interrupts: AtomicU64,
}

/// What a queue needs besides its configuration.
#[derive(Clone)]
pub(crate) struct QueueParts {
    pub(crate) index: u16,
    pub(crate) memory: GuestMemory,
    pub(crate) kick: Arc<EventFd>,
    pub(crate) signals: DeviceSignals,
    pub(crate) stats: Arc<QueueStats>,
}

/// A split virtqueue, the device's side.
///
/// The loop of a worker: [`disable_kicks`](Self::disable_kicks), take chains with [`next`](Self::next) and
/// return them with [`complete`](Self::complete), [`interrupt`](Self::interrupt), and when there are no more
/// [`enable_kicks`](Self::enable_kicks). If that returns `true`, chains arrived meanwhile: start over. Otherwise wait
/// for [`kick`](Self::kick). On an error call [`fail`](Self::fail) and stop using the queue.
pub struct VirtQueue {
    parts: QueueParts,
    queue: Queue,
    /// The used index when an interrupt was last considered.
    interrupted_at: u16,
    /// Completed chains, kept for their allocations.
    spare: Vec<DescriptorChain>,
}

impl VirtQueue {
    pub(crate) fn new(
        parts: QueueParts,
        config: &QueueConfig,
        event_idx: bool,
    ) -> Result<Self, QueueError> {
        let bad = || QueueError::Layout {
            index: parts.index,
            size: config.size,
            descriptors: config.descriptors,
            available: config.available,
            used: config.used,
        };
        let mut queue = Queue::new(config.size).map_err(|_| bad())?;
        let addresses = queue
            .try_set_desc_table_address(GuestAddress(config.descriptors))
            .and_then(|()| queue.try_set_avail_ring_address(GuestAddress(config.available)))
            .and_then(|()| queue.try_set_used_ring_address(GuestAddress(config.used)));
        addresses.map_err(|_| bad())?;
        queue.set_next_avail(config.next_available);
        queue.set_next_used(config.next_used);
        queue.set_event_idx(event_idx);
        queue.set_ready(true);
        if !queue.is_valid(parts.memory.map()) {
            return Err(bad());
        }
        Ok(Self {
            parts,
            queue,
            interrupted_at: config.next_used,
            spare: Vec::new(),
        })
    }

    /// Stores in `config` how far the rings have been processed.
    pub(crate) fn store_progress(&self, config: &mut QueueConfig) {
        config.next_available = self.queue.next_avail();
        config.next_used = self.queue.next_used();
    }

    /// The queue's index in its device.
    pub fn index(&self) -> u16 {
        self.parts.index
    }

    /// Entries in the rings.
    pub fn size(&self) -> u16 {
        self.queue.size()
    }

    /// The guest memory that holds the buffers.
    pub fn memory(&self) -> &GuestMemory {
        &self.parts.memory
    }

    /// An eventfd that is readable once the driver has notified the device, until
    /// [`clear_kick`](Self::clear_kick).
    pub fn kick(&self) -> BorrowedFd<'_> {
        self.parts.kick.as_fd()
    }

    /// Clears the driver's notification. Call this before looking for chains.
    pub fn clear_kick(&self) {
        if self.parts.kick.clear() {
            self.parts.stats.kicks.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Hints that the driver need not notify the device, because the device polls the queue.
    pub fn disable_kicks(&mut self) -> Result<(), QueueError> {
        let result = self.queue.disable_notification(self.parts.memory.map());
        result.map_err(|source| self.ring_error(source))
    }

    /// Asks for notifications again. Returns whether there are chains already, for which none will come.
    pub fn enable_kicks(&mut self) -> Result<bool, QueueError> {
        let result = self.queue.enable_notification(self.parts.memory.map());
        result.map_err(|source| self.ring_error(source))
    }

    /// Takes the next chain, if the driver has made one available.
    #[allow(
        clippy::should_implement_trait,
        reason = "an iterator would borrow the queue while chains are completed"
    )]
    pub fn next(&mut self) -> Result<Option<DescriptorChain>, QueueError> {
        let map: &GuestMemoryMmap = self.parts.memory.map();
        let mut chains = match self.queue.iter(map) {
            Ok(chains) => chains,
            Err(source) => return Err(self.ring_error(source)),
        };
        let Some(descriptors) = chains.next() else {
            return Ok(None);
        };
        let mut chain = self.spare.pop().unwrap_or_default();
        chain.head = descriptors.head_index();
        chain.readable.clear();
        chain.writable.clear();
        match fill(&mut chain, descriptors, map) {
            Ok(()) => Ok(Some(chain)),
            Err(reason) => {
                // The chain stays available, so that saved state shows where the queue broke.
                self.queue.go_to_previous_position();
                Err(QueueError::Chain {
                    index: self.parts.index,
                    head: chain.head,
                    reason,
                })
            }
        }
    }

    /// Undoes [`next`](Self::next), which returned `chain` last: it will be returned again.
    pub fn put_back(&mut self, chain: DescriptorChain) {
        self.queue.go_to_previous_position();
        self.recycle(chain);
    }

    /// Returns `chain` to the driver; `written` is the number of bytes written, from the start of its writable
    /// buffers. The driver may notice only after the next [`interrupt`](Self::interrupt).
    pub fn complete(&mut self, chain: DescriptorChain, written: u32) -> Result<(), QueueError> {
        let written = written.min(chain.writable.len());
        let map = self.parts.memory.map();
        let result = self.queue.add_used(map, chain.head, written);
        self.recycle(chain);
        result.map_err(|source| self.ring_error(source))?;
        self.parts.stats.chains.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// [Completes](Self::complete) chains at once: the driver sees none or all of them.
    pub fn complete_together(
        &mut self,
        chains: impl IntoIterator<Item = (DescriptorChain, u32)>,
    ) -> Result<(), QueueError> {
        let first = self.queue.next_used();
        let mut last: Option<(DescriptorChain, u32)> = None;
        for (chain, written) in chains {
            if let Some((chain, written)) = last.replace((chain, written)) {
                let result = self.write_used(&chain, written);
                self.recycle(chain);
                if let Err(error) = result {
                    self.queue.set_next_used(first);
                    return Err(error);
                }
            }
        }
        match last {
            // The index update that shows the last one shows all.
            Some((chain, written)) => self.complete(chain, written),
            None => Ok(()),
        }
    }

    /// Writes the next element of the used ring, without updating the index that shows it to the driver.
    fn write_used(&mut self, chain: &DescriptorChain, written: u32) -> Result<(), QueueError> {
        let next = self.queue.next_used();
        let slot = u64::from(next % self.queue.size());
        // Does not overflow: the ring was checked to be RAM.
        let at = self.queue.used_ring() + 4 + 8 * slot;
        let element = u64::from(chain.head) | u64::from(written.min(chain.writable.len())) << 32;
        let map = self.parts.memory.map();
        map.write_obj(element.to_le(), GuestAddress(at))
            .map_err(|e| self.ring_error(virtio_queue::Error::GuestMemory(e)))?;
        self.queue.set_next_used(next.wrapping_add(1));
        self.parts.stats.chains.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn recycle(&mut self, chain: DescriptorChain) {
        if self.spare.len() < usize::from(self.queue.size()) {
            self.spare.push(chain);
        }
    }

    /// Interrupts the driver if chains were completed since the last call and it asked for an interrupt.
    pub fn interrupt(&mut self) -> Result<(), QueueError> {
        let used = self.queue.next_used();
        let before = std::mem::replace(&mut self.interrupted_at, used);
        if used == before {
            return Ok(());
        }
        // The used index must be visible before the driver's flag or event index is read (2.7.7.2, 2.7.10).
        fence(Ordering::SeqCst);
        let needed = if self.queue.event_idx_enabled() {
            let event = self.load(4 + 2 * u64::from(self.queue.size()))?;
            // Whether the index passed the one that the driver waits for, modulo 2^16.
            used.wrapping_sub(event).wrapping_sub(1) < used.wrapping_sub(before)
        } else {
            u32::from(self.load(0)?) & VRING_AVAIL_F_NO_INTERRUPT == 0
        };
        if needed {
            self.parts.stats.interrupts.fetch_add(1, Ordering::Relaxed);
            self.parts.signals.queue(self.parts.index);
        }
        Ok(())
    }

    /// Reads a field of the available ring.
    fn load(&self, offset: u64) -> Result<u16, QueueError> {
        let at = GuestAddress(self.queue.avail_ring() + offset);
        let value = self.parts.memory.map().load(at, Ordering::Relaxed);
        value
            .map(u16::from_le)
            .map_err(|e| self.ring_error(virtio_queue::Error::GuestMemory(e)))
    }

    /// Tells the driver that the device needs a reset, because this queue cannot be used any more.
    pub fn fail(&self, error: &QueueError) {
        self.parts.signals.fail(error);
    }

    fn ring_error(&self, source: virtio_queue::Error) -> QueueError {
        QueueError::Ring {
            index: self.parts.index,
            source,
        }
    }
}

/// Fills `chain` with the buffers of `descriptors`, or returns what is wrong with them.
///
/// The iterator ends silently at an invalid descriptor. Its last descriptor is then not the last of the chain.
fn fill(
    chain: &mut DescriptorChain,
    descriptors: impl Iterator<Item = Descriptor>,
    memory: &GuestMemoryMmap,
) -> Result<(), &'static str> {
    let mut whole = false;
    for (count, descriptor) in descriptors.enumerate() {
        if count == MAX_DESCRIPTORS {
            return Err("it has more than 1023 descriptors");
        }
        whole = !descriptor.has_next();
        let (addr, len) = (descriptor.addr(), descriptor.len());
        if !descriptor.is_write_only() && !chain.writable.is_empty() {
            return Err("a device-readable buffer follows a device-writable one");
        }
        if len == 0 {
            continue;
        }
        if !memory.check_range(addr, len as usize, Permissions::ReadWrite) {
            return Err("a buffer is outside of guest memory");
        }
        let buffer = Buffer { gpa: addr.0, len };
        let side = if descriptor.is_write_only() {
            &mut chain.writable
        } else {
            &mut chain.readable
        };
        if !side.push(buffer) {
            return Err("it is longer than 4 GiB");
        }
    }
    if whole {
        Ok(())
    } else {
        Err("its descriptors are out of bounds, nested or loop")
    }
}
