//! The loader's calls, packed into records of an IGVM file.

use guest_memory::MemoryRange;
use igvm_format::At;
use igvm_format::Directive;
use igvm_format::PAGE;
use igvm_format::PageDataRecord;
use igvm_format::PageDataType;
use igvm_format::PageFlags;
use igvm_format::ParameterAreaRecord;
use igvm_format::ParameterInsert;
use igvm_format::ParameterKind;
use igvm_format::ParameterRecord;
use igvm_format::RequiredMemory;
use loader::ImageLoad;
use loader::ImportError;
use loader::PageImport;
use loader::Parameter;
use loader::ParameterArea;
use loader::VpRegister;
use loader::VpRegisters;
use std::collections::BTreeMap;

/// The most memory that one record can require, in bytes: the size has 32 bits.
const MAX_REQUIRED: u64 = 2 << 30;

/// Where a file's command line comes from.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum CommandLine {
    /// It is in the file.
    InFile,
    /// Whoever starts the file gives it.
    FromHost,
}

/// An image, packed for one platform.
#[derive(Debug)]
pub struct PackedImage {
    command_line: CommandLine,
    required: Vec<(&'static str, MemoryRange)>,
    /// By first address.
    pages: BTreeMap<u64, PackedPages>,
    areas: Vec<PackedArea>,
    registers: VpRegisters,
}

/// Pages that were imported together.
#[derive(Debug)]
pub(crate) struct PackedPages {
    pub what: &'static str,
    pub range: MemoryRange,
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct PackedArea {
    area: ParameterArea,
    initial: Vec<u8>,
    parameters: Vec<(ParameterKind, u32)>,
}

impl PackedImage {
    /// An image without content.
    pub fn new(command_line: CommandLine) -> Self {
        Self {
            command_line,
            required: Vec::new(),
            pages: BTreeMap::new(),
            areas: Vec::new(),
            registers: VpRegisters::new(),
        }
    }

    /// The registers that were imported.
    pub fn registers(&self) -> &VpRegisters {
        &self.registers
    }

    /// The memory that is required, with what for.
    pub(crate) fn required(&self) -> &[(&'static str, MemoryRange)] {
        &self.required
    }

    /// What is where, ascending.
    pub(crate) fn placed(&self) -> Vec<(&'static str, MemoryRange)> {
        let pages = self.pages.values().map(|pages| (pages.what, pages.range));
        let areas = self
            .areas
            .iter()
            .map(|area| (area.area.what, area.area.range));
        let mut placed: Vec<_> = pages.chain(areas).collect();
        placed.sort_by_key(|(_, range)| *range);
        placed
    }

    /// The number of parameter areas.
    pub(crate) fn area_count(&self) -> u32 {
        self.areas.len() as u32
    }

    /// The records for the platforms of `mask`, whose areas are numbered from `first_area`: areas with their
    /// parameters, required memory, `context`, inserts, and all pages, ascending.
    pub(crate) fn directives<'a>(
        &'a self,
        mask: u32,
        first_area: u32,
        context: Option<Directive<'a>>,
    ) -> impl Iterator<Item = At<Directive<'a>>> {
        let areas = (first_area..).zip(&self.areas);
        let declared = areas.clone().flat_map(|(index, area)| {
            let declaration = Directive::ParameterArea(ParameterAreaRecord {
                index,
                size: area.area.range.len(),
                initial: &area.initial,
            });
            let parameters = area.parameters.iter().map(move |(kind, byte_offset)| {
                Directive::Parameter(ParameterRecord {
                    kind: *kind,
                    area: index,
                    byte_offset: *byte_offset,
                })
            });
            [declaration].into_iter().chain(parameters)
        });
        let required = self.required.iter().flat_map(move |(_, range)| {
            let starts = (range.start..range.end).step_by(MAX_REQUIRED as usize);
            starts.map(move |gpa| {
                Directive::RequiredMemory(RequiredMemory {
                    gpa,
                    mask,
                    size: MAX_REQUIRED.min(range.end - gpa) as u32,
                    vtl2_protectable: false,
                })
            })
        });
        let mut inserts: Vec<_> = areas
            .map(|(area, packed)| ParameterInsert {
                gpa: packed.area.range.start,
                mask,
                area,
            })
            .collect();
        inserts.sort_by_key(|insert| insert.gpa);
        let inserts = inserts.into_iter().map(Directive::ParameterInsert);
        let pages = self.pages.values().flat_map(move |pages| {
            let addresses = (pages.range.start..).step_by(PAGE as usize);
            addresses
                .zip(pages.bytes.chunks_exact(PAGE as usize))
                .map(move |(gpa, bytes)| {
                    let is_zero = bytes.iter().all(|byte| *byte == 0);
                    Directive::PageData(PageDataRecord {
                        gpa,
                        mask,
                        flags: PageFlags::default(),
                        data_type: PageDataType::Normal,
                        data: if is_zero { &[] } else { bytes },
                    })
                })
        });
        declared
            .chain(required)
            .chain(context)
            .chain(inserts)
            .chain(pages)
            .map(At::from)
    }

