//! Checks arbitrary bytes as saved nested state, on hosts of both vendors. The first byte says what the guest is like.
#![no_main]

use virt::x86::nested::MAX_NESTED_STATE;
use virt::x86::nested::NestedFormat;
use virt::x86::nested::NestedGuest;

const EFER_SVME: u64 = 1 << 12;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((guest, state)) = input.split_first() else {
        return;
    };
    for format in [NestedFormat::Vmx, NestedFormat::Svm] {
        let guest = NestedGuest {
            format,
            max_size: MAX_NESTED_STATE,
            efer: if guest & 1 != 0 { EFER_SVME } else { 0 },
            smm: guest & 2 != 0,
            is_ram: &|gpa| gpa < 1 << 36,
        };
        let _ = guest.check(state);
        assert_eq!(guest.check(&format.state_at_reset()), Ok(()));
    }
});
