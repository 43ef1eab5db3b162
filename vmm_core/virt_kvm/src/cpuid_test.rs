use super::*;
use crate::msr_filter;
use mesh::saved_state::RestoreError;
use mesh::saved_state::SaveError;
use mesh::saved_state::SavedState;
use std::ops::RangeInclusive;
use std::sync::Arc;
use virt::CpuidOverride;
use virt::Enlightenment;
use virt::TopologyConfig;
use virt::VpIndex;

/// For leaves without subleaves.
const NONE: u32 = u32::MAX;

fn entry(leaf: u32, subleaf: u32, registers: [u32; 4]) -> CpuidEntry {
    let [eax, ebx, ecx, edx] = registers;
    CpuidEntry {
        leaf,
        subleaf: (subleaf != NONE).then_some(subleaf),
        eax,
        ebx,
        ecx,
        edx,
    }
}

fn name(text: &[u8; 12]) -> [u32; 3] {
    let word = |n: usize| u32::from_le_bytes([text[n], text[n + 1], text[n + 2], text[n + 3]]);
    // EBX, ECX, EDX; the name is in EBX, EDX, ECX.
    [word(0), word(8), word(4)]
}

/// What KVM says on an Intel server: 16 cores, 32 threads, VMX, SGX, the host's leaf 4.
fn intel() -> Vec<CpuidEntry> {
    let [b, c, d] = name(b"GenuineIntel");
    vec![
        entry(0, NONE, [0x20, b, c, d]),
        entry(1, NONE, [0x606a6, 0x0720_0800, 0xf7fa_3223, 0x0f8b_fbff]),
        entry(4, 0, [0x7c00_4121, 0x02c0_003f, 0x3f, 0]),
        entry(4, 1, [0x7c00_4122, 0x01c0_003f, 0x3f, 0]),
        entry(4, 2, [0x7c00_4143, 0x04c0_003f, 0x3ff, 0]),
        entry(4, 3, [0x7c07_c163, 0x02c0_003f, 0x7fff, 4]),
        entry(4, 4, [0, 0, 0, 0]),
        entry(7, 0, [2, 0xf1bf_07ef, 0x0040_5f46, 0xac00_0410]),
        entry(0xb, 0, [1, 2, 0x100, 7]),
        entry(0xd, 0, [7, 0x340, 0x340, 0]),
        entry(0x12, 0, [1, 0, 0, 0x241f]),
        entry(0x1f, 0, [1, 2, 0x100, 7]),
        entry(
            0x4000_0000,
            NONE,
            [0x4000_0001, 0x4b4d_564b, 0x564b_4d56, 0x4d],
        ),
        entry(0x4000_0001, NONE, [0x0100_7efb, 0, 0, 0]),
        entry(0x8000_0000, NONE, [0x8000_0008, 0, 0, 0]),
        entry(0x8000_0001, NONE, [0, 0, 0x121, 0x2c10_0800]),
        entry(0x8000_0008, NONE, [0x302e, 0x100_d000, 0x1234, 0]),
    ]
}

/// What KVM says on an AMD server with TOPOEXT: SVM, 32 KiB L1, 512 KiB L2, 32 MiB L3.
fn amd() -> Vec<CpuidEntry> {
    let [b, c, d] = name(b"AuthenticAMD");
    vec![
        entry(0, NONE, [0x10, b, c, d]),
        entry(
            1,
            NONE,
            [0x00a0_0f11, 0x0b40_0800, 0x7eda_3203, 0x178b_fbff],
        ),
        entry(7, 0, [0, 0x219c_91a9, 0x0040_0684, 0x10]),
        entry(0xb, 0, [1, 2, 0x100, 11]),
        entry(
            0x4000_0000,
            NONE,
            [0x4000_0001, 0x4b4d_564b, 0x564b_4d56, 0x4d],
        ),
        entry(0x8000_0000, NONE, [0x8000_0028, b, c, d]),
        entry(
            0x8000_0001,
            NONE,
            [0x00a0_0f11, 0x4000_0000, 0x75c2_37ff, 0x2fd3_fbff],
        ),
        entry(
            0x8000_0005,
            NONE,
            [0xff40_ff40, 0xff40_ff40, 0x2008_0140, 0x2008_0140],
        ),
        entry(
            0x8000_0006,
            NONE,
            [0x4800_2200, 0x6800_4200, 0x0200_6140, 0x0100_9140],
        ),
        entry(
            0x8000_0008,
            NONE,
            [0x0030_3030, 0x111e_f657, 0x703f, 0x1_0007],
        ),
        entry(0x8000_000a, NONE, [1, 0x8000, 0, 0x101b_bcff]),
        entry(0x8000_001d, 0, [0, 0, 0, 0]),
        entry(0x8000_001e, NONE, [0, 0, 0, 0]),
        entry(0x8000_0026, 0, [0, 0, 0, 0]),
    ]
}

