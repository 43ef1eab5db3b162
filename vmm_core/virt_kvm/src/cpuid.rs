//! The CPUID table of each VP: what the host's KVM supports, with the guest's topology and features.

use crate::capabilities::Capabilities;
use kvm_bindings::KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
use kvm_bindings::kvm_cpuid_entry2;
use std::ops::RangeInclusive;
use virt::ProcessorFeatures;
use virt::Topology;
use virt::VpTopology;
use virt::x86::CpuidEntry;
use virt::x86::nested::NestedFormat;

/// The last extended leaf that is kept: those after it describe the host's topology and encryption.
const LAST_EXTENDED_LEAF: u32 = 0x8000_0022;

/// The bit of VMX in ECX of leaf 1.
const VMX: u32 = 5;
/// The bit of SVM in ECX of leaf 0x8000_0001.
const SVM: u32 = 2;

/// KVM's form of an entry as `virt`'s.
pub(crate) fn entry(e: &kvm_cpuid_entry2) -> CpuidEntry {
    CpuidEntry {
        leaf: e.function,
        subleaf: (e.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX != 0).then_some(e.index),
        eax: e.eax,
        ebx: e.ebx,
        ecx: e.ecx,
        edx: e.edx,
    }
}

/// The other way round.
pub(crate) fn kvm_entry(e: &CpuidEntry) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 {
        function: e.leaf,
        index: e.subleaf.unwrap_or(0),
        flags: e.subleaf.map_or(0, |_| KVM_CPUID_FLAG_SIGNIFCANT_INDEX),
        eax: e.eax,
        ebx: e.ebx,
        ecx: e.ecx,
        edx: e.edx,
        padding: [0; 3],
    }
}

/// Whether CPUID has AMD's layout rather than Intel's.
fn is_amd(entries: &[CpuidEntry]) -> bool {
    let leaf0 = entries.iter().find(|e| e.leaf == 0);
    let name = leaf0.map(|e| [e.ebx, e.edx, e.ecx].map(u32::to_le_bytes).concat());
    matches!(name.as_deref(), Some(b"AuthenticAMD" | b"HygonGenuine"))
}

/// The format of the nested state of a host.
pub(crate) fn nested_format(supported: &[CpuidEntry]) -> NestedFormat {
    match is_amd(supported) {
        true => NestedFormat::Svm,
        false => NestedFormat::Vmx,
    }
}

/// Whether a table with all that the host has offers VMX or SVM, by the host's format.
pub(crate) fn has_nested(supported: &[CpuidEntry]) -> bool {
    let (leaf, bit) = match nested_format(supported) {
        NestedFormat::Svm => (0x8000_0001, SVM),
        NestedFormat::Vmx => (1, VMX),
    };
    supported
        .iter()
        .any(|e| e.leaf == leaf && e.ecx & 1 << bit != 0)
}

/// The MSRs that come with SVM: VM_CR, IGNNE, SMM_CTL and VM_HSAVE_PA. Those of VMX KVM hides by itself.
pub(crate) fn nested_msrs(supported: &[CpuidEntry]) -> Option<RangeInclusive<u32>> {
    match nested_format(supported) {
        NestedFormat::Svm => Some(0xc001_0114..=0xc001_0117),
        NestedFormat::Vmx => None,
    }
}

/// Whether the guest has shadow stacks for its user programs or its kernel: CET_SS.
pub(crate) fn has_shadow_stack(table: &[CpuidEntry]) -> bool {
    table
        .iter()
        .any(|e| e.leaf == 7 && e.subleaf == Some(0) && e.ecx & 1 << 7 != 0)
}

/// A field's low bits, as wide as the register says.
fn set_bits(register: &mut u32, shift: u32, width: u32, value: u32) {
    let mask = (1 << width) - 1;
    *register = *register & !(mask << shift) | value.min(mask) << shift;
}

fn set_bit(register: &mut u32, bit: u32, on: bool) {
    set_bits(register, bit, 1, on.into());
}

