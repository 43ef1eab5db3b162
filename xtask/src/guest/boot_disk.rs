//! Makes a disk that UEFI firmware boots by itself: it has one EFI system partition, whose program for removable media is
//! the guest's kernel. The same inputs always give the same bytes.

use super::initramfs::initramfs;
use super::unified_kernel;
use super::unified_kernel::KernelContents;
use crate::setup::Fetched;
use anyhow::Context;
use fatfs::FatType;
use fatfs::FileSystem;
use fatfs::FormatVolumeOptions;
use fatfs::FsOptions;
use gpt::GptConfig;
use gpt::disk::LogicalBlockSize;
use gpt::mbr::ProtectiveMBR;
use gpt::partition_types;
use std::fs;
use std::io::Cursor;
use std::io::Write;
use uuid::Uuid;
use uuid::uuid;

/// The kernel's command line: its console, and no commands for its init.
const CMDLINE: &str = "console=ttyS0 quiet vmtest=";

/// Where the firmware looks on a disk that no boot option names (UEFI specification, section 3.5.1.1).
const DIRECTORY: &str = "EFI/BOOT";
const FILE: &str = "BOOTX64.EFI";

const SECTOR: u64 = 512;
const MIB: u64 = 1 << 20;

/// The usual offset of a first partition.
const PARTITION_OFFSET: u64 = MIB;

const DISK_GUID: Uuid = uuid!("0c1f2a5e-9d0e-4f35-8a2c-5b0f5c8f3d10");
const PARTITION_GUID: Uuid = uuid!("0c1f2a5e-9d0e-4f35-8a2c-5b0f5c8f3d11");
/// The size of the file system's clusters. The file system is FAT16: FAT32 cannot be smaller than 32 MiB.
const CLUSTER: u32 = 2048;
const VOLUME_ID: u32 = 0x0c1f_2a5e;

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
    // FAT16 has from 4085 to 65524 clusters.
    let least = u64::from(CLUSTER) * 5000;
    let partition_size = (program.len() as u64 + MIB)
        .next_multiple_of(MIB)
        .max(least);
    // The second partition table takes less than a MiB.
    let disk_size = PARTITION_OFFSET + partition_size + MIB;
    let mut disk = vec![0; usize::try_from(disk_size)?];
    partition(&mut disk, partition_size).context("cannot partition the boot disk")?;
    let partition =
        usize::try_from(PARTITION_OFFSET)?..usize::try_from(PARTITION_OFFSET + partition_size)?;
    file_system(&mut disk[partition], program)
        .context("cannot make the boot disk's file system")?;
    Ok(disk)
}

fn partition(disk: &mut [u8], partition_size: u64) -> anyhow::Result<()> {
    let last_sector = disk.len() as u64 / SECTOR - 1;
    let mut disk = Cursor::new(disk);
    ProtectiveMBR::with_lb_size(u32::try_from(last_sector)?).overwrite_lba0(&mut disk)?;
    let mut table = GptConfig::new()
        .writable(true)
        .logical_block_size(LogicalBlockSize::Lb512)
        .create_from_device(disk, Some(DISK_GUID))?;
    let id = table.add_partition_at(
        "EFI system",
        1,
        PARTITION_OFFSET / SECTOR,
        partition_size / SECTOR,
        partition_types::EFI,
        0,
    )?;
    let mut partitions = table.take_partitions();
    if let Some(partition) = partitions.get_mut(&id) {
        // The crate chose a random one.
        partition.part_guid = PARTITION_GUID;
    }
    table.update_partitions(partitions)?;
    table.write()?;
    Ok(())
}

fn file_system(partition: &mut [u8], program: &[u8]) -> anyhow::Result<()> {
    let options = FormatVolumeOptions::new()
        .fat_type(FatType::Fat16)
        .bytes_per_cluster(CLUSTER)
        .volume_id(VOLUME_ID);
    fatfs::format_volume(Cursor::new(&mut *partition), options)?;
    let file_system = FileSystem::new(Cursor::new(partition), FsOptions::new())?;
    let mut directory = file_system.root_dir();
    for name in DIRECTORY.split('/') {
        directory = directory.create_dir(name)?;
    }
    directory.create_file(FILE)?.write_all(program)?;
    drop(directory);
    file_system.unmount()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

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
