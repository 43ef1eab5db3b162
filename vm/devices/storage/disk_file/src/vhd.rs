//! The footer of a fixed VHD ("Virtual Hard Disk Image Format Specification", version 1.0): the last 512 bytes of a file
//! whose other bytes are the disk. All numbers are big-endian.

/// The size of the footer in bytes.
pub(crate) const FOOTER: u64 = 512;

const COOKIE: &[u8] = b"conectix";
/// The major version is the upper half.
const VERSION_1: u32 = 1;
const FIXED: u32 = 2;
const DYNAMIC: u32 = 3;
const DIFFERENCING: u32 = 4;

/// Why a VHD cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VhdError {
    /// The file was to be a VHD.
    #[error("it has no VHD footer")]
    NoFooter,
    /// A bit is wrong somewhere in the footer.
    #[error("its VHD footer is corrupt: the checksum is {found:#x}, of its bytes {computed:#x}")]
    Checksum {
        /// What the footer says.
        found: u32,
        /// What its bytes add up to.
        computed: u32,
    },
    /// Not version 1.x.
    #[error("it is a VHD of version {major}.{minor}; only version 1 is known")]
    Version {
        /// Major version.
        major: u16,
        /// Minor version.
        minor: u16,
    },
    /// Another type of VHD.
    #[error(
        "it is a {kind} VHD; only fixed ones can be used (`qemu-img convert -O vpc -o subformat=fixed` makes one)"
    )]
    NotFixed {
        /// The type.
        kind: &'static str,
    },
    /// The footer does not fit the file.
    #[error("its VHD footer says {size} bytes, and the file has {available} beside the footer")]
    Size {
        /// The disk's size in bytes, as the footer says.
        size: u64,
        /// The bytes before the footer.
        available: u64,
    },
}

/// What a fixed VHD's footer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FixedVhd {
    /// The disk's size in bytes.
    pub(crate) size: u64,
    /// The disk's unique id.
    pub(crate) id: [u8; 16],
}

fn u32_at(footer: &[u8; FOOTER as usize], at: usize) -> u32 {
    u32::from_be_bytes(std::array::from_fn(|i| footer[at + i]))
}

fn checksum(footer: &[u8; FOOTER as usize]) -> u32 {
    let (before, after) = (&footer[..64], &footer[68..]);
    !before
        .iter()
        .chain(after)
        .map(|&b| u32::from(b))
        .sum::<u32>()
}

/// Whether the last bytes of a file are the footer of some VHD.
pub(crate) fn is_footer(footer: &[u8; FOOTER as usize]) -> bool {
    footer.starts_with(COOKIE)
}

/// Reads the footer of a file with `available` bytes before it.
pub(crate) fn parse(footer: &[u8; FOOTER as usize], available: u64) -> Result<FixedVhd, VhdError> {
    if !is_footer(footer) {
        return Err(VhdError::NoFooter);
    }
    let (found, computed) = (u32_at(footer, 64), checksum(footer));
    if found != computed {
        return Err(VhdError::Checksum { found, computed });
    }
    let version = u32_at(footer, 12);
    if version >> 16 != VERSION_1 {
        let (major, minor) = ((version >> 16) as u16, version as u16);
        return Err(VhdError::Version { major, minor });
    }
    match u32_at(footer, 60) {
        FIXED => {}
        DYNAMIC => return Err(VhdError::NotFixed { kind: "dynamic" }),
        DIFFERENCING => {
            return Err(VhdError::NotFixed {
                kind: "differencing",
            });
        }
        _ => return Err(VhdError::NotFixed { kind: "strange" }),
    }
    let size = u64::from(u32_at(footer, 48)) << 32 | u64::from(u32_at(footer, 52));
    if size == 0 || size > available || !size.is_multiple_of(512) {
        return Err(VhdError::Size { size, available });
    }
    let id = std::array::from_fn(|i| footer[68 + i]);
    Ok(FixedVhd { size, id })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A footer as a writer of fixed VHDs makes it.
    pub(crate) fn footer(kind: u32, size: u64) -> [u8; 512] {
        let mut footer = [0; 512];
        footer[..8].copy_from_slice(COOKIE);
        footer[8..12].copy_from_slice(&2u32.to_be_bytes());
        footer[12..16].copy_from_slice(&0x1_0000_u32.to_be_bytes());
        footer[16..24].fill(0xff);
        footer[40..48].copy_from_slice(&size.to_be_bytes());
        footer[48..56].copy_from_slice(&size.to_be_bytes());
        footer[60..64].copy_from_slice(&kind.to_be_bytes());
        footer[68..84].copy_from_slice(b"0123456789abcdef");
        let sum = checksum(&footer);
        footer[64..68].copy_from_slice(&sum.to_be_bytes());
        footer
    }

    #[test]
    fn a_fixed_footer_is_read() {
        let vhd = parse(&footer(FIXED, 1 << 33), 1 << 33).unwrap();
        assert_eq!(vhd.size, 1 << 33);
        assert_eq!(&vhd.id, b"0123456789abcdef");
    }

    #[test]
    fn other_types_are_refused_by_name() {
        for (kind, name) in [(DYNAMIC, "dynamic"), (DIFFERENCING, "differencing")] {
            let error = parse(&footer(kind, 512), 512).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let good = footer(FIXED, 4096);
        for bit in 0..512 * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(parse(&bad, 4096).is_err(), "bit {bit}");
        }
        assert!(matches!(parse(&good, 4095), Err(VhdError::Size { .. })));
        assert!(matches!(parse(&[0; 512], 4096), Err(VhdError::NoFooter)));
    }
}
