//! Saving the state of an open store, and restoring it in another process.

use crate::alloc::Extent;
use crate::crypto::Key;
use crate::damage::Damage;
use crate::device::BlockDevice;
use crate::disk::Disk;
use crate::error::Error;
use crate::options::OpenOptions;
use crate::state::FileRecord;
use crate::state::State;
use crate::state::Unlocked;
use crate::store::Loaded;
use crate::store::Vmgs;
use minicbor::Decode;
use minicbor::Encode;
use vmgs_format::BLOCK_SIZE;
use vmgs_format::EncryptionAlgorithm;
use vmgs_format::FIRST_DATA_BLOCK;
use vmgs_format::FileId;
use vmgs_format::MetadataKeyRecord;
use vmgs_format::Version;

/// The state of an open store, which can be [restored](Vmgs::restore) without reading the device.
///
/// It holds the keys of an unlocked store in plain text, and must be protected like the memory of the
/// process that saved it.
#[derive(Clone, Encode, Decode)]
#[cbor(map)]
pub struct SavedStore {
    #[n(1)]
    active_header: u8,
    #[n(2)]
    sequence: u32,
    #[n(3)]
    version: u32,
    #[n(4)]
    files: Vec<SavedFile>,
    #[n(5)]
    algorithm: u16,
    #[n(7)]
    active_key: Option<u8>,
    #[n(8)]
    datastore_key: Option<Key>,
    #[n(9)]
    metadata_key: Option<Key>,
    #[n(10)]
    records: [SavedRecord; 2],
    #[n(11)]
    reprovisioned: bool,
    #[n(12)]
    extended_stale: bool,
}

impl std::fmt::Debug for SavedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SavedStore")
            .field("sequence", &self.sequence)
            .field("files", &self.files.len())
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Encode, Decode)]
#[cbor(map)]
struct SavedFile {
    #[n(1)]
    id: u32,
    #[n(2)]
    offset: u32,
    #[n(3)]
    blocks: u32,
    #[n(4)]
    size: u64,
    #[cbor(n(5), with = "minicbor::bytes")]
    nonce: [u8; 12],
    #[cbor(n(6), with = "minicbor::bytes")]
    tag: [u8; 16],
    #[n(7)]
    attributes: u32,
    #[n(8)]
    data_key: Option<Key>,
    #[n(9)]
    damage: Option<SavedDamage>,
}

/// Damage that cannot be determined from the saved tables.
#[derive(Clone, Copy, Encode, Decode)]
#[cbor(index_only)]
enum SavedDamage {
    #[n(1)]
    ExpectedEncrypted,
    #[n(2)]
    ExpectedPlain,
}

#[derive(Clone, Encode, Decode)]
#[cbor(map)]
struct SavedRecord {
    #[cbor(n(1), with = "minicbor::bytes")]
    nonce: [u8; 12],
    #[cbor(n(2), with = "minicbor::bytes")]
    tag: [u8; 16],
    #[cbor(n(3), with = "minicbor::bytes")]
    key: [u8; 32],
}

impl Vmgs {
    /// Saves the state of the store. Fails if the store is [in doubt](Vmgs::is_in_doubt).
    pub fn save(&self) -> Result<SavedStore, Error> {
        if self.in_doubt {
            return Err(Error::InDoubt);
        }
        let state = &self.state;
        let mut files = vec![SavedFile {
            id: 0,
            offset: state.table,
            blocks: 1,
            size: BLOCK_SIZE.into(),
            nonce: [0; 12],
            tag: [0; 16],
            attributes: 0,
            data_key: None,
            damage: None,
        }];
        files.extend(state.files.iter().enumerate().filter_map(|(id, file)| {
            let file = file.as_ref()?;
            Some(SavedFile {
                id: id as u32,
                offset: file.extent.start,
                blocks: file.extent.blocks,
                size: file.size,
                nonce: file.nonce,
                tag: file.tag,
                attributes: file.attributes.into(),
                data_key: file.data_key.clone(),
                damage: match file.damage {
                    Some(Damage::ExpectedEncrypted) => Some(SavedDamage::ExpectedEncrypted),
                    Some(Damage::ExpectedPlain) => Some(SavedDamage::ExpectedPlain),
                    _ => None,
                },
            })
        }));
        let unlocked = state.unlocked.as_ref();
        Ok(SavedStore {
            active_header: state.slot as u8,
            sequence: state.sequence,
            version: state.version.0,
            files,
            algorithm: state.algorithm.0,
            active_key: unlocked.map(|u| u.record as u8),
            datastore_key: unlocked.map(|u| u.datastore_key.clone()),
            metadata_key: unlocked.map(|u| u.metadata_key.clone()),
            records: state.records.map(|record| SavedRecord {
                nonce: record.nonce,
                tag: record.tag,
                key: record.encrypted_key,
            }),
            reprovisioned: state.reprovisioned,
            extended_stale: state.extended_stale,
        })
    }

