use super::*;
use std::time::Duration;
use vmtime::ManualTime;

const BASE: u16 = 0x400;

struct Machine {
    pm: Arc<Mutex<PmDevice>>,
    control: PmControl,
    clock: VmClock,
    time: ManualTime,
    requests: Arc<Mutex<Vec<PowerEvent>>>,
}

impl Machine {
    fn new() -> Self {
        Self::with(|pm| pm)
    }

    fn with(configure: impl FnOnce(PmDevice) -> PmDevice) -> Self {
        Self::of(PmLayout::Ich9, configure)
    }

    fn of(layout: PmLayout, configure: impl FnOnce(PmDevice) -> PmDevice) -> Self {
        let (clock, time) = VmClock::manual();
        clock.start();
        let requests: Arc<Mutex<Vec<PowerEvent>>> = Arc::default();
        let log = requests.clone();
        let power = PowerSink::new(move |event| log.lock().push(event));
        let waker = DeviceWaker::default();
        let line = LineInterrupt::detached();
        let pm = PmDevice::new(BASE, layout, line, power, &clock, waker.clone());
        let pm = Arc::new(Mutex::new(configure(pm)));
        let polled = Arc::downgrade(&pm);
        waker.connect(move || {
            if let Some(pm) = polled.upgrade() {
                pm.lock().poll();
            }
        });
        let control = pm.lock().control();
        Self {
            pm,
            control,
            clock,
            time,
            requests,
        }
    }

    fn get<const N: usize>(&self, offset: u16) -> [u8; N] {
        let mut data = [0; N];
        self.pm.lock().read_port(BASE + offset, &mut data).unwrap();
        data
    }

    fn word(&self, offset: u16) -> u16 {
        u16::from_le_bytes(self.get(offset))
    }

    fn set(&self, offset: u16, data: &[u8]) {
        self.pm.lock().write_port(BASE + offset, data).unwrap();
    }

    fn set_word(&self, offset: u16, value: u16) {
        self.set(offset, &value.to_le_bytes());
    }

    fn sci(&self) -> bool {
        self.pm.lock().inspect()["interrupt"].as_bool().unwrap()
    }
}

#[test]
fn acpi_mode_is_always_enabled() {
    let m = Machine::new();
    assert_eq!(m.word(4), 0x0001);
    m.set_word(4, 0);
    assert_eq!(m.word(4), 0x0001);
}

#[test]
fn sleep_is_requested_by_the_write_and_sleep_enable_reads_zero() {
    let m = Machine::with(PmDevice::with_hibernation);
    m.set_word(4, 1 << 10);
    assert_eq!(*m.requests.lock(), []);
    m.set_word(4, 1 << 13 | 1 << 10);
    assert_eq!(*m.requests.lock(), [PowerEvent::Hibernate]);
    assert_eq!(m.word(4), 1 << 10 | 1);
    // A byte access, with the type of S5.
    m.set(5, &[0x20]);
    assert_eq!(m.requests.lock()[1..], [PowerEvent::PowerOff]);
    for other in 2..8_u16 {
        m.set_word(4, 1 << 13 | other << 10);
    }
    // An access that spans registers.
    m.set(2, &[0, 0, 1, 0x24]);
    assert_eq!(m.requests.lock()[2..], [PowerEvent::Hibernate]);
}

#[test]
fn s4_is_ignored_unless_hibernation_is_offered() {
    let m = Machine::new();
    m.set_word(4, 1 << 13 | 1 << 10);
    assert_eq!(*m.requests.lock(), []);
    m.set_word(4, 1 << 13);
    assert_eq!(*m.requests.lock(), [PowerEvent::PowerOff]);
}

#[test]
fn the_power_button_sets_a_pm1_event() {
    let m = Machine::new();
    m.control.press_power_button();
    assert_eq!(m.word(0), 0x0100);
    assert!(!m.sci(), "not enabled");
    m.set_word(2, 0xffff);
    assert_eq!(m.word(2), 0x0521);
    assert!(m.sci());
    m.set_word(0, 0x0001);
    assert!(m.sci(), "another event was cleared");
    m.set(1, &[0x01]);
    assert!(!m.sci());
    assert_eq!(m.word(0), 0);
}

