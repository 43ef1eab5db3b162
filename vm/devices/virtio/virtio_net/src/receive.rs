//! From the network to the guest.

use crate::NetBackend;
use crate::device::Link;
use crate::device::LinkState;
use crate::header;
use crate::stats::Stats;
use crate::transmit::WorkError;
use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use virtio::Chain;
use virtio::GuestIoVec;
use virtio::Stop;
use virtio::VirtQueue;
use virtio::Wakeup;

/// Frames after which the guest is interrupted at the latest.
const BATCH: u32 = 64;

/// How frames go into the guest's buffers.
#[derive(Debug, Copy, Clone)]
pub(crate) enum Buffers {
    /// Each frame into one chain.
    Single,
    /// Frames go on in further chains (5.1.6.3.1, `VIRTIO_NET_F_MRG_RXBUF`), and there are to be so many bytes
    /// before one is received.
    Merged(u32),
}

pub(crate) struct Receiver<'a, B> {
    pub(crate) backend: &'a B,
    pub(crate) link: &'a Link,
    pub(crate) stats: &'a Stats,
    pub(crate) stop: &'a Stop,
    pub(crate) buffers: Buffers,
}

/// Chains taken from the queue, to receive into: the bytes of `pieces` are those of `chains`.
struct Ready {
    chains: VecDeque<Chain>,
    pieces: GuestIoVec,
}

impl Ready {
    fn put_back(&mut self, queue: &mut VirtQueue) {
        while let Some(chain) = self.chains.pop_back() {
            queue.put_back(chain);
        }
        self.pieces.clear();
    }
}

/// Whether there is something to do.
#[derive(PartialEq, Eq)]
enum Readiness {
    /// The buffers are there.
    Ready,
    /// The guest has to give more.
    Short,
}

impl<B: NetBackend> Receiver<'_, B> {
    /// Receives into the buffers that the guest puts into `queue`.
    pub(crate) fn run(&self, queue: &mut VirtQueue) -> Result<(), WorkError> {
        let mut ready = Ready {
            chains: VecDeque::new(),
            pieces: GuestIoVec::new(queue.memory()),
        };
        let result = self.receive(queue, &mut ready);
        ready.put_back(queue);
        result
    }

    fn receive(&self, queue: &mut VirtQueue, ready: &mut Ready) -> Result<(), WorkError> {
        // Room for what does not fit into the buffers: enough to know that, for such frames are dropped.
        let mut spill = vec![0; header::MAX_LEN as usize];
        queue.disable_kicks()?;
        let mut batch = 0;
        while !self.stop.is_set() {
            if self.fill(queue, ready)? == Readiness::Short {
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
            match ready.pieces.read_message(self.backend, &mut spill) {
                // No frame is empty: the other end is gone.
                Ok(0) => return self.idle(queue, &io::ErrorKind::UnexpectedEof.into()),
                Ok(len) => self.deliver(queue, ready, len)?,
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

    /// Nothing will come any more: waits for the end, instead of trying again and again.
    fn idle(&self, queue: &mut VirtQueue, error: &io::Error) -> Result<(), WorkError> {
        tracing::warn!(%error, "receiving failed; the network device receives no more");
        queue.interrupt()?;
        self.stop.wait(&[]).map_err(WorkError::Wait)?;
        Ok(())
    }

    fn wait(&self, fd: BorrowedFd<'_>) -> Result<Wakeup, WorkError> {
        self.stop.wait(&[fd]).map_err(WorkError::Wait)
    }

    /// Takes chains from the queue until a frame can be received.
    fn fill(&self, queue: &mut VirtQueue, ready: &mut Ready) -> Result<Readiness, WorkError> {
        let wanted = match self.buffers {
            Buffers::Single => 1,
            Buffers::Merged(wanted) => wanted as usize,
        };
        while ready.pieces.len() < wanted {
            // A driver whose whole ring is smaller gets the frames that fit.
            if ready.chains.len() == usize::from(queue.size()) {
                break;
            }
            let Some(chain) = queue.next()? else {
                return Ok(Readiness::Short);
            };
            // The header lies in the first chain, and one without room would never be used.
            if chain.writable.len() < header::LEN {
                return Err(WorkError::SmallBuffer);
            }
            let pieces = chain.writable.pieces().iter().copied();
            if let Err(error) = ready.pieces.extend(pieces) {
                if ready.chains.is_empty() {
                    return Err(WorkError::Pieces(error));
                }
                // More pieces than the kernel takes at once: those that are there have to do.
                queue.put_back(chain);
                break;
            }
            ready.chains.push_back(chain);
        }
        if ready.chains.is_empty() {
            return Ok(Readiness::Short);
        }
        Ok(Readiness::Ready)
    }

    /// Gives the guest the frame that was read into the first `len` bytes.
    fn deliver(
        &self,
        queue: &mut VirtQueue,
        ready: &mut Ready,
        len: usize,
    ) -> Result<(), WorkError> {
        let fits = len >= header::LEN as usize && len <= ready.pieces.len();
        if !fits || self.link.state() == LinkState::Down {
            // The buffers stay, for the next frame.
            self.stats.drop_frame();
            return Ok(());
        }
        let mut count = 0;
        let mut room = 0;
        for chain in &ready.chains {
            count += 1;
            room += chain.writable.len() as usize;
            if room >= len {
                break;
            }
        }
        if let Some(first) = ready.chains.front() {
            // Without merged buffers it is 1 as well.
            let number = (count as u16).to_le_bytes();
            first
                .writable
                .write(queue.memory(), header::NUM_BUFFERS, &number);
        }
        ready.pieces.advance(room);
        let mut left = len as u32;
        let used = ready.chains.drain(..count).map(|chain| {
            let written = left.min(chain.writable.len());
            left -= written;
            (chain, written)
        });
        queue.complete_together(used)?;
        self.stats.frame(len - header::LEN as usize);
        Ok(())
    }
}
