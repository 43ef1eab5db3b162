//! Reads and validates a file.

use crate::Architecture;
use crate::At;
use crate::CcaPolicy;
use crate::Corim;
use crate::Directive;
use crate::GuestPolicy;
use crate::IgvmError;
use crate::IgvmFile;
use crate::Initialization;
use crate::LARGE_PAGE;
use crate::NativeVpContext;
use crate::PAGE;
use crate::PageDataRecord;
use crate::PageDataType;
use crate::PageFlags;
use crate::PageTableRegion;
use crate::ParameterAreaRecord;
use crate::ParameterInsert;
use crate::ParameterKind;
use crate::ParameterRecord;
use crate::Platform;
use crate::PlatformType;
use crate::Problem;
use crate::RelocatableRegion;
use crate::RequiredMemory;
use crate::Sized32;
use crate::Skipped;
use crate::SnpIdBlock;
use crate::VbsMeasurement;
use crate::VpContext;
use crate::VpContextData;
use crate::VsmRegister;
use crate::file::record_name;
use crate::header::Header;
use crate::raw;
use std::collections::HashMap;
use std::collections::HashSet;
use zerocopy::FromBytes;
use zerocopy::Immutable;
use zerocopy::KnownLayout;
use zerocopy::Unaligned;
use zerocopy::little_endian::U32;

/// The largest SVM save area, and the page of any other context, in bytes.
const CONTEXT_PAGE: u64 = PAGE;
/// The bytes of a page that hold the parameters of a REC.
const REC_LEN: usize = 80;

/// The sections, in the order that they have in a file.
#[derive(Debug, Copy, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Section {
    Platform,
    Initialization,
    Directive,
}

impl Section {
    fn of(kind: u32) -> Option<Self> {
        match kind {
            0x1..=0x100 => Some(Self::Platform),
            0x101..=0x200 => Some(Self::Initialization),
            0x301..=0x400 => Some(Self::Directive),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Platform => "platform",
            Self::Initialization => "initialization",
            Self::Directive => "directive",
        }
    }
}

/// A record that is being read.
#[derive(Debug, Copy, Clone)]
struct Record<'a> {
    offset: u64,
    name: &'static str,
    body: &'a [u8],
}

impl<'a> Record<'a> {
    fn error(&self, problem: Problem) -> IgvmError {
        IgvmError {
            offset: self.offset,
            structure: self.name,
            problem,
        }
    }

    /// The body as a structure.
    fn read<T>(&self) -> Result<&'a T, IgvmError>
    where
        T: FromBytes + KnownLayout + Immutable + Unaligned,
    {
        T::ref_from_bytes(self.body).map_err(|_| {
            self.error(Problem::Length {
                found: self.body.len() as u32,
                expected: size_of::<T>() as u32,
            })
        })
    }

    fn require(
        &self,
        holds: bool,
        field: &'static str,
        value: u64,
        expected: &'static str,
    ) -> Result<(), IgvmError> {
        let problem = || Problem::Value {
            field,
            value,
            expected,
        };
        holds.then_some(()).ok_or_else(|| self.error(problem()))
    }

    fn require_zero(&self, is_zero: bool, field: &'static str) -> Result<(), IgvmError> {
        let problem = Problem::NotZero { field };
        is_zero.then_some(()).ok_or_else(|| self.error(problem))
    }

    fn page_multiple(&self, field: &'static str, value: u64) -> Result<(), IgvmError> {
        let expected = "a multiple of 4096 is needed";
        self.require(value.is_multiple_of(PAGE), field, value, expected)
    }

    /// Checks a range of whole pages.
    fn pages(&self, gpa: u64, size: u64) -> Result<(), IgvmError> {
        self.page_multiple("the address", gpa)?;
        self.page_multiple("the size", size)?;
        self.require(size != 0, "the size", size, "it must not be empty")?;
        match gpa.checked_add(size) {
            Some(_) => Ok(()),
            None => Err(self.error(Problem::Overflow { gpa, size })),
        }
    }
}

/// A declared parameter area.
struct Area {
    size: u64,
    inserted: bool,
}

