use crate::VpIndex;
use crate::VpTopology;
use crate::x86::CpuidEntry;
use mesh::saved_state::RestoreError;
use mesh::saved_state::SaveError;
use mesh::saved_state::SavedState;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// A paravirtual interface that the VMM offers to a guest: CPUID leaves, MSRs, and the state behind them.
///
/// The hypervisor backend puts the leaves into the VPs' CPUID tables and makes guest accesses to the MSRs leave to
/// [`IoBus`](crate::IoBus), whose implementation passes them on to the methods here, on VP threads. A state unit of the
/// machine saves, restores and resets the state while all VPs are stopped.
pub trait Enlightenment: fmt::Debug + Send + Sync {
    /// The name of its state unit; unique in the machine, and part of the format of saved state.
    fn name(&self) -> &'static str;

    /// The leaves that `vp` sees. Each replaces the hypervisor's entry for the same leaf and subleaf.
    fn cpuid(&self, vp: VpTopology) -> Vec<CpuidEntry>;

    /// The MSRs that it takes. They do not overlap those of another enlightenment, nor the x2APIC's (0x800 to 0x8ff).
    fn msrs(&self) -> &[RangeInclusive<u32>];

    /// A guest's `rdmsr` of one of [`Enlightenment::msrs`]. `None` raises #GP.
    fn read_msr(&self, vp: VpIndex, index: u32) -> Option<u64>;

    /// A guest's `wrmsr` to one of [`Enlightenment::msrs`]. `None` raises #GP.
    fn write_msr(&self, vp: VpIndex, index: u32, value: u64) -> Option<()>;

    /// Returns the state to power-on.
    fn reset(&self);

    /// Encodes the state of all VPs.
    fn save(&self) -> Result<SavedState, SaveError>;

    /// Replaces the state by a saved one.
    fn restore(&self, state: &SavedState) -> Result<(), RestoreError>;
}

/// Bits of one CPUID entry that are as given here, whatever the hypervisor and the enlightenments say. An entry that
/// the table lacks is not added.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct CpuidOverride {
    /// The leaf: EAX on input.
    pub leaf: u32,
    /// The subleaf: ECX on input; `None` where the leaf has no subleaves.
    pub subleaf: Option<u32>,
    /// Which bits are overridden, in EAX, EBX, ECX and EDX.
    pub mask: [u32; 4],
    /// Their values.
    pub value: [u32; 4],
}

/// What a guest finds in its processors beyond what the hypervisor offers by default.
#[derive(Debug, Clone, Default)]
pub struct ProcessorFeatures {
    /// VMX or SVM, so that the guest can have guests of its own. Making the partition fails where the host cannot
    /// ([`HostInfo::nested`](crate::HostInfo::nested)).
    pub nested: bool,
    /// Changes to the CPUID table, applied last, in order.
    pub cpuid_overrides: Vec<CpuidOverride>,
    /// Paravirtual interfaces of the VMM.
    pub enlightenments: Vec<Arc<dyn Enlightenment>>,
}

impl ProcessorFeatures {
    /// Puts the enlightenments' leaves for `vp` into its CPUID table, then the overrides.
    pub fn adjust_cpuid(&self, table: &mut Vec<CpuidEntry>, vp: VpTopology) {
        for entry in self.enlightenments.iter().flat_map(|e| e.cpuid(vp)) {
            table.retain(|e| (e.leaf, e.subleaf) != (entry.leaf, entry.subleaf));
            table.push(entry);
        }
        for change in &self.cpuid_overrides {
            let place = (change.leaf, change.subleaf);
            for entry in table.iter_mut().filter(|e| (e.leaf, e.subleaf) == place) {
                let registers = [
                    &mut entry.eax,
                    &mut entry.ebx,
                    &mut entry.ecx,
                    &mut entry.edx,
                ];
                let bits = change.mask.into_iter().zip(change.value);
                for (register, (mask, value)) in registers.into_iter().zip(bits) {
                    *register = *register & !mask | value & mask;
                }
            }
        }
    }

    /// The MSRs whose guest accesses go to [`IoBus`](crate::IoBus) whatever the hypervisor knows of them.
    pub fn msr_intercepts(&self) -> Vec<RangeInclusive<u32>> {
        let ranges = self.enlightenments.iter().flat_map(|e| e.msrs());
        ranges.cloned().collect()
    }

    /// The enlightenment that takes MSR `index`.
    pub fn msr_owner(&self, index: u32) -> Option<&dyn Enlightenment> {
        self.enlightenments
            .iter()
            .find(|e| e.msrs().iter().any(|range| range.contains(&index)))
            .map(AsRef::as_ref)
    }
}

#[cfg(test)]
#[path = "processor_test.rs"]
mod tests;
