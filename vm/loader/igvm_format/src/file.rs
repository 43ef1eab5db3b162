//! What a file consists of.

use crate::NativeVpContext;
use crate::Revision;
use crate::VsmRegister;
use crate::raw;
use std::fmt;

/// A file, whose data stays where it is.
///
/// [`IgvmFile::parse`] makes only files that obey the format's rules. One that is put together by hand is checked
/// when it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IgvmFile<'a> {
    /// The format's version and the guest's architecture.
    pub revision: Revision,
    /// The platforms on which the guest can be loaded.
    pub platforms: Vec<At<Platform>>,
    /// What must be known before there is a guest.
    pub initializations: Vec<At<Initialization<'a>>>,
    /// How the guest is loaded, in this order.
    pub directives: Vec<At<Directive<'a>>>,
    /// The optional records of unknown types. They are not written.
    pub skipped: Vec<At<Skipped>>,
}

/// A record, and its offset in the file; 0 for a record that was not read from one.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct At<T> {
    /// In bytes.
    pub offset: u64,
    /// The record.
    pub record: T,
}

impl<T> From<T> for At<T> {
    fn from(record: T) -> Self {
        Self { offset: 0, record }
    }
}

/// A platform on which the guest can be loaded. Records belong to it if their masks have its bit.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct Platform {
    /// One bit.
    pub mask: u32,
    /// 0 or 2.
    pub highest_vtl: u8,
    /// Its type.
    pub platform_type: PlatformType,
    /// The first address of shared memory; 0 if there is none.
    pub shared_gpa_boundary: u64,
}

/// A type of platform.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PlatformType {
    /// No isolation.
    Native,
    /// Hyper-V's VSM; also plain guests of Hyper-V.
    VsmIsolation,
    /// AMD SEV-SNP.
    SevSnp,
    /// Intel TDX.
    Tdx,
    /// AMD SEV.
    Sev,
    /// AMD SEV-ES.
    SevEs,
    /// Arm CCA.
    Cca,
}

impl PlatformType {
    /// All of them, by their number in the format.
    pub const ALL: [Self; 7] = [
        Self::Native,
        Self::VsmIsolation,
        Self::SevSnp,
        Self::Tdx,
        Self::Sev,
        Self::SevEs,
        Self::Cca,
    ];

    /// The name in the format.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "NATIVE",
            Self::VsmIsolation => "VSM_ISOLATION",
            Self::SevSnp => "SEV_SNP",
            Self::Tdx => "TDX",
            Self::Sev => "SEV",
            Self::SevEs => "SEV_ES",
            Self::Cca => "CCA",
        }
    }

    pub(crate) fn number(self) -> u8 {
        // In the order of `ALL`.
        self as u8
    }
}

impl fmt::Display for PlatformType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An initialization header.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum Initialization<'a> {
    /// The policy of an isolated guest.
    GuestPolicy(GuestPolicy),
    /// Memory that can be loaded elsewhere.
    RelocatableRegion(RelocatableRegion),
    /// Page tables that change with a relocation.
    PageTableRegion(PageTableRegion),
    /// A CoRIM document.
    CorimDocument(Corim<'a>),
    /// Its signature.
    CorimSignature(Corim<'a>),
    /// The policy of a CCA realm.
    CcaPolicy(CcaPolicy),
    /// What the producer calls the file's version.
    VersionString(&'a str),
}

/// The policy of an SNP or TDX guest.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct GuestPolicy {
    /// The platforms.
    pub mask: u32,
    /// The policy, as the platform defines it.
    pub policy: u64,
}

/// Memory that can be loaded elsewhere, as one.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct RelocatableRegion {
    /// The platforms.
    pub mask: u32,
    /// The VP whose registers change.
    pub vp_index: u16,
    /// Its virtual trust level.
    pub vtl: u8,
    /// Whether it is the memory of VTL2.
    pub is_vtl2: bool,
    /// Whether RIP, or PC, moves with it.
    pub apply_rip_offset: bool,
    /// Whether the GDT's base moves with it.
    pub apply_gdtr_offset: bool,
    /// The alignment of its address, in bytes.
    pub alignment: u64,
    /// Its address in the file.
    pub gpa: u64,
    /// Its size in bytes.
    pub size: u64,
    /// The lowest address that it can be loaded at.
    pub minimum_gpa: u64,
    /// The highest address that it can end at.
    pub maximum_gpa: u64,
}

