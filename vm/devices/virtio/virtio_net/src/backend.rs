//! The contract of network backends.

use rustix::io::Errno;
use std::io;
use std::os::fd::AsFd;
use virtio::GuestIoVec;

/// Work that a sender leaves to the receiver: checksums and segmentation.
#[derive(Debug, Copy, Clone, Default, PartialEq, Eq)]
pub struct Offloads {
    /// Completing a partial checksum. All others require it.
    pub checksum: bool,
    /// Segmenting TCP over IPv4.
    pub tso4: bool,
    /// Segmenting TCP over IPv6.
    pub tso6: bool,
    /// Segmenting TCP with explicit congestion notification.
    pub ecn: bool,
    /// Fragmenting UDP.
    pub ufo: bool,
}

impl Offloads {
    /// No offloads.
    pub const NONE: Self = Self {
        checksum: false,
        tso4: false,
        tso6: false,
        ecn: false,
        ufo: false,
    };

    /// Whether frames may be larger than the MTU.
    pub fn any_segmentation(&self) -> bool {
        self.tso4 || self.tso6 || self.ufo
    }
}

/// Why no frame was received.
#[derive(Debug)]
pub enum ReceiveError {
    /// None has arrived: wait until the file is readable.
    Empty,
    /// One is lost; the next may arrive.
    Lost(io::Error),
    /// The network is gone for good.
    Gone(io::Error),
}

/// What a read of a file means of which each read is a frame.
fn message_length(read: io::Result<usize>) -> Result<usize, ReceiveError> {
    match read {
        // No frame is empty: the other side is gone.
        Ok(0) => Err(ReceiveError::Gone(io::ErrorKind::UnexpectedEof.into())),
        Ok(len) => Ok(len),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(ReceiveError::Empty),
        // The interface was deleted.
        Err(error) if error.raw_os_error() == Some(Errno::BADFD.raw_os_error()) => {
            Err(ReceiveError::Gone(error))
        }
        Err(error) => Err(ReceiveError::Lost(error)),
    }
}

/// The connection of a network device to a network.
///
/// A header of 12 bytes precedes each frame (5.1.6, `struct virtio_net_hdr_v1`). The file does not block. By default, each
/// read of it returns one frame, and each write sends one.
pub trait NetBackend: AsFd + Send + Sync + 'static {
    /// The offloads that the backend supports in both directions.
    fn offloads(&self) -> Offloads;

    /// Sets the offloads that the guest accepts in frames read from now on; a subset of [`offloads`](Self::offloads).
    fn set_guest_offloads(&self, offloads: Offloads) -> io::Result<()>;

    /// Receives a frame into `buffers`, and what does not fit there into `spill`. Returns its length with the header.
    fn receive(&self, buffers: &mut GuestIoVec, spill: &mut [u8]) -> Result<usize, ReceiveError> {
        message_length(buffers.read_message(self, spill))
    }

    /// Drops the next frame that has arrived.
    fn discard(&self) -> Result<(), ReceiveError> {
        let mut start = [0; 64];
        let read = rustix::io::retry_on_intr(|| rustix::io::read(self, &mut start));
        message_length(read.map_err(io::Error::from)).map(drop)
    }

    /// Sends a frame. `WouldBlock` means that there is no room for it now: wait until the file is writable.
    fn send(&self, frame: &GuestIoVec) -> io::Result<()> {
        frame.write_to(self).map(drop)
    }

    /// Passes on what [`send`](Self::send) took and could not pass on at once. `WouldBlock` as for `send`.
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    /// A report for a person who debugs the guest.
    fn inspect(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
}
