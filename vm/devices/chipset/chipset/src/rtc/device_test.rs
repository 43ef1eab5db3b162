use super::*;
use chipset_device::LineTarget;
use parking_lot::Mutex;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use vmtime::ManualTime;

/// 2024-02-29 12:34:56 UTC, a Thursday.
const START: i64 = 1_709_210_096;

struct Machine {
    rtc: Arc<Mutex<Rtc>>,
    clock: VmClock,
    time: ManualTime,
    /// By how many seconds the host's clock was set forward.
    jump: Arc<AtomicI64>,
    edges: Arc<Edges>,
}

#[derive(Default)]
struct Edges(AtomicUsize);

impl LineTarget for Edges {
    fn set_line(&self, _gsi: u32, high: bool) {
        self.0.fetch_add(usize::from(high), Ordering::SeqCst);
    }
}

impl Machine {
    fn new() -> Self {
        let (clock, time) = VmClock::manual();
        clock.start();
        let jump = Arc::new(AtomicI64::new(0));
        let edges: Arc<Edges> = Arc::default();
        let wall = {
            let (clock, jump) = (clock.clone(), jump.clone());
            WallClock::new(move || {
                let seconds = START + jump.load(Ordering::SeqCst);
                i128::from(seconds) * 1_000_000_000 + i128::from(clock.now().as_nanos())
            })
        };
        let waker = DeviceWaker::default();
        let line = LineInterrupt::new(8, edges.clone());
        let mut cmos = [0; CMOS_SIZE];
        cmos[0x34] = 0x12;
        let rtc = Rtc::new(line, &clock, wall, waker.clone(), &cmos);
        let rtc = Arc::new(Mutex::new(rtc));
        let polled = Arc::downgrade(&rtc);
        waker.connect(move || {
            if let Some(rtc) = polled.upgrade() {
                rtc.lock().poll();
            }
        });
        Self {
            rtc,
            clock,
            time,
            jump,
            edges,
        }
    }

    fn get(&self, register: u8) -> u8 {
        let mut rtc = self.rtc.lock();
        let mut data = [0];
        ChipsetDevice::write_port(&mut *rtc, 0x70, &[register | 0x80]).unwrap();
        ChipsetDevice::read_port(&mut *rtc, 0x71, &mut data).unwrap();
        data[0]
    }

    fn set(&self, register: u8, value: u8) {
        let mut rtc = self.rtc.lock();
        ChipsetDevice::write_port(&mut *rtc, 0x70, &[register]).unwrap();
        ChipsetDevice::write_port(&mut *rtc, 0x71, &[value]).unwrap();
    }

    fn time(&self) -> [u8; 8] {
        [0x32, 9, 8, 7, 6, 4, 2, 0].map(|register| self.get(register))
    }

    fn advance_ms(&self, ms: u64) {
        self.time.advance(Duration::from_millis(ms));
    }

    fn edges(&self) -> usize {
        self.edges.0.swap(0, Ordering::SeqCst)
    }

    fn is_high(&self) -> bool {
        self.rtc.lock().inspect()["interrupt"].as_bool().unwrap()
    }
}

#[test]
fn reads_the_wall_clock() {
    let m = Machine::new();
    assert_eq!(m.time(), [0x20, 0x24, 0x02, 0x29, 0x05, 0x12, 0x34, 0x56]);
    m.advance_ms(4_000);
    assert_eq!(m.time()[6..], [0x35, 0x00]);
    m.set(0x0b, 0x04);
    assert_eq!(m.time(), [20, 24, 2, 29, 5, 0x80 | 12, 35, 0]);
    assert_eq!(m.get(0x0d), 0x80);
    assert_eq!(m.get(0x34), 0x12);
}

#[test]
fn update_in_progress_is_set_before_an_update_and_then_cleared() {
    let m = Machine::new();
    assert_eq!(m.get(0x0a), 0x26);
    m.time.advance(Duration::from_micros(999_800));
    assert_eq!(m.get(0x0a), 0xa6);
    m.time.advance(Duration::from_micros(200));
    assert_eq!(m.get(0x0a), 0x26);
    m.set(0x0b, 0x82);
    m.time.advance(Duration::from_micros(999_800));
    assert_eq!(m.get(0x0a), 0x26, "no updates while the clock is set");
}

#[test]
fn a_guest_sets_the_time_as_linux_does() {
    let m = Machine::new();
    m.advance_ms(300);
    m.set(0x0b, 0x82);
    m.set(0x0a, 0x76);
    m.advance_ms(5_000);
    assert_eq!(m.time()[6..], [0x34, 0x56], "halted");
    for (register, value) in [
        (0x32, 0x23),
        (9, 0x99),
        (8, 0x12),
        (7, 0x31),
        (4, 0x23),
        (2, 0x59),
        (0, 0x59),
    ] {
        m.set(register, value);
    }
    m.set(0x0b, 0x02);
    m.set(0x0a, 0x26);
    m.advance_ms(499);
    assert_eq!(m.time(), [0x23, 0x99, 0x12, 0x31, 0x06, 0x23, 0x59, 0x59]);
    m.advance_ms(1);
    assert_eq!(m.time(), [0x24, 0x00, 0x01, 0x01, 0x07, 0x00, 0x00, 0x00]);
    // The offset is kept when the host's clock moves on without the guest running.
    m.jump.store(3600, Ordering::SeqCst);
    assert_eq!(m.time()[5..], [0x01, 0x00, 0x00]);
}

