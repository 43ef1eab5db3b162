//! Unlocking a store, changing its keys, and wiping what is free.

use crate::crypto;
use crate::crypto::Key;
use crate::damage::Damage;
use crate::disk::byte_of;
use crate::error::Error;
use crate::finding::Finding;
use crate::options::StoreAccess;
use crate::renew::renewed;
use crate::state;
use crate::state::State;
use crate::state::Unlocked;
use crate::store::Vmgs;
use vmgs_format::BLOCK_SIZE;
use vmgs_format::EncryptionAlgorithm;
use vmgs_format::ExtendedFileTable;
use vmgs_format::FileAttributes;
use vmgs_format::FileId;
use vmgs_format::MetadataKeyRecord;
use zerocopy::FromBytes;
use zerocopy::FromZeros;
use zerocopy::IntoBytes;
use zeroize::Zeroize;
use zeroize::Zeroizing;

impl Vmgs {
    /// Unlocks the store with one of its keys.
    ///
    /// From then on, the extended file table determines which files are encrypted, because it is
    /// authenticated and the file table is not. Files about which the tables disagree are
    /// [damaged](Damage).
    pub fn unlock(&mut self, key: &Key) -> Result<(), Error> {
        if !self.state.is_encrypted() {
            return Err(Error::NotEncrypted);
        }
        let mut opened = None;
        let records = self.state.records;
        for (i, record) in records.iter().enumerate() {
            let Some(metadata_key) = unwrap(record, key) else {
                continue;
            };
            // A key that was replaced and then used again may open both records, of which one is stale.
            opened = Some((i, self.read_extended_table(&metadata_key), metadata_key));
            if matches!(opened, Some((_, Ok(_), _))) {
                break;
            }
        }
        let (record, table, metadata_key) = opened.ok_or(Error::WrongKey)?;
        let table = table.map_err(|error| match error {
            Error::Authentication(_) if records.iter().all(MetadataKeyRecord::is_occupied) => {
                Error::StaleKey { record }
            }
            error => error,
        })?;
        let table = ExtendedFileTable::ref_from_bytes(&table)
            .map_err(|_| Error::NotAllocated(FileId::EXTENDED_FILE_TABLE))?;

        let mut state = self.state.clone();
        let mut findings = Vec::new();
        let exposed = metadata_key.is_zero() || matches!(self.exposed_tables(), Ok(Some(_)));
        if exposed {
            findings.push(Finding::ZeroMetadataKey);
        }
        apply(&mut state, table, &mut findings);
        for finding in &findings {
            tracing::warn!(%finding, "problem in the store");
        }
        state.unlocked = Some(Unlocked {
            record,
            datastore_key: key.clone(),
            metadata_key,
        });
        self.findings.retain(|finding| {
            !matches!(
                finding,
                Finding::ZeroMetadataKey
                    | Finding::StaleExtendedEntry(_)
                    | Finding::DamagedFile {
                        damage: Damage::ExpectedEncrypted | Damage::ExpectedPlain,
                        ..
                    }
            )
        });
        self.findings.extend(findings);
        self.state = state;
        self.exposed = exposed;
        Ok(())
    }

    fn read_extended_table(&mut self, metadata_key: &Key) -> Result<Zeroizing<Vec<u8>>, Error> {
        let id = FileId::EXTENDED_FILE_TABLE;
        let file = self
            .state
            .extended_table()
            .ok_or(Error::NotAllocated(id))?
            .clone();
        if let Some(damage @ (Damage::OutsideStore | Damage::SizeExceedsBlocks)) = file.damage {
            return Err(Error::DamagedFile { id, damage });
        }
        if file.size != u64::from(BLOCK_SIZE) {
            return Err(Error::DamagedFile {
                id,
                damage: Damage::SizeExceedsBlocks,
            });
        }
        let mut table = Zeroizing::new(vec![0; BLOCK_SIZE as usize]);
        self.disk.read(byte_of(file.extent.start), &mut table)?;
        if !crypto::open(metadata_key, &file.nonce, &file.tag, &mut table) {
            return Err(Error::Authentication(id));
        }
        Ok(table)
    }

