//! Guest RAM: its layout in the guest-physical address space and the host memory behind it.

mod backing;
mod content;
mod file;
mod guest_memory;
mod layout;
mod mapping;

pub use backing::HUGE_PAGE;
pub use backing::MemoryBacking;
pub use backing::MemoryError;
pub use backing::MemorySource;
pub use backing::PageKind;
pub use guest_memory::GuestMemory;
pub use guest_memory::GuestRegion;
pub use guest_memory::device_region;
pub use layout::MIN_RAM;
pub use layout::MemoryLayout;
pub use layout::MemoryLayoutError;
pub use layout::MemoryRange;
