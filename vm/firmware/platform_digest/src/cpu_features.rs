//! The features that CPUID tells a guest of.
//!
//! SDM volume 2, CPUID; AMD's architecture manual, volume 3, appendix E; KVM's CPUID leaves. Names are those that Linux
//! prints in `/proc/cpuinfo` where it has one.

use crate::CpuidLeaf;
use std::fmt::Write as _;

/// A register of a CPUID leaf whose bits are features.
struct Word {
    leaf: u32,
    subleaf: Option<u32>,
    /// EAX, EBX, ECX or EDX.
    register: usize,
    /// The names of the bits from bit 0 on, as words. `-` has no name, `!` is no feature of the processor, such as one
    /// that follows the guest's control registers.
    names: &'static str,
}

const fn word(leaf: u32, subleaf: Option<u32>, register: usize, names: &'static str) -> Word {
    Word {
        leaf,
        subleaf,
        register,
        names,
    }
}

const EAX: usize = 0;
const EBX: usize = 1;
const ECX: usize = 2;
const EDX: usize = 3;

const WORDS: [Word; 14] = [
    word(
        1,
        None,
        ECX,
        "pni pclmulqdq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cid sdbg fma cx16 xtpr pdcm - pcid dca sse4_1 sse4_2 \
         x2apic movbe popcnt tsc_deadline_timer aes xsave ! avx f16c rdrand hypervisor",
    ),
    word(
        1,
        None,
        EDX,
        "fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 pn clflush - dts acpi mmx fxsr sse \
         sse2 ss ! tm ia64 pbe",
    ),
    word(
        7,
        Some(0),
        EBX,
        "fsgsbase tsc_adjust sgx bmi1 hle avx2 - smep bmi2 erms invpcid rtm cqm - mpx rdt_a avx512f avx512dq rdseed adx \
         smap avx512ifma - clflushopt clwb intel_pt avx512pf avx512er avx512cd sha_ni avx512bw avx512vl",
    ),
    word(
        7,
        Some(0),
        ECX,
        "prefetchwt1 avx512vbmi umip pku ! waitpkg avx512_vbmi2 shstk gfni vaes vpclmulqdq avx512_vnni avx512_bitalg tme \
         avx512_vpopcntdq - la57 - - - - - rdpid - bus_lock_detect cldemote - movdiri movdir64b enqcmd sgx_lc pks",
    ),
    word(
        7,
        Some(0),
        EDX,
        "- - avx512_4vnniw avx512_4fmaps fsrm uintr - - avx512_vp2intersect - md_clear - - - serialize - tsxldtrk - \
         pconfig arch_lbr ibt - amx_bf16 avx512_fp16 amx_tile amx_int8 ibrs stibp flush_l1d arch_capabilities \
         core_capabilities ssbd",
    ),
    word(7, Some(1), EAX, "- - - - avx_vnni avx512_bf16"),
    word(7, Some(1), EDX, ""),
    word(0xd, Some(0), EAX, ""),
    word(0xd, Some(1), EAX, "xsaveopt xsavec xgetbv1 xsaves xfd"),
    word(
        0x8000_0001,
        None,
        ECX,
        "lahf_lm ! svm extapic cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw ibs xop skinit wdt - lwp fma4 tce - \
         nodeid_msr - tbm topoext perfctr_core perfctr_nb - bpext ptsc perfctr_llc mwaitx",
    ),
    word(
        0x8000_0001,
        None,
        EDX,
        "- - - - - - - - - - - syscall - - - - - - - - nx - mmxext - - fxsr_opt pdpe1gb rdtscp - lm 3dnowext 3dnow",
    ),
    word(0x8000_0007, None, EDX, "- - - - - - - - constant_tsc"),
    word(
        0x8000_0008,
        None,
        EBX,
        "clzero irperf xsaveerptr - rdpru - - - - wbnoinvd - - amd_ibpb - amd_ibrs amd_stibp",
    ),
    word(
        0x4000_0001,
        None,
        EAX,
        "kvm_clock kvm_nop_io_delay kvm_mmu_op kvm_clock2 kvm_async_pf kvm_steal_time kvm_pv_eoi kvm_pv_unhalt - \
         kvm_pv_tlb_flush kvm_async_pf_vmexit kvm_pv_send_ipi kvm_poll_control kvm_pv_sched_yield kvm_async_pf_int \
         kvm_msi_ext_dest_id",
    ),
];

fn find(table: &[CpuidLeaf], leaf: u32, subleaf: Option<u32>) -> Option<[u32; 4]> {
    let entry = table
        .iter()
        .find(|e| (e.leaf, e.subleaf.unwrap_or(0)) == (leaf, subleaf.unwrap_or(0)))?;
    Some(entry.registers)
}

