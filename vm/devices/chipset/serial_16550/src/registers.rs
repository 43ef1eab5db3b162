use crate::port::Input;
use chipset_device::RestoreError;
use minicbor::Decode;
use minicbor::Encode;
use std::collections::VecDeque;

/// Interrupt enable register.
pub(crate) mod ier {
    pub(crate) const RX: u8 = 1 << 0;
    pub(crate) const THRE: u8 = 1 << 1;
    pub(crate) const LINE_STATUS: u8 = 1 << 2;
    pub(crate) const MODEM_STATUS: u8 = 1 << 3;
    pub(crate) const ALL: u8 = 0x0f;
}

/// Interrupt identification register.
pub(crate) mod iir {
    pub(crate) const MODEM_STATUS: u8 = 0x00;
    pub(crate) const NONE: u8 = 0x01;
    pub(crate) const THRE: u8 = 0x02;
    pub(crate) const RX: u8 = 0x04;
    pub(crate) const LINE_STATUS: u8 = 0x06;
    pub(crate) const RX_TIMEOUT: u8 = 0x0c;
    pub(crate) const FIFOS: u8 = 0xc0;
}

/// FIFO control register.
pub(crate) mod fcr {
    pub(crate) const ENABLE: u8 = 1 << 0;
    pub(crate) const CLEAR_RX: u8 = 1 << 1;
    pub(crate) const TRIGGER: u8 = 3 << 6;
}

/// Line control register.
pub(crate) mod lcr {
    pub(crate) const BREAK: u8 = 1 << 6;
    pub(crate) const DLAB: u8 = 1 << 7;
}

/// Modem control register.
pub(crate) mod mcr {
    pub(crate) const DTR: u8 = 1 << 0;
    pub(crate) const RTS: u8 = 1 << 1;
    pub(crate) const OUT1: u8 = 1 << 2;
    pub(crate) const OUT2: u8 = 1 << 3;
    pub(crate) const LOOPBACK: u8 = 1 << 4;
    pub(crate) const ALL: u8 = 0x1f;
}

/// Line status register.
pub(crate) mod lsr {
    pub(crate) const DATA: u8 = 1 << 0;
    pub(crate) const OVERRUN: u8 = 1 << 1;
    pub(crate) const BREAK: u8 = 1 << 4;
    pub(crate) const THRE: u8 = 1 << 5;
    pub(crate) const TEMT: u8 = 1 << 6;
    pub(crate) const FIFO_ERROR: u8 = 1 << 7;
    /// The bits that stay set until the register is read.
    pub(crate) const ERRORS: u8 = OVERRUN | BREAK;
}

/// Modem status register.
pub(crate) mod msr {
    pub(crate) const DELTA_CTS: u8 = 1 << 0;
    pub(crate) const DELTA_DSR: u8 = 1 << 1;
    pub(crate) const TRAILING_RI: u8 = 1 << 2;
    pub(crate) const DELTA_DCD: u8 = 1 << 3;
    pub(crate) const CTS: u8 = 1 << 4;
    pub(crate) const DSR: u8 = 1 << 5;
    pub(crate) const RI: u8 = 1 << 6;
    pub(crate) const DCD: u8 = 1 << 7;
    pub(crate) const DELTAS: u8 = 0x0f;
    /// The lines that the other end drives: it is always ready.
    pub(crate) const READY: u8 = CTS | DSR | DCD;
}

/// The size of the receiver FIFO.
pub(crate) const FIFO_SIZE: usize = 16;

/// The UART's registers, which are also its saved state.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Registers {
    #[n(1)]
    pub(crate) ier: u8,
    /// The enable and trigger bits.
    #[n(2)]
    pub(crate) fcr: u8,
    #[n(3)]
    pub(crate) lcr: u8,
    #[n(4)]
    pub(crate) mcr: u8,
    /// The errors that the guest has not read yet.
    #[n(5)]
    pub(crate) line_errors: u8,
    #[n(6)]
    pub(crate) msr: u8,
    #[n(7)]
    pub(crate) scratch: u8,
    #[n(8)]
    pub(crate) divisor: u16,
    /// The "transmitter holding register empty" interrupt is pending.
    #[n(9)]
    pub(crate) thre_pending: bool,
    /// The transmitter waits for room on the line.
    #[n(10)]
    pub(crate) transmitter_full: bool,
    #[n(11)]
    pub(crate) received: VecDeque<Input>,
}

