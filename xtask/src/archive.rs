//! Writes initramfs archives: cpio in the "newc" format (Linux: `Documentation/driver-api/early-userspace/buffer-format.rst`).

use anyhow::Context;
use cpio::newc;
use cpio::newc::Builder;
use cpio::newc::ModeFileType;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// An archive being written. Parent directories are added automatically.
pub(crate) struct Archive<W> {
    out: W,
    entries: u32,
    directories: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    /// Starts an archive.
    pub(crate) fn new(out: W) -> Self {
        Self {
            out,
            entries: 0,
            directories: BTreeSet::new(),
        }
    }

    /// Adds a directory.
    pub(crate) fn directory(&mut self, name: &str) -> anyhow::Result<()> {
        let name = name.trim_matches('/');
        if name.is_empty() || self.directories.contains(name) {
            return Ok(());
        }
        self.directories.insert(name.to_owned());
        let entry = self.entry(name, ModeFileType::Directory, 0o755)?;
        self.add(entry, b"")
    }

    /// Adds a regular file with this content. `mode` holds its permission bits.
    pub(crate) fn bytes(&mut self, name: &str, mode: u32, content: &[u8]) -> anyhow::Result<()> {
        let entry = self.entry(name, ModeFileType::Regular, mode)?;
        self.add(entry, content)
    }

    /// Adds a copy of a file of the host, with its permissions.
    pub(crate) fn file(&mut self, name: &str, source: &Path) -> anyhow::Result<()> {
        let attempt = || format!("cannot add {} to the initramfs", source.display());
        let file = File::open(source).with_context(attempt)?;
        let metadata = file.metadata().with_context(attempt)?;
        anyhow::ensure!(metadata.is_file(), "{}: not a file", attempt());
        let mode = metadata.permissions().mode() & 0o777;
        let entry = self.entry(name, ModeFileType::Regular, mode)?;
        self.copy(entry, metadata.len(), file).with_context(attempt)
    }

    /// Adds a symbolic link.
    pub(crate) fn symlink(&mut self, name: &str, target: &str) -> anyhow::Result<()> {
        let entry = self.entry(name, ModeFileType::Symlink, 0o777)?;
        self.add(entry, target.as_bytes())
    }

    /// Adds a character device.
    pub(crate) fn device(&mut self, name: &str, major: u32, minor: u32) -> anyhow::Result<()> {
        let entry = self.entry(name, ModeFileType::Char, 0o600)?;
        self.add(entry.rdev_major(major).rdev_minor(minor), b"")
    }

    /// Ends the archive.
    pub(crate) fn finish(self) -> anyhow::Result<W> {
        let mut out = newc::trailer(self.out)?;
        out.flush()?;
        Ok(out)
    }

    /// Starts an entry, after its parent directories. Owner and time are 0: the same input gives the same archive.
    fn entry(&mut self, name: &str, kind: ModeFileType, mode: u32) -> anyhow::Result<Builder> {
        let name = name.trim_matches('/');
        if let Some((parent, _)) = name.rsplit_once('/') {
            self.directory(parent)?;
        }
        self.entries += 1;
        let entry = Builder::new(name).ino(self.entries).mode(mode);
        Ok(entry.set_mode_file_type(kind))
    }

    fn add(&mut self, entry: Builder, content: &[u8]) -> anyhow::Result<()> {
        self.copy(entry, content.len() as u64, content)
    }

    fn copy(&mut self, entry: Builder, size: u64, content: impl Read) -> anyhow::Result<()> {
        let header_size = u32::try_from(size).context("a cpio archive holds files below 4 GiB")?;
        let mut writer = entry.write(&mut self.out, header_size);
        let copied = std::io::copy(&mut content.take(size), &mut writer)?;
        anyhow::ensure!(copied == size, "the file shrank while it was read");
        writer.finish()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_come_first_and_once() {
        let mut archive = Archive::new(Vec::new());
        archive.bytes("/a/b/c", 0o755, b"12345").unwrap();
        archive.bytes("a/b/d", 0o644, b"").unwrap();
        archive.symlink("a/e", "b/c").unwrap();
        archive.device("dev/console", 5, 1).unwrap();
        let archive = archive.finish().unwrap();
        let expected: [(&str, u32, &[u8]); 7] = [
            ("a", 0o040_755, b""),
            ("a/b", 0o040_755, b""),
            ("a/b/c", 0o100_755, b"12345"),
            ("a/b/d", 0o100_644, b""),
            ("a/e", 0o120_777, b"b/c"),
            ("dev", 0o040_755, b""),
            ("dev/console", 0o020_600, b""),
        ];
        let mut rest = &archive[..];
        for (name, mode, content) in expected {
            let mut reader = newc::Reader::new(rest).unwrap();
            let entry = reader.entry().clone();
            assert_eq!((entry.name(), entry.mode()), (name, mode));
            let device = if name == "dev/console" {
                (5, 1)
            } else {
                (0, 0)
            };
            assert_eq!((entry.rdev_major(), entry.rdev_minor()), device);
            let mut read = Vec::new();
            reader.read_to_end(&mut read).unwrap();
            assert_eq!(read, content);
            rest = reader.finish().unwrap();
        }
        assert!(newc::Reader::new(rest).unwrap().entry().is_trailer());
    }

    #[test]
    fn inode_numbers_are_different() {
        let mut archive = Archive::new(Vec::new());
        archive.bytes("a/b", 0o644, b"1").unwrap();
        let archive = archive.finish().unwrap();
        let first = newc::Reader::new(&archive[..]).unwrap();
        let inode = first.entry().ino();
        let second = newc::Reader::new(first.finish().unwrap()).unwrap();
        assert_ne!(second.entry().ino(), inode);
    }

    #[test]
    fn a_directory_is_not_a_file() {
        let mut archive = Archive::new(Vec::new());
        assert!(archive.file("x", Path::new("/")).is_err());
    }
}
