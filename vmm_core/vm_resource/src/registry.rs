use crate::Resource;
use chipset_device::BuildResult;
use chipset_device::DeviceHandle;
use chipset_device::MachineContext;
use chipset_device::MediumError;
use chipset_device::MediumInfo;
use chipset_device::SharedDevice;
use chipset_device::VpCount;
use mesh::payload;
use mesh::payload::DecodeError;
use std::collections::BTreeMap;
use std::error::Error;
use uuid::Uuid;

/// Why there is no device for a resource.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// No handle of this kind is registered.
    #[error("cannot create {name}: unknown kind of device `{id}`")]
    UnknownKind {
        /// The device's name.
        name: String,
        /// The kind.
        id: String,
    },
    /// The handle does not decode.
    #[error("cannot create {name}: its configuration is not that of a `{id}`")]
    Decode {
        /// The device's name.
        name: String,
        /// The kind.
        id: String,
        /// What is wrong with the handle.
        #[source]
        source: DecodeError,
    },
    /// The device cannot be built.
    #[error("cannot create {name}")]
    Build {
        /// The device's name.
        name: String,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

/// A handle whose kind is known only to itself.
trait AnyHandle: Send + Sync {
    fn identity(&self, name: &str, vm: Uuid) -> Option<String>;
    fn medium(&self) -> Result<Option<MediumInfo>, MediumError>;
    fn msi_vectors(&self, vps: VpCount) -> u32;
    fn build(&self, machine: &mut MachineContext<'_>) -> BuildResult;
}

impl<H: DeviceHandle> AnyHandle for H {
    fn identity(&self, name: &str, vm: Uuid) -> Option<String> {
        DeviceHandle::identity(self, name, vm)
    }

    fn medium(&self) -> Result<Option<MediumInfo>, MediumError> {
        DeviceHandle::medium(self)
    }

    fn msi_vectors(&self, vps: VpCount) -> u32 {
        DeviceHandle::msi_vectors(self, vps)
    }

    fn build(&self, machine: &mut MachineContext<'_>) -> BuildResult {
        DeviceHandle::build(self, machine)
    }
}

type DecodeHandle = fn(&[u8]) -> Result<Box<dyn AnyHandle>, DecodeError>;

/// The kinds of devices that a machine can have.
#[derive(Default)]
pub struct Registry(BTreeMap<&'static str, DecodeHandle>);

/// A device of a known kind, to be built.
pub struct ResolvedDevice {
    name: String,
    handle: Box<dyn AnyHandle>,
}

impl Registry {
    /// Adds the kind of devices that `H` is the handle of.
    pub fn register<H: DeviceHandle>(&mut self) {
        self.0
            .insert(H::ID, |bytes| Ok(Box::new(payload::decode::<H>(bytes)?)));
    }

    /// The kinds of devices.
    pub fn kinds(&self) -> impl Iterator<Item = &'static str> {
        self.0.keys().copied()
    }

    /// What builds the device called `name`.
    pub fn resolve(&self, name: &str, resource: &Resource) -> Result<ResolvedDevice, ResolveError> {
        let (name, id) = (name.to_owned(), resource.id.clone());
        let Some(decode) = self.0.get(&*id) else {
            return Err(ResolveError::UnknownKind { name, id });
        };
        match decode(&resource.handle) {
            Ok(handle) => Ok(ResolvedDevice { name, handle }),
            Err(source) => Err(ResolveError::Decode { name, id, source }),
        }
    }
}

impl ResolvedDevice {
    /// The device's name in the VM.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What of the device a hibernated or snapshotted guest of the VM `vm` relies on.
    pub fn identity(&self, vm: Uuid) -> Option<String> {
        self.handle.identity(&self.name, vm)
    }

    /// The medium of a storage device as it is now, before the device is built.
    pub fn medium(&self) -> Result<Option<MediumInfo>, ResolveError> {
        self.handle
            .medium()
            .map_err(|source| self.build_error(source))
    }

    /// The number of MSI-X vectors of the device in a machine with `vps` VPs.
    pub fn msi_vectors(&self, vps: VpCount) -> u32 {
        self.handle.msi_vectors(vps)
    }

    /// Builds the device.
    pub fn build(&self, machine: &mut MachineContext<'_>) -> Result<SharedDevice, ResolveError> {
        let built = self.handle.build(machine);
        built.map_err(|source| self.build_error(source))
    }

    fn build_error(&self, source: Box<dyn Error + Send + Sync>) -> ResolveError {
        let name = self.name.clone();
        ResolveError::Build { name, source }
    }
}

#[cfg(test)]
#[path = "registry_test.rs"]
mod tests;
