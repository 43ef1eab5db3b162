//! Growing a store.

use crate::container::Container;
use crate::container::ContainerError;
use crate::container::check_size;
use crate::container::create_file;
use crate::container::io_error;
use crate::device::FileDevice;
use crate::options::StoreAccess;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A reader that reports the length of each read.
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

/// Grows the disk in the file at `path` to `size` bytes. The store on it can use the new space at once.
///
/// The file is replaced by a larger copy, so that a crash leaves the old or the new file. Programs that
/// have the old file open keep it. `progress` is called with the length of each copied piece in bytes.
pub fn grow_file(
    path: &Path,
    container: Container,
    size: u64,
    progress: impl FnMut(u64),
) -> Result<(), ContainerError> {
    check_size(size)?;
    let old = FileDevice::open(path, container, StoreAccess::ReadWrite)?;
    let shape = *old.shape();
    if size < shape.len {
        return Err(ContainerError::InvalidSize {
            size,
            reason: "less than the store has now",
        });
    }
    // Resolve symbolic links, to replace the file that they refer to.
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
                format!("syncing the directory of {}", path.display()),
                source,
            )
        })
}
