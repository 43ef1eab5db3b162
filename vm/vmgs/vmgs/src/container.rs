//! Files that contain a disk: fixed VHD and raw.

use std::fs::File;
use std::io;
use std::io::Seek;
use std::io::SeekFrom;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use vmgs_format::vhd1::FOOTER_LEN;
use vmgs_format::vhd1::Footer;
use zerocopy::FromZeros;
use zerocopy::IntoBytes;

/// The format of a file that contains a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Container {
    /// A fixed VHD if the file ends with a VHD footer, else raw with 512-byte sectors.
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
    #[error("opening {} failed", path.display())]
    Open {
        /// Path of the file.
        path: PathBuf,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
    /// Another process has locked the file.
    #[error("{} is in use by another process", path.display())]
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
    /// The file does not end in a VHD footer.
    #[error("the file has no VHD footer")]
    NoFooter,
    /// The footer is damaged.
    #[error("the checksum of the VHD footer is wrong")]
    FooterChecksum,
    /// The footer is of another version.
    #[error("VHD version {0:#x} is not supported")]
    FooterVersion(u32),
    /// The disk is a dynamic or differencing one.
    #[error("VHD disk type {0} is not supported, only fixed disks (2)")]
    DiskType(u32),
    /// The footer and the file disagree about the size of the disk.
    #[error("the VHD footer has a disk of {size} bytes, which the file of {len} bytes cannot have")]
    DiskSize {
        /// What the footer says.
        size: u64,
        /// The length of the file.
        len: u64,
    },
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
    pub vhd_id: Option<[u8; 16]>,
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
                Err(ContainerError::NoFooter) => Self::of_raw(len, 512),
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
        if len < FOOTER || !len.is_multiple_of(FOOTER) {
            return Err(ContainerError::FileSize { len });
        }
        let mut footer = Footer::new_zeroed();
        file.read_exact_at(footer.as_mut_bytes(), len - FOOTER)
            .map_err(|source| io_error("reading the VHD footer", source))?;
        if footer.cookie != Footer::COOKIE {
            return Err(ContainerError::NoFooter);
        }
        if footer.checksum.get() != footer.expected_checksum() {
            return Err(ContainerError::FooterChecksum);
        }
        if footer.format_version.get() != Footer::FORMAT_VERSION {
            return Err(ContainerError::FooterVersion(footer.format_version.get()));
        }
        if footer.disk_type.get() != Footer::FIXED {
            return Err(ContainerError::DiskType(footer.disk_type.get()));
        }
        let size = footer.current_size.get();
        if size > len - FOOTER || !size.is_multiple_of(FOOTER) {
            return Err(ContainerError::DiskSize { size, len });
        }
        Ok(Self {
            sector_size: 512,
            len: size,
            vhd_id: Some(footer.unique_id),
        })
    }
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

/// Puts a zeroed disk of `size` bytes in `file`, which is empty: a fixed VHD with this GUID (in
/// mixed-endian byte order; random if there is none), or a raw one.
pub fn create_file(
    file: &File,
    size: u64,
    container: Container,
    vhd_id: Option<[u8; 16]>,
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
        file.write_all_at(Footer::fixed(size, id).as_bytes(), size)
            .map_err(|source| io_error("writing the VHD footer", source))?;
    }
    Ok(())
}

/// A random GUID (RFC 9562 version 4) in mixed-endian byte order.
fn random_guid() -> io::Result<[u8; 16]> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(io::Error::other)?;
    // The version is in the high byte of the third, little-endian, field.
    id[7] = id[7] & 0x0f | 0x40;
    id[8] = id[8] & 0x3f | 0x80;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(len: u64, footer: Option<Footer>) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(len).unwrap();
        if let Some(footer) = footer {
            file.write_all_at(footer.as_bytes(), len - 512).unwrap();
        }
        file
    }

    #[test]
    fn a_created_disk_is_detected() {
        let file = file(0, None);
        create_file(&file, 4 << 20, Container::Vhd1, None).unwrap();
        let shape = DiskShape::of(&file, Container::Detect).unwrap();
        assert_eq!((shape.len, shape.sector_size), (4 << 20, 512));
        let id = shape.vhd_id.unwrap();
        assert_eq!((id[7] >> 4, id[8] >> 6), (4, 2));
        assert_eq!(file.metadata().unwrap().len(), (4 << 20) + 512);
    }

    #[test]
    fn each_fault_of_the_footer_has_its_error() {
        let good = Footer::fixed(1 << 20, [7; 16]);
        let of = |len, footer| DiskShape::of(&file(len, footer), Container::Vhd1);
        let rechecked = |mut footer: Footer| {
            footer.checksum = footer.expected_checksum().into();
            Some(footer)
        };
        assert!(matches!(of(0, None), Err(ContainerError::ZeroLength)));
        assert!(matches!(
            of(511, None),
            Err(ContainerError::FileSize { .. })
        ));
        assert!(matches!(
            of(513, None),
            Err(ContainerError::FileSize { .. })
        ));
        assert!(matches!(of(1024, None), Err(ContainerError::NoFooter)));
        let len = (1 << 20) + 512;
        assert!(of(len, Some(good)).is_ok());
        // Slack between disk and footer is tolerated, a disk that reaches into it is not.
        assert!(of(len + 512, Some(good)).is_ok());
        assert!(matches!(
            of(len - 512, Some(good)),
            Err(ContainerError::DiskSize { .. })
        ));
        let mut bad = good;
        bad.reserved[0] = 1;
        assert!(matches!(
            of(len, Some(bad)),
            Err(ContainerError::FooterChecksum)
        ));
        let mut bad = good;
        bad.format_version = 2.into();
        assert!(matches!(
            of(len, rechecked(bad)),
            Err(ContainerError::FooterVersion(2))
        ));
        let mut bad = good;
        bad.disk_type = 3.into();
        assert!(matches!(
            of(len, rechecked(bad)),
            Err(ContainerError::DiskType(3))
        ));
        let mut bad = good;
        bad.current_size = 513.into();
        assert!(matches!(
            of(len, rechecked(bad)),
            Err(ContainerError::DiskSize { .. })
        ));
    }

    #[test]
    fn invalid_sector_sizes_are_refused() {
        for sector_size in [0, 1, 513, 8192] {
            let shape = DiskShape::of(&file(8192, None), Container::Raw { sector_size });
            assert!(matches!(shape, Err(ContainerError::SectorSize(n)) if n == sector_size));
        }
    }

    #[test]
    fn invalid_sizes_are_refused() {
        for size in [0, 16383, 16385, (1 << 44) + 512] {
            let error = create_file(&file(0, None), size, Container::Vhd1, None);
            assert!(matches!(error, Err(ContainerError::InvalidSize { .. })));
        }
    }
}
