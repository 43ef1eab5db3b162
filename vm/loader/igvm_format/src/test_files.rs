//! Files for tests.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use crate::*;
use zerocopy::FromZeros;

/// Content of pages and contexts, to borrow.
pub(crate) struct Content {
    pub(crate) page: Vec<u8>,
    pub(crate) area: Vec<u8>,
    pub(crate) native: NativeVpContext,
    pub(crate) list: Vec<VsmRegister>,
    pub(crate) vmsa: Vec<u8>,
    pub(crate) id_block: Vec<u8>,
    pub(crate) measurement: Vec<u8>,
    pub(crate) corim: Vec<u8>,
}

impl Content {
    pub(crate) fn new() -> Self {
        let bytes =
            |len: usize, step: usize| (0..len).map(|n| (n * step + n / 256) as u8).collect();
        let mut native = NativeVpContext::new_zeroed();
        native.rip = 0x10_0000.into();
        native.rflags = 2.into();
        let mut id_block: Vec<u8> = vec![0; 696];
        id_block[0] = 2;
        id_block[8] = 0xd1;
        id_block[0x5c] = 3;
        let mut measurement: Vec<u8> = vec![0; 864];
        measurement[0] = 4;
        measurement[0x10] = 5;
        Self {
            page: bytes(4096, 3),
            area: bytes(4096, 5),
            native,
            list: vec![
                VsmRegister::scalar(0x2_0010, 0x10_0000),
                VsmRegister::segment(0x6_0001, 0, u32::MAX, 8, 0xa09b),
            ],
            vmsa: bytes(4096, 7),
            id_block,
            measurement,
            corim: bytes(77, 9),
        }
    }

    /// A file with three platforms and a record of each type that exists on x64.
    pub(crate) fn everything(&self) -> IgvmFile<'_> {
        let platform = |mask, platform_type, shared_gpa_boundary| {
            At::from(Platform {
                mask,
                highest_vtl: 0,
                platform_type,
                shared_gpa_boundary,
            })
        };
        let (native, snp, vsm) = (1, 2, 4);
        let page = |gpa, mask, data| {
            Directive::PageData(PageDataRecord {
                gpa,
                mask,
                flags: PageFlags::default(),
                data_type: PageDataType::Normal,
                data,
            })
        };
        let initializations = [
            Initialization::GuestPolicy(GuestPolicy {
                mask: snp,
                policy: 0x3_0000,
            }),
            Initialization::RelocatableRegion(RelocatableRegion {
                mask: native,
                vp_index: 0,
                vtl: 0,
                is_vtl2: false,
                apply_rip_offset: true,
                apply_gdtr_offset: true,
                alignment: 0x20_0000,
                gpa: 0x80_0000,
                size: 0x40_0000,
                minimum_gpa: 0x80_0000,
                maximum_gpa: 1 << 40,
            }),
            Initialization::PageTableRegion(PageTableRegion {
                mask: native,
                vp_index: 0,
                vtl: 0,
                gpa: 0xc0_0000,
                size: 0x8000,
                used_size: 0x6000,
            }),
            Initialization::CorimDocument(Corim {
                mask: snp,
                data: &self.corim,
            }),
            Initialization::CorimSignature(Corim {
                mask: snp,
                data: &self.corim[..33],
            }),
            Initialization::VersionString("test 1.0"),
        ];
        let parameters = ParameterKind::ALL.iter().zip(0..).map(|(kind, n)| {
            Directive::Parameter(ParameterRecord {
                kind: *kind,
                area: 7,
                byte_offset: n * 64,
            })
        });
        let context = |mask, gpa, data| {
            Directive::VpContext(VpContext {
                gpa,
                mask,
                vp_index: 0,
                data,
            })
        };
        let directives = [
            Directive::ParameterArea(ParameterAreaRecord {
                index: 7,
                size: 4096,
                initial: &self.area,
            }),
            Directive::ParameterArea(ParameterAreaRecord {
                index: 8,
                size: 1 << 40,
                initial: &[],
            }),
            Directive::RequiredMemory(RequiredMemory {
                gpa: 0,
                mask: native | vsm,
                size: 0x100_0000,
                vtl2_protectable: true,
            }),
            context(native, 0, VpContextData::Native(&self.native)),
            context(vsm, 0, VpContextData::Vsm(&self.list)),
            context(snp, 0xffff_ffff_f000, VpContextData::Vmsa(&self.vmsa)),
            page(0x10_0000, native | snp | vsm, &self.page),
            page(0x10_1000, native | snp | vsm, &self.page),
            page(0x10_2000, native | snp | vsm, &[]),
            Directive::PageData(PageDataRecord {
                gpa: 0x10_3000,
                mask: snp,
                flags: PageFlags {
                    unmeasured: true,
                    ..PageFlags::default()
                },
                data_type: PageDataType::Cpuid,
                data: &self.vmsa,
            }),
            Directive::PageData(PageDataRecord {
                gpa: 0x40_0000,
                mask: native,
                flags: PageFlags {
                    large: true,
                    shared: true,
                    ..PageFlags::default()
                },
                data_type: PageDataType::Normal,
                data: &[],
            }),
            Directive::ErrorRange(Sized32 {
                gpa: 0x20_0000,
                mask: snp,
                size: 0x2000,
            }),
            Directive::SnpIdBlock(SnpIdBlock {
                mask: snp,
                body: &self.id_block,
                launch_digest: self.id_block[8..56].try_into().unwrap(),
                guest_svn: 3,
            }),
            Directive::VbsMeasurement(VbsMeasurement {
                mask: vsm,
                body: &self.measurement,
                digest: self.measurement[32..96].try_into().unwrap(),
                security_version: 5,
            }),
        ];
        let insert = Directive::ParameterInsert(ParameterInsert {
            gpa: 0x30_0000,
            mask: native,
            area: 7,
        });
        IgvmFile {
            revision: Revision::V2(Architecture::X64),
            platforms: vec![
                platform(native, PlatformType::Native, 0),
                platform(snp, PlatformType::SevSnp, 1 << 46),
                platform(vsm, PlatformType::VsmIsolation, 0),
            ],
            initializations: initializations.map(At::from).into(),
            directives: directives
                .into_iter()
                .chain(parameters)
                .chain([insert])
                .map(At::from)
                .collect(),
            skipped: Vec::new(),
        }
    }

    /// A file with one platform, a context and a page.
    pub(crate) fn small(&self, revision: Revision) -> IgvmFile<'_> {
        let platform = Platform {
            mask: 1,
            highest_vtl: 0,
            platform_type: PlatformType::Native,
            shared_gpa_boundary: 0,
        };
        let directives = [
            Directive::VpContext(VpContext {
                gpa: 0,
                mask: 1,
                vp_index: 0,
                data: VpContextData::Native(&self.native),
            }),
            Directive::PageData(PageDataRecord {
                gpa: 0x10_0000,
                mask: 1,
                flags: PageFlags::default(),
                data_type: PageDataType::Normal,
                data: &self.page,
            }),
        ];
        IgvmFile {
            revision,
            platforms: vec![platform.into()],
            initializations: Vec::new(),
            directives: directives.map(At::from).into(),
            skipped: Vec::new(),
        }
    }
}

/// The records without their offsets, which a file that was not read does not have.
pub(crate) fn without_offsets<'a>(file: &IgvmFile<'a>) -> IgvmFile<'a> {
    let mut file = file.clone();
    file.platforms.iter_mut().for_each(|at| at.offset = 0);
    file.initializations.iter_mut().for_each(|at| at.offset = 0);
    file.directives.iter_mut().for_each(|at| at.offset = 0);
    file
}
