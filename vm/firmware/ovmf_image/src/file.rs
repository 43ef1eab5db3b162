//! Firmware in files.

use crate::error::ImageError;
use crate::image;
use crate::image::FirmwareKind;
use crate::image::Region;
use std::fs::File;
use std::io;
use std::io::Read as _;
use std::path::Path;
use std::path::PathBuf;

/// The number of bytes that are read of a file that is too large.
const START: usize = 4096;

/// A firmware image that was read from a file.
#[derive(Debug, Clone)]
pub struct FirmwareFile {
    bytes: Vec<u8>,
    kind: FirmwareKind,
}

/// Why a file cannot be used as firmware.
#[derive(Debug, thiserror::Error)]
pub enum FirmwareFileError {
    /// It cannot be read.
    #[error("cannot {operation} the firmware {}", path.display())]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// It is a directory, a device, or something else.
    #[error("the firmware {} is not a regular file", path.display())]
    NotRegular {
        /// The path.
        path: PathBuf,
    },
    /// It is not firmware for this machine.
    #[error("{} cannot be used as firmware", path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: ImageError,
    },
}

impl FirmwareFile {
    /// Reads the file and recognizes its content.
    pub fn open(path: &Path) -> Result<Self, FirmwareFileError> {
        let failed = |operation| {
            move |source| FirmwareFileError::Io {
                operation,
                path: path.into(),
                source,
            }
        };
        let refused = |source| FirmwareFileError::Image {
            path: path.into(),
            source,
        };
        // Before opening: opening a FIFO would wait for a writer.
        let metadata = std::fs::metadata(path).map_err(failed("open"))?;
        if !metadata.is_file() {
            return Err(FirmwareFileError::NotRegular { path: path.into() });
        }
        let mut file = File::open(path).map_err(failed("open"))?;
        let len = file.metadata().map_err(failed("look at"))?.len();
        let mut bytes = Vec::new();
        (&mut file)
            .take(START as u64)
            .read_to_end(&mut bytes)
            .map_err(failed("read"))?;
        image::check_size(len, &bytes).map_err(refused)?;
        // Bounded: the file may grow while it is read.
        file.take(crate::MAX_SIZE + 1 - bytes.len() as u64)
            .read_to_end(&mut bytes)
            .map_err(failed("read"))?;
        Self::new(path, bytes)
    }

    /// Recognizes firmware that was read from `path`, perhaps as a part of it.
    pub fn new(path: &Path, bytes: Vec<u8>) -> Result<Self, FirmwareFileError> {
        let kind = FirmwareKind::recognize(&bytes).map_err(|source| FirmwareFileError::Image {
            path: path.into(),
            source,
        })?;
        Ok(Self { bytes, kind })
    }

    /// What kind of firmware it is.
    pub fn kind(&self) -> &FirmwareKind {
        &self.kind
    }

    /// The whole image.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes of a region that [`kind`](Self::kind) names.
    pub fn region(&self, region: &Region) -> &[u8] {
        self.bytes.get(region.range.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::constructed;
    use crate::constructed::Smm;

    #[test]
    fn errors_name_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("any name");
        let image = constructed::combined(2 << 20, Smm::Without);
        std::fs::write(&path, &image).unwrap();
        let file = FirmwareFile::open(&path).unwrap();
        assert!(file.bytes == image);
        let FirmwareKind::Ovmf(ovmf) = file.kind() else {
            panic!("{:?}", file.kind());
        };
        assert!(file.region(&ovmf.code) == &image[0x2_0000..]);

        std::fs::write(&path, &image[..image.len() - 0x1000]).unwrap();
        let error = FirmwareFile::open(&path).unwrap_err();
        assert!(error.to_string().contains("any name"), "{error}");
        let error = FirmwareFile::open(folder.path()).unwrap_err();
        assert!(matches!(error, FirmwareFileError::NotRegular { .. }));
        let error = FirmwareFile::open(&folder.path().join("absent")).unwrap_err();
        assert!(matches!(error, FirmwareFileError::Io { .. }));
    }

    #[test]
    fn a_file_that_is_too_large_is_refused_unread() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large");
        let file = File::create(&path).unwrap();
        // Reading it would run out of memory.
        file.set_len(1 << 42).unwrap();
        let open = || match FirmwareFile::open(&path).unwrap_err() {
            FirmwareFileError::Image { source, .. } => source,
            error => panic!("{error}"),
        };
        assert_eq!(open(), ImageError::TooLarge { len: 1 << 42 });
        // Filled up with zeros, as distributions do.
        file.set_len(0).unwrap();
        std::fs::write(&path, [0x00, 0x04, 0x00, 0x14]).unwrap();
        file.set_len(64 << 20).unwrap();
        assert_eq!(open(), ImageError::Architecture("64-bit Arm"));
    }
}
