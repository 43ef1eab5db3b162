//! Storing the firmware that is about to run.

use crate::event::Stored;
use crate::probe;
use crate::record::NewRecord;
use crate::record::Record;
use crate::record::RecordInputError;
use crate::record::RecordReader;
use crate::refusal::RefusalReason;
use crate::storage::FileChange;
use crate::storage::HibernationFile;
use crate::storage::Storage;
use crate::storage::StorageError;
use crate::storage::StorageErrorKind;
use crate::storage::StoreChange;
use error_chain::Chain;
use vmgs_format::HIBERNATION_MIN_STORE_SIZE;

/// The allocation unit of a store.
const BLOCK: u64 = vmgs_format::BLOCK_SIZE as u64;
/// The bytes that must stay free for writing a token: its block, both tables, and the block of the token that says that
/// the guest prepares to hibernate, which is in the store meanwhile.
const TOKEN_RESERVE: u64 = 4 * BLOCK;

/// Why firmware was not stored. The VM starts nevertheless.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CaptureError {
    /// No record can be made of it.
    #[error("no record can be made of the firmware")]
    Unfit(#[from] RecordInputError),
    /// The store is too small for any firmware.
    #[error("the store has {size} bytes, but at least {HIBERNATION_MIN_STORE_SIZE} are needed")]
    StoreTooSmall {
        /// The size of the store in bytes.
        size: u64,
    },
    /// There is not enough free space.
    #[error("the store is full: {needed} bytes are needed and {free} free")]
    Full {
        /// The length of the record in bytes.
        needed: u64,
        /// The free space in bytes.
        free: u64,
    },
    /// The free space is not contiguous.
    #[error(
        "the store is fragmented: {needed} contiguous bytes are needed, but of {free} free bytes at most \
         {largest_gap} are contiguous"
    )]
    Fragmented {
        /// The length of the record in bytes.
        needed: u64,
        /// The free space in bytes.
        free: u64,
        /// The length of the longest contiguous free space in bytes.
        largest_gap: u64,
    },
    /// The host's disk that holds the store is full.
    #[error("the host's disk with the store is full")]
    DiskFull(#[source] StorageError),
    /// Other programs have their data in all files that could have the record.
    #[error("every file of the store that may have the firmware has other data")]
    NoPlace,
    /// The store is read-only.
    #[error("the store is read-only")]
    ReadOnly,
    /// The store is encrypted and its key was not given.
    #[error("the store is locked")]
    Locked,
    /// The store failed.
    #[error("the store failed")]
    Store(#[source] StorageError),
}

impl CaptureError {
    /// A stable name, for events and scripts.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Unfit(_) => "image_unfit",
            Self::StoreTooSmall { .. } => "store_too_small",
            Self::Full { .. } => "store_full",
            Self::Fragmented { .. } => "store_fragmented",
            Self::DiskFull(_) => "disk_full",
            Self::NoPlace => "no_free_file",
            Self::ReadOnly => "store_read_only",
            Self::Locked => "store_locked",
            Self::Store(_) => "store_failed",
        }
    }

    /// What to do about it.
    pub(crate) fn advice(&self) -> &'static str {
        match self {
            Self::Unfit(_) => "use a firmware image that this VMM can store",
            Self::StoreTooSmall { .. } => {
                "make the store larger while the VM is off (`vmgstool grow`, to at least 32 MiB)"
            }
            Self::Full { .. } => "delete files from the store, or make it larger (`vmgstool grow`)",
            Self::Fragmented { .. } => {
                "make the store larger (`vmgstool grow`), or copy its files to a new one (`vmgstool extract`, \
                 `create`, `inject`)"
            }
            Self::DiskFull(_) => "free space on the file system that the VMGS file is on",
            Self::NoPlace => "delete one of the files 56 to 62 from the store (`vmgstool delete`)",
            Self::ReadOnly => "make the store writable",
            Self::Locked => "give the VM the store's key",
            Self::Store(_) => "check the disk that the store is on",
        }
    }

    /// The error with its causes, on one line.
    pub(crate) fn in_full(&self) -> String {
        Chain(self).to_string()
    }
}

