//! A note outside the store of how new the store was, to tell an older copy of it.
//!
//! The format of the store has no protection against being rolled back. So after each change that
//! matters, the store's sequence number is noted elsewhere. A store whose number is lower is an older copy.
//! The note is made after the change is durable, so that losing the note, or an older note, can only
//! miss an older copy and never accuse a good store.

use serde::Serialize;
use std::io;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

/// A small place outside the store.
pub trait WitnessPlace: Send {
    /// What was written last, or `None` if nothing was.
    fn read(&mut self) -> io::Result<Option<Vec<u8>>>;
    /// Replaces it, whole or not at all.
    fn write(&mut self, note: &[u8]) -> io::Result<()>;
}

/// A file, replaced by renaming.
#[derive(Debug, Clone)]
pub struct WitnessFile(pub PathBuf);

impl WitnessFile {
    /// The one that belongs to a store in a file: `STORE.seen` beside it. A store on a device has none, since what is
    /// beside it goes away with the host's next start.
    pub fn beside(store: &Path) -> Option<Self> {
        let is_file = std::fs::metadata(store).is_ok_and(|metadata| metadata.is_file());
        let mut path = store.as_os_str().to_owned();
        path.push(".seen");
        is_file.then(|| Self(path.into()))
    }
}

impl WitnessPlace for WitnessFile {
    fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        use std::io::Read;
        let file = match std::fs::File::open(&self.0) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut note = Vec::new();
        file.take(NOTE_LEN as u64 + 1).read_to_end(&mut note)?;
        Ok(Some(note))
    }

    fn write(&mut self, note: &[u8]) -> io::Result<()> {
        let mut temporary = self.0.clone().into_os_string();
        temporary.push(".new");
        let temporary = Path::new(&temporary);
        let mut file = std::fs::File::create(temporary)?;
        file.write_all(note)?;
        std::fs::rename(temporary, &self.0)
    }
}

/// What was noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Note {
    /// The store's sequence number.
    pub sequence: u32,
    /// Whether the guest was hibernated.
    pub hibernated: bool,
}

const MAGIC: [u8; 8] = *b"HIBSEEN1";
const NOTE_LEN: usize = 20;

impl Note {
    /// Magic, sequence number, whether hibernated, CRC-32 of that; little-endian.
    pub(crate) fn encode(self) -> [u8; NOTE_LEN] {
        let mut bytes = [0; NOTE_LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[12] = self.hibernated.into();
        let crc = crc32fast::hash(&bytes[..16]);
        bytes[16..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The note in these bytes, if they are one.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; NOTE_LEN] = bytes.try_into().ok()?;
        let word = |at: usize| {
            bytes[at..at + 4]
                .iter()
                .rev()
                .fold(0, |word, byte| word << 8 | u32::from(*byte))
        };
        (bytes.starts_with(&MAGIC) && word(16) == crc32fast::hash(&bytes[..16])).then(|| Self {
            sequence: word(8),
            hibernated: bytes[12] != 0,
        })
    }

    /// Whether a store with this sequence number is older than the one that was noted.
    pub(crate) fn is_newer_than(self, sequence: u32) -> bool {
        // Numbers wrap; half of them are before and half after any.
        self.sequence != sequence && self.sequence.wrapping_sub(sequence) < 1 << 31
    }
}

/// Reads the note. What cannot be read is missing.
pub(crate) fn read(place: &mut dyn WitnessPlace) -> Option<Note> {
    match place.read() {
        Ok(None) => None,
        Ok(Some(bytes)) => {
            let note = Note::decode(&bytes);
            if note.is_none() {
                tracing::warn!("the note of the store's age is damaged and ignored");
            }
            note
        }
        Err(error) => {
            tracing::warn!(%error, "the note of the store's age cannot be read");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_round_trip_and_damage_is_noticed() {
        let note = Note {
            sequence: 0x1234_5678,
            hibernated: true,
        };
        let bytes = note.encode();
        assert_eq!(Note::decode(&bytes), Some(note));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Note::decode(&damaged), None, "bit {bit}");
        }
        assert_eq!(Note::decode(&bytes[..19]), None);
    }

    #[test]
    fn older_is_told_across_the_wrap() {
        let note = |sequence| Note {
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
    fn the_note_of_a_file_is_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("vm.vmgs");
        assert!(WitnessFile::beside(&store).is_none());
        std::fs::write(&store, []).unwrap();
        let note = WitnessFile::beside(&store).unwrap();
        assert_eq!(note.0, dir.path().join("vm.vmgs.seen"));
        assert!(WitnessFile::beside(Path::new("/dev/null")).is_none());
    }

    #[test]
    fn a_file_keeps_the_note() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = WitnessFile(dir.path().join("seen"));
        assert!(file.read().unwrap().is_none());
        file.write(b"note").unwrap();
        file.write(b"another").unwrap();
        assert_eq!(file.read().unwrap().unwrap(), b"another");
    }
}
