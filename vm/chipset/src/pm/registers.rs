use chipset_device::RestoreError;
use minicbor::Decode;
use minicbor::Encode;

/// How many I/O ports the block takes.
pub const PM_BLOCK_LENGTH: u16 = LENGTH as u16;

pub(crate) const LENGTH: usize = 0x37;

pub(crate) const PM1_STATUS: usize = 0x00;
pub(crate) const PM1_ENABLE: usize = 0x02;
pub(crate) const PM1_CONTROL: usize = 0x04;
/// The byte of the control register with the sleep bits.
pub(crate) const PM1_CONTROL_HIGH: usize = 0x05;
pub(crate) const TIMER: usize = 0x08;
pub(crate) const TIMER_END: usize = 0x0b;
pub(crate) const GPE0_STATUS: usize = 0x0c;
pub(crate) const GPE0_ENABLE: usize = 0x0e;
pub(crate) const RESET: usize = 0x33;
const OUTPUTS: usize = 0x34;

/// PM1 events.
pub(crate) const TIMER_EVENT: u16 = 1 << 0;
pub(crate) const POWER_BUTTON: u16 = 1 << 8;
/// Timer, global lock, power button, sleep button's place excluded, RTC.
const PM1_ENABLES: u16 = 0x0521;
/// The same, and the wake status.
const PM1_EVENTS: u16 = 0x8521;

/// Sleep bits in the control register's high byte.
pub(crate) const SLEEP_ENABLE: u8 = 1 << 5;
pub(crate) const SLEEP_TYPE_SHIFT: u8 = 2;
pub(crate) const SLEEP_TYPE: u8 = 7 << SLEEP_TYPE_SHIFT;

const SCI_ENABLED: u8 = 1 << 0;
const BUS_MASTER_RELOAD: u8 = 1 << 1;

/// The value that, written to the reset register, resets the machine.
pub(crate) const RESET_VALUE: u8 = 1;

/// What a general-purpose output block drives at power-on.
const OUTPUTS_AT_RESET: [u8; 3] = [0xff, 0xbf, 0xff];

/// The registers by byte, which are also the saved state. What is computed reads 0 here.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Registers {
    #[cbor(n(1), with = "minicbor::bytes")]
    bytes: Vec<u8>,
    /// How often the timer's highest bit had changed when that was last looked for.
    #[n(2)]
    pub(crate) seen_toggles: u64,
}

impl Registers {
    pub(crate) fn new(seen_toggles: u64) -> Self {
        let mut bytes = vec![0; LENGTH];
        bytes[PM1_CONTROL] = SCI_ENABLED;
        bytes[OUTPUTS..].copy_from_slice(&OUTPUTS_AT_RESET);
        Self {
            bytes,
            seen_toggles,
        }
    }

    pub(crate) fn check(&self) -> Result<(), RestoreError> {
        if self.bytes.len() != LENGTH {
            let text = format!("{} bytes of PM registers", self.bytes.len());
            return Err(RestoreError::Invalid(text));
        }
        if self.bytes[PM1_CONTROL] & SCI_ENABLED == 0 {
            return Err(RestoreError::Invalid("ACPI mode is off".into()));
        }
        let stray = (0..LENGTH).find(|at| self.bytes[*at] & !Self::possible(*at) != 0);
        if let Some(at) = stray {
            let text = format!("{:#04x} in the PM register at {at:#x}", self.bytes[at]);
            return Err(RestoreError::Invalid(text));
        }
        Ok(())
    }

    /// The bits of a byte that can ever be set.
    fn possible(at: usize) -> u8 {
        match at {
            PM1_STATUS | 0x01 => PM1_EVENTS.to_le_bytes()[at - PM1_STATUS],
            GPE0_STATUS | 0x0d => 0xff,
            PM1_CONTROL => SCI_ENABLED | BUS_MASTER_RELOAD,
            _ => Self::writable(at),
        }
    }

    /// The bits of a byte that store what is written.
    fn writable(at: usize) -> u8 {
        match at {
            PM1_ENABLE | 0x03 => PM1_ENABLES.to_le_bytes()[at - PM1_ENABLE],
            PM1_CONTROL => BUS_MASTER_RELOAD,
            PM1_CONTROL_HIGH => SLEEP_TYPE,
            GPE0_ENABLE | 0x0f => 0xff,
            // Processor control, and blocks of old chipsets, which only remember.
            0x10..=0x13 => 0x0002_3e1e_u32.to_le_bytes()[at - 0x10],
            0x18..=0x23 | 0x28..=0x2f | OUTPUTS..LENGTH => 0xff,
            _ => 0,
        }
    }

    pub(crate) fn byte(&self, at: usize) -> u8 {
        self.bytes[at]
    }

    /// Writes a byte: status bits are cleared by ones, other registers store.
    pub(crate) fn write_byte(&mut self, at: usize, value: u8) {
        if matches!(at, PM1_STATUS | 0x01 | GPE0_STATUS | 0x0d) {
            self.bytes[at] &= !value;
        } else {
            let writable = Self::writable(at);
            self.bytes[at] = (self.bytes[at] & !writable) | (value & writable);
        }
    }

    pub(crate) fn word(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    /// Sets bits of a 16-bit status register.
    pub(crate) fn raise(&mut self, at: usize, bits: u16) {
        let [low, high] = bits.to_le_bytes();
        self.bytes[at] |= low;
        self.bytes[at + 1] |= high;
    }

    /// Whether an event is there that is enabled.
    pub(crate) fn interrupts(&self) -> bool {
        self.word(PM1_STATUS) & self.word(PM1_ENABLE) != 0
            || self.word(GPE0_STATUS) & self.word(GPE0_ENABLE) != 0
    }
}
