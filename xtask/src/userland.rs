//! The userland of every initramfs: busybox.

use crate::archive::Archive;
use crate::process;
use std::io::Write;
use std::path::Path;
use std::process::Command;

/// Adds what every initramfs needs: the console device, busybox and links for its commands.
pub(crate) fn add_to<W: Write>(archive: &mut Archive<W>) -> anyhow::Result<()> {
    for directory in ["dev", "etc", "proc", "root", "run", "sys", "tmp"] {
        archive.directory(directory)?;
    }
    // The kernel opens the console for init before anything is mounted.
    archive.device("dev/console", 5, 1)?;
    // Programs that root starts may change to nobody.
    archive.bytes(
        "etc/passwd",
        0o644,
        b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
    )?;
    archive.bytes("etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n")?;
    archive.file("bin/busybox", Path::new("/bin/busybox"))?;
    for applet in applets()?.lines().filter(|applet| *applet != "busybox") {
        archive.symlink(&format!("bin/{applet}"), "busybox")?;
    }
    Ok(())
}

/// Asks busybox for the names of its commands.
fn applets() -> anyhow::Result<String> {
    process::output(Command::new("/bin/busybox").arg("--list"))
}