/// The width of a guest-physical address, in bits: leaf 0x80000008.
pub(crate) fn address_bits(supported: &[CpuidEntry]) -> u8 {
    let leaf = supported.iter().find(|e| e.leaf == 0x8000_0008);
    leaf.map_or(36, |leaf| {
        // Bits 23:16, where not zero, are what the nested page tables reach.
        match (leaf.eax & 0xff, leaf.eax >> 16 & 0xff) {
            (0, _) => 36,
            (bits, 0) => bits as u8,
            (bits, guest) => bits.min(guest) as u8,
        }
    })
}

/// Builds the table of one VP from what KVM supports and what `processor` adds.
///
/// Leaves of KVM itself (0x4000_0000 and up) stay: a guest that knows them has a clock from its first
/// moment. Topology is that of `topology`, in the forms of both vendors: SDM volume 2 (CPUID, leaves
/// 1, 4, 0xB, 0x1F), and AMD's CPUID specification (1, 0xB, 0x8000_0001, 0x8000_0008, 0x8000_001D,
/// 0x8000_001E).
pub(crate) fn build_cpuid(
    supported: &[CpuidEntry],
    topology: &Topology,
    vp: VpTopology,
    capabilities: &Capabilities,
    processor: &ProcessorFeatures,
) -> Vec<CpuidEntry> {
    let amd = is_amd(supported);
    let mut entries = Vec::with_capacity(supported.len() + 8);
    for entry in supported {
        match entry.leaf {
            // Made anew below, or dropped.
            0xb | 0x1f | 0x12 | 0x8000_001d | 0x8000_001e => {}
            0x8000_0000.. if entry.leaf > LAST_EXTENDED_LEAF => {}
            0x8000_000a if !processor.nested => {}
            _ => entries.push(*entry),
        }
    }
    let threads = topology.threads_per_core();
    let in_socket = topology.vps_per_socket();
    let many = in_socket > 1;
    let extended_topology = supported
        .iter()
        .any(|e| e.leaf == 0x8000_0001 && e.ecx & 1 << 22 != 0)
        && amd;
    for entry in &mut entries {
        match entry.leaf {
            0 => entry.eax = entry.eax.max(0xb),
            1 => {
                set_bits(&mut entry.ebx, 24, 8, vp.apic_id);
                set_bits(&mut entry.ebx, 16, 8, 1 << topology.socket_bits());
                set_bit(&mut entry.edx, 28, many);
                set_bit(&mut entry.ecx, 31, true);
                if capabilities.tsc_deadline_timer {
                    set_bit(&mut entry.ecx, 24, true);
                }
                if !processor.nested {
                    set_bit(&mut entry.ecx, VMX, false);
                }
            }
            4 if entry.eax & 0x1f != 0 => {
                let level = entry.eax >> 5 & 7;
                let sharing = if level < 3 {
                    1 << topology.smt_bits()
                } else {
                    1 << topology.socket_bits()
                };
                let cores = 1 << (topology.socket_bits() - topology.smt_bits());
                set_bits(&mut entry.eax, 14, 12, sharing - 1);
                set_bits(&mut entry.eax, 26, 6, cores - 1);
            }
            // SGX needs memory that a guest is not given.
            7 if entry.subleaf == Some(0) => set_bit(&mut entry.ebx, 2, false),
            0x8000_0000 => entry.eax = entry.eax.min(LAST_EXTENDED_LEAF),
            0x8000_0001 => {
                if !processor.nested {
                    set_bit(&mut entry.ecx, SVM, false);
                }
                if amd {
                    set_bit(&mut entry.ecx, 1, many);
                }
            }
            0x8000_0008 if amd => {
                set_bits(&mut entry.ecx, 0, 8, in_socket - 1);
                set_bits(&mut entry.ecx, 12, 4, topology.socket_bits());
            }
            0x8000_0008 => entry.ecx = 0,
            _ => {}
        }
    }
    entries.extend(levels(0xb, topology, vp));
    if entries.iter().any(|e| e.leaf == 0 && e.eax >= 0x1f) {
        entries.extend(levels(0x1f, topology, vp));
    }
    if extended_topology {
        entries.extend(cache_leaves(supported, topology));
        entries.push(CpuidEntry {
            leaf: 0x8000_001e,
            eax: vp.apic_id,
            ebx: (threads - 1) << 8
                | ((vp.apic_id & ((1 << topology.socket_bits()) - 1)) >> topology.smt_bits()),
            ecx: vp.apic_id >> topology.socket_bits(),
            ..Default::default()
        });
        let last = entries.iter_mut().find(|e| e.leaf == 0x8000_0000);
        if let Some(last) = last {
            last.eax = last.eax.max(0x8000_001e);
        }
    }
    processor.adjust_cpuid(&mut entries, vp);
    entries
}

