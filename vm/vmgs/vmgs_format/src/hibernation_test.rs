extern crate std;
use super::*;
use std::string::ToString;

fn header(record_len: u64) -> FirmwareRecordHeader {
    let mut header = FirmwareRecordHeader::read_from_bytes(&[0; 256]).unwrap();
    header.magic = FirmwareRecordHeader::MAGIC;
    header.version = 1.into();
    header.header_len = 256.into();
    header.record_len = record_len.into();
    header.crc = header.expected_crc().into();
    header
}

#[test]
fn layout() {
    use core::mem::offset_of;
    assert_eq!(
        size_of::<FirmwareRecordHeader>(),
        FIRMWARE_RECORD_HEADER_LEN
    );
    assert_eq!(
        size_of::<FirmwareRecordSection>(),
        FIRMWARE_RECORD_SECTION_LEN
    );
    assert_eq!(offset_of!(FirmwareRecordHeader, load_gpa), 24);
    assert_eq!(offset_of!(FirmwareRecordHeader, image_id), 64);
    assert_eq!(offset_of!(FirmwareRecordHeader, image_digest), 88);
    assert_eq!(offset_of!(FirmwareRecordHeader, table_digest), 152);
    assert_eq!(offset_of!(FirmwareRecordHeader, crc), 248);
    assert_eq!(offset_of!(FirmwareRecordSection, digest), 24);
}

#[test]
fn tokens_are_printed_in_words() {
    let words = |raw| HibernationToken(raw).to_string();
    assert_eq!(words(0), "not hibernated");
    assert_eq!(words(1), "hibernated, no firmware image stored");
    assert_eq!(words(u64::MAX), "hibernated, firmware image stored");
    assert_eq!(
        words(0x3150_4552_5042_4948),
        "may be hibernated, firmware image stored"
    );
    assert_eq!(words(0x0109), "hibernated under firmware 1.9");
    assert_eq!(words(0x1_0000), "unknown token 0x10000");
    assert_eq!(HibernationToken::from_bytes(&[1, 0, 0, 0]), None);
    let token = HibernationToken::from_bytes(&[9, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(token, Some(HibernationToken(0x0109)));
}

#[test]
fn a_tpm_blob_is_not_firmware() {
    assert_eq!(
        FirmwareFileKind::classify(32768, &[0x5a; 256]),
        FirmwareFileKind::Other
    );
    assert_eq!(FirmwareFileKind::classify(0, &[]), FirmwareFileKind::Other);
}

#[test]
fn firmware_is_recognized_by_header_or_length() {
    let header = header(4096);
    assert_eq!(
        FirmwareFileKind::classify(4096, header.as_bytes()),
        FirmwareFileKind::Record
    );
    assert_eq!(
        FirmwareFileKind::classify(4097, header.as_bytes()),
        FirmwareFileKind::DamagedRecord
    );
    let mut damaged = header;
    damaged.load_gpa = 1.into();
    assert_eq!(
        FirmwareFileKind::classify(4096, damaged.as_bytes()),
        FirmwareFileKind::DamagedRecord
    );
    assert_eq!(
        FirmwareFileKind::classify(6_291_456, &[0; 256]),
        FirmwareFileKind::RawImage
    );
}
