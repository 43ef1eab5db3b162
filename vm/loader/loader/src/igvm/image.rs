//! A file in memory.

use super::IgvmLoadError;
use super::IgvmProblem;
use crate::ImageFile;
use igvm_format::IgvmFile;
use igvm_format::MAX_FILE;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

/// An IGVM file that was read. Later changes of the file do not matter.
#[derive(Debug, Clone)]
pub struct IgvmImage {
    path: PathBuf,
    bytes: Arc<[u8]>,
}

impl IgvmImage {
    /// Reads all of `file`.
    pub fn read(file: &ImageFile) -> Result<Self, IgvmLoadError> {
        let (path, len) = (file.path(), file.len());
        if len > MAX_FILE {
            return Err(IgvmLoadError::new(path, IgvmProblem::TooLarge { len }));
        }
        let mut bytes: Arc<[u8]> = std::iter::repeat_n(0, len as usize).collect();
        if let Some(bytes) = Arc::get_mut(&mut bytes) {
            file.read_at(0, bytes)?;
        }
        Ok(Self {
            path: path.into(),
            bytes,
        })
    }

    /// The file with this content, called `path` in errors.
    pub fn new(path: &Path, bytes: Arc<[u8]>) -> Self {
        Self {
            path: path.into(),
            bytes,
        }
    }

    /// The name of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's bytes.
    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }

    /// Parses and validates it.
    pub fn parse(&self) -> Result<IgvmFile<'_>, IgvmLoadError> {
        IgvmFile::parse(&self.bytes).map_err(|error| IgvmLoadError::new(&self.path, error))
    }
}
