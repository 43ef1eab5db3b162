//! qcow2 images, by the crate `imago`.

mod backing;
mod disk;
mod header;

pub use header::Qcow2Error;

use crate::FileDiskError;
pub(crate) use disk::Qcow2Disk;
pub(crate) use header::Header;
use std::fs::File;
use std::path::Path;

/// Checks that the image in `file`, which is at `path`, is supported, and that the file behind it can be found.
pub(crate) fn check(file: &File, path: &Path) -> Result<(), FileDiskError> {
    let located = Header::read(file).and_then(|header| match &header.backing {
        Some(backing) => backing::locate(path, backing).map(|_| ()),
        None => Ok(()),
    });
    located.map_err(|source| FileDiskError::Qcow2 {
        path: path.to_owned(),
        source: Box::new(source),
    })
}
