use std::io;
use virtio::QueueError;

/// Why a queue cannot be processed any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetQueueError {
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error("failed to wait for frames")]
    Wait(#[source] io::Error),
    #[error("a receive buffer is too small for the virtio-net header")]
    SmallBuffer,
    #[error("a receive buffer has too many pieces of memory")]
    Pieces(#[source] io::Error),
}
