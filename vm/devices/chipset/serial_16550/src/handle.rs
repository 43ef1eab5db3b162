use crate::Serial16550;
use crate::SerialConnections;
use crate::SerialEnd;
use crate::SerialInput;
use crate::uart;
use chipset_device::BuildResult;
use chipset_device::DeviceHandle;
use chipset_device::MachineContext;
use chipset_device::shared;
use minicbor::Decode;
use minicbor::Encode;
use std::sync::Arc;
use uuid::Uuid;

/// The first I/O port and the interrupt of COM1 to COM4 in a PC.
pub const COM_PORTS: [(u16, u8); 4] = [(0x3f8, 4), (0x2f8, 3), (0x3e8, 4), (0x2e8, 3)];

/// A serial port. It asks its machine for an interrupt line and `Arc<SerialConnections>`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Serial16550Handle {
    /// The first of its eight I/O ports.
    #[n(1)]
    pub base: u16,
    /// Its interrupt.
    #[n(2)]
    pub irq: u8,
    /// What its line is connected to.
    #[n(3)]
    pub end: SerialEnd,
    /// What happens to the input; the guest gets it where `None`.
    #[n(4)]
    pub input: Option<SerialInput>,
}

/// There is no room for the serial port.
#[derive(Debug, thiserror::Error)]
#[error("a serial port at port {base:#x} ends above the last I/O port")]
struct SerialBaseError {
    base: u16,
}

impl DeviceHandle for Serial16550Handle {
    const ID: &'static str = "serial-16550";

    fn identity(&self, _name: &str, _vm: Uuid) -> Option<String> {
        Some("16550".to_owned())
    }

    fn build(&self, machine: &mut MachineContext<'_>) -> BuildResult {
        let base = self.base;
        if base.checked_add(uart::LAST_PORT).is_none() {
            return Err(SerialBaseError { base }.into());
        }
        let connections = machine.get::<Arc<SerialConnections>>()?;
        let port = connections.connect(machine.name, &self.end)?;
        if let Some(SerialInput::Dropped) = self.input {
            port.drop_input();
        }
        let line = machine.line(self.irq.into())?;
        let device = Serial16550::new(base, line, port, machine.waker.clone());
        Ok(shared(device))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TcpEnd;
    use mesh::payload;

    #[test]
    fn handles_survive_encoding_and_have_their_identity() {
        for end in [
            SerialEnd::Console,
            SerialEnd::Stderr,
            SerialEnd::File("/f".into()),
            SerialEnd::Listen("/s".into()),
            SerialEnd::Pty,
            SerialEnd::ListenTcp(TcpEnd("[::1]:4000".parse().unwrap())),
        ] {
            let (base, irq) = COM_PORTS[1];
            let input = Some(SerialInput::Dropped);
            let handle = Serial16550Handle {
                base,
                irq,
                end,
                input,
            };
            let identity = handle.identity("com2", Uuid::nil());
            assert_eq!(identity.as_deref(), Some("16550"));
            assert_eq!(payload::decode(&payload::encode(&handle)), Ok(handle));
        }
    }
}