#[test]
fn the_sci_needs_a_status_bit_and_its_enable_bit() {
    let m = Machine::new();
    m.set_word(2, 0x0020);
    m.control.press_power_button();
    assert!(!m.sci());
    m.control.set_gpe(3);
    m.set_word(0x28, 0x0001);
    assert!(!m.sci());
    assert_eq!(m.word(0x20), 0x0008);
    m.set_word(0x28, 0x0008);
    assert!(m.sci());
    m.set_word(0x20, 0x0008);
    assert!(!m.sci());
    m.set_word(0x2e, 0x8000);
    m.control.set_gpe(63);
    m.control.set_gpe(64);
    assert!(m.sci());
    assert_eq!(m.word(0x26), 0x8000);
}

#[test]
fn the_timer_counts_guest_time() {
    let m = Machine::new();
    assert_eq!(m.get(8), [0; 4]);
    m.time.advance(Duration::from_secs(1));
    assert_eq!(u32::from_le_bytes(m.get(8)), 3_579_545);
    m.clock.stop();
    m.time.advance(Duration::from_secs(1));
    m.clock.start();
    assert_eq!(u32::from_le_bytes(m.get(8)), 3_579_545);
    m.set(8, &[0; 4]);
    assert_eq!(u32::from_le_bytes(m.get(8)), 3_579_545);
    // An access to its upper half and what follows.
    m.set(0x10, &[2]);
    assert_eq!(m.get(10), [0x36, 0, 0, 0, 0, 0, 2, 0]);
    // 2^32 ticks are 1199.86 s.
    m.time.advance(Duration::from_secs(1200));
    assert_eq!(
        u32::from_le_bytes(m.get(8)),
        (3_579_545_u64 * 1201 % (1 << 32)) as u32
    );
}

#[test]
fn a_change_of_the_highest_timer_bit_is_an_event() {
    let m = Machine::new();
    m.set_word(2, 0x0001);
    // 2^31 ticks are 599.93 s.
    m.time.advance(Duration::from_secs(599));
    assert!(!m.sci());
    m.time.advance(Duration::from_secs(1));
    assert!(m.sci());
    assert_eq!(m.word(0), 0x0001);
    m.set_word(0, 0x0001);
    assert!(!m.sci());
    m.time.advance(Duration::from_secs(599));
    assert!(!m.sci());
    m.time.advance(Duration::from_secs(1));
    assert!(m.sci());
    // Polled, with the interrupt disabled.
    m.set_word(2, 0);
    m.set_word(0, 0x0001);
    m.time.advance(Duration::from_secs(600));
    assert!(!m.sci());
    assert_eq!(m.word(0), 0x0001);
}

#[test]
fn accesses_span_registers_and_stay_in_the_block() {
    let m = Machine::new();
    m.set(2, &[0x20, 0x01, 0x03, 0x04]);
    assert_eq!(m.get(0), [0, 0, 0x20, 0x01]);
    assert_eq!(m.get(3), [0x01, 0x03]);
    m.set(0x10, &[0xff; 4]);
    assert_eq!(m.get(0x10), 0x0002_3e1e_u32.to_le_bytes());
    assert_eq!(m.get(0x14), [0, 0]);
    let mut pm = m.pm.lock();
    pm.read_port(BASE + 0x7d, &mut [0; 4]).unwrap_err();
    pm.write_port(BASE + 0x7f, &[0; 2]).unwrap_err();
}

