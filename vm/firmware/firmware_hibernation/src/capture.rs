//! Storing the firmware that is about to run.

use crate::event::Stored;
use crate::record::NewRecord;
use crate::record::Record;
use crate::record::RecordInputError;
use crate::record::decode_start;
use crate::storage::FileChange;
use crate::storage::HibernationFile;
use crate::storage::Storage;
use crate::storage::StorageError;
use crate::storage::StorageErrorKind;
use crate::storage::StoreChange;
use error_chain::Chain;
use vmgs_format::FIRMWARE_RECORD_HEADER_LEN;
use vmgs_format::FIRMWARE_RECORD_SECTION_LEN;
use vmgs_format::HIBERNATION_MIN_STORE_SIZE;

/// The allocation unit of a store.
const BLOCK: u64 = vmgs_format::BLOCK_SIZE as u64;
/// The bytes that must stay free for writing a token: its block and both tables.
const TOKEN_RESERVE: u64 = 3 * BLOCK;

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

/// Stores a record, unless one is there that `is_same` says is equivalent. On failure no record remains, so that a later
/// token cannot mean an outdated one.
pub(crate) fn store(
    storage: &mut dyn Storage,
    new: &NewRecord,
    is_same: impl Fn(&Record, &Record) -> bool,
) -> Result<(Record, Stored), CaptureError> {
    let record = new.record();
    let old_len = storage
        .len(HibernationFile::Record)
        .map_err(CaptureError::Store)?;
    if old_len == Some(record.len) {
        let start =
            FIRMWARE_RECORD_HEADER_LEN + record.sections.len() * FIRMWARE_RECORD_SECTION_LEN;
        if let Ok(start) = storage.read_start(HibernationFile::Record, start)
            && let Ok(old) = decode_start(&start)
            && is_same(&old, record)
        {
            return Ok((old, Stored::Unchanged));
        }
    }
    let result = replace(storage, new, old_len.is_some());
    if result.is_err() {
        delete_if_present(storage);
    }
    result?;
    Ok((record.clone(), Stored::Written))
}

fn replace(storage: &mut dyn Storage, new: &NewRecord, has_old: bool) -> Result<(), CaptureError> {
    let state = storage.state().map_err(CaptureError::Store)?;
    if state.size < HIBERNATION_MIN_STORE_SIZE {
        return Err(CaptureError::StoreTooSmall { size: state.size });
    }
    let len = new.record().len;
    let write = |storage: &mut dyn Storage| {
        storage.commit(StoreChange::of_record(FileChange::Write {
            len,
            source: Box::new(new.stream()),
        }))?;
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
        StorageErrorKind::ReadOnly => CaptureError::ReadOnly,
        StorageErrorKind::Locked => CaptureError::Locked,
        StorageErrorKind::DiskFull => CaptureError::DiskFull(error),
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
        StorageErrorKind::Corrupt | StorageErrorKind::Io => CaptureError::Store(error),
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
