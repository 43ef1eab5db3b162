//! Linux without firmware, by the kernel's 64-bit boot protocol (Documentation/arch/x86/boot.rst in the
//! kernel's sources) or by PVH (Documentation/arch/x86 and Xen's docs/misc/pvh).

mod boot_params;
mod bzimage;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod constructed;
mod cpu;
mod elf;
mod error;
mod host;
mod identify;
mod initrd;
mod kernel;
pub mod layout;
mod plan;
mod pvh;

pub use error::KernelError;
pub use error::LoadError;
pub use host::LinuxHost;
pub use kernel::EntryProtocol;
pub use plan::LinuxImage;
pub use plan::LinuxPlan;
