//! The networks of `--net`.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use virtio_net::HostNetwork;
use virtio_net::PortForward;
use virtio_net::PortProtocol;
use virtio_net::UserNetwork;
use virtio_net::VirtioNetHandle;

/// The smallest packet that an interface must carry (RFC 791).
const SMALLEST_MTU: u16 = 68;

/// The longest name of a network interface.
const LONGEST_TAP_NAME: usize = 15;

/// The names of user-mode networks.
const USER: [&str; 2] = ["user", "consomme"];

/// Reads `tap:NAME` or `user`, each with options.
pub(super) fn parse_net(text: &str) -> Result<VirtioNetHandle, String> {
    let (kind, rest) = text
        .find([':', ','])
        .map_or((text, ""), |at| (&text[..at], &text[at + 1..]));
    let mut parts = rest.split(',').filter(|part| !part.is_empty());
    let network = match kind {
        "tap" if text.starts_with("tap:") => HostNetwork::Tap(tap_name(parts.next())?),
        kind if USER.contains(&kind) => HostNetwork::User(UserNetwork::default()),
        _ => {
            return Err(format!(
                "'{text}' is not a network (examples: user, tap:tap0)"
            ));
        }
    };
    let mut net = VirtioNetHandle {
        network,
        mac: None,
        mtu: None,
    };
    for part in parts {
        add_option(&mut net, part)?;
    }
    if let HostNetwork::User(network) = &net.network {
        network.check().map_err(|error| error.to_string())?;
    }
    Ok(net)
}

fn tap_name(name: Option<&str>) -> Result<String, String> {
    let name = name.ok_or("tap: lacks the name of an interface (example: tap:tap0)")?;
    if !is_interface_name(name) {
        return Err(format!(
            "'{name}' is not the name of a network interface (at most {LONGEST_TAP_NAME} characters, without spaces, / and :)"
        ));
    }
    Ok(name.to_owned())
}

/// Whether the host's kernel takes this as the name of a network interface.
fn is_interface_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_graphic() && !b"/:".contains(&byte);
    (1..=LONGEST_TAP_NAME).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(allowed)
}

fn add_option(net: &mut VirtioNetHandle, part: &str) -> Result<(), String> {
    let option = part.split_once('=');
    match (&mut net.network, option) {
        (_, Some(("mac", mac))) => {
            net.mac = Some(mac.parse().map_err(|error| format!("{error}"))?);
        }
        (_, Some(("mtu", mtu))) => match mtu.parse() {
            Ok(mtu) if mtu >= SMALLEST_MTU => net.mtu = Some(mtu),
            _ => return Err(format!("'{mtu}' is not an MTU (68 to 65535)")),
        },
        (HostNetwork::User(network), Some(("hostfwd", forward))) => {
            let (forward, guest) = parse_forward(forward)?;
            // The network may be known only after this option.
            if let Some(guest) = guest.filter(|guest| *guest != IpAddr::from(network.guest())) {
                return Err(format!(
                    "hostfwd cannot lead to {guest}: the guest's address is {}; leave it out, or give the network first",
                    network.guest()
                ));
            }
            network.forwards.push(forward);
        }
        (HostNetwork::User(network), None) if part.contains('/') => {
            (network.network, network.prefix_len) = parse_subnet(part)?;
        }
        (HostNetwork::User(_), _) => {
            return Err(format!(
                "'{part}' is not one of ADDRESS/PREFIX, hostfwd=tcp|udp:[ADDRESS]:PORT-:PORT, mac=MAC, mtu=N, slot=DEV[.FN]"
            ));
        }
        (HostNetwork::Tap(_), _) => {
            return Err(format!(
                "'{part}' is not one of mac=MAC, mtu=N, slot=DEV[.FN]"
            ));
        }
    }
    Ok(())
}

fn parse_subnet(text: &str) -> Result<(Ipv4Addr, u8), String> {
    let parsed = text
        .split_once('/')
        .and_then(|(address, prefix)| Some((address.parse().ok()?, prefix.parse().ok()?)));
    parsed.ok_or_else(|| format!("'{text}' is not an IPv4 network (example: 10.0.0.0/24)"))
}

/// Reads `tcp|udp:[ADDRESS]:PORT-[ADDRESS]:PORT`, where an IPv6 address is in brackets. Returns also the guest's address.
fn parse_forward(text: &str) -> Result<(PortForward, Option<IpAddr>), String> {
    let wrong = || {
        format!(
            "hostfwd={text} is not PROTOCOL:[HOST-ADDRESS]:PORT-[GUEST-ADDRESS]:PORT (example: hostfwd=tcp::2222-:22)"
        )
    };
    let (host, guest) = text.split_once('-').ok_or_else(wrong)?;
    let (protocol, host) = host.split_once(':').ok_or_else(wrong)?;
    let protocol = match protocol {
        "tcp" => PortProtocol::Tcp,
        "udp" => PortProtocol::Udp,
        _ => {
            return Err(format!(
                "hostfwd: '{protocol}' is not a protocol (tcp or udp)"
            ));
        }
    };
    let (host_address, host_port) = parse_endpoint(host).ok_or_else(wrong)?;
    let (guest_address, guest_port) = parse_endpoint(guest).ok_or_else(wrong)?;
    let forward = PortForward {
        protocol,
        host_address,
        host_port,
        guest_port,
    };
    Ok((forward, guest_address))
}

