//! Checking a whole store.

use crate::error::Error;
use crate::finding::Finding;
use crate::store::Vmgs;
use vmgs_format::FileId;

impl Vmgs {
    /// Checks everything that can be checked: headers, tables, and of every file that it can be read
    /// and, if it is encrypted and the store unlocked, that it is authentic. `progress` is told before
    /// each file which it is and how many bytes it has.
    pub fn verify(&mut self, mut progress: impl FnMut(FileId, u64)) -> Vec<Finding> {
        let mut findings = self.findings.clone();
        let files = self
            .files()
            .filter(|(id, _)| id.range() == vmgs_format::FileIdRange::File)
            .collect::<Vec<_>>();
        for (id, info) in files {
            progress(id, info.valid_bytes);
            match self.check_file(id) {
                Ok(()) => {}
                Err(Error::Authentication(_)) => findings.push(Finding::Undecryptable(id)),
                // Its damage is among the findings of opening already.
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
}

fn unreadable(id: FileId, error: &Error) -> Finding {
    Finding::Unreadable {
        id,
        error: error.to_string(),
    }
}
