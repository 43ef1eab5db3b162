use super::CMOS_SIZE;
use super::KeptClock;
use super::RtcBattery;
use super::calendar::Alarm;
use super::calendar::Format;
use super::calendar::is_time;
use super::calendar::seconds_from_registers;
use super::calendar::time_register;
use super::cmos;
use chipset_device::ChipsetDevice;
use chipset_device::DeviceWaker;
use chipset_device::FixedResources;
use chipset_device::IoError;
use chipset_device::LineInterrupt;
use chipset_device::RestoreError;
use chipset_device::SaveError;
use chipset_device::SavedState;
use log_limit::LogLimit;
use minicbor::Decode;
use minicbor::Encode;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;
use vmtime::VmClock;
use vmtime::VmTimer;

const INDEX_PORT: u16 = 0x70;
const DATA_PORT: u16 = 0x71;

const A: usize = 0x0a;
const A_UPDATE_IN_PROGRESS: u8 = 0x80;
const A_DIVIDER: u8 = 0x70;
/// The divider for a 32,768 Hz crystal, and 1024 Hz as the periodic rate.
const A_NORMAL: u8 = 0x26;

const B: usize = 0x0b;
const B_SET: u8 = 0x80;
const B_BINARY: u8 = 0x04;
const B_24_HOURS: u8 = 0x02;
const B_DAYLIGHT_SAVING: u8 = 0x01;

const C: usize = 0x0c;
const C_INTERRUPT: u8 = 0x80;

const D: usize = 0x0d;
const D_VALID: u8 = 0x80;

/// The bits of register B that are the number formats, which a reset keeps.
const FORMATS: u8 = B_BINARY | B_24_HOURS | B_DAYLIGHT_SAVING;

/// The unit of the offset that is kept, in nanoseconds.
const KEPT_UNIT: i128 = 100;

/// Interrupt causes: in register C those that occurred, in register B those that are enabled.
const PERIODIC: u8 = 0x40;
const ALARM: u8 = 0x20;
const UPDATE: u8 = 0x10;
const CAUSES: u8 = PERIODIC | ALARM | UPDATE;

const SECOND: i128 = 1_000_000_000;

/// How long before an update the update-in-progress bit is set, in nanoseconds.
const UPDATE_NOTICE: i128 = 244_000;

/// The longest timer, in nanoseconds. The host's clock may be set, so the device checks it at least this often while
/// an alarm is pending.
const LONGEST_WAIT: i128 = 60 * SECOND;

/// More than 30,000 years, which is more than a guest can set.
const LARGEST_OFFSET_SECONDS: i64 = 1 << 40;

/// The source of the RTC's time.
#[derive(Clone)]
pub struct WallClock(Arc<dyn Fn() -> i128 + Send + Sync>);

impl WallClock {
    /// The host's clock (UTC).
    pub fn host() -> Self {
        Self::new(|| {
            let now = SystemTime::now();
            match now.duration_since(SystemTime::UNIX_EPOCH) {
                Ok(since) => signed_nanos(since),
                Err(error) => -signed_nanos(error.duration()),
            }
        })
    }

    /// A clock that calls `now`, which returns nanoseconds since 1970 (UTC).
    pub fn new(now: impl Fn() -> i128 + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// Nanoseconds since 1970 (UTC).
    pub fn now(&self) -> i128 {
        (self.0)()
    }
}

fn signed_nanos(duration: Duration) -> i128 {
    i128::from(duration.as_secs()) * SECOND + i128::from(duration.subsec_nanos())
}

/// An MC146818 real-time clock with 128 bytes of CMOS RAM, at ports 0x70 and 0x71.
///
/// The guest's time is the wall clock plus an offset, which changes when the guest sets the time. A guest that
/// was paused or restored therefore reads the correct time. The periodic interrupt follows guest time.
/// Register 0x32 is the century.
///
/// A reset of the machine keeps the time, the CMOS RAM and the number formats, as on hardware
/// with a battery. It resumes a clock that the guest had halted.
pub struct Rtc {
    line: LineInterrupt,
    clock: VmClock,
    wall: WallClock,
    timer: VmTimer,
    battery: Option<RtcBattery>,
    battery_log: LogLimit,
    state: State,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct State {
    #[n(1)]
    index: u8,
    /// The registers and the RAM. The bytes of the time are used only while the clock is halted.
    #[cbor(n(2), with = "minicbor::bytes")]
    cmos: Vec<u8>,
    /// The guest's time minus the wall clock.
    #[n(3)]
    offset_seconds: i64,
    #[n(4)]
    offset_nanos: u32,
    /// The guest's time, in seconds, up to which updates and alarms were handled.
    #[n(5)]
    seen_second: i64,
    /// The number of the last period of the periodic interrupt that was handled.
    #[n(6)]
    seen_period: u64,
}

impl Rtc {
    /// An RTC with `line` (IRQ 8 in a PC) as its interrupt and `cmos` as the content of the RAM at power-on. The
    /// bytes of the clock's registers are ignored.
    pub fn new(
        line: LineInterrupt,
        clock: &VmClock,
        wall: WallClock,
        waker: DeviceWaker,
        cmos: &[u8; CMOS_SIZE],
    ) -> Self {
        let mut cmos = cmos.to_vec();
        cmos[A] = A_NORMAL;
        cmos[B] = B_24_HOURS;
        cmos[C] = 0;
        cmos[D] = D_VALID;
        let mut rtc = Self {
            line,
            clock: clock.clone(),
            wall,
            timer: clock.new_timer(move || waker.wake()),
            battery: None,
            battery_log: LogLimit::new(),
            state: State {
                index: 0,
                cmos,
                offset_seconds: 0,
                offset_nanos: 0,
                seen_second: 0,
                seen_period: 0,
            },
        };
        rtc.state.seen_second = rtc.now_seconds();
        rtc.state.seen_period = rtc.period_index();
        rtc
    }

