use crate::SerialPort;
use crate::port::Input;
use crate::registers::Registers;
use crate::registers::fcr;
use crate::registers::ier;
use crate::registers::iir;
use crate::registers::lcr;
use crate::registers::lsr;
use crate::registers::mcr;
use crate::registers::msr;
use chipset_device::ChipsetDevice;
use chipset_device::DeviceWaker;
use chipset_device::FixedResources;
use chipset_device::IoError;
use chipset_device::LineInterrupt;
use chipset_device::RestoreError;
use chipset_device::SaveError;
use chipset_device::SavedState;
use serde_json::json;

/// The offset of the last of its I/O ports.
pub(crate) const LAST_PORT: u16 = 7;

/// A 16550A UART (National Semiconductor PC16550D data sheet) at eight I/O ports.
///
/// The baud rate and the line format are stored and have no effect. The transmitter is ready while the
/// line has room. The modem lines always say that the other end is connected and ready. The interrupt does
/// not depend on OUT2.
///
/// Output and input in the buffers of the line is not part of the saved state.
pub struct Serial16550 {
    base: u16,
    line: LineInterrupt,
    port: SerialPort,
    regs: Registers,
}

impl Serial16550 {
    /// A UART at ports `base` to `base + 7`, with `line` as its interrupt and `port` as its serial line.
    ///
    /// Panics if the ports would wrap around.
    pub fn new(base: u16, line: LineInterrupt, port: SerialPort, waker: DeviceWaker) -> Self {
        assert!(
            base <= u16::MAX - LAST_PORT,
            "no room for a UART at {base:#x}"
        );
        port.set_waker(waker);
        Self {
            base,
            line,
            port,
            regs: Registers::new(),
        }
    }

    fn update_line(&self) {
        self.line.set(self.regs.interrupt() != iir::NONE);
    }

    /// Moves input from the line to the receiver.
    fn fill_receiver(&mut self) {
        if self.regs.in_loopback() {
            return;
        }
        while self.regs.received.len() < self.regs.capacity() {
            let Some(received) = self.port.receive() else {
                return;
            };
            self.push_received(received);
        }
    }

    fn push_received(&mut self, received: Input) {
        self.regs.received.push_back(received);
        if self.regs.received.len() == 1 {
            self.regs.show_errors();
        }
    }

    /// Sends from the transmitter to the receiver, which may be full.
    fn loop_back(&mut self, received: Input) {
        if self.regs.received.len() < self.regs.capacity() {
            self.push_received(received);
            return;
        }
        self.regs.line_errors |= lsr::OVERRUN;
        if !self.regs.has_fifos() {
            self.regs.received.clear();
            self.push_received(received);
        }
    }

    fn read_data(&mut self) -> u8 {
        let received = self.regs.received.pop_front();
        self.regs.show_errors();
        self.fill_receiver();
        match received {
            Some(Input::Byte(byte)) => byte,
            Some(Input::Break) | None => 0,
        }
    }

    fn write_data(&mut self, byte: u8) {
        self.regs.thre_pending = false;
        if self.regs.in_loopback() {
            self.loop_back(Input::Byte(byte));
            self.regs.thre_pending = true;
        } else {
            let sent = self.port.send(byte);
            self.regs.thre_pending = sent.room;
            self.regs.transmitter_full = !sent.room;
        }
    }

    /// Updates the transmitter's state. It raises an interrupt when it becomes ready.
    fn check_transmitter(&mut self) {
        let full = !self.regs.in_loopback() && !self.port.output_room();
        if self.regs.transmitter_full && !full {
            self.regs.thre_pending = true;
        }
        self.regs.transmitter_full = full;
    }

    fn read_line_status(&mut self) -> u8 {
        self.check_transmitter();
        let mut status = self.regs.receiver_status();
        if !self.regs.transmitter_full {
            status |= lsr::THRE | lsr::TEMT;
        }
        self.regs.line_errors = 0;
        status
    }

    fn read_interrupt(&mut self) -> u8 {
        self.check_transmitter();
        let interrupt = self.regs.interrupt();
        if interrupt == iir::THRE {
            self.regs.thre_pending = false;
        }
        let fifos = if self.regs.has_fifos() { iir::FIFOS } else { 0 };
        interrupt | fifos
    }

    fn write_interrupt_enable(&mut self, value: u8) {
        let value = value & ier::ALL;
        self.check_transmitter();
        if value & !self.regs.ier & ier::THRE != 0 && !self.regs.transmitter_full {
            self.regs.thre_pending = true;
        }
        self.regs.ier = value;
    }

