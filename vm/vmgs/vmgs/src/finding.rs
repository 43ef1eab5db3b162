//! Problems found while opening or checking a store.

use crate::damage::Damage;
use crate::damage::HeaderError;
use std::fmt;
use vmgs_format::FileId;

/// A problem found while opening or checking a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A header is damaged; the other is used.
    DamagedHeader {
        /// Slot of the damaged header, 0 or 1.
        slot: usize,
        /// How it is damaged.
        error: HeaderError,
        /// The damaged header seems to be the newer one: the last change is lost.
        newer: bool,
    },
    /// A header is at the place for disks of another sector size, left over from an earlier use of the disk.
    ForeignHeader {
        /// The other sector size in bytes.
        sector_size: u32,
    },
    /// The file table's own entry does not have the location of the table. The next commit repairs it.
    MisplacedTableEntry,
    /// A file is damaged.
    DamagedFile {
        /// The file.
        id: FileId,
        /// How it is damaged.
        damage: Damage,
    },
    /// There is no extended file table. The next commit repairs this, unless the store is encrypted.
    NoExtendedTable,
    /// The metadata key is zero, as a faulty writer left it, or was in the generation before, of which the tables are
    /// still there: everything encrypted in this store can be read without a key, and has to be treated as exposed.
    ZeroMetadataKey,
    /// Free blocks have extended file tables whose metadata key is zero: what they held, and what has kept its key
    /// since, can be read without a key, and has to be treated as exposed.
    ZeroKeyTablesLeft {
        /// The number of such tables.
        tables: usize,
    },
    /// The extended file table has an entry for a file that does not exist.
    StaleExtendedEntry(FileId),
    /// The content of a file does not decrypt.
    Undecryptable(FileId),
    /// Reserved bits or bytes of this structure are not zero.
    ReservedNotZero(&'static str),
    /// A file cannot be read.
    Unreadable {
        /// The file.
        id: FileId,
        /// Why it cannot be read.
        error: String,
    },
}

/// How severe a [`Finding`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Harmless, or repaired by the next commit.
    Note,
    /// Confidentiality or redundancy is impaired; no content is lost.
    Warning,
    /// Content is lost or cannot be trusted.
    Error,
}

impl Finding {
    /// How severe the finding is.
    pub fn severity(&self) -> Severity {
        match self {
            Self::ForeignHeader { .. }
            | Self::MisplacedTableEntry
            | Self::NoExtendedTable
            | Self::StaleExtendedEntry(_)
            | Self::ReservedNotZero(_) => Severity::Note,
            Self::DamagedHeader { newer: false, .. }
            | Self::ZeroMetadataKey
            | Self::ZeroKeyTablesLeft { .. } => Severity::Warning,
            Self::DamagedHeader { newer: true, .. }
            | Self::DamagedFile { .. }
            | Self::Undecryptable(_)
            | Self::Unreadable { .. } => Severity::Error,
        }
    }

    /// A short, stable name for use by programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::DamagedHeader { .. } => "damaged-header",
            Self::ForeignHeader { .. } => "foreign-header",
            Self::MisplacedTableEntry => "misplaced-table-entry",
            Self::DamagedFile { .. } => "damaged-file",
            Self::NoExtendedTable => "no-extended-table",
            Self::ZeroMetadataKey => "zero-metadata-key",
            Self::ZeroKeyTablesLeft { .. } => "zero-key-tables-left",
            Self::StaleExtendedEntry(_) => "stale-extended-entry",
            Self::Undecryptable(_) => "undecryptable",
            Self::ReservedNotZero(_) => "reserved-not-zero",
            Self::Unreadable { .. } => "unreadable",
        }
    }

    /// The file that the finding is about, if it is about one.
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
                "a header that is not used is at the place for disks with {sector_size}-byte sectors"
            ),
            Self::MisplacedTableEntry => {
                f.write_str("the file table's entry for itself is wrong; the next change repairs it")
            }
            Self::DamagedFile { id, damage } => write!(f, "file {id} is damaged: {damage}"),
            Self::NoExtendedTable => f.write_str("there is no extended file table"),
            Self::ZeroMetadataKey => f.write_str(
                "the metadata key is zero (a faulty writer): encrypted content can be read without a \
                 key; the next change with the store's key, or rekey, replaces all keys; treat what was stored as \
                 exposed",
            ),
            Self::ZeroKeyTablesLeft { tables } => write!(
                f,
                "tables with a zero metadata key are left in free space (found: {tables}): content whose key is in them \
                 can be read without a key; replace all keys with rekey, and treat what was stored as exposed"
            ),
            Self::StaleExtendedEntry(id) => {
                write!(f, "the extended file table has an entry for {id}, which does not exist")
            }
            Self::Undecryptable(id) => write!(f, "file {id} does not decrypt"),
            Self::ReservedNotZero(what) => write!(f, "{what}: reserved bits are not zero"),
            Self::Unreadable { id, error } => write!(f, "file {id} cannot be read: {error}"),
        }
    }
}
