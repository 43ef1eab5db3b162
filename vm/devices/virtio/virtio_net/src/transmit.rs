//! Sends frames from the guest to the network.

use crate::NetBackend;
use crate::error::NetQueueError;
use crate::header;
use crate::link::Link;
use crate::link::LinkState;
use crate::stats::NetStats;
use std::io;
use virtio::DescriptorChain;
use virtio::GuestIoVec;
use virtio::StopSignal;
use virtio::VirtQueue;
use virtio::Wakeup;

/// The maximum number of frames before the guest is interrupted for its buffers.
const BATCH: u32 = 64;

pub(crate) struct Transmitter<'a, B> {
    pub(crate) backend: &'a B,
    pub(crate) link: &'a Link,
    pub(crate) stats: &'a NetStats,
    pub(crate) stop: &'a StopSignal,
}

/// The result of sending a frame.
enum SendOutcome {
    /// It was sent or dropped.
    Done,
    /// The worker must stop; the frame was not sent.
    Stopped,
}

impl<B: NetBackend> Transmitter<'_, B> {
    /// Sends the frames in `queue` until the worker must stop.
    pub(crate) fn run(&self, queue: &mut VirtQueue) -> Result<(), NetQueueError> {
        let mut pieces = GuestIoVec::new(queue.memory());
        loop {
            queue.clear_kick();
            queue.disable_kicks()?;
            let mut batch = 0;
            while let Some(chain) = queue.next()? {
                let outcome = if self.stop.is_set() {
                    SendOutcome::Stopped
                } else {
                    self.send(queue, &chain, &mut pieces)?
                };
                if let SendOutcome::Stopped = outcome {
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
            if let SendOutcome::Stopped = self.flush()? {
                return Ok(());
            }
            if !queue.enable_kicks()?
                && self
                    .stop
                    .wait(&[queue.kick()])
                    .map_err(NetQueueError::Wait)?
                    == Wakeup::Stop
            {
                return Ok(());
            }
        }
    }

    /// Has the backend pass on what it took.
    fn flush(&self) -> Result<SendOutcome, NetQueueError> {
        loop {
            match self.backend.flush() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.wait_for_room()? == Wakeup::Stop {
                        return Ok(SendOutcome::Stopped);
                    }
                }
                // Sending the next frame fails in the same way.
                Ok(()) | Err(_) => return Ok(SendOutcome::Done),
            }
        }
    }

    fn wait_for_room(&self) -> Result<Wakeup, NetQueueError> {
        let fd = self.backend.as_fd();
        self.stop.wait_writable(fd).map_err(NetQueueError::Wait)
    }

    fn send(
        &self,
        queue: &mut VirtQueue,
        chain: &DescriptorChain,
        pieces: &mut GuestIoVec,
    ) -> Result<SendOutcome, NetQueueError> {
        let len = chain.readable.len();
        pieces.clear();
        let sendable = (header::LEN..=header::MAX_LEN).contains(&len)
            && self.link.state() == LinkState::Up
            && pieces
                .extend(chain.readable.pieces().iter().copied())
                .is_ok();
        if !sendable {
            self.stats.drop_frame();
            return Ok(SendOutcome::Done);
        }
        loop {
            match self.backend.send(pieces) {
                Ok(()) => {
                    self.stats.frame((len - header::LEN) as usize);
                    return Ok(SendOutcome::Done);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // The guest gets its earlier buffers before this waits.
                    queue.interrupt()?;
                    if self.wait_for_room()? == Wakeup::Stop {
                        return Ok(SendOutcome::Stopped);
                    }
                }
                // The interface is down, or the header is invalid: drop the frame, as networks do.
                Err(error) => {
                    tracing::trace!(%error, len, "failed to send a frame; it is dropped");
                    self.stats.drop_frame();
                    return Ok(SendOutcome::Done);
                }
            }
        }
    }
}
