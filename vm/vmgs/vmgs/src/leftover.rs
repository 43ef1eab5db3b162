//! Finding extended file tables that a faulty writer encrypted without a key.
//!
//! Releases of other software encrypted the extended file table with a key and a nonce of zeros. Whoever has a copy of
//! such a table can decrypt it, and with the files' keys in it every file that kept its key since.

use crate::alloc::Occupied;
use crate::crypto::Gcm;
use crate::crypto::Key;
use crate::disk::byte_of;
use crate::finding::Finding;
use crate::store::Vmgs;
use vmgs_format::BLOCK_SIZE;
use vmgs_format::KEY_LEN;
use vmgs_format::NONCE_LEN;
use zeroize::Zeroizing;

const BLOCK: usize = BLOCK_SIZE as usize;

/// Number of blocks read at once.
const BLOCKS_AT_ONCE: u32 = 64;

/// Length of an entry in bytes: attributes (4), key (32), and 28 reserved bytes, which are zero.
const ENTRY_LEN: usize = 64;
const RESERVED: std::ops::Range<usize> = 36..ENTRY_LEN;

impl Vmgs {
    /// Searches the free blocks for tables of older states that can be decrypted without a key. The blocks need no
    /// entry or header that refers to them. Blocks that cannot be read are passed over.
    pub(crate) fn check_leftover_tables(&mut self) -> Option<Finding> {
        if !self.is_encrypted() {
            return None;
        }
        let keystream = zero_keystream();
        let occupied = Occupied::new(self.disk.geometry.blocks, self.state.extents());
        let gaps: Vec<_> = occupied.gaps().collect();
        let mut buffer = Zeroizing::new(vec![0; BLOCKS_AT_ONCE as usize * BLOCK]);
        let mut tables = 0;
        for gap in gaps {
            for start in (gap.start..gap.start + gap.blocks).step_by(BLOCKS_AT_ONCE as usize) {
                let blocks = BLOCKS_AT_ONCE.min(gap.start + gap.blocks - start);
                let piece = &mut buffer[..blocks as usize * BLOCK];
                if self.disk.read(byte_of(start), piece).is_ok() {
                    let found = piece.chunks_exact(BLOCK);
                    tables += found.filter(|block| is_table(block, &keystream)).count();
                }
            }
        }
        (tables != 0).then_some(Finding::ZeroKeyTablesLeft { tables })
    }
}

/// What such a table of zeros looks like: with this, a table is decrypted by XOR.
fn zero_keystream() -> Zeroizing<Vec<u8>> {
    let mut block = Zeroizing::new(vec![0; BLOCK]);
    Gcm::new(&Key::new([0; KEY_LEN]), &[0; NONCE_LEN]).encrypt(&mut block);
    block
}

/// Whether `block` is a table under this keystream: its 1792 reserved bytes decrypt to zeros. Authentication is not
/// needed for that, and so not the tag, which is in the file table.
fn is_table(block: &[u8], keystream: &[u8]) -> bool {
    block
        .chunks_exact(ENTRY_LEN)
        .zip(keystream.chunks_exact(ENTRY_LEN))
        .all(|(entry, stream)| entry[RESERVED] == stream[RESERVED])
}
