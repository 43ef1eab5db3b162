use super::*;
use chipset_device::LineInterrupt;
use chipset_device::MsiMessage;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

const GPA: u64 = IoApic::DEFAULT_GPA;
const MASKED: u64 = 1 << 16;
const LEVEL: u64 = 1 << 15;
const REMOTE_IRR: u64 = 1 << 14;

/// Records the routes and the interrupts delivered by them.
#[derive(Default)]
struct Kernel {
    routes: Mutex<[Option<MsiMessage>; PINS as usize]>,
    delivered: Mutex<Vec<(u8, MsiMessage)>>,
    refuses: AtomicBool,
}

impl IoApicRouting for Kernel {
    fn set_route(&self, pin: u8, route: Option<MsiMessage>) {
        self.routes.lock()[usize::from(pin)] = route;
    }

    fn assert(&self, pin: u8) -> bool {
        let route = self.routes.lock()[usize::from(pin)];
        let route = route.expect("delivery without a route");
        self.delivered.lock().push((pin, route));
        !self.refuses.load(Ordering::SeqCst)
    }
}

impl Kernel {
    fn vectors(&self) -> Vec<u8> {
        let delivered = std::mem::take(&mut *self.delivered.lock());
        delivered
            .into_iter()
            .map(|(_, msi)| msi.data as u8)
            .collect()
    }

    fn route(&self, pin: u8) -> Option<MsiMessage> {
        self.routes.lock()[usize::from(pin)]
    }
}

fn ioapic() -> (IoApic, IoApicPins, Arc<Kernel>) {
    let kernel: Arc<Kernel> = Arc::default();
    let ioapic = IoApic::new(GPA, kernel.clone());
    let pins = ioapic.pins();
    (ioapic, pins, kernel)
}

impl IoApic {
    fn get(&mut self, register: u8) -> u32 {
        self.write_mmio(GPA, &[register]).unwrap();
        let mut data = [0; 4];
        self.read_mmio(GPA + 0x10, &mut data).unwrap();
        u32::from_le_bytes(data)
    }

    fn set(&mut self, register: u8, value: u32) {
        self.write_mmio(GPA, &u32::from(register).to_le_bytes())
            .unwrap();
        self.write_mmio(GPA + 0x10, &value.to_le_bytes()).unwrap();
    }

    fn rte(&mut self, pin: u8) -> u64 {
        let [low, high] = [0, 1].map(|half| u64::from(self.get(0x10 + 2 * pin + half)));
        high << 32 | low
    }

    fn set_rte(&mut self, pin: u8, value: u64) {
        self.set(0x11 + 2 * pin, (value >> 32) as u32);
        self.set(0x10 + 2 * pin, value as u32);
    }
}

#[test]
fn id_and_version_registers() {
    let (mut ioapic, _, _) = ioapic();
    assert_eq!(ioapic.get(1), 0x0017_0020);
    ioapic.set(0, 0xffff_ffff);
    assert_eq!((ioapic.get(0), ioapic.get(2)), (0x0f00_0000, 0x0f00_0000));
    ioapic.set(1, 0);
    assert_eq!(ioapic.get(1), 0x0017_0020);
    assert_eq!(ioapic.get(0x40), 0);
    for pin in 0..PINS {
        assert_eq!(ioapic.rte(pin), MASKED);
        ioapic.set_rte(pin, u64::MAX);
        assert_eq!(ioapic.rte(pin), 0xfffe_0000_0001_afff);
    }
    ioapic.read_mmio(GPA + 4, &mut [0; 4]).unwrap_err();
    ioapic.write_mmio(GPA + 0x10, &[0; 2]).unwrap_err();
    ioapic.write_mmio(GPA + 0x20, &[0; 4]).unwrap_err();
}

#[test]
fn redirection_table_entries_become_messages() {
    let (mut ioapic, _, kernel) = ioapic();
    // Fixed, physical, edge, to APIC 5.
    ioapic.set_rte(4, 5 << 56 | 0x31);
    let msi = kernel.route(4).unwrap();
    assert_eq!((msi.address, msi.data), (0xfee0_5000, 0x4031));
    // Lowest priority, logical, level, with an extended destination.
    ioapic.set_rte(4, 0x0a02 << 48 | LEVEL | 0x0900 | 0x42);
    let msi = kernel.route(4).unwrap();
    assert_eq!((msi.address, msi.data), (0xfee0_a024, 0xc142));
    // An NMI has no level.
    ioapic.set_rte(4, LEVEL | 0x0400);
    assert_eq!(kernel.route(4).unwrap().data, 0x4400);
    ioapic.set_rte(4, MASKED);
    assert_eq!(kernel.route(4), None);
}

