use super::*;
use proptest::prelude::*;

const RAM: u64 = 0x1_0000_0000;
const SVM_SIZE: usize = NESTED_HEADER_SIZE + PAGE_SIZE;
const VMCS_REGION: u64 = 0x5000;

fn guest(format: NestedFormat) -> NestedGuest<'static> {
    NestedGuest {
        format,
        max_size: match format {
            NestedFormat::Vmx => MAX_NESTED_STATE,
            NestedFormat::Svm => SVM_SIZE,
        },
        efer: EFER_SVME,
        smm: false,
        is_ram: &|gpa| gpa < RAM,
    }
}

fn put(state: &mut [u8], offset: usize, bytes: &[u8]) {
    state[offset..offset + bytes.len()].copy_from_slice(bytes);
}

/// A header with the size of `len` bytes that follow.
fn blob(format: NestedFormat, flags: u16, len: usize) -> Vec<u8> {
    let mut state = format.state_at_reset();
    state.resize(len, 0);
    put(&mut state, 0, &flags.to_le_bytes());
    put(&mut state, 4, &(len as u32).to_le_bytes());
    state
}

/// As KVM reports a processor that executes a guest's guest.
fn svm_in_guest_mode() -> Vec<u8> {
    let mut state = blob(
        NestedFormat::Svm,
        flag::GUEST_MODE | flag::GIF_SET,
        SVM_SIZE,
    );
    put(&mut state, 8, &0x4000_u64.to_le_bytes());
    state
}

fn vmx(flags: u16, len: usize) -> Vec<u8> {
    let mut state = blob(NestedFormat::Vmx, flags, len);
    put(&mut state, 8, &0x4000_u64.to_le_bytes());
    if len > NESTED_HEADER_SIZE {
        put(&mut state, 16, &VMCS_REGION.to_le_bytes());
        put(&mut state, NESTED_HEADER_SIZE, &VMCS_REVISION.to_le_bytes());
    }
    if len > SVM_SIZE {
        put(
            &mut state,
            SVM_SIZE,
            &(VMCS_REVISION | SHADOW_VMCS).to_le_bytes(),
        );
    }
    state
}

#[test]
fn states_at_reset_are_kvms() {
    let mut expected = [0; NESTED_HEADER_SIZE];
    expected[4] = 128;
    expected[8..24].fill(0xff);
    assert_eq!(NestedFormat::Vmx.state_at_reset(), expected);
    let mut expected = [0; NESTED_HEADER_SIZE];
    expected[1] = 1;
    expected[2] = 1;
    expected[4] = 128;
    assert_eq!(NestedFormat::Svm.state_at_reset(), expected);
}

#[test]
fn every_state_that_kvm_reports_is_accepted() {
    use NestedFormat::*;
    let (gif, guest_mode) = (flag::GIF_SET, flag::GUEST_MODE);
    let run_pending = flag::RUN_PENDING | guest_mode;
    for (what, format, state) in [
        ("SVM at reset", Svm, Svm.state_at_reset()),
        (
            "interrupts held back",
            Svm,
            blob(Svm, 0, NESTED_HEADER_SIZE),
        ),
        ("SVM guest", Svm, svm_in_guest_mode()),
        ("VMRUN", Svm, {
            let mut state = svm_in_guest_mode();
            put(&mut state, 0, &(run_pending | gif).to_le_bytes());
            state
        }),
        ("with a PAT", Svm, {
            let mut state = svm_in_guest_mode();
            put(&mut state, 16, &[1, 0, 0, 0, 6, 0, 0, 0, 6]);
            state
        }),
        ("VMX at reset", Vmx, Vmx.state_at_reset()),
        ("VMXON", Vmx, vmx(0, NESTED_HEADER_SIZE)),
        ("a current VMCS", Vmx, vmx(0, SVM_SIZE)),
        ("VMX guest", Vmx, vmx(guest_mode, SVM_SIZE)),
        ("VMLAUNCH", Vmx, vmx(run_pending, SVM_SIZE)),
        (
            "monitor trap",
            Vmx,
            vmx(guest_mode | flag::MTF_PENDING, SVM_SIZE),
        ),
        ("shadow VMCS", Vmx, vmx(guest_mode, MAX_NESTED_STATE)),
        ("preemption timer", Vmx, {
            let mut state = vmx(guest_mode, SVM_SIZE);
            put(&mut state, 28, &[1, 0, 0, 0, 7]);
            state
        }),
    ] {
        assert_eq!(guest(format).check(&state), Ok(()), "{what}");
    }
    let in_smm = NestedGuest {
        smm: true,
        ..guest(Vmx)
    };
    let mut state = vmx(0, SVM_SIZE);
    put(&mut state, 24, &[3, 0]);
    assert_eq!(in_smm.check(&state), Ok(()));
}

