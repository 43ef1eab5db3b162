//! Devices as named resources: encoded handles, and the registry that knows what each kind of handle builds.
//!
//! A handle is plain data that its device's crate defines ([`chipset_device::DeviceHandle`]). A configuration holds it
//! as a [`Resource`]; a [`Registry`] turns that into a [`ResolvedDevice`], which builds the device.
#![forbid(unsafe_code)]

mod registry;
mod resource;

pub use registry::Registry;
pub use registry::ResolveError;
pub use registry::ResolvedDevice;
pub use resource::Resource;
