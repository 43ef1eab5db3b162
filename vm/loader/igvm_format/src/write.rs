//! Writes a file.

use crate::At;
use crate::Corim;
use crate::Directive;
use crate::IgvmError;
use crate::IgvmFile;
use crate::Initialization;
use crate::PAGE;
use crate::PageDataRecord;
use crate::PageDataType;
use crate::Platform;
use crate::VpContext;
use crate::VpContextData;
use crate::header;
use crate::raw;
use std::borrow::Cow;
use std::collections::HashMap;
use zerocopy::IntoBytes;
use zerocopy::little_endian::U32;

/// Why a file cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Offsets in a file have 32 bits.
    #[error("the file would be larger than 4 GiB")]
    TooLarge,
    /// The content of a page or an area is longer than the page or the area.
    #[error("{structure} number {index} has more data than its size")]
    Data {
        /// The record.
        structure: &'static str,
        /// Its place among the directives.
        index: usize,
    },
    /// The file does not obey the format's rules.
    #[error("the file would be malformed")]
    Malformed(#[from] IgvmError),
}

impl IgvmFile<'_> {
    /// The bytes of the file. The same content is stored once. The same file has the same bytes always.
    pub fn write(&self) -> Result<Vec<u8>, WriteError> {
        let records = self.records_len();
        let start = self.revision.header_len() + records;
        let mut writer = Writer {
            records: Vec::with_capacity(records),
            data: FileData {
                start: start as u64,
                bytes: Vec::new(),
                known: HashMap::new(),
            },
        };
        for At { record, .. } in &self.platforms {
            writer.platform(record);
        }
        for At { record, .. } in &self.initializations {
            writer.initialization(record)?;
        }
        for (index, At { record, .. }) in self.directives.iter().enumerate() {
            writer.directive(index, record)?;
        }
        let Writer { records, data } = writer;
        let mut file =
            header::write(self.revision, &records, data.bytes.len()).ok_or(WriteError::TooLarge)?;
        file.extend_from_slice(&records);
        file.extend_from_slice(&data.bytes);
        IgvmFile::parse(&file)?;
        Ok(file)
    }

    /// The length of the variable headers, in bytes.
    fn records_len(&self) -> usize {
        let platforms = self.platforms.len() * padded(size_of::<raw::SupportedPlatform>());
        let initializations = self.initializations.iter().map(|at| match at.record {
            Initialization::GuestPolicy(_) => size_of::<raw::GuestPolicy>(),
            Initialization::RelocatableRegion(_) => size_of::<raw::RelocatableRegion>(),
            Initialization::PageTableRegion(_) => size_of::<raw::PageTableRegion>(),
            Initialization::CorimDocument(_) | Initialization::CorimSignature(_) => {
                size_of::<raw::Corim>()
            }
            Initialization::CcaPolicy(_) => size_of::<raw::CcaPolicy>(),
            Initialization::VersionString(text) => text.len(),
        });
        let directives = self.directives.iter().map(|at| match at.record {
            Directive::PageData(_) => size_of::<raw::PageData>(),
            Directive::ParameterArea(_) => size_of::<raw::ParameterArea>(),
            Directive::Parameter(_) => size_of::<raw::Parameter>(),
            Directive::ParameterInsert(_) => size_of::<raw::ParameterInsert>(),
            Directive::VpContext(_) => size_of::<raw::VpContext>(),
            Directive::RequiredMemory(_) => size_of::<raw::RequiredMemory>(),
            Directive::ErrorRange(_) => size_of::<raw::ErrorRange>(),
            Directive::SnpIdBlock(_) => size_of::<raw::SnpIdBlock>(),
            Directive::VbsMeasurement(_) => size_of::<raw::VbsMeasurement>(),
        });
        let bodies = initializations.chain(directives).map(padded);
        platforms + bodies.sum::<usize>()
    }
}

/// The length of a record with a body of `len` bytes.
fn padded(len: usize) -> usize {
    size_of::<raw::RecordHeader>() + len.next_multiple_of(8)
}

struct Writer<'a> {
    records: Vec<u8>,
    data: FileData<'a>,
}

/// The file's data.
struct FileData<'a> {
    /// Its offset in the file.
    start: u64,
    bytes: Vec<u8>,
    /// What it holds already, by content, with its offset in the file.
    known: HashMap<Cow<'a, [u8]>, u32>,
}

