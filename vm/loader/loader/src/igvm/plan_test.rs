use super::*;
use crate::GuestImage;
use crate::test_support::MIB;
use crate::test_support::Memory;
use crate::test_support::bytes;
use crate::test_support::memory_layout;
use crate::test_support::tables;
use igvm_format::At;
use igvm_format::NativeVpContext;
use igvm_format::PageDataType;
use igvm_format::PageFlags;
use igvm_format::RequiredMemory;
use igvm_format::Revision;
use igvm_format::Sized32;
use igvm_format::VsmRegister;
use std::path::Path;
use vm_memory::Bytes;
use vm_memory::GuestAddress;
use zerocopy::FromZeros;

const RAM: u64 = 48 * MIB;
const NATIVE: u32 = 1;
const VSM: u32 = 2;

fn platform(mask: u32, platform_type: PlatformType, highest_vtl: u8) -> At<Platform> {
    At::from(Platform {
        mask,
        highest_vtl,
        platform_type,
        shared_gpa_boundary: 0,
    })
}

fn page(gpa: u64, mask: u32, data: &[u8]) -> Directive<'_> {
    Directive::PageData(PageDataRecord {
        gpa,
        mask,
        flags: PageFlags::default(),
        data_type: PageDataType::Normal,
        data,
    })
}

fn area(index: u32, size: u64, initial: &[u8]) -> Directive<'_> {
    Directive::ParameterArea(ParameterAreaRecord {
        index,
        size,
        initial,
    })
}

fn parameter(kind: ParameterKind, area: u32, byte_offset: u32) -> Directive<'static> {
    Directive::Parameter(ParameterRecord {
        kind,
        area,
        byte_offset,
    })
}

fn insert(area: u32, gpa: u64, mask: u32) -> Directive<'static> {
    Directive::ParameterInsert(ParameterInsert { gpa, mask, area })
}

fn vp_context(mask: u32, data: VpContextData<'_>) -> Directive<'_> {
    Directive::VpContext(VpContext {
        gpa: 0,
        mask,
        vp_index: 0,
        data,
    })
}

fn native_context() -> NativeVpContext {
    let mut context = NativeVpContext::new_zeroed();
    context.rip = 0x10_0000.into();
    context
}

/// A file for both platforms of guests without isolation.
fn file<'a>(directives: &[Directive<'a>]) -> IgvmFile<'a> {
    IgvmFile {
        revision: Revision::V2(Architecture::X64),
        platforms: vec![
            platform(NATIVE, PlatformType::Native, 0),
            platform(VSM, PlatformType::VsmIsolation, 0),
        ],
        initializations: Vec::new(),
        directives: directives.iter().copied().map(At::from).collect(),
        skipped: Vec::new(),
    }
}

