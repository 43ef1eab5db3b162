//! KVM's capabilities: finding and enabling those that a VM uses.

use crate::ioctl;
use kvm_bindings::*;
use kvm_ioctls::VmFd;
use virt::Error;
use virt::HostKind;
use virt::IrqchipMode;

/// Pins of an IOAPIC.
pub(crate) const IOAPIC_PINS: u32 = 24;

/// Quirks that are disabled: `out 0x7e` leaves RIP past the instruction, unlike other ports; and KVM
/// patches `vmcall` and `vmmcall` in the guest's code.
const UNWANTED_QUIRKS: u32 = KVM_X86_QUIRK_OUT_7E_INC_RIP | KVM_X86_QUIRK_FIX_HYPERCALL_INSN;

/// KVM_CAP_X2APIC_API: APIC ids have 32 bits in MSIs and in the local APIC's state, and 255 is one of them.
const X2APIC_API_FLAGS: u64 =
    (KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK) as u64;

/// Optional capabilities of one VM, as found and enabled.
#[derive(Debug, Copy, Clone, Default, serde::Serialize)]
pub(crate) struct Capabilities {
    pub(crate) exception_payload: bool,
    pub(crate) triple_fault_event: bool,
    pub(crate) user_space_msr: bool,
    pub(crate) x2apic_api: bool,
    pub(crate) readonly_memory: bool,
    pub(crate) sregs2: bool,
    pub(crate) tsc_deadline_timer: bool,
    pub(crate) tsc_control: bool,
    /// The TSC offset attribute exists and has an effect.
    pub(crate) tsc_offset: bool,
    /// Bytes of an XSAVE area.
    pub(crate) xsave_size: usize,
    /// Bytes of the largest nested state; 0 where KVM has none.
    pub(crate) nested_state_size: usize,
    /// Entries of the GSI routing table.
    pub(crate) max_routes: u32,
    /// Memory slots.
    pub(crate) max_slots: u32,
}

fn extension(vm: &VmFd, capability: u32) -> u32 {
    u32::try_from(vm.check_extension_raw(capability.into())).unwrap_or(0)
}

fn enable(vm: &VmFd, capability: u32, argument: u64) -> Result<(), kvm_ioctls::Error> {
    vm.enable_cap(&kvm_enable_cap {
        cap: capability,
        args: [argument, 0, 0, 0],
        ..Default::default()
    })
}

/// Enables a capability that the VM can do without; whether KVM has it.
macro_rules! enable_optional {
    ($vm:expr, $capability:ident, $argument:expr) => {
        match enable($vm, $capability, $argument) {
            Ok(()) => true,
            Err(error) => {
                let capability = stringify!($capability);
                tracing::debug!(capability, %error, "KVM lacks an optional capability");
                false
            }
        }
    };
}

/// Enables what a VM uses, before it has vCPUs.
///
/// KVM_CAP_EXIT_ON_EMULATION_FAILURE is not enabled. With it, an instruction that KVM cannot emulate leaves to the VMM
/// whoever executed it, which would let a user process of the guest, or a guest of the guest, end the VM. Without it
/// they get #UD, and only the guest's own kernel (CPL 0) leaves.
pub(crate) fn enable_capabilities(
    vm: &VmFd,
    host: HostKind,
    irqchip: IrqchipMode,
) -> Result<Capabilities, Error> {
    let missing = |what| Error::MissingCapability { what };
    if extension(vm, KVM_CAP_IMMEDIATE_EXIT) == 0 {
        return Err(missing("KVM_CAP_IMMEDIATE_EXIT"));
    }
    if extension(vm, KVM_CAP_IRQ_ROUTING) == 0 {
        return Err(missing("KVM_CAP_IRQ_ROUTING"));
    }
    if irqchip == IrqchipMode::Split {
        enable(vm, KVM_CAP_SPLIT_IRQCHIP, IOAPIC_PINS.into())
            .map_err(|_| missing("KVM_CAP_SPLIT_IRQCHIP"))?;
    }
    let quirks = extension(vm, KVM_CAP_DISABLE_QUIRKS2) & UNWANTED_QUIRKS;
    if quirks != 0 {
        enable_optional!(vm, KVM_CAP_DISABLE_QUIRKS2, quirks.into());
    }
    let msr_reasons = u64::from(KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_FILTER);
    let xsave_size = (extension(vm, KVM_CAP_XSAVE2) as usize).max(ioctl::XSAVE_MIN_SIZE);
    Ok(Capabilities {
        exception_payload: enable_optional!(vm, KVM_CAP_EXCEPTION_PAYLOAD, 1),
        triple_fault_event: enable_optional!(vm, KVM_CAP_X86_TRIPLE_FAULT_EVENT, 1),
        user_space_msr: enable_optional!(vm, KVM_CAP_X86_USER_SPACE_MSR, msr_reasons),
        x2apic_api: enable_optional!(vm, KVM_CAP_X2APIC_API, X2APIC_API_FLAGS),
        readonly_memory: extension(vm, KVM_CAP_READONLY_MEM) != 0,
        sregs2: extension(vm, KVM_CAP_SREGS2) != 0,
        tsc_deadline_timer: extension(vm, KVM_CAP_TSC_DEADLINE_TIMER) != 0,
        tsc_control: extension(vm, KVM_CAP_TSC_CONTROL) != 0,
        // Software virtualization has the attribute, but its guests read the host's counter. Whether a
        // hardware host has it is asked of the first vCPU.
        tsc_offset: host != HostKind::Software,
        xsave_size,
        nested_state_size: extension(vm, KVM_CAP_NESTED_STATE) as usize,
        max_routes: extension(vm, KVM_CAP_IRQ_ROUTING),
        max_slots: extension(vm, KVM_CAP_NR_MEMSLOTS).max(32),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Capabilities {
        /// All capabilities.
        pub(crate) const ALL: Self = Self {
            exception_payload: true,
            triple_fault_event: true,
            user_space_msr: true,
            x2apic_api: true,
            readonly_memory: true,
            sregs2: true,
            tsc_deadline_timer: true,
            tsc_control: true,
            tsc_offset: true,
            xsave_size: 4096,
            nested_state_size: 4224,
            max_routes: 4096,
            max_slots: 512,
        };
    }
}
