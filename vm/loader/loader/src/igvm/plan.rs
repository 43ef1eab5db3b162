//! What of a file goes where: decided and checked as a whole, then imported.

use super::IgvmImage;
use super::IgvmLoadError;
use super::IgvmProblem;
use super::error::VpContextProblem;
use super::parameters;
use super::registers;
use crate::BSP;
use crate::ImageLoad;
use crate::ImportError;
use crate::PAGE;
use crate::PageData;
use crate::PageImport;
use crate::PageKind;
use crate::Parameter;
use crate::ParameterArea;
use crate::Piece;
use crate::VpRegister;
use acpi_spec::Table;
use guest_memory::MemoryLayout;
use guest_memory::MemoryRange;
use igvm_format::Architecture;
use igvm_format::Directive;
use igvm_format::IgvmFile;
use igvm_format::PageDataRecord;
use igvm_format::ParameterAreaRecord;
use igvm_format::ParameterInsert;
use igvm_format::ParameterKind;
use igvm_format::ParameterRecord;
use igvm_format::Platform;
use igvm_format::PlatformType;
use igvm_format::VpContext;
use igvm_format::VpContextData;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Where a processor starts whose registers are as after reset.
const RESET_VECTOR: u64 = 0xffff_fff0;

const PAGES: &str = "the pages of the IGVM file";
const PARAMETERS: &str = "a parameter area of the IGVM file";
const ERRORS: &str = "the error range of the IGVM file";
const REQUIRED: &str = "the memory that the IGVM file requires";

/// The machine that a file is loaded on: without isolation and without VTL2.
#[derive(Debug, Copy, Clone)]
pub struct IgvmMachine<'a> {
    /// Where RAM is.
    pub layout: &'a MemoryLayout,
    /// Pages may be here although it is not RAM. They are ROM.
    pub rom: Option<MemoryRange>,
    /// The number of VPs.
    pub vp_count: u32,
    /// The command line, if there is one.
    pub command_line: Option<&'a str>,
    /// The ACPI tables.
    pub acpi: &'a [Table],
    /// Devices' memory below 4 GiB.
    pub low_mmio: MemoryRange,
    /// Devices' memory above 4 GiB.
    pub high_mmio: Option<MemoryRange>,
}

/// A file that was found to be loadable, of which nothing has been imported yet.
///
/// A plan can be carried out again, to reset the guest.
#[derive(Debug)]
pub struct IgvmPlan {
    image: IgvmImage,
    platform: PlatformType,
    required: Vec<MemoryRange>,
    pages: Vec<PageImport>,
    areas: Vec<FilledArea>,
    registers: Vec<VpRegister>,
    /// What the file fills, ascending, and by which record.
    filled: Vec<(MemoryRange, Source)>,
}

/// A record of the file.
#[derive(Debug, Copy, Clone)]
struct Source {
    name: &'static str,
    offset: u64,
}

/// An inserted parameter area.
#[derive(Debug)]
struct FilledArea {
    area: ParameterArea,
    /// What the file puts there.
    initial: Range<usize>,
    /// Values, in the order in which they are written.
    values: Vec<(u64, Arc<[u8]>)>,
}

impl IgvmPlan {
    /// Plans to load `image` on this machine. Checks everything that can be checked without guest memory.
    pub fn new(image: &IgvmImage, machine: &IgvmMachine<'_>) -> Result<Self, IgvmLoadError> {
        let file = image.parse()?;
        Self::of_file(image, &file, machine)
            .map_err(|problem| IgvmLoadError::new(image.path(), problem))
    }

    fn of_file(
        image: &IgvmImage,
        file: &IgvmFile<'_>,
        machine: &IgvmMachine<'_>,
    ) -> Result<Self, IgvmProblem> {
        if file.revision.architecture() != Architecture::X64 {
            return Err(IgvmProblem::Architecture);
        }
        let platform = choose_platform(file)?;
        file.check_overlaps(platform.mask)?;
        let mut pass = Pass {
            image,
            machine,
            platform,
            areas: HashMap::new(),
            pages: Vec::new(),
            values: HashMap::new(),
            takes_command_line: false,
            has_context: false,
            plan: Self {
                image: image.clone(),
                platform: platform.platform_type,
                required: Vec::new(),
                pages: Vec::new(),
                areas: Vec::new(),
                registers: Vec::new(),
                filled: Vec::new(),
            },
        };
        for at in &file.directives {
            if at.record.applies_to(platform.mask) {
                pass.directive(&at.record, at.offset)?;
            }
        }
        pass.finish()
    }

    /// The platform that was chosen.
    pub fn platform(&self) -> PlatformType {
        self.platform
    }

    /// The boot processor's registers.
    pub fn registers(&self) -> &[VpRegister] {
        &self.registers
    }

