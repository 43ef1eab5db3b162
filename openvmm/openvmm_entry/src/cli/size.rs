//! Sizes in bytes: `4096`, `512M`, `1GB`, `2GiB`. Every unit is a power of 1024.

/// Parses a size.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let invalid = || format!("'{text}' is not a size (examples: 512M, 1G, 2GiB, 1073741824)");
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| invalid())?;
    let shift = match unit.to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        _ => return Err(invalid()),
    };
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| format!("'{text}' does not fit in 64 bits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_binary() {
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("512M"), Ok(512 << 20));
        assert_eq!(parse_size("1gb"), Ok(1 << 30));
        assert_eq!(parse_size("2GiB"), Ok(2 << 30));
        assert_eq!(parse_size("1T"), Ok(1 << 40));
    }

    #[test]
    fn invalid_sizes_are_rejected() {
        for text in [
            "",
            "G",
            "-1",
            "1.5G",
            "1X",
            "1 G",
            "0x10",
            "99999999999999999999",
            "18014398509481985K",
        ] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