    /// Goes on with what `battery` has kept, and keeps there what the guest changes, whenever the machine stops.
    pub fn with_battery(mut self, mut battery: RtcBattery) -> Self {
        match &battery.kept {
            Some(KeptClock { skew, cmos }) => {
                let kept = (0..CMOS_SIZE).filter(|&register| is_kept(register));
                for register in kept {
                    self.state.cmos[register] = cmos[register];
                }
                self.state.cmos[B] = cmos[B] & FORMATS;
                self.state.set_offset(i128::from(*skew) * KEPT_UNIT);
                self.state.seen_second = self.now_seconds();
            }
            // A clock that the guest does not change is not kept.
            None => battery.kept = Some(self.kept()),
        }
        self.battery = Some(battery);
        self
    }

    /// What is kept while the machine is off.
    fn kept(&self) -> KeptClock {
        let mut cmos = [0; CMOS_SIZE];
        for register in (0..CMOS_SIZE).filter(|&register| is_kept(register)) {
            cmos[register] = self.state.cmos[register];
        }
        cmos[B] = self.state.cmos[B] & FORMATS;
        let skew = self.state.offset().div_euclid(KEPT_UNIT);
        KeptClock {
            skew: skew.clamp(i64::MIN.into(), i64::MAX.into()) as i64,
            cmos,
        }
    }

    /// The guest's time in nanoseconds since 1970.
    fn now(&self) -> i128 {
        self.wall.now().saturating_add(self.state.offset())
    }

    fn now_seconds(&self) -> i64 {
        clamp_seconds(self.now().div_euclid(SECOND))
    }

    fn format(&self) -> Format {
        Format {
            binary: self.state.cmos[B] & B_BINARY != 0,
            hours_24: self.state.cmos[B] & B_24_HOURS != 0,
        }
    }

    fn is_divider_held(&self) -> bool {
        self.state.cmos[A] & A_DIVIDER >= 0x60
    }

    /// Whether the time is halted while the guest sets it.
    fn is_halted(&self) -> bool {
        self.state.cmos[B] & B_SET != 0 || self.is_divider_held()
    }

    /// The period of the periodic interrupt in units of 1/32768 s.
    fn period(&self) -> Option<u64> {
        if self.is_divider_held() {
            return None;
        }
        match self.state.cmos[A] & 0x0f {
            0 => None,
            // Two exceptions: 256 Hz and 128 Hz.
            rate @ 1..=2 => Some(1 << (rate + 6)),
            rate => Some(1 << (rate - 1)),
        }
    }

    /// The number of the current period of the periodic interrupt.
    fn period_index(&self) -> u64 {
        let Some(period) = self.period() else {
            return 0;
        };
        let ticks = u128::from(self.clock.now().as_nanos()) * 32_768 / SECOND as u128;
        (ticks / u128::from(period)) as u64
    }

    /// Handles updates, alarms and periods since the last call, and updates the interrupt line and the timer.
    fn catch_up(&mut self) {
        if !self.is_halted() {
            let now = self.now_seconds();
            let seen = std::mem::replace(&mut self.state.seen_second, now);
            if now > seen {
                self.state.cmos[C] |= UPDATE;
                if self.alarm().next(seen).is_some_and(|alarm| alarm <= now) {
                    self.state.cmos[C] |= ALARM;
                }
            }
        }
        let period = self.period_index();
        if self.period().is_some() && self.state.seen_period != period {
            self.state.cmos[C] |= PERIODIC;
        }
        self.state.seen_period = period;
        self.update_line();
        self.arm_timer();
    }