impl<'a> FileData<'a> {
    /// Stores `content`, and returns its offset in the file.
    fn store(&mut self, content: Cow<'a, [u8]>) -> Result<u32, WriteError> {
        if let Some(offset) = self.known.get(&content) {
            return Ok(*offset);
        }
        let offset = self.start + self.bytes.len() as u64;
        let offset = u32::try_from(offset).map_err(|_| WriteError::TooLarge)?;
        self.bytes.extend_from_slice(&content);
        self.known.insert(content, offset);
        Ok(offset)
    }

    /// Stores `content`, with zeros up to `size` bytes; nothing if it is empty.
    fn store_padded(&mut self, content: &'a [u8], size: u64) -> Option<Result<u32, WriteError>> {
        let missing = usize::try_from(size).ok()?.checked_sub(content.len())?;
        let content = match (content.len(), missing) {
            (0, _) => return Some(Ok(0)),
            (_, 0) => Cow::Borrowed(content),
            (_, missing) => {
                let mut padded = content.to_vec();
                padded.resize(padded.len() + missing, 0);
                Cow::Owned(padded)
            }
        };
        Some(self.store(content))
    }
}

impl<'a> Writer<'a> {
    fn record(&mut self, kind: u32, body: &[u8]) {
        let header = raw::RecordHeader {
            kind: kind.into(),
            length: (body.len() as u32).into(),
        };
        self.records.extend_from_slice(header.as_bytes());
        self.records.extend_from_slice(body);
        let len = self.records.len().next_multiple_of(8);
        self.records.resize(len, 0);
    }

    fn platform(&mut self, platform: &Platform) {
        let raw = raw::SupportedPlatform {
            mask: platform.mask.into(),
            highest_vtl: platform.highest_vtl,
            platform_type: platform.platform_type.number(),
            platform_version: 1.into(),
            shared_gpa_boundary: platform.shared_gpa_boundary.into(),
        };
        self.record(raw::SUPPORTED_PLATFORM, raw.as_bytes());
    }

    fn initialization(&mut self, header: &Initialization<'a>) -> Result<(), WriteError> {
        match header {
            Initialization::GuestPolicy(policy) => {
                let raw = raw::GuestPolicy {
                    policy: policy.policy.into(),
                    mask: policy.mask.into(),
                    reserved: 0.into(),
                };
                self.record(raw::GUEST_POLICY, raw.as_bytes());
            }
            Initialization::RelocatableRegion(region) => {
                let flag = |set: bool, bit: u8| u8::from(set) << bit;
                let raw = raw::RelocatableRegion {
                    mask: region.mask.into(),
                    vp_index: region.vp_index.into(),
                    vtl: region.vtl,
                    flags: flag(region.is_vtl2, 0)
                        | flag(region.apply_rip_offset, 1)
                        | flag(region.apply_gdtr_offset, 2),
                    alignment: region.alignment.into(),
                    gpa: region.gpa.into(),
                    size: region.size.into(),
                    minimum_gpa: region.minimum_gpa.into(),
                    maximum_gpa: region.maximum_gpa.into(),
                };
                self.record(raw::RELOCATABLE_REGION, raw.as_bytes());
            }
            Initialization::PageTableRegion(region) => {
                let raw = raw::PageTableRegion {
                    mask: region.mask.into(),
                    vp_index: region.vp_index.into(),
                    vtl: region.vtl,
                    reserved: 0,
                    gpa: region.gpa.into(),
                    size: region.size.into(),
                    used_size: region.used_size.into(),
                };
                self.record(raw::PAGE_TABLE_REGION, raw.as_bytes());
            }
            Initialization::CorimDocument(corim) => self.corim(raw::CORIM_DOCUMENT, corim)?,
            Initialization::CorimSignature(corim) => self.corim(raw::CORIM_SIGNATURE, corim)?,
            Initialization::CcaPolicy(policy) => {
                let raw = raw::CcaPolicy {
                    mask: policy.mask.into(),
                    reserved: 0.into(),
                    required_zero: policy.required_zero.into(),
                    required_one: policy.required_one.into(),
                    hash_algorithm: policy.hash_algorithm,
                    lfa_policy: policy.lfa_policy,
                    reserved_end: [0; 6],
                };
                self.record(raw::CCA_POLICY, raw.as_bytes());
            }
            Initialization::VersionString(text) => {
                self.record(raw::VERSION_STRING, text.as_bytes());
            }
        }
        Ok(())
    }

