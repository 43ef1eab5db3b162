//! Receives frames from the network for the guest.

use crate::NetBackend;
use crate::error::NetQueueError;
use crate::header;
use crate::link::Link;
use crate::link::LinkState;
use crate::stats::NetStats;
use log_limit::LogLimit;
use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use virtio::DescriptorChain;
use virtio::GuestIoVec;
use virtio::StopSignal;
use virtio::VirtQueue;
use virtio::Wakeup;

/// The maximum number of frames before the guest is interrupted.
const BATCH: u32 = 64;

/// How frames are distributed over the guest's buffers.
#[derive(Debug, Copy, Clone)]
pub(crate) enum BufferMode {
    /// Each frame goes into one chain.
    Single,
    /// A frame may span several chains (5.1.6.3.1, `VIRTIO_NET_F_MRG_RXBUF`). A frame is received only once there are
    /// this many bytes of buffers.
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

/// Whether a frame can be received.
#[derive(PartialEq, Eq)]
enum Readiness {
    /// There are enough buffers.
    Ready,
    /// The guest must supply more.
    Short,
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
        // What does not fit into the buffers, to detect that: such frames are dropped.
        let mut spill = vec![0; header::MAX_LEN as usize];
        queue.disable_kicks()?;
        let mut batch = 0;
        while !self.stop.is_set() {
            if self.fill(queue, buffers)? == Readiness::Short {
                queue.interrupt()?;
                if !queue.enable_kicks()? {
                    if self.wait(queue.kick())? == Wakeup::Stop {
                        break;
                    }
                    queue.clear_kick();
                }
                queue.disable_kicks()?;
                continue;
            }
            match buffers.pieces.read_message(self.backend, &mut spill) {
                // No frame is empty: the other side is gone.
                Ok(0) => return self.idle(queue, &io::ErrorKind::UnexpectedEof.into()),
                Ok(len) => self.deliver(queue, buffers, len)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    queue.interrupt()?;
                    batch = 0;
                    if self.wait(self.backend.as_fd())? == Wakeup::Stop {
                        break;
                    }
                    continue;
                }
                Err(error) => return self.idle(queue, &error),
            }
            batch += 1;
            if batch % BATCH == 0 {
                queue.interrupt()?;
            }
        }
        Ok(queue.interrupt()?)
    }

    /// Waits until the worker must stop, because no more frames can be received.
    fn idle(&self, queue: &mut VirtQueue, error: &io::Error) -> Result<(), NetQueueError> {
        if let Some(suppressed) = self.error_log.allow() {
            tracing::warn!(
                %error,
                suppressed,
                "failed to receive frames; the network device receives no more until it is reset"
            );
        }
        queue.interrupt()?;
        self.stop.wait(&[]).map_err(NetQueueError::Wait)?;
        Ok(())
    }

    fn wait(&self, fd: BorrowedFd<'_>) -> Result<Wakeup, NetQueueError> {
        self.stop.wait(&[fd]).map_err(NetQueueError::Wait)
    }

    /// Takes chains from the queue until a frame can be received.
    fn fill(
        &self,
        queue: &mut VirtQueue,
        buffers: &mut ReceiveBuffers,
    ) -> Result<Readiness, NetQueueError> {
        let wanted = match self.mode {
            BufferMode::Single => 1,
            BufferMode::Mergeable(wanted) => wanted as usize,
        };
        while buffers.pieces.len() < wanted {
            // If the whole ring holds fewer bytes, only frames that fit are received.
            if buffers.chains.len() == usize::from(queue.size()) {
                break;
            }
            let Some(chain) = queue.next()? else {
                return Ok(Readiness::Short);
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
                // The kernel takes no more pieces at once: use what there is.
                queue.put_back(chain);
                break;
            }
            buffers.chains.push_back(chain);
        }
        if buffers.chains.is_empty() {
            return Ok(Readiness::Short);
        }
        Ok(Readiness::Ready)
    }

    /// Passes the frame that was read into the first `len` bytes to the guest.
    fn deliver(
        &self,
        queue: &mut VirtQueue,
        buffers: &mut ReceiveBuffers,
        len: usize,
    ) -> Result<(), NetQueueError> {
        let fits = len >= header::LEN as usize && len <= buffers.pieces.len();
        if !fits || self.link.state() == LinkState::Down {
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