fn subleaf(leaf: u32, subleaf: u32) -> CpuidEntry {
    CpuidEntry {
        leaf,
        subleaf: Some(subleaf),
        ..Default::default()
    }
}

/// The levels of leaf 0xB or 0x1F: threads of a core, cores of a socket, and the end.
fn levels(leaf: u32, topology: &Topology, vp: VpTopology) -> [CpuidEntry; 3] {
    const SMT: u32 = 1 << 8;
    const CORE: u32 = 2 << 8;
    let level = |index, eax, ebx, kind| CpuidEntry {
        eax,
        ebx,
        ecx: index | kind,
        edx: vp.apic_id,
        ..subleaf(leaf, index)
    };
    [
        level(0, topology.smt_bits(), topology.threads_per_core(), SMT),
        level(1, topology.socket_bits(), topology.vps_per_socket(), CORE),
        level(2, 0, 0, 0),
    ]
}

/// AMD's leaf 0x8000_001D: the caches of leaves 0x8000_0005 and 0x8000_0006, and who shares them.
fn cache_leaves(supported: &[CpuidEntry], topology: &Topology) -> Vec<CpuidEntry> {
    let leaf = |function| {
        let found = supported.iter().find(|e| e.leaf == function);
        found.copied().unwrap_or_default()
    };
    let (l1, l2) = (leaf(0x8000_0005), leaf(0x8000_0006));
    let core = 1 << topology.smt_bits();
    let socket = 1 << topology.socket_bits();
    let caches = [
        // Type 1 is data, 2 instructions, 3 both. Sizes in bytes.
        (1, 1, l1.ecx >> 24 << 10, l1.ecx >> 16 & 0xff, l1.ecx, core),
        (2, 1, l1.edx >> 24 << 10, l1.edx >> 16 & 0xff, l1.edx, core),
        (3, 2, l2.ecx >> 16 << 10, ways(l2.ecx), l2.ecx, core),
        (3, 3, l2.edx >> 18 << 19, ways(l2.edx), l2.edx, socket),
    ];
    let mut leaves = Vec::new();
    for (kind, level, size, ways, descriptor, sharing) in caches {
        let line = descriptor & 0xff;
        let sets = size.checked_div(line * ways).unwrap_or(0);
        if sets == 0 {
            continue;
        }
        leaves.push(CpuidEntry {
            // Bit 8: self-initializing.
            eax: kind | level << 5 | 1 << 8 | (sharing - 1) << 14,
            ebx: (line - 1) | (ways - 1) << 22,
            ecx: sets - 1,
            ..subleaf(0x8000_001d, leaves.len() as u32)
        });
    }
    leaves.push(subleaf(0x8000_001d, leaves.len() as u32));
    leaves
}

/// The associativity that leaf 0x8000_0006 encodes in bits 15:12; 0 where the cache is off or does not say.
fn ways(descriptor: u32) -> u32 {
    match descriptor >> 12 & 0xf {
        n @ 1..=4 => n,
        5 => 6,
        6 => 8,
        // 9 refers to leaf 0x8000_001D itself; processors that say so have 16 ways.
        8 | 9 => 16,
        0xa => 32,
        0xb => 48,
        0xc => 64,
        0xd => 96,
        0xe => 128,
        _ => 0,
    }
}

#[cfg(test)]
#[path = "cpuid_test.rs"]
mod tests;