fn topology(processors: u32, vps_per_socket: Option<u32>, threads_per_core: u32) -> Topology {
    Topology::new(TopologyConfig {
        processors,
        vps_per_socket,
        threads_per_core,
    })
    .unwrap()
}

struct Table(Vec<CpuidEntry>);

impl Table {
    fn new(supported: &[CpuidEntry], topology: &Topology, vp: usize) -> Self {
        Self::with(supported, topology, vp, &ProcessorFeatures::default())
    }

    fn with(
        supported: &[CpuidEntry],
        topology: &Topology,
        vp: usize,
        processor: &ProcessorFeatures,
    ) -> Self {
        let vp = topology.vps()[vp];
        let capabilities = Capabilities::ALL;
        Self(build_cpuid(
            supported,
            topology,
            vp,
            &capabilities,
            processor,
        ))
    }

    fn find(&self, leaf: u32, subleaf: u32) -> Option<CpuidEntry> {
        let mut found = self
            .0
            .iter()
            .filter(|e| e.leaf == leaf && e.subleaf.unwrap_or(0) == subleaf);
        let first = found.next().copied();
        assert!(
            found.next().is_none(),
            "leaf {leaf:#x}.{subleaf} is there twice"
        );
        first
    }

    fn get(&self, leaf: u32, subleaf: u32) -> CpuidEntry {
        self.find(leaf, subleaf).unwrap()
    }
}

#[test]
fn every_topology_reads_back_from_the_leaves() {
    for processors in [1, 2, 3, 4, 6, 8, 17, 48, 64] {
        for (per_socket, threads) in [
            (None, 1),
            (None, 2),
            (Some(2), 1),
            (Some(6), 2),
            (Some(64), 1),
        ] {
            let topology = topology(processors, per_socket, threads);
            for (vp, place) in topology.vps().iter().enumerate() {
                for supported in [intel(), amd()] {
                    let t = Table::new(&supported, &topology, vp);
                    assert_eq!(t.get(1, 0).ebx >> 24, place.apic_id & 0xff);
                    assert!(t.get(1, 0).ebx >> 16 & 0xff >= topology.vps_per_socket());
                    assert_eq!(
                        t.get(1, 0).edx >> 28 & 1 == 1,
                        topology.vps_per_socket() > 1
                    );
                    assert!(t.get(0, 0).eax >= 0xb);
                    let (smt, core, end) = (t.get(0xb, 0), t.get(0xb, 1), t.get(0xb, 2));
                    assert_eq!((smt.edx, core.edx), (place.apic_id, place.apic_id));
                    assert_eq!((smt.ecx, core.ecx, end.ecx), (0x100, 0x201, 2));
                    assert_eq!((smt.ebx, core.ebx), (threads, topology.vps_per_socket()));
                    // Sockets by APIC id are those by VP number.
                    let socket = place.apic_id >> core.eax;
                    assert_eq!(socket, place.index.0 / topology.vps_per_socket());
                    let thread = place.apic_id & ((1 << smt.eax) - 1);
                    assert!(thread < threads);
                }
            }
        }
    }
}