    fn check_unlocked(&self) -> Result<(), Error> {
        self.check_writable()?;
        if self.is_locked() {
            return Err(Error::Locked);
        }
        Ok(())
    }

    fn check_key_change(&self, new: &Key) -> Result<(), Error> {
        self.check_unlocked()?;
        if new.is_zero() {
            return Err(Error::ZeroKey);
        }
        Ok(())
    }

    /// Adds the first key to an unencrypted store. Existing files stay unencrypted until they are written.
    pub fn encrypt(&mut self, key: &Key) -> Result<(), Error> {
        self.check_key_change(key)?;
        if self.is_encrypted() {
            return Err(Error::AlreadyEncrypted);
        }
        let mut next = self.state.clone();
        next.algorithm = EncryptionAlgorithm::AES_GCM;
        next.records = [MetadataKeyRecord::EMPTY; 2];
        next.unlocked = Some(Unlocked {
            record: 0,
            datastore_key: key.clone(),
            metadata_key: Key::new([0; 32]),
        });
        next.extended_stale = true;
        self.transact(next, Vec::new())
    }

    /// Adds a second key. Both keys unlock the store until all keys are replaced.
    pub fn add_key(&mut self, key: &Key) -> Result<(), Error> {
        self.check_key_change(key)?;
        let mut next = self.state.clone();
        let Some(unlocked) = &next.unlocked else {
            return Err(Error::NotEncrypted);
        };
        let other = 1 - unlocked.record;
        if next.records[other].is_occupied() {
            return Err(Error::KeysFull);
        }
        // Replaces a zero metadata key, which must not be wrapped again.
        next.extended_stale |= unlocked.metadata_key.is_zero();
        self.transact_with_key(next, Vec::new(), Some((other, key.clone())))
    }

    /// Replaces all keys by `key` in one commit: after a crash, either the old keys or the new key open the
    /// store. Then the other header is written too, so that neither header has a record of an old key.
    ///
    /// Files keep their data keys; [`rekey`](Vmgs::rekey) replaces them too.
    pub fn update_key(&mut self, key: &Key) -> Result<(), Error> {
        self.check_key_change(key)?;
        let mut next = self.state.clone();
        let Some(unlocked) = &mut next.unlocked else {
            return self.encrypt(key);
        };
        unlocked.record = 1 - unlocked.record;
        unlocked.datastore_key = key.clone();
        next.records = [MetadataKeyRecord::EMPTY; 2];
        next.extended_stale = true;
        self.transact(next, Vec::new())?;
        self.refresh_headers()
    }

    /// Replaces all keys that the store generated (data keys and the metadata key), removes a second
    /// datastore key, and wipes free space. Then a generated key that was exposed before opens nothing
    /// in the store any more.
    ///
    /// Files are rewritten one at a time. After a crash, some files have new keys and some have old ones,
    /// and all are readable. Files that do not decrypt are left as they are; their ids are returned.
    pub fn rekey(&mut self) -> Result<Vec<FileId>, Error> {
        self.check_unlocked()?;
        if !self.is_encrypted() {
            return Err(Error::NotEncrypted);
        }
        let files = self
            .state
            .user_files()
            .filter(|(_, file)| file.data_key.is_some() && file.damage.is_none())
            .map(|(id, file)| (id, file.clone()))
            .collect::<Vec<_>>();
        let mut left = Vec::new();
        for (id, file) in files {
            match self.check_file(id) {
                Err(Error::Authentication(_)) => {
                    left.push(id);
                    continue;
                }
                checked => checked?,
            }
            self.transact(self.state.clone(), vec![renewed(id, file)?])?;
        }
        let mut next = self.state.clone();
        if let Some(unlocked) = &next.unlocked {
            next.records[1 - unlocked.record] = MetadataKeyRecord::EMPTY;
        }
        next.extended_stale = true;
        self.transact(next, Vec::new())?;
        self.scrub()?;
        Ok(left)
    }

