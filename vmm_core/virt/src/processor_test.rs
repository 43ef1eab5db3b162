use super::*;

const VP: VpTopology = VpTopology {
    index: VpIndex(1),
    apic_id: 3,
};

fn entry(leaf: u32, subleaf: Option<u32>, registers: [u32; 4]) -> CpuidEntry {
    let [eax, ebx, ecx, edx] = registers;
    CpuidEntry {
        leaf,
        subleaf,
        eax,
        ebx,
        ecx,
        edx,
    }
}

#[derive(Debug)]
struct Leaves;

impl Enlightenment for Leaves {
    fn name(&self) -> &'static str {
        "leaves"
    }
    fn cpuid(&self, vp: VpTopology) -> Vec<CpuidEntry> {
        vec![
            entry(0x4000_0000, None, [0x4000_0001, 0, 0, 0]),
            entry(0x4000_0001, None, [vp.apic_id, 0, 0, 0]),
        ]
    }
    fn msrs(&self) -> &[RangeInclusive<u32>] {
        &[0x4000_0000..=0x4000_0001, 0x4000_0020..=0x4000_0020]
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
fn enlightenments_replace_leaves_and_overrides_come_last() {
    let features = ProcessorFeatures {
        cpuid_overrides: vec![
            CpuidOverride {
                leaf: 7,
                subleaf: Some(0),
                mask: [0, 0xf0, 0x10, 0x20],
                value: [0, 0x5f, 0x10, 0x20],
            },
            CpuidOverride {
                leaf: 0x4000_0001,
                subleaf: None,
                mask: [1, 0, 0, 0],
                value: [0; 4],
            },
            CpuidOverride {
                leaf: 0x21,
                subleaf: None,
                mask: [0, 0, 0, u32::MAX],
                value: [0, 0, 0, 9],
            },
        ],
        enlightenments: vec![Arc::new(Leaves)],
        ..Default::default()
    };
    let mut table = vec![
        entry(7, Some(0), [1, 0xaf, 3, 4]),
        entry(7, Some(1), [1, 0xaf, 3, 4]),
        entry(0x4000_0000, None, [9, 9, 9, 9]),
    ];
    features.adjust_cpuid(&mut table, VP);
    table.sort_by_key(|e| (e.leaf, e.subleaf));
    assert_eq!(
        table,
        [
            entry(7, Some(0), [1, 0x5f, 0x13, 0x24]),
            entry(7, Some(1), [1, 0xaf, 3, 4]),
            entry(0x4000_0000, None, [0x4000_0001, 0, 0, 0]),
            entry(0x4000_0001, None, [2, 0, 0, 0]),
        ]
    );
}

#[test]
fn msrs_belong_to_the_enlightenment_that_takes_them() {
    let features = ProcessorFeatures {
        enlightenments: vec![Arc::new(Leaves)],
        ..Default::default()
    };
    let ranges = [0x4000_0000..=0x4000_0001, 0x4000_0020..=0x4000_0020];
    assert_eq!(features.msr_intercepts(), ranges);
    let owner = |index| features.msr_owner(index).map(Enlightenment::name);
    assert_eq!(owner(0x4000_0001), Some("leaves"));
    assert_eq!(owner(0x4000_0002), None);
}