#[test]
fn intel_caches_are_shared_as_the_topology_says() {
    let topology = topology(8, Some(4), 2);
    let t = Table::new(&intel(), &topology, 5);
    let shared = |index| t.get(4, index).eax >> 14 & 0xfff;
    let cores = |index| t.get(4, index).eax >> 26;
    assert_eq!([0, 1, 2, 3].map(shared), [1, 1, 1, 3]);
    assert_eq!([0, 1, 2, 3].map(cores), [1, 1, 1, 1]);
    assert_eq!(t.get(4, 4).eax, 0, "the end of the list stays the end");
    assert_eq!(t.get(4, 3).ebx, 0x02c0_003f, "the cache's geometry stays");
    assert_eq!(t.get(0x1f, 1).eax, 2);
    assert_eq!(t.get(0x8000_0008, 0).ecx, 0);
    assert_eq!(t.find(0x8000_001e, 0), None);
}

#[test]
fn amd_leaves_follow_the_topology() {
    let topology = topology(16, Some(8), 2);
    let t = Table::new(&amd(), &topology, 13);
    // VP 13 is thread 1 of core 2 of socket 1.
    let node = t.get(0x8000_001e, 0);
    assert_eq!((node.eax, node.ebx, node.ecx), (13, 1 << 8 | 2, 1));
    assert_eq!(t.get(0x8000_0008, 0).ecx, 3 << 12 | 7);
    assert_eq!(t.get(0x8000_0001, 0).ecx >> 1 & 1, 1, "CmpLegacy");
    let cache = |index| {
        let e = t.get(0x8000_001d, index);
        let (line, ways) = ((e.ebx & 0xfff) + 1, (e.ebx >> 22) + 1);
        let kind = e.eax & 0x1f;
        (
            kind,
            e.eax >> 5 & 7,
            line * ways * (e.ecx + 1),
            (e.eax >> 14 & 0xfff) + 1,
        )
    };
    assert_eq!(cache(0), (1, 1, 32 << 10, 2));
    assert_eq!(cache(1), (2, 1, 32 << 10, 2));
    assert_eq!(cache(2), (3, 2, 512 << 10, 2));
    assert_eq!(cache(3), (3, 3, 32 << 20, 8));
    assert_eq!(t.get(0x8000_001d, 4).eax, 0);
    assert_eq!(t.find(0x1f, 0), None, "not below the highest basic leaf");
}

#[test]
fn one_vp_is_no_multiprocessor() {
    let t = Table::new(&intel(), &topology(1, None, 1), 0);
    assert_eq!(t.get(1, 0).ebx, 0x0001_0800);
    assert_eq!(t.get(1, 0).edx >> 28 & 1, 0);
    assert_eq!(t.get(0xb, 1).eax, 0);
    let t = Table::new(&amd(), &topology(1, None, 1), 0);
    assert_eq!(t.get(0x8000_0001, 0).ecx >> 1 & 1, 0);
    assert_eq!(t.get(0x8000_0008, 0).ecx, 0);
}

#[test]
fn features_a_guest_is_not_given() {
    let topology = topology(2, None, 1);
    let t = Table::new(&intel(), &topology, 0);
    assert_eq!(t.get(1, 0).ecx >> 5 & 1, 0, "VMX");
    assert_eq!(t.get(1, 0).ecx >> 31, 1, "hypervisor");
    assert_eq!(t.get(1, 0).ecx >> 24 & 1, 1, "TSC deadline");
    assert_eq!(t.get(1, 0).ecx >> 21 & 1, 1, "x2APIC");
    assert_eq!(t.get(7, 0).ebx >> 2 & 1, 0, "SGX");
    assert_eq!(t.find(0x12, 0), None);
    assert_eq!(t.get(0x4000_0000, 0), intel()[12]);
    assert_eq!(t.get(0x4000_0001, 0), intel()[13]);
    assert_eq!(t.get(0xd, 0), intel()[9]);

    let t = Table::new(&amd(), &topology, 0);
    assert_eq!(t.get(0x8000_0001, 0).ecx >> 2 & 1, 0, "SVM");
    assert_eq!(t.find(0x8000_000a, 0), None);
    assert_eq!(t.find(0x8000_0026, 0), None);
    assert_eq!(t.get(0x8000_0000, 0).eax, LAST_EXTENDED_LEAF);

    let nested = ProcessorFeatures {
        nested: true,
        ..Default::default()
    };
    let t = Table::with(&amd(), &topology, 0, &nested);
    assert_eq!(t.get(0x8000_0001, 0).ecx >> 2 & 1, 1);
    assert!(t.find(0x8000_000a, 0).is_some());
    let t = Table::with(&intel(), &topology, 0, &nested);
    assert_eq!(t.get(1, 0).ecx >> 5 & 1, 1);
}

