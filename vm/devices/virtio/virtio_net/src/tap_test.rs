use super::*;
use crate::MacAddress;
use crate::NetConfig;
use crate::NetDevice;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::net::UdpSocket;
use std::path::Path;
use virtio::testing::GuestDriver;
use virtio::testing::Interrupts;
use virtio::testing::TestMachine;

const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const GUEST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const GUEST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// Whether taps can be tested. Moves this thread to a new network namespace for that.
fn have_taps() -> bool {
    let missing = if !Path::new(TUN).exists() {
        "this host has no /dev/net/tun"
    } else if !rustix::process::geteuid().is_root() {
        "only root may create taps"
    } else {
        ioctl::enter_new_network().expect("root may have a network namespace");
        return true;
    };
    // To the terminal: the output of a passing test is not shown.
    let line = format!("\nSKIPPED: tests of tap interfaces: {missing}\n");
    let _ = io::stderr().write_all(line.as_bytes());
    false
}

#[test]
fn invalid_names_are_refused() {
    for name in [
        "",
        "a/b",
        "tap%d",
        "..",
        "0123456789abcdef",
        "a b",
        "tap\u{e9}",
    ] {
        assert!(
            matches!(Tap::open(name, host_mac(), None), Err(TapError::Name(_))),
            "{name}"
        );
    }
}

fn host_mac() -> MacAddress {
    MacAddress::new(GUEST_MAC).unwrap().other_end()
}

/// A guest that was hibernated while its tap was gone still sends to the address that it knows.
#[test]
fn a_created_tap_has_the_address_each_time() {
    if !have_taps() {
        return;
    }
    for _ in 0..2 {
        let _tap = Tap::open("vtest2", host_mac(), None).unwrap();
        assert_eq!(ioctl::address("vtest2").unwrap(), host_mac().bytes());
    }
}

#[test]
fn both_ends_have_the_same_mtu() {
    if !have_taps() {
        return;
    }
    let tap = Tap::open("vtest3", host_mac(), Some(9000)).unwrap();
    assert_eq!((tap.mtu(), ioctl::mtu("vtest3").unwrap()), (9000, 9000));
    // An interface that exists keeps its own.
    ioctl::keep(&tap.file).unwrap();
    drop(tap);
    assert_eq!(Tap::open("vtest3", host_mac(), None).unwrap().mtu(), 9000);
    let error = Tap::open("vtest3", host_mac(), Some(1400)).unwrap_err();
    assert!(
        error.to_string().contains("`ip link set vtest3 mtu 1400`"),
        "{error}"
    );
    assert_eq!(ioctl::mtu("vtest3").unwrap(), 9000);
    assert_eq!(Tap::open("vtest4", host_mac(), None).unwrap().mtu(), 1500);
}

#[test]
fn a_tap_is_exclusive() {
    if !have_taps() {
        return;
    }
    let tap = Tap::open("vtest0", host_mac(), None).unwrap();
    assert!(tap.offloads().checksum && tap.offloads().tso4);
    // The kernel accepts every choice of a driver, including invalid combinations.
    for bits in 0..32 {
        let picked = |bit: u32| bits >> bit & 1 != 0;
        let offloads = Offloads {
            checksum: picked(0),
            tso4: picked(1),
            tso6: picked(2),
            ecn: picked(3),
            ufo: picked(4) && tap.offloads().ufo,
        };
        tap.set_guest_offloads(offloads).unwrap();
    }
    let second = Tap::open("vtest0", host_mac(), None).unwrap_err();
    assert!(second.to_string().contains("vtest0"), "{second}");
    drop(tap);
    Tap::open("vtest0", host_mac(), None).unwrap();
    assert!(matches!(
        Tap::open("lo", host_mac(), None),
        Err(TapError::Attach { .. })
    ));
}

/// Receives the next frame, without its header.
fn receive(driver: &mut GuestDriver) -> Vec<u8> {
    let gpa = driver.allocate(2048);
    driver.rings[0].add(&[(gpa, 2048, true)]);
    driver.notify(0);
    let (_, len) = driver.wait_for_used(0);
    driver.fetch(gpa, len as usize)[12..].to_vec()
}

fn send(driver: &mut GuestDriver, header: [u8; 12], frame: &[u8]) {
    let gpa = driver.place(&[&header, frame].concat());
    driver.rings[1].add(&[(gpa, 12 + frame.len() as u32, false)]);
    driver.notify(1);
    driver.wait_for_used(1);
}

/// The host resolves the address of the guest, and exchanges datagrams with it.
#[test]
fn the_host_talks_to_the_guest_through_a_tap() {
    if !have_taps() {
        return;
    }
    let tap = Tap::open("vtest1", host_mac(), None).unwrap();
    ioctl::bring_up("vtest1", HOST).unwrap();
    let config = NetConfig {
        mac: MacAddress::new(GUEST_MAC).unwrap(),
        mtu: None,
    };
    let machine = TestMachine::new();
    let device = machine.plug(NetDevice::new(tap, config));
    let mut driver = GuestDriver::new(&machine, device);
    // Without mergeable buffers and offloads: the guest gets complete frames.
    driver.initialize(!0x0000_8780 & !0x2, Interrupts::Polled);

    let socket = UdpSocket::bind((HOST, 4000)).unwrap();
    socket.send_to(b"ping", (GUEST, 5000)).unwrap();
    let datagram = loop {
        let frame = receive(&mut driver);
        match (&frame[12..14], &frame[..]) {
            // ARP request: the answer has the parties swapped.
            ([8, 6], request) if request[20..22] == [0, 1] && request[38..42] == GUEST.octets() => {
                let (host_mac, host_ip) = (&request[22..28], &request[28..32]);
                let reply = [
                    host_mac,
                    &GUEST_MAC,
                    &request[12..20],
                    &[0, 2],
                    &GUEST_MAC,
                    &GUEST.octets(),
                    host_mac,
                    host_ip,
                ];
                send(&mut driver, [0; 12], &reply.concat());
            }
            ([8, 0], datagram) if datagram[23] == 17 => break datagram.to_vec(),
            // Other traffic of the host on a new interface.
            _ => {}
        }
    };
    assert_eq!(datagram[30..34], GUEST.octets());
    assert_eq!(datagram[42..], *b"ping");

    // Sends it back with a checksum that the host must complete: it starts at the UDP header, whose checksum field
    // holds the sum of the pseudo header.
    let mut reply = datagram;
    let (a, b) = (reply[..6].to_vec(), reply[6..12].to_vec());
    reply[..6].copy_from_slice(&b);
    reply[6..12].copy_from_slice(&a);
    reply[26..30].copy_from_slice(&GUEST.octets());
    reply[30..34].copy_from_slice(&HOST.octets());
    let ports = [reply[36], reply[37], reply[34], reply[35]];
    reply[34..38].copy_from_slice(&ports);
    reply[42..46].copy_from_slice(b"pong");
    let words = reply[26..34]
        .chunks(2)
        .map(|w| u32::from(w[0]) << 8 | u32::from(w[1]));
    let sum = words.sum::<u32>() + 17 + (reply.len() as u32 - 34);
    let folded = ((sum & 0xffff) + (sum >> 16)) as u16;
    reply[40..42].copy_from_slice(&folded.to_be_bytes());
    send(&mut driver, [1, 0, 0, 0, 0, 0, 34, 0, 6, 0, 0, 0], &reply);
    let mut data = [0; 16];
    let (len, from) = socket.recv_from(&mut data).unwrap();
    assert_eq!((&data[..len], from), (&b"pong"[..], (GUEST, 5000).into()));
}
