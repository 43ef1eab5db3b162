//! Which MSRs are a VP's state, in what order they are written, and what a failure to write one means.

use kvm_bindings::KVM_MAX_MSR_ENTRIES;
use kvm_bindings::Msrs;
use kvm_bindings::kvm_msr_entry;
use kvm_ioctls::Kvm;
use kvm_ioctls::VcpuFd;
use virt::Error;
use virt::x86::Msr;

/// IA32_TIME_STAMP_COUNTER.
pub(crate) const TSC: u32 = 0x10;
/// IA32_TSC_DEADLINE.
pub(crate) const TSC_DEADLINE: u32 = 0x6e0;
/// IA32_FEATURE_CONTROL.
pub(crate) const FEATURE_CONTROL: u32 = 0x3a;
/// Its value that allows VMX outside of SMX operation, and allows no change.
pub(crate) const FEATURE_CONTROL_VMX: u64 = 5;

const APIC_BASE: u32 = 0x1b;
const TSC_ADJUST: u32 = 0x3b;
const UCODE_REV: u32 = 0x8b;
const PLATFORM_INFO: u32 = 0xce;
const MTRR_CAP: u32 = 0xfe;
const ARCH_CAPABILITIES: u32 = 0x10a;
const MCG_CAP: u32 = 0x179;
const MCG_STATUS: u32 = 0x17a;
const MCG_CTL: u32 = 0x17b;
const MISC_ENABLE: u32 = 0x1a0;
const PERF_CAPABILITIES: u32 = 0x345;
const FIXED_CTR_CTRL: u32 = 0x38d;
const PERF_GLOBAL_CTRL: u32 = 0x38f;
const XSS: u32 = 0xda0;
const EFER: u32 = 0xc000_0080;
const FS_BASE: u32 = 0xc000_0100;
const GS_BASE: u32 = 0xc000_0101;
const AMD_PERF_GLOBAL_CTL: u32 = 0xc000_0301;
const AMD_DE_CFG: u32 = 0xc001_1029;
/// VM_CR: whether SVM is disabled, and that locked.
const AMD_VM_CR: u32 = 0xc001_0114;
/// The numbers that KVM's paravirtual clock had first; the registers have newer ones too.
const OLD_WALL_CLOCK: u32 = 0x11;
const OLD_SYSTEM_TIME: u32 = 0x12;
/// An acknowledgement, not state.
const ASYNC_PF_ACK: u32 = 0x4b56_4d07;
const ASYNC_PF_EN: u32 = 0x4b56_4d02;

/// Memory type range registers (SDM volume 3, 12.11): state that KVM's list does not name.
fn mtrrs() -> impl Iterator<Item = u32> {
    let fixed = [0x250, 0x258, 0x259].into_iter().chain(0x268..=0x26f);
    (0x200..=0x20f).chain(fixed).chain([0x2ff])
}

/// Whether the MSR is saved as one: not if another element of the state contains it, or it is no state.
fn is_state(index: u32) -> bool {
    !matches!(
        index,
        TSC | OLD_WALL_CLOCK
            | OLD_SYSTEM_TIME
            | APIC_BASE
            | MTRR_CAP
            | MCG_CAP
            | EFER
            | FS_BASE
            | GS_BASE
            | ASYNC_PF_ACK
            // The x2APIC's registers: the local APIC's page has them.
            | 0x800..=0x8ff
            // Hyper-V's, which guests are not offered.
            | 0x4000_0000..=0x4000_01ff
    )
}

/// When an MSR is written, among the others.
#[derive(Debug, Copy, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// What the processor can do; KVM does not let it change later.
    Capabilities,
    FeatureControl,
    /// Changes what CPUID says.
    MiscEnable,
    /// Says which supervisor state the XSAVE area has.
    Xss,
    /// After the XSAVE area from here on.
    Ordinary,
    /// After the TSC.
    TscAdjust,
    /// Enables what the ones before have set up.
    Enables,
    /// After TSC and local APIC: it starts the timer, if the local APIC is in the right mode.
    TscDeadline,
}

pub(crate) fn phase(index: u32) -> Phase {
    match index {
        0x480..=0x491
        | ARCH_CAPABILITIES
        | PERF_CAPABILITIES
        | PLATFORM_INFO
        | UCODE_REV
        | AMD_DE_CFG => Phase::Capabilities,
        FEATURE_CONTROL => Phase::FeatureControl,
        MISC_ENABLE => Phase::MiscEnable,
        XSS => Phase::Xss,
        TSC_ADJUST => Phase::TscAdjust,
        FIXED_CTR_CTRL | PERF_GLOBAL_CTRL | AMD_PERF_GLOBAL_CTL | ASYNC_PF_EN => Phase::Enables,
        TSC_DEADLINE => Phase::TscDeadline,
        _ => Phase::Ordinary,
    }
}

/// The MSRs that KVM lists: those with state, and those that say what the processor can do.
pub(crate) fn listed(kvm: &Kvm) -> Result<Vec<u32>, Error> {
    let failed = |e| Error::call("ask KVM for its list of MSRs", e);
    let state = kvm.get_msr_index_list().map_err(failed)?;
    let features = kvm.get_msr_feature_index_list().map_err(failed)?;
    Ok([state.as_slice(), features.as_slice()].concat())
}

