//! Storage for the content of a chip.

mod file;
mod vmgs;

pub use file::FileStorage;
pub use file::FileStorageError;
pub use vmgs::VmgsStorage;
pub use vmgs::VmgsStorageError;

use crate::BLOCK_SIZE;

/// The unit that a storage updates atomically, even if the host crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Atomicity {
    /// A block of [`BLOCK_SIZE`] bytes. Blocks are stored one by one, in the order in which the guest changed them.
    Block,
    /// The whole image. Several changes are stored at once.
    Image,
}

/// Changes to be stored.
#[derive(Debug, Clone, Copy)]
pub struct Update<'a> {
    /// The whole content, including the changes.
    pub image: &'a [u8],
    /// The indices of the blocks that changed, ascending.
    pub blocks: &'a [usize],
}

impl<'a> Update<'a> {
    /// The offset in bytes and the content of each changed block.
    pub fn changes(&self) -> impl Iterator<Item = (u64, &'a [u8])> {
        let image = self.image;
        self.blocks.iter().map(move |index| {
            let start = index * BLOCK_SIZE;
            (start as u64, &image[start..start + BLOCK_SIZE])
        })
    }
}

/// Why a change could not be stored.
pub type FlashStorageError = Box<dyn std::error::Error + Send + Sync>;

/// Stores the content of a chip. It is called on a separate thread and may block.
pub trait FlashStorage: Send + 'static {
    /// The unit that it updates atomically.
    fn atomicity(&self) -> Atomicity;

    /// Makes the changes durable. After an error any part of them may have been stored; the call is repeated with the
    /// same changes, perhaps together with later ones.
    fn persist(&mut self, update: Update<'_>) -> Result<(), FlashStorageError>;

    /// The name of the storage, for logs.
    fn describe(&self) -> String;
}

/// Stores nothing: the content is lost when the VM ends.
#[derive(Debug, Default)]
pub struct MemoryStorage;

impl FlashStorage for MemoryStorage {
    fn atomicity(&self) -> Atomicity {
        Atomicity::Image
    }

    fn persist(&mut self, _update: Update<'_>) -> Result<(), FlashStorageError> {
        Ok(())
    }

    fn describe(&self) -> String {
        "memory".into()
    }
}
