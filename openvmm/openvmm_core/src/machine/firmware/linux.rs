//! A Linux kernel started directly.

use super::BootError;
use acpi_spec::TableSet;
use guest_memory::GuestMemory;
use guest_memory::MemoryLayout;
use guest_memory::MemoryRange;
use loader::BootState;
use loader::FileError;
use loader::ImageFile;
use loader::linux::LinuxImage;
use loader::linux::LinuxPlan;
use openvmm_defs::config::BootProtocol;
use openvmm_defs::config::LinuxDirect;
use std::fs::File;
use std::path::Path;
use virt::Vp;
use virt::x86::Registers;
use virt::x86::SegmentRegister;
use virt::x86::TableRegister;

/// A Linux kernel and all it needs. Its files stay open, so that a reset boots what the start booted.
pub(crate) struct LinuxBoot(LinuxPlan);

fn open(path: &Path) -> Result<ImageFile<File>, FileError> {
    let file = File::open(path).map_err(|source| FileError::Open {
        path: path.into(),
        source,
    })?;
    ImageFile::new(path.into(), file)
}

impl LinuxBoot {
    /// Opens the files, and checks that they can be loaded into memory of this layout.
    pub(crate) fn plan(
        config: &LinuxDirect,
        tables: &TableSet,
        layout: &MemoryLayout,
    ) -> Result<Self, BootError> {
        let image = LinuxImage {
            kernel: open(&config.kernel)?,
            initrd: config.initrd.as_deref().map(open).transpose()?,
            cmdline: &config.cmdline,
            acpi: tables,
            protocol: match config.protocol {
                BootProtocol::Auto => loader::linux::BootProtocol::Auto,
                BootProtocol::Linux64 => loader::linux::BootProtocol::Linux64,
                BootProtocol::Pvh => loader::linux::BootProtocol::Pvh,
            },
        };
        Ok(Self(LinuxPlan::new(layout, image)?))
    }

    /// Loads everything into guest memory.
    pub(crate) fn load(&mut self, memory: &GuestMemory) -> Result<BootState, BootError> {
        Ok(self.0.load(memory.map())?)
    }
}

/// Sets the boot processor's registers, from those it has after reset.
pub(crate) fn enter(
    vp: &mut dyn Vp,
    state: &BootState,
    low_mmio: MemoryRange,
    address_bits: u8,
) -> Result<(), virt::Error> {
    let reset = vp.registers()?;
    let data = segment(state.data);
    vp.set_registers(&Registers {
        rip: state.rip,
        rflags: state.rflags,
        rsp: state.rsp,
        rbx: state.rbx,
        rsi: state.rsi,
        rdx: 0,
        cr0: state.cr0,
        cr3: state.cr3,
        cr4: state.cr4,
        efer: state.efer,
        gdtr: table(state.gdt),
        idtr: table(state.idt),
        cs: segment(state.code),
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        tr: segment(state.task),
        ..reset
    })?;
    vp.set_msrs(&mtrrs(low_mmio, address_bits))
}

fn segment(segment: loader::Segment) -> SegmentRegister {
    SegmentRegister {
        base: segment.base,
        limit: segment.limit,
        selector: segment.selector,
        attributes: segment.attributes.into(),
    }
}

fn table(table: loader::DescriptorTable) -> TableRegister {
    TableRegister {
        base: table.base,
        limit: table.limit,
    }
}

/// Memory types as firmware would have set them (SDM volume 3, 12.11): write-back, except for the legacy
/// video memory and the low MMIO gap. Without MTRRs Linux turns PAT off.
fn mtrrs(low_mmio: MemoryRange, address_bits: u8) -> Vec<(u32, u64)> {
    const PHYS_BASE0: u32 = 0x200;
    const PHYS_MASK0: u32 = 0x201;
    const FIX64K_00000: u32 = 0x250;
    const FIX16K_80000: u32 = 0x258;
    const FIX4K_C0000: u32 = 0x268;
    const DEF_TYPE: u32 = 0x2ff;
    const ALL_WRITE_BACK: u64 = 0x0606_0606_0606_0606;
    const ENABLE_WITH_FIXED: u64 = 0xc00;
    const WRITE_BACK: u64 = 6;
    const VALID: u64 = 1 << 11;
    const VARIABLE_RANGES: u32 = 8;

    let mut msrs = vec![
        (FIX64K_00000, ALL_WRITE_BACK),
        (FIX16K_80000, ALL_WRITE_BACK),
    ];
    msrs.extend((FIX4K_C0000..FIX4K_C0000 + 8).map(|msr| (msr, ALL_WRITE_BACK)));
    // Each variable range covers a power of two that is aligned to its size. Without enough of them the rest of the
    // gap is write-back, which only matters to a host that looks at the guest's types.
    let all_bits = u64::MAX >> (64 - u32::from(address_bits.clamp(32, 52)));
    for (n, (start, len)) in (0..VARIABLE_RANGES).zip(aligned_blocks(low_mmio)) {
        msrs.push((PHYS_BASE0 + 2 * n, start));
        msrs.push((PHYS_MASK0 + 2 * n, all_bits & !(len - 1) | VALID));
    }
    msrs.push((DEF_TYPE, ENABLE_WITH_FIXED | WRITE_BACK));
    msrs
}

/// Start and length of the largest aligned powers of two that make up a range.
fn aligned_blocks(range: MemoryRange) -> impl Iterator<Item = (u64, u64)> {
    let mut start = range.start;
    std::iter::from_fn(move || {
        let rest = range.end.checked_sub(start).filter(|rest| *rest > 0)?;
        let aligned = match start {
            0 => u64::MAX,
            start => 1 << start.trailing_zeros(),
        };
        let len = aligned.min(1 << rest.ilog2());
        let block = (start, len);
        start += len;
        Some(block)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gap_is_uncacheable() {
        let gap = MemoryRange {
            start: 0xc000_0000,
            end: 1 << 32,
        };
        let msrs = mtrrs(gap, 40);
        assert!(msrs.contains(&(0x200, 0xc000_0000)));
        assert!(msrs.contains(&(0x201, 0xff_c000_0800)));
        assert_eq!(msrs.last(), Some(&(0x2ff, 0xc06)));
    }

    #[test]
    fn a_gap_of_any_shape_is_made_of_blocks() {
        let blocks = |start, end| aligned_blocks(MemoryRange { start, end }).collect::<Vec<_>>();
        assert_eq!(
            blocks(0xb000_0000, 1 << 32),
            [(0xb000_0000, 0x1000_0000), (0xc000_0000, 0x4000_0000)]
        );
        assert_eq!(blocks(0, 0x3000), [(0, 0x2000), (0x2000, 0x1000)]);
        assert_eq!(blocks(0x1000, 0x1000), []);
    }
}
