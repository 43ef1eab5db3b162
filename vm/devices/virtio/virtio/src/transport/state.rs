//! The saved state of a virtio device over PCI.

use crate::common_config::CommonConfig;
use chipset_device::SavedState;
use minicbor::Decode;
use minicbor::Encode;
use pci_core::FunctionState;

#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(crate) struct DeviceState {
    #[n(1)]
    pub(crate) function: FunctionState,
    #[n(2)]
    pub(crate) isr: u8,
    #[n(3)]
    pub(crate) registers: CommonConfig,
    #[n(4)]
    pub(crate) generation: u8,
    #[n(5)]
    pub(crate) needs_reset: bool,
    /// State of the device type.
    #[n(6)]
    pub(crate) device: Option<SavedState>,
}
