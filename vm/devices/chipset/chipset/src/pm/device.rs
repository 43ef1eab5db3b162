use super::registers;
use super::registers::PmLayout;
use super::registers::Registers;
use chipset_device::ChipsetDevice;
use chipset_device::DeviceWaker;
use chipset_device::FixedResources;
use chipset_device::IoError;
use chipset_device::LineInterrupt;
use chipset_device::LineTarget;
use chipset_device::PowerEvent;
use chipset_device::PowerSink;
use chipset_device::RestoreError;
use chipset_device::SaveError;
use chipset_device::SavedState;
use log_limit::LogLimit;
use parking_lot::Mutex;
use serde_json::json;
use std::ops::Range;
use std::sync::Arc;
use vmtime::VmClock;
use vmtime::VmInstant;
use vmtime::VmTimer;

/// The value of the reset register that resets the machine.
const RESET: u8 = 1;

/// Hertz of the PM timer.
const TIMER_FREQUENCY: u128 = 3_579_545;

const NANOS_PER_SECOND: u128 = 1_000_000_000;

const PM1_STATUS_BYTES: Range<usize> = registers::PM1_STATUS..registers::PM1_ENABLE;

/// The ACPI fixed hardware (ACPI 6.5, section 4.8) as a block of I/O ports.
///
/// | ICH9 | Hyper-V | Register |
/// |---|---|---|
/// | 0x00, 0x02, 0x04 | the same | PM1 status, enable, control (16 bits each) |
/// | 0x08 | the same | PM timer (32 bits) |
/// | 0x10 | the same | processor control (32 bits), which only stores |
/// | 0x20, 0x28 | 0x0c, 0x0e | GPE0 status, enable (64 and 16 bits each) |
/// | | 0x18, 0x1c, 0x20, 0x28, 0x2c, 0x34 | registers that only store |
/// | | 0x33 | reset: 1 resets the machine |
///
/// All other ports read 0. There is no SMI command port, so ACPI mode is always enabled. Accesses may have any size
/// and span registers.
///
/// The interrupt (SCI) is level-triggered: high while an event is both set and enabled.
pub struct PmDevice {
    base: u16,
    layout: PmLayout,
    line: LineInterrupt,
    power: PowerSink,
    clock: VmClock,
    timer: VmTimer,
    offers_hibernation: bool,
    control: PmControl,
    regs: Registers,
    refused_sleeps: LogLimit,
}

/// Inputs of the PM device: the power button and general-purpose events.
///
/// Cheap to clone. Events that occur while the VM is stopped become visible when it starts. It locks the PM device,
/// so it must not be called while that is locked.
#[derive(Clone)]
pub struct PmControl {
    events: Arc<Mutex<Events>>,
    waker: DeviceWaker,
}

#[derive(Debug, Default)]
struct Events {
    pm1: u16,
    gpe0: u64,
}

impl PmControl {
    /// Presses the power button, which asks the guest to shut down.
    pub fn press_power_button(&self) {
        self.events.lock().pm1 |= registers::POWER_BUTTON;
        self.waker.wake();
    }

    /// Signals general-purpose event `line`. One that the block does not have is ignored.
    pub fn set_gpe(&self, line: u8) {
        self.events.lock().gpe0 |= 1_u64.checked_shl(line.into()).unwrap_or(0);
        self.waker.wake();
    }

    /// Returns general-purpose event `line` as an interrupt line: each rising edge signals the event.
    pub fn gpe(&self, line: u8) -> LineInterrupt {
        LineInterrupt::new(line.into(), Arc::new(self.clone()))
    }
}

impl LineTarget for PmControl {
    fn set_line(&self, gsi: u32, high: bool) {
        if let (Ok(line), true) = (u8::try_from(gsi), high) {
            self.set_gpe(line);
        }
    }
}

#[cfg(test)]
impl PmControl {
    /// A copy that does not wake the device, for use while it is locked.
    pub(crate) fn detached(&self) -> Self {
        Self {
            events: self.events.clone(),
            waker: DeviceWaker::default(),
        }
    }
}

