use super::*;
use crate::Offloads;
use crate::socket_backend::ALL_OFFLOADS;
use crate::socket_backend::SocketBackend;
use chipset_device::ChipsetDevice as _;
use parking_lot::Mutex;
use std::os::fd::OwnedFd;
use virtio::testing::GuestDriver;
use virtio::testing::Interrupts;
use virtio::testing::TestMachine;

const RX: u16 = 0;
const TX: u16 = 1;
const ALL: u64 = u64::MAX;
struct Net {
    machine: TestMachine,
    driver: GuestDriver,
    peer: OwnedFd,
    offloads: Arc<Mutex<Offloads>>,
    link: Link,
}

fn config() -> NetConfig {
    NetConfig {
        mac: MacAddress::derive("test"),
        mtu: Some(1400),
    }
}

fn net() -> Net {
    let (backend, peer) = SocketBackend::new().unwrap();
    net_on(backend, peer)
}

fn net_on(backend: SocketBackend, peer: OwnedFd) -> Net {
    let offloads = backend.offloads.clone();
    let machine = TestMachine::new();
    let device = NetDevice::new(backend, config());
    let link = device.link();
    let device = machine.plug(device);
    let driver = GuestDriver::new(&machine, device);
    Net {
        machine,
        driver,
        peer,
        offloads,
        link,
    }
}

impl Net {
    /// Adds `count` receive buffers of `len` bytes. Returns their addresses.
    fn offer(&mut self, count: usize, len: u32) -> Vec<u64> {
        let buffers: Vec<_> = (0..count)
            .map(|_| {
                let gpa = self.driver.allocate(len.into());
                self.driver.rings[0].add(&[(gpa, len, true)]);
                gpa
            })
            .collect();
        self.driver.notify(RX);
        buffers
    }

    fn send_to_guest(&self, frame: &[u8]) {
        let bytes = [&[0; 12], frame].concat();
        assert_eq!(rustix::io::write(&self.peer, &bytes).unwrap(), bytes.len());
    }

    fn send_from_guest(&mut self, frame: &[u8]) {
        let header = self.driver.place(&[0; 12]);
        let body = self.driver.place(frame);
        let pieces = [(header, 12, false), (body, frame.len() as u32, false)];
        self.driver.rings[1].add(&pieces);
        self.driver.notify(TX);
    }

    fn received_from_guest(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; 100_000];
        let peer = &self.peer;
        let len = self
            .driver
            .wait_until(|_| rustix::io::read(peer, &mut bytes).ok());
        bytes.truncate(len);
        bytes
    }

    fn inspect(&self, direction: &str, counter: &str) -> u64 {
        let value = self.driver.device.inspect();
        value["device"][direction][counter].as_u64().unwrap()
    }

    fn wait_for_count(&mut self, direction: &str, counter: &str, count: u64) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(120);
        while self.inspect(direction, counter) < count {
            assert!(std::time::Instant::now() < deadline);
            std::thread::yield_now();
        }
    }
}

fn frame(len: usize, seed: u8) -> Vec<u8> {
    (0..len)
        .map(|i| (i as u8).wrapping_mul(7).wrapping_add(seed))
        .collect()
}

const GSO: u64 = 1 << 7 | 1 << 8 | 1 << 10;

#[test]
fn the_configuration_has_mac_link_and_mtu() {
    let mut net = net();
    let driver = &mut net.driver;
    assert_eq!(driver.read_pci(0), 0x1041_1af4);
    assert_eq!(driver.read_pci(8) >> 8, 0x02_0000);
    let mac = config().mac.bytes();
    for (index, byte) in mac.into_iter().enumerate() {
        assert_eq!(driver.read_config(index as u64, 1), Ok(byte.into()));
    }
    assert_eq!(driver.read_config(6, 2), Ok(1));
    assert_eq!(driver.read_config(10, 2), Ok(1400));
    driver.initialize(ALL, Interrupts::Msix);
    net.link.set(LinkState::Down);
    assert!(net.machine.take_msi(0));
    assert_eq!(net.driver.read_config(6, 2), Ok(0));
    net.link.set(LinkState::Down);
    assert!(!net.machine.take_msi(0), "nothing changed");
}

