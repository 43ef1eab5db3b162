//! Files that contain a disk: fixed VHD and raw.

use std::fs::File;
use std::io;
use std::io::Seek;
use std::io::SeekFrom;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use uuid::Uuid;
use vhd_footer::FOOTER_LEN;
use vhd_footer::FixedVhd;
use vhd_footer::FooterError;

/// The format of a file that contains a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Container {
    /// A fixed VHD if the file ends with a VHD footer, else raw: with 512-byte sectors in a file, with the logical blocks
    /// of a block device.
    #[default]
    Detect,
    /// A fixed VHD: 512-byte sectors, followed by a footer.
    Vhd1,
    /// Raw: the disk is the whole file.
    Raw {
        /// Sector size in bytes: 512 or 4096.
        sector_size: u32,
    },
}

/// Why a file cannot be used as a disk, or cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// The file cannot be opened.
    #[error("it cannot be opened")]
    Open {
        /// Path of the file.
        path: PathBuf,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
    /// Another process has locked the file.
    #[error("another process uses it")]
    InUse {
        /// Path of the file.
        path: PathBuf,
    },
    /// The file cannot be created, read or written.
    #[error("{action} failed")]
    Io {
        /// What was attempted.
        action: String,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
    /// The length of the file is 0.
    #[error("the file is empty")]
    ZeroLength,
    /// The file's length is no whole number of sectors.
    #[error("{len} bytes are not the size of a disk image")]
    FileSize {
        /// The length.
        len: u64,
    },
    /// The file does not end in the footer of a fixed VHD, or the footer does not fit the file.
    #[error(transparent)]
    Footer(#[from] FooterError),
    /// Disks have no sectors of this size.
    #[error("sectors have 512 or 4096 bytes, not {0}")]
    SectorSize(u32),
    /// A store cannot have this size.
    #[error("{size} bytes are not the size of a store: {reason}")]
    InvalidSize {
        /// The requested size in bytes.
        size: u64,
        /// Why it is not valid.
        reason: &'static str,
    },
}

/// Location and geometry of the disk in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskShape {
    /// Sector size in bytes.
    pub sector_size: u32,
    /// Length of the disk in bytes. It starts at the beginning of the file.
    pub len: u64,
    /// The GUID in the footer, for a VHD.
    pub vhd_id: Option<Uuid>,
}

impl DiskShape {
    /// Determines the location of the disk in a file.
    pub fn of(file: &File, container: Container) -> Result<Self, ContainerError> {
        // The metadata of block devices has no length.
        let len = (&mut &*file)
            .seek(SeekFrom::End(0))
            .map_err(|source| io_error("finding the length of the file", source))?;
        if len == 0 {
            return Err(ContainerError::ZeroLength);
        }
        match container {
            Container::Vhd1 => Self::of_vhd1(file, len),
            Container::Raw { sector_size } => Self::of_raw(len, sector_size),
            Container::Detect => match Self::of_vhd1(file, len) {
                Err(ContainerError::Footer(FooterError::Missing)) => {
                    Self::of_raw(len, native_sector_size(file)?)
                }
                shape => shape,
            },
        }
    }

    fn of_raw(len: u64, sector_size: u32) -> Result<Self, ContainerError> {
        if !matches!(sector_size, 512 | 4096) {
            return Err(ContainerError::SectorSize(sector_size));
        }
        Ok(Self {
            sector_size,
            len,
            vhd_id: None,
        })
    }

    fn of_vhd1(file: &File, len: u64) -> Result<Self, ContainerError> {
        const FOOTER: u64 = FOOTER_LEN as u64;
        if !len.is_multiple_of(FOOTER) {
            return Err(ContainerError::FileSize { len });
        }
        let mut footer = [0; FOOTER_LEN];
        let available = len - FOOTER;
        file.read_exact_at(&mut footer, available)
            .map_err(|source| io_error("reading the VHD footer", source))?;
        let vhd = FixedVhd::parse(&footer, available)?;
        Ok(Self {
            sector_size: 512,
            len: vhd.size,
            vhd_id: Some(vhd.id),
        })
    }
}

/// The size of the logical blocks of a block device; 512 for a file.
fn native_sector_size(file: &File) -> Result<u32, ContainerError> {
    let is_device = file.metadata().map(|m| m.file_type().is_block_device());
    let size = is_device.and_then(|is_device| {
        Ok(match is_device {
            true => rustix::fs::ioctl_blksszget(file)?,
            false => 512,
        })
    });
    size.map_err(|source| io_error("finding the sector size of the device", source))
}

pub(crate) fn io_error(action: impl Into<String>, source: io::Error) -> ContainerError {
    ContainerError::Io {
        action: action.into(),
        source,
    }
}

/// Minimum size of a store in bytes: the header area and one block for each of the two tables.
const MIN_SIZE: u64 = 4 * vmgs_format::BLOCK_SIZE as u64;

pub(crate) fn check_size(size: u64) -> Result<(), ContainerError> {
    let reason = if size < MIN_SIZE {
        "less than 16384"
    } else if !size.is_multiple_of(512) {
        "not a multiple of 512"
    } else if size > 1 << 44 {
        "more than 16 TiB"
    } else {
        return Ok(());
    };
    Err(ContainerError::InvalidSize { size, reason })
}

/// Puts a zeroed disk of `size` bytes in `file`, which is empty: a fixed VHD with this GUID
/// (random if there is none), or a raw one.
pub fn create_file(
    file: &File,
    size: u64,
    container: Container,
    vhd_id: Option<Uuid>,
) -> Result<(), ContainerError> {
    check_size(size)?;
    file.set_len(size)
        .map_err(|source| io_error("setting the length of the file", source))?;
    if matches!(container, Container::Vhd1 | Container::Detect) {
        let id = match vhd_id {
            Some(id) => id,
            None => random_guid()
                .map_err(|source| io_error("making a random disk identifier", source))?,
        };
        file.write_all_at(&FixedVhd { size, id }.footer(), size)
            .map_err(|source| io_error("writing the VHD footer", source))?;
    }
    Ok(())
}

/// A random GUID (RFC 9562 version 4).
fn random_guid() -> io::Result<Uuid> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(len: u64, footer: Option<[u8; FOOTER_LEN]>) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(len).unwrap();
        if let Some(footer) = footer {
            file.write_all_at(&footer, len - 512).unwrap();
        }
        file
    }

    #[test]
    fn a_created_disk_is_detected() {
        let file = file(0, None);
        create_file(&file, 4 << 20, Container::Vhd1, None).unwrap();
        let shape = DiskShape::of(&file, Container::Detect).unwrap();
        assert_eq!((shape.len, shape.sector_size), (4 << 20, 512));
        assert_eq!(shape.vhd_id.unwrap().get_version_num(), 4);
        assert_eq!(file.metadata().unwrap().len(), (4 << 20) + 512);
    }

    #[test]
    fn each_fault_of_the_footer_has_its_error() {
        let vhd = FixedVhd {
            size: 1 << 20,
            id: Uuid::from_bytes([7; 16]),
        };
        let good = vhd.footer();
        let of = |len, footer| DiskShape::of(&file(len, footer), Container::Vhd1);
        assert!(matches!(of(0, None), Err(ContainerError::ZeroLength)));
        for len in [511, 513] {
            let result = of(len, None);
            assert!(matches!(result, Err(ContainerError::FileSize { .. })));
        }
        assert!(matches!(
            of(1024, None),
            Err(ContainerError::Footer(FooterError::Missing))
        ));
        let len = (1 << 20) + 512;
        assert_eq!(of(len, Some(good)).unwrap().vhd_id, Some(vhd.id));
        // Slack between disk and footer is tolerated, a disk that reaches into it is not.
        assert!(of(len + 512, Some(good)).is_ok());
        assert!(matches!(
            of(len - 512, Some(good)),
            Err(ContainerError::Footer(FooterError::Size { .. }))
        ));
        let mut bad = good;
        bad[100] = 1;
        // A damaged footer is an error for detection too: the file is not taken for a raw disk.
        for container in [Container::Vhd1, Container::Detect] {
            assert!(matches!(
                DiskShape::of(&file(len, Some(bad)), container),
                Err(ContainerError::Footer(FooterError::Checksum { .. }))
            ));
        }
    }

    #[test]
    fn invalid_sector_sizes_are_refused() {
        for sector_size in [0, 1, 513, 8192] {
            let shape = DiskShape::of(&file(8192, None), Container::Raw { sector_size });
            assert!(matches!(shape, Err(ContainerError::SectorSize(n)) if n == sector_size));
        }
    }

    #[test]
    fn the_smallest_and_the_largest_size_are_valid() {
        assert!(check_size(16384).is_ok());
        assert!(check_size(1 << 44).is_ok());
    }

    #[test]
    fn invalid_sizes_are_refused() {
        for size in [0, 16383, 16385, (1 << 44) + 512] {
            let error = create_file(&file(0, None), size, Container::Vhd1, None);
            assert!(matches!(error, Err(ContainerError::InvalidSize { .. })));
        }
    }
}
