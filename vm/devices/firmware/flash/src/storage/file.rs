//! Storage in a file.

use super::Atomicity;
use super::FlashStorage;
use super::FlashStorageError;
use super::Update;
use crate::BLOCK_SIZE;
use crate::MAX_SIZE;
use std::fs::File;
use std::fs::OpenOptions;
use std::fs::TryLockError;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::path::PathBuf;

/// An image file, such as `VARS.fd`, which is changed in place.
///
/// Each change is written and synchronized (`fdatasync`) before the next one is written. After a power failure the file
/// has a content that the chip had at some time, provided that the host's disk writes 4 KiB atomically.
#[derive(Debug)]
pub struct FileStorage {
    file: File,
    path: PathBuf,
    len: u64,
}

/// Why a file cannot be the storage of a chip.
#[derive(Debug, thiserror::Error)]
pub enum FileStorageError {
    /// An operation failed.
    #[error("cannot {operation} the variable store {}", path.display())]
    Io {
        /// The operation.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The host's error.
        #[source]
        source: io::Error,
    },
    /// It is not a regular file.
    #[error("the variable store {} is not a regular file", path.display())]
    NotRegular {
        /// The path.
        path: PathBuf,
    },
    /// Another VM uses it.
    #[error("the variable store {} is in use by another VM; each VM needs its own copy", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The length is not that of a flash image.
    #[error(
        "the variable store {} has {len} bytes; a flash image has a multiple of {BLOCK_SIZE}, up to {MAX_SIZE}",
        path.display()
    )]
    Size {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        len: u64,
    },
}

fn failed<'a>(
    operation: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> FileStorageError + use<'a> {
    move |source| FileStorageError::Io {
        operation,
        path: path.into(),
        source,
    }
}

impl FileStorage {
    /// Opens the file for reading and writing, and locks it for as long as the storage exists. Also returns its content.
    pub fn open(path: &Path) -> Result<(Self, Vec<u8>), FileStorageError> {
        // Checked before the file is opened, because opening a pipe would block.
        let metadata = std::fs::metadata(path).map_err(failed("open", path))?;
        if !metadata.is_file() {
            return Err(FileStorageError::NotRegular { path: path.into() });
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(failed("open for writing", path))?;
        Self::lock(&file, path)?;
        let len = file
            .metadata()
            .map_err(failed("get the size of", path))?
            .len();
        if len == 0 || len > MAX_SIZE || !len.is_multiple_of(BLOCK_SIZE as u64) {
            return Err(FileStorageError::Size {
                path: path.into(),
                len,
            });
        }
        let mut content = vec![0; len as usize];
        file.read_exact_at(&mut content, 0)
            .map_err(failed("read", path))?;
        let storage = Self {
            file,
            path: path.into(),
            len,
        };
        Ok((storage, content))
    }

    /// Creates a file with `content`, such as that of a template, and opens it. The file appears at `path` when it is
    /// complete. An existing file is not replaced.
    pub fn create(path: &Path, content: &[u8]) -> Result<(Self, Vec<u8>), FileStorageError> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.new", std::process::id()));
        let new = path.with_file_name(name);
        let created = Self::write_new(&new, content)
            // A link, unlike a rename, never replaces an existing file.
            .and_then(|()| std::fs::hard_link(&new, path).map_err(failed("create", path)));
        // The file has two names now, or could not be created.
        let removed = std::fs::remove_file(&new);
        created?;
        if let Err(error) = removed {
            tracing::warn!(path = %new.display(), %error, "cannot remove a temporary file");
        }
        host_file::sync_directory(path).map_err(failed("synchronize the folder of", path))?;
        Self::open(path)
    }

    fn write_new(path: &Path, content: &[u8]) -> Result<(), FileStorageError> {
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(path);
        let file = file.map_err(failed("create", path))?;
        file.write_all_at(content, 0)
            .and_then(|()| file.sync_all())
            .map_err(failed("write", path))
    }

