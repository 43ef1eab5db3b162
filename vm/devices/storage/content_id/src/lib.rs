//! Tells what is on a disk by the identifier that a partition table, file system or volume stores in it.
//!
//! The identifier survives normal use: it is made when the disk is partitioned or formatted, and stays the same however
//! much is written afterwards. The bytes are a guest's and are not trusted.
#![forbid(unsafe_code)]

use uuid::Uuid;

/// The start of a disk, in which most formats have their identifier.
const START: usize = 8 << 10;
/// Where Btrfs has its superblock, and as much of it as is read.
const BTRFS: u64 = 64 << 10;
const BTRFS_LEN: usize = 4 << 10;
/// The unit of reads.
const SECTOR: u64 = 512;

/// The identity of what is on a disk of `size` bytes; `None` if it is nothing that this crate knows.
///
/// `read` fills its buffer from an offset in bytes. Offsets are multiples of 4096, lengths of 512.
///
/// The text is stored with hibernated guests, so that of a given disk never changes.
pub fn identify<E>(
    size: u64,
    mut read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
) -> Result<Option<String>, E> {
    let mut part = |offset: u64, len: usize| {
        let sectors = size.saturating_sub(offset).min(len as u64) / SECTOR;
        let mut bytes = vec![0; (sectors * SECTOR) as usize];
        if !bytes.is_empty() {
            read(offset, &mut bytes)?;
        }
        Ok(bytes)
    };
    let start = part(0, START)?;
    if let Some(found) = of_start(&start) {
        return Ok(Some(found));
    }
    let btrfs = btrfs(&part(BTRFS, BTRFS_LEN)?);
    // A boot sector is the weakest sign: other formats leave room for one.
    Ok(btrfs.or_else(|| boot_sector(&start)))
}

/// What has its identifier in the first bytes. A partition table comes first: the rest is then within its partitions.
fn of_start(bytes: &[u8]) -> Option<String> {
    gpt(bytes)
        .or_else(|| luks(bytes))
        .or_else(|| lvm(bytes))
        .or_else(|| swap(bytes))
        .or_else(|| xfs(bytes))
        .or_else(|| ext(bytes))
}

fn array<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

fn has(bytes: &[u8], offset: usize, magic: &[u8]) -> bool {
    bytes
        .get(offset..)
        .is_some_and(|bytes| bytes.starts_with(magic))
}

/// A UUID of a kind of content. One of zeroes identifies nothing.
fn uuid(kind: &str, bytes: &[u8], offset: usize) -> Option<String> {
    let uuid = Uuid::from_bytes(array(bytes, offset)?);
    (!uuid.is_nil()).then(|| format!("{kind} {uuid}"))
}

/// UEFI 2.10, 5.3.2: the header is in the second sector, whose size the disk may have changed since.
fn gpt(bytes: &[u8]) -> Option<String> {
    let header = [512, 4096]
        .into_iter()
        .find(|&offset| has(bytes, offset, b"EFI PART"))?;
    let guid = Uuid::from_bytes_le(array(bytes, header + 56)?);
    (!guid.is_nil()).then(|| format!("GPT disk {guid}"))
}

/// LUKS 1 and 2: a UUID as text.
fn luks(bytes: &[u8]) -> Option<String> {
    if !has(bytes, 0, b"LUKS\xba\xbe") {
        return None;
    }
    let text = printable(bytes.get(168..208)?)?;
    Some(format!("LUKS volume {text}"))
}

/// An LVM 2 physical volume: its label is in one of the first four sectors.
fn lvm(bytes: &[u8]) -> Option<String> {
    let label = (0..4)
        .map(|sector| sector * SECTOR as usize)
        .find(|&at| has(bytes, at, b"LABELONE") && has(bytes, at + 24, b"LVM2 001"))?;
    let header = u32::from_le_bytes(array(bytes, label + 20)?);
    let at = label.checked_add(usize::try_from(header).ok()?)?;
    let text = printable(bytes.get(at..at.checked_add(32)?)?)?;
    Some(format!("LVM volume {text}"))
}

/// Swap space. While it holds a hibernation image, its magic is another, and its UUID the same.
fn swap(bytes: &[u8]) -> Option<String> {
    const PAGE: usize = 4096;
    const MAGICS: [&[u8; 10]; 7] = [
        b"SWAPSPACE2",
        b"SWAP-SPACE",
        b"S1SUSPEND\0",
        b"S2SUSPEND\0",
        b"ULSUSPEND\0",
        b"LINHIB0001",
        b"TuxOnIce\0\0",
    ];
    let magic: [u8; 10] = array(bytes, PAGE - 10)?;
    match MAGICS.contains(&&magic) {
        true => uuid("swap space", bytes, 1024 + 12),
        false => None,
    }
}

fn xfs(bytes: &[u8]) -> Option<String> {
    match has(bytes, 0, b"XFSB") {
        true => uuid("XFS", bytes, 32),
        false => None,
    }
}

/// ext2, ext3 and ext4.
fn ext(bytes: &[u8]) -> Option<String> {
    match has(bytes, 1024 + 56, &0xef53_u16.to_le_bytes()) {
        true => uuid("ext file system", bytes, 1024 + 104),
        false => None,
    }
}

fn btrfs(superblock: &[u8]) -> Option<String> {
    match has(superblock, 64, b"_BHRfS_M") {
        true => uuid("Btrfs", superblock, 32),
        false => None,
    }
}

/// NTFS and FAT by their volume's serial number, and an MBR by its disk signature.
fn boot_sector(bytes: &[u8]) -> Option<String> {
    if !has(bytes, 510, &[0x55, 0xaa]) {
        return None;
    }
    if has(bytes, 3, b"NTFS    ") {
        let serial = u64::from_le_bytes(array(bytes, 0x48)?);
        return Some(format!("NTFS {serial:016x}"));
    }
    for (kind, serial) in [(&b"FAT32"[..], 0x43), (b"FAT16", 0x27), (b"FAT12", 0x27)] {
        if has(bytes, serial + 15, kind) {
            let serial = u32::from_le_bytes(array(bytes, serial)?);
            return Some(format!("FAT {serial:08x}"));
        }
    }
    let signature = u32::from_le_bytes(array(bytes, 440)?);
    (signature != 0).then(|| format!("MBR disk {signature:08x}"))
}

/// A text padded with zeroes.
fn printable(bytes: &[u8]) -> Option<&str> {
    let end = bytes.iter().position(|&byte| byte == 0);
    let text = &bytes[..end.unwrap_or(bytes.len())];
    let printable = !text.is_empty() && text.iter().all(u8::is_ascii_graphic);
    str::from_utf8(text).ok().filter(|_| printable)
}

#[cfg(test)]
#[path = "lib_test.rs"]
mod tests;
