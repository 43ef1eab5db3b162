//! Checks the structure of an encoded message before anything is decoded from it.

use crate::decode_error::DecodeError;
use crate::decode_error::MAX_DEPTH;
use minicbor::Decoder;
use minicbor::data::Type;

/// The length of the one CBOR item (RFC 8949) that `bytes` starts with.
///
/// The item and everything in it has a definite length, lies within `bytes`, and nests at most
/// [`MAX_DEPTH`] deep; so a decoder that follows may recurse, and a claimed number of elements is at most
/// the number of bytes that are left.
pub(crate) fn item_len(bytes: &[u8]) -> Result<usize, DecodeError> {
    let mut decoder = Decoder::new(bytes);
    // Items that are missing from each open array, map or tag.
    let mut open = [0u64; MAX_DEPTH];
    let mut depth = 0;
    loop {
        let children = match decoder.datatype()? {
            Type::Array => decoder.array()?.unwrap_or(0),
            Type::Map => decoder.map()?.unwrap_or(0).saturating_mul(2),
            Type::Tag => {
                decoder.tag()?;
                1
            }
            kind @ (Type::ArrayIndef
            | Type::MapIndef
            | Type::BytesIndef
            | Type::StringIndef
            | Type::Break) => {
                return Err(DecodeError::Malformed(format!(
                    "an item of indefinite length ({kind})"
                )));
            }
            _scalar => {
                decoder.skip()?;
                0
            }
        };
        let position = decoder.position();
        if children != 0 {
            // An item is at least one byte.
            if children > (bytes.len() - position) as u64 {
                return Err(DecodeError::Truncated);
            }
            let level = open.get_mut(depth).ok_or(DecodeError::TooDeep)?;
            *level = children;
            depth += 1;
            continue;
        }
        // The item is complete. It may be the last one of those around it.
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
            assert_eq!(item_len(&deep), Err(DecodeError::TooDeep));
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
                let mut decoder = Decoder::new(&bytes);
                // The decoder knows of values (text, floats) that are wrong inside.
                if decoder.skip().is_ok() {
                    prop_assert_eq!(decoder.position(), len);
                }
            }
        }
    }
}
