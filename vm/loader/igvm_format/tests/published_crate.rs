//! The published crate `igvm` writes what is read here, and reads what is written here.

use igvm::IgvmDirectiveHeader;
use igvm::IgvmFile as CrateFile;
use igvm::IgvmPlatformHeader;
use igvm::IgvmRevision;
use igvm::hv_defs::Vtl;
use igvm::registers::SegmentRegister;
use igvm::registers::TableRegister;
use igvm::registers::X86Register;
use igvm_defs::IGVM_VHS_PARAMETER;
use igvm_defs::IGVM_VHS_PARAMETER_INSERT;
use igvm_defs::IGVM_VHS_SUPPORTED_PLATFORM;
use igvm_defs::IgvmPageDataFlags;
use igvm_defs::IgvmPageDataType;
use igvm_defs::IgvmPlatformType;
use igvm_format::Directive;
use igvm_format::IgvmFile;
use igvm_format::PageDataRecord;
use igvm_format::PageDataType;
use igvm_format::PageFlags;
use igvm_format::ParameterAreaRecord;
use igvm_format::ParameterInsert;
use igvm_format::ParameterKind;
use igvm_format::ParameterRecord;
use igvm_format::Platform;
use igvm_format::PlatformType;
use igvm_format::RequiredMemory;
use igvm_format::Revision;
use igvm_format::VpContext;
use igvm_format::VpContextData;
use igvm_format::VsmRegister;

const MASK: u32 = 1;
const ENTRY: u64 = 0x10_1234;

fn page(n: u8) -> Vec<u8> {
    (0..4096).map(|at| (at as u8).wrapping_mul(n)).collect()
}

fn area() -> Vec<u8> {
    vec![7; 4096]
}

/// The same file, as the crate has it: a page, a page of zeros, an area with two parameters, required memory, registers.
fn of_crate() -> CrateFile {
    let platform = IgvmPlatformHeader::SupportedPlatform(IGVM_VHS_SUPPORTED_PLATFORM {
        compatibility_mask: MASK,
        highest_vtl: 0,
        platform_type: IgvmPlatformType::VSM_ISOLATION,
        platform_version: 1,
        shared_gpa_boundary: 0,
    });
    let page = |gpa, data, unmeasured| IgvmDirectiveHeader::PageData {
        gpa,
        compatibility_mask: MASK,
        flags: IgvmPageDataFlags::new().with_unmeasured(unmeasured),
        data_type: IgvmPageDataType::NORMAL,
        data,
    };
    let parameter = |byte_offset| IGVM_VHS_PARAMETER {
        parameter_area_index: 3,
        byte_offset,
    };
    let code = SegmentRegister {
        base: 0,
        limit: u32::MAX,
        selector: 8,
        attributes: 0xa09b,
    };
    let gdt = TableRegister {
        base: 0x70_6000,
        limit: 31,
    };
    let directives = vec![
        page(0x10_0000, self::page(3), false),
        page(0x10_1000, Vec::new(), true),
        IgvmDirectiveHeader::ParameterArea {
            number_of_bytes: 4096,
            parameter_area_index: 3,
            initial_data: area(),
        },
        IgvmDirectiveHeader::VpCount(parameter(16)),
        IgvmDirectiveHeader::MemoryMap(parameter(64)),
        IgvmDirectiveHeader::RequiredMemory {
            gpa: 0x20_0000,
            compatibility_mask: MASK,
            number_of_bytes: 0x40_0000,
            vtl2_protectable: false,
        },
        IgvmDirectiveHeader::X64VbsVpContext {
            vtl: Vtl::Vtl0,
            registers: vec![
                X86Register::Rip(ENTRY),
                X86Register::Cs(code),
                X86Register::Gdtr(gdt),
                X86Register::MtrrDefType(0xc00),
            ],
            compatibility_mask: MASK,
        },
        IgvmDirectiveHeader::ParameterInsert(IGVM_VHS_PARAMETER_INSERT {
            gpa: 0x30_0000,
            compatibility_mask: MASK,
            parameter_area_index: 3,
        }),
    ];
    CrateFile::new(IgvmRevision::V1, vec![platform], Vec::new(), directives).expect("a valid file")
}

/// Calls `with` with the file as it is here.
fn ours<T>(with: impl FnOnce(&IgvmFile<'_>) -> T) -> T {
    let (content, area) = (page(3), area());
    let registers = [
        VsmRegister::scalar(0x2_0010, ENTRY),
        VsmRegister::segment(0x6_0001, 0, u32::MAX, 8, 0xa09b),
        VsmRegister::table(0x7_0001, 0x70_6000, 31),
        VsmRegister::scalar(0x8_000e, 0xc00),
    ];
    let page = |gpa, data, unmeasured| {
        Directive::PageData(PageDataRecord {
            gpa,
            mask: MASK,
            flags: PageFlags {
                unmeasured,
                ..PageFlags::default()
            },
            data_type: PageDataType::Normal,
            data,
        })
    };
    let parameter = |kind, byte_offset| {
        Directive::Parameter(ParameterRecord {
            kind,
            area: 3,
            byte_offset,
        })
    };
    let directives = [
        page(0x10_0000, &content, false),
        page(0x10_1000, &[], true),
        Directive::ParameterArea(ParameterAreaRecord {
            index: 3,
            size: 4096,
            initial: &area,
        }),
        parameter(ParameterKind::VpCount, 16),
        parameter(ParameterKind::MemoryMap, 64),
        Directive::RequiredMemory(RequiredMemory {
            gpa: 0x20_0000,
            mask: MASK,
            size: 0x40_0000,
            vtl2_protectable: false,
        }),
        Directive::VpContext(VpContext {
            gpa: 0,
            mask: MASK,
            vp_index: 0,
            data: VpContextData::Vsm(&registers),
        }),
        Directive::ParameterInsert(ParameterInsert {
            gpa: 0x30_0000,
            mask: MASK,
            area: 3,
        }),
    ];
    with(&IgvmFile {
        revision: Revision::V1,
        platforms: vec![
            Platform {
                mask: MASK,
                highest_vtl: 0,
                platform_type: PlatformType::VsmIsolation,
                shared_gpa_boundary: 0,
            }
            .into(),
        ],
        initializations: Vec::new(),
        directives: directives.into_iter().map(Into::into).collect(),
        skipped: Vec::new(),
    })
}

#[test]
fn a_file_of_the_crate_is_read() {
    let mut bytes = Vec::new();
    of_crate().serialize(&mut bytes).unwrap();
    let file = IgvmFile::parse(&bytes).unwrap();
    ours(|expected| {
        assert_eq!(file.revision, expected.revision);
        let platforms =
            |file: &IgvmFile<'_>| -> Vec<_> { file.platforms.iter().map(|at| at.record).collect() };
        assert_eq!(platforms(&file), platforms(expected));
        assert_eq!(file.directives.len(), expected.directives.len());
        for (read, expected) in file.directives.iter().zip(&expected.directives) {
            assert_eq!(read.record, expected.record);
        }
    });
}

#[test]
fn the_crate_reads_what_is_written_here() {
    let bytes = ours(|file| file.write().unwrap());
    let read = CrateFile::new_from_binary(&bytes, None).unwrap();
    assert_eq!(read.platforms(), of_crate().platforms());
    assert_eq!(read.directives(), of_crate().directives());
}
