//! The guest's initramfs.

use crate::lab::Archive;
use crate::lab::add_userland;
use crate::setup::Kernel;

/// A directory of drivers, which the guest's init loads when the machine has what they are for.
struct Drivers {
    directory: &'static str,
    modules: &'static [&'static str],
}

const DRIVERS: [Drivers; 4] = [
    Drivers {
        directory: "always",
        modules: &["evdev", "button", "pvpanic-mmio", "pvpanic-pci"],
    },
    Drivers {
        directory: "virtio",
        modules: &["virtio_pci", "virtio_blk", "virtio_net", "virtio-rng"],
    },
    Drivers {
        directory: "efi",
        modules: &["efivarfs"],
    },
    // What it takes to mount an EFI system partition.
    Drivers {
        directory: "fat",
        modules: &["vfat", "nls_cp437", "nls_ascii"],
    },
];

/// The parts of the guest's init, which reads those in `lib` when it starts.
const SCRIPTS: [(&str, &str); 5] = [
    ("init", include_str!("init/init.sh")),
    ("lib/disk.sh", include_str!("init/disk.sh")),
    ("lib/efi.sh", include_str!("init/efi.sh")),
    ("lib/net.sh", include_str!("init/net.sh")),
    ("lib/power.sh", include_str!("init/power.sh")),
];

/// The guest's initramfs.
pub(crate) fn initramfs(kernel: &Kernel) -> anyhow::Result<Vec<u8>> {
    let mut archive = Archive::new(Vec::new());
    add_userland(&mut archive)?;
    for (name, script) in SCRIPTS {
        archive.bytes(name, 0o755, script.as_bytes())?;
    }
    for drivers in DRIVERS {
        for (order, module) in kernel.modules(drivers.modules)?.iter().enumerate() {
            let name = module.file_stem().unwrap_or_default().to_string_lossy();
            let directory = drivers.directory;
            archive.file(&format!("modules/{directory}/{order:02}-{name}.ko"), module)?;
        }
    }
    archive.finish()
}