struct Parser<'a> {
    file: &'a [u8],
    /// Where the file's data starts.
    data_start: usize,
    parsed: IgvmFile<'a>,
    /// The bits of all platforms.
    platforms: u32,
    section: Section,
    areas: HashMap<u32, Area>,
    /// The page-table regions, and what names a VP in the initialization headers.
    page_tables: Vec<(u32, u64, u64)>,
    relocated_vps: Vec<(Record<'a>, u32, u16)>,
    contexts: HashSet<(u32, u16)>,
}

impl<'a> IgvmFile<'a> {
    /// Reads `file`, all of which must be there, and checks all that the format demands of a file. What it demands of
    /// one platform's records together is checked by [`Self::check_overlaps`].
    pub fn parse(file: &'a [u8]) -> Result<Self, IgvmError> {
        let header = Header::parse(file)?;
        let start = header.records_offset as usize;
        let mut parser = Parser {
            file,
            data_start: start + header.records.len(),
            parsed: Self {
                revision: header.revision,
                platforms: Vec::new(),
                initializations: Vec::new(),
                directives: Vec::new(),
                skipped: Vec::new(),
            },
            platforms: 0,
            section: Section::Platform,
            areas: HashMap::new(),
            page_tables: Vec::new(),
            relocated_vps: Vec::new(),
            contexts: HashSet::new(),
        };
        parser.records(header.records, header.records_offset)?;
        Ok(parser.parsed)
    }
}

impl<'a> Parser<'a> {
    fn records(&mut self, records: &'a [u8], start: u64) -> Result<(), IgvmError> {
        let mut rest = records;
        while !rest.is_empty() {
            let offset = start + (records.len() - rest.len()) as u64;
            let truncated = |needed: u64| IgvmError {
                offset,
                structure: "record",
                problem: Problem::Truncated {
                    needed,
                    available: rest.len() as u64,
                },
            };
            let (header, bodies) = raw::RecordHeader::ref_from_prefix(rest)
                .map_err(|_| truncated(size_of::<raw::RecordHeader>() as u64))?;
            let len = header.length.get();
            let padded = u64::from(len).next_multiple_of(8);
            let whole = size_of::<raw::RecordHeader>() as u64 + padded;
            let (padded, next) = bodies
                .split_at_checked(padded as usize)
                .ok_or_else(|| truncated(whole))?;
            let (body, padding) = padded.split_at(len as usize);
            self.record(header.kind.get(), offset, body, padding)?;
            rest = next;
        }
        if self.parsed.platforms.is_empty() {
            return Err(IgvmError {
                offset: start,
                structure: "variable headers",
                problem: Problem::NoPlatform,
            });
        }
        for (record, mask, vp_index) in &self.relocated_vps {
            let mut bits = (0..u32::BITS).map(|bit| mask & 1 << bit);
            if !bits.any(|bit| self.contexts.contains(&(bit, *vp_index))) {
                let vp_index = *vp_index;
                return Err(record.error(Problem::NoVpContext { vp_index }));
            }
        }
        Ok(())
    }

    fn record(
        &mut self,
        kind: u32,
        offset: u64,
        body: &'a [u8],
        padding: &[u8],
    ) -> Result<(), IgvmError> {
        let optional = kind & raw::OPTIONAL != 0;
        let kind = kind & !raw::OPTIONAL;
        let name = record_name(kind);
        let record = Record {
            offset,
            name: name.unwrap_or("record"),
            body,
        };
        let (Some(_), Some(section)) = (name, Section::of(kind)) else {
            if !optional {
                return Err(record.error(Problem::UnknownType { kind }));
            }
            let skipped = Skipped {
                kind,
                len: body.len() as u32,
            };
            self.parsed.skipped.push(At {
                offset,
                record: skipped,
            });
            return Ok(());
        };
        record.require_zero(padding.iter().all(|byte| *byte == 0), "the padding")?;
        if section < self.section {
            let after = self.section.name();
            return Err(record.error(Problem::Order { after }));
        }
        self.section = section;
        match section {
            Section::Platform => {
                let record = self.platform(record)?;
                self.parsed.platforms.push(At { offset, record });
            }
            Section::Initialization => {
                let record = self.initialization(kind, record)?;
                self.parsed.initializations.push(At { offset, record });
            }
            Section::Directive => {
                let record = self.directive(kind, record)?;
                self.parsed.directives.push(At { offset, record });
            }
        }
        Ok(())
    }

