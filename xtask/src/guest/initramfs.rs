//! The guest's initramfs.

use crate::archive::Archive;
use crate::build;
use crate::setup::DebianKernel;
use crate::userland;
use anyhow::Context;

/// A directory of drivers, which the guest's init loads together when it needs them.
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
    // To mount an EFI system partition.
    Drivers {
        directory: "fat",
        modules: &["vfat", "nls_cp437", "nls_ascii"],
    },
];

/// The guest's init, the scripts in `lib` that it reads when it starts, and one that udhcpc calls.
const SCRIPTS: [(&str, &str); 7] = [
    ("init", include_str!("init/init.sh")),
    ("bin/lease", include_str!("init/lease.sh")),
    ("lib/disk.sh", include_str!("init/disk.sh")),
    ("lib/efi.sh", include_str!("init/efi.sh")),
    ("lib/net.sh", include_str!("init/net.sh")),
    ("lib/power.sh", include_str!("init/power.sh")),
    ("lib/session.sh", SESSION_SCRIPT),
];

/// Shell functions that identify a session, for every guest.
pub(crate) const SESSION_SCRIPT: &str = include_str!("init/session.sh");

/// Makes the guest's initramfs.
pub(super) fn initramfs(kernel: &DebianKernel) -> anyhow::Result<Vec<u8>> {
    archive(kernel)?.finish()
}

/// Makes the guest's initramfs with its part of measurements, which is built first.
pub(super) fn bench_initramfs(kernel: &DebianKernel) -> anyhow::Result<Vec<u8>> {
    const PACKAGE: &str = "guest_bench";
    let programs = build::binaries(&[PACKAGE.to_owned()])?;
    let program = programs
        .iter()
        .find(|program| program.name == PACKAGE)
        .with_context(|| format!("cargo built no {PACKAGE}"))?;
    let mut archive = archive(kernel)?;
    archive.file(&format!("bin/{PACKAGE}"), &program.path)?;
    archive.finish()
}

fn archive(kernel: &DebianKernel) -> anyhow::Result<Archive<Vec<u8>>> {
    let mut archive = Archive::new(Vec::new());
    userland::add_to(&mut archive)?;
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
    Ok(archive)
}
