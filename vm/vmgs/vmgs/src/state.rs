//! The state of an open store.

use crate::alloc::Extent;
use crate::crypto::Key;
use crate::damage::Damage;
use crate::device::Geometry;
use crate::finding::Finding;
use vmgs_format::BLOCK_SIZE;
use vmgs_format::EncryptionAlgorithm;
use vmgs_format::ExtendedFileTable;
use vmgs_format::FILE_COUNT;
use vmgs_format::FIRST_DATA_BLOCK;
use vmgs_format::FileAttributes;
use vmgs_format::FileId;
use vmgs_format::FileTable;
use vmgs_format::FileTableEntry;
use vmgs_format::Header;
use vmgs_format::KEY_LEN;
use vmgs_format::MARKER_REPROVISIONED;
use vmgs_format::MetadataKeyRecord;
use vmgs_format::NONCE_LEN;
use vmgs_format::TAG_LEN;
use vmgs_format::Version;
use zerocopy::FromBytes;
use zerocopy::FromZeros;
use zeroize::Zeroizing;

/// The entry of a file or of the extended file table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileRecord {
    pub(crate) extent: Extent,
    pub(crate) size: u64,
    pub(crate) nonce: [u8; NONCE_LEN],
    pub(crate) tag: [u8; TAG_LEN],
    pub(crate) attributes: FileAttributes,
    /// The key of an encrypted file, if the store is unlocked.
    pub(crate) data_key: Option<Key>,
    pub(crate) damage: Option<Damage>,
}

impl FileRecord {
    pub(crate) fn plain(extent: Extent, size: u64) -> Self {
        Self {
            extent,
            size,
            nonce: [0; NONCE_LEN],
            tag: [0; TAG_LEN],
            attributes: FileAttributes::new(),
            data_key: None,
            damage: None,
        }
    }

    pub(crate) fn from_entry(
        entry: &FileTableEntry,
        version: Version,
        capacity: u32,
    ) -> Option<Self> {
        let extent = Extent::new(entry.offset.get(), entry.allocation_size.get());
        if extent.blocks == 0 {
            return None;
        }
        let size = entry.valid_data_size.get();
        let damage = if extent.start < FIRST_DATA_BLOCK || extent.end() > u64::from(capacity) {
            Some(Damage::OutsideStore)
        } else if size > u64::from(extent.blocks) * u64::from(BLOCK_SIZE) {
            Some(Damage::SizeExceedsBlocks)
        } else {
            None
        };
        let mut record = Self {
            damage,
            ..Self::plain(extent, size)
        };
        if version >= Version::V3_0 {
            record.nonce = entry.nonce;
            record.tag = entry.tag;
            record.attributes = entry.attributes.get().into();
        }
        Some(record)
    }

    pub(crate) fn to_entry(&self) -> FileTableEntry {
        FileTableEntry {
            offset: self.extent.start.into(),
            allocation_size: self.extent.blocks.into(),
            valid_data_size: self.size.into(),
            nonce: self.nonce,
            tag: self.tag,
            attributes: u32::from(self.attributes).into(),
            reserved: [0; 16],
        }
    }

    /// Whether the entry is that of an encrypted file. Old writers left the attributes zero, so a nonce
    /// or tag that is not zero counts too.
    pub(crate) fn shows_encryption(&self) -> bool {
        self.attributes.needs_key() || self.nonce != [0; NONCE_LEN] || self.tag != [0; TAG_LEN]
    }
}

/// The keys of an unlocked store.
#[derive(Debug, Clone)]
pub(crate) struct Unlocked {
    /// The key record that `datastore_key` opens.
    pub(crate) record: usize,
    pub(crate) datastore_key: Key,
    pub(crate) metadata_key: Key,
}