    fn corim(&mut self, kind: u32, corim: &Corim<'a>) -> Result<(), WriteError> {
        let raw = raw::Corim {
            mask: corim.mask.into(),
            file_offset: self.data.store(Cow::Borrowed(corim.data))?.into(),
            size: u32::try_from(corim.data.len())
                .map_err(|_| WriteError::TooLarge)?
                .into(),
            reserved: 0.into(),
        };
        self.record(kind, raw.as_bytes());
        Ok(())
    }

    fn directive(&mut self, index: usize, directive: &Directive<'a>) -> Result<(), WriteError> {
        let structure = directive.name();
        let too_long = || WriteError::Data { structure, index };
        match directive {
            Directive::PageData(page) => {
                let offset = self.data.store_padded(page.data, page.size());
                self.page_data(page, offset.ok_or_else(too_long)??);
            }
            Directive::ParameterArea(area) => {
                let offset = match area.initial {
                    [] => 0,
                    initial => {
                        let offset = self.data.store_padded(initial, area.size);
                        offset.ok_or_else(too_long)??
                    }
                };
                let raw = raw::ParameterArea {
                    size: area.size.into(),
                    index: area.index.into(),
                    file_offset: offset.into(),
                };
                self.record(raw::PARAMETER_AREA, raw.as_bytes());
            }
            Directive::Parameter(parameter) => {
                let raw = raw::Parameter {
                    index: parameter.area.into(),
                    byte_offset: parameter.byte_offset.into(),
                };
                self.record(parameter.kind.record_type(), raw.as_bytes());
            }
            Directive::ParameterInsert(insert) => {
                let raw = raw::ParameterInsert {
                    gpa: insert.gpa.into(),
                    mask: insert.mask.into(),
                    index: insert.area.into(),
                };
                self.record(raw::PARAMETER_INSERT, raw.as_bytes());
            }
            Directive::VpContext(context) => self.vp_context(context, too_long)?,
            Directive::RequiredMemory(memory) => {
                let raw = raw::RequiredMemory {
                    gpa: memory.gpa.into(),
                    mask: memory.mask.into(),
                    size: memory.size.into(),
                    flags: u32::from(memory.vtl2_protectable).into(),
                    reserved: 0.into(),
                };
                self.record(raw::REQUIRED_MEMORY, raw.as_bytes());
            }
            Directive::ErrorRange(range) => {
                let raw = raw::ErrorRange {
                    gpa: range.gpa.into(),
                    mask: range.mask.into(),
                    size: range.size.into(),
                };
                self.record(raw::ERROR_RANGE, raw.as_bytes());
            }
            Directive::SnpIdBlock(block) => self.record(raw::SNP_ID_BLOCK, block.body),
            Directive::VbsMeasurement(measurement) => {
                self.record(raw::VBS_MEASUREMENT, measurement.body);
            }
        }
        Ok(())
    }

    fn page_data(&mut self, page: &PageDataRecord<'_>, file_offset: u32) {
        let raw = raw::PageData {
            gpa: page.gpa.into(),
            mask: page.mask.into(),
            file_offset: file_offset.into(),
            flags: page.flags.bits().into(),
            data_type: match page.data_type {
                PageDataType::Normal => 0,
                PageDataType::Secrets => 1,
                PageDataType::Cpuid => 2,
                PageDataType::CpuidExtendedState => 3,
            }
            .into(),
            reserved: 0.into(),
        };
        self.record(raw::PAGE_DATA, raw.as_bytes());
    }

    fn vp_context(
        &mut self,
        context: &VpContext<'a>,
        too_long: impl Fn() -> WriteError,
    ) -> Result<(), WriteError> {
        let offset = match context.data {
            VpContextData::Native(native) => self.data.store_padded(native.as_bytes(), PAGE),
            VpContextData::Vsm(registers) => {
                let count = U32::new(registers.len() as u32);
                let list = [count.as_bytes(), registers.as_bytes()].concat();
                Some(self.data.store(Cow::Owned(list)))
            }
            VpContextData::Vmsa(bytes) | VpContextData::Rec(bytes) => {
                self.data.store_padded(bytes, PAGE)
            }
        };
        let raw = raw::VpContext {
            gpa: context.gpa.into(),
            mask: context.mask.into(),
            file_offset: offset.ok_or_else(too_long)??.into(),
            vp_index: context.vp_index.into(),
            reserved: 0.into(),
        };
        self.record(raw::VP_CONTEXT, raw.as_bytes());
        Ok(())
    }
}
