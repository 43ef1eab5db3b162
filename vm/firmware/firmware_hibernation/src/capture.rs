//! Storing the firmware that is about to run.

use crate::event::Stored;
use crate::record::NewRecord;
use crate::record::Record;
use crate::record::RecordInputError;
use crate::record::decode_start;
use crate::storage::Change;
use crate::storage::HibernationFile;
use crate::storage::Storage;
use crate::storage::StorageError;
use crate::storage::StorageErrorKind;
use error_chain::Chain;
use vmgs_format::FIRMWARE_RECORD_HEADER_LEN;
use vmgs_format::FIRMWARE_RECORD_SECTION_LEN;
use vmgs_format::HIBERNATION_MIN_STORE_SIZE;

/// What a store allocates at a time.
const BLOCK: u64 = vmgs_format::BLOCK_SIZE as u64;
/// Bytes that have to stay free for a token to be written: its block, and both tables.
const TOKEN_RESERVE: u64 = 3 * BLOCK;

/// Why firmware was not stored. The VM starts all the same.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// No record can be made of it.
    #[error("no record can be made of it")]
    Unfit(#[from] RecordInputError),
    /// The store is too small for any firmware.
    #[error("the store has {size} bytes, and at least {HIBERNATION_MIN_STORE_SIZE} are needed")]
    StoreTooSmall {
        /// Bytes of the store.
        size: u64,
    },
    /// There is no room.
    #[error("the store is full: {needed} bytes are needed and {free} free")]
    Full {
        /// Bytes of the record.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// There is room, but not in one run.
    #[error(
        "the store is fragmented: {needed} bytes are needed in one run, and of {free} free the longest \
         run has {largest_gap}"
    )]
    Fragmented {
        /// Bytes of the record.
        needed: u64,
        /// Bytes that are free.
        free: u64,
        /// Bytes in the longest free run.
        largest_gap: u64,
    },
    /// The store cannot be changed.
    #[error("the store is read-only")]
    ReadOnly,
    /// The store is encrypted, and its key was not given.
    #[error("the store is locked")]
    Locked,
    /// The store failed.
    #[error("the store failed")]
    Store(#[source] StorageError),
}

impl CaptureError {
    /// A stable name, for events and scripts.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unfit(_) => "image_unfit",
            Self::StoreTooSmall { .. } => "store_too_small",
            Self::Full { .. } => "store_full",
            Self::Fragmented { .. } => "store_fragmented",
            Self::ReadOnly => "store_read_only",
            Self::Locked => "store_locked",
            Self::Store(_) => "store_failed",
        }
    }

    /// What to do about it.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Unfit(_) => "use a firmware image that this VMM can store",
            Self::StoreTooSmall { .. } => {
                "make the store larger while the VM is off (`vmgstool grow`, to at least 32 MiB)"
            }
            Self::Full { .. } => {
                "delete what is not needed, or make the store larger (`vmgstool grow`)"
            }
            Self::Fragmented { .. } => {
                "make the store larger (`vmgstool grow`), or copy its files to a new one (`vmgstool extract`, \
                 `create`, `inject`)"
            }
            Self::ReadOnly => "make the store writable",
            Self::Locked => "give the VM the store's key",
            Self::Store(_) => "check the disk that the store is on",
        }
    }

    /// The reason with its causes, on one line.
    pub fn in_full(&self) -> String {
        Chain(self).to_string()
    }
}

/// Stores a record, unless an equivalent one is there. If that fails, no record remains that a later
/// token could be taken to mean.
pub(crate) fn store(
    storage: &mut dyn Storage,
    new: &NewRecord,
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
            && old.is_equivalent(record)
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
        storage.commit(Change::write_record(len, Box::new(new.stream())))
    };
    // A record that left no room for the token would be of no use.
    let write = |storage: &mut dyn Storage| {
        write(storage)?;
        if storage.state()?.free < TOKEN_RESERVE {
            let error = "it left no room for a token";
            return Err(StorageError::new(StorageErrorKind::NoSpace, error));
        }
        Ok(())
    };
    let mut written = write(storage);
    if has_old
        && let Err(error) = &written
        && error.kind == StorageErrorKind::NoSpace
    {
        // No token relies on the old one, and it is not of the firmware that runs now.
        tracing::info!("deleting the stored firmware to make room for the present one");
        if storage.commit(Change::delete_record()).is_ok() {
            written = write(storage);
        }
    }
    written.map_err(|error| match error.kind {
        StorageErrorKind::ReadOnly => CaptureError::ReadOnly,
        StorageErrorKind::Locked => CaptureError::Locked,
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

/// Deletes the record, so that what is stored is always what last ran.
pub(crate) fn delete_if_present(storage: &mut dyn Storage) {
    if let Ok(Some(_)) = storage.len(HibernationFile::Record)
        && let Err(error) = storage.commit(Change::delete_record())
    {
        tracing::warn!(%error, "the stored firmware is outdated and could not be deleted");
    }
}