/// One generation of a store: its header and the tables that the header refers to.
#[derive(Debug, Clone)]
pub(crate) struct State {
    /// The slot of the header, 0 or 1.
    pub(crate) slot: usize,
    pub(crate) sequence: u32,
    pub(crate) version: Version,
    pub(crate) algorithm: EncryptionAlgorithm,
    pub(crate) reprovisioned: bool,
    pub(crate) records: [MetadataKeyRecord; 2],
    /// Block number of the file table.
    pub(crate) table: u32,
    /// The files and the extended file table, by id. Entry 0 is not used; the file table is at `table`.
    pub(crate) files: [Option<FileRecord>; FILE_COUNT],
    pub(crate) unlocked: Option<Unlocked>,
    /// The extended file table on the disk differs from this state, or is missing.
    pub(crate) extended_stale: bool,
}

impl State {
    /// The generation with a valid header and its file table.
    pub(crate) fn parse(
        slot: usize,
        header: &Header,
        table: &FileTable,
        geometry: &Geometry,
    ) -> Self {
        let version = Version(header.version.get());
        let current = version >= Version::V3_0;
        let mut state = Self {
            slot,
            sequence: header.sequence.get(),
            version,
            algorithm: if current {
                EncryptionAlgorithm(header.encryption_algorithm.get())
            } else {
                EncryptionAlgorithm::NONE
            },
            reprovisioned: current && header.markers.get() & MARKER_REPROVISIONED != 0,
            records: if current {
                header.metadata_keys
            } else {
                [MetadataKeyRecord::EMPTY; 2]
            },
            table: header.file_table_offset.get(),
            files: std::array::from_fn(|id| {
                FileRecord::from_entry(table.entries.get(id)?, version, geometry.blocks)
                    .filter(|_| id != 0)
            }),
            unlocked: None,
            extended_stale: false,
        };
        state.extended_stale = !state.is_encrypted()
            && !matches!(
                state.extended_table(),
                Some(file) if file.damage.is_none() && file.size == u64::from(BLOCK_SIZE)
            );
        state.find_overlaps();
        state
    }

    /// Marks files that share blocks with each other or with a table.
    pub(crate) fn find_overlaps(&mut self) {
        for file in self.files.iter_mut().flatten() {
            if matches!(file.damage, Some(Damage::Overlaps(_))) {
                file.damage = None;
            }
        }
        let mut sorted: Vec<(Extent, usize)> = vec![(Extent::new(self.table, 1), 0)];
        sorted.extend(
            self.files
                .iter()
                .enumerate()
                .filter_map(|(id, file)| Some((file.as_ref()?.extent, id))),
        );
        for (i, (extent, id)) in sorted.iter().enumerate() {
            for (other, other_id) in &sorted[i + 1..] {
                if extent.overlaps(other) {
                    for (id, with) in [(*id, *other_id), (*other_id, *id)] {
                        if let Some(Some(file)) = self.files.get_mut(id)
                            && file.damage.is_none()
                        {
                            file.damage = Some(Damage::Overlaps(FileId(with as u32)));
                        }
                    }
                }
            }
        }
    }

    pub(crate) fn file(&self, id: FileId) -> Option<&FileRecord> {
        self.files.get(id.index()?)?.as_ref()
    }

    pub(crate) fn file_mut(&mut self, id: FileId) -> Option<&mut Option<FileRecord>> {
        self.files.get_mut(id.index()?)
    }

    /// The files and their ids, without the tables.
    pub(crate) fn user_files(&self) -> impl Iterator<Item = (FileId, &FileRecord)> {
        (1..63).filter_map(|id| Some((FileId(id), self.file(FileId(id))?)))
    }

    pub(crate) fn extended_table(&self) -> Option<&FileRecord> {
        self.file(FileId::EXTENDED_FILE_TABLE)
    }

    pub(crate) fn is_encrypted(&self) -> bool {
        self.algorithm != EncryptionAlgorithm::NONE
    }

    pub(crate) fn is_locked(&self) -> bool {
        self.is_encrypted() && self.unlocked.is_none()
    }

    pub(crate) fn has_zero_metadata_key(&self) -> bool {
        let unlocked = self.unlocked.as_ref();
        unlocked.is_some_and(|unlocked| unlocked.metadata_key.is_zero())
    }

