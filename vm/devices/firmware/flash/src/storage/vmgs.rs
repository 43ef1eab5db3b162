//! A file of a VMGS store as the storage of a flash chip.

use super::Atomicity;
use super::FlashStorage;
use super::FlashStorageError;
use super::Update;
use crate::BLOCK_SIZE;
use crate::MAX_SIZE;
use pal_async::block_on;
use vmgs::FileId;
use vmgs::Protection;
use vmgs_broker::BrokerError;
use vmgs_broker::VmgsClient;

/// The file [`VmgsStorage::FILE`] of a VMGS store. Each change replaces the whole file. It is encrypted if the
/// store is.
///
/// The store's broker must run on a thread that never waits for the chip, such as the one that
/// [`Broker::spawn`](vmgs_broker::Broker::spawn) starts, and the storage is not for a thread that runs tasks.
#[derive(Debug)]
pub struct VmgsStorage {
    client: VmgsClient,
}

/// Why a VMGS file cannot be the storage of a chip.
#[derive(Debug, thiserror::Error)]
pub enum VmgsStorageError {
    /// The store cannot be read.
    #[error(
        "cannot read the firmware variables from file {} of the VMGS store",
        VmgsStorage::FILE
    )]
    Read(#[source] BrokerError),
    /// The file is not a flash image.
    #[error(
        "file {} of the VMGS store has {len} bytes, so it is not a flash image with firmware variables",
        VmgsStorage::FILE
    )]
    Size {
        /// Its length in bytes.
        len: u64,
    },
}

impl VmgsStorage {
    /// The file that holds the image. [`FileId::BIOS_NVRAM`] has another format, which the firmware of generation-2
    /// VMs reads.
    pub const FILE: FileId = FileId::FLASH_VARIABLES;

    /// The storage, and the image in it, if there is one already.
    pub async fn open(client: VmgsClient) -> Result<(Self, Option<Vec<u8>>), VmgsStorageError> {
        let len = client.file_len(Self::FILE).await;
        let content = match len.map_err(VmgsStorageError::Read)? {
            None => None,
            Some(len) => {
                if len == 0 || len > MAX_SIZE || !len.is_multiple_of(BLOCK_SIZE as u64) {
                    return Err(VmgsStorageError::Size { len });
                }
                let content = client.read(Self::FILE).await;
                Some(content.map_err(VmgsStorageError::Read)?)
            }
        };
        Ok((Self { client }, content))
    }
}

impl FlashStorage for VmgsStorage {
    fn atomicity(&self) -> Atomicity {
        Atomicity::Image
    }

    fn persist(&mut self, update: Update<'_>) -> Result<(), FlashStorageError> {
        let image = update.image.to_vec();
        let write = self
            .client
            .write(Self::FILE, Protection::IfEncrypted, image);
        Ok(block_on(write)?)
    }

    fn describe(&self) -> String {
        format!("VMGS file {}", Self::FILE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmgs::MemoryDevice;
    use vmgs::OpenOptions;
    use vmgs::Vmgs;
    use vmgs_broker::Broker;

    fn store(size: usize) -> VmgsClient {
        let device = MemoryDevice::new(512, size);
        let store = Vmgs::format(Box::new(device), OpenOptions::default()).unwrap();
        // The thread ends with the last client.
        Broker::spawn(store).unwrap().0
    }

    #[test]
    fn the_image_does_not_replace_the_variables_of_other_firmware() {
        let client = store(4 << 20);
        block_on(client.write(FileId::BIOS_NVRAM, Protection::Plain, vec![1, 2, 3])).unwrap();
        let (mut storage, content) = block_on(VmgsStorage::open(client.clone())).unwrap();
        assert_eq!(content, None);
        let image: Vec<u8> = (0..0x8_4000).map(|i| (i / 99) as u8).collect();
        for _ in 0..3 {
            let update = Update {
                image: &image,
                blocks: &[5],
            };
            storage.persist(update).unwrap();
        }
        let (_, content) = block_on(VmgsStorage::open(client.clone())).unwrap();
        assert!(content == Some(image));
        let other = block_on(client.read(FileId::BIOS_NVRAM)).unwrap();
        assert_eq!(other, [1, 2, 3]);
    }

    #[test]
    fn a_file_that_is_not_an_image_is_refused() {
        let client = store(4 << 20);
        block_on(client.write(VmgsStorage::FILE, Protection::Plain, vec![1, 2, 3])).unwrap();
        let error = block_on(VmgsStorage::open(client)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "file FLASH_VARIABLES of the VMGS store has 3 bytes, so it is not a flash image with firmware variables"
        );
    }

    #[test]
    fn a_write_that_a_full_or_sealed_store_refused_can_be_retried() {
        let client = store(64 << 10);
        let (mut storage, _) = block_on(VmgsStorage::open(client)).unwrap();
        let update = Update {
            image: &[0; 0x8_4000],
            blocks: &[0],
        };
        storage.persist(update).unwrap_err();

        let client = store(4 << 20);
        let (mut storage, _) = block_on(VmgsStorage::open(client.clone())).unwrap();
        block_on(client.save()).unwrap();
        let error = storage.persist(update).unwrap_err();
        assert!(error.to_string().contains("sealed"), "{error}");
        block_on(client.unseal()).unwrap();
        storage.persist(update).unwrap();
    }
}
