use super::*;

fn registers() -> CommonConfig {
    CommonConfig::new(TRANSPORT_FEATURES | 1, 3, &[256, 64])
}

fn read(registers: &CommonConfig, offset: u64, len: usize) -> u64 {
    registers.read(offset, len, 9, false).unwrap()
}

fn negotiate(registers: &mut CommonConfig, features: u64) {
    for select in 0..2 {
        registers.write(0x08, 4, select).unwrap();
        registers
            .write(0x0c, 4, (features >> (32 * select)) & 0xffff_ffff)
            .unwrap();
    }
    registers.write(0x14, 1, 1 | 2).unwrap();
    registers.write(0x14, 1, 1 | 2 | 8).unwrap();
}

#[test]
fn features_are_read_in_halves() {
    let mut r = registers();
    assert_eq!(read(&r, 0x04, 4), (TRANSPORT_FEATURES | 1) & 0xffff_ffff);
    r.write(0x00, 4, 1).unwrap();
    assert_eq!(read(&r, 0x04, 4), TRANSPORT_FEATURES >> 32);
    r.write(0x00, 4, 2).unwrap();
    assert_eq!(read(&r, 0x04, 4), 0);
}

#[test]
fn only_offered_features_are_accepted() {
    let mut r = registers();
    negotiate(&mut r, VERSION_1 | 1);
    assert_eq!(read(&r, 0x14, 1), 0b1011);
    // From here on the features do not change.
    r.write(0x08, 4, 0).unwrap();
    r.write(0x0c, 4, 0).unwrap();
    assert_eq!(r.driver_features, VERSION_1 | 1);
    for refused in [1, VERSION_1 | 2, 0] {
        let mut r = registers();
        negotiate(&mut r, refused);
        assert_eq!(read(&r, 0x14, 1), 0b0011, "{refused:#x}");
        r.write(0x14, 1, 0b1111).unwrap();
        assert!(!r.driver_ok());
    }
}

#[test]
fn an_enabled_queue_does_not_change() {
    let mut r = registers();
    r.write(0x16, 2, 1).unwrap();
    assert_eq!(read(&r, 0x18, 2), 64);
    for (size, then) in [(128, 64), (48, 64), (0, 64), (16, 16)] {
        r.write(0x18, 2, size).unwrap();
        assert_eq!(read(&r, 0x18, 2), then);
    }
    r.write(0x20, 4, 0x1000).unwrap();
    r.write(0x24, 4, 0x5).unwrap();
    r.write(0x28, 8, 0x6_0000_2000).unwrap();
    assert_eq!(r.write(0x1c, 2, 1), Ok(Effect::QueueEnabled));
    r.write(0x20, 8, 0).unwrap();
    r.write(0x18, 2, 32).unwrap();
    r.write(0x1c, 2, 0).unwrap();
    assert_eq!(read(&r, 0x20, 8), 0x5_0000_1000);
    assert_eq!(read(&r, 0x2c, 4), 0x6);
    assert_eq!(read(&r, 0x18, 2), 16);
    assert_eq!(read(&r, 0x1c, 2), 1);
    assert_eq!(read(&r, 0x1e, 2), 1);
}

#[test]
fn a_queue_is_reset_only_if_that_was_negotiated() {
    for (features, request) in [
        (VERSION_1 | RING_RESET, Effect::QueueReset(0)),
        (VERSION_1, Effect::None),
    ] {
        let mut r = registers();
        negotiate(&mut r, features);
        assert_eq!(r.write(0x3a, 2, 1), Ok(Effect::None), "not enabled");
        r.write(0x1c, 2, 1).unwrap();
        assert_eq!(r.write(0x3a, 2, 1), Ok(request));
    }
}

#[test]
fn invalid_vectors_read_as_none() {
    let mut r = registers();
    assert_eq!(r.write(0x10, 2, 2), Ok(Effect::Vector(None, 2)));
    assert_eq!(r.write(0x10, 2, 3), Ok(Effect::Vector(None, NO_VECTOR)));
    r.write(0x16, 2, 2).unwrap();
    assert_eq!(r.write(0x1a, 2, 1), Ok(Effect::None), "no such queue");
    assert_eq!(read(&r, 0x1a, 2), u64::from(NO_VECTOR));
    assert_eq!(read(&r, 0x18, 2), 0);
}

#[test]
fn fields_are_accessed_with_their_width() {
    let mut r = registers();
    for offset in 0..0x48 {
        for len in [1, 2, 4, 8] {
            let read = r.read(offset, len, 0, false);
            let write = r.write(offset, len, 0);
            assert_eq!(read.is_ok(), write.is_ok(), "{offset:#x} {len}");
        }
    }
    assert!(r.read(0x12, 4, 0, false).is_err());
    assert!(r.read(0x3c, 2, 0, false).is_err());
}
