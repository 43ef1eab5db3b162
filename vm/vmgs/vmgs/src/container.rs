//! What a store's disk is wrapped in, and making and growing such files.

use std::fs::File;
use std::io;
use std::io::Seek;
use std::io::SeekFrom;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::path::PathBuf;
use uuid::Uuid;
use vhd_footer::FOOTER_LEN;
use vhd_footer::FixedVhd;
use vhd_footer::FooterError;

/// How a disk is stored in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Container {
    /// A fixed VHD if the file ends in such a footer, else raw with 512-byte sectors.
    #[default]
    Detect,
    /// A fixed VHD: 512-byte sectors, and a footer behind the last.
    Vhd1,
    /// All of the file, with sectors of this many bytes.
    Raw {
        /// 512 or 4096.
        sector_size: u32,
    },
}

/// Why a file is no disk.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// The file cannot be opened.
    #[error("opening {} failed", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process uses the file.
    #[error("{} is in use by another process", path.display())]
    InUse {
        /// Which.
        path: PathBuf,
    },
    /// The file cannot be made, read or written.
    #[error("{action} failed")]
    Io {
        /// What was attempted.
        action: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file has no bytes at all.
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
    /// A disk of this size cannot be made.
    #[error("{size} bytes are not the size of a store: {reason}")]
    InvalidSize {
        /// The size asked for.
        size: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// Where in a file a disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskShape {
    /// Bytes in a sector.
    pub sector_size: u32,
    /// Bytes of the disk, which starts where the file does.
    pub len: u64,
    /// The GUID in the footer, for a VHD.
    pub vhd_id: Option<Uuid>,
}

impl DiskShape {
    /// Finds the disk in a file.
    pub fn of(file: &File, container: Container) -> Result<Self, ContainerError> {
        // Block devices have no length in their metadata.
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
                Err(ContainerError::Footer(FooterError::Missing)) => Self::of_raw(len, 512),
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

fn io_error(action: impl Into<String>, source: io::Error) -> ContainerError {
    ContainerError::Io {
        action: action.into(),
        source,
    }
}

/// The smallest disk that [`create_file`] makes: headers, and blocks for the two tables.
const MIN_SIZE: u64 = 4 * vmgs_format::BLOCK_SIZE as u64;

fn check_size(size: u64) -> Result<(), ContainerError> {
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

/// A source that tells how much is read from it.
struct Counted<R, F> {
    source: R,
    progress: F,
}

impl<R: io::Read, F: FnMut(u64)> io::Read for Counted<R, F> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.source.read(buf)?;
        (self.progress)(len as u64);
        Ok(len)
    }
}

/// Makes the disk in the file at `path` `size` bytes large. The store on it has the room at once.
///
/// The file is replaced by a larger copy, so that a crash leaves the one or the other; programs that
/// have it open keep the old one. `progress` is told how many bytes each piece of the copy has.
pub fn grow_file(
    path: &Path,
    container: Container,
    size: u64,
    progress: impl FnMut(u64),
) -> Result<(), ContainerError> {
    check_size(size)?;
    let old = crate::FileDevice::open(path, container, crate::Access::ReadWrite)?;
    let shape = *old.shape();
    if size < shape.len {
        return Err(ContainerError::InvalidSize {
            size,
            reason: "less than the store has now",
        });
    }
    // Through symbolic links: what they lead to is to be replaced.
    let path = path
        .canonicalize()
        .map_err(|source| io_error(format!("resolving {}", path.display()), source))?;
    let copying = |source| io_error(format!("copying {}", path.display()), source);
    let mut from = File::open(&path).map_err(copying)?;
    let metadata = from.metadata().map_err(copying)?;
    if !metadata.is_file() {
        return Err(ContainerError::InvalidSize {
            size,
            reason: "only a file can be grown",
        });
    }
    let directory = path.parent().unwrap_or(Path::new("/"));
    let mut to = tempfile::NamedTempFile::new_in(directory).map_err(copying)?;
    let mut counted = Counted {
        source: io::Read::take(&mut from, shape.len),
        progress,
    };
    io::copy(&mut counted, to.as_file_mut()).map_err(copying)?;
    let container = match shape.vhd_id {
        Some(_) => Container::Vhd1,
        None => Container::Raw {
            sector_size: shape.sector_size,
        },
    };
    create_file(to.as_file(), size, container, shape.vhd_id)?;
    to.as_file()
        .set_permissions(metadata.permissions())
        .and_then(|()| {
            use std::os::unix::fs::MetadataExt;
            std::os::unix::fs::fchown(to.as_file(), Some(metadata.uid()), Some(metadata.gid()))
        })
        .and_then(|()| to.as_file().sync_all())
        .map_err(copying)?;
    to.persist(&path)
        .map_err(|error| io_error(format!("replacing {}", path.display()), error.error))?;
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|source| {
            io_error(
                format!("making the change of {} durable", path.display()),
                source,
            )
        })
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
    fn a_created_file_is_found_again() {
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
    fn impossible_sectors_are_refused() {
        for sector_size in [0, 1, 513, 8192] {
            let shape = DiskShape::of(&file(8192, None), Container::Raw { sector_size });
            assert!(matches!(shape, Err(ContainerError::SectorSize(n)) if n == sector_size));
        }
    }

    #[test]
    fn impossible_sizes_are_refused() {
        for size in [0, 16383, 16385, (1 << 44) + 512] {
            let error = create_file(&file(0, None), size, Container::Vhd1, None);
            assert!(matches!(error, Err(ContainerError::InvalidSize { .. })));
        }
    }
}
