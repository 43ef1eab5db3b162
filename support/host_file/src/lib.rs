//! Files that a user names. They are opened without ever waiting: a named pipe without a peer, or a device that is not
//! ready, is an error at once.
#![forbid(unsafe_code)]

use rustix::fs::OFlags;
use std::fs::File;
use std::fs::FileType;
use std::fs::Metadata;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// What a file that is read, or read and written, may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowed {
    /// A regular file.
    Regular,
    /// A regular file or a block device.
    RegularOrBlock,
}

impl Allowed {
    /// Whether it allows this type of file.
    pub fn allows(self, kind: FileType) -> bool {
        kind.is_file() || self == Self::RegularOrBlock && kind.is_block_device()
    }
}

/// What a type of file is called, with its article.
pub fn kind_name(kind: FileType) -> &'static str {
    if kind.is_file() {
        "a regular file"
    } else if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a named pipe"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_block_device() {
        "a block device"
    } else if kind.is_char_device() {
        "a character device"
    } else {
        "a special file"
    }
}

/// Opens the file at `path` with `options`. An error of kind [`InvalidInput`](io::ErrorKind::InvalidInput) says which type
/// of file it is instead of one that is allowed.
pub fn open(path: &Path, options: &OpenOptions, allowed: Allowed) -> io::Result<File> {
    let refuse = |kind| {
        let expected = match allowed {
            Allowed::Regular => "a regular file",
            Allowed::RegularOrBlock => "a regular file or a block device",
        };
        let kind = kind_name(kind);
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("it is {kind}, not {expected}"),
        )
    };
    match open_at_once(path, options) {
        Ok((file, metadata)) if allowed.allows(metadata.file_type()) => Ok(file),
        Ok((_, metadata)) => Err(refuse(metadata.file_type())),
        // Some types cannot be opened like this at all, and the error would not name the type.
        Err(error) => match std::fs::metadata(path) {
            Ok(metadata) if !allowed.allows(metadata.file_type()) => {
                Err(refuse(metadata.file_type()))
            }
            _ => Err(error),
        },
    }
}

/// Opens the file at `path` for reading.
pub fn open_input(path: &Path, allowed: Allowed) -> io::Result<File> {
    open(path, OpenOptions::new().read(true), allowed)
}

/// Opens the file at `path` for output: a regular file, which is created or truncated, a character device, or a named
/// pipe that a process reads. Disks are refused.
pub fn open_output(path: &Path) -> io::Result<File> {
    let refuse = |kind| {
        let reason = format!("it is {}, not a file for output", kind_name(kind));
        io::Error::new(io::ErrorKind::InvalidInput, reason)
    };
    match std::fs::metadata(path) {
        Ok(metadata) if !is_output(metadata.file_type()) => {
            return Err(refuse(metadata.file_type()));
        }
        _ => {}
    }
    let options = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .clone();
    match open_at_once(path, &options) {
        // It became another file meanwhile.
        Ok((_, metadata)) if !is_output(metadata.file_type()) => Err(refuse(metadata.file_type())),
        Ok((file, _)) => Ok(file),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => Err(
            io::Error::new(error.kind(), "no process reads the named pipe"),
        ),
        Err(error) => Err(error),
    }
}

/// The directory that holds the file at `path`, or would hold it.
pub fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes durable that the file at `path` has this name.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(directory(path))?.sync_all()
}

fn is_output(kind: FileType) -> bool {
    kind.is_file() || kind.is_char_device() || kind.is_fifo()
}

/// Opens a file without waiting for it; later reads and writes do wait.
fn open_at_once(path: &Path, options: &OpenOptions) -> io::Result<(File, Metadata)> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = options
        .clone()
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    let metadata = file.metadata()?;
    let flags = rustix::fs::fcntl_getfl(&file)?;
    rustix::fs::fcntl_setfl(&file, flags - OFlags::NONBLOCK)?;
    Ok((file, metadata))
}

#[cfg(test)]
#[path = "lib_test.rs"]
mod tests;
