use super::*;
use proptest::prelude::*;
use std::convert::Infallible;

const UUID: [u8; 16] = [
    0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0, 1, 2, 3, 4, 5, 6, 7, 8,
];
const TEXT: &str = "12345678-9abc-def0-0102-030405060708";

/// What is on a disk of 128 KiB with these bytes.
fn found(pieces: &[(usize, &[u8])]) -> Option<String> {
    let mut disk = vec![0; 128 << 10];
    for (offset, bytes) in pieces {
        disk[*offset..offset + bytes.len()].copy_from_slice(bytes);
    }
    of(&disk)
}

fn of(disk: &[u8]) -> Option<String> {
    let size = disk.len() as u64;
    let result: Result<_, Infallible> = identify(size, |offset, buffer| {
        assert_eq!((offset % 4096, buffer.len() % 512), (0, 0));
        let at = offset as usize;
        buffer.copy_from_slice(&disk[at..at + buffer.len()]);
        Ok(())
    });
    result.unwrap_or_default()
}

#[test]
fn each_format_has_its_identity() {
    let boot: (usize, &[u8]) = (510, &[0x55, 0xaa]);
    let label: &[u8] = b"LABELONE";
    for (pieces, expected) in [
        (
            vec![(512, &b"EFI PART"[..]), (568, &UUID[..]), boot],
            "GPT disk 78563412-bc9a-f0de-0102-030405060708".to_owned(),
        ),
        (
            vec![(4096, &b"EFI PART"[..]), (4152, &UUID[..])],
            "GPT disk 78563412-bc9a-f0de-0102-030405060708".to_owned(),
        ),
        (
            vec![(0, &b"LUKS\xba\xbe\0\x02"[..]), (168, TEXT.as_bytes())],
            format!("LUKS volume {TEXT}"),
        ),
        (
            vec![
                (512, label),
                (532, &[32][..]),
                (536, b"LVM2 001"),
                (544, b"AbCdEfGhIjKlMnOpQrStUvWxYz012345"),
            ],
            "LVM volume AbCdEfGhIjKlMnOpQrStUvWxYz012345".to_owned(),
        ),
        (
            vec![(4086, &b"SWAPSPACE2"[..]), (1036, &UUID)],
            format!("swap space {TEXT}"),
        ),
        (
            vec![(4086, &b"S1SUSPEND\0"[..]), (1036, &UUID)],
            format!("swap space {TEXT}"),
        ),
        (vec![(0, &b"XFSB"[..]), (32, &UUID)], format!("XFS {TEXT}")),
        (
            vec![(1080, &[0x53, 0xef][..]), (1128, &UUID), boot],
            format!("ext file system {TEXT}"),
        ),
        (
            vec![(0x1_0040, &b"_BHRfS_M"[..]), (0x1_0020, &UUID), boot],
            format!("Btrfs {TEXT}"),
        ),
        (
            vec![(3, &b"NTFS    "[..]), (0x48, &UUID[..8]), boot],
            "NTFS f0debc9a78563412".to_owned(),
        ),
        (
            vec![(0x52, &b"FAT32   "[..]), (0x43, &UUID[..4]), boot],
            "FAT 78563412".to_owned(),
        ),
        (
            vec![(0x36, &b"FAT16   "[..]), (0x27, &UUID[..4]), boot],
            "FAT 78563412".to_owned(),
        ),
        (
            vec![(440, &UUID[..4]), boot],
            "MBR disk 78563412".to_owned(),
        ),
    ] {
        assert_eq!(found(&pieces), Some(expected));
    }
}

#[test]
fn what_identifies_nothing_is_nothing() {
    assert_eq!(found(&[]), None);
    // A magic without an identifier.
    for (offset, magic) in [
        (512, &b"EFI PART"[..]),
        (0, b"LUKS\xba\xbe"),
        (4086, b"SWAPSPACE2"),
        (0, b"XFSB"),
        (1080, &[0x53, 0xef]),
        (0x1_0040, b"_BHRfS_M"),
        (510, &[0x55, 0xaa]),
    ] {
        assert_eq!(found(&[(offset, magic)]), None, "{magic:?}");
    }
    // An LVM label that points outside.
    for header in [u32::MAX, 8 << 10, (8 << 10) - 32] {
        let label = [
            (0, &b"LABELONE"[..]),
            (20, &header.to_le_bytes()),
            (24, b"LVM2 001"),
        ];
        assert_eq!(found(&label), None);
    }
    for len in [0, 511, 512, 1024, 4096, 8192, 65_536, 66_048] {
        assert_eq!(of(&vec![0; len]), None, "{len} bytes");
    }
}

#[test]
fn an_error_is_passed_on() {
    let result = identify(1 << 20, |_, _| Err("broken"));
    assert_eq!(result, Err("broken"));
    // A disk without a sector is not read.
    assert_eq!(identify(511, |_, _| Err("broken")), Ok(None));
}

proptest! {
    #[test]
    fn any_content_is_survived(
        pieces in prop::collection::vec((0..68_usize << 10, prop::collection::vec(any::<u8>(), 1..64)), 0..40),
        magics in any::<u16>(),
        len in 0..70_usize << 10,
    ) {
        let mut disk = vec![0; 72 << 10];
        for (offset, bytes) in &pieces {
            disk[*offset..offset + bytes.len()].copy_from_slice(bytes);
        }
        for (n, (offset, magic)) in [
            (512, &b"EFI PART"[..]),
            (4096, b"EFI PART"),
            (0, b"LUKS\xba\xbe"),
            (512, b"LABELONE"),
            (536, b"LVM2 001"),
            (4086, b"SWAPSPACE2"),
            (0, b"XFSB"),
            (1080, &[0x53, 0xef]),
            (0x1_0040, b"_BHRfS_M"),
            (510, &[0x55, 0xaa]),
            (3, b"NTFS    "),
            (0x52, b"FAT32"),
        ].into_iter().enumerate() {
            if magics >> n & 1 == 1 {
                disk[offset..offset + magic.len()].copy_from_slice(magic);
            }
        }
        disk.truncate(len);
        if let Some(text) = of(&disk) {
            prop_assert!(text.len() < 200 && !text.contains(char::is_control), "{text}");
        }
    }
}
