//! An i8042 keyboard controller without a keyboard. Guests detect it, and can reset the machine through it.

use chipset_device::ChipsetDevice;
use chipset_device::FixedResources;
use chipset_device::IoError;
use chipset_device::LineInterrupt;
use chipset_device::PowerEvent;
use chipset_device::PowerSink;
use chipset_device::RestoreError;
use chipset_device::SaveError;
use chipset_device::SavedState;
use minicbor::Decode;
use minicbor::Encode;
use serde_json::json;

const DATA_PORT: u16 = 0x60;
const COMMAND_PORT: u16 = 0x64;

const STATUS_OUTPUT_FULL: u8 = 1 << 0;
const STATUS_SYSTEM: u8 = 1 << 2;
const STATUS_COMMAND: u8 = 1 << 3;
/// The keyboard is not locked; Linux warns if it is.
const STATUS_UNLOCKED: u8 = 1 << 4;
/// The keyboard did not respond in time.
const STATUS_TIMEOUT: u8 = 1 << 6;
const STATUS_PARITY_ERROR: u8 = 1 << 7;

const MODE_KEYBOARD_INTERRUPT: u8 = 1 << 0;
const MODE_SYSTEM: u8 = 1 << 2;
const MODE_KEYBOARD_DISABLED: u8 = 1 << 4;
const MODE_AUX_DISABLED: u8 = 1 << 5;
const MODE_AT_POWER_ON: u8 = MODE_KEYBOARD_DISABLED | MODE_AUX_DISABLED;

/// Bits of the output port: the reset line (active low) and the A20 line.
const OUTPUT_NOT_RESET: u8 = 1 << 0;
const OUTPUT_A20: u8 = 1 << 1;

const SELF_TEST_PASSED: u8 = 0x55;
const INTERFACE_TEST_PASSED: u8 = 0x00;
/// The clock line of the auxiliary port is stuck: there is no device.
const AUX_CLOCK_STUCK: u8 = 0x02;
/// The response to a byte that a missing keyboard does not accept.
const RESEND: u8 = 0xfe;

/// An i8042 (IBM PC/AT keyboard controller) at ports 0x60 and 0x64, without any device.
///
/// Every command with a response gets one at once, even if it means "no device", so that a driver's probe does not
/// run into timeouts. Until the self test has run, the status shows both a timeout and a parity error: UEFI's driver
/// takes that for a machine without a keyboard, and skips waiting for one, which takes seconds. A byte for the
/// keyboard gets the response of a controller whose keyboard times out, with the interrupt if the guest enabled it.
/// The reset bit of the output port resets the machine. The A20 bit is stored and has no effect.
pub struct I8042 {
    line: LineInterrupt,
    power: PowerSink,
    state: State,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct State {
    /// The output buffer, and the timeout bit of the status register.
    #[n(1)]
    output: Option<u8>,
    #[n(2)]
    timed_out: bool,
    /// The last write was to the command port.
    #[n(3)]
    last_was_command: bool,
    /// The command whose parameter is expected next.
    #[n(4)]
    pending: Option<u8>,
    /// The controller's RAM; its first byte is the mode ("command byte").
    #[cbor(n(5), with = "minicbor::bytes")]
    ram: Vec<u8>,
    #[n(6)]
    output_port: u8,
}

const RAM_SIZE: usize = 32;

impl State {
    fn new() -> Self {
        let mut ram = vec![0; RAM_SIZE];
        ram[0] = MODE_AT_POWER_ON;
        Self {
            output: None,
            timed_out: false,
            last_was_command: false,
            pending: None,
            ram,
            output_port: OUTPUT_NOT_RESET | OUTPUT_A20,
        }
    }

    fn status(&self) -> u8 {
        let tested = self.ram[0] & MODE_SYSTEM != 0;
        let bits = [
            (self.output.is_some(), STATUS_OUTPUT_FULL),
            (tested, STATUS_SYSTEM),
            (self.last_was_command, STATUS_COMMAND),
            (self.timed_out || !tested, STATUS_TIMEOUT),
            (!tested, STATUS_PARITY_ERROR),
        ];
        let set = bits.into_iter().filter(|(condition, _)| *condition);
        set.fold(STATUS_UNLOCKED, |status, (_, bit)| status | bit)
    }

    fn respond(&mut self, byte: u8) {
        self.output = Some(byte);
        self.timed_out = false;
    }
}

impl I8042 {
    /// A controller with `line` (IRQ 1 in a PC) as its keyboard interrupt. Resets go to `power`.
    pub fn new(line: LineInterrupt, power: PowerSink) -> Self {
        Self {
            line,
            power,
            state: State::new(),
        }
    }

