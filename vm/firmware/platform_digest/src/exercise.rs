//! Decodes, encodes and compares arbitrary bytes, for fuzzing and tests.

use crate::PlatformView;
use crate::differences;
use std::fmt::Write as _;

/// Decodes `bytes`, alone and after a valid header.
///
/// Panics if a decoded view does not encode to the same bytes or differs from itself.
pub fn decode(bytes: &[u8]) {
    // A fuzzer does not find the header by chance.
    let framed = |version: u32| {
        let mut framed = crate::encode::MAGIC.to_vec();
        framed.extend_from_slice(&version.to_le_bytes());
        framed.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        framed.extend_from_slice(bytes);
        framed
    };
    for bytes in [
        bytes,
        &framed(crate::encode::FIRST_VERSION),
        &framed(crate::ENCODING_VERSION),
    ] {
        match PlatformView::decode(bytes) {
            Ok(view) => examine(&view, bytes),
            Err(error) => drop(error.to_string()),
        }
    }
}

fn examine(view: &PlatformView, bytes: &[u8]) {
    match view.encode() {
        Ok(again) => {
            // Unknown fields are skipped.
            assert!(
                again == bytes || again.len() < bytes.len(),
                "the encoding is not canonical"
            );
            assert_eq!(PlatformView::decode(&again).as_ref(), Ok(view));
        }
        Err(error) => panic!("a decoded view does not encode: {error}"),
    }
    assert_eq!(differences(view, view), []);
    let mut other = view.clone();
    other.devices.pop();
    other.mmio.pop();
    other.apic_ids.pop();
    other.ram.pop();
    let mut text = String::new();
    for difference in differences(view, &other) {
        let _ = write!(text, "{difference}");
    }
    assert_eq!(text.is_empty(), view == &other, "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_are_taken_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            decode(&bytes);
        }

        #[test]
        fn mostly_zero_bytes_too(bytes in prop::collection::vec(prop_oneof![9 => Just(0), 1 => any::<u8>()], 96..200)) {
            decode(&bytes);
        }
    }
}
