//! Guest RAM: its layout in the guest-physical address space and the host memory behind it.

mod backing;
mod layout;

pub use backing::GuestMemory;
pub use backing::GuestRegion;
pub use backing::MemoryError;
pub use layout::LayoutError;
pub use layout::MIN_RAM;
pub use layout::MemoryLayout;
pub use layout::MemoryRange;
