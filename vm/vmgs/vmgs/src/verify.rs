//! Checking a whole store.

use crate::crypto;
use crate::crypto::Key;
use crate::disk::byte_of;
use crate::error::Error;
use crate::finding::Finding;
use crate::store::Vmgs;
use vmgs_format::BLOCK_SIZE;
use vmgs_format::FileId;
use vmgs_format::KEY_LEN;
use zeroize::Zeroizing;

impl Vmgs {
    /// Checks the headers, the tables, and that each file can be read and, if it is encrypted and the store
    /// is unlocked, that it is authentic. `progress` is called before each file with its id and length in
    /// bytes.
    pub fn verify(&mut self, mut progress: impl FnMut(FileId, u64)) -> Vec<Finding> {
        let mut findings = self.findings.clone();
        findings.extend(self.check_extended_table());
        if !findings.contains(&Finding::ZeroMetadataKey) {
            findings.extend(self.check_leftover_tables());
        }
        let files = self
            .files()
            .filter(|(id, _)| id.range() == vmgs_format::FileIdRange::File)
            .collect::<Vec<_>>();
        for (id, info) in files {
            progress(id, info.valid_bytes);
            match self.check_file(id) {
                Ok(()) => {}
                Err(Error::Authentication(_)) => findings.push(Finding::Undecryptable(id)),
                // Opening the store found this already.
                Err(Error::DamagedFile { .. }) => {}
                Err(Error::Locked) => {
                    if let Err(error) = self.read_stored_to(id, &mut std::io::sink()) {
                        findings.push(unreadable(id, &error));
                    }
                }
                Err(error) => findings.push(unreadable(id, &error)),
            }
        }
        findings
    }

    /// Checks the extended file table, as far as that needs no key.
    fn check_extended_table(&mut self) -> Option<Finding> {
        let id = FileId::EXTENDED_FILE_TABLE;
        let file = self.state.extended_table()?.clone();
        if file.damage.is_some() || file.size != u64::from(BLOCK_SIZE) {
            // Opening the store found this already.
            return None;
        }
        let mut table = Zeroizing::new(vec![0; BLOCK_SIZE as usize]);
        if let Err(error) = self.disk.read(byte_of(file.extent.start), &mut table) {
            return Some(unreadable(id, &error));
        }
        if !self.is_encrypted() {
            let blank = table.iter().all(|&byte| byte == 0);
            return (!blank).then_some(Finding::ReservedNotZero("extended file table"));
        }
        // Unlocking finds this too, but it can be found without a key.
        if !self.is_locked() {
            return None;
        }
        let open = crypto::open(&Key::new([0; KEY_LEN]), &file.nonce, &file.tag, &mut table)
            || matches!(self.exposed_tables(), Ok(Some(_)));
        open.then_some(Finding::ZeroMetadataKey)
    }
}

fn unreadable(id: FileId, error: &Error) -> Finding {
    Finding::Unreadable {
        id,
        error: error.to_string(),
    }
}
