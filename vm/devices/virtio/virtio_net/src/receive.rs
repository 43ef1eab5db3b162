//! Receives frames from the network for the guest.

use crate::NetBackend;
use crate::ReceiveError;
use crate::error::NetQueueError;
use crate::header;
use crate::link::Link;
use crate::link::LinkState;
use crate::stats::NetStats;
use log_limit::LogLimit;
use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;
use virtio::DescriptorChain;
use virtio::GuestIoVec;
use virtio::StopSignal;
use virtio::VirtQueue;
use virtio::Wakeup;

/// The maximum number of frames before the guest is interrupted.
const BATCH: u32 = 64;

/// The pause after a failed read, so that a network that fails all the time does not occupy a processor.
const RETRY: Duration = Duration::from_millis(1);

/// How frames are distributed over the guest's buffers.
#[derive(Debug, Copy, Clone)]
pub(crate) enum BufferMode {
    /// Each frame goes into one chain.
    Single,
    /// A frame may span several chains (5.1.6.3.1, `VIRTIO_NET_F_MRG_RXBUF`). The largest frame has this many bytes.
    Mergeable(u32),
}

pub(crate) struct Receiver<'a, B> {
    pub(crate) backend: &'a B,
    pub(crate) link: &'a Link,
    pub(crate) stats: &'a NetStats,
    pub(crate) error_log: &'a LogLimit,
    pub(crate) stop: &'a StopSignal,
    pub(crate) mode: BufferMode,
}

/// Chains taken from the queue to receive into; `pieces` is the memory of `chains`.
struct ReceiveBuffers {
    chains: VecDeque<DescriptorChain>,
    pieces: GuestIoVec,
}

impl ReceiveBuffers {
    fn put_back(&mut self, queue: &mut VirtQueue) {
        while let Some(chain) = self.chains.pop_back() {
            queue.put_back(chain);
        }
        self.pieces.clear();
    }
}

/// What [`Receiver::fill`] reached.
#[derive(PartialEq, Eq)]
enum Filled {
    /// There are as many bytes of buffers as wanted.
    Enough,
    /// The guest must supply more.
    Short,
    /// No more can be used at once.
    Full,
}

