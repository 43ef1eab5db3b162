//! The medium of a storage device, as far as a hibernated guest relies on it.

use std::error::Error;

/// What of a medium a hibernated guest relies on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediumInfo {
    /// The size in bytes.
    pub size: u64,
    /// The size of a sector as the guest sees it, in bytes.
    pub sector: u32,
    /// The serial number that the guest is told; empty if there is none.
    pub serial: String,
    /// Whether the guest can only read it.
    pub read_only: bool,
    /// The identity of what is on it, such as the UUID of a file system; `None` if nothing known is.
    pub content: Option<String>,
}

/// Why a medium cannot be examined.
pub type MediumError = Box<dyn Error + Send + Sync>;
