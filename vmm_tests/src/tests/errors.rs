//! What cannot work is refused with the reason and the right exit code.

use super::Context;
use super::expect_error;
use anyhow::Context as _;
use rustix::mount::MountFlags;
use rustix::mount::UnmountFlags;
use std::path::Path;
use vmm_tests::OpenvmmExit;
use vmm_tests::Stdio;

pub(super) fn missing_kernel(context: &Context) -> anyhow::Result<()> {
    let vm = context
        .openvmm()
        .stdio(Stdio::Null)
        .args(["--kernel", "/nonexistent/vmlinuz"])
        .start()?;
    expect_error(&vm, OpenvmmExit::ConfigError, "/nonexistent/vmlinuz")
}

pub(super) fn kernel_is_no_kernel(context: &Context) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("text");
    std::fs::write(&path, "not a kernel\n".repeat(1000))?;
    let vm = context
        .openvmm()
        .stdio(Stdio::Null)
        .arg("--kernel")
        .arg(&path)
        .start()?;
    expect_error(&vm, OpenvmmExit::ConfigError, "text")
}

pub(super) fn unknown_option(context: &Context) -> anyhow::Result<()> {
    let vm = context
        .openvmm()
        .stdio(Stdio::Null)
        .arg("--no-such-option")
        .start()?;
    expect_error(&vm, OpenvmmExit::ConfigError, "--no-such-option")
}

pub(super) fn too_little_memory(context: &Context) -> anyhow::Result<()> {
    let vm = context.linux("").memory("4M").stdio(Stdio::Null).start()?;
    expect_error(&vm, OpenvmmExit::ConfigError, "memory")
}

/// The file can be created with its full length, but the disk has no room for its content. openvmm must report that at
/// start, instead of crashing when the guest uses the memory.
pub(super) fn memory_file_on_a_full_disk(context: &Context) -> anyhow::Result<()> {
    let disk = SmallDisk::mount()?;
    let file = disk.path().join("memory");
    let vm = context
        .linux("poweroff")
        .memory(format!("size=256M,file={},prealloc", file.display()))
        .stdio(Stdio::Null)
        .start()?;
    expect_error(&vm, OpenvmmExit::HostError, &file.to_string_lossy())
}

/// A file system of 16 MiB.
struct SmallDisk {
    dir: tempfile::TempDir,
}

impl SmallDisk {
    fn mount() -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        rustix::mount::mount(
            "tmpfs",
            dir.path(),
            "tmpfs",
            MountFlags::empty(),
            c"size=16m",
        )
        .context("cannot mount a small file system (this test needs to be root)")?;
        Ok(Self { dir })
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.dir.path(), UnmountFlags::DETACH);
    }
}
