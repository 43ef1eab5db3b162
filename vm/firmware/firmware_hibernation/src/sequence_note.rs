//! A note outside the store with its sequence number, to detect an older copy of the store.
//!
//! The format of the store has no protection against rollback. So after each change that matters, the sequence number
//! of the store is noted in a file of its own. A store with a lower number is an older copy. The note is written after
//! the change is durable: if the note is lost or outdated, an older copy may go undetected, but a good store is never
//! refused.

use serde::Serialize;
use std::io;
use std::io::Read as _;
use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;

/// The file with the note, which is replaced by renaming.
#[derive(Debug, Clone)]
pub struct SequenceNoteFile(pub PathBuf);

impl SequenceNoteFile {
    /// The note of a store in a file: `STORE.seen` in the same folder. A store on a device has none, because the
    /// folder with the device does not survive a restart of the host. A store that does not exist yet becomes a file.
    pub fn beside(store: &Path) -> Option<Self> {
        let is_file = match std::fs::metadata(store) {
            Ok(metadata) => metadata.is_file(),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        let mut path = store.as_os_str().to_owned();
        path.push(".seen");
        is_file.then(|| Self(path.into()))
    }

    /// The note, or `None` if there is none or it cannot be read.
    pub(crate) fn read(&self) -> Option<SequenceNote> {
        match self.read_bytes() {
            Ok(None) => None,
            Ok(Some(bytes)) => {
                let note = SequenceNote::decode(&bytes);
                if note.is_none() {
                    tracing::warn!(path = %self.0.display(), "the sequence note is damaged and ignored");
                }
                note
            }
            Err(error) => {
                tracing::warn!(%error, path = %self.0.display(), "the sequence note cannot be read");
                None
            }
        }
    }

    fn read_bytes(&self) -> io::Result<Option<Vec<u8>>> {
        let file = match std::fs::File::open(&self.0) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut note = Vec::new();
        file.take(NOTE_LEN as u64 + 1).read_to_end(&mut note)?;
        Ok(Some(note))
    }

    /// Replaces the note, as a whole or not at all.
    pub(crate) fn write(&self, note: SequenceNote) -> io::Result<()> {
        let mut temporary = self.0.clone().into_os_string();
        temporary.push(".new");
        let temporary = Path::new(&temporary);
        let mut file = std::fs::File::create(temporary)?;
        file.write_all(&note.encode())?;
        std::fs::rename(temporary, &self.0)
    }
}

/// The sequence number of a store that does not exist yet: older than any store.
pub(crate) const NO_STORE: u32 = 0;

/// The content of the note.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SequenceNote {
    /// The sequence number of the store.
    pub sequence: u32,
    /// Whether the guest was hibernated.
    pub hibernated: bool,
}

const MAGIC: [u8; 8] = *b"HIBSEEN1";
const NOTE_LEN: usize = 20;

impl SequenceNote {
    /// Magic number, sequence number, whether hibernated, CRC-32 of that; little-endian.
    pub(crate) fn encode(self) -> [u8; NOTE_LEN] {
        let mut bytes = [0; NOTE_LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[12] = self.hibernated.into();
        let crc = crc32fast::hash(&bytes[..16]);
        bytes[16..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The note in `bytes`, if they are valid.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; NOTE_LEN] = bytes.try_into().ok()?;
        let word = |at: usize| Some(u32::from_le_bytes(*bytes[at..].first_chunk()?));
        let is_valid = bytes.starts_with(&MAGIC) && word(16)? == crc32fast::hash(&bytes[..16]);
        Some(Self {
            sequence: word(8).filter(|_| is_valid)?,
            hibernated: bytes[12] != 0,
        })
    }

    /// Whether the noted number is newer than `sequence`.
    pub(crate) fn is_newer_than(self, sequence: u32) -> bool {
        // Sequence numbers wrap: half of them are before any given one, and half after.
        self.sequence != sequence && self.sequence.wrapping_sub(sequence) < 1 << 31
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_round_trip_and_damage_is_detected() {
        let note = SequenceNote {
            sequence: 0x1234_5678,
            hibernated: true,
        };
        let bytes = note.encode();
        assert_eq!(SequenceNote::decode(&bytes), Some(note));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SequenceNote::decode(&damaged), None, "bit {bit}");
        }
        assert_eq!(SequenceNote::decode(&bytes[..19]), None);
    }

    #[test]
    fn numbers_are_compared_across_the_wrap() {
        let note = |sequence| SequenceNote {
            sequence,
            hibernated: true,
        };
        assert!(note(5).is_newer_than(4));
        assert!(!note(5).is_newer_than(5));
        assert!(!note(5).is_newer_than(6));
        assert!(note(2).is_newer_than(u32::MAX));
        assert!(!note(u32::MAX).is_newer_than(2));
    }

    #[test]
    fn a_store_in_a_file_has_a_note_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("vm.vmgs");
        let expected = dir.path().join("vm.vmgs.seen");
        assert_eq!(SequenceNoteFile::beside(&store).unwrap().0, expected);
        std::fs::write(&store, []).unwrap();
        assert_eq!(SequenceNoteFile::beside(&store).unwrap().0, expected);
        assert!(SequenceNoteFile::beside(dir.path()).is_none());
        assert!(SequenceNoteFile::beside(Path::new("/dev/null")).is_none());
    }

    #[test]
    fn a_file_keeps_the_note() {
        let dir = tempfile::tempdir().unwrap();
        let file = SequenceNoteFile(dir.path().join("seen"));
        assert_eq!(file.read(), None);
        for sequence in [1, 2] {
            let note = SequenceNote {
                sequence,
                hibernated: true,
            };
            file.write(note).unwrap();
            assert_eq!(file.read(), Some(note));
        }
        std::fs::write(&file.0, b"damaged").unwrap();
        assert_eq!(file.read(), None);
    }
}
