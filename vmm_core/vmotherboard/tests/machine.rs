//! Real devices in a chipset, with timers, backends and VPs on their own threads.

use chipset::ioapic::IoApic;
use chipset::ioapic::IoApicRouting;
use chipset::rtc::CMOS_SIZE;
use chipset::rtc::Rtc;
use chipset::rtc::WallClock;
use chipset_device::LineInterrupt;
use chipset_device::MsiMessage;
use parking_lot::Mutex;
use serial_16550::Serial16550;
use serial_16550::SerialBackend;
use serial_16550::SerialPort;
use state_unit::StateUnit as _;
use std::io;
use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;
use vmotherboard::Chipset;
use vmotherboard::ChipsetBuilder;
use vmtime::VmClock;

/// Long enough for the slowest machine; a passing test never waits this long.
const PATIENCE: Duration = Duration::from_secs(60);

const SERIAL_VECTOR: u8 = 0x34;
const CLOCK_VECTOR: u8 = 0x38;

/// Local APICs that send vectors to the test, which acts as the guest's interrupt handler.
struct LocalApics {
    routes: Mutex<[Option<MsiMessage>; 24]>,
    handler: mpsc::Sender<u8>,
}

impl IoApicRouting for LocalApics {
    fn set_route(&self, pin: u8, route: Option<MsiMessage>) {
        self.routes.lock()[usize::from(pin)] = route;
    }

    fn assert(&self, pin: u8) -> bool {
        let route = self.routes.lock()[usize::from(pin)];
        if let Some(route) = route {
            let _ = self.handler.send(route.data as u8);
        }
        route.is_some()
    }
}

struct Machine {
    chipset: Chipset,
    clock: VmClock,
    com1: SerialPort,
    interrupts: mpsc::Receiver<u8>,
}

impl Machine {
    fn new() -> Self {
        let (handler, interrupts) = mpsc::channel();
        let clock = VmClock::new();
        let com1 = SerialPort::new();
        let mut builder = ChipsetBuilder::default();
        let ioapic = builder.add("ioapic", |_| {
            let local_apics = LocalApics {
                routes: Mutex::default(),
                handler,
            };
            IoApic::new(IoApic::DEFAULT_GPA, Arc::new(local_apics))
        });
        let pins = Arc::new(ioapic.lock().pins());
        builder.add("com1", |context| {
            let line = LineInterrupt::new(4, pins.clone());
            Serial16550::new(0x3f8, line, com1.clone(), context.waker.clone())
        });
        builder.add("rtc", |context| {
            let line = LineInterrupt::new(8, pins.clone());
            let wall = WallClock::host();
            Rtc::new(line, &clock, wall, context.waker.clone(), &[0; CMOS_SIZE])
        });
        let machine = Self {
            chipset: builder.build().expect("the devices do not conflict"),
            clock,
            com1,
            interrupts,
        };
        machine.route(4, SERIAL_VECTOR);
        machine.route(8, CLOCK_VECTOR);
        machine
    }

    fn route(&self, pin: u8, vector: u8) {
        let gpa = IoApic::DEFAULT_GPA;
        self.chipset.write_mmio(gpa, &[0x10 + 2 * pin]);
        self.chipset
            .write_mmio(gpa + 0x10, &u32::from(vector).to_le_bytes());
    }

    fn start(&self) {
        self.chipset
            .devices()
            .for_each(|(_, mut device)| device.start());
        self.clock.start();
    }

    fn stop(&self) {
        self.clock.stop();
        self.chipset
            .devices()
            .for_each(|(_, mut device)| device.stop());
    }

    fn out(&self, port: u16, value: u8) {
        self.chipset.write_port(port, &[value]);
    }

    fn inb(&self, port: u16) -> u8 {
        let mut data = [0];
        self.chipset.read_port(port, &mut data);
        data[0]
    }
}

/// A sink whose writes take 2 ms.
struct Slow(Arc<Mutex<Vec<u8>>>);

impl Write for Slow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        std::thread::sleep(Duration::from_millis(2));
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_interrupt_driven_transmitter_sends_all_through_a_slow_backend() {
    let machine = Machine::new();
    let received = Arc::new(Mutex::new(Vec::new()));
    let backend = SerialBackend::sink(Slow(received.clone()));
    let _connection = machine.com1.connect("com1", backend).unwrap();
    machine.start();
    let sent: Vec<_> = (0..400_000_u32).map(|i| (i ^ (i >> 9)) as u8).collect();
    let mut chunks = sent.chunks(16);
    machine.out(0x3fa, 0x01);
    machine.out(0x3f9, 0x02);
    'send: loop {
        let vector = machine.interrupts.recv_timeout(PATIENCE).unwrap();
        assert_eq!(vector, SERIAL_VECTOR);
        // As drivers do: until nothing is pending.
        while machine.inb(0x3fa) & 0x0f == 0x02 {
            let Some(chunk) = chunks.next() else {
                break 'send;
            };
            chunk.iter().for_each(|byte| machine.out(0x3f8, *byte));
        }
    }
    machine.stop();
    assert_eq!(machine.com1.flush(PATIENCE), 0);
    assert!(*received.lock() == sent);
    assert_eq!(machine.com1.stats().refused, 0);
}

#[test]
fn input_while_stopped_interrupts_after_the_start() {
    let machine = Machine::new();
    machine.start();
    machine.out(0x3f9, 0x01);
    machine.stop();
    machine.com1.write_input(b"hi");
    assert!(machine.interrupts.try_recv().is_err());
    machine.start();
    let vector = machine.interrupts.recv_timeout(PATIENCE).unwrap();
    assert_eq!(vector, SERIAL_VECTOR);
    assert_eq!([machine.inb(0x3f8), machine.inb(0x3f8)], *b"hi");
    assert_eq!(machine.inb(0x3fd) & 1, 0);
}

#[test]
fn the_periodic_interrupt_fires_on_the_timer_thread() {
    let machine = Machine::new();
    machine.start();
    machine.out(0x70, 0x0b);
    machine.out(0x71, 0x42);
    for _ in 0..20 {
        let vector = machine.interrupts.recv_timeout(PATIENCE).unwrap();
        assert_eq!(vector, CLOCK_VECTOR);
        machine.out(0x70, 0x0c);
        assert_eq!(machine.inb(0x71) & 0xc0, 0xc0);
    }
    machine.stop();
    while machine.interrupts.try_recv().is_ok() {}
    std::thread::sleep(Duration::from_millis(5));
    assert!(machine.interrupts.try_recv().is_err(), "stopped");
}

#[test]
fn a_machine_is_saved_and_restored_in_another() {
    let machine = Machine::new();
    machine.start();
    machine.out(0x3ff, 0x77);
    machine.out(0x3f9, 0x01);
    machine.stop();
    let states: Vec<_> = machine
        .chipset
        .devices()
        .map(|(name, mut device)| (name.to_owned(), device.save().unwrap()))
        .collect();

    let other = Machine::new();
    for ((name, mut device), (saved, state)) in other.chipset.devices().zip(&states) {
        assert_eq!(name, saved);
        device.restore(state).unwrap();
    }
    other.clock.set(machine.clock.now());
    other.start();
    assert_eq!(other.inb(0x3ff), 0x77);
    other.com1.write_input(b"x");
    let vector = other.interrupts.recv_timeout(PATIENCE).unwrap();
    assert_eq!(vector, SERIAL_VECTOR);
}
