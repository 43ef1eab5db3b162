//! From the guest to the network.

use crate::NetBackend;
use crate::device::Link;
use crate::device::LinkState;
use crate::header;
use crate::stats::Stats;
use std::io;
use virtio::Chain;
use virtio::GuestIoVec;
use virtio::QueueError;
use virtio::Stop;
use virtio::VirtQueue;
use virtio::Wakeup;

/// Frames after which the guest gets its buffers back at the latest.
const BATCH: u32 = 64;

#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkError {
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error("waiting for frames failed")]
    Wait(#[source] io::Error),
    #[error("a buffer for received frames has no room for their header")]
    SmallBuffer,
    #[error("a buffer for received frames cannot be used")]
    Pieces(#[source] io::Error),
}

pub(crate) struct Transmitter<'a, B> {
    pub(crate) backend: &'a B,
    pub(crate) link: &'a Link,
    pub(crate) stats: &'a Stats,
    pub(crate) stop: &'a Stop,
}

/// What became of a frame.
enum Sent {
    /// It is on its way, or dropped.
    Done,
    /// The worker is to end, and the frame is still the guest's.
    Stopped,
}

impl<B: NetBackend> Transmitter<'_, B> {
    /// Sends what the guest puts into `queue`.
    pub(crate) fn run(&self, queue: &mut VirtQueue) -> Result<(), WorkError> {
        let mut pieces = GuestIoVec::new(queue.memory());
        loop {
            queue.clear_kick();
            queue.disable_kicks()?;
            let mut batch = 0;
            while let Some(chain) = queue.next()? {
                let sent = if self.stop.is_set() {
                    Sent::Stopped
                } else {
                    self.send(queue, &chain, &mut pieces)?
                };
                if let Sent::Stopped = sent {
                    queue.put_back(chain);
                    return Ok(queue.interrupt()?);
                }
                queue.complete(chain, 0)?;
                batch += 1;
                if batch % BATCH == 0 {
                    queue.interrupt()?;
                }
            }
            queue.interrupt()?;
            if !queue.enable_kicks()?
                && self.stop.wait(&[queue.kick()]).map_err(WorkError::Wait)? == Wakeup::Stop
            {
                return Ok(());
            }
        }
    }

    fn send(
        &self,
        queue: &mut VirtQueue,
        chain: &Chain,
        pieces: &mut GuestIoVec,
    ) -> Result<Sent, WorkError> {
        let len = chain.readable.len();
        pieces.clear();
        let possible = (header::LEN..=header::MAX_LEN).contains(&len)
            && self.link.state() == LinkState::Up
            && pieces
                .extend(chain.readable.pieces().iter().copied())
                .is_ok();
        if !possible {
            self.stats.drop_frame();
            return Ok(Sent::Done);
        }
        loop {
            match pieces.write_to(self.backend) {
                Ok(_) => {
                    self.stats.frame((len - header::LEN) as usize);
                    return Ok(Sent::Done);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // The guest may have its earlier buffers back before this waits.
                    queue.interrupt()?;
                    let fd = self.backend.as_fd();
                    let wakeup = self.stop.wait_writable(fd).map_err(WorkError::Wait)?;
                    if wakeup == Wakeup::Stop {
                        return Ok(Sent::Stopped);
                    }
                }
                // An interface that is down, or a header that makes no sense: a network loses frames.
                Err(error) => {
                    tracing::trace!(%error, len, "frame not sent");
                    self.stats.drop_frame();
                    return Ok(Sent::Done);
                }
            }
        }
    }
}