#[test]
fn an_event_while_stopped_is_saved_and_restored() {
    let m = Machine::new();
    m.set_word(2, 0x0100);
    m.set(0x10, &[0x1e]);
    m.control.detached().press_power_button();
    let state = m.pm.lock().save().unwrap();
    assert!(m.sci());

    let n = Machine::new();
    n.clock.set(VmInstant::from_nanos(5));
    n.pm.lock().restore(&state).unwrap();
    assert!(n.sci());
    assert_eq!(n.pm.lock().save().unwrap(), state);
    assert_eq!(n.word(0), 0x0100);
    assert_eq!(n.get(0x10), [0x1e]);
}

#[test]
fn reset_clears_registers_and_events() {
    let m = Machine::new();
    m.set_word(2, 0x0100);
    m.control.press_power_button();
    m.set(0x10, &[0x1e]);
    m.time.advance(Duration::from_secs(1));
    m.pm.lock().reset();
    assert!(!m.sci());
    assert_eq!((m.word(0), m.word(2), m.word(4)), (0, 0, 1));
    assert_eq!(m.get(0x10), [0]);
    assert_eq!(u32::from_le_bytes(m.get(8)), 3_579_545, "free-running");
}

#[test]
fn invalid_states_are_refused() {
    let m = Machine::new();
    let state = m.pm.lock().save().unwrap();
    for (at, value) in [(4, 0), (5, 0x20), (3, 0x80), (8, 1), (0x7f, 1)] {
        let mut bytes = state.as_bytes().to_vec();
        // The registers follow the map's head, the field's number and the length.
        let first = bytes.windows(2).position(|w| w == [0x58, 0x80]).unwrap() + 2;
        bytes[first + at] = value;
        let error = m.pm.lock().restore(&SavedState::from_bytes(bytes));
        error.unwrap_err();
    }
    assert_eq!(m.pm.lock().save().unwrap(), state);
}

#[test]
fn there_are_64_general_purpose_events() {
    let m = Machine::new();
    assert_eq!(m.pm.lock().fixed_resources().ports, [BASE..=BASE + 0x7f]);
    m.control.gpe(0).pulse();
    m.control.set_gpe(63);
    m.control.set_gpe(64);
    assert_eq!(m.get(0x20), 0x8000_0000_0000_0001_u64.to_le_bytes());
    assert!(!m.sci());
    m.set(0x2f, &[0x80]);
    assert!(m.sci());
    m.set(0x27, &[0x80]);
    assert!(!m.sci());
    m.set(0x28, &[1]);
    assert!(m.sci());
    let inspected = m.pm.lock().inspect();
    assert_eq!(inspected["gpe0_status"], "0x0000000000000001");
    assert_eq!(inspected["gpe0_enable"], "0x8000000000000001");
}

#[test]
fn all_other_ports_read_zero() {
    let m = Machine::new();
    for offset in [0x06, 0x0c, 0x14, 0x18, 0x1c, 0x30, 0x34, 0x7c] {
        m.set(offset, &[0xff; 2]);
        assert_eq!(m.get(offset), [0; 2], "{offset:#x}");
    }
    m.set(0x33, &[1]);
    assert_eq!(*m.requests.lock(), []);
}

#[test]
fn a_state_of_another_length_is_refused() {
    let m = Machine::new();
    // The map {1: 55 zero bytes, 2: 0}, which a block of another chipset may have saved.
    let bytes = [&[0xa2, 1, 0x58, 0x37][..], &[0; 0x37], &[2, 0]].concat();
    let error = m.pm.lock().restore(&SavedState::from_bytes(bytes));
    assert!(error.unwrap_err().to_string().contains("instead of 128"));
}

#[test]
fn an_event_line_signals_on_its_rising_edge() {
    let m = Machine::new();
    let line = m.control.gpe(3);
    line.set(true);
    assert_eq!(m.word(0x20), 1 << 3);
    m.set_word(0x20, 1 << 3);
    line.set(true);
    line.set(false);
    assert_eq!(m.word(0x20), 0);
    line.pulse();
    assert_eq!(m.word(0x20), 1 << 3);
}