impl Registers {
    pub(crate) fn new() -> Self {
        Self {
            ier: 0,
            fcr: 0,
            lcr: 0,
            mcr: 0,
            line_errors: 0,
            msr: msr::READY,
            scratch: 0,
            // 9600 baud, which firmware usually sets; it has no effect.
            divisor: 12,
            thre_pending: false,
            transmitter_full: false,
            received: VecDeque::new(),
        }
    }

    /// Refuses values that a UART cannot have.
    pub(crate) fn check(&self) -> Result<(), RestoreError> {
        let reserved = [
            ("IER", self.ier & !ier::ALL),
            ("FCR", self.fcr & !(fcr::ENABLE | fcr::TRIGGER)),
            ("MCR", self.mcr & !mcr::ALL),
            ("LSR", self.line_errors & !lsr::ERRORS),
        ];
        if let Some((name, bits)) = reserved.into_iter().find(|(_, bits)| *bits != 0) {
            let text = format!("reserved bits {bits:#04x} of {name} are set");
            return Err(RestoreError::Invalid(text));
        }
        if self.received.len() > FIFO_SIZE {
            let text = format!(
                "{} bytes in the receiver FIFO of {FIFO_SIZE} bytes",
                self.received.len()
            );
            return Err(RestoreError::Invalid(text));
        }
        Ok(())
    }

    pub(crate) fn has_fifos(&self) -> bool {
        self.fcr & fcr::ENABLE != 0
    }

    /// The capacity of the receiver.
    pub(crate) fn capacity(&self) -> usize {
        if self.has_fifos() { FIFO_SIZE } else { 1 }
    }

    /// The number of entries that raises the receive interrupt.
    pub(crate) fn trigger(&self) -> usize {
        if self.has_fifos() {
            [1, 4, 8, 14][usize::from(self.fcr >> 6)]
        } else {
            1
        }
    }

    pub(crate) fn in_loopback(&self) -> bool {
        self.mcr & mcr::LOOPBACK != 0
    }

    /// The interrupt of the highest priority that is pending and enabled.
    pub(crate) fn interrupt(&self) -> u8 {
        let enabled = |bit| self.ier & bit != 0;
        if enabled(ier::LINE_STATUS) && self.line_errors != 0 {
            iir::LINE_STATUS
        } else if enabled(ier::RX) && self.received.len() >= self.trigger() {
            iir::RX
        } else if enabled(ier::RX) && !self.received.is_empty() {
            // Hardware waits for four character times without input. Here the FIFO is below its
            // trigger level only if the line has no further input.
            iir::RX_TIMEOUT
        } else if enabled(ier::THRE) && self.thre_pending {
            iir::THRE
        } else if enabled(ier::MODEM_STATUS) && self.msr & msr::DELTAS != 0 {
            iir::MODEM_STATUS
        } else {
            iir::NONE
        }
    }

    /// Sets the errors of the first entry of the receiver, when that changes.
    pub(crate) fn show_errors(&mut self) {
        if self.received.front() == Some(&Input::Break) {
            self.line_errors |= lsr::BREAK;
        }
    }

    /// The line status, without the bits of the transmitter.
    pub(crate) fn receiver_status(&self) -> u8 {
        let mut status = self.line_errors;
        if !self.received.is_empty() {
            status |= lsr::DATA;
        }
        if self.has_fifos() && self.received.contains(&Input::Break) {
            status |= lsr::FIFO_ERROR;
        }
        status
    }

    /// Updates the modem status after the modem control register changed.
    pub(crate) fn update_modem_lines(&mut self) {
        let lines = if self.in_loopback() {
            let wires = [
                (mcr::RTS, msr::CTS),
                (mcr::DTR, msr::DSR),
                (mcr::OUT1, msr::RI),
                (mcr::OUT2, msr::DCD),
            ];
            wires
                .into_iter()
                .filter(|(from, _)| self.mcr & from != 0)
                .fold(0, |lines, (_, to)| lines | to)
        } else {
            msr::READY
        };
        let changed = (self.msr ^ lines) & !msr::DELTAS;
        let mut deltas = self.msr & msr::DELTAS;
        for (line, delta) in [
            (msr::CTS, msr::DELTA_CTS),
            (msr::DSR, msr::DELTA_DSR),
            (msr::DCD, msr::DELTA_DCD),
        ] {
            if changed & line != 0 {
                deltas |= delta;
            }
        }
        // Only the trailing edge of RI sets its bit.
        if changed & msr::RI != 0 && lines & msr::RI == 0 {
            deltas |= msr::TRAILING_RI;
        }
        self.msr = lines | deltas;
    }
}