/// Reads `[ADDRESS:]PORT`; the address may be empty.
fn parse_endpoint(text: &str) -> Option<(Option<IpAddr>, u16)> {
    let Some((address, port)) = text.rsplit_once(':') else {
        return Some((None, text.parse().ok()?));
    };
    let address = match address.strip_prefix('[') {
        Some(address) => Some(IpAddr::V6(address.strip_suffix(']')?.parse().ok()?)),
        None if address.is_empty() => None,
        None => Some(IpAddr::V4(address.parse().ok()?)),
    };
    Some((address, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_taps() {
        let net = parse_net("tap:tap0,mac=02:00:00:00:00:01,mtu=9000").unwrap();
        assert_eq!(net.network, HostNetwork::Tap("tap0".into()));
        assert_eq!(net.mtu, Some(9000));
        assert!(net.mac.is_some());
        assert!(parse_net("tap:fifteen-letters").is_ok());
        for wrong in [
            "",
            "tap",
            "tap,a",
            "tap:",
            "tap:a,mtu=67",
            "tap:a,mac=1",
            "tap:a,x",
            "tap:a,hostfwd=tcp::1-:1",
            "tap:a,10.0.0.0/24",
            "tap:sixteen--letters",
            "tap:a b",
            "tap:a/b",
            "tap:..",
            "tap:a:b",
            "users",
            "dio",
        ] {
            assert!(parse_net(wrong).is_err(), "{wrong}");
        }
    }

    fn user(text: &str) -> UserNetwork {
        let net = parse_net(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        match net.network {
            HostNetwork::User(network) => network,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn user_networks_have_two_names() {
        for text in ["user", "consomme", "user:", "consomme,mtu=1280"] {
            assert_eq!(user(text), UserNetwork::default(), "{text}");
        }
        let net = parse_net("user,mac=02:00:00:00:00:01,mtu=9000").unwrap();
        assert_eq!(net.mtu, Some(9000));
        assert_eq!(net.mac.unwrap().to_string(), "02:00:00:00:00:01");
        for text in ["user:192.168.7.0/28", "consomme,192.168.7.0/28"] {
            let network = user(text);
            assert_eq!(network.network, Ipv4Addr::new(192, 168, 7, 0));
            assert_eq!(network.prefix_len, 28);
        }
    }

    #[test]
    fn ports_are_forwarded() {
        let forward = |protocol, address: Option<&str>, host_port, guest_port| PortForward {
            protocol,
            host_address: address.map(|address| address.parse().unwrap()),
            host_port,
            guest_port,
        };
        let text = "consomme:10.9.0.0/16,hostfwd=tcp::2222-:22,hostfwd=udp:127.0.0.1:5353-10.9.0.2:53,\
            hostfwd=tcp:[::1]:8080-80,hostfwd=tcp:8081-:81";
        let expected = [
            forward(PortProtocol::Tcp, None, 2222, 22),
            forward(PortProtocol::Udp, Some("127.0.0.1"), 5353, 53),
            forward(PortProtocol::Tcp, Some("::1"), 8080, 80),
            forward(PortProtocol::Tcp, None, 8081, 81),
        ];
        assert_eq!(user(text).forwards, expected);
    }

    #[test]
    fn wrong_user_networks_say_what_is_wrong() {
        for (text, what) in [
            ("user,x", "'x'"),
            ("user:10.0.0.0/33", "33"),
            ("user:10.0.0.5/24", "10.0.0.0"),
            ("user:10.0.0/24", "10.0.0/24"),
            ("user:fd00::/64", "IPv4"),
            ("user,hostfwd=tcp::0-:22", "port 0"),
            ("user,hostfwd=tcp::22", "example"),
            ("user,hostfwd=tcp::65536-:22", "example"),
            ("user,hostfwd=tcp:host:22-:22", "example"),
            ("user,hostfwd=tcp:::1:22-:22", "example"),
            ("user,hostfwd=sctp::1-:1", "sctp"),
            ("user,hostfwd=tcp::1-10.0.0.3:1", "10.0.0.3"),
            ("user,hostfwd=tcp::1-:1,hostfwd=tcp::1-:2", "twice"),
            ("user,mtu=1", "MTU"),
        ] {
            let error = parse_net(text).unwrap_err();
            assert!(error.contains(what), "{text}: {error}");
        }
    }
}