/// The names of the features that `before` has and `now` lacks.
pub fn lost(before: &[CpuidLeaf], now: &[CpuidLeaf]) -> Vec<String> {
    let mut lost = Vec::new();
    for word in &WORDS {
        let bits = |table| find(table, word.leaf, word.subleaf).map_or(0, |r| r[word.register]);
        let missing = bits(before) & !bits(now);
        let names: Vec<_> = word.names.split_whitespace().collect();
        for bit in (0..32).filter(|bit| missing >> bit & 1 == 1) {
            match names.get(bit) {
                Some(&"!") => {}
                Some(&name) if name != "-" => lost.push(name.to_owned()),
                _ => {
                    let (leaf, subleaf) = (word.leaf, word.subleaf.unwrap_or(0));
                    let register = ["EAX", "EBX", "ECX", "EDX"][word.register];
                    lost.push(format!("CPUID {leaf:#x}.{subleaf} {register} bit {bit}"));
                }
            }
        }
    }
    lost
}

/// The vendor in leaf 0.
pub fn vendor(table: &[CpuidLeaf]) -> Option<String> {
    let [_, ebx, ecx, edx] = find(table, 0, None)?;
    Some(text(&[ebx, edx, ecx]))
}

/// The model in leaves 0x80000002 to 0x80000004.
pub fn model(table: &[CpuidLeaf]) -> Option<String> {
    let mut name = Vec::new();
    for leaf in 0x8000_0002..=0x8000_0004 {
        name.extend(find(table, leaf, None)?);
    }
    Some(text(&name))
}

/// A name in registers. What is no printable character is shown as a number.
fn text(registers: &[u32]) -> String {
    let bytes = registers.iter().flat_map(|register| register.to_le_bytes());
    let mut text = String::new();
    for byte in bytes.take_while(|byte| *byte != 0) {
        match byte {
            b' '..=b'~' => text.push(byte.into()),
            // Writing to a string does not fail.
            _ => drop(write!(text, "\\x{byte:02x}")),
        }
    }
    text.trim().to_owned()
}

/// The width of a physical address, in bits; 0 if the table does not say.
pub(crate) fn address_bits(table: &[CpuidLeaf]) -> u32 {
    find(table, 0x8000_0008, None).unwrap_or_default()[EAX] & 0xff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_belong_to_their_bits() {
        let table = |leaf, subleaf, register: usize, bit: u32| {
            let mut registers = [0; 4];
            registers[register] = 1 << bit;
            vec![CpuidLeaf {
                leaf,
                subleaf,
                registers,
            }]
        };
        for (leaf, subleaf, register, bit, name) in [
            (1, None, ECX, 0, "pni"),
            (1, None, ECX, 26, "xsave"),
            (1, None, ECX, 31, "hypervisor"),
            (1, None, EDX, 25, "sse"),
            (1, None, EDX, 31, "pbe"),
            (7, Some(0), EBX, 5, "avx2"),
            (7, Some(0), EBX, 16, "avx512f"),
            (7, Some(0), EBX, 31, "avx512vl"),
            (7, Some(0), ECX, 16, "la57"),
            (7, Some(0), ECX, 31, "pks"),
            (7, Some(0), EDX, 24, "amx_tile"),
            (7, Some(0), EDX, 31, "ssbd"),
            (7, Some(1), EAX, 5, "avx512_bf16"),
            (7, Some(1), EDX, 4, "CPUID 0x7.1 EDX bit 4"),
            (0xd, Some(0), EAX, 9, "CPUID 0xd.0 EAX bit 9"),
            (0xd, Some(1), EAX, 3, "xsaves"),
            (0x8000_0001, None, ECX, 22, "topoext"),
            (0x8000_0001, None, EDX, 20, "nx"),
            (0x8000_0001, None, EDX, 29, "lm"),
            (0x8000_0007, None, EDX, 8, "constant_tsc"),
            (0x8000_0008, None, EBX, 12, "amd_ibpb"),
            (0x4000_0001, None, EAX, 3, "kvm_clock2"),
            (0x4000_0001, None, EAX, 15, "kvm_msi_ext_dest_id"),
            (1, None, ECX, 16, "CPUID 0x1.0 ECX bit 16"),
        ] {
            let before = table(leaf, subleaf, register, bit);
            assert_eq!(lost(&before, &[]), [name]);
            assert_eq!(lost(&[], &before), [""; 0], "a new feature is no loss");
        }
        // They follow the guest's control registers, or its topology.
        for (leaf, subleaf, register, bit) in [
            (1, None, ECX, 27),
            (1, None, EDX, 28),
            (7, Some(0), ECX, 4),
            (0x8000_0001, None, ECX, 1),
            // No word of features.
            (1, None, EAX, 3),
        ] {
            let before = table(leaf, subleaf, register, bit);
            assert_eq!(lost(&before, &[]), [""; 0]);
        }
        for word in &WORDS {
            assert!(word.names.split_whitespace().count() <= 32);
        }
    }
    #[test]
    fn names_are_text() {
        let table = |vendor: &[u8; 12]| {
            let word =
                |n: usize| u32::from_le_bytes(std::array::from_fn(|byte| vendor[4 * n + byte]));
            [CpuidLeaf {
                leaf: 0,
                subleaf: None,
                registers: [0, word(0), word(2), word(1)],
            }]
        };
        assert_eq!(vendor(&table(b"GenuineIntel")).unwrap(), "GenuineIntel");
        assert_eq!(
            vendor(&table(b"a\x07bcdefghi\0\0")).unwrap(),
            "a\\x07bcdefghi"
        );
        assert_eq!((vendor(&[]), model(&[])), (None, None));
    }
}
