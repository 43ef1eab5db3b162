//! KVM's MP state and vCPU events as `virt`'s activity and events.

use crate::capabilities::Capabilities;
use kvm_bindings::*;
use virt::Error;
use virt::x86::Activity;
use virt::x86::Events;
use virt::x86::Exception;
use virt::x86::Interrupt;
use virt::x86::Smi;

pub(crate) fn activity(state: kvm_mp_state) -> Result<Activity, Error> {
    Ok(match state.mp_state {
        KVM_MP_STATE_RUNNABLE => Activity::Running,
        KVM_MP_STATE_UNINITIALIZED => Activity::WaitForInit,
        KVM_MP_STATE_INIT_RECEIVED => Activity::WaitForSipi,
        KVM_MP_STATE_HALTED => Activity::Halted,
        KVM_MP_STATE_SIPI_RECEIVED => Activity::SipiReceived,
        other => {
            return Err(Error::InvalidRequest(format!(
                "MP state {other} cannot be saved"
            )));
        }
    })
}

pub(crate) fn kvm_mp_state_of(activity: Activity) -> kvm_mp_state {
    kvm_mp_state {
        mp_state: match activity {
            Activity::Running => KVM_MP_STATE_RUNNABLE,
            Activity::WaitForInit => KVM_MP_STATE_UNINITIALIZED,
            Activity::WaitForSipi => KVM_MP_STATE_INIT_RECEIVED,
            Activity::Halted => KVM_MP_STATE_HALTED,
            Activity::SipiReceived => KVM_MP_STATE_SIPI_RECEIVED,
        },
    }
}

pub(crate) fn events(e: &kvm_vcpu_events) -> Events {
    Events {
        exception: (e.exception.injected != 0 || e.exception.pending != 0).then(|| Exception {
            vector: e.exception.nr,
            error_code: (e.exception.has_error_code != 0).then_some(e.exception.error_code),
            injected: e.exception.injected != 0,
            payload: (e.exception_has_payload != 0).then_some(e.exception_payload),
        }),
        interrupt: (e.interrupt.injected != 0).then_some(Interrupt {
            vector: e.interrupt.nr,
            software: e.interrupt.soft != 0,
        }),
        interrupt_shadow: e.interrupt.shadow,
        nmi_injected: e.nmi.injected != 0,
        nmi_pending: e.nmi.pending,
        nmi_masked: e.nmi.masked != 0,
        smi: (e.flags & KVM_VCPUEVENT_VALID_SMM != 0).then_some(Smi {
            active: e.smi.smm != 0,
            pending: e.smi.pending != 0,
            inside_nmi: e.smi.smm_inside_nmi != 0,
            latched_init: e.smi.latched_init != 0,
        }),
        triple_fault_pending: e.triple_fault.pending != 0,
    }
}

/// Every field that this VM has is marked valid, which clears what was pending before.
pub(crate) fn kvm_vcpu_events_of(
    e: &Events,
    capabilities: &Capabilities,
) -> Result<kvm_vcpu_events, Error> {
    let mut events = kvm_vcpu_events {
        flags: KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW,
        ..Default::default()
    };
    if let Some(exception) = e.exception {
        // 2 is the NMI's vector, which is not an exception.
        if exception.vector > 31 || exception.vector == 2 {
            return Err(Error::InvalidRequest(format!(
                "{} is not an exception's vector",
                exception.vector
            )));
        }
        events.exception.nr = exception.vector;
        events.exception.injected = exception.injected.into();
        events.exception.pending = (!exception.injected).into();
        events.exception.has_error_code = exception.error_code.is_some().into();
        events.exception.error_code = exception.error_code.unwrap_or(0);
        events.exception_has_payload = exception.payload.is_some().into();
        events.exception_payload = exception.payload.unwrap_or(0);
    }
    if capabilities.exception_payload {
        events.flags |= KVM_VCPUEVENT_VALID_PAYLOAD;
    } else if e.exception.is_some_and(|x| !x.injected) {
        return Err(Error::MissingCapability {
            what: "KVM_CAP_EXCEPTION_PAYLOAD",
        });
    }
    if let Some(interrupt) = e.interrupt {
        events.interrupt.injected = 1;
        events.interrupt.nr = interrupt.vector;
        events.interrupt.soft = interrupt.software.into();
    }
    events.interrupt.shadow = e.interrupt_shadow;
    events.nmi.injected = e.nmi_injected.into();
    events.nmi.pending = e.nmi_pending;
    events.nmi.masked = e.nmi_masked.into();
    if let Some(smi) = e.smi {
        events.flags |= KVM_VCPUEVENT_VALID_SMM;
        events.smi.smm = smi.active.into();
        events.smi.pending = smi.pending.into();
        events.smi.smm_inside_nmi = smi.inside_nmi.into();
        events.smi.latched_init = smi.latched_init.into();
    }
    if capabilities.triple_fault_event {
        events.flags |= KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
        events.triple_fault.pending = e.triple_fault_pending.into();
    } else if e.triple_fault_pending {
        return Err(Error::MissingCapability {
            what: "KVM_CAP_X86_TRIPLE_FAULT_EVENT",
        });
    }
    Ok(events)
}

#[cfg(test)]
#[path = "activity_test.rs"]
mod tests;
