use crate::MacAddress;
use crate::NetConfig;
use crate::NetDevice;
use crate::Tap;
use crate::UserNetwork;
use crate::device::DEFAULT_MTU;
use crate::device::QUEUES;
use crate::passt;
use chipset_device::BuildResult;
use chipset_device::DeviceHandle;
use chipset_device::MachineContext;
use chipset_device::VpCount;
use minicbor::Decode;
use minicbor::Decoder;
use minicbor::Encode;
use minicbor::Encoder;
use minicbor::encode::Write;
use std::error::Error;
use uuid::Uuid;

/// A network interface of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct VirtioNetHandle {
    /// What it is connected to.
    #[n(1)]
    pub network: HostNetwork,
    /// The guest's address; derived from the VM's identity and the device's name where `None`.
    #[n(2)]
    pub mac: Option<MacAddress>,
    /// The MTU of the guest's interface, in bytes, at least 68; where `None`, the tap's, or what the guest prefers.
    #[n(3)]
    pub mtu: Option<u16>,
}

/// What the host connects a network interface to.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum HostNetwork {
    /// The host's tap interface of this name; made if it does not exist.
    #[n(1)]
    Tap(#[n(0)] String),
    /// The network connections of the user.
    #[n(2)]
    User(#[n(0)] UserNetwork),
}

/// The host's end of the interface cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("failed to connect it to the host's network")]
struct ConnectError(#[source] Box<dyn Error + Send + Sync>);

/// The smallest MTU that IPv4 allows.
const MIN_MTU: u16 = 68;

/// The MTU is too small.
#[derive(Debug, thiserror::Error)]
#[error("its MTU is {mtu}, and the smallest is {MIN_MTU}")]
struct MtuError {
    mtu: u16,
}

impl VirtioNetHandle {
    fn mac(&self, name: &str, vm: Uuid) -> MacAddress {
        let derived = || MacAddress::derive(&format!("{}/{name}", vm.hyphenated()));
        self.mac.unwrap_or_else(derived)
    }
}

impl DeviceHandle for VirtioNetHandle {
    const ID: &'static str = "virtio-net";

    fn identity(&self, name: &str, vm: Uuid) -> Option<String> {
        Some(format!("virtio-net {}", self.mac(name, vm)))
    }

    fn msi_vectors(&self, _vps: VpCount) -> u32 {
        virtio::msi_vectors(QUEUES)
    }

    fn build(&self, machine: &mut MachineContext<'_>) -> BuildResult {
        if let Some(mtu) = self.mtu.filter(|mtu| *mtu < MIN_MTU) {
            return Err(MtuError { mtu }.into());
        }
        let mac = self.mac(machine.name, machine.vm);
        match &self.network {
            HostNetwork::Tap(name) => {
                let tap = Tap::open(name, mac.other_end(), self.mtu).map_err(connect_error)?;
                // A guest that is told nothing uses 1500.
                let found = Some(tap.mtu()).filter(|mtu| *mtu != DEFAULT_MTU);
                let mtu = self.mtu.or(found);
                let config = NetConfig { mac, mtu };
                virtio::build_pci_function(NetDevice::new(tap, config), machine)
            }
            HostNetwork::User(network) => {
                network.check().map_err(connect_error)?;
                let stream =
                    passt::start(network, mac.other_end(), self.mtu).map_err(connect_error)?;
                let config = NetConfig { mac, mtu: self.mtu };
                virtio::build_pci_function(NetDevice::new(stream, config), machine)
            }
        }
    }
}

fn connect_error(error: impl Error + Send + Sync + 'static) -> ConnectError {
    ConnectError(Box::new(error))
}

impl<C> Encode<C> for MacAddress {
    fn encode<W: Write>(
        &self,
        encoder: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        encoder.bytes(&self.bytes())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for MacAddress {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let bytes = decoder.bytes()?.try_into();
        let bytes = bytes.map_err(minicbor::decode::Error::custom)?;
        Self::new(bytes).map_err(minicbor::decode::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PortForward;
    use crate::PortProtocol;
    use mesh::payload;
    use std::net::Ipv6Addr;

    fn handle(mac: Option<&str>) -> VirtioNetHandle {
        VirtioNetHandle {
            network: HostNetwork::Tap("t".into()),
            mac: mac.map(|mac| mac.parse().unwrap()),
            mtu: Some(68),
        }
    }

    #[test]
    fn handles_survive_encoding() {
        let bytes = payload::encode(&handle(Some("02:00:00:00:00:01")));
        let expected = [
            0xa3, 1, 0x82, 1, 0x81, 0x61, b't', 2, 0x46, 2, 0, 0, 0, 0, 1, 3, 0x18, 68,
        ];
        assert_eq!(bytes, expected);
        for mac in [None, Some("02:00:00:00:00:01")] {
            let handle = handle(mac);
            assert_eq!(payload::decode(&payload::encode(&handle)), Ok(handle));
        }
        let user = VirtioNetHandle {
            network: HostNetwork::User(UserNetwork {
                forwards: vec![PortForward {
                    protocol: PortProtocol::Udp,
                    host_address: Some(Ipv6Addr::LOCALHOST.into()),
                    host_port: 5353,
                    guest_port: 53,
                }],
                ..UserNetwork::default()
            }),
            mac: None,
            mtu: None,
        };
        assert_eq!(payload::decode(&payload::encode(&user)), Ok(user));
        let group = [
            0xa2, 1, 0x82, 1, 0x81, 0x61, b't', 2, 0x46, 1, 0, 0, 0, 0, 1,
        ];
        assert!(payload::decode::<VirtioNetHandle>(&group).is_err());
        let short = [0xa2, 1, 0x82, 1, 0x81, 0x61, b't', 2, 0x41, 2];
        assert!(payload::decode::<VirtioNetHandle>(&short).is_err());
    }

    #[test]
    fn the_identity_is_the_address_that_the_guest_sees() {
        let vm = Uuid::from_bytes(std::array::from_fn(|n| n as u8 * 0x11));
        let chosen = handle(Some("02:00:00:00:00:01")).identity("net0", vm);
        assert_eq!(chosen.as_deref(), Some("virtio-net 02:00:00:00:00:01"));
        let derived = MacAddress::derive("00112233-4455-6677-8899-aabbccddeeff/net0");
        let identity = handle(None).identity("net0", vm);
        assert_eq!(identity, Some(format!("virtio-net {derived}")));
    }
}
