//! Partitions disk images: a GPT (UEFI specification, chapter 5), and the file system of an EFI system partition. The same
//! inputs always give the same bytes.

use anyhow::Context;
use fatfs::FatType;
use fatfs::FileSystem;
use fatfs::FormatVolumeOptions;
use fatfs::FsOptions;
use gpt::DiskDevice;
use gpt::GptConfig;
use gpt::disk::LogicalBlockSize;
use gpt::mbr::ProtectiveMBR;
use gpt::partition_types;
use std::io::Cursor;
use std::io::Write;
use uuid::Uuid;
use uuid::uuid;

pub(super) const SECTOR: u64 = 512;
pub(super) const MIB: u64 = 1 << 20;

/// The usual offset of a first partition.
pub(super) const FIRST_OFFSET: u64 = MIB;

/// What a disk needs behind its last partition: the second table takes less than this.
pub(super) const END_SIZE: u64 = MIB;

const DISK_GUID: Uuid = uuid!("0c1f2a5e-9d0e-4f35-8a2c-5b0f5c8f3d10");
/// The first partition's; the others' follow.
const PARTITION_GUID: Uuid = uuid!("0c1f2a5e-9d0e-4f35-8a2c-5b0f5c8f3d11");

/// The size of the clusters of an EFI system partition. The file system is FAT16: FAT32 cannot be smaller than 32 MiB.
const CLUSTER: u32 = 2048;
const VOLUME_ID: u32 = 0x0c1f_2a5e;

/// A partition, which follows the one before it without a gap.
pub(super) struct Partition {
    pub(super) name: &'static str,
    pub(super) kind: partition_types::Type,
    /// In bytes: whole sectors.
    pub(super) size: u64,
}

/// Writes the tables of `partitions` to a disk of `disk_size` bytes.
pub(super) fn partition(
    mut disk: impl DiskDevice,
    disk_size: u64,
    partitions: Vec<Partition>,
) -> anyhow::Result<()> {
    let last_sector = disk_size / SECTOR - 1;
    ProtectiveMBR::with_lb_size(u32::try_from(last_sector)?).overwrite_lba0(&mut disk)?;
    let mut table = GptConfig::new()
        .writable(true)
        .logical_block_size(LogicalBlockSize::Lb512)
        .create_from_device(disk, Some(DISK_GUID))?;
    let mut offset = FIRST_OFFSET;
    for (index, partition) in (1..).zip(partitions) {
        table.add_partition_at(
            partition.name,
            index,
            offset / SECTOR,
            partition.size / SECTOR,
            partition.kind,
            0,
        )?;
        offset += partition.size;
    }
    let mut partitions = table.take_partitions();
    for (index, partition) in &mut partitions {
        // The crate chose random ones.
        let guid = PARTITION_GUID.as_u128() + u128::from(*index) - 1;
        partition.part_guid = Uuid::from_u128(guid);
    }
    table.update_partitions(partitions)?;
    table.write()?;
    Ok(())
}

/// The size of an EFI system partition with room for `content` bytes.
pub(super) fn efi_system_size(content: usize) -> u64 {
    // FAT16 has from 4085 to 65524 clusters.
    let least = u64::from(CLUSTER) * 5000;
    (content as u64 + MIB).next_multiple_of(MIB).max(least)
}

/// Makes the file system of an EFI system partition in `partition`, with these files by their paths.
pub(super) fn efi_system(partition: &mut [u8], files: &[(&str, &[u8])]) -> anyhow::Result<()> {
    let options = FormatVolumeOptions::new()
        .fat_type(FatType::Fat16)
        .bytes_per_cluster(CLUSTER)
        .volume_id(VOLUME_ID);
    fatfs::format_volume(Cursor::new(&mut *partition), options)?;
    let file_system = FileSystem::new(Cursor::new(partition), FsOptions::new())?;
    for (path, content) in files {
        let mut directory = file_system.root_dir();
        let (directories, name) = path.rsplit_once('/').context("no directory")?;
        for name in directories.split('/') {
            // Returns the one that is there already.
            directory = directory.create_dir(name)?;
        }
        directory.create_file(name)?.write_all(content)?;
    }
    file_system.unmount()?;
    Ok(())
}