    /// Opens the store on `device` with the state `saved`, without reading the device. The device must not
    /// have been written since the state was saved.
    pub fn restore(
        device: Box<dyn BlockDevice>,
        options: OpenOptions,
        saved: &SavedStore,
    ) -> Result<Self, Error> {
        let disk = Disk::new(device)?;
        let invalid = Error::InvalidSavedState;
        let version = Version(saved.version);
        let algorithm = EncryptionAlgorithm(saved.algorithm);
        if saved.active_header > 1 {
            return Err(invalid("invalid header slot"));
        }
        if !matches!(version, Version::V2_0 | Version::V3_0)
            || !matches!(
                algorithm,
                EncryptionAlgorithm::NONE | EncryptionAlgorithm::AES_GCM
            )
        {
            return Err(invalid("unknown version or algorithm"));
        }
        let unlocked = match (saved.active_key, &saved.datastore_key, &saved.metadata_key) {
            (Some(record @ 0..=1), Some(datastore), Some(metadata))
                if algorithm != EncryptionAlgorithm::NONE =>
            {
                Some(Unlocked {
                    record: record.into(),
                    datastore_key: datastore.clone(),
                    metadata_key: metadata.clone(),
                })
            }
            (None, None, None) => None,
            _ => return Err(invalid("the keys are incomplete")),
        };
        let mut state = State {
            slot: saved.active_header.into(),
            sequence: saved.sequence,
            version,
            algorithm,
            reprovisioned: saved.reprovisioned,
            records: saved.records.clone().map(|record| MetadataKeyRecord {
                nonce: record.nonce,
                reserved: 0.into(),
                tag: record.tag,
                encrypted_key: record.key,
            }),
            table: 0,
            files: std::array::from_fn(|_| None),
            unlocked,
            extended_stale: saved.extended_stale,
        };
        for file in &saved.files {
            if file.id == 0 {
                state.table = file.offset;
                continue;
            }
            let record = restore_file(file, disk.geometry.blocks);
            match state.file_mut(FileId(file.id)) {
                Some(entry @ None) => *entry = Some(record),
                _ => return Err(invalid("invalid or duplicate file id")),
            }
        }
        if state.table < FIRST_DATA_BLOCK || state.table >= disk.geometry.blocks {
            return Err(invalid("the file table is outside the device"));
        }
        state.find_overlaps();
        let loaded = Loaded {
            state,
            previous: None,
            findings: Vec::new(),
        };
        let mut store = Self::opened(disk, loaded, options)?;
        store.exposed = store.state.has_zero_metadata_key();
        Ok(store)
    }
}

fn restore_file(file: &SavedFile, capacity: u32) -> FileRecord {
    let entry = vmgs_format::FileTableEntry {
        offset: file.offset.into(),
        allocation_size: file.blocks.into(),
        valid_data_size: file.size.into(),
        nonce: file.nonce,
        tag: file.tag,
        attributes: file.attributes.into(),
        reserved: [0; 16],
    };
    let extent = Extent::new(file.offset, file.blocks.max(1));
    let mut record = FileRecord::from_entry(&entry, Version::V3_0, capacity)
        .unwrap_or_else(|| FileRecord::plain(extent, file.size));
    record.data_key = file.data_key.clone();
    if record.damage.is_none() {
        record.damage = file.damage.map(|damage| match damage {
            SavedDamage::ExpectedEncrypted => Damage::ExpectedEncrypted,
            SavedDamage::ExpectedPlain => Damage::ExpectedPlain,
        });
    }
    record
}
