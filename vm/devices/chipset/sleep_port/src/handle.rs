use crate::AnnouncementSink;
use crate::SleepPort;
use chipset_device::BuildResult;
use chipset_device::DeviceHandle;
use chipset_device::MachineContext;
use chipset_device::shared;
use minicbor::Decode;
use minicbor::Encode;

/// The device at its default port. It asks for the [`AnnouncementSink`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SleepPortHandle {}

impl DeviceHandle for SleepPortHandle {
    const ID: &'static str = "sleep-port";

    fn build(&self, machine: &mut MachineContext<'_>) -> BuildResult {
        let sink = machine.get::<AnnouncementSink>()?.clone();
        let device = SleepPort::new(SleepPort::DEFAULT_PORT, sink);
        Ok(shared(device))
    }
}
