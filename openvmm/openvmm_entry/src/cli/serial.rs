//! The options that add serial ports: `--com1` to `--com4`, and `--debugcon`.

use super::Options;
use super::config::Errors;
use chipset::DebugPortHandle;
use openvmm_defs::devices::ChipsetDeviceConfig;
use serial_16550::COM_PORTS;
use serial_16550::Serial16550Handle;
use serial_16550::SerialEnd;
use std::path::PathBuf;

impl Options {
    /// The serial ports and the debug console.
    pub(super) fn chipset_devices(&self, errors: &mut Errors) -> Vec<ChipsetDeviceConfig> {
        let mut devices = Vec::new();
        let mut ends: Vec<(String, SerialEnd)> = Vec::new();
        let texts = [&self.com1, &self.com2, &self.com3, &self.com4];
        for (n, (text, (base, irq))) in (1..).zip(texts.into_iter().zip(COM_PORTS)) {
            let option = format!("--com{n}");
            if let Some(end) = errors.take(&option, parse_serial(text), None) {
                check_end(errors, &option, &end, &ends);
                ends.push((option, end.clone()));
                let handle = Serial16550Handle { base, irq, end };
                devices.push(ChipsetDeviceConfig::new(&format!("com{n}"), &handle));
            }
        }
        let option = "--debugcon";
        let debugcon = self.debugcon.as_deref();
        let debugcon =
            debugcon.and_then(|text| errors.take(option, parse_debugcon(text).map(Some), None));
        if let Some((port, Some(end))) = debugcon {
            check_end(errors, option, &end, &ends);
            let handle = DebugPortHandle { port, end };
            devices.push(ChipsetDeviceConfig::new("debugcon", &handle));
        }
        devices
    }
}

/// Two ports may not write to the same place, and only one can have the console's input.
fn check_end(errors: &mut Errors, option: &str, end: &SerialEnd, others: &[(String, SerialEnd)]) {
    let shared = match end {
        SerialEnd::Pty | SerialEnd::Stderr => None,
        SerialEnd::Console | SerialEnd::File(_) | SerialEnd::Listen(_) => {
            others.iter().find(|(_, other)| other == end)
        }
    };
    if let Some((other, _)) = shared {
        errors.add(format!("{option}: {other} goes to the same place"));
    }
}

/// Reads where a serial port goes; `None` if there is to be no such port.
fn parse_serial(text: &str) -> Result<Option<SerialEnd>, String> {
    let path = |value: &str| match value {
        "" => Err(format!("'{text}' needs a path after the '='")),
        _ => Ok(PathBuf::from(value)),
    };
    Ok(match (text, text.split_once('=')) {
        ("none", _) => None,
        ("console", _) => Some(SerialEnd::Console),
        ("stderr", _) => Some(SerialEnd::Stderr),
        ("pty", _) => Some(SerialEnd::Pty),
        (_, Some(("file", value))) => Some(SerialEnd::File(path(value)?)),
        (_, Some(("listen", value))) => Some(SerialEnd::Listen(path(value)?)),
        _ => {
            return Err(format!(
                "'{text}' is not one of console, stderr, file=PATH, listen=PATH, pty, none"
            ));
        }
    })
}

/// Reads `PORT:SERIAL`.
fn parse_debugcon(text: &str) -> Result<(u16, Option<SerialEnd>), String> {
    let (port, serial) = text
        .split_once(':')
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
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "File=/x", "file=", "listen=", "consoles", "tcp:1"] {
            assert!(parse_serial(text).is_err(), "{text}");
        }
        for text in ["", "0x402", "0x10000:stderr", "x:stderr", "1:what"] {
            assert!(parse_debugcon(text).is_err(), "{text}");
        }
    }
}
