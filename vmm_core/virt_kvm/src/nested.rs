//! The state of the guest's own guests: KVM_GET_NESTED_STATE and KVM_SET_NESTED_STATE.

use crate::cpuid;
use crate::ioctl;
use crate::vp::KvmVp;
use virt::Error;
use virt::x86::VpState;
use virt::x86::nested::NestedFormat;
use virt::x86::nested::NestedGuest;
use virt::x86::nested::NestedStateError;

/// Whether the guest is offered nested virtualization. Without it there is no nested state, whatever the host has.
pub(crate) fn is_offered(vp: &KvmVp) -> bool {
    vp.partition.processor.nested
}

fn format(vp: &KvmVp) -> Result<NestedFormat, Error> {
    Ok(cpuid::nested_format(vp.partition.system.supported_cpuid()?))
}

/// Refuses saved state that does not fit to this guest and host.
pub(crate) fn check(vp: &KvmVp, state: &VpState) -> Result<(), Error> {
    let checked = match (is_offered(vp), state.nested.len()) {
        (false, 0) => Ok(()),
        (false, len) => Err(NestedStateError::NotOffered(len)),
        (true, _) => {
            let slots = &vp.partition.slots;
            let guest = NestedGuest {
                format: format(vp)?,
                max_size: vp.partition.capabilities.nested_state_size,
                efer: state.registers.efer,
                smm: state.events.smi.is_some_and(|smi| smi.active),
                is_ram: &|gpa| slots.read(gpa, &mut [0]) == 1,
            };
            guest.check(&state.nested)
        }
    };
    let vp = vp.shared.topology.index;
    checked.map_err(|source| Error::NestedState { vp, source })
}

pub(crate) fn read(vp: &KvmVp) -> Result<Vec<u8>, Error> {
    let size = vp.partition.capabilities.nested_state_size;
    vp.call("read the nested state", |vcpu| {
        ioctl::get_nested_state(vcpu, size)
    })
}

/// Takes the VP out of whatever its guest had entered.
pub(crate) fn leave(vp: &KvmVp) -> Result<(), Error> {
    let state = format(vp)?.state_at_reset();
    vp.call("leave nested virtualization", |vcpu| {
        ioctl::set_nested_state(vcpu, &state)
    })
}

pub(crate) fn write(vp: &KvmVp, state: &[u8]) -> Result<(), Error> {
    let written = vp.call("write the nested state", |vcpu| {
        ioctl::set_nested_state(vcpu, state)
    });
    if written.is_err()
        && let Err(error) = leave(vp)
    {
        // KVM does not take back the part that it did.
        tracing::debug!(%error, "the VP stays in part of a refused nested state");
    }
    written
}
