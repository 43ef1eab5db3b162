//! The ids of the two files in a VMGS store.
//!
//! The token has an id of its own. Other programs have given the record's id another meaning, so the record is known by
//! its content, and what does not begin as a record is never replaced or deleted.

use crate::storage::HibernationFile;
use crate::storage::Occupant;
use crate::storage::RecordPlace;
use crate::storage::StorageError;
use crate::storage::StorageErrorKind;
use vmgs_format::FIRMWARE_RECORD_HEADER_LEN;
use vmgs_format::FileId;
use vmgs_format::FirmwareFileKind;
use vmgs_format::FirmwareRecordHeader;

/// The files of a VMGS store.
pub(crate) trait StoreFiles {
    /// The length of a file in bytes, or `None` if it does not exist.
    fn file_len(&mut self, id: FileId) -> Result<Option<u64>, StorageError>;
    /// The first `len` bytes of a file, or all of it if it is shorter.
    fn file_start(&mut self, id: FileId, len: usize) -> Result<Vec<u8>, StorageError>;
}

/// The result of searching a store for the record.
pub(crate) struct Places {
    /// The file with the record, and its length in bytes.
    record: Option<(FileId, u64)>,
    /// The first file that may have the record and does not exist.
    free: Option<FileId>,
    /// What the usual file has, if that is not the record.
    occupant: Option<Occupant>,
    /// Why a file that may have the record is known to be damaged.
    damaged: Option<StorageError>,
}

impl Places {
    /// Searches the record. Fails if a file before it cannot be read now, but perhaps later: a search must not find
    /// another record then.
    pub(crate) fn search(files: &mut impl StoreFiles) -> Result<Self, StorageError> {
        let mut places = Self {
            record: None,
            free: None,
            occupant: None,
            damaged: None,
        };
        for id in FileId::firmware_record_places() {
            let Some(len) = files.file_len(id)? else {
                places.free = places.free.or(Some(id));
                continue;
            };
            let found = match files.file_start(id, FIRMWARE_RECORD_HEADER_LEN) {
                Ok(start) if start.starts_with(&FirmwareRecordHeader::MAGIC) => {
                    places.record = Some((id, len));
                    return Ok(places);
                }
                Ok(start) => what(len, &start),
                Err(error) if error.kind == StorageErrorKind::Corrupt => {
                    places.damaged = places.damaged.or(Some(error));
                    format!("{len} bytes that are damaged")
                }
                Err(error) => return Err(error),
            };
            if id == FileId::HIBERNATION_FIRMWARE {
                places.occupant = Some(Occupant {
                    file: id.0,
                    what: found,
                });
            }
        }
        Ok(places)
    }

    /// The file with the record and its length. If there is none, a damaged file may have been it.
    fn found(self) -> Result<Option<(FileId, u64)>, StorageError> {
        match (self.record, self.damaged) {
            (None, Some(error)) => Err(error),
            (found, _) => Ok(found),
        }
    }

    pub(crate) fn record_place(self) -> RecordPlace {
        let file = self.record.map(|(id, _)| id).or(self.free);
        RecordPlace {
            file: file.map(|id| id.0),
            occupant: self.occupant,
        }
    }
}

/// What data of another program seems to be, in words.
fn what(len: u64, start: &[u8]) -> String {
    match FirmwareFileKind::classify(len, start) {
        FirmwareFileKind::RawImage => format!("a bare firmware image of {len} bytes"),
        _ => {
            let begin: Vec<_> = start.iter().take(8).map(|b| format!("{b:02x}")).collect();
            match begin.is_empty() {
                true => "an empty file".into(),
                false => format!("{len} bytes of other data (beginning {})", begin.join(" ")),
            }
        }
    }
}

/// The id of a file and its length, if it exists.
fn find_with_len(
    files: &mut impl StoreFiles,
    file: HibernationFile,
) -> Result<Option<(FileId, u64)>, StorageError> {
    match file {
        HibernationFile::Token => {
            let id = FileId::HIBERNATION_TOKEN;
            Ok(files.file_len(id)?.map(|len| (id, len)))
        }
        HibernationFile::Record => Places::search(files)?.found(),
    }
}

/// The length of a file, if it exists.
pub(crate) fn len(
    files: &mut impl StoreFiles,
    file: HibernationFile,
) -> Result<Option<u64>, StorageError> {
    Ok(find_with_len(files, file)?.map(|(_, len)| len))
}

/// The id of a file to be deleted, if it exists.
pub(crate) fn for_deleting(
    files: &mut impl StoreFiles,
    file: HibernationFile,
) -> Result<Option<FileId>, StorageError> {
    match file {
        HibernationFile::Token => Ok(Some(FileId::HIBERNATION_TOKEN)),
        HibernationFile::Record => Ok(Places::search(files)?.record.map(|(id, _)| id)),
    }
}

/// The id of a file that has to exist.
pub(crate) fn existing(
    files: &mut impl StoreFiles,
    file: HibernationFile,
) -> Result<FileId, StorageError> {
    let found = find_with_len(files, file)?.map(|(id, _)| id);
    found.ok_or_else(|| {
        let text = format!("the store has no {file}");
        StorageError::new(StorageErrorKind::Io, text)
    })
}

/// The id at which a file is created or replaced.
pub(crate) fn for_writing(
    files: &mut impl StoreFiles,
    file: HibernationFile,
) -> Result<FileId, StorageError> {
    match file {
        HibernationFile::Token => Ok(FileId::HIBERNATION_TOKEN),
        HibernationFile::Record => {
            let place = Places::search(files)?.record_place();
            place.file.map(FileId).ok_or_else(|| {
                let text = "every file of the store that may have the firmware has other data";
                StorageError::new(StorageErrorKind::NoPlace, text)
            })
        }
    }
}