    /// The interrupt, if enabled, is high while the output buffer is full.
    fn update_line(&self) {
        let enabled = self.state.ram[0] & MODE_KEYBOARD_INTERRUPT != 0;
        self.line.set(enabled && self.state.output.is_some());
    }

    fn write_command(&mut self, command: u8) {
        self.state.last_was_command = true;
        self.state.pending = None;
        match command {
            0x20..=0x3f => {
                let byte = self.state.ram[usize::from(command & 0x1f)];
                self.state.respond(byte);
            }
            // Commands with a parameter: write RAM, output port, output buffers, auxiliary device.
            0x60..=0x7f | 0xd1..=0xd4 => self.state.pending = Some(command),
            0xa7 => self.state.ram[0] |= MODE_AUX_DISABLED,
            0xa8 => self.state.ram[0] &= !MODE_AUX_DISABLED,
            0xa9 => self.state.respond(AUX_CLOCK_STUCK),
            0xaa => {
                self.state.ram[0] |= MODE_SYSTEM;
                self.state.respond(SELF_TEST_PASSED);
            }
            0xab => self.state.respond(INTERFACE_TEST_PASSED),
            0xad => self.state.ram[0] |= MODE_KEYBOARD_DISABLED,
            0xae => self.state.ram[0] &= !MODE_KEYBOARD_DISABLED,
            // Read the input port: all lines are high.
            0xc0 => self.state.respond(0xff),
            0xd0 => self.state.respond(self.state.output_port),
            0xdd => self.state.output_port &= !OUTPUT_A20,
            0xdf => self.state.output_port |= OUTPUT_A20,
            // Pulse low the output lines whose bits are 0.
            0xf0..=0xff if command & OUTPUT_NOT_RESET == 0 => {
                self.power.request(PowerEvent::Reset);
            }
            _ => {}
        }
    }

    fn write_data(&mut self, byte: u8) {
        self.state.last_was_command = false;
        match self.state.pending.take() {
            Some(command @ 0x60..=0x7f) => {
                self.state.ram[usize::from(command & 0x1f)] = byte;
            }
            Some(0xd1) => {
                self.state.output_port = byte | OUTPUT_NOT_RESET;
                if byte & OUTPUT_NOT_RESET == 0 {
                    self.power.request(PowerEvent::Reset);
                }
            }
            // Write the output buffer, as if the byte came from the keyboard or the auxiliary device. The status bit
            // for the auxiliary device is not set, by which drivers see that there is no such port.
            Some(0xd2 | 0xd3) => self.state.respond(byte),
            // A byte for the keyboard or the auxiliary device.
            _ => {
                self.state.respond(RESEND);
                self.state.timed_out = true;
            }
        }
    }
}

impl ChipsetDevice for I8042 {
    fn fixed_resources(&self) -> FixedResources {
        FixedResources::ports([DATA_PORT..=DATA_PORT, COMMAND_PORT..=COMMAND_PORT])
    }

    fn read_port(&mut self, port: u16, data: &mut [u8]) -> Result<(), IoError> {
        let [value]: &mut [u8; 1] = data.try_into()?;
        *value = if port == DATA_PORT {
            self.state.timed_out = false;
            self.state.output.take().unwrap_or(0)
        } else {
            self.state.status()
        };
        self.update_line();
        Ok(())
    }

    fn write_port(&mut self, port: u16, data: &[u8]) -> Result<(), IoError> {
        let [value]: &[u8; 1] = data.try_into()?;
        if port == DATA_PORT {
            self.write_data(*value);
        } else {
            self.write_command(*value);
        }
        self.update_line();
        Ok(())
    }

    fn reset(&mut self) {
        self.state = State::new();
        self.update_line();
    }

    fn save(&mut self) -> Result<SavedState, SaveError> {
        Ok(SavedState::encode(&self.state))
    }

    fn restore(&mut self, state: &SavedState) -> Result<(), RestoreError> {
        let state: State = state.decode()?;
        if state.ram.len() != RAM_SIZE {
            let text = format!(
                "{} bytes of i8042 RAM instead of {RAM_SIZE}",
                state.ram.len()
            );
            return Err(RestoreError::Invalid(text));
        }
        self.state = state;
        self.update_line();
        // The interrupt controller may have been restored with another level.
        self.line.redrive();
        Ok(())
    }

    fn inspect(&self) -> serde_json::Value {
        json!({
            "status": self.state.status(),
            "mode": self.state.ram[0],
            "output": self.state.output,
            "output_port": self.state.output_port,
            "interrupt": self.line.is_high(),
        })
    }
}

#[cfg(test)]
#[path = "i8042_test.rs"]
mod tests;