    fn platform(&mut self, record: Record<'a>) -> Result<Platform, IgvmError> {
        let raw: &raw::SupportedPlatform = record.read()?;
        let mask = raw.mask.get();
        let number = raw.platform_type;
        let platform_type = PlatformType::ALL.get(usize::from(number)).copied();
        let platform_type = platform_type.ok_or_else(|| {
            record.error(Problem::Value {
                field: "the platform type",
                value: number.into(),
                expected: "0 to 6 are known",
            })
        })?;
        record.require(
            mask.is_power_of_two(),
            "the mask",
            mask.into(),
            "exactly one bit is needed",
        )?;
        let vtl = raw.highest_vtl;
        record.require(
            vtl == 0 || vtl == 2,
            "the highest VTL",
            vtl.into(),
            "0 and 2 are allowed",
        )?;
        let version = raw.platform_version.get();
        record.require(
            version == 1,
            "the platform version",
            version.into(),
            "1 is known",
        )?;
        let x64 = self.parsed.revision.architecture() == Architecture::X64;
        let exists = match platform_type {
            PlatformType::VsmIsolation => true,
            PlatformType::Cca => !x64,
            _ => x64,
        };
        if !exists {
            let platform = platform_type;
            return Err(record.error(Problem::NotOnPlatform { platform }));
        }
        let boundary = raw.shared_gpa_boundary.get();
        let (allowed, expected) = match platform_type {
            PlatformType::SevSnp | PlatformType::Tdx | PlatformType::Cca => (
                boundary == 0 || boundary.is_power_of_two(),
                "a power of two is needed",
            ),
            _ => (boundary == 0, "this platform has no shared memory"),
        };
        record.require(allowed, "the shared GPA boundary", boundary, expected)?;
        if self.platforms & mask != 0 || self.parsed.platform(platform_type).is_some() {
            let platform = platform_type;
            return Err(record.error(Problem::DuplicatePlatform { platform }));
        }
        self.platforms |= mask;
        Ok(Platform {
            mask,
            highest_vtl: vtl,
            platform_type,
            shared_gpa_boundary: boundary,
        })
    }

    /// A mask that names declared platforms.
    fn mask(&self, record: &Record<'_>, mask: U32) -> Result<u32, IgvmError> {
        let mask = mask.get();
        record.require(
            mask != 0 && mask & !self.platforms == 0,
            "the mask",
            mask.into(),
            "it must name platforms that are declared",
        )?;
        Ok(mask)
    }

    /// The one platform of a mask.
    fn only_platform(&self, record: &Record<'_>, mask: u32) -> Result<PlatformType, IgvmError> {
        let mut platforms = self.parsed.platforms.iter().map(|at| at.record);
        let platform = platforms.find(|platform| platform.mask == mask);
        platform
            .map(|platform| platform.platform_type)
            .ok_or_else(|| {
                record.error(Problem::Value {
                    field: "the mask",
                    value: mask.into(),
                    expected: "it must name exactly one platform",
                })
            })
    }

