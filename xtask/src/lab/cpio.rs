//! Writing initramfs archives: cpio in the "newc" format (Linux: `Documentation/driver-api/early-userspace/buffer-format.rst`).

use anyhow::Context;
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// An archive being written. Parent directories come by themselves.
pub(crate) struct Archive<W> {
    out: W,
    /// Bytes written, for the padding.
    len: u64,
    entries: u32,
    directories: BTreeSet<String>,
}

struct Entry<'a> {
    name: &'a str,
    mode: u32,
    size: u32,
    /// Major and minor number of a device.
    device: (u32, u32),
}

impl<W: Write> Archive<W> {
    /// Starts an archive.
    pub(crate) fn new(out: W) -> Self {
        Self {
            out,
            len: 0,
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
        self.parent(name)?;
        self.directories.insert(name.to_owned());
        self.header(&Entry {
            name,
            mode: DIRECTORY | 0o755,
            size: 0,
            device: (0, 0),
        })
    }

    /// Adds a regular file with these contents; `mode` are its permission bits.
    pub(crate) fn bytes(&mut self, name: &str, mode: u32, contents: &[u8]) -> anyhow::Result<()> {
        self.regular(name, mode, contents.len() as u64, contents)
    }

    /// Adds a copy of a file of the host, with its permissions.
    pub(crate) fn file(&mut self, name: &str, source: &Path) -> anyhow::Result<()> {
        let attempt = || format!("cannot put {} into the initramfs", source.display());
        let file = File::open(source).with_context(attempt)?;
        let metadata = file.metadata().with_context(attempt)?;
        anyhow::ensure!(metadata.is_file(), "{}: not a file", attempt());
        self.regular(
            name,
            metadata.permissions().mode() & 0o777,
            metadata.len(),
            file,
        )
        .with_context(attempt)
    }

    /// Adds a symbolic link.
    pub(crate) fn symlink(&mut self, name: &str, target: &str) -> anyhow::Result<()> {
        let name = name.trim_matches('/');
        self.parent(name)?;
        self.header(&Entry {
            name,
            mode: SYMLINK | 0o777,
            size: u32::try_from(target.len())?,
            device: (0, 0),
        })?;
        self.write(target.as_bytes())?;
        self.pad()
    }

    /// Adds a character device.
    pub(crate) fn device(&mut self, name: &str, major: u32, minor: u32) -> anyhow::Result<()> {
        let name = name.trim_matches('/');
        self.parent(name)?;
        self.header(&Entry {
            name,
            mode: CHARACTER_DEVICE | 0o600,
            size: 0,
            device: (major, minor),
        })
    }

    /// Ends the archive.
    pub(crate) fn finish(mut self) -> anyhow::Result<W> {
        self.header(&Entry {
            name: "TRAILER!!!",
            mode: 0,
            size: 0,
            device: (0, 0),
        })?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn regular(
        &mut self,
        name: &str,
        mode: u32,
        size: u64,
        contents: impl io::Read,
    ) -> anyhow::Result<()> {
        let name = name.trim_matches('/');
        self.parent(name)?;
        self.header(&Entry {
            name,
            mode: REGULAR | mode,
            size: u32::try_from(size).context("the format ends at 4 GiB")?,
            device: (0, 0),
        })?;
        let copied = io::copy(&mut contents.take(size), &mut self.out)?;
        anyhow::ensure!(copied == size, "the file shrank while it was read");
        self.len += copied;
        self.pad()
    }

    fn parent(&mut self, name: &str) -> anyhow::Result<()> {
        match name.rsplit_once('/') {
            Some((parent, _)) => self.directory(parent),
            None => Ok(()),
        }
    }

    fn header(&mut self, entry: &Entry<'_>) -> anyhow::Result<()> {
        self.entries += 1;
        let fields = [
            self.entries, // inode
            entry.mode,
            0, // owner
            0, // group
            1, // links
            0, // modification time: the same input gives the same archive
            entry.size,
            0, // device holding the file: major
            0, // and minor
            entry.device.0,
            entry.device.1,
            u32::try_from(entry.name.len() + 1)?,
            0, // checksum, unused in this format
        ];
        let mut header = String::from("070701");
        for field in fields {
            header.push_str(&format!("{field:08x}"));
        }
        header.push_str(entry.name);
        header.push('\0');
        self.write(header.as_bytes())?;
        self.pad()
    }

    fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.out.write_all(bytes)?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn pad(&mut self) -> anyhow::Result<()> {
        let padding = self.len.next_multiple_of(4) - self.len;
        self.write(&[0; 3][..usize::try_from(padding)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names and modes, read back by the rules of the format.
    fn listing(archive: &[u8]) -> Vec<(String, u32)> {
        let mut at = 0;
        let mut listing = Vec::new();
        loop {
            let field = |index: usize| {
                let start = at + 6 + index * 8;
                let digits = std::str::from_utf8(&archive[start..start + 8]).unwrap();
                u32::from_str_radix(digits, 16).unwrap()
            };
            assert_eq!(&archive[at..at + 6], b"070701");
            let (mode, size, name_len) = (field(1), field(6) as usize, field(11) as usize);
            let name_at = at + 110;
            let name = std::str::from_utf8(&archive[name_at..name_at + name_len - 1]).unwrap();
            if name == "TRAILER!!!" {
                return listing;
            }
            listing.push((name.to_owned(), mode));
            at = (name_at + name_len).next_multiple_of(4);
            at = (at + size).next_multiple_of(4);
        }
    }

    #[test]
    fn parents_come_first_and_once() {
        let mut archive = Archive::new(Vec::new());
        archive.bytes("/a/b/c", 0o755, b"12345").unwrap();
        archive.bytes("a/b/d", 0o644, b"").unwrap();
        archive.symlink("a/e", "b/c").unwrap();
        archive.device("dev/console", 5, 1).unwrap();
        let archive = archive.finish().unwrap();
        let expected = [
            ("a", 0o040_755),
            ("a/b", 0o040_755),
            ("a/b/c", 0o100_755),
            ("a/b/d", 0o100_644),
            ("a/e", 0o120_777),
            ("dev", 0o040_755),
            ("dev/console", 0o020_600),
        ];
        assert_eq!(
            listing(&archive),
            expected.map(|(name, mode)| (name.to_owned(), mode))
        );
    }

    #[test]
    fn a_directory_is_not_a_file() {
        let mut archive = Archive::new(Vec::new());
        assert!(archive.file("x", Path::new("/")).is_err());
    }
}
