//! Where the variables are kept.

use pal_async::block_on;
use std::error::Error;
use uefi_nvram_storage::MAX_TOTAL_LEN;
use vmgs::FileId;
use vmgs::Protection;
use vmgs_broker::BrokerError;
use vmgs_broker::VmgsClient;

/// Why variables could not be stored.
pub type NvramStorageError = Box<dyn Error + Send + Sync>;

/// Keeps the variables' file. It is called on the thread of a VP, which waits.
pub trait NvramStorage: Send + 'static {
    /// Replaces the file; durable when this returns. After an error the file is the old or the new one.
    fn persist(&mut self, file: Vec<u8>) -> Result<(), NvramStorageError>;

    /// The name of the storage, for logs.
    fn describe(&self) -> String;
}

/// Stores nothing: the variables are lost when the VM ends.
#[derive(Debug, Default)]
pub struct MemoryNvram;

impl NvramStorage for MemoryNvram {
    fn persist(&mut self, _file: Vec<u8>) -> Result<(), NvramStorageError> {
        Ok(())
    }

    fn describe(&self) -> String {
        "memory".into()
    }
}

/// The file [`FileId::BIOS_NVRAM`] of a VMGS store. It is encrypted if the store is.
///
/// The store's broker must run on a thread that never waits for the device.
#[derive(Debug)]
pub struct VmgsNvram {
    client: VmgsClient,
}

/// Why a VMGS file cannot be the storage of variables.
#[derive(Debug, thiserror::Error)]
pub enum VmgsNvramError {
    /// The store cannot be read.
    #[error(
        "cannot read the UEFI variables from file {} of the VMGS store",
        VmgsNvram::FILE
    )]
    Read(#[source] BrokerError),
    /// The file is too long to be read.
    #[error(
        "file {} of the VMGS store has {len} bytes; UEFI variables have at most {MAX_TOTAL_LEN}",
        VmgsNvram::FILE
    )]
    TooLong {
        /// Its length in bytes.
        len: u64,
    },
}

impl VmgsNvram {
    /// The file that holds the variables.
    pub const FILE: FileId = FileId::BIOS_NVRAM;

    /// The storage, and the file in it, if there is one already.
    pub fn open(client: VmgsClient) -> Result<(Self, Option<Vec<u8>>), VmgsNvramError> {
        let len = block_on(client.file_len(Self::FILE)).map_err(VmgsNvramError::Read)?;
        let content = match len {
            None => None,
            Some(len) if len > MAX_TOTAL_LEN as u64 => {
                return Err(VmgsNvramError::TooLong { len });
            }
            Some(_) => Some(block_on(client.read(Self::FILE)).map_err(VmgsNvramError::Read)?),
        };
        Ok((Self { client }, content))
    }
}

impl NvramStorage for VmgsNvram {
    fn persist(&mut self, file: Vec<u8>) -> Result<(), NvramStorageError> {
        let write = self.client.write(Self::FILE, Protection::IfEncrypted, file);
        Ok(block_on(write)?)
    }

    fn describe(&self) -> String {
        format!("VMGS file {}", Self::FILE)
    }
}