    /// `len` bytes of the file's data.
    fn data(&self, record: &Record<'_>, offset: U32, len: u64) -> Result<&'a [u8], IgvmError> {
        let offset = offset.get();
        let start = offset as usize;
        let data = usize::try_from(len)
            .ok()
            .filter(|_| start >= self.data_start)
            .and_then(|len| self.file.get(start..)?.get(..len));
        data.ok_or_else(|| {
            record.error(Problem::Data {
                offset: offset.into(),
                len,
                start: self.data_start as u64,
                end: self.file.len() as u64,
            })
        })
    }

    fn initialization(
        &mut self,
        kind: u32,
        record: Record<'a>,
    ) -> Result<Initialization<'a>, IgvmError> {
        match kind {
            raw::GUEST_POLICY => {
                let raw: &raw::GuestPolicy = record.read()?;
                record.require_zero(raw.reserved.get() == 0, "the reserved field")?;
                Ok(Initialization::GuestPolicy(GuestPolicy {
                    mask: self.mask(&record, raw.mask)?,
                    policy: raw.policy.get(),
                }))
            }
            raw::RELOCATABLE_REGION => self.relocatable_region(record),
            raw::PAGE_TABLE_REGION => self.page_table_region(record),
            raw::CORIM_DOCUMENT => {
                let corim = self.corim(record)?;
                let repeated = |at: &At<Initialization<'_>>| match at.record {
                    Initialization::CorimDocument(other) => other.mask & corim.mask != 0,
                    _ => false,
                };
                match self.parsed.initializations.iter().any(repeated) {
                    true => Err(record.error(Problem::Repeated)),
                    false => Ok(Initialization::CorimDocument(corim)),
                }
            }
            raw::CORIM_SIGNATURE => {
                let corim = self.corim(record)?;
                let mut document = false;
                for at in &self.parsed.initializations {
                    match at.record {
                        Initialization::CorimDocument(other) => {
                            document |= other.mask == corim.mask;
                        }
                        Initialization::CorimSignature(other) if other.mask & corim.mask != 0 => {
                            return Err(record.error(Problem::Repeated));
                        }
                        _ => {}
                    }
                }
                let missing = "CORIM_DOCUMENT with the same mask";
                match document {
                    true => Ok(Initialization::CorimSignature(corim)),
                    false => Err(record.error(Problem::Missing { missing })),
                }
            }
            raw::CCA_POLICY => self.cca_policy(record),
            _ => {
                let earlier = self.parsed.initializations.iter();
                let mut earlier = earlier.map(|at| &at.record);
                if earlier.any(|other| matches!(other, Initialization::VersionString(_))) {
                    return Err(record.error(Problem::Repeated));
                }
                let text = std::str::from_utf8(record.body).map_err(|error| {
                    record.error(Problem::Value {
                        field: "the length of its valid UTF-8",
                        value: error.valid_up_to() as u64,
                        expected: "all of it must be UTF-8",
                    })
                })?;
                Ok(Initialization::VersionString(text))
            }
        }
    }

    fn relocatable_region(&mut self, record: Record<'a>) -> Result<Initialization<'a>, IgvmError> {
        let raw: &raw::RelocatableRegion = record.read()?;
        let mask = self.mask(&record, raw.mask)?;
        let flags = raw.flags;
        record.require(
            flags <= 7,
            "the flags",
            flags.into(),
            "bits 0 to 2 are known",
        )?;
        record.require(
            raw.vtl <= 2,
            "the VTL",
            raw.vtl.into(),
            "0 to 2 are allowed",
        )?;
        let alignment = raw.alignment.get();
        let expected = "a multiple of 4096 that is not zero is needed";
        let aligned = alignment != 0 && alignment.is_multiple_of(PAGE);
        record.require(aligned, "the alignment", alignment, expected)?;
        let (gpa, size) = (raw.gpa.get(), raw.size.get());
        let (minimum, maximum) = (raw.minimum_gpa.get(), raw.maximum_gpa.get());
        for (field, value) in [
            ("the address", gpa),
            ("the minimum address", minimum),
            ("the maximum address", maximum),
        ] {
            let expected = "a multiple of the alignment is needed";
            record.require(value.is_multiple_of(alignment), field, value, expected)?;
        }
        record.pages(gpa, size)?;
        let end = gpa + size;
        for table in &self.page_tables {
            self.check_page_table_overlap(&record, *table, mask, gpa, end)?;
        }
        let vp_index = raw.vp_index.get();
        self.relocated_vps.push((record, mask, vp_index));
        Ok(Initialization::RelocatableRegion(RelocatableRegion {
            mask,
            vp_index,
            vtl: raw.vtl,
            is_vtl2: flags & 1 != 0,
            apply_rip_offset: flags & 2 != 0,
            apply_gdtr_offset: flags & 4 != 0,
            alignment,
            gpa,
            size,
            minimum_gpa: minimum,
            maximum_gpa: maximum,
        }))
    }

    fn check_page_table_overlap(
        &self,
        record: &Record<'_>,
        (table_mask, table_start, table_end): (u32, u64, u64),
        mask: u32,
        start: u64,
        end: u64,
    ) -> Result<(), IgvmError> {
        let overlaps = table_mask & mask != 0 && start < table_end && table_start < end;
        record.require(
            !overlaps,
            "the address",
            start,
            "the range overlaps the page-table region",
        )
    }

    fn page_table_region(&mut self, record: Record<'a>) -> Result<Initialization<'a>, IgvmError> {
        let raw: &raw::PageTableRegion = record.read()?;
        let mask = self.mask(&record, raw.mask)?;
        record.require_zero(raw.reserved == 0, "the reserved field")?;
        record.require(
            raw.vtl <= 2,
            "the VTL",
            raw.vtl.into(),
            "0 to 2 are allowed",
        )?;
        let (gpa, size, used) = (raw.gpa.get(), raw.size.get(), raw.used_size.get());
        record.pages(gpa, size)?;
        record.page_multiple("the used size", used)?;
        record.require(
            used <= size,
            "the used size",
            used,
            "it is more than the size",
        )?;
        let table = (mask, gpa, gpa + size);
        if self.page_tables.iter().any(|(other, ..)| other & mask != 0) {
            return Err(record.error(Problem::Repeated));
        }
        for at in &self.parsed.initializations {
            if let Initialization::RelocatableRegion(region) = at.record
                && region.mask & mask != 0
                && region.gpa < gpa + size
                && gpa < region.gpa + region.size
            {
                let expected = "the range overlaps a relocatable region";
                record.require(false, "the address", gpa, expected)?;
            }
        }
        self.page_tables.push(table);
        let vp_index = raw.vp_index.get();
        self.relocated_vps.push((record, mask, vp_index));
        Ok(Initialization::PageTableRegion(PageTableRegion {
            mask,
            vp_index,
            vtl: raw.vtl,
            gpa,
            size,
            used_size: used,
        }))
    }

    fn corim(&self, record: Record<'a>) -> Result<Corim<'a>, IgvmError> {
        let raw: &raw::Corim = record.read()?;
        record.require_zero(raw.reserved.get() == 0, "the reserved field")?;
        Ok(Corim {
            mask: self.mask(&record, raw.mask)?,
            data: self.data(&record, raw.file_offset, raw.size.get().into())?,
        })
    }

    fn cca_policy(&self, record: Record<'a>) -> Result<Initialization<'a>, IgvmError> {
        let raw: &raw::CcaPolicy = record.read()?;
        let mask = self.mask(&record, raw.mask)?;
        let platform = self.only_platform(&record, mask)?;
        if platform != PlatformType::Cca {
            return Err(record.error(Problem::NotOnPlatform { platform }));
        }
        record.require_zero(
            raw.reserved.get() == 0 && raw.reserved_end == [0; 6],
            "a reserved field",
        )?;
        let (zero, one) = (raw.required_zero.get(), raw.required_one.get());
        record.require(
            zero & one == 0,
            "the required-one attributes",
            one,
            "some of them are required to be zero",
        )?;
        let hash = raw.hash_algorithm;
        record.require(
            hash <= 2,
            "the hash algorithm",
            hash.into(),
            "0 to 2 are known",
        )?;
        let lfa = raw.lfa_policy;
        record.require(lfa <= 1, "the LFA policy", lfa.into(), "0 and 1 are known")?;
        Ok(Initialization::CcaPolicy(CcaPolicy {
            mask,
            required_zero: zero,
            required_one: one,
            hash_algorithm: hash,
            lfa_policy: lfa,
        }))
    }

    fn directive(&mut self, kind: u32, record: Record<'a>) -> Result<Directive<'a>, IgvmError> {
        match kind {
            raw::PAGE_DATA => self.page_data(record),
            raw::PARAMETER_AREA => self.parameter_area(record),
            raw::PARAMETER_INSERT => self.parameter_insert(record),
            raw::VP_CONTEXT => self.vp_context(record),
            raw::REQUIRED_MEMORY => {
                let raw: &raw::RequiredMemory = record.read()?;
                record.require_zero(raw.reserved.get() == 0, "the reserved field")?;
                let flags = raw.flags.get();
                record.require(flags <= 1, "the flags", flags.into(), "bit 0 is known")?;
                let (gpa, size) = (raw.gpa.get(), raw.size.get());
                record.pages(gpa, size.into())?;
                Ok(Directive::RequiredMemory(RequiredMemory {
                    gpa,
                    mask: self.mask(&record, raw.mask)?,
                    size,
                    vtl2_protectable: flags & 1 != 0,
                }))
            }
            raw::ERROR_RANGE => {
                let raw: &raw::ErrorRange = record.read()?;
                let (gpa, size) = (raw.gpa.get(), raw.size.get());
                record.pages(gpa, size.into())?;
                Ok(Directive::ErrorRange(Sized32 {
                    gpa,
                    mask: self.mask(&record, raw.mask)?,
                    size,
                }))
            }
            raw::SNP_ID_BLOCK => {
                let raw: &raw::SnpIdBlock = record.read()?;
                let reserved = raw.reserved == [0; 3]
                    && raw.id_key.reserved.get() == 0
                    && raw.author_key.reserved.get() == 0;
                record.require_zero(reserved, "a reserved field")?;
                Ok(Directive::SnpIdBlock(SnpIdBlock {
                    mask: self.mask(&record, raw.mask)?,
                    body: record.body,
                    launch_digest: &raw.launch_digest,
                    guest_svn: raw.guest_svn.get(),
                }))
            }
            raw::VBS_MEASUREMENT => {
                let raw: &raw::VbsMeasurement = record.read()?;
                Ok(Directive::VbsMeasurement(VbsMeasurement {
                    mask: self.mask(&record, raw.mask)?,
                    body: record.body,
                    digest: &raw.digest,
                    security_version: raw.security_version.get(),
                }))
            }
            _ => self.parameter(kind, record),
        }
    }

    fn page_data(&self, record: Record<'a>) -> Result<Directive<'a>, IgvmError> {
        let raw: &raw::PageData = record.read()?;
        record.require_zero(raw.reserved.get() == 0, "the reserved field")?;
        let bits = raw.flags.get();
        let flags = PageFlags::from_bits(bits).ok_or_else(|| {
            record.error(Problem::Value {
                field: "the flags",
                value: bits.into(),
                expected: "bits 0 to 2 are known",
            })
        })?;
        let number = raw.data_type.get();
        let data_type = PageDataType::ALL.get(usize::from(number)).copied();
        let data_type = data_type.ok_or_else(|| {
            record.error(Problem::Value {
                field: "the data type",
                value: number.into(),
                expected: "0 to 3 are known",
            })
        })?;
        let gpa = raw.gpa.get();
        let size = match flags.large {
            true => {
                let expected = "a multiple of 2 MiB is needed";
                record.require(gpa.is_multiple_of(LARGE_PAGE), "the address", gpa, expected)?;
                LARGE_PAGE
            }
            false => PAGE,
        };
        record.pages(gpa, size)?;
        Ok(Directive::PageData(PageDataRecord {
            gpa,
            mask: self.mask(&record, raw.mask)?,
            flags,
            data_type,
            data: match raw.file_offset.get() {
                0 => &[],
                _ => self.data(&record, raw.file_offset, size)?,
            },
        }))
    }

    fn parameter_area(&mut self, record: Record<'a>) -> Result<Directive<'a>, IgvmError> {
        let raw: &raw::ParameterArea = record.read()?;
        let (size, index) = (raw.size.get(), raw.index.get());
        record.pages(0, size)?;
        let initial = match raw.file_offset.get() {
            0 => &[],
            _ => self.data(&record, raw.file_offset, size)?,
        };
        let area = Area {
            size,
            inserted: false,
        };
        match self.areas.insert(index, area) {
            Some(_) => Err(record.error(Problem::AreaDeclared { index })),
            None => Ok(Directive::ParameterArea(ParameterAreaRecord {
                index,
                size,
                initial,
            })),
        }
    }

    /// The area `index`, which was not inserted yet.
    fn area(&mut self, record: &Record<'_>, index: u32) -> Result<&mut Area, IgvmError> {
        let unusable = |state| record.error(Problem::AreaUnusable { index, state });
        match self.areas.get_mut(&index) {
            None => Err(unusable("is not declared")),
            Some(area) if area.inserted => Err(unusable("was inserted already")),
            Some(area) => Ok(area),
        }
    }

    fn parameter(&mut self, kind: u32, record: Record<'a>) -> Result<Directive<'a>, IgvmError> {
        let mut kinds = ParameterKind::ALL.into_iter();
        let parameter = kinds.find(|parameter| parameter.record_type() == kind);
        let parameter = parameter.ok_or_else(|| record.error(Problem::UnknownType { kind }))?;
        let raw: &raw::Parameter = record.read()?;
        let (index, byte_offset) = (raw.index.get(), raw.byte_offset.get());
        let size = self.area(&record, index)?.size;
        let expected = "it is not inside the parameter area";
        let inside = u64::from(byte_offset) < size;
        record.require(inside, "the byte offset", byte_offset.into(), expected)?;
        Ok(Directive::Parameter(ParameterRecord {
            kind: parameter,
            area: index,
            byte_offset,
        }))
    }

    fn parameter_insert(&mut self, record: Record<'a>) -> Result<Directive<'a>, IgvmError> {
        let raw: &raw::ParameterInsert = record.read()?;
        let mask = self.mask(&record, raw.mask)?;
        let (gpa, index) = (raw.gpa.get(), raw.index.get());
        let area = self.area(&record, index)?;
        area.inserted = true;
        let size = area.size;
        record.pages(gpa, size)?;
        for table in &self.page_tables {
            self.check_page_table_overlap(&record, *table, mask, gpa, gpa + size)?;
        }
        Ok(Directive::ParameterInsert(ParameterInsert {
            gpa,
            mask,
            area: index,
        }))
    }

    fn vp_context(&mut self, record: Record<'a>) -> Result<Directive<'a>, IgvmError> {
        let raw: &raw::VpContext = record.read()?;
        record.require_zero(raw.reserved.get() == 0, "the reserved field")?;
        let mask = self.mask(&record, raw.mask)?;
        let platform = self.only_platform(&record, mask)?;
        let (gpa, vp_index) = (raw.gpa.get(), raw.vp_index.get());
        let page = || self.data(&record, raw.file_offset, CONTEXT_PAGE);
        let data = match platform {
            PlatformType::Native | PlatformType::Sev => {
                let page = page()?;
                let (context, rest) = NativeVpContext::ref_from_prefix(page).map_err(|_| {
                    record.error(Problem::Truncated {
                        needed: size_of::<NativeVpContext>() as u64,
                        available: page.len() as u64,
                    })
                })?;
                let zero = rest.iter().all(|byte| *byte == 0)
                    && context.reserved.iter().all(|field| field.get() == 0);
                record.require_zero(zero, "a reserved part of the context")?;
                VpContextData::Native(context)
            }
            PlatformType::VsmIsolation => {
                let expected = "register lists are for VP 0";
                record.require(vp_index == 0, "the VP", vp_index.into(), expected)?;
                VpContextData::Vsm(self.register_list(&record, raw.file_offset)?)
            }
            PlatformType::SevSnp | PlatformType::SevEs => {
                record.page_multiple("the address", gpa)?;
                VpContextData::Vmsa(page()?)
            }
            PlatformType::Cca => {
                let (rec, rest) = page()?.split_at(REC_LEN);
                let zero = rest.iter().all(|byte| *byte == 0);
                record.require_zero(zero, "a reserved part of the context")?;
                VpContextData::Rec(rec)
            }
            PlatformType::Tdx => return Err(record.error(Problem::NotOnPlatform { platform })),
        };
        let vmsa = matches!(data, VpContextData::Vmsa(_));
        record.require(vmsa || gpa == 0, "the address", gpa, "only a VMSA has one")?;
        self.contexts.insert((mask, vp_index));
        Ok(Directive::VpContext(VpContext {
            gpa,
            mask,
            vp_index,
            data,
        }))
    }

    fn register_list(
        &self,
        record: &Record<'_>,
        offset: U32,
    ) -> Result<&'a [VsmRegister], IgvmError> {
        let count = self.data(record, offset, size_of::<U32>() as u64)?;
        let count = U32::read_from_bytes(count).map_or(0, U32::get);
        let len = size_of::<U32>() as u64 + u64::from(count) * size_of::<VsmRegister>() as u64;
        let list = &self.data(record, offset, len)?[size_of::<U32>()..];
        let registers = <[VsmRegister]>::ref_from_bytes(list).unwrap_or_default();
        let vtl = registers.first().map_or(0, |register| register.vtl);
        record.require(vtl <= 2, "the VTL", vtl.into(), "0 to 2 are allowed")?;
        for register in registers {
            let expected = "the registers of a context have one VTL";
            record.require(
                register.vtl == vtl,
                "the VTL",
                register.vtl.into(),
                expected,
            )?;
            record.require_zero(register.reserved == [0; 11], "a register's reserved field")?;
        }
        Ok(registers)
    }
}
