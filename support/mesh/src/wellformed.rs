//! Checks the structure of an encoded message before anything is decoded from it.

use crate::payload::DecodeError;
use crate::payload::MAX_DEPTH;

/// The length of the one CBOR item (RFC 8949) that `bytes` starts with.
///
/// The item and everything in it is of definite length, lies within `bytes`, and nests at most
/// [`MAX_DEPTH`] deep; so a decoder that follows may recurse, and may trust a claimed number of
/// elements to be at most the number of bytes that are left.
pub(crate) fn item_len(bytes: &[u8]) -> Result<usize, DecodeError> {
    // How many items each open array, map or tag still wants.
    let mut open = [0u64; MAX_DEPTH];
    let mut depth = 0;
    let mut position = 0;
    loop {
        let (head, after) = Head::read(bytes, position)?;
        position = after;
        let children = match head.major {
            // Unsigned, negative.
            0 | 1 => 0,
            // Bytes, text.
            2 | 3 => {
                position = usize::try_from(head.argument)
                    .ok()
                    .and_then(|len| position.checked_add(len))
                    .filter(|end| *end <= bytes.len())
                    .ok_or(DecodeError::Truncated)?;
                0
            }
            // Array, map, tag.
            4 => head.argument,
            5 => head.argument.saturating_mul(2),
            6 => 1,
            // Simple value, float.
            _ => 0,
        };
        if children != 0 {
            // An item is at least one byte.
            if children > (bytes.len() - position) as u64 {
                return Err(DecodeError::Truncated);
            }
            let Some(level) = open.get_mut(depth) else {
                return Err(DecodeError::TooDeep { limit: MAX_DEPTH });
            };
            *level = children;
            depth += 1;
            continue;
        }
        // The item is complete, and with it perhaps those around it.
        loop {
            if depth == 0 {
                return Ok(position);
            }
            open[depth - 1] -= 1;
            if open[depth - 1] != 0 {
                break;
            }
            depth -= 1;
        }
    }
}

struct Head {
    major: u8,
    argument: u64,
}

impl Head {
    /// Reads the head at `position`, and gives the position after it.
    fn read(bytes: &[u8], position: usize) -> Result<(Self, usize), DecodeError> {
        let first = *bytes.get(position).ok_or(DecodeError::Truncated)?;
        let (major, info) = (first >> 5, first & 0x1f);
        let mut position = position + 1;
        let argument = match info {
            0..=23 => u64::from(info),
            24..=27 => {
                let end = position + (1 << (info - 24));
                let argument = bytes.get(position..end).ok_or(DecodeError::Truncated)?;
                position = end;
                argument
                    .iter()
                    .fold(0, |value, byte| value << 8 | u64::from(*byte))
            }
            31 => {
                return Err(DecodeError::Malformed(
                    "an item of indefinite length".to_owned(),
                ));
            }
            _ => {
                return Err(DecodeError::Malformed(format!(
                    "reserved item head {first:#04x}"
                )));
            }
        };
        Ok((Self { major, argument }, position))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths() {
        for (bytes, len) in [
            (&[0x00][..], 1),
            (&[0x00, 0x00], 1),
            (&[0x18, 0xff], 2),
            (&[0x1b, 0, 0, 0, 0, 0, 0, 0, 1], 9),
            (&[0x3a, 0, 0, 0, 1], 5),
            (&[0x43, 1, 2, 3, 4], 4),
            (&[0x63, b'a', b'b', b'c'], 4),
            (&[0x80], 1),
            (&[0xa0], 1),
            (&[0x82, 0x01, 0x82, 0x02, 0x03, 0xff], 5),
            (&[0xa2, 0x01, 0x80, 0x02, 0xa1, 0x03, 0x04, 0xff], 7),
            (&[0xc1, 0x01], 2),
            (&[0xf6], 1),
            (&[0xfb, 0, 0, 0, 0, 0, 0, 0, 0], 9),
        ] {
            assert_eq!(item_len(bytes), Ok(len), "{bytes:02x?}");
        }
    }

    #[test]
    fn claimed_lengths_are_held_against_what_is_there() {
        for bytes in [
            &[][..],
            &[0x18],
            &[0x19, 0x00],
            &[0x42, 0x00],
            &[0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00],
            &[0x7b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00],
            &[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00],
            &[0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00],
            &[0x82, 0x01],
            &[0xa1, 0x01],
            &[0xc1],
        ] {
            assert_eq!(item_len(bytes), Err(DecodeError::Truncated), "{bytes:02x?}");
        }
    }

    #[test]
    fn indefinite_lengths_and_reserved_heads_are_malformed() {
        for bytes in [
            [0x5f, 0xff],
            [0x9f, 0xff],
            [0xbf, 0xff],
            [0xff, 0],
            [0x1c, 0],
        ] {
            assert!(
                matches!(item_len(&bytes), Err(DecodeError::Malformed(_))),
                "{bytes:02x?}"
            );
        }
    }

    #[test]
    fn nesting_ends() {
        let nested = |depth| [vec![0x81; depth], vec![0x00]].concat();
        assert_eq!(item_len(&nested(MAX_DEPTH)), Ok(MAX_DEPTH + 1));
        for head in [0x81, 0xc1] {
            let deep = [vec![head; 1 << 20], vec![0x00]].concat();
            assert_eq!(
                item_len(&deep),
                Err(DecodeError::TooDeep { limit: MAX_DEPTH })
            );
        }
        assert!(item_len(&nested(MAX_DEPTH + 1)).is_err());
    }

    proptest! {
        #[test]
        fn agrees_with_the_decoder_on_where_an_item_ends(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            if let Ok(len) = item_len(&bytes) {
                prop_assert!(len <= bytes.len());
                let mut decoder = minicbor::Decoder::new(&bytes);
                // The decoder knows of values (text, floats) that are wrong inside.
                if decoder.skip().is_ok() {
                    prop_assert_eq!(decoder.position(), len);
                }
            }
        }
    }
}