/// Page tables that change with a relocation.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct PageTableRegion {
    /// The platforms.
    pub mask: u32,
    /// The VP whose CR3 points there.
    pub vp_index: u16,
    /// Its virtual trust level.
    pub vtl: u8,
    /// The address.
    pub gpa: u64,
    /// The size in bytes.
    pub size: u64,
    /// How much of that is used.
    pub used_size: u64,
}

/// A CoRIM document or signature.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct Corim<'a> {
    /// The platforms.
    pub mask: u32,
    /// Its bytes.
    pub data: &'a [u8],
}

/// The policy of a CCA realm.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct CcaPolicy {
    /// The platform.
    pub mask: u32,
    /// Attributes that must be 0.
    pub required_zero: u64,
    /// Attributes that must be 1.
    pub required_one: u64,
    /// 0 is SHA-256, 1 SHA-512, 2 SHA-384.
    pub hash_algorithm: u8,
    /// Whether live firmware activation is allowed: 1 if so.
    pub lfa_policy: u8,
}

/// A directive.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum Directive<'a> {
    /// A page.
    PageData(PageDataRecord<'a>),
    /// Room for parameters.
    ParameterArea(ParameterAreaRecord<'a>),
    /// A parameter, to be put into an area.
    Parameter(ParameterRecord),
    /// Puts an area into memory.
    ParameterInsert(ParameterInsert),
    /// The registers of a VP.
    VpContext(VpContext<'a>),
    /// Memory that the guest needs.
    RequiredMemory(RequiredMemory),
    /// Shared memory for reports of a guest's errors.
    ErrorRange(Sized32),
    /// The ID block of an SNP guest.
    SnpIdBlock(SnpIdBlock<'a>),
    /// The signed measurement of a VBS guest.
    VbsMeasurement(VbsMeasurement<'a>),
}

/// A page of guest memory.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct PageDataRecord<'a> {
    /// Its address.
    pub gpa: u64,
    /// The platforms.
    pub mask: u32,
    /// Its flags.
    pub flags: PageFlags,
    /// What it is.
    pub data_type: PageDataType,
    /// Its content. What is missing to a whole page is zero.
    pub data: &'a [u8],
}

impl PageDataRecord<'_> {
    /// The size of the page in bytes.
    pub fn size(&self) -> u64 {
        match self.flags.large {
            true => crate::LARGE_PAGE,
            false => crate::PAGE,
        }
    }
}

/// The flags of a page.
#[derive(Debug, Copy, Clone, Default, PartialEq, Eq)]
pub struct PageFlags {
    /// It has 2 MiB.
    pub large: bool,
    /// It is not part of the launch measurement.
    pub unmeasured: bool,
    /// It is shared with the host, with its content.
    pub shared: bool,
}

impl PageFlags {
    /// The bit of pages of 2 MiB.
    pub const LARGE: u32 = 1 << 0;
    /// The bit of pages that are not measured.
    pub const UNMEASURED: u32 = 1 << 1;
    /// The bit of pages that are shared.
    pub const SHARED: u32 = 1 << 2;

    pub(crate) fn from_bits(bits: u32) -> Option<Self> {
        (bits & !(Self::LARGE | Self::UNMEASURED | Self::SHARED) == 0).then_some(Self {
            large: bits & Self::LARGE != 0,
            unmeasured: bits & Self::UNMEASURED != 0,
            shared: bits & Self::SHARED != 0,
        })
    }

    pub(crate) fn bits(self) -> u32 {
        let bit = |set, bit| if set { bit } else { 0 };
        bit(self.large, Self::LARGE)
            | bit(self.unmeasured, Self::UNMEASURED)
            | bit(self.shared, Self::SHARED)
    }
}

/// What a page is. All but normal pages have a meaning for SNP only.
#[derive(Debug, Copy, Clone, Default, PartialEq, Eq)]
pub enum PageDataType {
    /// A page with its content.
    #[default]
    Normal,
    /// The secrets page.
    Secrets,
    /// The CPUID page.
    Cpuid,
    /// The CPUID page of the extended state.
    CpuidExtendedState,
}

impl PageDataType {
    /// All of them, by their number in the format.
    pub const ALL: [Self; 4] = [
        Self::Normal,
        Self::Secrets,
        Self::Cpuid,
        Self::CpuidExtendedState,
    ];
}

/// Room for parameters.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct ParameterAreaRecord<'a> {
    /// Its number.
    pub index: u32,
    /// Its size in bytes: whole pages.
    pub size: u64,
    /// What it holds at first; empty for zeros, else all of it.
    pub initial: &'a [u8],
}

/// A parameter.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct ParameterRecord {
    /// What it is.
    pub kind: ParameterKind,
    /// The area that it goes to.
    pub area: u32,
    /// Where in the area, in bytes.
    pub byte_offset: u32,
}