#[test]
fn edge_triggered_pins() {
    let (mut ioapic, pins, kernel) = ioapic();
    let line = LineInterrupt::new(4, Arc::new(pins.clone()));
    line.pulse();
    ioapic.set_rte(4, 0x31);
    assert_eq!(kernel.vectors(), b"", "an edge on a masked pin is lost");
    line.set(true);
    line.redrive();
    assert_eq!(kernel.vectors(), [0x31]);
    line.set(false);
    line.pulse();
    line.pulse();
    assert_eq!(kernel.vectors(), [0x31, 0x31]);
    assert_eq!(ioapic.rte(4) & REMOTE_IRR, 0);
    pins.eoi(0x31);
    pins.set_line(24, true);
    pins.set_line(u32::MAX, true);
    assert_eq!(kernel.vectors(), b"");
}

#[test]
fn level_triggered_pins() {
    let (mut ioapic, pins, kernel) = ioapic();
    pins.set_line(9, true);
    ioapic.set_rte(9, LEVEL | 0x51);
    assert_eq!(kernel.vectors(), [0x51], "high when unmasked");
    assert_ne!(ioapic.rte(9) & REMOTE_IRR, 0);
    pins.set_line(9, false);
    pins.set_line(9, true);
    assert_eq!(kernel.vectors(), b"", "in service");
    pins.eoi(0x52);
    assert_eq!(kernel.vectors(), b"");
    pins.eoi(0x51);
    assert_eq!(kernel.vectors(), [0x51], "still high");
    pins.set_line(9, false);
    pins.eoi(0x51);
    assert_eq!(kernel.vectors(), b"");
    assert_eq!(ioapic.rte(9) & REMOTE_IRR, 0);
    // By the EOI register.
    pins.set_line(9, true);
    ioapic
        .write_mmio(GPA + 0x40, &0x51_u32.to_le_bytes())
        .unwrap();
    assert_eq!(kernel.vectors(), [0x51, 0x51]);
}

#[test]
fn a_masked_pin_in_service_keeps_its_route_until_the_end() {
    let (mut ioapic, pins, kernel) = ioapic();
    ioapic.set_rte(9, LEVEL | 0x51);
    pins.set_line(9, true);
    ioapic.set_rte(9, MASKED | LEVEL | 0x51);
    assert_eq!(kernel.route(9).unwrap().data as u8, 0x51);
    assert_eq!(kernel.vectors(), [0x51]);
    pins.eoi(0x51);
    assert_eq!(kernel.route(9), None);
    assert_eq!(kernel.vectors(), b"");
    ioapic.set_rte(9, LEVEL | 0x51);
    assert_eq!(kernel.vectors(), [0x51]);
}

#[test]
fn making_a_pin_edge_triggered_ends_its_interrupt() {
    let (mut ioapic, pins, kernel) = ioapic();
    ioapic.set_rte(9, LEVEL | 0x51);
    pins.set_line(9, true);
    ioapic.set_rte(9, MASKED | 0x51);
    ioapic.set_rte(9, MASKED | LEVEL | 0x51);
    assert_eq!(ioapic.rte(9) & REMOTE_IRR, 0);
    ioapic.set_rte(9, LEVEL | 0x51);
    assert_eq!(kernel.vectors(), [0x51, 0x51]);
}

#[test]
fn an_interrupt_that_no_apic_accepted_is_not_in_service() {
    let (mut ioapic, pins, kernel) = ioapic();
    kernel.refuses.store(true, Ordering::SeqCst);
    ioapic.set_rte(9, LEVEL | 0x51);
    pins.set_line(9, true);
    assert_eq!(ioapic.rte(9) & REMOTE_IRR, 0);
    kernel.refuses.store(false, Ordering::SeqCst);
    ioapic.set_rte(9, LEVEL | 0x51);
    assert_ne!(ioapic.rte(9) & REMOTE_IRR, 0);
    assert_eq!(kernel.vectors().len(), 2);
}

#[test]
fn a_restored_ioapic_continues() {
    let (mut first, pins, _) = ioapic();
    first.set(0, 3 << 24);
    first.set_rte(4, 1 << 56 | 0x31);
    first.set_rte(9, LEVEL | 0x51);
    first.set_rte(10, LEVEL | 0x61);
    pins.set_line(9, true);
    let state = first.save().unwrap();

    let (mut second, pins, kernel) = ioapic();
    // A device was restored first and drives its line.
    pins.set_line(10, true);
    second.restore(&state).unwrap();
    assert_eq!(kernel.route(4).unwrap().address, 0xfee0_1000);
    assert_eq!(kernel.vectors(), [0x61], "pin 9 is in service already");
    pins.set_line(9, true);
    assert_eq!(kernel.vectors(), b"");
    pins.eoi(0x51);
    assert_eq!(kernel.vectors(), [0x51]);
    assert_eq!(second.get(0), 3 << 24);
    second.reset();
    assert_eq!(second.rte(9), MASKED);
    assert_eq!(kernel.route(9), None);

    let before = second.save().unwrap();
    let mut bytes = state.as_bytes().to_vec();
    bytes.pop();
    second.restore(&SavedState::from_bytes(bytes)).unwrap_err();
    assert_eq!(second.save().unwrap(), before);
}