/// The MSRs to save, in the order to write them: those KVM lists, and those it forgets. `mcg_cap` says how many
/// machine-check banks there are.
pub(crate) fn candidates(listed: &[u32], mcg_cap: u64) -> Vec<u32> {
    let banks = (mcg_cap & 0xff).min(32) as u32;
    let bank_registers = 0x400..0x400 + 4 * banks;
    let mut indices = listed
        .iter()
        .copied()
        .chain(mtrrs())
        .chain([MCG_STATUS, MCG_CTL, AMD_VM_CR])
        .chain(bank_registers)
        .filter(|&index| is_state(index))
        .collect::<Vec<_>>();
    indices.sort_by_key(|&index| (phase(index), index));
    indices.dedup();
    indices
}

/// KVM's list of `msrs`.
fn list(msrs: impl IntoIterator<Item = Msr>) -> Result<Msrs, Error> {
    let entries = msrs.into_iter().map(|msr| kvm_msr_entry {
        index: msr.index,
        data: msr.value,
        ..Default::default()
    });
    let entries: Vec<_> = entries.collect();
    Msrs::from_entries(&entries)
        .map_err(|_| Error::InvalidRequest(format!("{} MSRs in one call", entries.len())))
}

/// Reads MSRs up to the first that cannot be read.
fn read_some(vcpu: &VcpuFd, indices: &[u32]) -> Result<Vec<Msr>, Error> {
    let mut msrs = list(indices.iter().map(|&index| Msr { index, value: 0 }))?;
    let count = vcpu
        .get_msrs(&mut msrs)
        .map_err(|e| Error::call("read MSRs", e))?;
    let read = msrs.as_slice().iter().take(count).map(|entry| Msr {
        index: entry.index,
        value: entry.data,
    });
    Ok(read.collect())
}

/// Reads those of `indices` that can be read.
pub(crate) fn read_readable(vcpu: &VcpuFd, indices: &[u32]) -> Result<Vec<Msr>, Error> {
    let mut msrs = Vec::with_capacity(indices.len());
    let mut rest = indices;
    while !rest.is_empty() {
        let chunk = &rest[..rest.len().min(KVM_MAX_MSR_ENTRIES)];
        let read = read_some(vcpu, chunk)?;
        rest = &rest[read.len()..];
        if read.len() < chunk.len() {
            tracing::trace!(
                msr = format_args!("{:#x}", rest[0]),
                "MSR cannot be read; it is not saved"
            );
            rest = &rest[1..];
        }
        msrs.extend(read);
    }
    Ok(msrs)
}

/// Reads one MSR, or `None` if it cannot be read.
pub(crate) fn read_one(vcpu: &VcpuFd, index: u32) -> Result<Option<u64>, Error> {
    Ok(read_some(vcpu, &[index])?.first().map(|msr| msr.value))
}

/// Whether an MSR that cannot be written may be passed over.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) enum Tolerance {
    /// It may not.
    None,
    /// It may if it has the value already: on some hosts a register can be read but not written.
    SameValue,
}

/// Writes MSRs in order.
pub(crate) fn write(vcpu: &VcpuFd, msrs: &[Msr], tolerance: Tolerance) -> Result<(), Error> {
    let mut rest = msrs;
    while !rest.is_empty() {
        let chunk = &rest[..rest.len().min(KVM_MAX_MSR_ENTRIES)];
        let count = vcpu
            .set_msrs(&list(chunk.iter().copied())?)
            .map_err(|e| Error::call("write MSRs", e))?;
        rest = &rest[count.min(chunk.len())..];
        if count < chunk.len() {
            let Msr { index, value } = chunk[count];
            let same = tolerance == Tolerance::SameValue && read_one(vcpu, index)? == Some(value);
            if !same {
                return Err(Error::InvalidRequest(format!(
                    "the host's KVM refuses the value {value:#x} for MSR {index:#x}"
                )));
            }
            rest = &rest[1..];
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_complete_and_ordered() {
        let listed = [
            TSC_DEADLINE,
            0x174,
            TSC,
            EFER,
            XSS,
            0x4b56_4d01,
            ASYNC_PF_EN,
            0x4b56_4d06,
            OLD_SYSTEM_TIME,
            FEATURE_CONTROL,
            0x4000_0020,
            0x480,
            0xc000_0102,
            0x2ff,
            TSC_ADJUST,
        ];
        let indices = candidates(&listed, 2);
        let at = |index| indices.iter().position(|&i| i == index);
        for absent in [TSC, EFER, OLD_SYSTEM_TIME, 0x4000_0020, 0x408] {
            assert_eq!(at(absent), None, "{absent:#x}");
        }
        assert_eq!(at(0x480), Some(0));
        assert!(at(FEATURE_CONTROL) < at(XSS));
        assert!(at(XSS) < at(0x174));
        assert!(at(0x4b56_4d06) < at(ASYNC_PF_EN));
        assert!(at(0xc000_0102) < at(TSC_ADJUST));
        assert_eq!(indices.last(), Some(&TSC_DEADLINE));
        assert!(at(0x407).is_some() && at(0x26f).is_some());
        assert_eq!(indices.iter().filter(|&&i| i == 0x2ff).count(), 1);
    }
}