#[test]
fn nested_virtualization_is_that_of_the_hosts_vendor() {
    assert_eq!(nested_format(&intel()), NestedFormat::Vmx);
    assert_eq!(nested_format(&amd()), NestedFormat::Svm);
    assert_eq!(nested_msrs(&intel()), None);
    assert!(nested_msrs(&amd()).is_some());
    for (mut supported, leaf) in [(intel(), 1), (amd(), 0x8000_0001)] {
        assert!(has_nested(&supported));
        for entry in supported.iter_mut().filter(|e| e.leaf == leaf) {
            entry.ecx = 0;
        }
        assert!(!has_nested(&supported));
    }
}

#[test]
fn shadow_stacks() {
    let table = |subleaf, ecx| [entry(7, subleaf, [0, 0, ecx, 0])];
    assert!(has_shadow_stack(&table(0, 1 << 7)));
    assert!(!has_shadow_stack(&table(0, !(1 << 7))));
    assert!(!has_shadow_stack(&table(1, 1 << 7)));
}

#[test]
fn an_old_processor_gets_the_leaf_that_x2apic_needs() {
    let mut supported = intel();
    supported[0].eax = 7;
    let t = Table::new(&supported, &topology(2, None, 1), 1);
    assert_eq!(t.get(0, 0).eax, 0xb);
    assert_eq!(t.get(0xb, 0).edx, 1);
    assert_eq!(t.find(0x1f, 0), None);
}

#[test]
fn address_widths() {
    assert_eq!(address_bits(&intel()), 46);
    assert_eq!(address_bits(&amd()), 48);
    let narrow = [entry(0x8000_0008, NONE, [0x002e_3030, 0, 0, 0])];
    assert_eq!(address_bits(&narrow), 46);
    assert_eq!(address_bits(&[]), 36);
}

/// Takes over KVM's own leaf, and some MSRs.
#[derive(Debug)]
struct Paravirtual;

impl Enlightenment for Paravirtual {
    fn name(&self) -> &'static str {
        "paravirtual"
    }
    fn cpuid(&self, vp: VpTopology) -> Vec<CpuidEntry> {
        vec![
            entry(0x4000_0000, NONE, [0x4000_0005, 1, 2, 3]),
            entry(0x4000_0005, NONE, [vp.apic_id, 0, 0, 0]),
        ]
    }
    fn msrs(&self) -> &[RangeInclusive<u32>] {
        &[0x4000_0000..=0x4000_0003, 0x4000_0020..=0x4000_0020]
    }
    fn read_msr(&self, _: VpIndex, _: u32) -> Option<u64> {
        None
    }
    fn write_msr(&self, _: VpIndex, _: u32, _: u64) -> Option<()> {
        None
    }
    fn reset(&self) {}
    fn save(&self) -> Result<SavedState, SaveError> {
        Ok(SavedState::encode(&()))
    }
    fn restore(&self, _: &SavedState) -> Result<(), RestoreError> {
        Ok(())
    }
}

#[test]
fn enlightenments_and_overrides_are_in_the_table_and_the_msr_filter() {
    let processor = ProcessorFeatures {
        cpuid_overrides: vec![CpuidOverride {
            leaf: 1,
            subleaf: None,
            mask: [0, 0, 1 << 21, 0],
            value: [0; 4],
        }],
        enlightenments: vec![Arc::new(Paravirtual)],
        ..Default::default()
    };
    let topology = topology(2, None, 1);
    let t = Table::with(&intel(), &topology, 1, &processor);
    assert_eq!(t.get(0x4000_0000, 0).eax, 0x4000_0005);
    assert_eq!(t.get(0x4000_0005, 0).eax, 1);
    assert_eq!(t.get(0x4000_0001, 0), intel()[13], "KVM's other leaf stays");
    assert_eq!(t.get(1, 0).ecx >> 21 & 1, 0, "x2APIC");
    assert_eq!(
        msr_filter::split(&processor.msr_intercepts()).unwrap(),
        [(0x4000_0000, 4), (0x4000_0020, 1)]
    );
}