impl PmDevice {
    /// The value of SLP_TYP for S5, as in the `_S5` object of the ACPI tables.
    pub const SLEEP_TYPE_S5: u8 = 0;

    /// The value of SLP_TYP for S4, as in the `_S4` object of the ACPI tables.
    pub const SLEEP_TYPE_S4: u8 = 1;

    /// A PM block at port `base`, with `line` as its SCI. Requests to power off go to `power`. A request for S4 is
    /// ignored unless hibernation is offered.
    ///
    /// Panics if the ports would wrap around.
    pub fn new(
        base: u16,
        layout: PmLayout,
        line: LineInterrupt,
        power: PowerSink,
        clock: &VmClock,
        waker: DeviceWaker,
    ) -> Self {
        assert!(
            base.checked_add(layout.port_count()).is_some(),
            "no room for the PM block at {base:#x}"
        );
        let timer_waker = waker.clone();
        let mut pm = Self {
            base,
            layout,
            line,
            power,
            clock: clock.clone(),
            timer: clock.new_timer(move || timer_waker.wake()),
            offers_hibernation: false,
            control: PmControl {
                events: Arc::default(),
                waker,
            },
            regs: Registers::new(layout, 0),
            refused_sleeps: LogLimit::new(),
        };
        pm.regs.seen_toggles = pm.toggles();
        pm
    }

    /// Offers S4 to the guest.
    #[must_use]
    pub fn with_hibernation(mut self) -> Self {
        self.offers_hibernation = true;
        self
    }

    /// The power button and events of this device.
    pub fn control(&self) -> PmControl {
        self.control.clone()
    }

    fn ticks(&self) -> u128 {
        u128::from(self.clock.now().as_nanos()) * TIMER_FREQUENCY / NANOS_PER_SECOND
    }

    /// How often the highest bit of the 32-bit timer has changed.
    fn toggles(&self) -> u64 {
        (self.ticks() >> 31) as u64
    }

    /// Sets the status bits of events that occurred since the last call, and updates the interrupt line and the
    /// timer.
    fn catch_up(&mut self) {
        self.take_events();
        let toggles = self.toggles();
        if self.regs.seen_toggles != toggles {
            self.regs.seen_toggles = toggles;
            let event = registers::TIMER_EVENT.into();
            self.regs.raise(PM1_STATUS_BYTES, event);
        }
        self.update_line();
        let enabled = self.regs.word(registers::PM1_ENABLE) & registers::TIMER_EVENT != 0;
        let happened = self.regs.word(registers::PM1_STATUS) & registers::TIMER_EVENT != 0;
        if enabled && !happened {
            let next = (u128::from(toggles) + 1) << 31;
            let nanos = (next * NANOS_PER_SECOND).div_ceil(TIMER_FREQUENCY);
            let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
            self.timer.arm(VmInstant::from_nanos(nanos));
        } else {
            self.timer.disarm();
        }
    }

    fn take_events(&mut self) {
        let events = std::mem::take(&mut *self.control.events.lock());
        let (mut pm1, mut gpe0) = (events.pm1, events.gpe0);
        if let Some(event) = self.layout.power_button_event()
            && pm1 & registers::POWER_BUTTON != 0
        {
            pm1 &= !registers::POWER_BUTTON;
            gpe0 |= 1 << event;
        }
        self.regs.raise(PM1_STATUS_BYTES, pm1.into());
        self.regs.raise(self.layout.gpe0_status(), gpe0);
    }

    fn update_line(&self) {
        self.line.set(self.regs.interrupts(self.layout));
    }

    fn write_byte(&mut self, at: usize, value: u8) {
        self.regs.write_byte(self.layout, at, value);
        if Some(at) == self.layout.reset() && value == RESET {
            self.power.request(PowerEvent::Reset);
        }
        if at == registers::PM1_CONTROL_HIGH && value & registers::SLEEP_ENABLE != 0 {
            self.sleep((value & registers::SLEEP_TYPE) >> registers::SLEEP_TYPE_SHIFT);
        }
    }