    fn lock(file: &File, path: &Path) -> Result<(), FileStorageError> {
        match file.try_lock() {
            Ok(()) => Ok(()),
            Err(TryLockError::WouldBlock) => Err(FileStorageError::InUse { path: path.into() }),
            // Some file systems do not support locks.
            Err(TryLockError::Error(error)) => {
                tracing::warn!(path = %path.display(), %error, "cannot lock the variable store");
                Ok(())
            }
        }
    }
}

impl Drop for FileStorage {
    fn drop(&mut self) {
        // Closing is not enough: a child process that another thread is starting has the file open too, until it
        // executes its program.
        let _ = self.file.unlock();
    }
}

impl FlashStorage for FileStorage {
    fn atomicity(&self) -> Atomicity {
        Atomicity::Block
    }

    fn persist(&mut self, update: Update<'_>) -> Result<(), FlashStorageError> {
        if update.image.len() as u64 != self.len {
            return Err(format!(
                "the file has {} bytes, but the chip has {}",
                self.len,
                update.image.len()
            )
            .into());
        }
        for (offset, block) in update.changes() {
            self.file.write_all_at(block, offset)?;
        }
        Ok(self.file.sync_data()?)
    }

    fn describe(&self) -> String {
        format!("file {}", self.path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open_error(path: &Path) -> FileStorageError {
        FileStorage::open(path).unwrap_err()
    }

    #[test]
    fn only_changed_blocks_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("VARS.fd");
        let (mut storage, mut image) = FileStorage::create(&path, &[7; 3 * BLOCK_SIZE]).unwrap();
        assert_eq!(image, [7; 3 * BLOCK_SIZE]);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        image.fill(8);
        let update = Update {
            image: &image,
            blocks: &[0, 2],
        };
        storage.persist(update).unwrap();
        let content = std::fs::read(&path).unwrap();
        let expected = [[8; BLOCK_SIZE], [7; BLOCK_SIZE], [8; BLOCK_SIZE]];
        assert_eq!(content, expected.concat());
        let short = Update {
            image: &image[..BLOCK_SIZE],
            blocks: &[],
        };
        assert!(storage.persist(short).is_err());
    }

    #[test]
    fn a_file_is_used_by_one_vm_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("VARS.fd");
        let (storage, _) = FileStorage::create(&path, &[7; BLOCK_SIZE]).unwrap();
        assert!(matches!(open_error(&path), FileStorageError::InUse { .. }));
        drop(storage);
        FileStorage::open(&path).unwrap();
    }

    #[test]
    fn invalid_files_are_refused_and_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("VARS.fd");
        assert!(matches!(open_error(&path), FileStorageError::Io { .. }));
        let open = open_error(folder.path());
        assert!(matches!(open, FileStorageError::NotRegular { .. }));
        for len in [0, 1, BLOCK_SIZE as u64 + 1, MAX_SIZE + BLOCK_SIZE as u64] {
            File::create(&path).unwrap().set_len(len).unwrap();
            let error = open_error(&path);
            assert!(matches!(error, FileStorageError::Size { len: l, .. } if l == len));
        }
        let error = FileStorage::create(&path, &[7; BLOCK_SIZE]).unwrap_err();
        assert!(matches!(error, FileStorageError::Io { .. }), "{error}");
        assert!(path.metadata().unwrap().len() > MAX_SIZE);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    /// The kernel refuses to synchronize a device that has nothing to synchronize.
    #[test]
    fn what_was_stored_is_synchronized() {
        let mut storage = FileStorage {
            file: File::open("/dev/zero").unwrap(),
            path: "/dev/zero".into(),
            len: BLOCK_SIZE as u64,
        };
        let image = vec![0; BLOCK_SIZE];
        let update = Update {
            image: &image,
            blocks: &[],
        };
        let error = storage.persist(update).unwrap_err();
        let error = error.downcast::<io::Error>().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
