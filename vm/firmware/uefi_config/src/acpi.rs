//! ACPI tables in the blob.

use crate::ConfigError;

/// The size of a table's header.
const HEADER: usize = 36;

/// Tables that the firmware makes itself, and that would not fit its own if they were given.
const OWN: [&[u8; 4]; 2] = [b"XSDT", b"RSDT"];

/// Checks what the firmware relies on: the table has its length, and its sum is 0.
pub(crate) fn check(table: &[u8]) -> Result<(), ConfigError> {
    let (Some(signature), Some(len), true) = (
        table.first_chunk::<4>(),
        table.get(4..).and_then(|rest| rest.first_chunk()),
        table.len() >= HEADER,
    ) else {
        return Err(ConfigError::ShortTable { len: table.len() });
    };
    let name = || signature.escape_ascii().to_string();
    if table.starts_with(b"RSD PTR ") || OWN.contains(&signature) {
        return Err(ConfigError::OwnTable { name: name() });
    }
    let stated = u32::from_le_bytes(*len);
    if stated as usize != table.len() {
        return Err(ConfigError::TableLength {
            name: name(),
            stated,
            len: table.len(),
        });
    }
    let sum = table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    if sum != 0 {
        return Err(ConfigError::TableChecksum { name: name(), sum });
    }
    Ok(())
}
