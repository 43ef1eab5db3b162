//! Makes a disk with an installation of Debian: an EFI system partition with GRUB, the root file system, and swap space.

use super::partitions;
use super::partitions::END_SIZE;
use super::partitions::FIRST_OFFSET;
use super::partitions::MIB;
use super::partitions::Partition;
use crate::setup::Installation;
use crate::setup::ROOT;
use crate::setup::SWAP;
use anyhow::Context;
use gpt::partition_types;
use std::fs;
use std::fs::File;
use std::io;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Where the firmware looks on a disk that no boot option names (UEFI specification, section 3.5.1.1).
const GRUB: &str = "EFI/BOOT/BOOTX64.EFI";

/// Where GRUB looks for its configuration.
const GRUB_CONFIGURATION: &str = "EFI/debian/grub.cfg";

/// Enough to hibernate with 512 MiB of memory.
const SWAP_SIZE: u64 = 512 * MIB;

/// Makes the disk in the file `path`.
pub(super) fn make(path: &Path) -> anyhow::Result<()> {
    let installation = Installation::ensure()?;
    let grub = installation.grub();
    let grub = fs::read(&grub).with_context(|| format!("cannot read {}", grub.display()))?;
    // As grub-install writes it.
    let configuration = format!(
        "search.fs_uuid {ROOT} root\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n"
    );
    let mut root = File::open(installation.root())
        .with_context(|| format!("cannot open {}", installation.root().display()))?;
    let efi_system_size = partitions::efi_system_size(grub.len());
    let root_size = root.metadata()?.len();
    let root_offset = FIRST_OFFSET + efi_system_size;
    let swap_offset = root_offset + root_size;
    let size = swap_offset + SWAP_SIZE + END_SIZE;

    let disk = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)?;
    disk.set_len(size)?;
    let partition = |name, kind, size| Partition { name, kind, size };
    partitions::partition(
        &disk,
        size,
        vec![
            partition("EFI system", partition_types::EFI, efi_system_size),
            partition("root", partition_types::LINUX_FS, root_size),
            partition("swap", partition_types::LINUX_SWAP, SWAP_SIZE),
        ],
    )
    .context("cannot partition the disk")?;
    let mut efi_system = vec![0; usize::try_from(efi_system_size)?];
    partitions::efi_system(
        &mut efi_system,
        &[
            (GRUB, &grub),
            (GRUB_CONFIGURATION, configuration.as_bytes()),
        ],
    )
    .context("cannot make the EFI system partition")?;
    disk.write_all_at(&efi_system, FIRST_OFFSET)?;
    copy_sparse(&mut root, &disk, root_offset)?;
    disk.write_all_at(&swap_header(SWAP_SIZE)?, swap_offset)?;
    Ok(())
}

/// Copies `from` to the hole at `offset`, which it leaves where there is nothing to copy.
fn copy_sparse(from: &mut File, to: &File, mut offset: u64) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            n => {
                if buffer[..n].iter().any(|byte| *byte != 0) {
                    to.write_all_at(&buffer[..n], offset)?;
                }
                offset += n as u64;
            }
        }
    }
}

/// The first page of swap space (Linux: `union swap_header` in `include/linux/swap.h`).
fn swap_header(size: u64) -> anyhow::Result<Vec<u8>> {
    const PAGE: usize = 4096;
    const INFO: usize = 1024;
    const SIGNATURE: &[u8] = b"SWAPSPACE2";
    let mut page = vec![0; PAGE];
    let last = u32::try_from(size / PAGE as u64 - 1)?;
    // The version, the last page and, 4 bytes later, the UUID.
    page[INFO..INFO + 4].copy_from_slice(&1_u32.to_le_bytes());
    page[INFO + 4..INFO + 8].copy_from_slice(&last.to_le_bytes());
    page[INFO + 12..INFO + 28].copy_from_slice(SWAP.as_bytes());
    page[PAGE - SIGNATURE.len()..].copy_from_slice(SIGNATURE);
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;
    use std::process::Command;

    #[test]
    fn the_system_knows_the_swap_space() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(SWAP_SIZE).unwrap();
        file.as_file()
            .write_all_at(&swap_header(SWAP_SIZE).unwrap(), 0)
            .unwrap();
        let mut blkid = Command::new(crate::process::find("blkid").unwrap());
        blkid
            .args(["--probe", "--output", "export"])
            .arg(file.path());
        let found = crate::process::output(&mut blkid).unwrap();
        assert!(found.contains("\nTYPE=swap\n"), "{found}");
        assert!(found.contains(&format!("UUID={SWAP}\n")), "{found}");
    }

    #[test]
    fn holes_stay() {
        let mut from = tempfile::tempfile().unwrap();
        from.set_len(1 << 20).unwrap();
        from.write_all_at(b"data", (1 << 19) + 3).unwrap();
        let to = tempfile::tempfile().unwrap();
        to.set_len(1 << 21).unwrap();
        copy_sparse(&mut from, &to, 1 << 20).unwrap();
        let mut read = [0; 4];
        to.read_exact_at(&mut read, (1 << 20) + (1 << 19) + 3)
            .unwrap();
        assert_eq!(&read, b"data");
        assert!(to.metadata().unwrap().blocks() * 512 <= 1 << 17);
    }
}
