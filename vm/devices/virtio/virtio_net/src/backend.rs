use std::io;
use std::os::fd::AsFd;

/// What a receiver takes off a sender's hands: partial checksums, and frames larger than the network's.
#[derive(Debug, Copy, Clone, Default, PartialEq, Eq)]
pub struct Offloads {
    /// Frames whose checksum is to be completed. Nothing else goes without.
    pub checksum: bool,
    /// TCP over IPv4 to be cut into segments.
    pub tso4: bool,
    /// TCP over IPv6 to be cut into segments.
    pub tso6: bool,
    /// Such TCP with explicit congestion notification.
    pub ecn: bool,
    /// UDP to be cut into fragments.
    pub ufo: bool,
}

impl Offloads {
    /// None of them.
    pub const NONE: Self = Self {
        checksum: false,
        tso4: false,
        tso6: false,
        ecn: false,
        ufo: false,
    };

    /// Frames may be larger than the network's.
    pub fn any_segmentation(&self) -> bool {
        self.tso4 || self.tso6 || self.ufo
    }
}

/// The network's end of a network device.
///
/// Each read of the file, which does not block, gives one frame, and each write takes one; in front of each
/// is a header of 12 bytes (5.1.6, `struct virtio_net_hdr_v1`).
pub trait NetBackend: AsFd + Send + Sync + 'static {
    /// What both sides could do for each other.
    fn offloads(&self) -> Offloads;

    /// The guest takes these from now on in what is read; some of what the backend could do.
    fn set_guest_offloads(&self, offloads: Offloads) -> io::Result<()>;

    /// What a person debugging the guest wants to see.
    fn inspect(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
}
