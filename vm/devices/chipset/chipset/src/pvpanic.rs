//! The pvpanic device: a register through which a guest's kernel reports a panic.

use chipset_device::ChipsetDevice;
use chipset_device::FixedResources;
use chipset_device::IoError;
use chipset_device::PowerEvent;
use chipset_device::PowerSink;
use chipset_device::RestoreError;
use chipset_device::SaveError;
use chipset_device::SavedState;
use log_limit::LogLimit;
use minicbor::Decode;
use minicbor::Encode;
use serde_json::json;

/// The kernel panicked.
const PANICKED: u8 = 1 << 0;

/// The kernel panicked and starts its crash kernel.
const CRASH_LOADED: u8 = 1 << 1;

/// The pvpanic device (`docs/specs/pvpanic` of QEMU; ACPI id QEMU0001): one byte at an I/O port.
///
/// A panic is reported once until the machine is reset. The start of a crash kernel is only logged: the guest
/// continues and dumps its memory.
pub struct PvPanic {
    port: u16,
    power: PowerSink,
    state: State,
    crash_log: LogLimit,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct State {
    /// The events since the last reset.
    #[n(1)]
    events: u8,
}

impl PvPanic {
    /// The device at an I/O port. Panics go to `power`.
    pub fn at_port(port: u16, power: PowerSink) -> Self {
        Self {
            port,
            power,
            state: State::default(),
            crash_log: LogLimit::new(),
        }
    }
}

impl ChipsetDevice for PvPanic {
    fn fixed_resources(&self) -> FixedResources {
        FixedResources::ports([self.port..=self.port])
    }

    fn read_port(&mut self, _port: u16, data: &mut [u8]) -> Result<(), IoError> {
        let [value]: &mut [u8; 1] = data.try_into()?;
        // The supported events.
        *value = PANICKED | CRASH_LOADED;
        Ok(())
    }

    fn write_port(&mut self, _port: u16, data: &[u8]) -> Result<(), IoError> {
        let [value]: &[u8; 1] = data.try_into()?;
        let events = value & (PANICKED | CRASH_LOADED);
        let new = events & !self.state.events;
        self.state.events |= events;
        if new & CRASH_LOADED != 0
            && let Some(suppressed) = self.crash_log.allow()
        {
            tracing::warn!(
                suppressed,
                "the guest's kernel panicked and starts its crash kernel"
            );
        }
        if new & PANICKED != 0 {
            self.power.request(PowerEvent::GuestPanicked);
        }
        Ok(())
    }

    fn reset(&mut self) {
        self.state = State::default();
    }

    fn save(&mut self) -> Result<SavedState, SaveError> {
        Ok(SavedState::encode(&self.state))
    }

    fn restore(&mut self, state: &SavedState) -> Result<(), RestoreError> {
        let state: State = state.decode()?;
        if state.events & !(PANICKED | CRASH_LOADED) != 0 {
            let text = format!("unsupported events {:#04x}", state.events);
            return Err(RestoreError::Invalid(text));
        }
        self.state = state;
        Ok(())
    }

    fn inspect(&self) -> serde_json::Value {
        json!({
            "panicked": self.state.events & PANICKED != 0,
            "crash_loaded": self.state.events & CRASH_LOADED != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering;

    fn counting_sink() -> (PowerSink, Arc<AtomicUsize>) {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        let power = PowerSink::new(move |event| {
            assert_eq!(event, PowerEvent::GuestPanicked);
            counted.fetch_add(1, Ordering::SeqCst);
        });
        (power, count)
    }

    #[test]
    fn a_panic_is_reported_once_until_reset() {
        let (power, count) = counting_sink();
        let mut device = PvPanic::at_port(0x505, power);
        let mut data = [0];
        device.read_port(0x505, &mut data).unwrap();
        assert_eq!(data, [3]);
        device.write_port(0x505, &[0xfe]).unwrap();
        assert_eq!(count.load(Ordering::SeqCst), 0);
        assert_eq!(device.inspect()["crash_loaded"], true);
        for _ in 0..2 {
            device.write_port(0x505, &[1]).unwrap();
            assert_eq!(count.load(Ordering::SeqCst), 1);
        }
        let state = device.save().unwrap();
        device.reset();
        device.restore(&state).unwrap();
        assert_eq!(device.inspect()["panicked"], true);
        device.reset();
        device.write_port(0x505, &[1]).unwrap();
        assert_eq!(count.load(Ordering::SeqCst), 2);
    }
}
