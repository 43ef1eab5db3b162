//! UCS-2 strings.

use std::fmt;

/// The name of a variable, as it is stored: little-endian UCS-2 with a terminating NUL.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Vec<u8>);

impl Name {
    /// The name with this text; none if the text contains a NUL.
    pub fn new(text: &str) -> Option<Self> {
        if text.contains('\0') {
            return None;
        }
        let mut bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        bytes.extend([0, 0]);
        Some(Self(bytes))
    }

    /// The name at the start of `bytes`, up to and including the first NUL; none if the length of `bytes`
    /// is odd or there is no NUL.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if !bytes.len().is_multiple_of(2) {
            return None;
        }
        let end = bytes.chunks_exact(2).position(|unit| unit == [0, 0])?;
        Some(Self(bytes[..2 * end + 2].to_vec()))
    }

    /// The stored bytes, including the NUL.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn units(&self) -> impl Iterator<Item = u16> + '_ {
        self.0[..self.0.len() - 2]
            .chunks_exact(2)
            .map(|unit| u16::from_le_bytes([unit[0], unit[1]]))
    }

    /// Whether the name is `text`.
    pub fn is(&self, text: &str) -> bool {
        self.units().eq(text.encode_utf16())
    }
}

/// The text, with a replacement character for unpaired surrogates.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&decode(self.units()))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_string(), f)
    }
}

/// The text of UCS-2 code units.
pub(crate) fn decode(units: impl IntoIterator<Item = u16>) -> String {
    char::decode_utf16(units)
        .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect()
}

/// The NUL-terminated UCS-2 string at the start of `bytes`, and the bytes after it.
pub(crate) fn take_string(bytes: &[u8]) -> Option<(String, &[u8])> {
    let end = bytes.chunks_exact(2).position(|unit| unit == [0, 0])?;
    let units = bytes[..2 * end]
        .chunks_exact(2)
        .map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
    Some((decode(units), &bytes[2 * end + 2..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_end_at_the_first_nul() {
        let name = Name::from_bytes(b"a\0b\0\0\0c\0").unwrap();
        assert_eq!(name.as_bytes(), b"a\0b\0\0\0");
        assert!(name.is("ab") && !name.is("a") && !name.is("abc"));
        assert_eq!(Name::new("ab"), Some(name));
        assert_eq!(Name::from_bytes(b"a\0b\0"), None);
        assert_eq!(Name::from_bytes(b"a\0\0"), None);
        assert_eq!(Name::from_bytes(b""), None);
        assert_eq!(Name::new("a\0b"), None);
        // Two zero bytes in different code units are not a NUL.
        assert_eq!(
            Name::from_bytes(b"\x01\0\0\x01\0\0")
                .unwrap()
                .as_bytes()
                .len(),
            6
        );
    }
}
