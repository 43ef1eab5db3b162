//! MAC addresses.

use sha2::Digest as _;
use sha2::Sha256;
use std::fmt;
use std::str::FromStr;

/// A unicast Ethernet address.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Hash)]
pub struct MacAddress([u8; 6]);

/// Why a text or bytes are not a [`MacAddress`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseMacError {
    /// Not six pairs of hexadecimal digits separated by colons.
    #[error("{0:?} is not a MAC address such as 02:00:00:12:34:56")]
    Syntax(String),
    /// A multicast address, or all zeroes.
    #[error("{0} is not a unicast MAC address")]
    NotUnicast(String),
}

impl MacAddress {
    /// The address with these bytes.
    pub fn new(bytes: [u8; 6]) -> Result<Self, ParseMacError> {
        let mac = Self(bytes);
        if bytes[0] & 1 != 0 || bytes == [0; 6] {
            return Err(ParseMacError::NotUnicast(mac.to_string()));
        }
        Ok(mac)
    }

    /// Derives a locally administered address from `identity`, such as a VM's UUID and a device's name. It is always
    /// the same for the same identity; two identities collide as rarely as 46 random bits.
    pub fn derive(identity: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"virtio-net MAC address\0");
        hash.update(identity.as_bytes());
        let digest = hash.finalize();
        let mut bytes = [0; 6];
        bytes.copy_from_slice(&digest[..6]);
        bytes[0] = bytes[0] & !1 | 2;
        Self(bytes)
    }

    /// An address for the host's side of the link to this station: always the same, and different from this one.
    pub fn other_end(self) -> Self {
        let mut bytes = self.0;
        bytes[0] = if bytes[0] == 0xfe { 0xfa } else { 0xfe };
        Self(bytes)
    }

    /// The bytes, in the order they are sent.
    pub fn bytes(&self) -> [u8; 6] {
        self.0
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddress {
    type Err = ParseMacError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let syntax = || ParseMacError::Syntax(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().ok_or_else(syntax)?;
            let digits = part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
            if !digits {
                return Err(syntax());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| syntax())?;
        }
        if parts.next().is_some() {
            return Err(syntax());
        }
        Self::new(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_addresses_are_stable_local_and_distinct() {
        let first = MacAddress::derive("vm/net0");
        // Guests identify their interfaces by this: it must never change.
        assert_eq!(first.to_string(), "6a:31:64:e8:71:a1");
        assert_ne!(first, MacAddress::derive("vm/net1"));
        for index in 0..100 {
            let [byte, ..] = MacAddress::derive(&index.to_string()).bytes();
            assert_eq!(byte & 3, 2);
        }
    }

    #[test]
    fn the_other_end_has_a_different_address() {
        for own in ["02:00:00:12:34:56", "fe:00:00:12:34:56"] {
            let own: MacAddress = own.parse().unwrap();
            let other = own.other_end();
            assert_ne!(own, other);
            assert_eq!(MacAddress::new(other.bytes()), Ok(other));
            assert_eq!(other.bytes()[0] & 2, 2);
        }
    }

    #[test]
    fn texts_are_parsed() {
        let mac: MacAddress = "02:aB:00:12:34:56".parse().unwrap();
        assert_eq!(mac.to_string(), "02:ab:00:12:34:56");
        for bad in [
            "",
            "02:00:00:00:00",
            "02:00:00:00:00:00:00",
            "2:0:0:0:0:0",
            "02-00-00-00-00-00",
            "+2:00:00:00:00:00",
            "01:00:00:00:00:00",
            "ff:ff:ff:ff:ff:ff",
            "00:00:00:00:00:00",
        ] {
            assert!(bad.parse::<MacAddress>().is_err(), "{bad}");
        }
    }
}
