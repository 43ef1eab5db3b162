use chipset_device::RestoreError;
use minicbor::Decode;
use minicbor::Encode;
use std::ops::Range;

/// How many I/O ports the block of [`PmLayout::Compact`] takes.
pub const PM_BLOCK_LENGTH: u16 = 0x37;

/// Offset of the reset register of [`PmLayout::Compact`].
pub const RESET_OFFSET: u16 = 0x33;

/// The value that, written to the reset register, resets the machine.
pub const RESET_VALUE: u8 = 1;

pub(crate) const PM1_STATUS: usize = 0x00;
pub(crate) const PM1_ENABLE: usize = 0x02;
pub(crate) const PM1_CONTROL: usize = 0x04;
/// The byte of the control register with the sleep bits.
pub(crate) const PM1_CONTROL_HIGH: usize = 0x05;
pub(crate) const TIMER: usize = 0x08;
pub(crate) const TIMER_END: usize = 0x0b;
/// General-purpose outputs of the compact block.
const OUTPUTS: usize = 0x34;

/// Where the registers are.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum PmLayout {
    /// 0x37 ports: 16 general-purpose events, with the status at 0x0C and the enable bits at 0x0E; a reset register
    /// at 0x33; and registers of the chipset it stems from, which only remember.
    Compact,
    /// The 0x80 ports of ICH9 (data sheet, section 13.8.3): 64 general-purpose events, with the status at 0x20 and
    /// the enable bits at 0x28; no reset register. What is not ACPI's reads 0.
    Ich9,
}

impl PmLayout {
    /// How many I/O ports the block takes.
    pub fn length(self) -> u16 {
        match self {
            Self::Compact => PM_BLOCK_LENGTH,
            Self::Ich9 => 0x80,
        }
    }

    /// How many general-purpose events there are.
    pub fn events(self) -> u8 {
        match self {
            Self::Compact => 16,
            Self::Ich9 => 64,
        }
    }

    /// The bytes of the general-purpose events' status.
    pub(crate) fn gpe0_status(self) -> Range<usize> {
        match self {
            Self::Compact => 0x0c..0x0e,
            Self::Ich9 => 0x20..0x28,
        }
    }

    /// The bytes of the general-purpose events' enable bits.
    pub(crate) fn gpe0_enable(self) -> Range<usize> {
        let status = self.gpe0_status();
        status.end..status.end + status.len()
    }

    /// The reset register.
    pub(crate) fn reset(self) -> Option<usize> {
        match self {
            Self::Compact => Some(RESET_OFFSET.into()),
            Self::Ich9 => None,
        }
    }

    /// The bits of a byte that store what is written.
    fn writable(self, at: usize) -> u8 {
        match at {
            PM1_ENABLE | 0x03 => return PM1_ENABLES.to_le_bytes()[at - PM1_ENABLE],
            PM1_CONTROL => return BUS_MASTER_RELOAD,
            PM1_CONTROL_HIGH => return SLEEP_TYPE,
            // Processor control.
            0x10..=0x13 => return 0x0002_3e1e_u32.to_le_bytes()[at - 0x10],
            _ if self.gpe0_enable().contains(&at) => return 0xff,
            _ => {}
        }
        match (self, at) {
            // Blocks of old chipsets, which only remember.
            (Self::Compact, 0x18..=0x23 | 0x28..=0x2f | OUTPUTS..) => 0xff,
            _ => 0,
        }
    }

    /// The bits of a byte that can ever be set.
    fn possible(self, at: usize) -> u8 {
        match at {
            PM1_STATUS | 0x01 => PM1_EVENTS.to_le_bytes()[at - PM1_STATUS],
            PM1_CONTROL => SCI_ENABLED | BUS_MASTER_RELOAD,
            _ if self.gpe0_status().contains(&at) => 0xff,
            _ => self.writable(at),
        }
    }
}

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
    pub(crate) fn new(layout: PmLayout, seen_toggles: u64) -> Self {
        let mut bytes = vec![0; layout.length().into()];
        bytes[PM1_CONTROL] = SCI_ENABLED;
        if layout == PmLayout::Compact {
            bytes[OUTPUTS..].copy_from_slice(&OUTPUTS_AT_RESET);
        }
        Self {
            bytes,
            seen_toggles,
        }
    }

    pub(crate) fn check(&self, layout: PmLayout) -> Result<(), RestoreError> {
        if self.bytes.len() != usize::from(layout.length()) {
            let text = format!("{} bytes of PM registers", self.bytes.len());
            return Err(RestoreError::Invalid(text));
        }
        if self.bytes[PM1_CONTROL] & SCI_ENABLED == 0 {
            return Err(RestoreError::Invalid("ACPI mode is off".into()));
        }
        let stray = (0..self.bytes.len()).find(|at| self.bytes[*at] & !layout.possible(*at) != 0);
        if let Some(at) = stray {
            let text = format!("{:#04x} in the PM register at {at:#x}", self.bytes[at]);
            return Err(RestoreError::Invalid(text));
        }
        Ok(())
    }

    pub(crate) fn byte(&self, at: usize) -> u8 {
        self.bytes[at]
    }

    /// Writes a byte: status bits are cleared by ones, other registers store.
    pub(crate) fn write_byte(&mut self, layout: PmLayout, at: usize, value: u8) {
        if matches!(at, PM1_STATUS | 0x01) || layout.gpe0_status().contains(&at) {
            self.bytes[at] &= !value;
        } else {
            let writable = layout.writable(at);
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

    /// Whether an event is there that is enabled.
    pub(crate) fn interrupts(&self, layout: PmLayout) -> bool {
        self.word(PM1_STATUS) & self.word(PM1_ENABLE) != 0
            || self.wide(layout.gpe0_status()) & self.wide(layout.gpe0_enable()) != 0
    }
}