fn machine_plan(
    file: &IgvmFile<'_>,
    change: impl FnOnce(&mut IgvmMachine<'_>),
) -> Result<IgvmPlan, String> {
    let image = IgvmImage::new(Path::new("guest.igvm"), file.write().unwrap().into());
    let (layout, acpi) = (memory_layout(RAM), tables());
    let mut machine = IgvmMachine {
        layout: &layout,
        rom: None,
        vp_count: 3,
        command_line: None,
        acpi: acpi.tables(),
        low_mmio: range(0xc000_0000, 0x3c00_0000),
        high_mmio: None,
    };
    change(&mut machine);
    IgvmPlan::new(&image, &machine).map_err(|error| error.to_string())
}

fn plan(directives: &[Directive<'_>]) -> Result<IgvmPlan, String> {
    machine_plan(&file(directives), |_| ())
}

/// A plan for these directives and a context.
fn with_context(directives: &[Directive<'_>]) -> Result<IgvmPlan, String> {
    let context = native_context();
    let context = vp_context(NATIVE, VpContextData::Native(&context));
    plan(&[&[context], directives].concat())
}

/// Guest memory that is not zero, after a plan was loaded.
fn loaded(plan: &IgvmPlan) -> Memory {
    let memory = Memory::from_ranges(&[(GuestAddress(0), RAM as usize)]).unwrap();
    memory
        .write_slice(&vec![0x5a; RAM as usize], GuestAddress(0))
        .unwrap();
    plan.load(&mut GuestImage::new(&memory)).unwrap();
    memory
}

#[test]
fn pages_of_the_chosen_platform_are_loaded_and_no_others() {
    let (one, two) = ([1; 4096], [2; 100]);
    let plan = with_context(&[
        page(0x10_1000, NATIVE | VSM, &two),
        page(0x10_0000, NATIVE, &one),
        page(0x10_2000, NATIVE, &[]),
        page(0x20_0000, VSM, &one),
        page(0x10_0000, VSM, &two),
    ])
    .unwrap();
    assert_eq!(plan.platform(), PlatformType::Native);
    assert_eq!(plan.pages.len(), 1, "neighbors are imported together");
    let memory = loaded(&plan);
    assert_eq!(bytes(&memory, 0x10_0000, 4096), one);
    assert_eq!(bytes(&memory, 0x10_1000, 100), two);
    assert_eq!(bytes(&memory, 0x10_1064, 0x1f9c), [0; 0x1f9c]);
    assert_eq!(bytes(&memory, 0x20_0000, 4), [0x5a; 4]);
    assert_eq!(bytes(&memory, 0x10_3000, 4), [0x5a; 4]);
}

#[test]
fn a_large_page_is_loaded_whole() {
    let content: Vec<u8> = (0..2 * MIB).map(|n| (n / 4096) as u8).collect();
    let large = Directive::PageData(PageDataRecord {
        gpa: 0x20_0000,
        mask: NATIVE,
        flags: PageFlags {
            large: true,
            ..PageFlags::default()
        },
        data_type: PageDataType::Normal,
        data: &content,
    });
    let memory = loaded(&with_context(&[large]).unwrap());
    assert!(bytes(&memory, 0x20_0000, content.len()) == content);
}

#[test]
fn parameters_are_written_where_their_area_is_inserted() {
    let initial = [9; 8192];
    let plan = machine_plan(
        &file(&[
            area(0, 8192, &initial),
            area(1, 4096, &[]),
            // For the other platform: it does not fit, which does not matter here.
            area(2, 4096, &[]),
            parameter(ParameterKind::CommandLine, 2, 4090),
            parameter(ParameterKind::VpCount, 0, 4094),
            parameter(ParameterKind::CommandLine, 0, 0),
            parameter(ParameterKind::EnvironmentInfo, 0, 3),
            parameter(ParameterKind::MemoryMap, 1, 4048),
            parameter(ParameterKind::MmioRanges, 1, 0),
            insert(2, 0x9000, VSM),
            insert(0, 0x4000, NATIVE),
            vp_context(NATIVE, VpContextData::Native(&native_context())),
            insert(1, 0x8000, NATIVE),
        ]),
        |machine| machine.command_line = Some("a long line"),
    );
    let memory = loaded(&plan.unwrap());
    let mut expected = initial;
    expected[..12].copy_from_slice(b"a long line\0");
    expected[3..7].fill(0);
    expected[4094..4098].copy_from_slice(&[3, 0, 0, 0]);
    assert_eq!(bytes(&memory, 0x4000, 8192), expected);
    let ranges = bytes(&memory, 0x8000, 32);
    assert_eq!(
        ranges[..16],
        [0, 0, 0xc, 0, 0, 0, 0, 0, 0, 0xc0, 3, 0, 0, 0, 0, 0]
    );
    assert_eq!(ranges[16..], [0; 16]);
    let map = bytes(&memory, 0x8000 + 4048, 48);
    let mut expected = [0; 48];
    expected[8..12].copy_from_slice(&(48u32 << 8).to_le_bytes());
    assert_eq!(map, expected);
    assert_eq!(bytes(&memory, 0x9000, 4), [0x5a; 4]);
}

#[test]
fn a_table_is_complete() {
    let plan = with_context(&[
        area(0, 4096, &[]),
        parameter(ParameterKind::Madt, 0, 16),
        parameter(ParameterKind::Slit, 0, 2048),
        insert(0, 0x4000, NATIVE),
    ]);
    let memory = loaded(&plan.unwrap());
    let madt = bytes(&memory, 0x4010, 2032);
    assert_eq!(madt[..4], *b"APIC");
    let len = u32::from_le_bytes(madt[4..8].try_into().unwrap()) as usize;
    let sum = madt[..len]
        .iter()
        .fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    assert_eq!(sum, 0);
    // There is no SLIT: its memory stays zero.
    assert_eq!(bytes(&memory, 0x4800, 2048), [0; 2048]);
}

#[test]
fn what_does_not_fit_is_refused_with_its_place() {
    let required = |gpa, size| {
        Directive::RequiredMemory(RequiredMemory {
            gpa,
            mask: NATIVE,
            size,
            vtl2_protectable: false,
        })
    };
    let errors = Directive::ErrorRange(Sized32 {
        gpa: 0x10_0000,
        mask: NATIVE,
        size: 0x2000,
    });
    let fits = |byte_offset| {
        [
            area(5, 4096, &[]),
            parameter(ParameterKind::MemoryMap, 5, byte_offset),
            insert(5, 0, NATIVE),
        ]
    };
    with_context(&fits(4048)).unwrap();
    with_context(&[required(0, RAM as u32)]).unwrap();
    for (directives, expected) in [
        (
            &[page(RAM, NATIVE, &[]), page(RAM + 0x1000, NATIVE, &[])][..],
            "is for 0x3000000-0x3002000, but this guest has RAM at 0x0-0x3000000",
        ),
        (&[required(0x1000, RAM as u32)], "REQUIRED_MEMORY at offset"),
        (
            &[area(0, 1 << 40, &[]), insert(0, 0, NATIVE)],
            "is for 0x0-0x10000000000",
        ),
        (
            &fits(4049),
            "the parameter MEMORY_MAP at offset 0x88 has 48 bytes here, but from byte 4049 of parameter area 5 there \
             are 47",
        ),
        (
            &[
                area(0, 4096, &[]),
                parameter(ParameterKind::DeviceTree, 0, 0),
                insert(0, 0, NATIVE),
            ],
            "the parameter DEVICE_TREE at offset 0x88 is not supported",
        ),
        (
            &[errors, page(0x10_1000, NATIVE, &[])],
            "PAGE_DATA at offset 0x88: 0x101000-0x102000 overlaps 0x100000-0x102000 of the ERROR_RANGE",
        ),
    ] {
        let error = with_context(directives).map(|_| ()).unwrap_err();
        assert!(
            error.starts_with("cannot load the IGVM file guest.igvm: "),
            "{error}"
        );
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn a_platform_without_isolation_is_chosen() {
    let list = [VsmRegister::scalar(0x2_0010, 0x1000)];
    let context = vp_context(VSM, VpContextData::Vsm(&list));
    let mut vsm = file(&[context]);
    vsm.platforms.remove(0);
    let plan = machine_plan(&vsm, |_| ()).unwrap();
    assert_eq!(plan.platform(), PlatformType::VsmIsolation);
    assert_eq!(plan.registers(), [VpRegister::Rip(0x1000)]);

    vsm.platforms[0].record.highest_vtl = 2;
    let error = machine_plan(&vsm, |_| ()).unwrap_err();
    assert!(error.contains("it needs VTL2, as OpenHCL does"), "{error}");

    let isolated = IgvmFile {
        platforms: vec![
            platform(1, PlatformType::Tdx, 0),
            platform(2, PlatformType::SevSnp, 0),
        ],
        directives: vec![At::from(page(0, 3, &[]))],
        ..vsm.clone()
    };
    let error = machine_plan(&isolated, |_| ()).unwrap_err();
    assert!(error.contains("for the platforms TDX, SEV_SNP;"), "{error}");

    let arm = IgvmFile {
        revision: Revision::V2(Architecture::AArch64),
        platforms: vec![platform(1, PlatformType::VsmIsolation, 0)],
        directives: vec![At::from(page(0, 1, &[]))],
        ..vsm
    };
    let error = machine_plan(&arm, |_| ()).unwrap_err();
    assert!(error.contains("AArch64, not x86-64"), "{error}");
}

#[test]
fn contexts_that_cannot_be_used_are_refused() {
    let native = native_context();
    let native = vp_context(NATIVE, VpContextData::Native(&native));
    let error = plan(&[native, native]).unwrap_err();
    assert!(error.contains("is the second one of VP 0"), "{error}");
    let Directive::VpContext(context) = native else {
        panic!("a context");
    };
    let other = Directive::VpContext(VpContext {
        vp_index: 1,
        ..context
    });
    let error = plan(&[other]).unwrap_err();
    assert!(error.contains("is for VP 1; only that of VP 0"), "{error}");

    let mut list = [VsmRegister::scalar(0x2_0010, 0x1000)];
    list[0].vtl = 1;
    let mut vsm = file(&[vp_context(VSM, VpContextData::Vsm(&list))]);
    vsm.platforms.remove(0);
    let error = machine_plan(&vsm, |_| ()).unwrap_err();
    assert!(
        error.contains("is for VTL 1, but the platform's highest VTL is 0"),
        "{error}"
    );
}

#[test]
fn a_file_without_a_context_starts_at_the_reset_vector() {
    let code = [0xf4; 4096];
    let rom = range(0xffc0_0000, 4 * MIB);
    let reset = page(0xffff_f000, NATIVE, &code);
    let in_rom = file(&[page(0xf_f000, NATIVE, &code), reset]);
    let plan = machine_plan(&in_rom, |machine| machine.rom = Some(rom)).unwrap();
    assert!(plan.registers().is_empty());
    let memory = Memory::from_ranges(&[(GuestAddress(0), RAM as usize)]).unwrap();
    let mut image = GuestImage::new(&memory);
    plan.load(&mut image).unwrap();
    let [found] = image.roms() else {
        panic!("{} ROMs", image.roms().len());
    };
    assert_eq!(
        (found.range, found.read().unwrap()),
        (range(0xffff_f000, 4096), code.into())
    );
    assert_eq!(bytes(&memory, 0xf_f000, 4096), code);

    let error = machine_plan(&in_rom, |_| ()).unwrap_err();
    assert!(
        error.contains("is for 0xfffff000-0x100000000, but"),
        "{error}"
    );
    let error = self::plan(&[page(0, NATIVE, &code)]).unwrap_err();
    assert!(error.contains("there is nothing to run"), "{error}");
}

#[test]
fn r12_is_offered_unless_the_file_sets_it() {
    const BLOB: u64 = 0x70_9000;
    let r12 = |plan: &IgvmPlan| {
        let mut registers = plan.registers().iter();
        registers.find_map(|register| match register {
            VpRegister::R12(value) => Some(*value),
            _ => None,
        })
    };
    let native = |value: u64| {
        let mut context = native_context();
        context.r12 = value.into();
        let directives = [vp_context(NATIVE, VpContextData::Native(&context))];
        let mut plan = plan(&directives).unwrap();
        plan.offer_r12(BLOB);
        r12(&plan)
    };
    assert_eq!((native(0), native(7)), (Some(BLOB), Some(7)));
    let vsm = |list: &[VsmRegister]| {
        let mut file = file(&[vp_context(VSM, VpContextData::Vsm(list))]);
        file.platforms.remove(0);
        let mut plan = machine_plan(&file, |_| ()).unwrap();
        plan.offer_r12(BLOB);
        r12(&plan)
    };
    let rip = VsmRegister::scalar(0x2_0010, 0x1000);
    assert_eq!(vsm(&[rip]), Some(BLOB));
    assert_eq!(vsm(&[rip, VsmRegister::scalar(0x2_000c, 0)]), Some(0));
}

#[test]
fn the_hosts_own_pages_must_be_free() {
    let plan = with_context(&[page(0x5000, NATIVE, &[]), page(0x7000, NATIVE, &[])]).unwrap();
    plan.check_free("the blob", range(0x6000, 0x1000)).unwrap();
    plan.check_free("the blob", range(0x8000, 0x9000)).unwrap();
    for (start, len) in [(0x4000, 0x2000), (0x7000, 0x1000), (0x5000, 0x4000)] {
        let error = plan.check_free("the blob", range(start, len)).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("the blob at") && error.contains("PAGE_DATA at offset"),
            "{error}"
        );
    }
}
