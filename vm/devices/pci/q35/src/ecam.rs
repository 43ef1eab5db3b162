use chipset_device::AddressDecoder;
use chipset_device::ChipsetDevice;
use chipset_device::DecodedRanges;
use chipset_device::IoError;
use chipset_device::PciAddress;
use chipset_device::PciConfigSpace;
use parking_lot::Mutex;
use serde_json::json;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// The enhanced configuration access mechanism (ECAM, PCI Express Base Specification 3.0, section 7.2.2): PCI
/// configuration space in memory, 4 KiB for each function, 1 MiB for each bus from 0 on.
///
/// The host bridge sets its address and number of buses through the [`EcamWindow`]; until then it has no
/// address. It supports accesses of 1, 2 and 4 bytes within a register, and aligned ones of 8 bytes, which access
/// the lower register first.
pub struct Ecam {
    space: PciConfigSpace,
    window: EcamWindow,
}

/// The address of configuration space in memory. Cheap to clone.
#[derive(Clone)]
pub struct EcamWindow(Arc<Window>);

struct Window {
    decoder: AddressDecoder,
    range: Mutex<Option<RangeInclusive<u64>>>,
}

impl EcamWindow {
    /// The guest-physical addresses of the window, or `None` if it is disabled.
    pub fn range(&self) -> Option<RangeInclusive<u64>> {
        self.0.range.lock().clone()
    }

    /// Moves the window. A concurrent access uses the old or the new address.
    pub(crate) fn set(&self, range: Option<RangeInclusive<u64>>) {
        let mut current = self.0.range.lock();
        if *current != range {
            self.0.decoder.set(DecodedRanges {
                mmio: range.iter().cloned().collect(),
                ..DecodedRanges::default()
            });
            *current = range;
        }
    }
}

impl Ecam {
    /// An ECAM for `space`. It reports its window to the chipset through `decoder`.
    pub fn new(space: PciConfigSpace, decoder: AddressDecoder) -> Self {
        Self {
            space,
            window: EcamWindow(Arc::new(Window {
                decoder,
                range: Mutex::default(),
            })),
        }
    }

    /// The window, which the host bridge moves.
    pub fn window(&self) -> EcamWindow {
        self.window.clone()
    }

    /// The register, and the first byte of it, that an access addresses.
    fn locate(&self, gpa: u64, len: usize) -> Result<Target, IoError> {
        let range = self.window.range().ok_or(IoError::InvalidRegister)?;
        if !range.contains(&gpa) {
            return Err(IoError::InvalidRegister);
        }
        let offset = gpa - range.start();
        let lane = (offset % 4) as usize;
        let fits = lane + len <= 4 || len == 8 && offset.is_multiple_of(8);
        if !fits {
            return Err(IoError::InvalidAccessSize);
        }
        // The window has at most 256 buses.
        let function = PciAddress {
            bus: (offset >> 20) as u8,
            device: (offset >> 15) as u8 & 0x1f,
            function: (offset >> 12) as u8 & 7,
        };
        Ok(Target {
            function,
            register: (offset & 0xffc) as u16,
            lane,
        })
    }
}

struct Target {
    function: PciAddress,
    register: u16,
    /// The first byte in the register.
    lane: usize,
}

/// It has no state: the window is part of the host bridge's state.
impl ChipsetDevice for Ecam {
    fn read_mmio(&mut self, gpa: u64, data: &mut [u8]) -> Result<(), IoError> {
        let target = self.locate(gpa, data.len())?;
        let lane = target.lane;
        for (register, bytes) in (target.register..).step_by(4).zip(data.chunks_mut(4)) {
            let value = self.space.read(target.function, register).to_le_bytes();
            bytes.copy_from_slice(&value[lane..lane + bytes.len()]);
        }
        Ok(())
    }

    fn write_mmio(&mut self, gpa: u64, data: &[u8]) -> Result<(), IoError> {
        let target = self.locate(gpa, data.len())?;
        let lane = target.lane;
        for (register, bytes) in (target.register..).step_by(4).zip(data.chunks(4)) {
            let (mut value, mut mask) = ([0; 4], [0; 4]);
            value[lane..lane + bytes.len()].copy_from_slice(bytes);
            mask[lane..lane + bytes.len()].fill(0xff);
            let (value, mask) = (u32::from_le_bytes(value), u32::from_le_bytes(mask));
            self.space.write(target.function, register, value, mask);
        }
        Ok(())
    }

    fn inspect(&self) -> serde_json::Value {
        let range = self.window.range();
        json!({
            "base": range.as_ref().map(|range| format!("{:#x}", range.start())),
            "last": range.as_ref().map(|range| format!("{:#x}", range.end())),
        })
    }
}
