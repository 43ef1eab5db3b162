//! Files that are made for disks.

use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::path::PathBuf;

/// A file that was made for a disk. It is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct CreatedFile {
    /// `None` if it stays.
    path: Option<PathBuf>,
    file: File,
}

impl CreatedFile {
    /// Creates the file at `path`, raw and zero, unless it exists.
    pub(crate) fn create(path: &Path, size: u64) -> io::Result<Option<Self>> {
        let created = match OpenOptions::new().write(true).create_new(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
            result => Self {
                file: result?,
                path: Some(path.to_owned()),
            },
        };
        created.file.set_len(size)?;
        Ok(Some(created))
    }

    /// The file is not removed.
    pub(crate) fn stays(mut self) {
        self.path = None;
    }

    fn is_at(&self, path: &Path) -> io::Result<bool> {
        let (own, found) = (self.file.metadata()?, path.symlink_metadata()?);
        Ok((own.dev(), own.ino()) == (found.dev(), found.ino()))
    }
}

impl Drop for CreatedFile {
    fn drop(&mut self) {
        let Some(path) = &self.path else { return };
        // Somebody else may have replaced it.
        if self.is_at(path).unwrap_or(false)
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::warn!(path = %path.display(), %error, "the new disk cannot be removed");
        }
    }
}
