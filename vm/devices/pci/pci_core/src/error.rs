use crate::msix_layout::MsixLayout;

/// Why a [`FunctionBuilder`](crate::FunctionBuilder) refuses a part of a function. All but the last are bugs of the
/// device; the last means that the host is out of resources.
#[derive(Debug, thiserror::Error)]
pub enum PciLayoutError {
    /// BARs are numbered 0 to 5; a 64-bit one is 0 to 4.
    #[error("BAR {0} does not exist")]
    NoSuchBar(usize),
    /// Another BAR uses the register.
    #[error("BAR {0} overlaps another BAR")]
    BarTaken(usize),
    /// The size is not a power of two, or out of range.
    #[error("invalid size {size:#x} of BAR {index}")]
    BarSize {
        /// The number of the BAR.
        index: usize,
        /// The size in bytes or ports.
        size: u64,
    },
    /// The offset is in use, outside of 0x40 to 0xFF, or not aligned.
    #[error("no room for a register at offset {0:#x}")]
    NoRoomForRegister(u16),
    /// There is no room for the capability.
    #[error("no room for capability {id:#04x} of {len} bytes")]
    NoRoomForCapability {
        /// The capability's id.
        id: u8,
        /// Its length in bytes, including the header.
        len: usize,
    },
    /// The table and the pending bits must not overlap, be in a memory BAR and aligned to 8 bytes. There must be 1 to
    /// 2048 vectors.
    #[error("invalid MSI-X layout: {0:?}")]
    MsixLayout(MsixLayout),
    /// The function already has MSI-X.
    #[error("the function already has MSI-X")]
    MsixTwice,
    /// The host is out of interrupt routes or file descriptors.
    #[error("cannot create MSI-X vector {vector}")]
    MsixVector {
        /// The number of the vector.
        vector: u16,
        /// The host's error.
        #[source]
        source: std::io::Error,
    },
}
