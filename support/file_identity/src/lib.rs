//! Whether two names refer to the same file, so that no output replaces what is also an input.
#![forbid(unsafe_code)]

use std::error::Error;
use std::ffi::OsString;
use std::fmt;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

/// Maximum number of symbolic links followed, as in the kernel.
const MAX_LINKS: usize = 40;

/// The file that a name refers to. Two are equal if what is written to one is in the other: hard links, symbolic
/// links, relative paths, `/proc/self/fd/N`, device nodes of one disk, and names of one file that does not exist yet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FileIdentity(Kind);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Kind {
    /// A regular file.
    Inode { dev: u64, ino: u64 },
    /// A block device.
    Disk { rdev: u64 },
    /// A file that would be created in this directory.
    New { dev: u64, ino: u64, name: OsString },
}

impl FileIdentity {
    /// The file at `path`. `None` for what keeps no content (terminals, pipes, sockets, `/dev/null`), for directories,
    /// and for paths that cannot be looked up, which opening them reports.
    pub fn of_path(path: &Path) -> Option<Self> {
        let mut path = path.to_path_buf();
        for _ in 0..MAX_LINKS {
            match std::fs::metadata(&path) {
                Ok(metadata) => return Self::of_metadata(&metadata),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(_) => return None,
            }
            let directory = host_file::directory(&path);
            match std::fs::read_link(&path) {
                // Creating a file through a dangling link creates the link's target.
                Ok(target) => path = directory.join(target),
                Err(_) => return Self::new_in(directory, path.file_name()?.into()),
            }
        }
        None
    }

    /// The file with this metadata, such as that of an open file. `None` as for [`of_path`](Self::of_path).
    pub fn of_metadata(metadata: &Metadata) -> Option<Self> {
        let kind = metadata.file_type();
        if kind.is_file() {
            let (dev, ino) = (metadata.dev(), metadata.ino());
            Some(Self(Kind::Inode { dev, ino }))
        } else if kind.is_block_device() {
            let rdev = metadata.rdev();
            Some(Self(Kind::Disk { rdev }))
        } else {
            None
        }
    }

    fn new_in(directory: &Path, name: OsString) -> Option<Self> {
        let directory = std::fs::metadata(directory).ok()?;
        let (dev, ino) = (directory.dev(), directory.ino());
        Some(Self(Kind::New { dev, ino, name }))
    }
}

/// What a file is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It is only read.
    Read,
    /// It is created, replaced or changed.
    Write,
}

/// A file that a program was told to use.
#[derive(Debug, Clone)]
pub struct FileUse {
    /// What it is, as the user knows it: `the store`, `--uefi-vars`.
    pub what: String,
    /// Its path.
    pub path: PathBuf,
    /// What it is used for.
    pub access: Access,
}

impl FileUse {
    /// A file that is only read.
    pub fn read(what: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self {
            what: what.into(),
            path: path.into(),
            access: Access::Read,
        }
    }

    /// A file that is created, replaced or changed.
    pub fn write(what: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self {
            access: Access::Write,
            ..Self::read(what, path)
        }
    }
}

/// Two uses of one file of which at least one writes it.
#[derive(Debug, Clone)]
pub struct SharedFile {
    /// The use that came first.
    pub first: FileUse,
    /// The other use.
    pub second: FileUse,
}

impl fmt::Display for SharedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, second } = self;
        write!(f, "{} and {} are the same file", first.what, second.what)?;
        if first.path == second.path {
            write!(f, ", {}", first.path.display())
        } else {
            let (first, second) = (first.path.display(), second.path.display());
            write!(f, " under two names, {first} and {second}")
        }
    }
}

impl Error for SharedFile {}

/// Fails if a file that is written is used twice. Changes nothing.
pub fn check_distinct(uses: &[FileUse]) -> Result<(), SharedFile> {
    let identified: Vec<_> = uses
        .iter()
        .filter_map(|used| Some((used, FileIdentity::of_path(&used.path)?)))
        .collect();
    for (i, (second, identity)) in identified.iter().enumerate() {
        for (first, earlier) in &identified[..i] {
            let written = first.access == Access::Write || second.access == Access::Write;
            if written && earlier == identity {
                return Err(SharedFile {
                    first: (*first).clone(),
                    second: (*second).clone(),
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "lib_test.rs"]
mod tests;
