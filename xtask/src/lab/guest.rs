//! The guest that tests and measurements boot: a kernel and a small initramfs that the kernel's command
//! line or the serial console drives.

use super::cpio::Archive;
use super::initrd;
use crate::setup::Kernel;
use std::io::Write;

/// Where the guest's files are in the lab.
pub(crate) const DIR: &str = "/guest";

/// The drivers a guest loads, if the machine has what they drive.
const MODULES: [&str; 4] = ["evdev", "button", "pvpanic-mmio", "pvpanic-pci"];

/// Adds the guest's files to the lab's initramfs.
pub(super) fn add<W: Write>(archive: &mut Archive<W>, kernel: &Kernel) -> anyhow::Result<()> {
    archive.file(&format!("{DIR}/vmlinuz"), &kernel.vmlinuz())?;
    archive.bytes(&format!("{DIR}/initrd"), 0o644, &initramfs(kernel)?)
}

/// The guest's initramfs.
pub(crate) fn initramfs(kernel: &Kernel) -> anyhow::Result<Vec<u8>> {
    let mut archive = Archive::new(Vec::new());
    initrd::add_userland(&mut archive)?;
    archive.bytes("init", 0o755, include_bytes!("guest_init.sh"))?;
    for (order, module) in kernel.modules(&MODULES)?.iter().enumerate() {
        let name = module.file_stem().unwrap_or_default().to_string_lossy();
        archive.file(&format!("modules/{order:02}-{name}.ko"), module)?;
    }
    archive.finish()
}
