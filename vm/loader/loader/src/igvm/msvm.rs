//! Firmware of generation-2 VMs in a file, as the image that it is.

use super::IgvmPlan;
use crate::BSP;
use crate::ImageLoad;
use crate::ImportError;
use crate::PAGE;
use crate::PageImport;
use crate::PageKind;
use crate::Parameter;
use crate::ParameterArea;
use crate::VpRegister;
use crate::msvm;
use crate::msvm::MsvmImage;
use guest_memory::MemoryRange;
use std::collections::BTreeMap;

/// The firmware, and what it starts with, has fewer bytes.
const MAX_LEN: u64 = 16 << 20;

impl IgvmPlan {
    /// The firmware's image, if the file, with the registers that the host adds, starts it exactly as
    /// [`MsvmImage::load`] does. Then the image is all that has to be kept of the file.
    pub fn msvm(&self, added: &[VpRegister]) -> Result<Option<MsvmImage>, ImportError> {
        let mut start = GuestStart::default();
        self.load(&mut start)?;
        for register in added {
            start.import_register(BSP, *register)?;
        }
        let Ok(image) = MsvmImage::new(start.bytes(msvm::BASE, msvm::IMAGE_LEN).into()) else {
            return Ok(None);
        };
        let mut expected = GuestStart::default();
        image.load(&mut expected, None)?;
        expected.import_register(BSP, VpRegister::R12(image.config_gpa()))?;
        Ok(start.is_same(&expected).then_some(image))
    }
}

/// What a guest starts with.
#[derive(Debug, Default)]
struct GuestStart {
    /// The pages that are not zero, by address.
    pages: BTreeMap<u64, Vec<u8>>,
    len: u64,
    registers: Vec<(u32, VpRegister)>,
    /// There is something else, or too much.
    has_more: bool,
}

impl GuestStart {
    fn bytes(&self, start: u64, len: u64) -> Vec<u8> {
        let mut bytes = vec![0; len as usize];
        for (gpa, page) in self.pages.range(start..start + len) {
            bytes[(gpa - start) as usize..][..page.len()].copy_from_slice(page);
        }
        bytes
    }

    fn is_same(&self, other: &Self) -> bool {
        let has = |registers: &[(u32, VpRegister)], one| registers.contains(one);
        !self.has_more
            && self.pages == other.pages
            && self.registers.len() == other.registers.len()
            && self.registers.iter().all(|one| has(&other.registers, one))
            && other.registers.iter().all(|one| has(&self.registers, one))
    }
}

impl ImageLoad for GuestStart {
    fn require_memory(
        &mut self,
        _what: &'static str,
        _range: MemoryRange,
    ) -> Result<(), ImportError> {
        Ok(())
    }

    fn import_pages(&mut self, pages: &PageImport) -> Result<(), ImportError> {
        self.len = self.len.saturating_add(pages.range.len());
        if pages.kind != PageKind::Ram || self.len > MAX_LEN {
            self.has_more = true;
            return Ok(());
        }
        let bytes = pages.read()?;
        let addresses = (pages.range.start..).step_by(PAGE as usize);
        for (gpa, page) in addresses.zip(bytes.chunks(PAGE as usize)) {
            if page.iter().any(|byte| *byte != 0) {
                self.pages.insert(gpa, page.to_vec());
            }
        }
        Ok(())
    }

    fn create_parameter_area(&mut self, _area: ParameterArea) -> Result<(), ImportError> {
        self.has_more = true;
        Ok(())
    }

    fn import_parameter(
        &mut self,
        _area: ParameterArea,
        _offset: u64,
        _parameter: Parameter<'_>,
    ) -> Result<(), ImportError> {
        Ok(())
    }

    fn import_register(&mut self, vp: u32, register: VpRegister) -> Result<(), ImportError> {
        self.registers.push((vp, register));
        Ok(())
    }
}
