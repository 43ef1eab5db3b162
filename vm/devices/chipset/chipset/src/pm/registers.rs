use chipset_device::RestoreError;
use minicbor::Decode;
use minicbor::Encode;
use std::ops::Range;

/// The number of I/O ports of the block.
pub const PM_BLOCK_LENGTH: u16 = 0x80;

pub(crate) const PM1_STATUS: usize = 0x00;
pub(crate) const PM1_ENABLE: usize = 0x02;
pub(crate) const PM1_CONTROL: usize = 0x04;
/// The byte of the control register with the sleep bits.
pub(crate) const PM1_CONTROL_HIGH: usize = 0x05;
pub(crate) const TIMER: usize = 0x08;
pub(crate) const TIMER_END: usize = 0x0b;
/// The bytes of the status of the general-purpose events.
pub(crate) const GPE0_STATUS: Range<usize> = 0x20..0x28;
/// The bytes of the enable bits of the general-purpose events.
pub(crate) const GPE0_ENABLE: Range<usize> = 0x28..0x30;

/// The bits of a byte that store what is written.
fn writable(at: usize) -> u8 {
    match at {
        PM1_ENABLE | 0x03 => PM1_ENABLES.to_le_bytes()[at - PM1_ENABLE],
        PM1_CONTROL => BUS_MASTER_RELOAD,
        PM1_CONTROL_HIGH => SLEEP_TYPE,
        // Processor control.
        0x10..=0x13 => 0x0002_3e1e_u32.to_le_bytes()[at - 0x10],
        _ if GPE0_ENABLE.contains(&at) => 0xff,
        _ => 0,
    }
}

/// The bits of a byte that can be set in a valid state.
fn possible(at: usize) -> u8 {
    match at {
        PM1_STATUS | 0x01 => PM1_EVENTS.to_le_bytes()[at - PM1_STATUS],
        PM1_CONTROL => SCI_ENABLED | BUS_MASTER_RELOAD,
        _ if GPE0_STATUS.contains(&at) => 0xff,
        _ => writable(at),
    }
}

/// PM1 events.
pub(crate) const TIMER_EVENT: u16 = 1 << 0;
pub(crate) const POWER_BUTTON: u16 = 1 << 8;
/// Timer, global lock, power button, RTC. There is no sleep button.
const PM1_ENABLES: u16 = 0x0521;
/// The same events, and the wake status.
const PM1_EVENTS: u16 = 0x8521;

/// Sleep bits in the control register's high byte.
pub(crate) const SLEEP_ENABLE: u8 = 1 << 5;
pub(crate) const SLEEP_TYPE_SHIFT: u8 = 2;
pub(crate) const SLEEP_TYPE: u8 = 7 << SLEEP_TYPE_SHIFT;

const SCI_ENABLED: u8 = 1 << 0;
const BUS_MASTER_RELOAD: u8 = 1 << 1;

/// The bytes of the registers, which are also the saved state. Those of the timer are 0: its value is computed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Registers {
    #[cbor(n(1), with = "minicbor::bytes")]
    bytes: Vec<u8>,
    /// How often the highest bit of the timer had changed when the device last checked.
    #[n(2)]
    pub(crate) seen_toggles: u64,
}

impl Registers {
    pub(crate) fn new(seen_toggles: u64) -> Self {
        let mut bytes = vec![0; PM_BLOCK_LENGTH.into()];
        bytes[PM1_CONTROL] = SCI_ENABLED;
        Self {
            bytes,
            seen_toggles,
        }
    }

    /// Refuses values that the registers cannot have.
    pub(crate) fn check(&self) -> Result<(), RestoreError> {
        if self.bytes.len() != usize::from(PM_BLOCK_LENGTH) {
            let text = format!(
                "{} bytes of PM registers instead of {PM_BLOCK_LENGTH}",
                self.bytes.len()
            );
            return Err(RestoreError::Invalid(text));
        }
        if self.bytes[PM1_CONTROL] & SCI_ENABLED == 0 {
            return Err(RestoreError::Invalid("ACPI mode is disabled".into()));
        }
        let stray = (0..self.bytes.len()).find(|at| self.bytes[*at] & !possible(*at) != 0);
        if let Some(at) = stray {
            let text = format!("the PM register at {at:#x} is {:#04x}", self.bytes[at]);
            return Err(RestoreError::Invalid(text));
        }
        Ok(())
    }

    pub(crate) fn byte(&self, at: usize) -> u8 {
        self.bytes[at]
    }

    /// Writes a byte: ones clear status bits, other registers store the value.
    pub(crate) fn write_byte(&mut self, at: usize, value: u8) {
        if matches!(at, PM1_STATUS | 0x01) || GPE0_STATUS.contains(&at) {
            self.bytes[at] &= !value;
        } else {
            let writable = writable(at);
            self.bytes[at] = (self.bytes[at] & !writable) | (value & writable);
        }
    }

    pub(crate) fn word(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    /// A register of up to eight bytes.
    pub(crate) fn wide(&self, register: Range<usize>) -> u64 {
        self.bytes[register]
            .iter()
            .rev()
            .fold(0, |value, byte| value << 8 | u64::from(*byte))
    }

    /// Sets bits of a status register.
    pub(crate) fn raise(&mut self, register: Range<usize>, bits: u64) {
        for (byte, bits) in self.bytes[register].iter_mut().zip(bits.to_le_bytes()) {
            *byte |= bits;
        }
    }

    /// Whether the SCI is asserted: an event has occurred and is enabled.
    pub(crate) fn interrupts(&self) -> bool {
        self.word(PM1_STATUS) & self.word(PM1_ENABLE) != 0
            || self.wide(GPE0_STATUS) & self.wide(GPE0_ENABLE) != 0
    }
}
