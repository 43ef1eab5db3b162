//! Checks and plans the changes that callers ask for.

use crate::content::Content;
use crate::crypto::Key;
use crate::crypto::MAX_ENCRYPTED_LEN;
use crate::error::Error;
use crate::options::StoreAccess;
use crate::state::FileRecord;
use crate::state::State;
use crate::store::Vmgs;
use crate::transact::Input;
use crate::transact::Planned;
use std::borrow::Cow;
use std::io;
use vmgs_format::BLOCK_SIZE;
use vmgs_format::FileAttributes;
use vmgs_format::FileId;
use vmgs_format::FileIdRange;

/// Whether a file is to be encrypted. An empty file never is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// Not encrypted. Replacing an encrypted file is an error.
    Plain,
    /// Not encrypted, even if it replaces an encrypted file. If the store is locked, its extended file
    /// table still says that the file is encrypted; see [`Vmgs::accept_plain`].
    PlainOverEncrypted,
    /// Encrypted if the store is. A locked store is an error.
    IfEncrypted,
    /// Encrypted. A store that is locked or has no keys is an error.
    Encrypted,
}

/// What a move does if the destination exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overwrite {
    /// The move fails.
    Refuse,
    /// The move replaces the destination.
    Allow,
}

/// A file to be replaced or added.
struct Write<'a> {
    id: FileId,
    protection: Protection,
    content: Content<'a>,
}

/// What a deletion does if the file does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IfAbsent {
    Fail,
    Ignore,
}

/// Changes to files that are made together: after a crash, either all or none have been made.
///
/// New content is borrowed or owned; a `Commit<'static>` can be sent to another thread.
#[derive(Default)]
#[must_use = "a commit does nothing until it is passed to Vmgs::commit"]
pub struct Commit<'a> {
    writes: Vec<Write<'a>>,
    deletes: Vec<(FileId, IfAbsent)>,
}

impl<'a> Commit<'a> {
    /// A commit without changes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces or adds a file.
    pub fn write(
        self,
        id: FileId,
        protection: Protection,
        content: impl Into<Cow<'a, [u8]>>,
    ) -> Self {
        self.write_content(id, protection, Content::Bytes(content.into()))
    }

    /// Replaces or adds a file with `len` bytes from `source`.
    pub fn write_from(
        self,
        id: FileId,
        protection: Protection,
        len: u64,
        source: &'a mut (dyn io::Read + Send),
    ) -> Self {
        self.write_content(id, protection, Content::Stream { len, source })
    }

    fn write_content(mut self, id: FileId, protection: Protection, content: Content<'a>) -> Self {
        self.writes.push(Write {
            id,
            protection,
            content,
        });
        self
    }

    /// Deletes a file, which must exist.
    pub fn delete(mut self, id: FileId) -> Self {
        self.deletes.push((id, IfAbsent::Fail));
        self
    }

    /// Deletes a file if it exists.
    pub fn delete_if_present(mut self, id: FileId) -> Self {
        self.deletes.push((id, IfAbsent::Ignore));
        self
    }
}

/// The number of blocks for content of `size` bytes. An empty file has one block.
pub(crate) fn blocks_for(id: FileId, size: u64) -> Result<u32, Error> {
    u32::try_from(size.div_ceil(u64::from(BLOCK_SIZE)).max(1))
        .map_err(|_| Error::FileTooLarge { id, size })
}

/// Returns `id` if callers may change the file: the tables are changed by the store only.
pub(crate) fn user_file(id: FileId) -> Result<FileId, Error> {
    match id.range() {
        FileIdRange::File => Ok(id),
        FileIdRange::Table | FileIdRange::OutOfRange => Err(Error::InvalidFileId(id)),
    }
}

impl Vmgs {
    /// Fails if the store cannot be changed.
    pub(crate) fn check_writable(&self) -> Result<(), Error> {
        if self.access == StoreAccess::ReadOnly {
            Err(Error::ReadOnly)
        } else if self.in_doubt {
            Err(Error::InDoubt)
        } else if self.state.version != vmgs_format::Version::V3_0 {
            Err(Error::OldVersion(self.state.version))
        } else {
            Ok(())
        }
    }

    /// Makes all changes, or none. A commit that changes nothing writes nothing, except for a header that may not be on
    /// the medium: when this returns, what the store says is durable.
    ///
    /// If this fails, nothing was changed, with one exception: if writing or flushing the header failed,
    /// the changes may have been made, and further commits fail with [`Error::InDoubt`].
    pub fn commit(&mut self, commit: Commit<'_>) -> Result<(), Error> {
        self.check_writable()?;
        // One bit for each file id that the commit names.
        let mut named = 0u64;
        let mut name = |id: FileId| {
            let bit = 1 << user_file(id)?.0;
            if named & bit != 0 {
                return Err(Error::NamedTwice(id));
            }
            named |= bit;
            Ok(())
        };
        let mut next = self.state.clone();
        let mut changed = !commit.writes.is_empty();
        for (id, if_absent) in commit.deletes {
            name(id)?;
            match (remove(&mut next, id), if_absent) {
                (Some(_), _) => changed = true,
                (None, IfAbsent::Ignore) => {}
                (None, IfAbsent::Fail) => return Err(Error::NotAllocated(id)),
            }
        }
        let mut planned = Vec::with_capacity(commit.writes.len());
        for write in commit.writes {
            name(write.id)?;
            planned.push(self.plan(write)?);
        }
        if !changed {
            return self.make_header_durable();
        }
        self.transact(next, planned)
    }