    /// The address of the first instruction.
    pub fn entry_gpa(&self) -> u64 {
        let mut registers = self.registers.iter();
        let rip = registers.find_map(|register| match register {
            VpRegister::Rip(rip) => Some(*rip),
            _ => None,
        });
        rip.unwrap_or(RESET_VECTOR)
    }

    /// The pages that are ROM, if they are one piece that ends at 4 GiB, as firmware in flash memory does.
    pub fn rom(&self) -> Option<&PageImport> {
        let mut roms = self.pages.iter().filter(|page| page.kind == PageKind::Rom);
        match (roms.next(), roms.next()) {
            (Some(rom), None) if rom.range.end == 1 << 32 => Some(rom),
            _ => None,
        }
    }

    /// [`Self::rom`], if the file has nothing else that a guest starts with. Then it is all that has to be kept of the file.
    pub fn only_rom(&self) -> Option<&PageImport> {
        let rom = self.rom()?;
        let has_more = self.pages.len() > 1
            || !self.required.is_empty()
            || !self.areas.is_empty()
            || !self.registers.is_empty();
        (!has_more).then_some(rom)
    }

    /// Fails if the file fills a part of `range`, where the host puts something itself.
    pub fn check_free(&self, what: &'static str, range: MemoryRange) -> Result<(), IgvmLoadError> {
        let before = self
            .filled
            .partition_point(|(filled, _)| filled.end <= range.start);
        match self.filled.get(before) {
            Some(&(other_range, source)) if other_range.start < range.end => {
                let problem = IgvmProblem::Overlap {
                    what,
                    range,
                    other: source.name,
                    offset: source.offset,
                    other_range,
                };
                Err(IgvmLoadError::new(self.image.path(), problem))
            }
            _ => Ok(()),
        }
    }

    /// Puts an address into R12, by which a host tells UEFI firmware where its configuration is; unless the file sets
    /// R12 itself. A native context has a place for each register: there, zero does not set it.
    pub fn offer_r12(&mut self, address: u64) {
        let r12 = self.registers.iter_mut();
        let mut r12 = r12.filter(|register| matches!(register, VpRegister::R12(_)));
        match r12.next() {
            Some(VpRegister::R12(value)) => {
                if *value == 0 && self.platform == PlatformType::Native {
                    *value = address;
                }
            }
            _ => self.registers.push(VpRegister::R12(address)),
        }
    }

    /// Imports everything into `image`.
    pub fn load(&self, image: &mut dyn ImageLoad) -> Result<(), ImportError> {
        for range in &self.required {
            image.require_memory(REQUIRED, *range)?;
        }
        let ram = self.pages.iter().filter(|page| page.kind == PageKind::Ram);
        for page in ram {
            image.require_memory(page.what, page.range)?;
        }
        for FilledArea { area, .. } in &self.areas {
            image.require_memory(area.what, area.range)?;
        }
        for page in &self.pages {
            image.import_pages(page)?;
        }
        for filled in &self.areas {
            let area = filled.area;
            image.create_parameter_area(area)?;
            let initial = &self.image.bytes()[filled.initial.clone()];
            if !initial.is_empty() {
                image.import_parameter(area, 0, Parameter::Bytes(initial))?;
            }
            for (offset, value) in &filled.values {
                image.import_parameter(area, *offset, Parameter::Bytes(value))?;
            }
        }
        for register in &self.registers {
            image.import_register(BSP, *register)?;
        }
        Ok(())
    }
}

/// NATIVE, or else VSM_ISOLATION without VTL2, which is what some producers have for plain guests.
fn choose_platform(file: &IgvmFile<'_>) -> Result<Platform, IgvmProblem> {
    if let Some(native) = file.platform(PlatformType::Native) {
        return Ok(*native);
    }
    match file.platform(PlatformType::VsmIsolation) {
        Some(vsm) if vsm.highest_vtl == 0 => Ok(*vsm),
        Some(vsm) => Err(IgvmProblem::NeedsVtl2 {
            highest_vtl: vsm.highest_vtl,
        }),
        None => Err(IgvmProblem::Platform {
            offered: file
                .platforms
                .iter()
                .map(|at| at.record.platform_type)
                .collect(),
        }),
    }
}

/// An area, with the parameters that go into it.
struct DeclaredArea<'a> {
    record: ParameterAreaRecord<'a>,
    parameters: Vec<(ParameterRecord, u64)>,
}

/// The pass over a file's directives.
struct Pass<'a> {
    image: &'a IgvmImage,
    machine: &'a IgvmMachine<'a>,
    platform: Platform,
    areas: HashMap<u32, DeclaredArea<'a>>,
    pages: Vec<(PageDataRecord<'a>, u64)>,
    /// The values of parameters, each made once.
    values: HashMap<&'static str, Arc<[u8]>>,
    takes_command_line: bool,
    has_context: bool,
    plan: IgvmPlan,
}

