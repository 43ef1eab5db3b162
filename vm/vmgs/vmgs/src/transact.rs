//! Writing a new generation of the store and making it active.
//!
//! Crash consistency depends on this order:
//!
//! 1. All that the new header refers to is written to blocks that no header on the medium refers to.
//! 2. Flush.
//! 3. The new header is written over the older of the two headers.
//! 4. Flush.
//!
//! After a crash before the new header is complete, the other header is active, and all that it refers to
//! is unchanged.

use crate::alloc::Extent;
use crate::alloc::Occupied;
use crate::content::Content;
use crate::crypto;
use crate::crypto::Gcm;
use crate::crypto::Key;
use crate::damage::Damage;
use crate::disk::byte_of;
use crate::error::Error;
use crate::finding::Finding;
use crate::read::PIECE;
use crate::renew::Tables;
use crate::state::FileRecord;
use crate::state::State;
use crate::store::Vmgs;
use std::cmp::Reverse;
use std::io::Read;
use vmgs_format::BLOCK_SIZE;
use vmgs_format::FIRST_DATA_BLOCK;
use vmgs_format::FileAttributes;
use vmgs_format::FileId;
use vmgs_format::MetadataKeyRecord;
use vmgs_format::NONCE_LEN;
use vmgs_format::TAG_LEN;
use zerocopy::IntoBytes;
use zeroize::Zeroizing;

/// A file to be written.
pub(crate) struct Planned<'a> {
    pub(crate) id: FileId,
    pub(crate) size: u64,
    pub(crate) blocks: u32,
    /// The new data key, if the file is to be encrypted.
    pub(crate) key: Option<Key>,
    pub(crate) input: Input<'a>,
}

/// The source of the content of a file to be written.
pub(crate) enum Input<'a> {
    Content(Content<'a>),
    /// An encrypted file of this store, which gets another key.
    Stored(FileRecord),
}

/// The blocks allocated for a new generation.
struct Placement {
    table: u32,
    extended: Option<Extent>,
    /// In the order of the files to be written.
    files: Vec<Extent>,
}

/// The order of allocation.
#[derive(Clone, Copy)]
enum Strategy {
    /// The two tables first, side by side, so that they need one write.
    TablesTogether,
    /// The largest file first, the tables last.
    LargestFirst,
}

