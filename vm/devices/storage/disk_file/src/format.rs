//! What a disk file holds, judged by its first and last bytes.

use crate::FileDiskError;
use std::path::Path;
use vhd_footer::FOOTER_LEN;

/// The bytes at either end of a file that are looked at: a sector, and a VHD footer.
pub(crate) const EDGE: usize = 512;
const _: () = assert!(EDGE == FOOTER_LEN);

/// The format of a disk file.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default, minicbor::Encode, minicbor::Decode)]
#[cbor(index_only)]
pub enum Format {
    /// The one that the file's first and last bytes are those of, or raw.
    #[default]
    #[n(0)]
    Auto,
    /// The whole file is the disk.
    #[n(1)]
    Raw,
    /// A fixed VHD.
    #[n(2)]
    Vhd,
    /// A qcow2 image.
    #[n(3)]
    Qcow2,
}

/// What the bytes at the ends of a file are those of.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing that is known.
    Raw,
    /// A VHD of any kind: there is a footer.
    Vhd,
    /// A qcow2 image.
    Qcow2,
    /// An image that is not supported.
    Image(&'static str),
    /// A compressed file or an archive.
    Compressed(&'static str),
}

/// A format, the offset of the bytes that it is known by, and these bytes.
///
/// LUKS is not here: a guest that encrypts its whole disk writes the same header, and opens it itself.
const SIGNATURES: &[(Found, usize, &[u8])] = &[
    (Found::Qcow2, 0, b"QFI\xfb\0\0\0\x02"),
    (Found::Qcow2, 0, b"QFI\xfb\0\0\0\x03"),
    (Found::Image("qcow"), 0, b"QFI\xfb"),
    (Found::Image("QED"), 0, b"QED\0"),
    (Found::Image("VHDX"), 0, b"vhdxfile"),
    (Found::Image("VMDK"), 0, b"KDMV"),
    (Found::Image("VMDK"), 0, b"COWD"),
    (Found::Image("VMDK"), 0, b"# Disk DescriptorFile"),
    (Found::Image("VDI"), 0x40, &[0x7f, 0x10, 0xda, 0xbe]),
    (Found::Image("Parallels"), 0, b"WithoutFreeSpace"),
    (Found::Image("Parallels"), 0, b"WithouFreSpacExt"),
    (Found::Compressed("gzip"), 0, &[0x1f, 0x8b, 8]),
    (Found::Compressed("xz"), 0, b"\xfd7zXZ\0"),
    (Found::Compressed("zstd"), 0, &[0x28, 0xb5, 0x2f, 0xfd]),
    (Found::Compressed("lz4"), 0, &[4, 0x22, 0x4d, 0x18]),
    // After the digit for the block size.
    (Found::Compressed("bzip2"), 4, b"1AY&SY"),
    (Found::Compressed("zip"), 0, b"PK\x03\x04"),
    (Found::Compressed("7-Zip"), 0, b"7z\xbc\xaf\x27\x1c"),
];

/// What the file that begins with `head` and ends with `tail` holds. Files that are shorter have zeroes there.
///
/// What it begins with comes first: a guest can write what it likes to the end of an image that has metadata at its
/// start, but not to the start of such an image.
pub(crate) fn find(head: &[u8; EDGE], tail: &[u8; EDGE]) -> Found {
    let known = SIGNATURES
        .iter()
        .find(|(_, at, bytes)| head[*at..].starts_with(bytes));
    match known {
        Some((found, ..)) => *found,
        None if vhd_footer::is_footer(tail) => Found::Vhd,
        // A dynamic VHD has a copy of its footer there.
        None if vhd_footer::is_footer(head) => Found::Image("VHD (without a footer at its end)"),
        None => Found::Raw,
    }
}

impl Found {
    /// The format to open `path` in, if it was found there and not given.
    pub(crate) fn format(self, path: &Path) -> Result<Format, FileDiskError> {
        let path = || path.to_owned();
        match self {
            Self::Raw => Ok(Format::Raw),
            Self::Vhd => Ok(Format::Vhd),
            Self::Qcow2 => Ok(Format::Qcow2),
            Self::Image(format) => Err(FileDiskError::Unsupported {
                path: path(),
                format,
            }),
            Self::Compressed(format) => Err(FileDiskError::Compressed {
                path: path(),
                format,
            }),
        }
    }

    /// The name in messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Vhd => "VHD",
            Self::Qcow2 => "qcow2",
            Self::Image(name) | Self::Compressed(name) => name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(at: usize, bytes: &[u8]) -> [u8; EDGE] {
        let mut edge = [0; EDGE];
        edge[at..at + bytes.len()].copy_from_slice(bytes);
        edge
    }

    #[test]
    fn each_format_is_found() {
        let zero = [0; EDGE];
        let footer = edge(0, b"conectix");
        assert_eq!(find(&zero, &zero), Found::Raw);
        assert_eq!(find(&zero, &footer), Found::Vhd);
        assert_eq!(
            find(&footer, &zero).name(),
            "VHD (without a footer at its end)"
        );
        // A dynamic VHD.
        assert_eq!(find(&footer, &footer), Found::Vhd);
        for (at, bytes, found) in [
            (0, &b"QFI\xfb\0\0\0\x03"[..], Found::Qcow2),
            (0, b"QFI\xfb\0\0\0\x02", Found::Qcow2),
            (0, b"QFI\xfb\0\0\0\x01", Found::Image("qcow")),
            (0, b"QED\0\0\0\x01\0", Found::Image("QED")),
            (0, b"vhdxfileM\0i\0", Found::Image("VHDX")),
            (0, b"KDMV\x01\0\0\0", Found::Image("VMDK")),
            (0, b"COWD\x01\0\0\0", Found::Image("VMDK")),
            (0, b"# Disk DescriptorFile\nversion=1", Found::Image("VMDK")),
            (0x40, &0xbeda_107f_u32.to_le_bytes(), Found::Image("VDI")),
            (0, b"WithoutFreeSpace\x02", Found::Image("Parallels")),
            (0, b"WithouFreSpacExt\x02", Found::Image("Parallels")),
            (0, b"\x1f\x8b\x08\0\0", Found::Compressed("gzip")),
            (0, b"\xfd\x37\x7a\x58\x5a\0\0\x04", Found::Compressed("xz")),
            (0, &0xfd2f_b528_u32.to_le_bytes(), Found::Compressed("zstd")),
            (0, &0x184d_2204_u32.to_le_bytes(), Found::Compressed("lz4")),
            (0, b"BZh91AY&SY\xaa", Found::Compressed("bzip2")),
            (0, b"PK\x03\x04\x14", Found::Compressed("zip")),
            (0, b"7z\xbc\xaf\x27\x1c\0\x04", Found::Compressed("7-Zip")),
            // A guest's own business.
            (0, b"LUKS\xba\xbe\0\x02", Found::Raw),
            (510, b"\x55\xaa", Found::Raw),
        ] {
            let head = edge(at, bytes);
            assert_eq!(find(&head, &zero), found, "{found:?}");
            // A guest of an image may have written a footer to the end of the file.
            if found != Found::Raw {
                assert_eq!(find(&head, &footer), found, "{found:?}");
            }
        }
    }
}