    fn sleep(&mut self, sleep_type: u8) {
        match sleep_type {
            Self::SLEEP_TYPE_S5 => self.power.request(PowerEvent::PowerOff),
            Self::SLEEP_TYPE_S4 if self.offers_hibernation => {
                self.power.request(PowerEvent::Hibernate);
            }
            _ => {
                if let Some(suppressed) = self.refused_sleeps.allow() {
                    tracing::warn!(
                        sleep_type,
                        suppressed,
                        "the guest requested an unsupported sleep state"
                    );
                }
            }
        }
    }
}

impl ChipsetDevice for PmDevice {
    fn fixed_resources(&self) -> FixedResources {
        FixedResources::ports([self.base..=self.base + (self.layout.port_count() - 1)])
    }

    fn read_port(&mut self, port: u16, data: &mut [u8]) -> Result<(), IoError> {
        let start = usize::from(port.wrapping_sub(self.base));
        if start + data.len() > usize::from(self.layout.port_count()) {
            return Err(IoError::InvalidAccessSize);
        }
        let touches_timer = start <= registers::TIMER_END && start + data.len() > registers::TIMER;
        // Guests read the timer often, and it does not depend on the other registers.
        if !(touches_timer && start >= registers::TIMER) {
            self.catch_up();
        }
        // Read once for all of its bytes.
        let timer = (self.ticks() as u32).to_le_bytes();
        for (at, byte) in (start..).zip(data) {
            *byte = match at {
                registers::TIMER..=registers::TIMER_END => timer[at - registers::TIMER],
                _ => self.regs.byte(at),
            };
        }
        Ok(())
    }

    fn write_port(&mut self, port: u16, data: &[u8]) -> Result<(), IoError> {
        let start = usize::from(port.wrapping_sub(self.base));
        if start + data.len() > usize::from(self.layout.port_count()) {
            return Err(IoError::InvalidAccessSize);
        }
        self.catch_up();
        for (at, byte) in (start..).zip(data) {
            self.write_byte(at, *byte);
        }
        self.catch_up();
        Ok(())
    }

    fn poll(&mut self) {
        self.catch_up();
    }

    fn reset(&mut self) {
        // Events from before the reset were meant for the guest that ran before it.
        *self.control.events.lock() = Events::default();
        self.regs = Registers::new(self.layout, self.toggles());
        self.catch_up();
    }

    fn save(&mut self) -> Result<SavedState, SaveError> {
        self.take_events();
        self.update_line();
        Ok(SavedState::encode(&self.regs))
    }

    fn restore(&mut self, state: &SavedState) -> Result<(), RestoreError> {
        let regs: Registers = state.decode()?;
        regs.check(self.layout)?;
        self.regs = regs;
        self.update_line();
        // The interrupt controller may have been restored with another level.
        self.line.redrive();
        Ok(())
    }

    fn inspect(&self) -> serde_json::Value {
        let word = |at| format!("{:#06x}", self.regs.word(at));
        // With as many digits as the register has.
        let wide = |register: Range<usize>| {
            let digits = 2 + 2 * register.len();
            format!("{:#0digits$x}", self.regs.wide(register))
        };
        json!({
            "base": format!("{:#x}", self.base),
            "pm1_status": word(registers::PM1_STATUS),
            "pm1_enable": word(registers::PM1_ENABLE),
            "pm1_control": word(registers::PM1_CONTROL),
            "gpe0_status": wide(self.layout.gpe0_status()),
            "gpe0_enable": wide(self.layout.gpe0_enable()),
            "timer": self.ticks() as u32,
            "hibernation": self.offers_hibernation,
            "interrupt": self.line.is_high(),
        })
    }
}

#[cfg(test)]
#[path = "device_test.rs"]
mod tests;