/// What a parameter is.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum ParameterKind {
    /// The number of VPs.
    VpCount,
    /// The ACPI table SRAT.
    Srat,
    /// The ACPI table MADT.
    Madt,
    /// The ranges of MMIO.
    MmioRanges,
    /// The memory map.
    MemoryMap,
    /// The command line.
    CommandLine,
    /// The ACPI table SLIT.
    Slit,
    /// The ACPI table PPTT.
    Pptt,
    /// A device tree.
    DeviceTree,
    /// Flags of the environment.
    EnvironmentInfo,
}

impl ParameterKind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::VpCount,
        Self::Srat,
        Self::Madt,
        Self::MmioRanges,
        Self::MemoryMap,
        Self::CommandLine,
        Self::Slit,
        Self::Pptt,
        Self::DeviceTree,
        Self::EnvironmentInfo,
    ];

    /// The name in the format.
    pub fn name(self) -> &'static str {
        match self {
            Self::VpCount => "VP_COUNT",
            Self::Srat => "SRAT",
            Self::Madt => "MADT",
            Self::MmioRanges => "MMIO_RANGES",
            Self::MemoryMap => "MEMORY_MAP",
            Self::CommandLine => "COMMAND_LINE",
            Self::Slit => "SLIT",
            Self::Pptt => "PPTT",
            Self::DeviceTree => "DEVICE_TREE",
            Self::EnvironmentInfo => "ENVIRONMENT_INFO",
        }
    }

    pub(crate) fn record_type(self) -> u32 {
        match self {
            Self::VpCount => 0x307,
            Self::Srat => 0x308,
            Self::Madt => 0x309,
            Self::MmioRanges => 0x30a,
            Self::MemoryMap => 0x30c,
            Self::CommandLine => 0x30e,
            Self::Slit => 0x30f,
            Self::Pptt => 0x310,
            Self::DeviceTree => 0x312,
            Self::EnvironmentInfo => 0x313,
        }
    }
}

/// Puts an area into memory.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct ParameterInsert {
    /// Where.
    pub gpa: u64,
    /// The platforms.
    pub mask: u32,
    /// The area.
    pub area: u32,
}

/// The registers of a VP.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct VpContext<'a> {
    /// The address of the VMSA on SNP and SEV-ES; 0 on other platforms.
    pub gpa: u64,
    /// One platform.
    pub mask: u32,
    /// The VP.
    pub vp_index: u16,
    /// The registers.
    pub data: VpContextData<'a>,
}

/// The registers of a VP, in the platform's format.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum VpContextData<'a> {
    /// NATIVE and SEV.
    Native(&'a NativeVpContext),
    /// VSM_ISOLATION. All are of one VTL.
    Vsm(&'a [VsmRegister]),
    /// SEV_SNP and SEV_ES: a VMSA.
    Vmsa(&'a [u8]),
    /// CCA: the parameters of a REC.
    Rec(&'a [u8]),
}

/// Memory that the guest needs.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct RequiredMemory {
    /// Its address.
    pub gpa: u64,
    /// The platforms.
    pub mask: u32,
    /// Its size in bytes.
    pub size: u32,
    /// Whether VTL2 can protect it.
    pub vtl2_protectable: bool,
}

/// A range of whole pages.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct Sized32 {
    /// Its address.
    pub gpa: u64,
    /// The platforms.
    pub mask: u32,
    /// Its size in bytes.
    pub size: u32,
}

/// The ID block of an SNP guest.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct SnpIdBlock<'a> {
    /// The platforms.
    pub mask: u32,
    /// All of the record.
    pub body: &'a [u8],
    /// The digest that the guest's launch measurement must have.
    pub launch_digest: &'a [u8; 48],
    /// The guest's security version.
    pub guest_svn: u32,
}

/// The signed measurement of a VBS guest.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct VbsMeasurement<'a> {
    /// The platforms.
    pub mask: u32,
    /// All of the record.
    pub body: &'a [u8],
    /// The digest.
    pub digest: &'a [u8; 64],
    /// The guest's security version.
    pub security_version: u32,
}

/// A record that was skipped.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Its type, without the bit that says it is optional.
    pub kind: u32,
    /// The length of its body in bytes.
    pub len: u32,
}

