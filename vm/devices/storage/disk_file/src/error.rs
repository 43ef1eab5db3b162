//! Why a file cannot be used as a disk.

use crate::LockHolder;
use crate::qcow2::Qcow2Error;
use disk_backend::BlockSizeError;
use std::io;
use std::path::PathBuf;
use vhd_footer::FooterError;

/// Why a file cannot be used as a disk.
#[derive(Debug, thiserror::Error)]
pub enum FileDiskError {
    /// It cannot be opened.
    #[error("failed to open the disk {}{}", path.display(), hint(source))]
    Open {
        /// The file.
        path: PathBuf,
        /// The error of the host.
        #[source]
        source: io::Error,
    },
    /// It does not exist and cannot be created.
    #[error("failed to create the disk {}", path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// The error of the host.
        #[source]
        source: io::Error,
    },
    /// It cannot be examined or locked.
    #[error("failed to {operation} the disk {}", path.display())]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the host.
        #[source]
        source: io::Error,
    },
    /// It is a directory, a socket or the like.
    #[error("the disk {} is neither a regular file nor a block device", path.display())]
    NotADisk {
        /// The file.
        path: PathBuf,
    },
    /// Another user of the file writes it, or reads it and this one would write.
    #[error("the disk {} is in use by {holder}", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
        /// The process that uses it.
        holder: LockHolder,
    },
    /// It has no sectors.
    #[error("the disk {} is empty", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Its size is not a multiple of the sector size.
    #[error(
        "the disk {} has {size} bytes, which is not a multiple of 512; `truncate -s %512` makes it one",
        path.display()
    )]
    PartialSector {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
    },
    /// Guests cannot have such sectors on it.
    #[error("the disk {} cannot have these sectors", path.display())]
    BlockSize {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: BlockSizeError,
    },
    /// It is an image of another format.
    #[error(
        "the disk {} is a {format} image, which is not supported; `qemu-img convert -O qcow2` makes one that is \
         (`format=raw` uses the file as it is)",
        path.display()
    )]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The name of the format.
        format: &'static str,
    },
    /// It is a compressed file or an archive.
    #[error(
        "the disk {} is compressed ({format}); decompress it first (`format=raw` uses the file as it is)",
        path.display()
    )]
    Compressed {
        /// The file.
        path: PathBuf,
        /// The name of the format.
        format: &'static str,
    },
    /// It is not a fixed VHD, or a damaged one.
    #[error("the disk {} cannot be used as a VHD (`format=raw` uses the file as it is)", path.display())]
    Vhd {
        /// The file.
        path: PathBuf,
        /// What is wrong with the footer.
        #[source]
        source: FooterError,
    },
    /// It has a VHD footer that does not follow the disk immediately.
    #[error(
        "the disk {} ends with a VHD footer for {size} bytes, but has {available} bytes before it; say `format=vhd` if \
         it is a VHD, `format=raw` if it is not",
        path.display()
    )]
    UnclearVhd {
        /// The file.
        path: PathBuf,
        /// The disk size in the footer, in bytes.
        size: u64,
        /// The bytes before the footer.
        available: u64,
    },
    /// It is not a usable qcow2 image.
    #[error("the disk {} cannot be used as a qcow2 image", path.display())]
    Qcow2 {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: Box<Qcow2Error>,
    },
    /// The file system or device has no direct I/O.
    #[error("there is no direct I/O on the disk {}; leave out `;direct`", path.display())]
    NoDirectIo {
        /// The file.
        path: PathBuf,
        /// The error of the host.
        #[source]
        source: io::Error,
    },
    /// Direct I/O needs larger blocks than the guest uses.
    #[error(
        "direct I/O on the disk {} needs blocks of {needed} bytes, and the guest's have {block}; `sector={needed}` gives          the guest such blocks, or leave out `;direct`",
        path.display()
    )]
    DirectBlocks {
        /// The file.
        path: PathBuf,
        /// The size that is needed, in bytes.
        needed: u32,
        /// The logical block size for the guest, in bytes.
        block: u32,
    },
    /// The format has no direct I/O.
    #[error("there is no direct I/O on qcow2 images such as {}; leave out `;direct`", path.display())]
    DirectQcow2 {
        /// The file.
        path: PathBuf,
    },
    /// io_uring was requested and is unavailable.
    #[error("the host does not allow io_uring for the disk {}", path.display())]
    NoIoUring {
        /// The file.
        path: PathBuf,
        /// The error of the host.
        #[source]
        source: io::Error,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            " (add `,ro` if it need not be written)"
        }
        io::ErrorKind::ResourceBusy => " (is it mounted, or another VM's disk?)",
        _ => "",
    }
}
