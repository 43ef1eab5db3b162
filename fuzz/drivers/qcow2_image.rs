//! Opens a file made from the input as a disk, and reads and writes it, which must neither panic nor end.

use disk_backend::DiskAccess;
use disk_backend::DiskOperation;
use disk_backend::Extent;
use disk_backend::SECTOR;
use disk_backend::Space;
use disk_backend::exercise::Client;
use disk_file::FileOptions;
use disk_file::Format;

/// The clusters of the seed are small, so that edits hit its tables.
const CLUSTER_BITS: u32 = 9;
const CLUSTER: usize = 1 << CLUSTER_BITS;
const CLUSTERS: usize = 24;
/// The disk in it.
const SIZE: u64 = 64 << 10;

/// Runs one input: a byte of choices, then edits of an image (a 16-bit offset and a byte), or the image itself.
pub(crate) fn run(data: &[u8]) {
    let Some((choices, data)) = data.split_first() else {
        return;
    };
    let mut bytes = seed();
    if choices & 1 == 0 {
        for edit in data.chunks_exact(3) {
            let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % bytes.len();
            bytes[at] = edit[2];
        }
    } else {
        let len = data.len().min(bytes.len());
        bytes[..len].copy_from_slice(&data[..len]);
    }
    let Ok(file) = tempfile::NamedTempFile::new() else {
        return;
    };
    if std::fs::write(file.path(), bytes).is_err() {
        return;
    }
    let access = match choices & 2 {
        0 => DiskAccess::ReadWrite,
        _ => DiskAccess::ReadOnly,
    };
    let options = FileOptions {
        access,
        format: Format::Qcow2,
        ..Default::default()
    };
    let Ok(disk) = disk_file::open(file.path(), options) else {
        return;
    };
    let size = disk.info().size();
    let mut client = Client::new(disk);
    for step in 0..8 {
        let offset = (size / 8 * step) & !(SECTOR - 1);
        let len = (8 * SECTOR).min(size - offset);
        let extent = Extent { offset, len };
        let _ = client.read(offset, len);
        if step & 1 == 0 {
            let _ = client.write(offset, &vec![step as u8 + 1; len as usize]);
        }
        let _ = match step {
            1 => client.run(DiskOperation::Discard { extent }),
            5 => client.run(DiskOperation::WriteZeroes {
                extent,
                space: Space::Keep,
            }),
            7 => client.run(DiskOperation::WriteZeroes {
                extent,
                space: Space::Release,
            }),
            _ => Ok(()),
        };
        let _ = client.read(offset, len);
    }
    let _ = client.run(DiskOperation::Flush);
}

/// An image with tables at each level and a few clusters of data: cluster 0 is the header, 1 the refcount table, 2 a
/// refcount block, 3 the L1 table, 4 and 5 are L2 tables, and the rest is data.
fn seed() -> Vec<u8> {
    let mut bytes = vec![0; CLUSTERS * CLUSTER];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    let cluster = |n: u64| n << CLUSTER_BITS;
    put(0, b"QFI\xfb");
    put(4, &3u32.to_be_bytes());
    put(20, &CLUSTER_BITS.to_be_bytes());
    put(24, &SIZE.to_be_bytes());
    put(36, &2u32.to_be_bytes());
    put(40, &cluster(3).to_be_bytes());
    put(48, &cluster(1).to_be_bytes());
    put(56, &1u32.to_be_bytes());
    put(96, &4u32.to_be_bytes());
    put(100, &104u32.to_be_bytes());
    put(CLUSTER, &cluster(2).to_be_bytes());
    for n in 0..CLUSTERS {
        put(2 * CLUSTER + 2 * n, &1u16.to_be_bytes());
    }
    const COPIED: u64 = 1 << 63;
    put(3 * CLUSTER, &(cluster(4) | COPIED).to_be_bytes());
    put(3 * CLUSTER + 8, &(cluster(5) | COPIED).to_be_bytes());
    for n in 6..CLUSTERS {
        let table = 4 + n % 2;
        let entry = (cluster(n as u64) | COPIED).to_be_bytes();
        put(table * CLUSTER + 8 * (n / 2), &entry);
        put(n * CLUSTER, &[n as u8; CLUSTER]);
    }
    // A cluster that reads as zeroes.
    put(4 * CLUSTER + 8 * 40, &1u64.to_be_bytes());
    bytes
}
