//! Where the content of a chip outlives the VM.

mod file;
mod vmgs;

pub use file::FileStorage;
pub use file::FileStorageError;
pub use vmgs::VmgsStorage;
pub use vmgs::VmgsStorageError;

use crate::BLOCK_SIZE;

/// What a storage changes whole or not at all, whatever happens to the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Atomicity {
    /// A block of [`BLOCK_SIZE`] bytes. It is given one block after the other, in the order in which the guest
    /// changed them.
    Block,
    /// The image. It is given several changes at once.
    Image,
}

/// Changes to be made durable.
#[derive(Debug, Clone, Copy)]
pub struct Update<'a> {
    /// The whole content, with the changes.
    pub image: &'a [u8],
    /// The indices of the blocks that changed, ascending.
    pub blocks: &'a [usize],
}

impl<'a> Update<'a> {
    /// The changed blocks: offset in bytes, and content.
    pub fn changes(&self) -> impl Iterator<Item = (u64, &'a [u8])> {
        let image = self.image;
        self.blocks.iter().map(move |index| {
            let start = index * BLOCK_SIZE;
            (start as u64, &image[start..start + BLOCK_SIZE])
        })
    }
}

/// The reason that a change is not durable.
pub type StorageError = Box<dyn std::error::Error + Send + Sync>;

/// Keeps the content of a chip. It is called from a thread of its own, and may block.
pub trait FlashStorage: Send + 'static {
    /// What changes whole or not at all.
    fn atomicity(&self) -> Atomicity;

    /// Makes the changes durable before it returns. After an error any part of them may be there; the same
    /// changes come again, perhaps with later ones.
    fn persist(&mut self, update: Update<'_>) -> Result<(), StorageError>;

    /// Where that is, for people.
    fn describe(&self) -> String;
}

/// Forgets the content with the VM.
#[derive(Debug, Default)]
pub struct MemoryStorage;

impl FlashStorage for MemoryStorage {
    fn atomicity(&self) -> Atomicity {
        Atomicity::Image
    }

    fn persist(&mut self, _update: Update<'_>) -> Result<(), StorageError> {
        Ok(())
    }

    fn describe(&self) -> String {
        "memory".into()
    }
}
