//! Unlocking a store, and changing its keys.

use crate::crypto;
use crate::crypto::Key;
use crate::disk::byte_of;
use crate::error::Error;
use crate::finding::Damage;
use crate::finding::Finding;
use crate::state;
use crate::state::State;
use crate::state::Unlocked;
use crate::store::Vmgs;
use crate::transact::Input;
use crate::transact::Planned;
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
    /// The extended table decides from then on which files are encrypted, because it is authenticated
    /// and the file table is not. Files about which the two disagree are [damaged](Damage).
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
            // A key that was taken back into use may open both records, of which one is old.
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
        if metadata_key.is_zero() {
            findings.push(Finding::ZeroMetadataKey);
        }
        apply(&mut state, table, &mut findings);
        for finding in &findings {
            tracing::warn!(%finding, "store finding");
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
        let read = self.disk.read(byte_of(file.extent.start), &mut table);
        let opened = read.and_then(|()| {
            crypto::open(metadata_key, &file.nonce, &file.tag, &mut table)
                .then_some(())
                .ok_or(Error::Authentication(id))
        });
        if opened.is_err() {
            self.events.send(crate::Event::AccessFailed(id));
        }
        opened.map(|()| table)
    }

    fn check_key_change(&self, new: &Key) -> Result<(), Error> {
        self.check_writable()?;
        if self.is_locked() {
            Err(Error::Locked)
        } else if new.is_zero() {
            Err(Error::ZeroKey)
        } else {
            Ok(())
        }
    }

    /// Gives an unencrypted store its first key. Files stay as they are until they are written.
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

    /// Adds a second key. Both unlock the store, and keep doing so, until one is removed.
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
        // A zero metadata key is never wrapped again.
        next.extended_stale |= unlocked.metadata_key.is_zero();
        self.transact_with_key(next, Vec::new(), Some((other, key.clone())))
    }

    /// Replaces all keys by `key` in one commit: a crash leaves the old keys or the new one. The other
    /// header is then refreshed, so that no copy of the old key's record remains in either.
    ///
    /// The files keep the data keys they have. [`rekey`](Vmgs::rekey) replaces those as well.
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

    /// Removes the key that the store is not unlocked with, if there is one.
    pub fn remove_other_key(&mut self) -> Result<(), Error> {
        self.check_writable()?;
        let Some(unlocked) = &self.state.unlocked else {
            return Err(if self.is_encrypted() {
                Error::Locked
            } else {
                Error::NotEncrypted
            });
        };
        let mut next = self.state.clone();
        next.records[1 - unlocked.record] = MetadataKeyRecord::EMPTY;
        next.extended_stale = true;
        self.transact(next, Vec::new())?;
        self.refresh_headers()
    }

    /// Makes the store unencrypted. Refused while files are encrypted, which would become unreadable.
    pub fn decrypt(&mut self) -> Result<(), Error> {
        self.check_writable()?;
        if self.is_locked() {
            return Err(Error::Locked);
        }
        if !self.is_encrypted() {
            return Err(Error::NotEncrypted);
        }
        let encrypted = |(_, file): &(FileId, &state::FileRecord)| {
            file.attributes.needs_key() || file.data_key.is_some()
        };
        if let Some((id, _)) = self.state.user_files().find(encrypted) {
            return Err(Error::EncryptedFilesRemain(id));
        }
        let mut next = self.state.clone();
        next.algorithm = EncryptionAlgorithm::NONE;
        next.records = [MetadataKeyRecord::EMPTY; 2];
        next.unlocked = None;
        next.extended_stale = true;
        self.transact(next, Vec::new())?;
        self.refresh_headers()
    }

    /// Replaces every key the store made (the files' and the metadata key), drops a second datastore
    /// key, and wipes all that is free. After this, nothing that is stored can be read with a key that
    /// was exposed before; what was stored in the past may have been read.
    ///
    /// Files are rewritten one by one: a crash leaves some with new keys and some with old ones, all of
    /// them readable. Files that do not decrypt cannot be, and are left as they are; their ids are
    /// returned.
    pub fn rekey(&mut self) -> Result<Vec<FileId>, Error> {
        self.check_writable()?;
        if !self.is_encrypted() {
            return Err(Error::NotEncrypted);
        }
        if self.is_locked() {
            return Err(Error::Locked);
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
            let planned = Planned {
                id,
                size: file.size,
                blocks: file.extent.blocks,
                key: Some(Key::generate()?),
                input: Input::Stored(file),
            };
            self.transact(self.state.clone(), vec![planned])?;
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

    /// Overwrites everything that is free with zeros: blocks in which deleted and replaced files were,
    /// old tables with the keys in them, and what files leave of their last blocks. Both headers then
    /// lead to the same generation.
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
        self.disk.flush()
    }

    /// Writes the header in force again, over the other one.
    pub(crate) fn refresh_headers(&mut self) -> Result<(), Error> {
        self.put_in_force(self.state.clone())
    }

    /// Sets or clears the reprovisioned marker.
    pub(crate) fn set_marker(&mut self, reprovisioned: bool) -> Result<(), Error> {
        self.check_writable()?;
        let mut next = self.state.clone();
        next.reprovisioned = reprovisioned;
        self.put_in_force(next)
    }

    /// Turns a store of version 2.0, which is only read, into one of version 3.0.
    pub fn upgrade(&mut self) -> Result<(), Error> {
        if self.state.version == vmgs_format::Version::V3_0 {
            return Ok(());
        }
        if self.access == crate::Access::ReadOnly {
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

/// Gives the files of `state` the attributes and keys that the extended table has for them.
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
            // The disk's layout comes first: content that is not there has no encryption.
            if file.damage.is_none() || matches!(file.damage, Some(Damage::Overlaps(_))) {
                file.damage = Some(damage);
            }
            findings.push(Finding::DamagedFile { id, damage });
        }
    }
}
