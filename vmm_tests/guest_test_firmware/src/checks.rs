//! What is checked of the machine.

use crate::entry::Registers;
use crate::hardware;
use crate::uefi_device;
use guest_test_firmware::IMAGE_BASE;
use guest_test_firmware::blob;
use guest_test_firmware::blob::Summary;
use guest_test_firmware::bytes::digest;
use guest_test_firmware::bytes::u64_at;
use guest_test_firmware::memory_types::MAX_RANGES;
use guest_test_firmware::memory_types::UNCACHEABLE;
use guest_test_firmware::memory_types::VariableMtrrs;
use guest_test_firmware::memory_types::WRITE_BACK;
use guest_test_firmware::report::Report;

const PAGE: u64 = 4096;
/// From the image's end to the configuration.
const PAGES_BEFORE_CONFIG: u64 = 9;
/// The length of the volume with the SEC phase, at the end of the image.
const SEC_LEN: usize = 0x2_0000;
const FOUR_GIB: u64 = 1 << 32;

/// Checks everything.
pub(crate) fn all(registers: &Registers, report: &mut Report<'_>) {
    general_registers(registers, report);
    let sec = hardware::memory(registers.rbp, SEC_LEN);
    let signature = u64_at(sec, 40).unwrap_or(0) as u32;
    report.equal(
        "sec.signature",
        u32::from_le_bytes(*b"_FVH").into(),
        signature.into(),
    );
    report.value("image.digest", digest(sec));
    // The image ends with this volume.
    let image_end = registers.rbp + SEC_LEN as u64;
    system_registers(image_end, report);
    page_tables(image_end, report);
    let config = image_end + PAGES_BEFORE_CONFIG * PAGE;
    report.equal("register.r12", config, registers.r12);
    let start = hardware::memory(config, 16);
    let Some(len) = blob::stated_len(start) else {
        report.holds("config.length", false, u64_at(start, 8).unwrap_or(0));
        return;
    };
    let summary = blob::check(hardware::memory(config, len), report);
    report.value("config.length", len as u64);
    let image_pages = (image_end - IMAGE_BASE) / PAGE;
    report.equal("config.bios.size", image_pages, summary.image_pages.into());
    let blob_end = config + len as u64;
    report.holds(
        "memory.config_in_ram",
        blob_end <= summary.low_ram_end,
        blob_end,
    );
    memory(&summary, report);
    memory_types(&summary, report);
    power_management(report);
    clock(report);
    uefi_device::check(report);
}

fn general_registers(registers: &Registers, report: &mut Report<'_>) {
    report.equal("register.rflags", 2, registers.rflags);
    report.equal("register.r8", 0, registers.r8);
    report.equal("register.r9", 0, registers.r9);
    report.equal("register.r10", 0, registers.r10);
    report.equal("register.r11", 0, registers.r11);
    let in_sec = (registers.rbp..registers.rbp + SEC_LEN as u64).contains(&registers.rip);
    report.holds("register.rip", in_sec, registers.rip);
}

fn system_registers(image_end: u64, report: &mut Report<'_>) {
    /// Reads as 1 on every processor.
    const CR0_ET: u64 = 1 << 4;
    const EFER: u32 = 0xc000_0080;
    const PAT: u32 = 0x277;
    let control = hardware::control_registers();
    report.equal("register.cr0", 0x8000_0023, control.cr0 & !CR0_ET);
    report.equal("register.cr3", image_end, control.cr3);
    report.equal("register.cr4", 0x660, control.cr4);
    report.equal("register.efer", 0xd00, hardware::read_msr(EFER));
    report.equal(
        "register.pat",
        0x0007_0406_0007_0406,
        hardware::read_msr(PAT),
    );
    for (selector, (name, expected)) in hardware::selectors().into_iter().zip([
        ("register.cs", 0x08),
        ("register.ds", 0x10),
        ("register.es", 0x10),
        ("register.fs", 0x10),
        ("register.gs", 0x10),
        ("register.ss", 0x10),
    ]) {
        report.equal(name, expected, selector.into());
    }
    let (base, limit) = hardware::gdtr();
    report.equal("register.gdtr.base", image_end + 6 * PAGE, base);
    report.equal("register.gdtr.limit", 31, limit.into());
}