impl<'a> Pass<'a> {
    fn directive(&mut self, directive: &Directive<'a>, offset: u64) -> Result<(), IgvmProblem> {
        let source = Source {
            name: directive.name(),
            offset,
        };
        match directive {
            Directive::PageData(page) => {
                self.pages.push((*page, offset));
                Ok(())
            }
            Directive::ParameterArea(record) => {
                let area = DeclaredArea {
                    record: *record,
                    parameters: Vec::new(),
                };
                self.areas.insert(record.index, area);
                Ok(())
            }
            Directive::Parameter(parameter) => {
                // Only what is inserted on this platform needs a value.
                if let Some(area) = self.areas.get_mut(&parameter.area) {
                    area.parameters.push((*parameter, offset));
                }
                Ok(())
            }
            Directive::ParameterInsert(insert) => self.insert(insert, source),
            Directive::VpContext(context) => {
                let problem = self.vp_context(context).err();
                problem.map_or(Ok(()), |problem| {
                    Err(IgvmProblem::VpContext { offset, problem })
                })
            }
            Directive::RequiredMemory(memory) => {
                let range = range(memory.gpa, memory.size.into());
                self.require_ram(range, source)?;
                self.plan.required.push(range);
                Ok(())
            }
            Directive::ErrorRange(errors) => {
                let range = range(errors.gpa, errors.size.into());
                self.require_ram(range, source)?;
                self.plan.filled.push((range, source));
                self.plan.pages.push(PageImport {
                    what: ERRORS,
                    range,
                    kind: PageKind::Ram,
                    content: Vec::new(),
                });
                Ok(())
            }
            // Isolated guests have these.
            Directive::SnpIdBlock(_) | Directive::VbsMeasurement(_) => Ok(()),
        }
    }

    fn is_ram(&self, range: MemoryRange) -> bool {
        let mut ram = self.machine.layout.ram().iter();
        ram.any(|ram| ram.start <= range.start && range.end <= ram.end)
    }

    fn require_ram(&self, range: MemoryRange, source: Source) -> Result<(), IgvmProblem> {
        match self.is_ram(range) {
            true => Ok(()),
            false => Err(IgvmProblem::NoRam {
                what: source.name,
                offset: source.offset,
                range,
                ram: self.machine.layout.ram().to_vec(),
            }),
        }
    }

    /// What a page at `range` is; `None` if nothing is there.
    fn page_kind(&self, range: MemoryRange) -> Option<PageKind> {
        let rom = self.machine.rom;
        if self.is_ram(range) {
            Some(PageKind::Ram)
        } else if rom.is_some_and(|rom| rom.start <= range.start && range.end <= rom.end) {
            Some(PageKind::Rom)
        } else {
            None
        }
    }

    fn insert(&mut self, insert: &ParameterInsert, source: Source) -> Result<(), IgvmProblem> {
        // Parsing checked that it is declared and not inserted twice.
        let Some(DeclaredArea { record, parameters }) = self.areas.remove(&insert.area) else {
            return Ok(());
        };
        let range = range(insert.gpa, record.size);
        self.require_ram(range, source)?;
        let mut values = Vec::new();
        for (parameter, offset) in parameters {
            if let Some(value) = self.value(parameter.kind, offset)? {
                let byte_offset = u64::from(parameter.byte_offset);
                let (needed, available) = (value.len() as u64, record.size - byte_offset);
                if needed > available {
                    return Err(IgvmProblem::ParameterTooLarge {
                        kind: parameter.kind.name(),
                        offset,
                        area: insert.area,
                        byte_offset: parameter.byte_offset,
                        needed,
                        available,
                    });
                }
                values.push((byte_offset, value));
            }
        }
        self.plan.filled.push((range, source));
        self.plan.areas.push(FilledArea {
            area: ParameterArea {
                what: PARAMETERS,
                range,
            },
            initial: self.place_in_file(record.initial),
            values,
        });
        Ok(())
    }

    /// The value of a parameter.
    fn value(
        &mut self,
        kind: ParameterKind,
        offset: u64,
    ) -> Result<Option<Arc<[u8]>>, IgvmProblem> {
        let name = kind.name();
        if let Some(value) = self.values.get(name) {
            return Ok(Some(value.clone()));
        }
        if kind == ParameterKind::CommandLine {
            self.takes_command_line = true;
            let line = self.machine.command_line.unwrap_or_default();
            if let Some(position) = line.bytes().position(|byte| byte == 0) {
                return Err(IgvmProblem::CommandLineNul { position });
            }
        }
        let value = parameters::value(kind, self.machine).map_err(|parameters::Unsupported| {
            IgvmProblem::UnsupportedParameter { kind: name, offset }
        })?;
        let Some(value) = value else {
            tracing::warn!(
                parameter = name,
                "the IGVM file asks for a table that this machine does not have; its memory stays zero"
            );
            return Ok(None);
        };
        let value: Arc<[u8]> = value.into();
        self.values.insert(name, value.clone());
        Ok(Some(value))
    }

