//! Getting rid of a zero metadata key.
//!
//! Some writers encrypted the extended file table, which holds the files' keys, under a key and a nonce of zeros. The
//! first change to such a store that is unlocked replaces all keys. Then whatever the zero key opens is wiped: free
//! blocks that are not holes first, the old table next, and the header that leads there last. Until then that header tells that the store
//! is exposed, so a crash at any time leaves either the finding or nothing to find.

use crate::alloc::Extent;
use crate::alloc::Occupied;
use crate::crypto::Gcm;
use crate::crypto::Key;
use crate::error::Error;
use crate::header::HeaderScan;
use crate::state::FileRecord;
use crate::state::State;
use crate::store::Vmgs;
use crate::store::read_table;
use crate::transact::Input;
use crate::transact::Planned;
use vmgs_format::EncryptionAlgorithm;
use vmgs_format::FileId;
use vmgs_format::NONCE_LEN;

/// Where the tables of a generation are.
pub(crate) struct Tables {
    pub(crate) file_table: Extent,
    pub(crate) extended: Extent,
}

impl Vmgs {
    /// The tables of the generation before, if its metadata key is zero. The writers that made it zero the nonce too,
    /// which nobody else does.
    pub(crate) fn exposed_tables(&mut self) -> Result<Option<Tables>, Error> {
        let geometry = self.disk.geometry;
        let scan = HeaderScan::read_with(self.disk.device(), &geometry)?;
        let other = 1 - self.state.slot;
        let header = &scan.headers[other];
        if scan.validity[other].is_err()
            || header.encryption_algorithm.get() == EncryptionAlgorithm::NONE.0
        {
            return Ok(None);
        }
        let block = header.file_table_offset.get();
        let table = read_table(&mut self.disk, block)?;
        let before = State::parse(other, header, &table, &geometry);
        Ok(before
            .extended_table()
            .filter(|table| table.damage.is_none() && table.nonce == [0; NONCE_LEN])
            .map(|table| Tables {
                file_table: Extent::new(block, 1),
                extended: table.extent,
            }))
    }

    /// The encrypted files of `next`, without those in `asked`, to be written again under new keys. Files that do not
    /// decrypt stay as they are.
    pub(crate) fn files_to_renew<'a>(
        &mut self,
        next: &State,
        asked: &[FileId],
    ) -> Result<Vec<Planned<'a>>, Error> {
        let mut files = Vec::new();
        for (id, file) in next.user_files() {
            let Some(key) = file.data_key.as_ref().filter(|_| file.damage.is_none()) else {
                continue;
            };
            if asked.contains(&id) {
                continue;
            }
            let mut gcm = Gcm::new(key, &file.nonce);
            if let Err(error) = self.read_authentic(id, file, &mut gcm, 0, &mut []) {
                tracing::warn!(%id, error = &error as &dyn std::error::Error, "the file keeps its key");
                continue;
            }
            files.push(renewed(id, file.clone())?);
        }
        Ok(files)
    }

    /// Wipes what a zero metadata key opens: these tables of the generation before, and all that is free. The active
    /// generation has another key.
    pub(crate) fn wipe_exposed(&mut self, tables: &Tables) -> Result<(), Error> {
        self.make_header_durable()?;
        let mut kept = self.state.extents();
        kept.extend([tables.file_table, tables.extended]);
        let occupied = Occupied::new(self.disk.geometry.blocks, kept);
        for gap in occupied.gaps().collect::<Vec<_>>() {
            self.disk.wipe(gap)?;
        }
        self.disk.flush()?;
        self.disk.zero(tables.extended, 0)?;
        self.disk.flush()?;
        self.exposed = self.state.has_zero_metadata_key();
        self.refresh_headers()
    }
}

/// A stored file, to be written again under a new key.
pub(crate) fn renewed<'a>(id: FileId, file: FileRecord) -> Result<Planned<'a>, Error> {
    Ok(Planned {
        id,
        size: file.size,
        blocks: file.extent.blocks,
        key: Some(Key::generate()?),
        input: Input::Stored(file),
    })
}