    /// How many blocks new tables need.
    pub(crate) fn table_blocks(&self) -> u64 {
        if self.is_encrypted() { 2 } else { 1 }
    }

    /// All blocks that this generation uses.
    pub(crate) fn extents(&self) -> Vec<Extent> {
        let mut extents = vec![Extent::new(self.table, 1)];
        extents.extend(self.files.iter().flatten().map(|file| file.extent));
        extents
    }

    /// The header of this generation.
    pub(crate) fn to_header(&self) -> Header {
        Header {
            signature: Header::SIGNATURE,
            version: self.version.0.into(),
            checksum: 0.into(),
            sequence: self.sequence.into(),
            header_size: (Header::LEN as u32).into(),
            file_table_offset: self.table.into(),
            file_table_size: 1.into(),
            encryption_algorithm: self.algorithm.0.into(),
            markers: if self.reprovisioned {
                MARKER_REPROVISIONED.into()
            } else {
                0.into()
            },
            metadata_keys: self.records,
            reserved: 0.into(),
        }
        .with_checksum()
    }

    /// The file table of this generation.
    pub(crate) fn to_table(&self) -> FileTable {
        let mut table = FileTable::new_zeroed();
        for (entry, file) in table.entries.iter_mut().zip(&self.files) {
            if let Some(file) = file {
                *entry = file.to_entry();
            }
        }
        table.entries[0] =
            FileRecord::plain(Extent::new(self.table, 1), BLOCK_SIZE.into()).to_entry();
        table
    }

    /// The extended file table of this generation, not yet encrypted.
    pub(crate) fn to_extended_table(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(vec![0; size_of::<ExtendedFileTable>()]);
        if let Ok(table) = ExtendedFileTable::mut_from_bytes(&mut bytes)
            && self.is_encrypted()
        {
            for (id, file) in self.user_files() {
                let Some(entry) = id.index().and_then(|i| table.entries.get_mut(i)) else {
                    continue;
                };
                // A damaged file keeps the entry that it was loaded with: a data key belongs to a file that
                // should be encrypted and is not, attributes without a key to one whose key is lost.
                let attributes = match &file.data_key {
                    Some(key) => {
                        entry.data_key = *key.as_bytes();
                        u32::from(file.attributes) | u32::from(FileAttributes::PROTECTED)
                    }
                    None if file.attributes.needs_key() => 0,
                    None => file.attributes.into(),
                };
                entry.attributes = attributes.into();
            }
        }
        bytes
    }

    /// Problems of the file table.
    pub(crate) fn findings(&self, table: &FileTable) -> Vec<Finding> {
        let mut findings = Vec::new();
        let own = &table.entries[0];
        if own.offset.get() != self.table || own.allocation_size.get() != 1 {
            findings.push(Finding::MisplacedTableEntry);
        }
        match self.extended_table() {
            None if self.version >= Version::V3_0 => findings.push(Finding::NoExtendedTable),
            Some(file) if file.damage.is_none() && file.size != u64::from(BLOCK_SIZE) => {
                findings.push(Finding::DamagedFile {
                    id: FileId::EXTENDED_FILE_TABLE,
                    damage: Damage::SizeExceedsBlocks,
                });
            }
            _ => {}
        }
        for (id, file) in self.files.iter().enumerate() {
            if let Some(damage) = file.as_ref().and_then(|file| file.damage) {
                findings.push(Finding::DamagedFile {
                    id: FileId(id as u32),
                    damage,
                });
            }
        }
        if table
            .entries
            .iter()
            .any(|e| e.allocation_size.get() != 0 && e.reserved != [0; 16])
        {
            findings.push(Finding::ReservedNotZero("file table"));
        }
        findings
    }
}

/// The data key in an entry of the extended file table; none if it is zero.
pub(crate) fn data_key(bytes: &[u8; KEY_LEN]) -> Option<Key> {
    let key = Key::new(*bytes);
    (!key.is_zero()).then_some(key)
}
