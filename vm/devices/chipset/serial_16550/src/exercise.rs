//! Drives the UART with a script of arbitrary operations, for fuzzing and tests.

use crate::Serial16550;
use crate::SerialPort;
use chipset_device::DeviceWaker;
use chipset_device::LineInterrupt;
use chipset_device::exercise::exercise;

/// A UART, while the reader and the writer at the host's end connect, disconnect and stall.
pub fn serial_16550(script: &[u8]) {
    let port = SerialPort::new();
    let line = LineInterrupt::detached();
    let mut uart = Serial16550::new(0x3f8, line, port.clone(), DeviceWaker::default());
    port.set_reader(script.len().is_multiple_of(2));
    exercise(&mut uart, script, &mut |byte| match byte % 8 {
        0..=2 => {
            port.write_input(&[byte; 5]);
        }
        3 => {
            port.send_break();
        }
        4 => {
            // Fills the output buffer.
            while port.wait_output_room(std::time::Duration::ZERO) && port.stats().overwritten == 0
            {
                port.write_output(byte);
            }
        }
        5 | 6 => port.consume_output(usize::from(byte) << 8, false),
        _ => port.set_reader(byte & 8 == 0),
    });
}

#[cfg(test)]
mod tests {
    use chipset_device::exercise::pseudo_random_script;

    #[test]
    fn survives_random_scripts() {
        for seed in 0..200 {
            let len = 1_500 + (seed as usize) % 2;
            super::serial_16550(&pseudo_random_script(seed, len));
        }
    }
}