fn place(
    mut occupied: Occupied,
    strategy: Strategy,
    with_extended: bool,
    files: &[Planned<'_>],
) -> Result<Placement, Error> {
    let mut allocate = |id, blocks| {
        occupied
            .allocate(blocks)
            .ok_or(Error::NoSpace { id, blocks })
    };
    match strategy {
        Strategy::TablesTogether => {
            let tables = allocate(FileId::FILE_TABLE, 1 + u32::from(with_extended))?;
            Ok(Placement {
                table: tables.start,
                extended: with_extended.then(|| Extent::new(tables.start + 1, 1)),
                files: files
                    .iter()
                    .map(|file| allocate(file.id, file.blocks))
                    .collect::<Result<_, _>>()?,
            })
        }
        Strategy::LargestFirst => {
            let mut order = files.iter().enumerate().collect::<Vec<_>>();
            order.sort_by_key(|(_, file)| Reverse(file.blocks));
            let mut placed = vec![Extent::new(0, 0); files.len()];
            for (i, file) in order {
                placed[i] = allocate(file.id, file.blocks)?;
            }
            let extended = if with_extended {
                Some(allocate(FileId::EXTENDED_FILE_TABLE, 1)?)
            } else {
                None
            };
            Ok(Placement {
                table: allocate(FileId::FILE_TABLE, 1)?.start,
                extended,
                files: placed,
            })
        }
    }
}

impl Vmgs {
    /// Makes `next`, with `files` added to it, the active generation.
    pub(crate) fn transact(&mut self, next: State, files: Vec<Planned<'_>>) -> Result<(), Error> {
        self.transact_with_key(next, files, None)
    }

    /// Like [`transact`](Vmgs::transact), and wraps the metadata key under a further datastore key in the
    /// given key record.
    pub(crate) fn transact_with_key(
        &mut self,
        mut next: State,
        mut files: Vec<Planned<'_>>,
        added: Option<(usize, Key)>,
    ) -> Result<(), Error> {
        if self.exposed && !self.state.has_zero_metadata_key() {
            // An earlier change replaced the zero key and was cut off. The header that this one replaces tells so.
            if let Some(tables) = self.exposed_tables()? {
                self.wipe_exposed(&tables)?;
            }
        }
        let renews = self.exposed && next.unlocked.is_some();
        let exposed = self.state.extended_table().map(|table| Tables {
            file_table: Extent::new(self.state.table, 1),
            extended: table.extent,
        });
        let asked = files.iter().map(|file| file.id).collect::<Vec<_>>();
        if renews {
            next.extended_stale = true;
            files.extend(self.files_to_renew(&next, &asked)?);
        }
        files.sort_by_key(|file| file.id);
        if renews && self.place(true, &files).is_err() {
            tracing::warn!(
                "there is no space to replace the keys of the files, which an earlier zero metadata key exposed"
            );
            files.retain(|file| asked.contains(&file.id));
        }
        for file in &files {
            if let Some(entry) = next.file_mut(file.id) {
                *entry = Some(FileRecord {
                    attributes: if file.key.is_some() {
                        FileAttributes::PROTECTED
                    } else {
                        FileAttributes::new()
                    },
                    data_key: file.key.clone(),
                    ..FileRecord::plain(Extent::new(0, file.blocks), file.size)
                });
            }
        }
        // The extended file table of a locked store cannot be written, and stays as it is.
        let with_extended = !next.is_locked()
            && (next.extended_stale
                || self.state.is_encrypted() != next.is_encrypted()
                || self.state.to_extended_table() != next.to_extended_table());
        self.check_reserve(&next, &files)?;
        let placement = self.place(with_extended, &files)?;

        for (file, extent) in files.into_iter().zip(placement.files) {
            let id = file.id;
            let record = self.write_file(file, extent)?;
            if let Some(entry) = next.file_mut(id) {
                *entry = Some(record);
            }
        }
        self.finish(next, placement.table, placement.extended, added)?;
        if renews
            && let Some(tables) = exposed
            && let Err(error) = self.wipe_exposed(&tables)
        {
            // The change is made. The next one wipes first.
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the tables that a zero metadata key opens could not be wiped"
            );
        }
        Ok(())
    }

    /// Fails if adding the files would leave no space for new tables, which deleting a file needs, or for files that
    /// have space reserved.
    fn check_reserve(&self, next: &State, files: &[Planned<'_>]) -> Result<(), Error> {
        let Some(largest) = files.iter().max_by_key(|file| file.blocks) else {
            return Ok(());
        };
        let used = used_blocks(next);
        let needed = u64::from(FIRST_DATA_BLOCK) + used + next.table_blocks();
        let capacity = u64::from(self.disk.geometry.blocks);
        if needed > capacity {
            return Err(Error::NoSpace {
                id: largest.id,
                blocks: largest.blocks,
            });
        }
        let reserved = self.reserved_blocks(next);
        // Less may be there than was to be reserved. That is for the reserved files, and for changes that take no blocks.
        let is_reserved = |file: &Planned<'_>| {
            let mut kept = self.reserved.iter();
            kept.any(|(id, blocks)| *id == file.id && file.blocks <= *blocks)
        };
        let takes_others = used > used_blocks(&self.state) && !files.iter().all(is_reserved);
        if takes_others && needed + reserved > capacity {
            return Err(Error::Reserved {
                id: largest.id,
                reserved: (reserved + next.table_blocks()) * u64::from(BLOCK_SIZE),
            });
        }
        Ok(())
    }

    /// The blocks to be kept free for reserved files: to write each, and to replace it.
    pub(crate) fn reserved_blocks(&self, next: &State) -> u64 {
        let blocks = |(id, blocks): &(FileId, u32)| {
            let copies = if next.file(*id).is_some() { 1 } else { 2 };
            u64::from(*blocks) * copies
        };
        self.reserved.iter().map(blocks).sum()
    }

    /// Allocates blocks, if possible without using those of the previous generation.
    fn place(&mut self, with_extended: bool, files: &[Planned<'_>]) -> Result<Placement, Error> {
        let blocks = self.disk.geometry.blocks;
        let current = self.state.extents();
        let strategies = [Strategy::TablesTogether, Strategy::LargestFirst];
        if let Some(previous) = &self.previous {
            let both = current.iter().chain(previous).copied().collect();
            let occupied = Occupied::new(blocks, both);
            for strategy in strategies {
                if let Ok(placement) = place(occupied.clone(), strategy, with_extended, files) {
                    return Ok(placement);
                }
            }
        }
        // The blocks of the previous generation may be overwritten only if a crash cannot make it active
        // again: the active header must be on the medium.
        self.make_header_durable()?;
        let occupied = Occupied::new(blocks, current);
        place(occupied.clone(), strategies[0], with_extended, files)
            .or_else(|_| place(occupied, strategies[1], with_extended, files))
    }

    /// Writes a file's content, and returns its entry.
    fn write_file(&mut self, file: Planned<'_>, extent: Extent) -> Result<FileRecord, Error> {
        let Planned {
            id,
            size,
            mut key,
            mut input,
            ..
        } = file;
        let mut record = FileRecord::plain(extent, size);
        let start = byte_of(extent.start);
        if let (None, Input::Content(Content::Bytes(bytes))) = (&key, &input) {
            self.disk.write_blocks(start, bytes)?;
            return Ok(record);
        }
        let mut sealing = None;
        if let Some(key) = &key {
            record.nonce = crypto::fresh_nonce()?;
            record.attributes = FileAttributes::PROTECTED;
            sealing = Some(Gcm::new(key, &record.nonce));
        }
        let mut opening = match &input {
            Input::Stored(old) => old.data_key.as_ref().map(|key| Gcm::new(key, &old.nonce)),
            Input::Content(_) => None,
        };
        let mut buffer = Zeroizing::new(vec![0; size.min(PIECE as u64) as usize]);
        let mut position = 0;
        while position < size {
            let len = (size - position).min(PIECE as u64) as usize;
            let piece = &mut buffer[..len];
            match &mut input {
                Input::Content(Content::Bytes(bytes)) => {
                    let from = position as usize;
                    piece.copy_from_slice(&bytes[from..from + len]);
                }
                Input::Content(Content::Stream { source, .. }) => {
                    source.read_exact(piece).map_err(|source| Error::Source {
                        id,
                        len: size,
                        source,
                    })?;
                }
                Input::Stored(old) => {
                    self.disk
                        .read(byte_of(old.extent.start) + position, piece)?;
                }
            }
            if let Some(gcm) = &mut opening {
                gcm.authenticate(piece);
                gcm.decrypt_at(position, piece);
            }
            // Other readers take ciphertext of zeros only for damage.
            while let Some(used) = &mut key
                && size <= TAG_LEN as u64
                && encrypts_to_zeros(used, &record.nonce, piece)
            {
                *used = Key::generate()?;
                sealing = Some(Gcm::new(used, &record.nonce));
            }
            if let Some(gcm) = &mut sealing {
                gcm.encrypt(piece);
            }
            self.disk.write_blocks(start + position, piece)?;
            position += len as u64;
        }
        if let (Input::Stored(old), Some(gcm)) = (&input, &opening)
            && !gcm.verify(&old.tag)
        {
            return Err(Error::Authentication(id));
        }
        if let Some(gcm) = sealing {
            record.tag = gcm.tag();
        }
        record.data_key = key;
        Ok(record)
    }

    /// Writes the tables and the header.
    fn finish(
        &mut self,
        mut next: State,
        table: u32,
        extended: Option<Extent>,
        added: Option<(usize, Key)>,
    ) -> Result<(), Error> {
        next.table = table;
        let mut tables = Zeroizing::new(vec![0; BLOCK_SIZE as usize]);
        if let Some(extent) = extended {
            let content = self.make_extended_table(&mut next, extent)?;
            tables.extend_from_slice(&content);
        }
        if let Some((index, key)) = added {
            wrap(&mut next, index, &key)?;
        }
        next.find_overlaps();
        tables[..BLOCK_SIZE as usize].copy_from_slice(next.to_table().as_bytes());
        match extended {
            Some(extent) if extent.start == table + 1 => {
                self.disk.write(byte_of(table), &tables)?;
            }
            _ => {
                let (file_table, extended_table) = tables.split_at(BLOCK_SIZE as usize);
                if let Some(extent) = extended {
                    self.disk.write(byte_of(extent.start), extended_table)?;
                }
                self.disk.write(byte_of(table), file_table)?;
            }
        }
        self.activate(next)
    }

    /// Returns the content of the extended file table, encrypted if the store is. Replaces the metadata key,
    /// unless a second datastore key prevents that.
    fn make_extended_table(
        &mut self,
        next: &mut State,
        extent: Extent,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let mut record = FileRecord::plain(extent, BLOCK_SIZE.into());
        let mut content = next.to_extended_table();
        if let Some(unlocked) = next.unlocked.clone() {
            let others = 1 - unlocked.record;
            let first_use = !next.records[unlocked.record].is_occupied();
            // The record of a second datastore key cannot be wrapped again without that key. So while there
            // are two keys, the metadata key is kept, and the table gets a completely random nonce. A zero
            // metadata key must be replaced, and the second record is then dropped.
            let keep = next.records[others].is_occupied()
                && !first_use
                && !unlocked.metadata_key.is_zero();
            let metadata_key = if keep {
                crypto::random(&mut record.nonce)?;
                unlocked.metadata_key.clone()
            } else {
                record.nonce = crypto::fresh_nonce()?;
                Key::generate()?
            };
            record.tag = crypto::seal(&metadata_key, &record.nonce, &mut content);
            record.attributes = FileAttributes::PROTECTED;
            if let Some(unlocked) = &mut next.unlocked {
                unlocked.metadata_key = metadata_key;
            }
            if !keep {
                if next.records[others].is_occupied() {
                    tracing::warn!(record = others, "dropping a key record that is now stale");
                    next.records[others] = MetadataKeyRecord::EMPTY;
                }
                wrap(next, unlocked.record, &unlocked.datastore_key)?;
            }
        }
        if let Some(entry) = next.file_mut(FileId::EXTENDED_FILE_TABLE) {
            *entry = Some(record);
        }
        next.extended_stale = false;
        Ok(content)
    }

    /// Flushes what was written, writes the header of `next`, which refers to it, and flushes the header.
    pub(crate) fn activate(&mut self, mut next: State) -> Result<(), Error> {
        next.slot = 1 - self.state.slot;
        next.sequence = self.state.sequence.wrapping_add(1);
        if !self.header_durable {
            self.rewrite_header()?;
        }
        self.disk.flush()?;
        self.header_durable = true;
        let offset = self.disk.geometry.header_offset(next.slot);
        self.in_doubt = true;
        self.disk.write(offset, next.to_header().as_bytes())?;
        self.disk.flush()?;
        self.in_doubt = false;
        self.previous = Some(self.state.extents());
        let new_table = self.state.table != next.table;
        self.state = next;
        self.drop_repaired_findings(new_table);
        Ok(())
    }

    /// Makes sure that the active header is on the medium.
    pub(crate) fn make_header_durable(&mut self) -> Result<(), Error> {
        if !self.header_durable {
            self.rewrite_header()?;
            self.disk.flush()?;
            self.header_durable = true;
        }
        Ok(())
    }

    /// Writes the active header again. That it is torn does no harm: the medium has the same bytes, or the other header
    /// is the last that was durable.
    fn rewrite_header(&mut self) -> Result<(), Error> {
        let mut sector = vec![0; self.disk.geometry.sector_size as usize];
        let offset = self.disk.geometry.header_offset(self.state.slot);
        self.disk.read(offset, &mut sector)?;
        self.disk.write(offset, &sector)
    }

    /// Drops the findings that the last commit repaired.
    fn drop_repaired_findings(&mut self, new_table: bool) {
        let (state, exposed) = (&self.state, self.exposed);
        self.findings.retain(|finding| match finding {
            Finding::DamagedHeader { .. } => false,
            Finding::MisplacedTableEntry | Finding::ReservedNotZero(_) => !new_table,
            Finding::NoExtendedTable => state.extended_table().is_none(),
            Finding::DamagedFile { id, damage } => {
                state.file(*id).is_some_and(|f| f.damage == Some(*damage))
            }
            Finding::ZeroMetadataKey => exposed,
            Finding::StaleExtendedEntry(_) => state.extended_stale,
            _ => true,
        });
    }
}

/// The blocks of the file table and of all files in the store.
fn used_blocks(state: &State) -> u64 {
    let files = state.files.iter().flatten();
    let inside = files.filter(|file| file.damage != Some(Damage::OutsideStore));
    inside
        .map(|file| u64::from(file.extent.blocks))
        .sum::<u64>()
        + 1
}

fn encrypts_to_zeros(key: &Key, nonce: &[u8; NONCE_LEN], content: &[u8]) -> bool {
    let mut sealed = Zeroizing::new(content.to_vec());
    crypto::seal(key, nonce, &mut sealed);
    sealed.iter().all(|byte| *byte == 0)
}

/// Wraps the metadata key under `key` in key record `index`.
fn wrap(state: &mut State, index: usize, key: &Key) -> Result<(), Error> {
    let Some(unlocked) = &state.unlocked else {
        return Err(Error::Locked);
    };
    let old = &state.records[index];
    let nonce: [u8; NONCE_LEN] = if old.is_occupied() {
        crypto::next_nonce(&old.nonce)?
    } else {
        crypto::fresh_nonce()?
    };
    let mut encrypted_key = *unlocked.metadata_key.as_bytes();
    let tag: [u8; TAG_LEN] = crypto::seal(key, &nonce, &mut encrypted_key);
    state.records[index] = MetadataKeyRecord {
        nonce,
        reserved: 0.into(),
        tag,
        encrypted_key,
    };
    Ok(())
}
