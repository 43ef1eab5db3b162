//! What opening or checking a store found that is not as it should be.

use crate::header::HeaderError;
use std::fmt;
use vmgs_format::FileId;

/// How a file's entry contradicts the store. Only this file is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// Its blocks are not all inside the store.
    OutsideStore,
    /// It claims more bytes than its blocks hold.
    SizeExceedsBlocks,
    /// It shares blocks with this file or table.
    Overlaps(FileId),
    /// The authenticated table says it is encrypted, the other that it is not. Either the disk was
    /// tampered with, or something replaced the file while the store was locked.
    ExpectedEncrypted,
    /// The file table says it is encrypted, the authenticated table that it is not: its key is lost.
    ExpectedPlain,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutsideStore => f.write_str("its blocks are outside the store"),
            Self::SizeExceedsBlocks => f.write_str("it has more bytes than its blocks hold"),
            Self::Overlaps(id) => write!(f, "its blocks overlap those of {id}"),
            Self::ExpectedEncrypted => f.write_str(
                "it should be encrypted and is not (replaced while the store was locked?)",
            ),
            Self::ExpectedPlain => f.write_str("it is encrypted, and its key is not in the store"),
        }
    }
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A header is damaged; the other was used.
    DamagedHeader {
        /// Which.
        slot: usize,
        /// How.
        error: HeaderError,
        /// The damaged one seems to be the newer: what it recorded last is lost.
        newer: bool,
    },
    /// An older header lies where disks with sectors of another size have it.
    ForeignHeader {
        /// The other sector size.
        sector_size: u32,
    },
    /// The file table's entry for itself does not say where the table is. The next commit repairs it.
    MisplacedTableEntry,
    /// A file is damaged.
    DamagedFile {
        /// Which.
        id: FileId,
        /// How.
        damage: Damage,
    },
    /// There is no extended file table. The next commit repairs it, unless the store is encrypted.
    NoExtendedTable,
    /// The metadata key is zero, as a faulty writer left it: everything encrypted in this store can be
    /// read without a key, and has to be treated as exposed.
    ZeroMetadataKey,
    /// The authenticated table has an entry for a file that does not exist.
    StaleExtendedEntry(FileId),
    /// The content of a file does not decrypt.
    Undecryptable(FileId),
    /// Bits or bytes that must be zero are not.
    ReservedNotZero(&'static str),
    /// A file could not be read.
    Unreadable {
        /// Which.
        id: FileId,
        /// Why.
        error: String,
    },
}

/// How much a [`Finding`] matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Harmless, or repaired by the next commit.
    Note,
    /// Confidentiality or the safety net is weakened; no content is lost.
    Warning,
    /// Content is lost or cannot be trusted.
    Error,
}

impl Finding {
    /// How much it matters.
    pub fn severity(&self) -> Severity {
        match self {
            Self::ForeignHeader { .. }
            | Self::MisplacedTableEntry
            | Self::NoExtendedTable
            | Self::StaleExtendedEntry(_)
            | Self::ReservedNotZero(_) => Severity::Note,
            Self::DamagedHeader { newer: false, .. } | Self::ZeroMetadataKey => Severity::Warning,
            Self::DamagedHeader { newer: true, .. }
            | Self::DamagedFile { .. }
            | Self::Undecryptable(_)
            | Self::Unreadable { .. } => Severity::Error,
        }
    }

    /// A short fixed name, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::DamagedHeader { .. } => "damaged-header",
            Self::ForeignHeader { .. } => "foreign-header",
            Self::MisplacedTableEntry => "misplaced-table-entry",
            Self::DamagedFile { .. } => "damaged-file",
            Self::NoExtendedTable => "no-extended-table",
            Self::ZeroMetadataKey => "zero-metadata-key",
            Self::StaleExtendedEntry(_) => "stale-extended-entry",
            Self::Undecryptable(_) => "undecryptable",
            Self::ReservedNotZero(_) => "reserved-not-zero",
            Self::Unreadable { .. } => "unreadable",
        }
    }

    /// The file concerned, if it is one.
    pub fn file_id(&self) -> Option<FileId> {
        match self {
            Self::DamagedFile { id, .. }
            | Self::StaleExtendedEntry(id)
            | Self::Undecryptable(id)
            | Self::Unreadable { id, .. } => Some(*id),
            _ => None,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DamagedHeader { slot, error, newer } => {
                write!(f, "header {slot} is damaged ({error}); the other is used")?;
                if *newer {
                    f.write_str(", although it is older: the last change is lost")?;
                }
                Ok(())
            }
            Self::ForeignHeader { sector_size } => write!(
                f,
                "an old header lies where disks with {sector_size}-byte sectors have it"
            ),
            Self::MisplacedTableEntry => {
                f.write_str("the file table's entry for itself is wrong; the next change repairs it")
            }
            Self::DamagedFile { id, damage } => write!(f, "file {id} is damaged: {damage}"),
            Self::NoExtendedTable => f.write_str("there is no extended file table"),
            Self::ZeroMetadataKey => f.write_str(
                "the metadata key is zero (a faulty writer): encrypted content can be read without a \
                 key; replace all keys with rekey, and treat what was stored as exposed",
            ),
            Self::StaleExtendedEntry(id) => {
                write!(f, "the extended table has an entry for {id}, which does not exist")
            }
            Self::Undecryptable(id) => write!(f, "file {id} does not decrypt"),
            Self::ReservedNotZero(what) => write!(f, "{what}: reserved bits are not zero"),
            Self::Unreadable { id, error } => write!(f, "file {id} cannot be read: {error}"),
        }
    }
}
