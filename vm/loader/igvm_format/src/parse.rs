//! Reads and validates a file.

mod directive;
mod initialization;
mod record;

use crate::Architecture;
use crate::At;
use crate::IgvmError;
use crate::IgvmFile;
use crate::Platform;
use crate::PlatformType;
use crate::Problem;
use crate::Skipped;
use crate::file::record_name;
use crate::header::Header;
use crate::raw;
use record::Record;
use std::collections::HashMap;
use std::collections::HashSet;
use zerocopy::FromBytes as _;
use zerocopy::little_endian::U32;

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
        let expected = "0 to 6 are known";
        let platform_type =
            record.known(platform_type, "the platform type", number.into(), expected)?;
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
        let platform_type = platform.map(|platform| platform.platform_type);
        let expected = "it must name exactly one platform";
        record.known(platform_type, "the mask", mask.into(), expected)
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
}
