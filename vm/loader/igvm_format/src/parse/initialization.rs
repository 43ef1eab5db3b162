//! The initialization headers.

use super::Parser;
use super::record::Record;
use crate::At;
use crate::CcaPolicy;
use crate::Corim;
use crate::GuestPolicy;
use crate::IgvmError;
use crate::Initialization;
use crate::PAGE;
use crate::PageTableRegion;
use crate::PlatformType;
use crate::Problem;
use crate::RelocatableRegion;
use crate::raw;

impl<'a> Parser<'a> {
    pub(super) fn initialization(
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

    pub(super) fn check_page_table_overlap(
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
}
