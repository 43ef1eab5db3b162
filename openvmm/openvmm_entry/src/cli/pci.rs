//! The options that add PCI devices.

use openvmm_defs::config::PciSlot;

/// Takes `slot=DEVICE[.FUNCTION]` (hexadecimal, as `lspci` prints it) out of the comma-separated parts of an option.
pub(crate) fn take_slot(text: &str) -> Result<(Option<PciSlot>, String), String> {
    let mut slot = None;
    let mut rest = Vec::new();
    for part in text.split(',') {
        match part.strip_prefix("slot=") {
            None => rest.push(part),
            Some(_) if slot.is_some() => return Err("slot is given twice".into()),
            Some(value) => slot = Some(parse_slot(value)?),
        }
    }
    Ok((slot, rest.join(",")))
}

fn parse_slot(text: &str) -> Result<PciSlot, String> {
    let (device, function) = text.split_once('.').unwrap_or((text, "0"));
    match (
        u8::from_str_radix(device, 16),
        u8::from_str_radix(function, 16),
    ) {
        (Ok(device @ 1..=30), Ok(function @ 0..=7)) => Ok(PciSlot { device, function }),
        _ => Err(format!(
            "'{text}' is not a place on the PCI bus (example: slot=4 or slot=1e.2; devices 1 to 1e are free)"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_taken_out() {
        let (slot, rest) = take_slot("file:/a,slot=1e.2,ro").unwrap();
        let expected = PciSlot {
            device: 0x1e,
            function: 2,
        };
        assert_eq!(slot, Some(expected));
        assert_eq!(rest, "file:/a,ro");
        assert_eq!(take_slot("file:/a").unwrap().0, None);
        assert_eq!(take_slot("slot=4").unwrap().1, "");
    }

    #[test]
    fn wrong_slots_are_named() {
        for text in ["slot=0", "slot=1f", "slot=1.8", "slot=", "slot=1,slot=2"] {
            assert!(take_slot(text).is_err(), "{text}");
        }
    }
}
