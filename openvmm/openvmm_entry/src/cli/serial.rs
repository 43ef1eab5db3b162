//! The options that add serial ports: `--com1` to `--com4`, and `--debugcon`.

use super::Options;
use super::config::Errors;
use chipset::DebugPortHandle;
use file_identity::FileUse;
use openvmm_defs::devices::ChipsetDeviceConfig;
use serial_16550::COM_PORTS;
use serial_16550::Serial16550Handle;
use serial_16550::SerialEnd;
use serial_16550::SerialInput;
use serial_16550::TcpEnd;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

/// The ports that every machine has besides its serial ports, and whose they are.
const TAKEN_PORTS: &[(RangeInclusive<u16>, &str)] = &[
    (0x20..=0x21, "the interrupt controller"),
    (0xa0..=0xa1, "the interrupt controller"),
    (0x4d0..=0x4d1, "the interrupt controller"),
    (0x40..=0x43, "the timer"),
    (0x61..=0x61, "the timer"),
    (0x60..=0x60, "the keyboard controller"),
    (0x64..=0x64, "the keyboard controller"),
    (0x70..=0x71, "the real-time clock"),
    (0x505..=0x505, "the panic device"),
    (0x506..=0x506, "the sleep port"),
    (0x510..=0x51b, "the firmware's configuration"),
    (0x600..=0x67f, "power management"),
    (0xcf8..=0xcff, "PCI configuration"),
];

/// A serial port's ports.
const COM_LENGTH: u16 = 8;

impl Options {
    /// The serial ports and the debug console. Adds their files to `files`.
    pub(super) fn chipset_devices(
        &self,
        errors: &mut Errors,
        files: &mut Vec<FileUse>,
    ) -> Vec<ChipsetDeviceConfig> {
        let mut devices = Vec::new();
        let mut ends: Vec<(String, SerialEnd)> = Vec::new();
        let mut taken: Vec<(RangeInclusive<u16>, String)> = TAKEN_PORTS
            .iter()
            .map(|(ports, owner)| (ports.clone(), (*owner).to_owned()))
            .collect();
        let input = match self.serial_tx_only {
            true => Some(SerialInput::Dropped),
            false => None,
        };
        let texts = [&self.com1, &self.com2, &self.com3, &self.com4];
        for (n, (text, (base, irq))) in (1..).zip(texts.into_iter().zip(COM_PORTS)) {
            let option = format!("--com{n}");
            if let Some(end) = errors.take(&option, parse_serial(text), None) {
                taken.push((base..=base + (COM_LENGTH - 1), format!("COM{n}")));
                check_end(errors, &option, &end, &ends);
                files.extend(end_file(&option, &end));
                ends.push((option, end.clone()));
                let handle = Serial16550Handle {
                    base,
                    irq,
                    end,
                    input,
                };
                devices.push(ChipsetDeviceConfig::new(&format!("com{n}"), &handle));
            }
        }
        let option = "--debugcon";
        let debugcon = self.debugcon.as_deref();
        let debugcon =
            debugcon.and_then(|text| errors.take(option, parse_debugcon(text).map(Some), None));
        if let Some((port, Some(end))) = debugcon {
            if let Some((_, owner)) = taken.iter().find(|(ports, _)| ports.contains(&port)) {
                errors.add(format!("{option}: port {port:#x} belongs to {owner}"));
            }
            check_end(errors, option, &end, &ends);
            files.extend(end_file(option, &end));
            let handle = DebugPortHandle { port, end };
            devices.push(ChipsetDeviceConfig::new("debugcon", &handle));
        }
        devices
    }
}

/// The file that a port's output goes to.
pub(super) fn end_file(option: &str, end: &SerialEnd) -> Option<FileUse> {
    match end {
        SerialEnd::File(path) | SerialEnd::Listen(path) => Some(FileUse::write(option, path)),
        SerialEnd::Console | SerialEnd::Stderr | SerialEnd::Pty | SerialEnd::ListenTcp(_) => None,
    }
}

/// Two ports may not write to the same place, and only one can have the console's input.
fn check_end(errors: &mut Errors, option: &str, end: &SerialEnd, others: &[(String, SerialEnd)]) {
    let any_port = |address: &SocketAddr| address.port() == 0;
    let shared = match end {
        // The check of all files finds those that are the same.
        SerialEnd::Pty | SerialEnd::Stderr | SerialEnd::File(_) => None,
        // The host chooses another port for each.
        SerialEnd::ListenTcp(TcpEnd(address)) if any_port(address) => None,
        SerialEnd::Console | SerialEnd::Listen(_) | SerialEnd::ListenTcp(_) => {
            others.iter().find(|(_, other)| other == end)
        }
    };
    if let Some((other, _)) = shared {
        errors.add(format!("{option}: {other} goes to the same place"));
    }
}

