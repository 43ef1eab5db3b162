use super::*;

const ALL: Capabilities = Capabilities::ALL;

fn full() -> Events {
    Events {
        exception: Some(Exception {
            vector: 14,
            error_code: Some(2),
            injected: false,
            payload: Some(0xdead_b000),
        }),
        interrupt: Some(Interrupt {
            vector: 0x30,
            software: true,
        }),
        interrupt_shadow: 1,
        nmi_injected: false,
        nmi_pending: 1,
        nmi_masked: true,
        smi: Some(Smi {
            latched_init: true,
            ..Default::default()
        }),
        triple_fault_pending: true,
    }
}

#[test]
fn events_round_trip() {
    for saved in [Events::default(), full()] {
        let events_of = kvm_vcpu_events_of(&saved, &ALL).unwrap();
        assert_eq!(events(&events_of), saved);
    }
}

#[test]
fn what_is_not_pending_is_cleared() {
    let events = kvm_vcpu_events_of(&Events::default(), &ALL).unwrap();
    let cleared = KVM_VCPUEVENT_VALID_NMI_PENDING
        | KVM_VCPUEVENT_VALID_SHADOW
        | KVM_VCPUEVENT_VALID_PAYLOAD
        | KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
    assert_eq!(events.flags, cleared);
}

#[test]
fn events_that_this_host_cannot_have_are_refused() {
    let poor = Capabilities {
        exception_payload: false,
        triple_fault_event: false,
        ..ALL
    };
    let refused = |events: &Events| {
        matches!(
            kvm_vcpu_events_of(events, &poor),
            Err(Error::MissingCapability { .. })
        )
    };
    let exception = full().exception;
    assert!(refused(&Events {
        exception,
        ..Default::default()
    }));
    assert!(refused(&Events {
        triple_fault_pending: true,
        ..Default::default()
    }));
    let flags = kvm_vcpu_events_of(&Events::default(), &poor).unwrap().flags;
    assert_eq!(flags & KVM_VCPUEVENT_VALID_PAYLOAD, 0);
    assert_eq!(flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT, 0);
}

#[test]
fn activities_round_trip() {
    for state in [
        Activity::Running,
        Activity::WaitForInit,
        Activity::WaitForSipi,
        Activity::Halted,
        Activity::SipiReceived,
    ] {
        assert_eq!(activity(kvm_mp_state_of(state)).unwrap(), state);
    }
    assert!(activity(kvm_mp_state { mp_state: 9 }).is_err());
}