    fn alarm(&self) -> Alarm {
        Alarm::from_registers(
            |register| self.state.cmos[usize::from(register)],
            self.format(),
        )
    }

    fn update_line(&mut self) {
        let raised = self.state.cmos[C] & self.state.cmos[B] & CAUSES != 0;
        self.state.cmos[C] &= CAUSES;
        if raised {
            self.state.cmos[C] |= C_INTERRUPT;
        }
        self.line.set(raised);
    }

    /// Arms the timer for the next interrupt, or to check the wall clock before it.
    fn arm_timer(&self) {
        let awaited = |cause| {
            let [enabled, happened] = [self.state.cmos[B] & cause, self.state.cmos[C] & cause];
            enabled != 0 && happened == 0
        };
        let now = self.clock.now();
        let now_nanos = i128::from(now.as_nanos());
        let mut waits = [None; 3];
        if awaited(PERIODIC)
            && let Some(period) = self.period()
        {
            let next = (i128::from(self.state.seen_period) + 1) * i128::from(period) * SECOND;
            // Rounded up: the period must have started when the timer fires.
            waits[0] = Some((next + 32_767) / 32_768 - now_nanos);
        }
        if !self.is_halted() {
            let time = self.now();
            if awaited(UPDATE) {
                waits[1] = Some(SECOND - time.rem_euclid(SECOND));
            }
            if awaited(ALARM)
                && let Some(alarm) = self.alarm().next(self.state.seen_second)
            {
                waits[2] = Some(i128::from(alarm) * SECOND - time);
            }
        }
        match waits.into_iter().flatten().min() {
            Some(wait) => {
                let wait = wait.clamp(0, LONGEST_WAIT) as u64;
                self.timer
                    .arm(now.saturating_add(Duration::from_nanos(wait)));
            }
            None => self.timer.disarm(),
        }
    }

    /// Copies the time to the registers, where the guest changes it.
    fn halt(&mut self) {
        let (now, format) = (self.now_seconds(), self.format());
        for register in (0..CMOS_SIZE as u8).filter(|register| is_time(*register)) {
            self.state.cmos[usize::from(register)] = time_register(register, now, format);
        }
    }

    /// Resumes from the time that the guest has set in the registers.
    fn resume(&mut self) {
        let seconds = seconds_from_registers(
            |register| self.state.cmos[usize::from(register)],
            self.format(),
        );
        self.set_seconds(seconds);
    }

    /// Sets the guest's time. The fraction of the second is unchanged.
    fn set_seconds(&mut self, seconds: i64) {
        let change = i128::from(seconds) * SECOND - self.now().div_euclid(SECOND) * SECOND;
        self.state.set_offset(self.state.offset() + change);
        self.state.seen_second = seconds;
    }

    fn write_a(&mut self, value: u8) {
        self.catch_up();
        let (halted, held) = (self.is_halted(), self.is_divider_held());
        self.state.cmos[A] = value & !A_UPDATE_IN_PROGRESS;
        if !halted && self.is_halted() {
            self.halt();
        }
        if held && !self.is_divider_held() {
            // The first update is half a second after the divider is released.
            let fraction = self.now().rem_euclid(SECOND);
            self.state
                .set_offset(self.state.offset() + SECOND / 2 - fraction);
        }
        if halted && !self.is_halted() {
            self.resume();
        }
        // A change of the rate raises no interrupt.
        self.state.seen_period = self.period_index();
        self.catch_up();
    }

    fn write_b(&mut self, mut value: u8) {
        self.catch_up();
        let halted = self.is_halted();
        if value & B_SET != 0 {
            value &= !UPDATE;
            if !halted {
                // In the format before the write.
                self.halt();
            }
        }
        self.state.cmos[B] = value;
        if halted && !self.is_halted() {
            self.resume();
        }
        self.catch_up();
    }

    fn read_register(&mut self) -> u8 {
        let register = usize::from(self.state.index);
        match register {
            A => {
                let fraction = self.now().rem_euclid(SECOND);
                let updates = !self.is_halted() && fraction >= SECOND - UPDATE_NOTICE;
                let in_progress = if updates { A_UPDATE_IN_PROGRESS } else { 0 };
                self.state.cmos[A] | in_progress
            }
            C => {
                self.catch_up();
                let causes = std::mem::take(&mut self.state.cmos[C]);
                self.catch_up();
                causes
            }
            D => D_VALID,
            _ if is_time(self.state.index) && !self.is_halted() => {
                time_register(self.state.index, self.now_seconds(), self.format())
            }
            _ => self.state.cmos[register],
        }
    }