    /// Overwrites free space with zeros: blocks of deleted and replaced files and of old tables, which hold
    /// keys, and the unused ends of files' last blocks. Both headers then refer to the same generation.
    pub fn scrub(&mut self) -> Result<(), Error> {
        self.check_writable()?;
        self.refresh_headers()?;
        let occupied = crate::alloc::Occupied::new(self.disk.geometry.blocks, self.state.extents());
        for gap in occupied.gaps().collect::<Vec<_>>() {
            self.disk.zero(gap, 0)?;
        }
        let whole = |file: &&state::FileRecord| file.damage.is_none();
        let files = self.state.files.iter().flatten().filter(whole);
        for (extent, size) in files.map(|f| (f.extent, f.size)).collect::<Vec<_>>() {
            self.disk.zero(extent, size)?;
        }
        self.disk.flush()?;
        self.exposed = self.state.has_zero_metadata_key();
        Ok(())
    }

    /// Writes a copy of the active header over the other header.
    pub(crate) fn refresh_headers(&mut self) -> Result<(), Error> {
        self.activate(self.state.clone())
    }

    /// Sets or clears the reprovisioned marker in the header.
    pub(crate) fn set_marker(&mut self, reprovisioned: bool) -> Result<(), Error> {
        self.check_writable()?;
        let mut next = self.state.clone();
        next.reprovisioned = reprovisioned;
        self.activate(next)
    }

    /// Converts a store of version 2.0, which can only be read, to version 3.0.
    pub fn upgrade(&mut self) -> Result<(), Error> {
        if self.state.version == vmgs_format::Version::V3_0 {
            return Ok(());
        }
        if self.access == StoreAccess::ReadOnly {
            return Err(Error::ReadOnly);
        }
        let mut next = self.state.clone();
        next.version = vmgs_format::Version::V3_0;
        next.extended_stale = true;
        self.transact(next, Vec::new())
    }
}

/// The metadata key in a record, if `key` opens it.
fn unwrap(record: &MetadataKeyRecord, key: &Key) -> Option<Key> {
    let mut metadata_key = record.encrypted_key;
    let opened =
        record.is_occupied() && crypto::open(key, &record.nonce, &record.tag, &mut metadata_key);
    let found = opened.then(|| Key::new(metadata_key));
    metadata_key.zeroize();
    found
}

/// Applies the attributes and keys in the extended file table to the files of `state`.
fn apply(state: &mut State, table: &ExtendedFileTable, findings: &mut Vec<Finding>) {
    let blank = vmgs_format::ExtendedFileTableEntry::new_zeroed();
    for id in (1..63).map(FileId) {
        let Some(entry) = id.index().and_then(|i| table.entries.get(i)) else {
            continue;
        };
        let Some(Some(file)) = state.file_mut(id) else {
            if entry.as_bytes() != blank.as_bytes() {
                findings.push(Finding::StaleExtendedEntry(id));
                state.extended_stale = true;
            }
            continue;
        };
        let attributes = FileAttributes::from(entry.attributes.get());
        let key = state::data_key(&entry.data_key);
        let disagreement = match (attributes.needs_key(), file.shows_encryption()) {
            (true, false) => Some(Damage::ExpectedEncrypted),
            (true, true) if key.is_none() => Some(Damage::ExpectedPlain),
            (false, true) => Some(Damage::ExpectedPlain),
            _ => None,
        };
        if disagreement.is_none() {
            file.attributes = attributes;
        }
        file.data_key = if attributes.needs_key() { key } else { None };
        if let Some(damage) = disagreement {
            // Damage of the layout is reported first: content outside the store cannot be encrypted.
            if file.damage.is_none() || matches!(file.damage, Some(Damage::Overlaps(_))) {
                file.damage = Some(damage);
            }
            findings.push(Finding::DamagedFile { id, damage });
        }
    }
}
