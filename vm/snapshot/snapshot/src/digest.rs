//! Digests, which find damage.

use data_encoding::HEXLOWER;
use std::fmt;
use xxhash_rust::xxh3::xxh3_128;

/// The XXH3-128 digest of some bytes.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default)]
pub struct Digest(pub [u8; 16]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(xxh3_128(bytes).to_be_bytes())
    }

    /// Reads what `Display` writes.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = HEXLOWER.decode(text.as_bytes()).ok()?;
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_text() {
        let digest = Digest::of(b"abc");
        // The published test vector of XXH3-128 with seed 0.
        assert_eq!(digest.to_string(), "06b05ab6733a618578af5f94892f3950");
        assert_eq!(Digest::parse(&digest.to_string()), Some(digest));
        assert_eq!(Digest::parse("06b0"), None);
        assert_eq!(Digest::parse(&"G".repeat(32)), None);
    }
}
