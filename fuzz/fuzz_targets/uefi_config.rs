//! Reads arbitrary bytes as a stored configuration of UEFI firmware, and replaces its random bytes.
#![no_main]

use uefi_config::replace_entropy;
use uefi_config::structures;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut blob = data.to_vec();
    let replaced = replace_entropy(&mut blob, &[7; 64]).is_ok();
    assert_eq!(blob.len(), data.len());
    assert!(replaced || blob == data);
    if let Ok(found) = structures(data) {
        let total: usize = found.iter().map(|one| 8 + one.payload.len()).sum();
        assert_eq!(total, data.len());
    }
});