    fn claim(&self, what: &'static str, range: MemoryRange) -> Result<(), ImportError> {
        let mut placed = self.placed().into_iter();
        let overlap = placed.find(|(_, other)| other.start < range.end && range.start < other.end);
        match overlap {
            None => Ok(()),
            Some((other, other_range)) => Err(ImportError::Overlap {
                what,
                range,
                other,
                other_range,
            }),
        }
    }

    fn area(&mut self, area: ParameterArea) -> Result<&mut PackedArea, ImportError> {
        let ParameterArea { what, range } = area;
        let mut areas = self.areas.iter_mut();
        areas
            .find(|packed| packed.area == area)
            .ok_or(ImportError::Content { what, range })
    }
}

impl ImageLoad for PackedImage {
    fn require_memory(
        &mut self,
        what: &'static str,
        range: MemoryRange,
    ) -> Result<(), ImportError> {
        let mut required = self.required.iter();
        let known = required.any(|(_, other)| other.start <= range.start && range.end <= other.end);
        if !known {
            self.required.push((what, range));
        }
        Ok(())
    }

    fn import_pages(&mut self, pages: &PageImport) -> Result<(), ImportError> {
        self.claim(pages.what, pages.range)?;
        let packed = PackedPages {
            what: pages.what,
            range: pages.range,
            bytes: pages.read()?,
        };
        self.pages.insert(pages.range.start, packed);
        Ok(())
    }

    fn create_parameter_area(&mut self, area: ParameterArea) -> Result<(), ImportError> {
        self.claim(area.what, area.range)?;
        self.areas.push(PackedArea {
            area,
            initial: Vec::new(),
            parameters: Vec::new(),
        });
        Ok(())
    }

    fn import_parameter(
        &mut self,
        area: ParameterArea,
        offset: u64,
        parameter: Parameter<'_>,
    ) -> Result<(), ImportError> {
        let ParameterArea { what, range } = area;
        let content = || ImportError::Content { what, range };
        let byte_offset = u32::try_from(offset).map_err(|_| content())?;
        let command_line = self.command_line;
        let packed = self.area(area)?;
        let line;
        let bytes = match (parameter, command_line) {
            (Parameter::CommandLine(_), CommandLine::FromHost) => {
                packed
                    .parameters
                    .push((ParameterKind::CommandLine, byte_offset));
                return Ok(());
            }
            (Parameter::CommandLine(text), CommandLine::InFile) => {
                line = [text.as_bytes(), b"\0"].concat();
                &line
            }
            (Parameter::Bytes(bytes), _) => bytes,
        };
        let end = offset.checked_add(bytes.len() as u64);
        if end.is_none_or(|end| end > range.len()) {
            return Err(content());
        }
        packed.initial.resize(range.len() as usize, 0);
        packed.initial[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn import_register(&mut self, vp: u32, register: VpRegister) -> Result<(), ImportError> {
        self.registers.entry(vp).or_default().push(register);
        Ok(())
    }
}