/// Reads where a serial port goes; `None` if there is to be no such port.
pub(super) fn parse_serial(text: &str) -> Result<Option<SerialEnd>, String> {
    let path = |value: &str| match value {
        "" => Err(format!("'{text}' needs a path after the '='")),
        _ => Ok(PathBuf::from(value)),
    };
    if text.starts_with("debugger-mode:") {
        return Err(format!(
            "'{text}': not supported yet: a port for kernel debuggers"
        ));
    }
    let first = text.split([',', '=']).next();
    if first == Some("term") {
        return Err(format!(
            "'{text}': not supported yet: a window of its own; use pty"
        ));
    }
    Ok(match (text, text.split_once('=')) {
        ("none", _) => None,
        ("console", _) => Some(SerialEnd::Console),
        ("stderr", _) => Some(SerialEnd::Stderr),
        ("pty", _) => Some(SerialEnd::Pty),
        (_, Some(("file", value))) => Some(SerialEnd::File(path(value)?)),
        (_, Some(("listen", value))) => Some(match value.strip_prefix("tcp:") {
            Some(address) => {
                let address = address.parse().map_err(|_| {
                    format!("'{address}' is not IP:PORT (examples: 127.0.0.1:4000, [::1]:4000)")
                })?;
                SerialEnd::ListenTcp(TcpEnd(address))
            }
            None => SerialEnd::Listen(path(value)?),
        }),
        _ => {
            return Err(format!(
                "'{text}' is not one of console, stderr, file=PATH, listen=PATH, listen=tcp:IP:PORT, pty, none"
            ));
        }
    })
}

/// Reads `PORT:SERIAL` or `PORT,SERIAL`.
fn parse_debugcon(text: &str) -> Result<(u16, Option<SerialEnd>), String> {
    let (port, serial) = text
        .split_once([':', ','])
        .ok_or_else(|| format!("'{text}' is not PORT:SERIAL (example: 0x402:stderr)"))?;
    let number = match port.strip_prefix("0x") {
        Some(hex) => u16::from_str_radix(hex, 16),
        None => port.parse(),
    };
    let number = number.map_err(|_| format!("'{port}' is not an I/O port (0 to 0xffff)"))?;
    Ok((number, parse_serial(serial)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_taken() {
        assert_eq!(parse_serial("console"), Ok(Some(SerialEnd::Console)));
        assert_eq!(parse_serial("none"), Ok(None));
        assert_eq!(
            parse_serial("file=/a=b"),
            Ok(Some(SerialEnd::File("/a=b".into())))
        );
        assert_eq!(
            parse_serial("listen=/s"),
            Ok(Some(SerialEnd::Listen("/s".into())))
        );
        assert_eq!(
            parse_debugcon("0x402:stderr"),
            Ok((0x402, Some(SerialEnd::Stderr)))
        );
        assert_eq!(parse_debugcon("233:pty"), Ok((233, Some(SerialEnd::Pty))));
        assert_eq!(parse_debugcon("0xe9,pty"), Ok((0xe9, Some(SerialEnd::Pty))));
        let tcp = |address: &str| Ok(Some(SerialEnd::ListenTcp(TcpEnd(address.parse().unwrap()))));
        assert_eq!(
            parse_serial("listen=tcp:127.0.0.1:4000"),
            tcp("127.0.0.1:4000")
        );
        assert_eq!(parse_serial("listen=tcp:[::1]:0"), tcp("[::1]:0"));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "File=/x",
            "file=",
            "listen=",
            "consoles",
            "tcp:1",
            "listen=tcp:",
            "listen=tcp:4000",
            "listen=tcp:localhost:4000",
        ] {
            assert!(parse_serial(text).is_err(), "{text}");
        }
        for text in ["term", "term=xterm,name=x", "debugger-mode:pty"] {
            let error = parse_serial(text).unwrap_err();
            assert!(error.contains("not supported yet"), "{error}");
        }
        for text in ["", "0x402", "0x10000:stderr", "x:stderr", "1:what"] {
            assert!(parse_debugcon(text).is_err(), "{text}");
        }
    }
}
