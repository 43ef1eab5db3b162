//! The value of `--com1` to `--com4` and `--debugcon`.

use openvmm_defs::config::SerialConfig;
use std::path::PathBuf;

/// Reads where a serial port goes.
pub(crate) fn parse_serial(text: &str) -> Result<SerialConfig, String> {
    let path = |value: &str| match value {
        "" => Err(format!("'{text}' needs a path after the '='")),
        _ => Ok(PathBuf::from(value)),
    };
    match (text, text.split_once('=')) {
        ("console", _) => Ok(SerialConfig::Console),
        ("stderr", _) => Ok(SerialConfig::Stderr),
        ("pty", _) => Ok(SerialConfig::Pty),
        ("none", _) => Ok(SerialConfig::None),
        (_, Some(("file", value))) => Ok(SerialConfig::File(path(value)?)),
        (_, Some(("listen", value))) => Ok(SerialConfig::Listen(path(value)?)),
        _ => Err(format!(
            "'{text}' is not one of console, stderr, file=PATH, listen=PATH, pty, none"
        )),
    }
}

/// Reads `PORT:SERIAL`.
pub(crate) fn parse_debugcon(text: &str) -> Result<(u16, SerialConfig), String> {
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
        assert_eq!(parse_serial("console"), Ok(SerialConfig::Console));
        assert_eq!(parse_serial("none"), Ok(SerialConfig::None));
        assert_eq!(
            parse_serial("file=/a=b"),
            Ok(SerialConfig::File("/a=b".into()))
        );
        assert_eq!(
            parse_serial("listen=/s"),
            Ok(SerialConfig::Listen("/s".into()))
        );
        assert_eq!(
            parse_debugcon("0x402:stderr"),
            Ok((0x402, SerialConfig::Stderr))
        );
        assert_eq!(parse_debugcon("233:pty"), Ok((233, SerialConfig::Pty)));
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