impl<B: NetBackend> Receiver<'_, B> {
    /// Receives frames into the buffers in `queue` until the worker must stop.
    pub(crate) fn run(&self, queue: &mut VirtQueue) -> Result<(), NetQueueError> {
        let mut buffers = ReceiveBuffers {
            chains: VecDeque::new(),
            pieces: GuestIoVec::new(queue.memory()),
        };
        let result = self.receive(queue, &mut buffers);
        buffers.put_back(queue);
        result
    }

    fn receive(
        &self,
        queue: &mut VirtQueue,
        buffers: &mut ReceiveBuffers,
    ) -> Result<(), NetQueueError> {
        // What does not fit into the buffers at hand.
        let mut spill = vec![0; header::MAX_LEN as usize];
        queue.disable_kicks()?;
        let mut batch = 0;
        while !self.stop.is_set() {
            let received = match self.link.discard_while_down(self.backend) {
                Some(Ok(())) => {
                    self.stats.drop_frame();
                    continue;
                }
                Some(Err(error)) => Err(error),
                None => {
                    self.fill(queue, buffers, self.wanted())?;
                    // Without mergeable buffers, more than one chain is never wanted.
                    if buffers.chains.is_empty() {
                        if self.wait_for_buffers(queue)? == Wakeup::Stop {
                            break;
                        }
                        continue;
                    }
                    let room = buffers.pieces.len();
                    let read = self.backend.receive(&mut buffers.pieces, &mut spill);
                    read.map(|len| (len, room))
                }
            };
            match received {
                Ok((len, room)) => {
                    let tail = &spill[..len.saturating_sub(room)];
                    self.deliver(queue, buffers, len, tail)?;
                }
                Err(ReceiveError::Empty) => {
                    queue.interrupt()?;
                    batch = 0;
                    if self.wait(self.backend.as_fd())? == Wakeup::Stop {
                        break;
                    }
                    continue;
                }
                Err(ReceiveError::Gone(error)) => return self.idle(queue, &error),
                Err(ReceiveError::Lost(error)) => {
                    self.stats.drop_frame();
                    if let Some(suppressed) = self.error_log.allow() {
                        tracing::warn!(%error, suppressed, "failed to receive a frame; it is dropped");
                    }
                    if self.stop.sleep(RETRY).map_err(NetQueueError::Wait)? == Wakeup::Stop {
                        break;
                    }
                }
            }
            batch += 1;
            if batch % BATCH == 0 {
                queue.interrupt()?;
            }
        }
        Ok(queue.interrupt()?)
    }

    /// The bytes of buffers in which every frame fits.
    fn wanted(&self) -> usize {
        match self.mode {
            BufferMode::Single => 1,
            BufferMode::Mergeable(largest) => largest as usize,
        }
    }

    /// Waits until the guest supplies more buffers.
    fn wait_for_buffers(&self, queue: &mut VirtQueue) -> Result<Wakeup, NetQueueError> {
        queue.interrupt()?;
        if !queue.enable_kicks()? {
            if self.wait(queue.kick())? == Wakeup::Stop {
                return Ok(Wakeup::Stop);
            }
            queue.clear_kick();
        }
        queue.disable_kicks()?;
        Ok(Wakeup::Ready)
    }

    /// The network is gone: takes the link down, and waits until the worker must stop.
    fn idle(&self, queue: &mut VirtQueue, error: &io::Error) -> Result<(), NetQueueError> {
        // Once: the next driver finds the link down.
        if self.link.set(LinkState::Down) == LinkState::Up {
            tracing::warn!(%error, "the network is gone; the guest's link is down from now on");
        }
        queue.interrupt()?;
        self.stop.wait(&[]).map_err(NetQueueError::Wait)?;
        Ok(())
    }

    fn wait(&self, fd: BorrowedFd<'_>) -> Result<Wakeup, NetQueueError> {
        self.stop.wait(&[fd]).map_err(NetQueueError::Wait)
    }

    /// Takes chains from the queue until they have `wanted` bytes.
    fn fill(
        &self,
        queue: &mut VirtQueue,
        buffers: &mut ReceiveBuffers,
        wanted: usize,
    ) -> Result<Filled, NetQueueError> {
        while buffers.pieces.len() < wanted {
            if buffers.chains.len() == usize::from(queue.size()) {
                return Ok(Filled::Full);
            }
            let Some(chain) = queue.next()? else {
                return Ok(Filled::Short);
            };
            // The header must fit into the first chain; a smaller one could never be used.
            if chain.writable.len() < header::LEN {
                return Err(NetQueueError::SmallBuffer);
            }
            let pieces = chain.writable.pieces().iter().copied();
            if let Err(error) = buffers.pieces.extend(pieces) {
                if buffers.chains.is_empty() {
                    return Err(NetQueueError::Pieces(error));
                }
                // The kernel takes no more pieces at once.
                queue.put_back(chain);
                return Ok(Filled::Full);
            }
            buffers.chains.push_back(chain);
        }
        Ok(Filled::Enough)
    }

    /// Puts `tail`, the end of a frame of `len` bytes that was read when there were too few buffers, into those that the
    /// guest supplies now. Returns whether it fits.
    fn put_tail(
        &self,
        queue: &mut VirtQueue,
        buffers: &mut ReceiveBuffers,
        len: usize,
        tail: &[u8],
    ) -> Result<bool, NetQueueError> {
        if let BufferMode::Single = self.mode {
            return Ok(false);
        }
        let mut at = len - tail.len();
        loop {
            match self.fill(queue, buffers, len)? {
                Filled::Enough => break,
                Filled::Full => return Ok(false),
                Filled::Short => {
                    if self.wait_for_buffers(queue)? == Wakeup::Stop {
                        return Ok(false);
                    }
                }
            }
        }
        let mut left = tail;
        let mut start = 0;
        for chain in &buffers.chains {
            let end = start + chain.writable.len() as usize;
            if at < end && !left.is_empty() {
                let piece;
                (piece, left) = left.split_at(left.len().min(end - at));
                let offset = (at - start) as u32;
                chain.writable.write(queue.memory(), offset, piece);
                at += piece.len();
            }
            start = end;
        }
        Ok(true)
    }

    /// Passes the frame of `len` bytes that was read to the guest. Its `tail` did not fit into the buffers.
    fn deliver(
        &self,
        queue: &mut VirtQueue,
        buffers: &mut ReceiveBuffers,
        len: usize,
        tail: &[u8],
    ) -> Result<(), NetQueueError> {
        let fits = len >= header::LEN as usize
            && (tail.is_empty() || self.put_tail(queue, buffers, len, tail)?);
        if !fits {
            // The buffers are kept for the next frame.
            self.stats.drop_frame();
            return Ok(());
        }
        let mut count = 0;
        let mut room = 0;
        for chain in &buffers.chains {
            count += 1;
            room += chain.writable.len() as usize;
            if room >= len {
                break;
            }
        }
        if let Some(first) = buffers.chains.front() {
            // Without mergeable buffers it is 1 as well.
            let number = (count as u16).to_le_bytes();
            first
                .writable
                .write(queue.memory(), header::NUM_BUFFERS, &number);
        }
        buffers.pieces.advance(room);
        let mut left = len as u32;
        let used = buffers.chains.drain(..count).map(|chain| {
            let written = left.min(chain.writable.len());
            left -= written;
            (chain, written)
        });
        queue.complete_together(used)?;
        self.stats.frame(len - header::LEN as usize);
        Ok(())
    }
}
