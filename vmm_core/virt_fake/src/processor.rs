//! What a fake processor is at power-on.

use virt::HostInfo;
use virt::PartitionConfig;
use virt::ProcessorFeatures;
use virt::VpTopology;
use virt::x86::CpuidEntry;
use virt::x86::Events;
use virt::x86::Msr;
use virt::x86::Tsc;
use virt::x86::VpState;
use virt::x86::nested::NestedFormat;
use virt::x86::reset;

/// Version of the local APIC: 0x14, six LVT entries.
const LAPIC_VERSION: u32 = 0x0005_0014;
/// The signature in leaf 1 of CPUID.
const SIGNATURE: u32 = 0x0080_0f12;

/// MSRs that the fake processor has, and their values after RESET: SYSENTER, APERF and the like are left out.
fn msrs() -> Vec<Msr> {
    let zeros = (0x174..=0x176)
        .chain(0x200..=0x20f)
        .chain([0x250, 0x258, 0x259])
        .chain(0x268..=0x26f)
        .chain([0x2ff])
        .chain(0xc000_0081..=0xc000_0084)
        .chain(0xc000_0102..=0xc000_0103);
    let zeros = zeros.map(|index| Msr { index, value: 0 });
    let set = [
        // IA32_MISC_ENABLE: fast strings.
        Msr {
            index: 0x1a0,
            value: 1,
        },
        // IA32_PAT.
        Msr {
            index: 0x277,
            value: 0x0007_0406_0007_0406,
        },
    ];
    let mut msrs: Vec<_> = zeros.chain(set).collect();
    msrs.sort_by_key(|msr| msr.index);
    msrs
}

/// The frequency of the time stamp counter.
pub(crate) const TSC_KHZ: u32 = 1_000_000;

/// The CPUID table of `vp`. Leaf 1 has the bits `features` in ECX.
pub(crate) fn cpuid(
    host: &HostInfo,
    features: u32,
    processor: &ProcessorFeatures,
    vp: VpTopology,
) -> Vec<CpuidEntry> {
    let entry = |leaf, [eax, ebx, ecx, edx]: [u32; 4]| CpuidEntry {
        leaf,
        subleaf: None,
        eax,
        ebx,
        ecx,
        edx,
    };
    let vmx = u32::from(processor.nested) << 5;
    let mut table = vec![
        entry(0, [1, 0, 0, 0]),
        // Bit 31: a hypervisor is present.
        entry(
            1,
            [SIGNATURE, vp.apic_id << 24, 1 << 31 | vmx | features, 0],
        ),
        entry(0x8000_0000, [0x8000_0008, 0, 0, 0]),
        entry(0x8000_0008, [host.address_bits.into(), 0, 0, 0]),
    ];
    processor.adjust_cpuid(&mut table, vp);
    table
}

/// The state of `vp` when its partition is made.
pub(crate) fn power_on(
    host: &HostInfo,
    features: u32,
    config: &PartitionConfig<'_>,
    vp: VpTopology,
) -> VpState {
    let bsp = vp.index.is_bsp();
    VpState {
        registers: reset::registers(bsp, SIGNATURE),
        cpuid: cpuid(host, features, &config.processor, vp),
        activity: reset::activity(bsp),
        events: Events::default(),
        pdptrs: None,
        xcr0: 1,
        xsave: reset::xsave(),
        msrs: msrs(),
        tsc: Tsc {
            value: 0,
            khz: TSC_KHZ,
        },
        lapic: reset::lapic(LAPIC_VERSION, vp.apic_id, bsp),
        debug: reset::debug_registers(),
        nested: match config.processor.nested {
            true => NestedFormat::Vmx.state_at_reset(),
            false => Vec::new(),
        },
        ssp: None,
    }
}
