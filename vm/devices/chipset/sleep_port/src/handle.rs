use crate::AnnouncementSink;
use crate::SleepPort;
use chipset_device::ChipsetDeviceHandle;
use chipset_device::DeviceBuildError;
use chipset_device::MachineContext;
use chipset_device::ResourceHandle;
use chipset_device::SharedDevice;
use chipset_device::shared;
use minicbor::Decode;
use minicbor::Encode;

/// The device at its default port. It asks for the [`AnnouncementSink`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SleepPortHandle {}

impl ResourceHandle for SleepPortHandle {
    const ID: &'static str = "sleep-port";
}

impl ChipsetDeviceHandle for SleepPortHandle {
    fn build(&self, machine: &mut MachineContext<'_>) -> Result<SharedDevice, DeviceBuildError> {
        let sink = machine.get::<AnnouncementSink>()?.clone();
        let device = SleepPort::new(SleepPort::DEFAULT_PORT, sink);
        Ok(shared(device))
    }
}
