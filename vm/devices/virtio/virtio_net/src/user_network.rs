//! Networks of the VMM's user, who needs no privileges for them.

use minicbor::Decode;
use minicbor::Encode;
use std::fmt;
use std::net::IpAddr;
use std::net::Ipv4Addr;

/// A network for one guest, whose connections are the VMM's user's on the host. A gateway answers DHCP and router solicitation.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct UserNetwork {
    /// Its IPv4 network. The gateway is the first address of it, and the guest the second.
    #[n(1)]
    pub network: Ipv4Addr,
    /// The length of the network's prefix in bits, 1 to 30.
    #[n(2)]
    pub prefix_len: u8,
    /// The host's ports that lead to the guest.
    #[n(3)]
    pub forwards: Vec<PortForward>,
}

/// A port of the host that leads to a port of the guest.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PortForward {
    /// The protocol.
    #[n(1)]
    pub protocol: PortProtocol,
    /// The address of the host; all of them where `None`.
    #[n(2)]
    pub host_address: Option<IpAddr>,
    /// The host's port, not 0.
    #[n(3)]
    pub host_port: u16,
    /// The guest's port, not 0.
    #[n(4)]
    pub guest_port: u16,
}

/// The protocol of a port.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum PortProtocol {
    /// TCP.
    #[n(1)]
    Tcp,
    /// UDP.
    #[n(2)]
    Udp,
}

/// Why there can be no such network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserNetworkError {
    /// There is no room for a gateway and a guest.
    #[error("the length of its prefix is {0}, not between 1 and 30")]
    Prefix(u8),
    /// An address in a network instead of the network's.
    #[error("{network} is not a network of prefix length {prefix_len} (that is {})", .network_of)]
    HostBits {
        /// The address.
        network: Ipv4Addr,
        /// The prefix's length.
        prefix_len: u8,
        /// The address of its network.
        network_of: Ipv4Addr,
    },
    /// Port 0.
    #[error("port 0 cannot be forwarded")]
    PortZero,
    /// One port leads to two.
    #[error("{protocol} port {port} of the host is forwarded twice")]
    Twice {
        /// The protocol.
        protocol: PortProtocol,
        /// The host's port.
        port: u16,
    },
}

impl Default for UserNetwork {
    fn default() -> Self {
        Self {
            network: Ipv4Addr::new(10, 0, 0, 0),
            prefix_len: 24,
            forwards: Vec::new(),
        }
    }
}

impl UserNetwork {
    /// The gateway's address.
    pub fn gateway(&self) -> Ipv4Addr {
        self.address(1)
    }

    /// The guest's address.
    pub fn guest(&self) -> Ipv4Addr {
        self.address(2)
    }

    fn address(&self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits() | number)
    }

    /// Whether there can be such a network.
    pub fn check(&self) -> Result<(), UserNetworkError> {
        let (network, prefix_len) = (self.network, self.prefix_len);
        if !(1..=30).contains(&prefix_len) {
            return Err(UserNetworkError::Prefix(prefix_len));
        }
        let mask = u32::MAX << (32 - prefix_len);
        let network_of = Ipv4Addr::from_bits(network.to_bits() & mask);
        if network != network_of {
            return Err(UserNetworkError::HostBits {
                network,
                prefix_len,
                network_of,
            });
        }
        for (n, forward) in self.forwards.iter().enumerate() {
            if forward.host_port == 0 || forward.guest_port == 0 {
                return Err(UserNetworkError::PortZero);
            }
            let port = |forward: &PortForward| (forward.protocol, forward.host_port);
            // passt refuses it for different addresses, too.
            if self.forwards[..n]
                .iter()
                .any(|other| port(other) == port(forward))
            {
                return Err(UserNetworkError::Twice {
                    protocol: forward.protocol,
                    port: forward.host_port,
                });
            }
        }
        Ok(())
    }
}

impl fmt::Display for PortProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forward(protocol: PortProtocol, host_port: u16, guest_port: u16) -> PortForward {
        PortForward {
            protocol,
            host_address: None,
            host_port,
            guest_port,
        }
    }

    #[test]
    fn the_default_network_has_a_gateway_and_a_guest() {
        let network = UserNetwork::default();
        assert_eq!(network.check(), Ok(()));
        assert_eq!(network.gateway(), Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(network.guest(), Ipv4Addr::new(10, 0, 0, 2));
    }

    #[test]
    fn impossible_networks_are_refused() {
        let network = |network: [u8; 4], prefix_len| UserNetwork {
            network: network.into(),
            prefix_len,
            forwards: Vec::new(),
        };
        assert_eq!(network([192, 168, 7, 4], 30).check(), Ok(()));
        assert_eq!(network([128, 0, 0, 0], 1).check(), Ok(()));
        for prefix_len in [0, 31, 32, 33, 255] {
            let error = network([10, 0, 0, 0], prefix_len).check();
            assert_eq!(error, Err(UserNetworkError::Prefix(prefix_len)));
        }
        let error = network([10, 0, 0, 5], 24).check().unwrap_err();
        let text = "10.0.0.5 is not a network of prefix length 24 (that is 10.0.0.0)";
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn impossible_forwards_are_refused() {
        use PortProtocol::Tcp;
        use PortProtocol::Udp;
        let check = |forwards| {
            let network = UserNetwork {
                forwards,
                ..UserNetwork::default()
            };
            network.check()
        };
        let two = vec![forward(Tcp, 53, 53), forward(Udp, 53, 53)];
        assert_eq!(check(two), Ok(()));
        for (host, guest) in [(0, 1), (1, 0)] {
            let error = check(vec![forward(Tcp, host, guest)]);
            assert_eq!(error, Err(UserNetworkError::PortZero));
        }
        let error = check(vec![forward(Udp, 53, 53), forward(Udp, 53, 54)]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "UDP port 53 of the host is forwarded twice"
        );
    }
}
