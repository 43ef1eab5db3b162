//! The debug console: a port that firmware writes its log to, byte by byte.

use chipset_device::ChipsetDevice;
use chipset_device::FixedResources;
use chipset_device::IoError;
use serde_json::json;
use serial_16550::SerialPort;
use std::time::Duration;

/// The value that the port reads as, by which firmware detects it.
const PRESENT: u8 = 0xe9;

/// How long a write waits for a stalled reader before its byte is dropped.
const WRITE_TIMEOUT: Duration = Duration::from_millis(20);

/// A debug console port. It has no state.
///
/// Unlike a UART it has no status by which a guest could wait for the reader. When the line is full, one write
/// blocks the VP for up to 20 ms, and then output is dropped until there is room.
pub struct DebugPort {
    port: u16,
    output: SerialPort,
    stalled: bool,
    dropped: u64,
}

impl DebugPort {
    /// The port number that QEMU's firmware builds write to.
    pub const DEFAULT_PORT: u16 = 0x402;

    /// A debug console at `port` that sends to `output`.
    pub fn new(port: u16, output: SerialPort) -> Self {
        Self {
            port,
            output,
            stalled: false,
            dropped: 0,
        }
    }
}

impl ChipsetDevice for DebugPort {
    fn fixed_resources(&self) -> FixedResources {
        FixedResources::ports([self.port..=self.port])
    }

    fn read_port(&mut self, _port: u16, data: &mut [u8]) -> Result<(), IoError> {
        let [value]: &mut [u8; 1] = data.try_into()?;
        *value = PRESENT;
        Ok(())
    }

    fn write_port(&mut self, _port: u16, data: &[u8]) -> Result<(), IoError> {
        let [value]: &[u8; 1] = data.try_into()?;
        let timeout = if self.stalled {
            Duration::ZERO
        } else {
            WRITE_TIMEOUT
        };
        self.stalled = !self.output.wait_output_room(timeout);
        if self.stalled || !self.output.write_output(*value) {
            self.dropped += 1;
        }
        Ok(())
    }

    fn inspect(&self) -> serde_json::Value {
        json!({
            "port": format!("{:#x}", self.port),
            "output_bytes": self.output.stats().output,
            "dropped_bytes": self.dropped,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serial_16550::SerialBackend;
    use std::io;
    use std::io::Write;
    use std::sync::mpsc;

    struct Channel(mpsc::SyncSender<Vec<u8>>);

    impl Write for Channel {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn output_reaches_the_backend_and_a_stalled_reader_does_not_block_the_guest() {
        let (send, receive) = mpsc::sync_channel(0);
        let line = SerialPort::new();
        let mut port = DebugPort::new(DebugPort::DEFAULT_PORT, line.clone());
        let _connection = line
            .connect("debug", SerialBackend::sink(Channel(send)))
            .unwrap();
        let mut data = [0];
        port.read_port(0x402, &mut data).unwrap();
        assert_eq!(data, [0xe9]);
        port.write_port(0x402, b"x").unwrap();
        assert_eq!(receive.recv().unwrap(), b"x");

        while port.dropped < 1_000 {
            port.write_port(0x402, b"y").unwrap();
        }
        assert!(receive.recv().unwrap().iter().all(|byte| *byte == b'y'));
        drop(receive);
    }
}
