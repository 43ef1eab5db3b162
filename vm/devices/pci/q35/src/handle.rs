use crate::ConfigPorts;
use crate::Ecam;
use crate::EcamWindow;
use crate::HostBridge;
use crate::IsaBridge;
use chipset_device::BuildResult;
use chipset_device::DeviceHandle;
use chipset_device::MachineContext;
use chipset_device::PowerSink;
use chipset_device::shared;
use minicbor::Decode;
use minicbor::Encode;

/// The ports through which guests reach PCI configuration space. They ask for the power sink.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ConfigPortsHandle {}

impl DeviceHandle for ConfigPortsHandle {
    const ID: &'static str = "q35-config-ports";

    fn build(&self, machine: &mut MachineContext<'_>) -> BuildResult {
        let power = machine.get::<PowerSink>()?.clone();
        Ok(shared(ConfigPorts::new(
            machine.config_space.clone(),
            power,
        )))
    }
}

/// PCI configuration space in memory. It offers its [`EcamWindow`], for the host bridge.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct EcamHandle {}

impl DeviceHandle for EcamHandle {
    const ID: &'static str = "q35-ecam";

    fn build(&self, machine: &mut MachineContext<'_>) -> BuildResult {
        let ecam = Ecam::new(machine.config_space.clone(), machine.decoder.clone());
        machine.services.offer(ecam.window());
        Ok(shared(ecam))
    }
}

/// The host bridge. It asks for the [`EcamWindow`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct HostBridgeHandle {
    /// Where configuration space is in memory at reset.
    #[n(1)]
    pub ecam_base: u64,
}

impl DeviceHandle for HostBridgeHandle {
    const ID: &'static str = "q35-host-bridge";

    fn build(&self, machine: &mut MachineContext<'_>) -> BuildResult {
        let window = machine.get::<EcamWindow>()?.clone();
        Ok(shared(HostBridge::new(self.ecam_base, window)?))
    }
}

/// The ISA bridge.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct IsaBridgeHandle {
    /// The first port of the power-management block.
    #[n(1)]
    pub pm_base: u16,
}

impl DeviceHandle for IsaBridgeHandle {
    const ID: &'static str = "q35-isa-bridge";

    fn build(&self, _: &mut MachineContext<'_>) -> BuildResult {
        Ok(shared(IsaBridge::new(self.pm_base)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh::payload;

    #[test]
    fn handles_survive_encoding() {
        let host = HostBridgeHandle {
            ecam_base: 0xb000_0000,
        };
        let isa = IsaBridgeHandle { pm_base: 0x600 };
        assert_eq!(payload::decode(&payload::encode(&host)), Ok(host));
        assert_eq!(payload::decode(&payload::encode(&isa)), Ok(isa));
        assert_eq!(payload::decode(&[0xa0]), Ok(EcamHandle {}));
        assert_eq!(payload::decode(&[0xa0]), Ok(ConfigPortsHandle {}));
    }
}