#[test]
fn a_register_can_be_written_without_halting() {
    let m = Machine::new();
    m.set(4, 0x23);
    assert_eq!(m.time()[5..], [0x23, 0x34, 0x56]);
    m.set(8, 0x99);
    assert_eq!(m.get(8), 0x12, "nonsense becomes a month");
}

#[test]
fn the_update_interrupt_is_raised_every_second() {
    let m = Machine::new();
    m.set(0x0b, 0x12);
    m.advance_ms(999);
    assert!(!m.is_high());
    m.advance_ms(1);
    assert!(m.is_high());
    // The periodic flag is set too, and raises nothing.
    assert_eq!(m.get(0x0c), 0xd0);
    assert!(!m.is_high());
    assert_eq!(m.get(0x0c), 0);
    m.advance_ms(10_000);
    assert_eq!(m.edges(), 2, "not acknowledged, not repeated");
    // It can be polled for, too.
    m.set(0x0b, 0x02);
    m.get(0x0c);
    m.advance_ms(1_000);
    assert_eq!(m.get(0x0c), 0x50);
    assert_eq!(m.edges(), 0);
}

#[test]
fn the_periodic_interrupt_keeps_its_rate() {
    let m = Machine::new();
    m.set(0x0b, 0x42);
    let mut count = 0;
    for _ in 0..1_000 {
        m.advance_ms(1);
        if m.is_high() {
            assert_eq!(m.get(0x0c) & 0xc0, 0xc0);
            count += 1;
        }
    }
    // 1024 Hz, looked at 1000 times in a second.
    assert!((999..=1000).contains(&count), "{count}");
    // 2 Hz.
    m.set(0x0a, 0x2f);
    m.edges();
    for _ in 0..10 {
        m.advance_ms(1_000);
        m.get(0x0c);
    }
    assert_eq!(m.edges(), 10);
    for _ in 0..40 {
        m.advance_ms(250);
        m.get(0x0c);
    }
    assert_eq!(m.edges(), 20);
    m.set(0x0a, 0x20);
    m.get(0x0c);
    m.advance_ms(5_000);
    assert_eq!(m.edges(), 0, "rate 0 is none");
}

#[test]
fn the_alarm_is_raised_daily_or_more_often_with_dont_care_values() {
    let m = Machine::new();
    for (register, value) in [(1, 0x00), (3, 0x35), (5, 0x12)] {
        m.set(register, value);
    }
    m.set(0x0b, 0x22);
    m.advance_ms(3_999);
    assert!(!m.is_high());
    m.advance_ms(1);
    assert!(m.is_high());
    assert_eq!(m.get(0x0c) & 0xa0, 0xa0);
    m.advance_ms(86_399_000);
    assert_eq!(m.edges(), 1);
    m.advance_ms(1_000);
    assert_eq!(m.edges(), 1);
    m.get(0x0c);
    m.set(3, 0xff);
    m.set(5, 0xc0);
    m.advance_ms(59_999);
    assert_eq!(m.edges(), 0);
    m.advance_ms(1);
    assert_eq!(m.edges(), 1);
}

#[test]
fn the_alarm_follows_changes_of_the_host_clock() {
    let m = Machine::new();
    for (register, value) in [(1, 0), (3, 0), (5, 0x13)] {
        m.set(register, value);
    }
    m.set(0x0b, 0x22);
    m.advance_ms(1_000);
    m.jump.store(3600, Ordering::SeqCst);
    m.advance_ms(60_000);
    assert!(m.is_high());
}

#[test]
fn interrupts_while_the_vm_is_stopped_are_raised_when_it_starts() {
    let m = Machine::new();
    m.set(0x0b, 0x12);
    m.rtc.lock().stop();
    m.clock.stop();
    m.advance_ms(5_000);
    m.jump.store(5, Ordering::SeqCst);
    assert_eq!(m.edges(), 0);
    m.clock.start();
    m.rtc.lock().poll();
    assert_eq!(m.edges(), 1);
}

#[test]
fn a_restored_clock_continues() {
    let m = Machine::new();
    m.set(0x0b, 0x12);
    m.set(4, 0x00);
    m.set(0x40, 0x77);
    m.advance_ms(1_000);
    assert!(m.is_high());
    let state = m.rtc.lock().save().unwrap();

    let n = Machine::new();
    n.rtc.lock().restore(&state).unwrap();
    assert!(n.is_high());
    assert_eq!(n.rtc.lock().save().unwrap(), state);
    assert_eq!(n.get(0x40), 0x77);
    assert_eq!(n.get(4), 0x00);
    n.edges();
    n.rtc.lock().restore(&state).unwrap();
    assert_eq!(n.edges(), 1, "driven again though it is high already");
    assert_eq!(n.get(0x0c), 0xd0);
    n.rtc.lock().poll();
    n.advance_ms(2_000);
    assert!(n.is_high());

    let before = n.rtc.lock().save().unwrap();
    let mut rtc = n.rtc.lock();
    rtc.restore(&SavedState::from_bytes(vec![0xa0]))
        .unwrap_err();
    assert_eq!(rtc.save().unwrap(), before);
}

