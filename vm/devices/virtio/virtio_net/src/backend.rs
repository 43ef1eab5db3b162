//! The contract of network backends.

use std::io;
use std::os::fd::AsFd;

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

/// The connection of a network device to a network.
///
/// Each read of the file, which does not block, returns one frame, and each write sends one. A header of 12 bytes
/// precedes each frame (5.1.6, `struct virtio_net_hdr_v1`).
pub trait NetBackend: AsFd + Send + Sync + 'static {
    /// The offloads that the backend supports in both directions.
    fn offloads(&self) -> Offloads;

    /// Sets the offloads that the guest accepts in frames read from now on; a subset of [`offloads`](Self::offloads).
    fn set_guest_offloads(&self, offloads: Offloads) -> io::Result<()>;

    /// A report for a person who debugs the guest.
    fn inspect(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
}