    fn write_register(&mut self, value: u8) {
        let index = self.state.index;
        match usize::from(index) {
            A => self.write_a(value),
            B => self.write_b(value),
            C | D => {}
            _ if is_time(index) && !self.is_halted() => {
                self.catch_up();
                let (now, format) = (self.now_seconds(), self.format());
                let seconds = seconds_from_registers(
                    |register| match register {
                        _ if register == index => value,
                        _ => time_register(register, now, format),
                    },
                    format,
                );
                self.set_seconds(seconds);
                self.catch_up();
            }
            register => {
                // First with the old setting of the alarm.
                self.catch_up();
                self.state.cmos[register] = value;
                self.arm_timer();
            }
        }
    }
}

impl State {
    fn offset(&self) -> i128 {
        i128::from(self.offset_seconds) * SECOND + i128::from(self.offset_nanos)
    }

    fn set_offset(&mut self, offset: i128) {
        let largest = i128::from(LARGEST_OFFSET_SECONDS);
        let seconds = offset.div_euclid(SECOND).clamp(-largest, largest);
        self.offset_seconds = seconds as i64;
        self.offset_nanos = offset.rem_euclid(SECOND) as u32;
    }

    fn check(&self) -> Result<(), RestoreError> {
        let invalid = |text: String| Err(RestoreError::Invalid(text));
        if self.cmos.len() != CMOS_SIZE {
            let len = self.cmos.len();
            return invalid(format!("{len} bytes of CMOS RAM instead of {CMOS_SIZE}"));
        }
        if usize::from(self.index) >= CMOS_SIZE {
            return invalid(format!("invalid RTC register index {:#x}", self.index));
        }
        let seconds = -LARGEST_OFFSET_SECONDS..=LARGEST_OFFSET_SECONDS;
        if !seconds.contains(&self.offset_seconds) || i128::from(self.offset_nanos) >= SECOND {
            return invalid(format!(
                "invalid RTC offset of {} s and {} ns",
                self.offset_seconds, self.offset_nanos
            ));
        }
        Ok(())
    }
}

/// Whether a battery keeps a register of the RAM as it is.
fn is_kept(register: usize) -> bool {
    !(A..=D).contains(&register) && !is_time(register as u8) && !cmos::is_of_memory(register)
}

fn clamp_seconds(seconds: i128) -> i64 {
    seconds.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

impl ChipsetDevice for Rtc {
    fn fixed_resources(&self) -> FixedResources {
        FixedResources::ports([INDEX_PORT..=DATA_PORT])
    }

    fn read_port(&mut self, port: u16, data: &mut [u8]) -> Result<(), IoError> {
        let [value]: &mut [u8; 1] = data.try_into()?;
        // The index cannot be read back.
        *value = if port == DATA_PORT {
            self.read_register()
        } else {
            0xff
        };
        Ok(())
    }

    fn write_port(&mut self, port: u16, data: &[u8]) -> Result<(), IoError> {
        let [value]: &[u8; 1] = data.try_into()?;
        if port == DATA_PORT {
            self.write_register(*value);
        } else {
            // In hardware the highest bit masks NMIs, which is not implemented.
            self.state.index = value & 0x7f;
        }
        Ok(())
    }

    fn poll(&mut self) {
        self.catch_up();
    }

    /// Keeps what the guest has changed. Each stop writes at most once, whatever the guest did.
    fn stop(&mut self) {
        let kept = self.kept();
        if let Some(battery) = &mut self.battery
            && let Err(error) = battery.keep(kept)
            && let Some(suppressed) = self.battery_log.allow()
        {
            tracing::warn!(
                error = &*error as &dyn std::error::Error,
                suppressed,
                "the guest's clock is not kept; it may have another time at the next start"
            );
        }
    }

    fn reset(&mut self) {
        self.state.index = 0;
        self.write_b(self.state.cmos[B] & FORMATS);
        if self.is_divider_held() {
            self.write_a(A_NORMAL);
        }
        self.state.cmos[C] = 0;
        self.catch_up();
    }

    fn save(&mut self) -> Result<SavedState, SaveError> {
        Ok(SavedState::encode(&self.state))
    }

    fn restore(&mut self, state: &SavedState) -> Result<(), RestoreError> {
        let state: State = state.decode()?;
        state.check()?;
        self.state = state;
        // Deadlines that have passed are handled when the device starts.
        self.update_line();
        // The interrupt controller may have been restored with another level.
        self.line.redrive();
        Ok(())
    }

    fn inspect(&self) -> serde_json::Value {
        let cmos = &self.state.cmos;
        json!({
            "time": self.now_seconds(),
            "offset_seconds": self.state.offset_seconds,
            "halted": self.is_halted(),
            "index": self.state.index,
            "registers": [cmos[A], cmos[B], cmos[C], cmos[D]],
            "interrupt": self.line.is_high(),
        })
    }
}

#[cfg(test)]
#[path = "device_test.rs"]
mod tests;
