//! The directives.

use super::Area;
use super::Parser;
use super::record::Record;
use crate::Directive;
use crate::IgvmError;
use crate::LARGE_PAGE;
use crate::NativeVpContext;
use crate::PAGE;
use crate::PageDataRecord;
use crate::PageDataType;
use crate::PageFlags;
use crate::ParameterAreaRecord;
use crate::ParameterInsert;
use crate::ParameterKind;
use crate::ParameterRecord;
use crate::PlatformType;
use crate::Problem;
use crate::RequiredMemory;
use crate::Sized32;
use crate::SnpIdBlock;
use crate::VbsMeasurement;
use crate::VpContext;
use crate::VpContextData;
use crate::VsmRegister;
use crate::raw;
use zerocopy::FromBytes as _;
use zerocopy::little_endian::U32;

/// The largest SVM save area, and the page of any other context, in bytes.
const CONTEXT_PAGE: u64 = PAGE;
/// The bytes of a page that hold the parameters of a REC.
const REC_LEN: usize = 80;

impl<'a> Parser<'a> {
    pub(super) fn directive(
        &mut self,
        kind: u32,
        record: Record<'a>,
    ) -> Result<Directive<'a>, IgvmError> {
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
        let flags = PageFlags::from_bits(bits);
        let flags = record.known(flags, "the flags", bits.into(), "bits 0 to 2 are known")?;
        let number = raw.data_type.get();
        let data_type = PageDataType::ALL.get(usize::from(number)).copied();
        let data_type = record.known(
            data_type,
            "the data type",
            number.into(),
            "0 to 3 are known",
        )?;
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