#[test]
fn the_registers_of_a_generation_2_vm_are_where_its_firmware_expects_them() {
    let m = Machine::of(PmLayout::HyperV, PmDevice::with_hibernation);
    assert_eq!(m.pm.lock().fixed_resources().ports, [BASE..=BASE + 0x36]);
    assert_eq!(m.word(4), 1, "ACPI mode from reset");
    m.control.gpe(0).pulse();
    m.control.set_gpe(9);
    m.control.set_gpe(16);
    assert_eq!(m.word(0xc), 0x0201);
    assert!(!m.sci());
    m.set_word(0xe, 0xffff);
    assert_eq!(m.word(0xe), 0x0f01);
    assert!(m.sci());
    m.set_word(0xc, 0x0001);
    assert!(m.sci(), "the other event");
    m.set(0xd, &[0x02]);
    assert!(!m.sci());
    // The timer and what follows it.
    m.time.advance(Duration::from_secs(1));
    assert_eq!(m.get(8), [0x99, 0x9e, 0x36, 0, 0, 0, 0x01, 0x0f]);
    m.set(0x10, &[0xff; 4]);
    assert_eq!(m.get(0x10), 0x0002_3e1e_u32.to_le_bytes());
    assert_eq!(m.get(0x14), [0, 0]);
    assert_eq!(m.get(0x34), [0xff, 0xbf, 0xff]);
    for (offset, len) in [
        (0x18, 2),
        (0x1c, 4),
        (0x20, 2),
        (0x28, 4),
        (0x2c, 4),
        (0x34, 3),
    ] {
        m.set(offset, &vec![0x5a; len]);
    }
    let stored: Vec<u16> = (0x18..0x37).filter(|at| m.get(*at) == [0x5a]).collect();
    let expected = [0x18..0x1a, 0x1c..0x22, 0x28..0x30, 0x34..0x37];
    assert!(
        stored.iter().copied().eq(expected.into_iter().flatten()),
        "{stored:x?}"
    );
    m.set_word(4, 0x2400);
    m.set_word(4, 0x2000);
    assert_eq!(
        *m.requests.lock(),
        [PowerEvent::Hibernate, PowerEvent::PowerOff]
    );
}

#[test]
fn the_power_button_of_a_generation_2_vm_is_an_event() {
    let m = Machine::of(PmLayout::HyperV, |pm| pm);
    m.set_word(0xe, 1 << 8);
    m.control.press_power_button();
    assert_eq!((m.word(0), m.word(0xc)), (0, 1 << 8));
    assert!(m.sci());
}

#[test]
fn only_the_value_1_resets_a_generation_2_vm() {
    let m = Machine::of(PmLayout::HyperV, |pm| pm);
    for value in [0, 2, 3, 0xff] {
        m.set(0x33, &[value]);
    }
    assert_eq!(*m.requests.lock(), []);
    m.set(0x33, &[1]);
    assert_eq!(*m.requests.lock(), [PowerEvent::Reset]);
    assert_eq!(m.get(0x33), [0]);
    let mut pm = m.pm.lock();
    pm.write_port(BASE + 0x36, &[0; 2]).unwrap_err();
    pm.read_port(BASE + 0x34, &mut [0; 4]).unwrap_err();
}

#[test]
fn a_state_fits_its_own_layout_only() {
    let m = Machine::of(PmLayout::HyperV, |pm| pm);
    m.control.detached().set_gpe(9);
    m.set(0x28, &[1, 2, 3, 4]);
    let state = m.pm.lock().save().unwrap();
    let n = Machine::of(PmLayout::HyperV, |pm| pm);
    n.pm.lock().restore(&state).unwrap();
    assert_eq!(n.pm.lock().save().unwrap(), state);
    assert_eq!(n.word(0xc), 0x0200);
    Machine::new().pm.lock().restore(&state).unwrap_err();
    m.pm.lock().reset();
    assert_eq!(m.get(0x28), [0; 4]);
    assert_eq!(m.get(0x34), [0xff, 0xbf, 0xff]);
}
