//! Makes a disk that UEFI firmware boots by itself: it has one EFI system partition, whose program for removable media is
//! the guest's kernel. The same inputs always give the same bytes.

use super::initramfs::initramfs;
use super::partitions;
use super::partitions::END_SIZE;
use super::partitions::FIRST_OFFSET;
use super::partitions::Partition;
use super::unified_kernel;
use super::unified_kernel::KernelContents;
use crate::setup::Fetched;
use anyhow::Context;
use gpt::partition_types;
use std::fs;
use std::io::Cursor;

/// The kernel's command line: its console, and no commands for its init.
const CMDLINE: &str = "console=ttyS0 quiet vmtest=";

/// Where the firmware looks on a disk that no boot option names (UEFI specification, section 3.5.1.1).
const FILE: &str = "EFI/BOOT/BOOTX64.EFI";

/// Makes the disk's content.
pub(super) fn build(fetched: &Fetched) -> anyhow::Result<Vec<u8>> {
    let read = |path: std::path::PathBuf| {
        fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let program = unified_kernel::build(
        &read(fetched.efi_stub.path())?,
        &KernelContents {
            kernel: &read(fetched.kernel.vmlinuz())?,
            initrd: &initramfs(&fetched.kernel)?,
            cmdline: CMDLINE,
        },
    )?;
    disk(&program)
}

fn disk(program: &[u8]) -> anyhow::Result<Vec<u8>> {
    let size = partitions::efi_system_size(program.len());
    let mut disk = vec![0; usize::try_from(FIRST_OFFSET + size + END_SIZE)?];
    let disk_size = disk.len() as u64;
    let partition = Partition {
        name: "EFI system",
        kind: partition_types::EFI,
        size,
    };
    partitions::partition(Cursor::new(&mut disk[..]), disk_size, vec![partition])
        .context("cannot partition the boot disk")?;
    let range = usize::try_from(FIRST_OFFSET)?..usize::try_from(FIRST_OFFSET + size)?;
    partitions::efi_system(&mut disk[range], &[(FILE, program)])
        .context("cannot make the boot disk's file system")?;
    Ok(disk)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fatfs::FileSystem;
    use fatfs::FsOptions;
    use gpt::GptConfig;
    use std::io::Read;
    use uuid::uuid;

    const DISK_GUID: uuid::Uuid = uuid!("0c1f2a5e-9d0e-4f35-8a2c-5b0f5c8f3d10");
    const PARTITION_GUID: uuid::Uuid = uuid!("0c1f2a5e-9d0e-4f35-8a2c-5b0f5c8f3d11");

    #[test]
    fn the_program_is_where_firmware_looks() {
        let program: Vec<u8> = (0..100_000_u32).map(|i| (i % 251) as u8).collect();
        let mut bytes = disk(&program).unwrap();
        assert_eq!(bytes, disk(&program).unwrap());

        let table = GptConfig::new()
            .open_from_device(Cursor::new(&mut bytes[..]))
            .unwrap();
        assert_eq!(*table.guid(), DISK_GUID);
        let partition = table.partitions()[&1].clone();
        assert_eq!(partition.part_type_guid, partition_types::EFI);
        assert_eq!(partition.part_guid, PARTITION_GUID);
        drop(table);

        let range = partition.first_lba as usize * 512..(partition.last_lba as usize + 1) * 512;
        let files = FileSystem::new(Cursor::new(&mut bytes[range]), FsOptions::new()).unwrap();
        let mut read = Vec::new();
        files
            .root_dir()
            .open_file("efi/boot/bootx64.efi")
            .unwrap()
            .read_to_end(&mut read)
            .unwrap();
        assert_eq!(read, program);
    }
}