impl From<StorageError> for CaptureError {
    fn from(error: StorageError) -> Self {
        match error.kind {
            StorageErrorKind::ReadOnly => Self::ReadOnly,
            StorageErrorKind::Locked => Self::Locked,
            StorageErrorKind::NoPlace => Self::NoPlace,
            StorageErrorKind::DiskFull => Self::DiskFull(error),
            StorageErrorKind::Corrupt | StorageErrorKind::NoSpace | StorageErrorKind::Io => {
                Self::Store(error)
            }
        }
    }
}

/// What is done with the token when the firmware is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenAtCapture {
    /// It stays.
    Keep,
    /// It is deleted in the same commit: it is corrupt, and would stop the next start if there were firmware.
    Delete,
}

impl TokenAtCapture {
    fn change(self) -> FileChange {
        match self {
            Self::Keep => FileChange::Keep,
            Self::Delete => FileChange::Delete,
        }
    }
}

/// Stores a record, unless one is there that is intact and that `is_same` says is equivalent. On failure no record remains,
/// so that a later token cannot mean an outdated one.
pub(crate) fn store(
    storage: &mut dyn Storage,
    new: &NewRecord,
    token: TokenAtCapture,
    is_same: impl Fn(&Record, &Record) -> bool,
) -> Result<(Record, Stored), CaptureError> {
    let old_len = match storage.len(HibernationFile::Record) {
        // It may be anything.
        Err(error) if error.kind == StorageErrorKind::Corrupt => None,
        len => len?,
    };
    let stored = match old_len {
        // The host's disk may have damaged the record since it was written.
        Some(len) if len == new.record().len => {
            match probe::read_with(storage, RecordReader::new(len), &mut ()) {
                Ok((old, _)) if is_same(&old, new.record()) => {
                    if token == TokenAtCapture::Delete {
                        storage.commit(StoreChange::of_token(FileChange::Delete))?;
                    }
                    return Ok((old, Stored::Unchanged));
                }
                Err(RefusalReason::CorruptImage(_)) => Stored::Repaired,
                Ok(_) | Err(_) => Stored::Written,
            }
        }
        _ => Stored::Written,
    };
    let result = replace(storage, new, token, old_len.is_some());
    if result.is_err() {
        delete_if_present(storage);
    }
    result?;
    Ok((new.record().clone(), stored))
}

fn replace(
    storage: &mut dyn Storage,
    new: &NewRecord,
    token: TokenAtCapture,
    has_old: bool,
) -> Result<(), CaptureError> {
    let state = storage.state()?;
    if state.size < HIBERNATION_MIN_STORE_SIZE {
        return Err(CaptureError::StoreTooSmall { size: state.size });
    }
    let len = new.record().len;
    let write = |storage: &mut dyn Storage| {
        let source = Box::new(new.stream());
        storage.commit(StoreChange {
            token: token.change(),
            record: FileChange::Write { len, source },
        })?;
        // Without space for the token the record is of no use.
        if storage.state()?.free < TOKEN_RESERVE {
            let error = "no space is left for a token";
            return Err(StorageError::new(StorageErrorKind::NoSpace, error));
        }
        Ok(())
    };
    let mut written = write(storage);
    if has_old
        && let Err(error) = &written
        && error.kind == StorageErrorKind::NoSpace
    {
        // No token refers to the old record, and it is not of the firmware that is about to run.
        tracing::info!("deleting the stored firmware to make space for the present one");
        if storage
            .commit(StoreChange::of_record(FileChange::Delete))
            .is_ok()
        {
            written = write(storage);
        }
    }
    written.map_err(|error| match error.kind {
        StorageErrorKind::NoSpace => match storage.state() {
            Ok(state) if state.free >= len.next_multiple_of(BLOCK) + TOKEN_RESERVE => {
                CaptureError::Fragmented {
                    needed: len,
                    free: state.free,
                    largest_gap: state.largest_gap,
                }
            }
            Ok(state) => CaptureError::Full {
                needed: len,
                free: state.free,
            },
            Err(error) => CaptureError::Store(error),
        },
        _ => error.into(),
    })
}

/// Deletes the record, so that a stored record is always that of the firmware that ran last.
pub(crate) fn delete_if_present(storage: &mut dyn Storage) {
    if let Ok(Some(_)) = storage.len(HibernationFile::Record)
        && let Err(error) = storage.commit(StoreChange::of_record(FileChange::Delete))
    {
        tracing::warn!(%error, "the stored firmware is outdated and could not be deleted");
    }
}
