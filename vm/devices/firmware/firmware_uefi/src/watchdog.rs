//! The watchdog of the firmware.

use chipset_device::DeviceWaker;
use minicbor::Decode;
use minicbor::Encode;
use std::time::Duration;
use uefi_specs::bios_device::WatchdogConfig;
use vmtime::VmClock;
use vmtime::VmInstant;
use vmtime::VmTimer;

/// Seconds per tick.
pub(crate) const RESOLUTION: u32 = 1;

/// Ticks after a reset.
const DEFAULT_COUNT: u32 = 120;

/// The bits of the configuration that are kept.
const KEPT: u32 = WatchdogConfig::CONFIGURED | WatchdogConfig::ENABLED | WatchdogConfig::ONE_SHOT;

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct WatchdogState {
    #[n(1)]
    config: u32,
    /// What is read back.
    #[n(2)]
    count: u32,
    /// What the guest last set.
    #[n(3)]
    configured_count: u32,
    /// When it expires, in nanoseconds of guest time.
    #[n(4)]
    deadline: Option<u64>,
    /// Whether it has expired since the guest last cleared this.
    #[n(5)]
    has_expired: bool,
}

impl Default for WatchdogState {
    fn default() -> Self {
        Self {
            config: 0,
            count: DEFAULT_COUNT,
            configured_count: DEFAULT_COUNT,
            deadline: None,
            has_expired: false,
        }
    }
}

impl WatchdogState {
    /// A stopped watchdog with a deadline.
    #[cfg(test)]
    pub(crate) fn contradiction() -> Self {
        Self {
            deadline: Some(1),
            ..Self::default()
        }
    }

    pub(crate) fn is_valid(&self) -> bool {
        self.config & !KEPT == 0 && (self.deadline.is_none() || WatchdogConfig(self.config).runs())
    }
}

/// A value that the register does not take.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InvalidConfig;

/// A timer that the guest has to stop or restart before it expires. It follows guest time, so a paused guest has as long
/// as a running one.
pub(crate) struct Watchdog {
    clock: VmClock,
    timer: VmTimer,
    state: WatchdogState,
}

impl Watchdog {
    pub(crate) fn new(clock: VmClock, waker: DeviceWaker) -> Self {
        Self {
            timer: clock.new_timer(move || waker.wake()),
            clock,
            state: WatchdogState::default(),
        }
    }

    pub(crate) fn config(&self) -> u32 {
        let expired = match self.state.has_expired {
            true => WatchdogConfig::BOOT_STATUS,
            false => 0,
        };
        self.state.config | expired
    }

    /// Starts or stops the timer. An invalid value changes nothing.
    pub(crate) fn set_config(&mut self, value: u32) -> Result<(), InvalidConfig> {
        if value & !WatchdogConfig::WRITABLE != 0 {
            return Err(InvalidConfig);
        }
        if value & WatchdogConfig::BOOT_STATUS != 0 {
            self.state.has_expired = false;
        }
        self.state.config = value & KEPT;
        self.state.deadline = None;
        if WatchdogConfig(value).runs() {
            // A stopped watchdog reads 0, and starts again with what it was set to.
            let ticks = match self.state.count {
                0 => self.state.configured_count,
                count => count,
            };
            self.state.count = self.state.configured_count;
            if ticks == 0 {
                // It would expire before the guest could do anything.
                self.state.config &= !WatchdogConfig::ENABLED;
            } else {
                let wait = Duration::from_secs(u64::from(ticks) * u64::from(RESOLUTION));
                let deadline = self.clock.now().saturating_add(wait);
                self.state.deadline = Some(deadline.as_nanos());
            }
        } else if value & WatchdogConfig::CONFIGURED == 0 {
            self.state.count = 0;
        }
        self.arm();
        Ok(())
    }

    pub(crate) fn count(&self) -> u32 {
        self.state.count
    }

    /// Sets the ticks of the next start.
    pub(crate) fn set_count(&mut self, count: u32) {
        self.state.count = count;
        self.state.configured_count = count;
    }

    /// Whether the watchdog has expired since the last call.
    pub(crate) fn take_expired(&mut self) -> bool {
        let now = self.clock.now().as_nanos();
        let expired = self.state.deadline.is_some_and(|deadline| deadline <= now);
        if expired {
            self.state.deadline = None;
            self.state.config &= !(WatchdogConfig::CONFIGURED | WatchdogConfig::ENABLED);
            self.state.has_expired = true;
        }
        expired
    }

    /// Stops the timer. Whether it has expired is kept: the firmware asks after the reset.
    pub(crate) fn reset(&mut self) {
        let has_expired = self.state.has_expired;
        self.set_state(WatchdogState {
            has_expired,
            ..WatchdogState::default()
        });
    }

    pub(crate) fn state(&self) -> &WatchdogState {
        &self.state
    }

    /// Restores a valid state. A deadline that has passed is handled when the clock runs.
    pub(crate) fn set_state(&mut self, state: WatchdogState) {
        self.state = state;
        self.arm();
    }

    fn arm(&self) {
        match self.state.deadline {
            Some(deadline) => self.timer.arm(VmInstant::from_nanos(deadline)),
            None => self.timer.disarm(),
        }
    }

    /// The seconds until it expires, for people.
    pub(crate) fn seconds_left(&self) -> Option<u64> {
        let deadline = VmInstant::from_nanos(self.state.deadline?);
        Some(
            deadline
                .saturating_duration_since(self.clock.now())
                .as_secs(),
        )
    }
}
