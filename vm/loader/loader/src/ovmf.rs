//! OVMF firmware, which starts at the reset vector in the ROM below 4 GiB.

use crate::ImageLoad;
use crate::ImportError;
use crate::PageData;
use crate::PageImport;
use crate::PageKind;
use crate::Piece;
use guest_memory::MemoryRange;
use std::sync::Arc;

/// The end of the ROM. The reset vector is 16 bytes below.
pub const ROM_END: u64 = 1 << 32;

/// Loads the code of an OVMF image as ROM that ends at [`ROM_END`]. No register is imported: VPs start as reset
/// leaves them.
///
/// Returns the ROM's range. OVMF expects its variables in flash memory that ends where the range starts.
pub fn load(image: &mut dyn ImageLoad, code: &Arc<[u8]>) -> Result<MemoryRange, ImportError> {
    let range = MemoryRange {
        start: ROM_END.saturating_sub(code.len() as u64),
        end: ROM_END,
    };
    image.import_pages(&PageImport {
        what: "the OVMF code",
        range,
        kind: PageKind::Rom,
        content: vec![Piece {
            offset: 0,
            data: PageData::Bytes(code.clone()),
        }],
    })?;
    Ok(range)
}
