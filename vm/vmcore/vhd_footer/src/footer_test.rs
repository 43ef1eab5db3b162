use super::*;

const ID: Uuid = Uuid::from_bytes_le(*b"0123456789abcdef");

fn vhd(size: u64) -> FixedVhd {
    FixedVhd { size, id: ID }
}

/// A valid footer for 4096 bytes with `change` made to it and the checksum adjusted.
fn changed(change: impl FnOnce(&mut Footer)) -> [u8; FOOTER_LEN] {
    let mut footer: Footer = zerocopy::transmute!(vhd(4096).footer());
    change(&mut footer);
    footer.checksum = footer.expected_checksum().into();
    zerocopy::transmute!(footer)
}

#[test]
fn layout_matches_the_specification() {
    let footer = vhd(0x1122_3344_5566_7600).footer();
    assert_eq!(footer[..8], *b"conectix");
    assert_eq!(footer[12..16], [0, 1, 0, 0]);
    assert_eq!(footer[16..24], [0xff; 8]);
    for size in [&footer[40..48], &footer[48..56]] {
        assert_eq!(*size, [0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x76, 0]);
    }
    assert_eq!(footer[60..64], [0, 0, 0, 2]);
    assert_eq!(footer[68..84], *b"0123456789abcdef");
}

#[test]
fn known_checksums() {
    for (size, checksum) in [(4 << 20, 0xFFFF_F41B_u32), (32 << 20, 0xFFFF_F497)] {
        let id = Uuid::nil();
        let footer = FixedVhd { size, id }.footer();
        assert_eq!(footer[64..68], checksum.to_be_bytes());
    }
}

#[test]
fn a_built_footer_parses_to_the_same_values() {
    for size in [512, 1 << 33] {
        assert_eq!(FixedVhd::parse(&vhd(size).footer(), size), Ok(vhd(size)));
        // There may be slack between the disk and the footer.
        assert!(FixedVhd::parse(&vhd(size).footer(), size + 512).is_ok());
    }
    assert!(FixedVhd::parse(&changed(|f| f.format_version = 0x0001_0002.into()), 4096).is_ok());
}

#[test]
fn each_fault_has_its_error() {
    let parse = |footer| FixedVhd::parse(&footer, 4096).unwrap_err();
    assert_eq!(parse([0; FOOTER_LEN]), FooterError::Missing);
    let version = changed(|f| f.format_version = 2.into());
    assert_eq!(parse(version), FooterError::Version { major: 0, minor: 2 });
    for (disk_type, name) in [(3, "dynamic"), (4, "differencing"), (0, "type 0")] {
        let error = parse(changed(|f| f.disk_type = disk_type.into()));
        assert_eq!(error, FooterError::NotFixed { disk_type });
        assert!(error.to_string().contains(name), "{error}");
    }
    for size in [513, 4608] {
        let available = 4096;
        let error = parse(changed(|f| f.current_size = size.into()));
        assert_eq!(error, FooterError::Size { size, available });
    }
}

#[test]
fn every_flipped_bit_is_detected() {
    let good = vhd(4096).footer();
    for bit in 0..FOOTER_LEN * 8 {
        let mut bad = good;
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(FixedVhd::parse(&bad, 4096).is_err(), "bit {bit}");
    }
}
