//! Guest RAM: its layout in the guest-physical address space and the host memory behind it.

mod layout;

pub use layout::LayoutError;
pub use layout::MemoryLayout;
pub use layout::MemoryRange;
