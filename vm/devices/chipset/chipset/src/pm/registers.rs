use chipset_device::RestoreError;
use minicbor::Decode;
use minicbor::Encode;
use std::ops::Range;

/// How the block is laid out. The first 0x0c bytes are the same everywhere.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(index_only)]
pub enum PmLayout {
    /// As on the ICH9 (data sheet 316972, section 13.8.3), with 64 general-purpose events.
    #[default]
    #[n(0)]
    Ich9,
    /// As in generation-2 VMs of Hyper-V, whose firmware expects it: that of the PIIX4 (data sheet 290562, section 7.2),
    /// with 16 general-purpose events, and a reset register.
    #[n(1)]
    HyperV,
}

pub(crate) const PM1_STATUS: usize = 0x00;
pub(crate) const PM1_ENABLE: usize = 0x02;
pub(crate) const PM1_CONTROL: usize = 0x04;
/// The byte of the control register with the sleep bits.
pub(crate) const PM1_CONTROL_HIGH: usize = 0x05;
pub(crate) const TIMER: usize = 0x08;
pub(crate) const TIMER_END: usize = 0x0b;
/// Processor control, which only stores.
const PROCESSOR_CONTROL: Range<usize> = 0x10..0x14;
const PROCESSOR_CONTROL_BITS: u32 = 0x0002_3e1e;

/// Registers of Hyper-V's layout that only store: global status, enable and control, device status and control, and
/// general outputs.
const STORAGE: [Range<usize>; 6] = [
    0x18..0x1a,
    0x1c..0x20,
    0x20..0x22,
    0x28..0x2c,
    0x2c..0x30,
    OUTPUTS,
];
const OUTPUTS: Range<usize> = 0x34..0x37;
const OUTPUTS_AT_RESET: [u8; 3] = [0xff, 0xbf, 0xff];
/// The enable bits that Hyper-V's layout stores.
const HYPERV_EVENTS: u16 = 0x0f01;

impl PmLayout {
    /// The number of I/O ports.
    pub const fn port_count(self) -> u16 {
        match self {
            Self::Ich9 => 0x80,
            Self::HyperV => 0x37,
        }
    }

    /// The general-purpose event of the power button; `None` if the button has a PM1 event.
    pub const fn power_button_event(self) -> Option<u8> {
        match self {
            Self::Ich9 => None,
            // The firmware's tables say that there is no fixed button.
            Self::HyperV => Some(8),
        }
    }

    /// The bytes of the status of the general-purpose events.
    pub(crate) fn gpe0_status(self) -> Range<usize> {
        match self {
            Self::Ich9 => 0x20..0x28,
            Self::HyperV => 0x0c..0x0e,
        }
    }

    /// The bytes of the enable bits of the general-purpose events.
    pub(crate) fn gpe0_enable(self) -> Range<usize> {
        match self {
            Self::Ich9 => 0x28..0x30,
            Self::HyperV => 0x0e..0x10,
        }
    }

    /// The register that resets the machine.
    pub(crate) fn reset(self) -> Option<usize> {
        match self {
            Self::Ich9 => None,
            Self::HyperV => Some(0x33),
        }
    }

    /// The bits of a byte that store what is written.
    fn writable(self, at: usize) -> u8 {
        match at {
            PM1_ENABLE | 0x03 => PM1_ENABLES.to_le_bytes()[at - PM1_ENABLE],
            PM1_CONTROL => BUS_MASTER_RELOAD,
            PM1_CONTROL_HIGH => SLEEP_TYPE,
            _ if PROCESSOR_CONTROL.contains(&at) => {
                PROCESSOR_CONTROL_BITS.to_le_bytes()[at - PROCESSOR_CONTROL.start]
            }
            _ if self.gpe0_enable().contains(&at) => match self {
                Self::Ich9 => 0xff,
                Self::HyperV => HYPERV_EVENTS.to_le_bytes()[at - self.gpe0_enable().start],
            },
            _ if self == Self::HyperV && STORAGE.iter().any(|range| range.contains(&at)) => 0xff,
            _ => 0,
        }
    }

    /// The bits of a byte that can be set in a valid state.
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
    pub(crate) fn new(layout: PmLayout, seen_toggles: u64) -> Self {
        let mut bytes = vec![0; layout.port_count().into()];
        bytes[PM1_CONTROL] = SCI_ENABLED;
        if layout == PmLayout::HyperV {
            bytes[OUTPUTS].copy_from_slice(&OUTPUTS_AT_RESET);
        }
        Self {
            bytes,
            seen_toggles,
        }
    }

    /// Refuses values that the registers cannot have.
    pub(crate) fn check(&self, layout: PmLayout) -> Result<(), RestoreError> {
        if self.bytes.len() != usize::from(layout.port_count()) {
            let text = format!(
                "{} bytes of PM registers instead of {}",
                self.bytes.len(),
                layout.port_count()
            );
            return Err(RestoreError::Invalid(text));
        }
        if self.bytes[PM1_CONTROL] & SCI_ENABLED == 0 {
            return Err(RestoreError::Invalid("ACPI mode is disabled".into()));
        }
        let stray = (0..self.bytes.len()).find(|at| self.bytes[*at] & !layout.possible(*at) != 0);
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

    /// Whether the SCI is asserted: an event has occurred and is enabled.
    pub(crate) fn interrupts(&self, layout: PmLayout) -> bool {
        self.word(PM1_STATUS) & self.word(PM1_ENABLE) != 0
            || self.wide(layout.gpe0_status()) & self.wide(layout.gpe0_enable()) != 0
    }
}
