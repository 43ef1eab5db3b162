use chipset_device::DeviceHandle;
use mesh::payload;
use mesh::payload::DecodeError;
use minicbor::Decode;
use minicbor::Encode;

/// A device as a configuration holds it: the kind of its handle, and the encoded handle.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Resource {
    /// [`DeviceHandle::ID`].
    #[n(1)]
    pub(crate) id: String,
    #[cbor(n(2), with = "minicbor::bytes")]
    pub(crate) handle: Vec<u8>,
}

impl Resource {
    /// The resource that `handle` names.
    pub fn new<H: DeviceHandle>(handle: &H) -> Self {
        Self {
            id: H::ID.to_owned(),
            handle: payload::encode(handle),
        }
    }

    /// The kind of device.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The handle, for those who know of the kind `H`; `None` for other kinds.
    pub fn handle<H: DeviceHandle>(&self) -> Option<Result<H, DecodeError>> {
        (self.id == H::ID).then(|| payload::decode(&self.handle))
    }
}