/// Checks the page tables and what is behind them, up to the configuration.
fn page_tables(image_end: u64, report: &mut Report<'_>) {
    const TABLE: u64 = 0x23;
    const LEAF: u64 = 0xe3;
    let entry = |page: u64, index: u64| hardware::read_memory(image_end + page * PAGE + index * 8);
    report.equal("pages.pml4", (image_end + PAGE) | TABLE, entry(0, 0));
    report.equal("pages.pml4.rest", 0, entry(0, 1));
    for n in 0..4 {
        report.equal(
            "pages.pdpt",
            (image_end + (2 + n) * PAGE) | TABLE,
            entry(1, n),
        );
        // The last entry of each directory.
        let last = (n << 30) + (511 << 21);
        report.equal("pages.directory", last | LEAF, entry(2 + n, 511));
    }
    report.equal("pages.pdpt.rest", 0, entry(1, 4));
    let gdt = [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0];
    for (n, expected) in (0..).zip(gdt) {
        report.equal("gdt.entry", expected, entry(6, n));
    }
    let mut set = 0;
    for n in 0..2 * PAGE / 8 {
        set |= entry(7, n);
    }
    report.equal("pages.scratch", 0, set);
}

/// Checks that the ends of RAM can be written.
fn memory(summary: &Summary, report: &mut Report<'_>) {
    const PATTERN: u64 = 0x0123_4567_89ab_cdef;
    for (name, gpa) in [
        ("memory.first_mib", 0x1000),
        ("memory.before_stack", 0x6_0000),
        ("memory.last", summary.low_ram_end - 8),
    ] {
        hardware::write_memory(gpa, PATTERN ^ gpa);
        report.equal(name, PATTERN ^ gpa, hardware::read_memory(gpa));
    }
}

fn memory_types(summary: &Summary, report: &mut Report<'_>) {
    const CAPABILITIES: u32 = 0xfe;
    const DEFAULT: u32 = 0x2ff;
    const FIX64K: u32 = 0x250;
    const FIX16K_80000: u32 = 0x258;
    const FIX16K_A0000: u32 = 0x259;
    const PHYS_BASE0: u32 = 0x200;
    let count = (hardware::read_msr(CAPABILITIES) & 0xff) as usize;
    let mut mtrrs = VariableMtrrs {
        ranges: [(0, 0); MAX_RANGES],
        default: hardware::read_msr(DEFAULT),
    };
    report.equal("mtrr.default", 0xc00, mtrrs.default);
    let write_back = 0x0606_0606_0606_0606;
    report.equal("mtrr.fix64k", write_back, hardware::read_msr(FIX64K));
    report.equal("mtrr.fix16k", write_back, hardware::read_msr(FIX16K_80000));
    report.equal("mtrr.fix16k.video", 0, hardware::read_msr(FIX16K_A0000));
    for (n, range) in (0..count as u32).zip(&mut mtrrs.ranges) {
        let base = PHYS_BASE0 + 2 * n;
        *range = (hardware::read_msr(base), hardware::read_msr(base + 1));
    }
    let mut last = [0, 0];
    if summary.ram_end > FOUR_GIB {
        last = [FOUR_GIB, summary.ram_end - PAGE];
    }
    for gpa in [IMAGE_BASE, summary.low_ram_end - PAGE]
        .into_iter()
        .chain(last)
    {
        // Below 1 MiB the fixed ranges say it.
        if gpa != 0 {
            report.equal("mtrr.ram", WRITE_BACK, mtrrs.kind_at(gpa));
        }
    }
    for gpa in [summary.low_gap, 0xfee0_0000, FOUR_GIB - PAGE] {
        report.equal("mtrr.gap", UNCACHEABLE, mtrrs.kind_at(gpa));
    }
}

fn power_management(report: &mut Report<'_>) {
    const PM1_CONTROL: u16 = 0x404;
    const TIMER: u16 = 0x408;
    const GPE0_ENABLE: u16 = 0x40e;
    report.equal("pm.control", 1, hardware::read_port_16(PM1_CONTROL).into());
    let start = hardware::read_port_32(TIMER);
    let mut ticks = 0;
    // An exit to the VMM takes more than a tick.
    for _ in 0..10_000 {
        ticks = hardware::read_port_32(TIMER).wrapping_sub(start);
        if ticks > 0 {
            break;
        }
    }
    report.holds("pm.timer", ticks > 0, ticks.into());
    hardware::write_port_16(GPE0_ENABLE, 0xffff);
    report.equal(
        "pm.events",
        0x0f01,
        hardware::read_port_16(GPE0_ENABLE).into(),
    );
    hardware::write_port_16(GPE0_ENABLE, 0);
}

fn clock(report: &mut Report<'_>) {
    const INDEX: u16 = 0x70;
    const DATA: u16 = 0x71;
    const REGISTER_D: u8 = 0x0d;
    hardware::write_port(INDEX, REGISTER_D);
    let valid = hardware::read_port(DATA);
    report.holds("clock.battery", valid & 0x80 != 0, valid.into());
}
