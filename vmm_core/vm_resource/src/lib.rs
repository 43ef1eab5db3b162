//! Devices as named resources: encoded handles, and the registry that knows what each kind of handle builds.
//!
//! A handle is plain data that its device's crate defines ([`chipset_device::ResourceHandle`]). A configuration holds
//! it as a [`Resource`]; a [`Registry`] turns that into what builds the device. There is a registry for each class of
//! devices, which is a trait: `Registry<dyn PciDeviceHandle>`, say.
#![forbid(unsafe_code)]

mod registry;
mod resource;

pub use registry::Registry;
pub use registry::ResolveError;
pub use resource::Resource;