#[test]
fn frames_pass_in_both_directions() {
    for interrupts in [Interrupts::Polled, Interrupts::Pin, Interrupts::Msix] {
        let mut net = net();
        net.driver.initialize(ALL & !GSO, interrupts);
        for round in 0..100u16 {
            let text = frame(60 + usize::from(round), round as u8);
            net.driver.rings[1].set_used_event(round);
            net.send_from_guest(&text);
            assert_eq!(net.received_from_guest()[12..], text);
            net.driver.wait_for_interrupt(TX);
            assert_eq!(net.driver.wait_for_used(TX).1, 0);

            net.driver.rings[0].set_used_event(round);
            let buffers = net.offer(1, 1600);
            net.send_to_guest(&text);
            net.driver.wait_for_interrupt(RX);
            let (_, len) = net.driver.wait_for_used(RX);
            let bytes = net.driver.fetch(buffers[0], len as usize);
            assert_eq!(bytes[12..], text);
            assert_eq!(bytes[..12], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
        }
    }
}

#[test]
fn a_large_frame_spans_several_buffers() {
    let mut net = net();
    net.driver.initialize(ALL, Interrupts::Msix);
    let buffers = net.offer(50, 1536);
    for (size, first) in [(60_000, 0), (100, 40)] {
        let text = frame(size, 3);
        net.send_to_guest(&text);
        let mut bytes = Vec::new();
        let mut used = Vec::new();
        while bytes.len() < size + 12 {
            let (_, len) = net.driver.wait_for_used(RX);
            bytes.extend(net.driver.fetch(buffers[first + used.len()], len as usize));
            used.push(len);
        }
        assert_eq!(bytes[12..], text);
        assert_eq!(bytes[10..12], (used.len() as u16).to_le_bytes());
        assert_eq!(used.len(), if first == 0 { 40 } else { 1 });
    }
}

/// The offloads allow frames of 64 KiB, but a small one does not wait for so many buffers.
#[test]
fn a_small_frame_needs_only_the_buffers_that_it_fills() {
    let mut net = net();
    net.driver.initialize(ALL, Interrupts::Msix);
    let buffers = net.offer(1, 128);
    net.send_to_guest(&frame(100, 5));
    let (_, len) = net.driver.wait_for_used(RX);
    assert_eq!(len, 112);
    assert_eq!(net.driver.fetch(buffers[0], 112)[12..], frame(100, 5));
}

#[test]
fn a_large_frame_waits_for_the_buffers_that_it_lacks() {
    let mut net = net();
    net.driver.initialize(ALL, Interrupts::Msix);
    let mut buffers = net.offer(3, 1000);
    net.send_to_guest(&frame(5000, 7));
    net.send_to_guest(&frame(50, 8));
    buffers.extend(net.offer(1, 1500));
    buffers.extend(net.offer(1, 12));
    buffers.extend(net.offer(2, 2000));
    let mut bytes = Vec::new();
    for gpa in &buffers[..6] {
        let (_, len) = net.driver.wait_for_used(RX);
        bytes.extend(net.driver.fetch(*gpa, len as usize));
    }
    assert_eq!(bytes[10..12], [6, 0]);
    assert_eq!(bytes[12..], frame(5000, 7));
    net.driver.wait_for_used(RX);
    assert_eq!(net.driver.fetch(buffers[6], 62)[12..], frame(50, 8));
    assert_eq!(net.inspect("received", "dropped"), 0);
}

#[test]
fn a_frame_larger_than_all_buffers_of_the_ring_is_dropped() {
    let mut net = net();
    net.driver.initialize(ALL, Interrupts::Msix);
    let buffers = net.offer(256, 64);
    net.send_to_guest(&frame(20_000, 1));
    net.wait_for_count("received", "dropped", 1);
    net.send_to_guest(&frame(40, 2));
    net.driver.wait_for_used(RX);
    assert_eq!(net.driver.fetch(buffers[0], 52)[12..], frame(40, 2));
}

/// A frame whose end waits for buffers is lost when the device stops, but its buffers are not.
#[test]
fn a_device_that_waits_for_buffers_can_be_stopped() {
    let mut net = net();
    net.driver.initialize(ALL, Interrupts::Msix);
    let mut buffers = net.offer(1, 100);
    net.send_to_guest(&frame(1000, 1));
    net.driver.device.stop();
    net.driver.device.start();
    buffers.extend(net.offer(20, 100));
    net.send_to_guest(&frame(80, 2));
    // The device may have been stopped before it read the first frame.
    let lost = net.inspect("received", "dropped") == 1;
    let expected = if lost { frame(80, 2) } else { frame(1000, 1) };
    let mut bytes = Vec::new();
    for gpa in buffers {
        if bytes.len() == 12 + expected.len() {
            break;
        }
        let (_, len) = net.driver.wait_for_used(RX);
        bytes.extend(net.driver.fetch(gpa, len as usize));
    }
    assert_eq!(bytes[12..], expected);
}

/// A datagram socket reports that nobody received what was sent; then it can be read again.
#[test]
fn a_failed_read_does_not_end_reception() {
    let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = peer.local_addr().unwrap();
    drop(peer);
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.connect(address).unwrap();
    let own = socket.local_addr().unwrap();
    let mut net = net_on(
        SocketBackend::over(socket.try_clone().unwrap().into()),
        socket.into(),
    );
    net.driver.initialize(ALL & !GSO, Interrupts::Polled);
    net.offer(1, 1600);
    net.send_from_guest(b"to nobody");
    net.wait_for_count("received", "dropped", 1);
    let peer = std::net::UdpSocket::bind(address).unwrap();
    peer.send_to(&[&[0; 12][..], b"found"].concat(), own)
        .unwrap();
    assert_eq!(net.driver.wait_for_used(RX).1, 17);
}

#[test]
fn a_frame_that_does_not_fit_is_dropped() {
    let mut net = net();
    net.driver
        .initialize(ALL & !header::MRG_RXBUF, Interrupts::Polled);
    let buffers = net.offer(2, 1526);
    net.send_to_guest(&frame(1515, 1));
    net.wait_for_count("received", "dropped", 1);
    net.send_to_guest(&frame(1514, 2));
    let (_, len) = net.driver.wait_for_used(RX);
    assert_eq!(len, 1526);
    assert_eq!(net.driver.fetch(buffers[0], 1526)[12..], frame(1514, 2));
}

#[test]
fn frames_wait_for_buffers_and_for_a_stopped_device() {
    let mut net = net();
    net.driver.initialize(ALL & !GSO, Interrupts::Msix);
    net.send_to_guest(&frame(100, 1));
    net.send_to_guest(&frame(100, 2));
    net.send_to_guest(&frame(100, 3));
    let first = net.offer(1, 1600);
    net.driver.wait_for_used(RX);
    // Chains that were taken and not used are returned to the ring.
    net.driver.device.stop();
    let second = net.offer(2, 1600);
    let state = net.driver.device.save().unwrap();
    net.driver.device.restore(&state).unwrap();
    net.driver.device.start();
    net.driver.wait_for_used(RX);
    net.driver.device.stop();
    net.driver.device.start();
    net.driver.wait_for_used(RX);
    let got = [first[0], second[0], second[1]].map(|gpa| net.driver.fetch(gpa, 112)[12..].to_vec());
    assert_eq!(got, [frame(100, 1), frame(100, 2), frame(100, 3)]);
}

#[test]
fn a_full_network_delays_the_guest_and_drops_nothing() {
    let mut net = net();
    net.driver.initialize(ALL, Interrupts::Polled);
    let body = net.driver.place(&frame(8192, 1));
    let header = net.driver.place(&[0; 12]);
    let count = 120;
    for _ in 0..count {
        net.driver.rings[1].add(&[(header, 12, false), (body, 8192, false)]);
    }
    net.driver.notify(TX);
    // Stopping does not wait for the network.
    net.wait_for_count("sent", "frames", 1);
    net.driver.device.stop();
    let sent = net.inspect("sent", "frames");
    assert!(sent < count, "the socket never fills up");
    net.driver.device.start();
    for _ in 0..count {
        assert_eq!(net.received_from_guest()[12..], frame(8192, 1));
    }
    for _ in 0..count {
        net.driver.wait_for_used(TX);
    }
    assert_eq!(net.inspect("sent", "dropped"), 0);
}

#[test]
fn invalid_frames_are_dropped() {
    let mut net = net();
    net.driver.initialize(ALL, Interrupts::Polled);
    let gpa = net.driver.allocate(200_000);
    net.driver.rings[1].add(&[(gpa, 11, false)]);
    net.driver.rings[1].add(&[(gpa, 100_000, false)]);
    net.driver.rings[1].add(&[(gpa, 100, true)]);
    net.driver.notify(TX);
    for _ in 0..3 {
        assert_eq!(net.driver.wait_for_used(TX).1, 0);
    }
    net.wait_for_count("sent", "dropped", 3);
    net.send_from_guest(b"still works");
    assert_eq!(net.received_from_guest()[12..], *b"still works");
}

#[test]
fn a_buffer_without_room_for_a_header_needs_a_reset() {
    let mut net = net();
    net.driver.initialize(ALL, Interrupts::Polled);
    net.offer(1, 11);
    net.driver.wait_for_needs_reset();
    net.driver.initialize(ALL & !GSO, Interrupts::Polled);
    net.offer(1, 2000);
    net.send_to_guest(b"again");
    assert_eq!(net.driver.wait_for_used(RX).1, 17);
}

#[test]
fn no_frames_while_the_link_is_down() {
    let mut net = net();
    // Before the device's threads start, so that they see it.
    net.link.set(LinkState::Down);
    net.driver.initialize(ALL & !GSO, Interrupts::Polled);
    let buffers = net.offer(1, 1600);
    net.send_to_guest(b"lost");
    net.wait_for_count("received", "dropped", 1);
    assert_eq!(net.driver.fetch(buffers[0], 16), [0; 16]);
    net.send_from_guest(b"lost");
    net.driver.wait_for_used(TX);
    net.link.set(LinkState::Up);
    net.send_to_guest(b"found");
    assert_eq!(net.driver.wait_for_used(RX).1, 17);
    net.send_from_guest(b"found");
    assert_eq!(net.received_from_guest()[12..], *b"found");
}

/// Frames that wait while no driver has buffers: nobody sees the link go down.
#[test]
fn frames_from_before_the_link_came_up_are_lost() {
    let mut net = net();
    net.driver.initialize(ALL & !GSO, Interrupts::Polled);
    net.link.set(LinkState::Down);
    net.driver.device.stop();
    net.send_to_guest(b"lost 1");
    net.send_to_guest(b"lost 2");
    assert_eq!(net.link.set(LinkState::Up), LinkState::Down);
    assert_eq!(net.inspect("received", "dropped"), 2);
    net.send_to_guest(b"found");
    assert_eq!(net.link.set(LinkState::Up), LinkState::Up);
    net.driver.device.start();
    let buffers = net.offer(1, 1600);
    assert_eq!(net.driver.wait_for_used(RX).1, 17);
    assert_eq!(net.driver.fetch(buffers[0], 17)[12..], *b"found");
}

#[test]
fn the_link_goes_down_for_good_when_the_network_is_gone() {
    let mut net = net();
    net.driver.initialize(ALL & !GSO, Interrupts::Msix);
    net.peer = std::fs::File::open("/dev/null").unwrap().into();
    net.offer(1, 1600);
    let link = net.link.clone();
    net.driver
        .wait_until(|_| (link.state() == LinkState::Down).then_some(()));
    net.driver.wait_until(|driver| {
        let status = driver.read_config(6, 2);
        (status == Ok(0)).then_some(())
    });
    assert!(net.machine.take_msi(0), "the driver is not told");
    net.driver.initialize(ALL & !GSO, Interrupts::Polled);
    assert_eq!(net.driver.read_config(6, 2), Ok(0));
}

#[test]
fn the_backend_learns_which_offloads_the_guest_accepts() {
    let mut net = net();
    net.driver.initialize(ALL, Interrupts::Polled);
    assert_eq!(*net.offloads.lock(), ALL_OFFLOADS);
    net.send_to_guest(b"for the first driver");
    net.driver.reset();
    assert_eq!(*net.offloads.lock(), Offloads::NONE);
    assert_eq!(net.inspect("received", "dropped"), 1);
    net.driver.initialize(ALL & !GSO, Interrupts::Polled);
    let taken = *net.offloads.lock();
    assert!(taken.checksum && !taken.any_segmentation());
}

#[test]
fn a_closed_peer_does_not_stop_the_device() {
    let mut net = net();
    net.driver.initialize(ALL & !GSO, Interrupts::Polled);
    net.offer(4, 1600);
    net.peer = std::fs::File::open("/dev/null").unwrap().into();
    net.send_from_guest(b"to nobody");
    net.driver.wait_for_used(TX);
    net.wait_for_count("sent", "dropped", 1);
    net.driver.device.stop();
}

#[test]
fn a_state_with_another_mac_is_refused() {
    let mut net = net();
    net.driver.device.stop();
    let state = net.driver.device.save().unwrap();
    let (backend, _peer) = SocketBackend::new().unwrap();
    let other = NetConfig {
        mac: MacAddress::derive("other"),
        ..config()
    };
    let mut device = net.machine.plug(NetDevice::new(backend, other));
    let error = device.restore(&state).unwrap_err();
    assert!(error.to_string().contains("MAC"), "{error}");
}
