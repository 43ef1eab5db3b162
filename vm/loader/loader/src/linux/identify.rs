//! The kind of a kernel file, told from its start.

use super::KernelError;
use crate::ImageFile;

/// How much of a file's start is examined, in bytes.
pub(super) const HEAD_LEN: usize = 1024;

/// Kinds of kernel file.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(super) enum KernelKind {
    BzImage,
    Elf,
}

/// A magic number, its offset, and what it marks.
type Magic = (usize, &'static [u8], &'static str);

const OTHER_ARCHITECTURES: &[Magic] = &[
    (56, b"ARM\x64", "an aarch64 Image"),
    (56, b"RSC\x05", "a RISC-V Image"),
];

const OTHER_FILES: &[Magic] = &[
    (0, b"\x1f\x8b", "a gzip file"),
    (0, b"\xfd7zXZ\0", "an xz file"),
    (0, b"\x28\xb5\x2f\xfd", "a zstd file"),
    (0, b"BZh", "a bzip2 file"),
    (0, b"\x04\x22\x4d\x18", "an lz4 file"),
    (0, b"\x02\x21\x4c\x18", "an lz4 file"),
    (0, b"070701", "a cpio archive (an initrd?)"),
    (0, b"070702", "a cpio archive (an initrd?)"),
    (257, b"ustar", "a tar archive"),
    (0, b"QFI\xfb", "a qcow2 disk image"),
    (0, b"IGVM", "an IGVM file"),
    (40, b"_FVH", "a UEFI firmware volume"),
    (0, b"#!", "a script"),
    (0, b"MZ", "a PE image"),
    (
        0x1fe,
        b"\x55\xaa",
        "a boot sector without a Linux setup header",
    ),
];

/// Reads the start of `file` and returns it with the kind of kernel; the error says what other file it is.
pub(super) fn identify(file: &ImageFile) -> Result<(KernelKind, Vec<u8>), KernelError> {
    if file.is_empty() {
        return Err(KernelError::Empty);
    }
    let len = usize::try_from(file.len()).map_or(HEAD_LEN, |len| len.min(HEAD_LEN));
    let mut head = vec![0; len];
    file.read_at(0, &mut head)?;
    let kind = kind(&head)?;
    Ok((kind, head))
}

fn kind(head: &[u8]) -> Result<KernelKind, KernelError> {
    let has = |offset: usize, magic: &[u8]| {
        head.get(offset..)
            .is_some_and(|rest| rest.starts_with(magic))
    };
    let first = |magics: &[Magic]| {
        magics
            .iter()
            .find(|(offset, magic, _)| has(*offset, magic))
            .map(|(_, _, name)| *name)
    };
    if has(0, b"\x7fELF") {
        return Ok(KernelKind::Elf);
    }
    if has(0x1fe, b"\x55\xaa") && has(0x202, b"HdrS") {
        return Ok(KernelKind::BzImage);
    }
    if let Some(found) = first(OTHER_ARCHITECTURES) {
        return Err(KernelError::WrongArchitecture {
            found: found.into(),
        });
    }
    let found = first(OTHER_FILES).unwrap_or_else(|| {
        if head.iter().all(|byte| *byte == 0) {
            "a file of zeros"
        } else if head
            .iter()
            .all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace())
        {
            "a text file"
        } else {
            "a file of unknown kind"
        }
    });
    Err(KernelError::NotAKernel { found })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzzing::file;

    fn identified(bytes: &[u8]) -> Result<KernelKind, KernelError> {
        identify(&file("some/file", bytes)).map(|(kind, _)| kind)
    }

    fn at(offset: usize, magic: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0xf4; 0x400];
        bytes[offset..offset + magic.len()].copy_from_slice(magic);
        bytes
    }

    #[test]
    fn an_error_names_the_kind_of_file() {
        for (bytes, expected) in [
            (at(0, b"\x1f\x8b"), "a gzip file"),
            (at(0, b"MZ"), "a PE image"),
            (at(0, b"070701"), "a cpio archive (an initrd?)"),
            (at(0, b"QFI\xfb"), "a qcow2 disk image"),
            (
                at(0x1fe, b"\x55\xaa"),
                "a boot sector without a Linux setup header",
            ),
            (b"hello\n".to_vec(), "a text file"),
            (vec![0; 2000], "a file of zeros"),
            (vec![0xee], "a file of unknown kind"),
        ] {
            match identified(&bytes) {
                Err(KernelError::NotAKernel { found }) => assert_eq!(found, expected),
                other => panic!("{expected}: {other:?}"),
            }
        }
        assert!(matches!(identified(&[]), Err(KernelError::Empty)));
    }

    #[test]
    fn kernels_of_other_architectures_are_named() {
        let mut arm = at(56, b"ARM\x64");
        arm[..2].copy_from_slice(b"MZ");
        assert!(matches!(
            identified(&arm),
            Err(KernelError::WrongArchitecture { found, .. }) if found == "an aarch64 Image"
        ));
    }
}
