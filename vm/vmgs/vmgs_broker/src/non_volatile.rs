//! One file as a device's non-volatile memory.

use crate::client::VmgsClient;
use crate::request::BrokerError;
use vmgs::FileId;
use vmgs::Protection;

/// A file of the store that a device keeps its state in: all of it is written at every change.
#[derive(Debug, Clone)]
pub struct NonVolatileStore {
    client: VmgsClient,
    id: FileId,
    protection: Protection,
}

impl NonVolatileStore {
    /// The file `id`.
    pub fn new(client: VmgsClient, id: FileId, protection: Protection) -> Self {
        Self {
            client,
            id,
            protection,
        }
    }

    /// Replaces the content; durable when this returns.
    pub async fn persist(&self, content: Vec<u8>) -> Result<(), BrokerError> {
        self.client.write(self.id, self.protection, content).await
    }

    /// The content, or nothing if none was ever persisted.
    pub async fn restore(&self) -> Result<Option<Vec<u8>>, BrokerError> {
        match self.client.read(self.id).await {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.is_not_allocated() => Ok(None),
            Err(error) => Err(error),
        }
    }
}