#[test]
fn reset_keeps_time_and_ram_and_disables_interrupts() {
    let m = Machine::new();
    m.set(0x40, 1);
    m.set(4, 0x00);
    m.set(0x0b, 0x04);
    m.set(0x0b, 0xf4);
    m.advance_ms(10_000);
    assert_eq!(m.edges(), 1, "periodic");
    m.rtc.lock().reset();
    assert!(!m.is_high());
    assert_eq!(m.get(0x0b), 0x04);
    assert_eq!(m.get(0x40), 1);
    assert_eq!(m.get(0), 56, "it stood still");
    m.advance_ms(1_000);
    assert_eq!(m.get(0), 57, "and runs again");
    assert_eq!(m.edges(), 0);
}

#[test]
fn only_bytes_are_accepted_and_the_index_cannot_be_read() {
    let m = Machine::new();
    let mut rtc = m.rtc.lock();
    ChipsetDevice::read_port(&mut *rtc, 0x70, &mut [0; 2]).unwrap_err();
    ChipsetDevice::write_port(&mut *rtc, 0x71, &[0; 2]).unwrap_err();
    let mut data = [0];
    ChipsetDevice::read_port(&mut *rtc, 0x70, &mut data).unwrap();
    assert_eq!(data, [0xff]);
}

/// What a battery was given to keep.
type Log = Arc<Mutex<Vec<KeptClock>>>;

impl Machine {
    fn with_battery(kept: Option<KeptClock>, broken: Arc<AtomicUsize>) -> (Self, Log) {
        let machine = Self::new();
        let log = Log::default();
        let keeping = log.clone();
        let battery = RtcBattery::new(kept, move |state| {
            keeping.lock().push(state.clone());
            match broken.load(Ordering::SeqCst) {
                0 => Ok(()),
                _ => Err("no space left".into()),
            }
        });
        let rtc = Rtc::new(
            LineInterrupt::new(8, machine.edges.clone()),
            &machine.clock,
            machine.rtc.lock().wall.clone(),
            DeviceWaker::default(),
            &crate::rtc::cmos_for_memory(64 << 20, 0),
        );
        *machine.rtc.lock() = rtc.with_battery(battery);
        (machine, log)
    }
}

#[test]
fn a_battery_keeps_the_time_and_the_ram() {
    let (m, log) = Machine::with_battery(None, Arc::default());
    m.rtc.lock().stop();
    assert!(log.lock().is_empty(), "nothing was changed");
    m.set(0x0b, 0x06);
    // Two hours and three seconds ahead.
    m.set(4, 14);
    m.set(0, 59);
    m.set(0x40, 0xa5);
    m.set(5, 7);
    m.set(0x34, 0xff);
    m.rtc.lock().stop();
    m.rtc.lock().stop();
    let kept = log.lock().pop().unwrap();
    assert!(log.lock().is_empty(), "a stop writes what changed, once");
    assert_eq!(kept.skew, 7203 * 10_000_000);
    assert_eq!(
        (kept.cmos[0x40], kept.cmos[5], kept.cmos[0x0b]),
        (0xa5, 7, 6)
    );
    assert_eq!(kept.cmos[0x34], 0);

    let (m, log) = Machine::with_battery(Some(kept), Arc::default());
    assert_eq!(m.time(), [20, 24, 2, 29, 5, 14, 34, 59]);
    assert_eq!((m.get(0x40), m.get(5)), (0xa5, 7));
    // The memory is the machine's, not the last one's.
    assert_eq!((m.get(0x34), m.get(0x35)), (0, 3));
    m.rtc.lock().stop();
    assert!(log.lock().is_empty());
}

#[test]
fn a_state_that_could_not_be_kept_is_kept_at_the_next_stop() {
    let broken = Arc::new(AtomicUsize::new(1));
    let (m, log) = Machine::with_battery(None, broken.clone());
    m.set(0x40, 1);
    m.rtc.lock().stop();
    broken.store(0, Ordering::SeqCst);
    for _ in 0..3 {
        m.rtc.lock().stop();
    }
    assert_eq!(log.lock().len(), 2);
}

#[test]
fn any_kept_clock_is_survived() {
    for skew in [i64::MIN, i64::MAX, -1] {
        let kept = KeptClock {
            skew,
            cmos: [0xff; CMOS_SIZE],
        };
        let (m, _) = Machine::with_battery(Some(kept), Arc::default());
        let _ = m.time();
        m.rtc.lock().poll();
        m.rtc.lock().stop();
    }
}
