//! Linux without firmware, by the kernel's 64-bit boot protocol (Documentation/arch/x86/boot.rst in the
//! kernel's sources) or by PVH (Documentation/arch/x86 and Xen's docs/misc/pvh).

mod boot_params;
mod bzimage;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod constructed;
mod cpu;
mod elf;
mod error;
mod identify;
mod initrd;
mod kernel;
pub mod layout;
mod page_tables;
mod plan;
mod pvh;

pub use error::LoadError;
pub use plan::LinuxPlan;
pub use plan::Placement;

use crate::BootState;
use crate::ImageFile;
use acpi_spec::TableSet;
use guest_memory::MemoryLayout;
use std::fs::File;
use std::io::Read;
use std::io::Seek;
use vm_memory::GuestMemory;
use vm_memory::ReadVolatile;

/// How a kernel is entered.
#[derive(Debug, Copy, Clone, Default, PartialEq, Eq)]
pub enum BootProtocol {
    /// By the 64-bit protocol, unless the file can only be entered by PVH: it has a PVH entry, and its ELF
    /// entry is the same or is not in the file's segments.
    #[default]
    Auto,
    /// By the kernel's 64-bit boot protocol.
    Linux64,
    /// By PVH: 32-bit protected mode, at the entry in the ELF file's `XEN_ELFNOTE_PHYS32_ENTRY` note.
    Pvh,
}

/// A kernel and what it is booted with.
#[derive(Debug)]
pub struct LinuxImage<'a, F = File> {
    /// A bzImage or an ELF vmlinux.
    pub kernel: ImageFile<F>,
    /// The initial RAM disk.
    pub initrd: Option<ImageFile<F>>,
    /// The kernel's command line.
    pub cmdline: &'a str,
    /// The ACPI tables.
    pub acpi: &'a TableSet,
    /// How the kernel is entered.
    pub protocol: BootProtocol,
}

/// Loads a kernel into guest memory, and says how its boot processor starts.
///
/// To load it again when the guest is reset, keep the [`LinuxPlan`] instead.
///
/// Everything is checked before the first write to `memory`; after that only an error of the file or of the
/// memory behind the guest's RAM can happen.
pub fn load_linux<M: GuestMemory, F: Read + Seek + ReadVolatile>(
    memory: &M,
    layout: &MemoryLayout,
    image: LinuxImage<'_, F>,
) -> Result<BootState, LoadError> {
    LinuxPlan::new(layout, image)?.load(memory)
}

#[cfg(test)]
mod boot_test;
#[cfg(test)]
mod initrd_test;
#[cfg(test)]
mod refusal_test;
#[cfg(test)]
mod test_boot;
