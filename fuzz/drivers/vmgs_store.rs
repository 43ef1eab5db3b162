//! Opens a store made from the input, reads and writes it, and checks that what was written can be read again.

use vmgs::Commit;
use vmgs::FileId;
use vmgs::Key;
use vmgs::MemoryDevice;
use vmgs::OpenOptions;
use vmgs::Overwrite;
use vmgs::Protection;
use vmgs::Vmgs;

const LEN: usize = 64 * 4096;

/// Runs one input: a byte of choices, then edits of a store of 64 blocks (a 16-bit offset and a byte), or the store
/// itself.
pub(crate) fn run(data: &[u8]) {
    let Some((choices, data)) = data.split_first() else {
        return;
    };
    let sector = if choices & 1 == 0 { 512 } else { 4096 };
    let mut bytes = vec![0; LEN];
    if choices & 2 == 0 {
        let len = data.len().min(LEN);
        bytes[..len].copy_from_slice(&data[..len]);
    } else {
        bytes = seeded(sector);
        for edit in data.chunks_exact(3) {
            bytes[usize::from(u16::from_le_bytes([edit[0], edit[1]]))] = edit[2];
        }
    }
    // Fixes the checksums, as an attacker would.
    if choices & 4 != 0 {
        for at in [0, sector as usize] {
            let sum = vmgs_format::Header::checksum_of(&bytes[at..at + vmgs_format::Header::LEN]);
            bytes[at + 12..at + 16].copy_from_slice(&sum.to_le_bytes());
        }
    }
    let device = MemoryDevice::with_bytes(sector, bytes);
    let open = || Vmgs::open(Box::new(device.clone()), OpenOptions::default());
    let Ok(mut store) = open() else {
        return;
    };
    let unlocked = choices & 8 != 0 && store.unlock(&Key::new([1; 32])).is_ok();
    store.verify(|_, _| ());
    for id in (0..66).map(FileId) {
        let content = store.read(id);
        let stored = store.read_stored(id);
        let mut range = [0; 100];
        let ranged = store.read_range(id, 50, &mut range);
        if let (Ok(content), Ok(ranged)) = (&content, ranged) {
            assert_eq!(
                &range[..ranged],
                content.get(50..50 + ranged).unwrap_or_default()
            );
        }
        if let (Ok(content), Ok(stored)) = (content, stored) {
            assert_eq!(content.len(), stored.len());
        }
    }
    let _ = store.upgrade();
    let text = [0x42; 5000];
    let written = store
        .commit(
            Commit::new()
                .write(FileId(3), Protection::IfEncrypted, &text)
                .write(FileId(14), Protection::PlainOverEncrypted, b"12345678")
                .delete_if_present(FileId(1)),
        )
        .is_ok();
    let moved = store
        .move_file(FileId(3), FileId(4), Overwrite::Allow)
        .is_ok();
    drop(store);
    if written {
        let Ok(mut store) = open() else {
            unreachable!("a store that was written opens");
        };
        if unlocked {
            assert!(store.unlock(&Key::new([1; 32])).is_ok());
        }
        let id = FileId(if moved { 4 } else { 3 });
        if unlocked || !store.is_encrypted() {
            assert_eq!(store.read(id).ok().as_deref(), Some(&text[..]));
            assert_eq!(
                store.read(FileId(14)).ok().as_deref(),
                Some(&b"12345678"[..])
            );
        }
        assert!(!store.is_allocated(FileId(1)));
    }
}

fn seeded(sector: u32) -> Vec<u8> {
    let device = MemoryDevice::new(sector, LEN);
    if let Ok(mut store) = Vmgs::format(Box::new(device.clone()), OpenOptions::default()) {
        let _ = store.encrypt(&Key::new([1; 32]));
        let _ = store.write(FileId(1), Protection::Encrypted, &[1; 5000]);
        let _ = store.write(FileId(2), Protection::Plain, &[2; 100]);
    }
    device.to_vec()
}
