//! Splits a kernel into its setup part and the rest.

use crate::content::ItemContent;
use std::io;

/// Offset of the number of 512-byte setup sectors after the first one (Linux boot protocol).
const SETUP_SECTORS: usize = 0x1f1;
const BOOT_FLAG: usize = 0x1fe;
const MAGIC: usize = 0x202;
const SECTOR: u64 = 512;

/// Why a kernel cannot be passed to the firmware.
#[derive(Debug, thiserror::Error)]
pub enum KernelItemError {
    /// The file cannot be read.
    #[error("cannot read the kernel")]
    Read(#[source] io::Error),
    /// The kernel is not a PE image.
    #[error("the kernel is not a PE image, so UEFI cannot run it; Linux needs CONFIG_EFI_STUB")]
    NotPe,
    /// The kernel is shorter than its setup part.
    #[error("the kernel has {len} bytes, which is less than its setup part of {setup} bytes")]
    Truncated {
        /// The length of the setup part in bytes.
        setup: u64,
        /// The length of the kernel in bytes.
        len: u64,
    },
}

/// Returns the setup part of `kernel`, which is empty for a PE image that is not a bzImage, and the rest.
pub(crate) fn split(kernel: &ItemContent) -> Result<(ItemContent, ItemContent), KernelItemError> {
    let len = kernel.len();
    let mut head = [0; MAGIC + 4];
    let available = (head.len() as u64).min(len) as usize;
    kernel
        .read_at(0, &mut head[..available])
        .map_err(KernelItemError::Read)?;
    if !head.starts_with(b"MZ") {
        return Err(KernelItemError::NotPe);
    }
    if head[BOOT_FLAG..BOOT_FLAG + 2] != [0x55, 0xaa] || !head[MAGIC..].starts_with(b"HdrS") {
        return Ok((kernel.part(0, 0), kernel.clone()));
    }
    // 0 means 4, for compatibility with very old kernels.
    let sectors = match head[SETUP_SECTORS] {
        0 => 4,
        sectors => u64::from(sectors),
    };
    let setup = (sectors + 1) * SECTOR;
    if setup > len {
        return Err(KernelItemError::Truncated { setup, len });
    }
    Ok((kernel.part(0, setup), kernel.part(setup, u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bzimage(sectors: u8, len: usize) -> Vec<u8> {
        let mut image: Vec<u8> = (0..len).map(|i| i as u8).collect();
        image[..2].copy_from_slice(b"MZ");
        image[0x1f1] = sectors;
        image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image
    }

    #[test]
    fn a_bzimage_is_split_after_its_setup_sectors() {
        for (sectors, setup_len) in [(0, 5 * 512), (1, 1024), (31, 32 * 512)] {
            let image = bzimage(sectors, 20_000);
            let (setup, rest) = split(&image.clone().into()).unwrap();
            assert_eq!(setup.as_bytes().unwrap(), &image[..setup_len]);
            assert_eq!(rest.as_bytes().unwrap(), &image[setup_len..]);
        }
        assert!(matches!(
            split(&bzimage(200, 20_000).into()),
            Err(KernelItemError::Truncated {
                setup: 102_912,
                len: 20_000
            })
        ));
    }

    #[test]
    fn other_pe_images_are_not_split_and_others_are_refused() {
        let (setup, rest) = split(&b"MZ\x00\x00".to_vec().into()).unwrap();
        assert!(setup.is_empty());
        assert_eq!(rest.len(), 4);
        for image in [&b""[..], b"M", b"\x7fELF"] {
            assert!(matches!(split(&image.into()), Err(KernelItemError::NotPe)));
        }
        let mut no_stub = bzimage(1, 2_000);
        no_stub[0] = 0xea;
        assert!(matches!(
            split(&no_stub.into()),
            Err(KernelItemError::NotPe)
        ));
    }
}
