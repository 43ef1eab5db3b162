//! The files behind a qcow2 image.

use crate::FileDiskError;
use crate::open;
use crate::qcow2::Qcow2Error;
use crate::qcow2::header::Backing;
use crate::qcow2::header::Header;
use disk_backend::DiskAccess;
use imago::FormatAccess;
use imago::file::File as Storage;
use imago::qcow2::Qcow2;
use imago::raw::Raw;
use std::fs::File;
use std::path::Path;
use std::path::PathBuf;

/// The most files behind each other.
const MAX_CHAIN: usize = 64;

/// The guest cannot name a backing file, but whoever made the image can. So a backing file must be in the directory of
/// its image or below, and say its format: otherwise an image could show the guest any file of the host.
pub(crate) fn locate(image: &Path, backing: &Backing) -> Result<PathBuf, Qcow2Error> {
    let refused = |reason| Qcow2Error::Backing {
        name: backing.name.clone(),
        reason,
    };
    let missing = |source| Qcow2Error::Io {
        operation: "find its backing file",
        source,
    };
    if backing.format.is_none() {
        return Err(refused(
            "the image does not say its format; `qemu-img rebase -u -F FORMAT -b NAME` adds that",
        ));
    }
    let image = image.canonicalize().map_err(missing)?;
    let directory = image.parent().unwrap_or(Path::new("/"));
    // An absolute name replaces the directory.
    let path = directory.join(&backing.name);
    let path = path
        .canonicalize()
        .map_err(|source| Qcow2Error::OpenBacking {
            name: backing.name.clone(),
            source: Box::new(FileDiskError::Open {
                path: path.clone(),
                source,
            }),
        })?;
    if !path.starts_with(directory) {
        return Err(refused(
            "it is outside of the directory of the image; move it there, or make one image of both by `qemu-img convert`",
        ));
    }
    Ok(path)
}

/// Opens and locks the file behind the image at `path`, and all behind that. They are only read.
pub(crate) fn open_behind(
    image: &Path,
    header: &Header,
    depth: usize,
) -> Result<Option<FormatAccess<Storage>>, Qcow2Error> {
    let Some(backing) = &header.backing else {
        return Ok(None);
    };
    let path = locate(image, backing)?;
    let refused = |reason| Qcow2Error::Backing {
        name: backing.name.clone(),
        reason,
    };
    if depth == MAX_CHAIN {
        return Err(refused("there are too many files behind each other"));
    }
    let failed = |source| Qcow2Error::OpenBacking {
        name: backing.name.clone(),
        source: Box::new(source),
    };
    let file = open::open_locked(&path, DiskAccess::ReadOnly).map_err(failed)?;
    let format = match backing.format.as_deref() {
        Some("raw" | "file" | "host_device") => raw(file),
        Some("qcow2") => qcow2(file, &path, DiskAccess::ReadOnly, depth + 1),
        _ => return Err(refused("only raw and qcow2 files can be behind an image")),
    };
    let format = format.map_err(|source| {
        let source = Box::new(source);
        failed(FileDiskError::Qcow2 { path, source })
    });
    format.map(Some)
}

fn raw(file: File) -> Result<FormatAccess<Storage>, Qcow2Error> {
    let io = |source| Qcow2Error::Io {
        operation: "open the raw file",
        source,
    };
    let storage = Storage::try_from(file).map_err(io)?;
    Ok(FormatAccess::new(
        Raw::open_image(storage, false).map_err(io)?,
    ))
}

/// Opens the locked image in `file`, which is at `path`, with all files behind it.
pub(crate) fn qcow2(
    file: File,
    path: &Path,
    access: DiskAccess,
    depth: usize,
) -> Result<FormatAccess<Storage>, Qcow2Error> {
    let header = Header::read(&file)?;
    // First, because the image is changed when it is opened for writing.
    let backing = open_behind(path, &header, depth)?;
    let io = |source| Qcow2Error::Io {
        operation: "open the image",
        source,
    };
    let storage = Storage::try_from(file).map_err(io)?;
    let mut image =
        Qcow2::<Storage>::open_image(storage, access == DiskAccess::ReadWrite).map_err(io)?;
    image.set_data_file(None);
    image.set_backing(backing);
    Ok(FormatAccess::new(image))
}