    fn vp_context(&mut self, context: &VpContext<'_>) -> Result<(), VpContextProblem> {
        let vp_index = context.vp_index;
        if vp_index != 0 {
            return Err(VpContextProblem::Vp { vp_index });
        }
        if self.has_context {
            return Err(VpContextProblem::Repeated);
        }
        self.has_context = true;
        self.plan.registers = match context.data {
            VpContextData::Native(native) => registers::from_native(native)?,
            VpContextData::Vsm(list) => {
                let vtl = list.first().map_or(0, |register| register.vtl);
                let highest_vtl = self.platform.highest_vtl;
                if vtl != highest_vtl {
                    return Err(VpContextProblem::Vtl { vtl, highest_vtl });
                }
                registers::from_vsm(list)?
            }
            // The platforms of these are never chosen.
            VpContextData::Vmsa(_) | VpContextData::Rec(_) => Vec::new(),
        };
        Ok(())
    }

    /// Where a part of the file is in it.
    fn place_in_file(&self, part: &[u8]) -> Range<usize> {
        if part.is_empty() {
            return 0..0;
        }
        let start = part.as_ptr().addr() - self.image.bytes().as_ptr().addr();
        start..start + part.len()
    }

    fn finish(mut self) -> Result<IgvmPlan, IgvmProblem> {
        if self.machine.command_line.is_some() && !self.takes_command_line {
            return Err(IgvmProblem::NoCommandLine);
        }
        let mut pages = std::mem::take(&mut self.pages);
        pages.sort_by_key(|(page, _)| page.gpa);
        let resets = pages
            .iter()
            .any(|(page, _)| range(page.gpa, page.size()).contains(RESET_VECTOR));
        if !self.has_context && !resets {
            return Err(IgvmProblem::NothingToRun);
        }
        let mut imports: Vec<PageImport> = Vec::new();
        for (index, (page, offset)) in pages.iter().enumerate() {
            let range = range(page.gpa, page.size());
            let source = Source {
                name: "PAGE_DATA",
                offset: *offset,
            };
            let Some(kind) = self.page_kind(range) else {
                let range = self.unbacked(&pages[index..]);
                self.require_ram(range, source)?;
                continue;
            };
            self.plan.filled.push((range, source));
            let data = self.place_in_file(page.data);
            match imports.last_mut() {
                Some(last) if last.kind == kind && last.range.end == range.start => {
                    append(last, range, self.image, data);
                }
                _ => {
                    let mut import = PageImport {
                        what: PAGES,
                        range: MemoryRange {
                            end: range.start,
                            ..range
                        },
                        kind,
                        content: Vec::new(),
                    };
                    append(&mut import, range, self.image, data);
                    imports.push(import);
                }
            }
        }
        self.plan.pages.append(&mut imports);
        self.plan.filled.sort_by_key(|(range, _)| *range);
        tracing::debug!(
            path = %self.image.path().display(),
            platform = %self.platform.platform_type,
            pages = pages.len(),
            areas = self.plan.areas.len(),
            registers = self.plan.registers.len(),
            "planned to load an IGVM file"
        );
        Ok(self.plan)
    }

    /// The range from the first of `pages` that has no memory.
    fn unbacked(&self, pages: &[(PageDataRecord<'_>, u64)]) -> MemoryRange {
        let mut ranges = pages.iter().map(|(page, _)| range(page.gpa, page.size()));
        let mut unbacked = ranges.next().unwrap_or(range(0, PAGE));
        for next in ranges {
            if next.start != unbacked.end || self.page_kind(next).is_some() {
                break;
            }
            unbacked.end = next.end;
        }
        unbacked
    }
}

/// Appends a page to an import that ends where the page starts.
fn append(import: &mut PageImport, page: MemoryRange, image: &IgvmImage, data: Range<usize>) {
    import.range.end = page.end;
    if data.is_empty() {
        return;
    }
    let offset = page.start - import.range.start;
    if let Some(Piece {
        offset: last_offset,
        data: PageData::Part(_, last),
    }) = import.content.last_mut()
        && last.end == data.start
        && *last_offset + last.len() as u64 == offset
    {
        last.end = data.end;
        return;
    }
    import.content.push(Piece {
        offset,
        data: PageData::Part(image.bytes().clone(), data),
    });
}

fn range(start: u64, size: u64) -> MemoryRange {
    MemoryRange {
        start,
        // Parsing checked that this does not overflow.
        end: start.saturating_add(size),
    }
}

#[cfg(test)]
#[path = "plan_test.rs"]
mod tests;