/// A state with one change, and how it is refused.
#[track_caller]
fn assert_refused(state: &[u8], change: (usize, &[u8]), expected: &str) {
    let format = match state[2] {
        0 => NestedFormat::Vmx,
        _ => NestedFormat::Svm,
    };
    let guest = guest(format);
    assert_eq!(guest.check(state), Ok(()));
    let mut changed = state.to_vec();
    put(&mut changed, change.0, change.1);
    let error = guest.check(&changed).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn each_field_is_checked() {
    let nowhere = [0xff; 8];
    let svm = svm_in_guest_mode();
    let off = NestedFormat::Svm.state_at_reset();
    assert_refused(&svm, (2, &[2]), "format 2 is unknown");
    assert_refused(&svm, (2, &[0]), "with Intel VMX, and this host has AMD SVM");
    assert_refused(
        &svm,
        (4, &[0x81, 0x10]),
        "truncated: 4224 bytes of at least 4225",
    );
    assert_refused(&svm, (4, &[0x7f, 0x10]), "its header says 4223");
    assert_refused(&svm, (0, &[0x09]), "bits 0x8 of its flags");
    assert_refused(&svm, (1, &[0x81]), "bits 0x8000 of its flags");
    assert_refused(&svm, (16, &[2]), "bits 0x2 of its SVM flags");
    assert_refused(&svm, (8, &[1]), "address 0x4001 of its VMCB");
    assert_refused(&svm, (8, &nowhere), "0xffffffffffffffff of its VMCB");
    assert_refused(&svm, (0, &[2]), "enters a guest");
    assert_refused(&off, (0, &[1]), "truncated: 128 bytes of at least 4224");

    let vmx_guest = vmx(flag::GUEST_MODE, MAX_NESTED_STATE);
    let off = NestedFormat::Vmx.state_at_reset();
    assert_refused(
        &vmx_guest,
        (2, &[1]),
        "with AMD SVM, and this host has Intel VMX",
    );
    assert_refused(&vmx_guest, (1, &[1]), "bits 0x100 of its flags");
    assert_refused(&vmx_guest, (0, &[5]), "enlightened VMCS");
    assert_refused(
        &vmx_guest,
        (24, &[4]),
        "bits 0x4 of its flags of system management mode",
    );
    assert_refused(&vmx_guest, (24, &[2]), "outside of that mode");
    assert_refused(&vmx_guest, (28, &[2]), "bits 0x2 of its VMX flags");
    assert_refused(&vmx_guest, (8, &[1]), "of its VMXON region");
    assert_refused(
        &vmx_guest,
        (8, &VMCS_REGION.to_le_bytes()),
        "is its VMXON region",
    );
    assert_refused(&vmx_guest, (12, &[1]), "of its VMXON region");
    assert_refused(&vmx_guest, (16, &[1]), "of its VMCS");
    assert_refused(&vmx_guest, (16, &nowhere), "not its address");
    assert_refused(&vmx_guest, (128, &[0]), "revision 0x11e57e00 of its VMCS");
    assert_refused(&vmx_guest, (SVM_SIZE + 3, &[0x11]), "of its shadow VMCS");
    assert_refused(&off, (0, &[8]), "not in VMX operation");
    assert_refused(&off, (16, &[0]), "not in VMX operation");
    let vmxon = vmx(0, NESTED_HEADER_SIZE);
    assert_refused(&vmxon, (0, &[1]), "not its address");
    assert_refused(
        &vmxon,
        (16, &0x5000_u64.to_le_bytes()),
        "truncated: 128 bytes",
    );
}

#[test]
fn lengths_are_checked() {
    let guest = guest(NestedFormat::Svm);
    assert_eq!(guest.check(&[]), Err(NestedStateError::Missing));
    let state = svm_in_guest_mode();
    for len in 1..SVM_SIZE {
        let error = guest.check(&state[..len]);
        let truncated = matches!(error, Err(NestedStateError::Truncated { .. }));
        assert!(truncated, "{len}: {error:?}");
    }
    let long = blob(NestedFormat::Svm, flag::GIF_SET, SVM_SIZE + 1);
    let error = guest.check(&long);
    assert_eq!(
        error,
        Err(NestedStateError::TooLong {
            len: 4225,
            most: 4224
        })
    );
}

#[test]
fn the_rest_of_the_processors_state_must_fit() {
    let disabled = NestedGuest {
        efer: 0,
        ..guest(NestedFormat::Svm)
    };
    assert_eq!(disabled.check(&NestedFormat::Svm.state_at_reset()), Ok(()));
    let cleared = blob(NestedFormat::Svm, 0, NESTED_HEADER_SIZE);
    assert!(disabled.check(&cleared).is_err());
    assert!(disabled.check(&svm_in_guest_mode()).is_err());
    let in_smm = |format| NestedGuest {
        smm: true,
        ..guest(format)
    };
    assert!(
        in_smm(NestedFormat::Svm)
            .check(&svm_in_guest_mode())
            .is_err()
    );
    let vmx_guest = vmx(flag::GUEST_MODE, SVM_SIZE);
    assert!(in_smm(NestedFormat::Vmx).check(&vmx_guest).is_err());
    let mut interrupted = vmx(0, SVM_SIZE);
    put(&mut interrupted, 24, &[1]);
    assert!(in_smm(NestedFormat::Vmx).check(&interrupted).is_err());
}

proptest! {
    #[test]
    fn what_is_accepted_is_what_kvm_could_have_reported(
        base in 0..3_usize,
        svm: bool,
        changes in proptest::collection::vec((0..NESTED_HEADER_SIZE + 4, any::<u8>()), 0..4),
        cut in 0..MAX_NESTED_STATE,
    ) {
        let (format, mut state) = match (base, svm) {
            (0, _) => (NestedFormat::Vmx, vmx(flag::GUEST_MODE, MAX_NESTED_STATE)),
            (1, true) => (NestedFormat::Svm, svm_in_guest_mode()),
            (1, false) => (NestedFormat::Vmx, vmx(0, NESTED_HEADER_SIZE)),
            (_, true) => (NestedFormat::Svm, NestedFormat::Svm.state_at_reset()),
            (_, false) => (NestedFormat::Vmx, NestedFormat::Vmx.state_at_reset()),
        };
        for (offset, value) in changes {
            if let Some(byte) = state.get_mut(offset) {
                *byte = value;
            }
        }
        if cut % 3 == 0 {
            state.truncate(cut);
        }
        if guest(format).check(&state).is_ok() {
            prop_assert!(state.len() >= NESTED_HEADER_SIZE);
            let size = u32::from_le_bytes([state[4], state[5], state[6], state[7]]);
            prop_assert_eq!(size as usize, state.len());
            prop_assert_eq!(u16::from(state[2]), u16::from(format == NestedFormat::Svm));
            if state[0] & 1 != 0 {
                prop_assert!(state.len() >= SVM_SIZE);
            }
        }
    }
}