impl IgvmFile<'_> {
    /// The platform of this type.
    pub fn platform(&self, platform_type: PlatformType) -> Option<&Platform> {
        let mut platforms = self.platforms.iter().map(|at| &at.record);
        platforms.find(|platform| platform.platform_type == platform_type)
    }
}

impl Initialization<'_> {
    /// The name in the format.
    pub fn name(&self) -> &'static str {
        match self {
            Self::GuestPolicy(_) => "GUEST_POLICY",
            Self::RelocatableRegion(_) => "RELOCATABLE_REGION",
            Self::PageTableRegion(_) => "PAGE_TABLE_RELOCATION_REGION",
            Self::CorimDocument(_) => "CORIM_DOCUMENT",
            Self::CorimSignature(_) => "CORIM_SIGNATURE",
            Self::CcaPolicy(_) => "CCA_POLICY",
            Self::VersionString(_) => "VERSION_STRING",
        }
    }

    /// The platforms that it is for; `None` if it is for the file.
    pub fn mask(&self) -> Option<u32> {
        match self {
            Self::GuestPolicy(policy) => Some(policy.mask),
            Self::RelocatableRegion(region) => Some(region.mask),
            Self::PageTableRegion(region) => Some(region.mask),
            Self::CorimDocument(corim) | Self::CorimSignature(corim) => Some(corim.mask),
            Self::CcaPolicy(policy) => Some(policy.mask),
            Self::VersionString(_) => None,
        }
    }
}

impl Directive<'_> {
    /// The name in the format.
    pub fn name(&self) -> &'static str {
        match self {
            Self::PageData(_) => "PAGE_DATA",
            Self::ParameterArea(_) => "PARAMETER_AREA",
            Self::Parameter(parameter) => parameter.kind.name(),
            Self::ParameterInsert(_) => "PARAMETER_INSERT",
            Self::VpContext(_) => "VP_CONTEXT",
            Self::RequiredMemory(_) => "REQUIRED_MEMORY",
            Self::ErrorRange(_) => "ERROR_RANGE",
            Self::SnpIdBlock(_) => "SNP_ID_BLOCK",
            Self::VbsMeasurement(_) => "VBS_MEASUREMENT",
        }
    }

    /// The platforms that it is for. Areas and parameters have no mask: they are for those that insert the area.
    pub fn mask(&self) -> Option<u32> {
        match self {
            Self::PageData(page) => Some(page.mask),
            Self::ParameterArea(_) | Self::Parameter(_) => None,
            Self::ParameterInsert(insert) => Some(insert.mask),
            Self::VpContext(context) => Some(context.mask),
            Self::RequiredMemory(memory) => Some(memory.mask),
            Self::ErrorRange(range) => Some(range.mask),
            Self::SnpIdBlock(block) => Some(block.mask),
            Self::VbsMeasurement(measurement) => Some(measurement.mask),
        }
    }

    /// Whether it is for one of the platforms of `mask`, or may be.
    pub fn applies_to(&self, mask: u32) -> bool {
        self.mask().is_none_or(|own| own & mask != 0)
    }
}

/// The name of a type of record, for errors; and whether it is known.
pub(crate) fn record_name(kind: u32) -> Option<&'static str> {
    Some(match kind {
        raw::SUPPORTED_PLATFORM => "SUPPORTED_PLATFORM",
        raw::GUEST_POLICY => "GUEST_POLICY",
        raw::RELOCATABLE_REGION => "RELOCATABLE_REGION",
        raw::PAGE_TABLE_REGION => "PAGE_TABLE_RELOCATION_REGION",
        raw::CORIM_DOCUMENT => "CORIM_DOCUMENT",
        raw::CORIM_SIGNATURE => "CORIM_SIGNATURE",
        raw::CCA_POLICY => "CCA_POLICY",
        raw::VERSION_STRING => "VERSION_STRING",
        raw::PARAMETER_AREA => "PARAMETER_AREA",
        raw::PAGE_DATA => "PAGE_DATA",
        raw::PARAMETER_INSERT => "PARAMETER_INSERT",
        raw::VP_CONTEXT => "VP_CONTEXT",
        raw::REQUIRED_MEMORY => "REQUIRED_MEMORY",
        raw::SNP_ID_BLOCK => "SNP_ID_BLOCK",
        raw::ERROR_RANGE => "ERROR_RANGE",
        raw::VBS_MEASUREMENT => "VBS_MEASUREMENT",
        _ => {
            let mut parameters = ParameterKind::ALL.iter();
            parameters
                .find(|parameter| parameter.record_type() == kind)?
                .name()
        }
    })
}