    fn write_fifo_control(&mut self, value: u8) {
        let toggled = (value ^ self.regs.fcr) & fcr::ENABLE != 0;
        if toggled || value & fcr::ENABLE != 0 && value & fcr::CLEAR_RX != 0 {
            self.regs.received.clear();
            self.regs.line_errors &= !lsr::BREAK;
        }
        self.regs.fcr = if value & fcr::ENABLE != 0 {
            value & (fcr::ENABLE | fcr::TRIGGER)
        } else {
            0
        };
        self.fill_receiver();
    }

    fn write_line_control(&mut self, value: u8) {
        let break_starts = value & !self.regs.lcr & lcr::BREAK != 0;
        self.regs.lcr = value;
        if break_starts && self.regs.in_loopback() {
            self.loop_back(Input::Break);
        }
    }

    fn write_modem_control(&mut self, value: u8) {
        self.regs.mcr = value & mcr::ALL;
        self.regs.update_modem_lines();
        self.check_transmitter();
        self.fill_receiver();
    }

    fn read_register(&mut self, register: u16) -> u8 {
        let dlab = self.regs.lcr & lcr::DLAB != 0;
        let [low, high] = self.regs.divisor.to_le_bytes();
        match register {
            0 if dlab => low,
            0 => self.read_data(),
            1 if dlab => high,
            1 => self.regs.ier,
            2 => self.read_interrupt(),
            3 => self.regs.lcr,
            4 => self.regs.mcr,
            5 => self.read_line_status(),
            6 => {
                let status = self.regs.msr;
                self.regs.msr &= !msr::DELTAS;
                status
            }
            _ => self.regs.scratch,
        }
    }

    fn write_register(&mut self, register: u16, value: u8) {
        let dlab = self.regs.lcr & lcr::DLAB != 0;
        let [low, high] = self.regs.divisor.to_le_bytes();
        match register {
            0 if dlab => self.regs.divisor = u16::from_le_bytes([value, high]),
            0 => self.write_data(value),
            1 if dlab => self.regs.divisor = u16::from_le_bytes([low, value]),
            1 => self.write_interrupt_enable(value),
            2 => self.write_fifo_control(value),
            3 => self.write_line_control(value),
            4 => self.write_modem_control(value),
            // Writes to the status registers are for factory tests only.
            5 | 6 => {}
            _ => self.regs.scratch = value,
        }
    }
}

impl ChipsetDevice for Serial16550 {
    fn fixed_resources(&self) -> FixedResources {
        FixedResources::ports([self.base..=self.base + LAST_PORT])
    }

    fn read_port(&mut self, port: u16, data: &mut [u8]) -> Result<(), IoError> {
        let [value]: &mut [u8; 1] = data.try_into()?;
        *value = self.read_register(port.wrapping_sub(self.base) & 7);
        self.update_line();
        Ok(())
    }

    fn write_port(&mut self, port: u16, data: &[u8]) -> Result<(), IoError> {
        let [value]: &[u8; 1] = data.try_into()?;
        self.write_register(port.wrapping_sub(self.base) & 7, *value);
        self.update_line();
        Ok(())
    }

    fn poll(&mut self) {
        self.check_transmitter();
        self.fill_receiver();
        self.update_line();
    }

    fn reset(&mut self) {
        self.regs = Registers::new();
        self.poll();
    }

    fn save(&mut self) -> Result<SavedState, SaveError> {
        Ok(SavedState::encode(&self.regs))
    }

    fn restore(&mut self, state: &SavedState) -> Result<(), RestoreError> {
        let regs: Registers = state.decode()?;
        regs.check()?;
        self.regs = regs;
        self.update_line();
        // The interrupt controller may have been restored with another level.
        self.line.redrive();
        Ok(())
    }

    fn inspect(&self) -> serde_json::Value {
        let stats = self.port.stats();
        json!({
            "base": format!("{:#x}", self.base),
            "ier": self.regs.ier,
            "iir": self.regs.interrupt(),
            "fcr": self.regs.fcr,
            "lcr": self.regs.lcr,
            "mcr": self.regs.mcr,
            "lsr": self.regs.receiver_status(),
            "msr": self.regs.msr,
            "divisor": self.regs.divisor,
            "transmitter_full": self.regs.transmitter_full,
            "received": self.regs.received.len(),
            "interrupt": self.line.is_high(),
            "output_bytes": stats.output,
            "output_overwritten": stats.overwritten,
            "output_refused": stats.refused,
            "output_failed": stats.failed,
            "input_bytes": stats.input,
        })
    }
}

#[cfg(test)]
#[path = "uart_test.rs"]
mod tests;