    /// Decides whether the file is encrypted and how many blocks it gets.
    fn plan<'a>(&self, write: Write<'a>) -> Result<Planned<'a>, Error> {
        let Write {
            id,
            protection,
            content,
        } = write;
        let replaces_encrypted = self
            .state
            .file(id)
            .is_some_and(|file| self.is_file_encrypted(file));
        let encrypt = match protection {
            Protection::Plain if replaces_encrypted => {
                return Err(Error::OverwriteEncrypted(id));
            }
            Protection::Plain => false,
            Protection::PlainOverEncrypted => {
                if replaces_encrypted {
                    tracing::warn!(%id, "replacing an encrypted file with an unencrypted one");
                }
                false
            }
            Protection::IfEncrypted | Protection::Encrypted if self.is_locked() => {
                return Err(Error::Locked);
            }
            Protection::IfEncrypted => self.is_encrypted(),
            Protection::Encrypted if self.is_encrypted() => true,
            Protection::Encrypted => return Err(Error::NotEncrypted),
        };
        let size = content.len();
        if encrypt && size > MAX_ENCRYPTED_LEN {
            return Err(Error::FileTooLarge { id, size });
        }
        Ok(Planned {
            id,
            blocks: blocks_for(id, size)?,
            size,
            // Other readers take an encrypted file of no bytes for damaged.
            key: if encrypt && size > 0 {
                Some(Key::generate()?)
            } else {
                None
            },
            input: Input::Content(content),
        })
    }

    /// Whether a file is encrypted. Old writers left the attributes in the file table zero, so in an encrypted
    /// store a nonce or tag that is not zero counts too.
    pub(crate) fn is_file_encrypted(&self, file: &FileRecord) -> bool {
        file.attributes.needs_key() || (self.is_encrypted() && file.shows_encryption())
    }

    /// Replaces or adds a file.
    pub fn write(
        &mut self,
        id: FileId,
        protection: Protection,
        content: &[u8],
    ) -> Result<(), Error> {
        self.commit(Commit::new().write(id, protection, content))
    }

    /// Replaces or adds a file with `len` bytes from `source`.
    pub fn write_from(
        &mut self,
        id: FileId,
        protection: Protection,
        len: u64,
        source: &mut (dyn io::Read + Send),
    ) -> Result<(), Error> {
        self.commit(Commit::new().write_from(id, protection, len, source))
    }

    /// Deletes a file. Its blocks become free; their content stays until they are reused or
    /// [scrubbed](Vmgs::scrub).
    pub fn delete(&mut self, id: FileId) -> Result<(), Error> {
        self.commit(Commit::new().delete(id))
    }

    /// Changes a file's id. Its content stays in the same blocks.
    pub fn move_file(
        &mut self,
        from: FileId,
        to: FileId,
        overwrite: Overwrite,
    ) -> Result<(), Error> {
        self.check_writable()?;
        user_file(from)?;
        user_file(to)?;
        let file = self.state.file(from).ok_or(Error::NotAllocated(from))?;
        // The file's key is stored under its id in the extended file table, which cannot be written while the
        // store is locked.
        if self.is_locked() && self.is_file_encrypted(file) {
            return Err(Error::Locked);
        }
        if let Some(replaced) = self.state.file(to) {
            if overwrite == Overwrite::Refuse {
                return Err(Error::DestinationExists(to));
            }
            if self.is_locked() && self.is_file_encrypted(replaced) {
                return Err(Error::Locked);
            }
        }
        if from == to {
            return self.make_header_durable();
        }
        let mut next = self.state.clone();
        let moved = remove(&mut next, from);
        if let Some(target) = next.file_mut(to) {
            *target = moved;
        }
        self.transact(next, Vec::new())
    }

    /// Accepts an unencrypted file that should be encrypted according to the extended file table. Call this
    /// after unlocking a store in which the file was replaced with [`Protection::PlainOverEncrypted`] while the
    /// store was locked.
    pub fn accept_plain(&mut self, id: FileId) -> Result<(), Error> {
        self.check_writable()?;
        if self.is_locked() {
            return Err(Error::Locked);
        }
        let mut next = self.state.clone();
        match next.file_mut(user_file(id)?) {
            Some(Some(file)) if file.damage == Some(crate::Damage::ExpectedEncrypted) => {
                file.damage = None;
                file.data_key = None;
                file.attributes = FileAttributes::new();
            }
            Some(Some(_)) => return Ok(()),
            _ => return Err(Error::NotAllocated(id)),
        }
        self.transact(next, Vec::new())
    }
}

/// Removes the entry of a file and returns it.
fn remove(state: &mut State, id: FileId) -> Option<FileRecord> {
    state.file_mut(id)?.take()
}
