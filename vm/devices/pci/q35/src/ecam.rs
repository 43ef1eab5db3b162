use chipset_device::AddressDecoder;
use chipset_device::ChipsetDevice;
use chipset_device::Claims;
use chipset_device::Decodes;
use chipset_device::IoError;
use chipset_device::MmioDevice;
use chipset_device::PciAddress;
use chipset_device::PciConfigSpace;
use chipset_device::RestoreError;
use chipset_device::SaveError;
use chipset_device::SavedState;
use parking_lot::Mutex;
use serde_json::json;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// PCI configuration space in memory, the enhanced configuration access mechanism (PCI Express Base
/// Specification 3.0, section 7.2.2): 4 KiB for each function, 1 MiB for each bus from 0 on.
///
/// Where it is, and of how many buses, the host bridge says through the [`EcamWindow`]; until then it is
/// nowhere. It takes accesses of 1, 2 and 4 bytes within a register, and aligned ones of 8 bytes, which are
/// to the lower register first.
#[derive(Debug)]
pub struct Ecam {
    space: PciConfigSpace,
    window: EcamWindow,
}

/// Where configuration space is in memory. Cheap to clone.
#[derive(Debug, Clone)]
pub struct EcamWindow(Arc<Window>);

#[derive(Debug)]
struct Window {
    decoder: AddressDecoder,
    range: Mutex<Option<RangeInclusive<u64>>>,
}

impl EcamWindow {
    /// The guest-physical addresses, if there are any.
    pub fn range(&self) -> Option<RangeInclusive<u64>> {
        self.0.range.lock().clone()
    }

    /// Moves it. An access that is on its way is to the old or the new place.
    pub(crate) fn set(&self, range: Option<RangeInclusive<u64>>) {
        let mut current = self.0.range.lock();
        if *current != range {
            self.0.decoder.set(Decodes {
                mmio: range.iter().cloned().collect(),
                ..Decodes::default()
            });
            *current = range;
        }
    }
}

impl Ecam {
    /// Puts `space` into memory, where the host bridge wants it. The chipset hears of it through `decoder`.
    pub fn new(space: PciConfigSpace, decoder: AddressDecoder) -> Self {
        Self {
            space,
            window: EcamWindow(Arc::new(Window {
                decoder,
                range: Mutex::default(),
            })),
        }
    }

    /// The window, for the host bridge to move.
    pub fn window(&self) -> EcamWindow {
        self.window.clone()
    }

    /// The register and the bytes in it that an access is to, and whether the register behind it is accessed
    /// too.
    fn locate(&self, gpa: u64, len: usize) -> Result<Place, IoError> {
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
        // A window has at most 256 buses.
        let function = PciAddress {
            bus: (offset >> 20) as u8,
            device: (offset >> 15) as u8 & 0x1f,
            function: (offset >> 12) as u8 & 7,
        };
        Ok(Place {
            function,
            register: (offset & 0xffc) as u16,
            lane,
        })
    }
}

struct Place {
    function: PciAddress,
    register: u16,
    /// The first byte in the register.
    lane: usize,
}

impl MmioDevice for Ecam {
    fn read(&mut self, gpa: u64, data: &mut [u8]) -> Result<(), IoError> {
        let place = self.locate(gpa, data.len())?;
        let lane = place.lane;
        for (register, bytes) in (place.register..).step_by(4).zip(data.chunks_mut(4)) {
            let value = self.space.read(place.function, register).to_le_bytes();
            bytes.copy_from_slice(&value[lane..lane + bytes.len()]);
        }
        Ok(())
    }

    fn write(&mut self, gpa: u64, data: &[u8]) -> Result<(), IoError> {
        let place = self.locate(gpa, data.len())?;
        let lane = place.lane;
        for (register, bytes) in (place.register..).step_by(4).zip(data.chunks(4)) {
            let (mut value, mut mask) = ([0; 4], [0; 4]);
            value[lane..lane + bytes.len()].copy_from_slice(bytes);
            mask[lane..lane + bytes.len()].fill(0xff);
            let (value, mask) = (u32::from_le_bytes(value), u32::from_le_bytes(mask));
            self.space.write(place.function, register, value, mask);
        }
        Ok(())
    }
}

/// The window is a part of the host bridge's state.
impl ChipsetDevice for Ecam {
    fn claims(&self) -> Claims {
        Claims::default()
    }

    fn mmio(&mut self) -> Option<&mut dyn MmioDevice> {
        Some(self)
    }

    fn reset(&mut self) {}

    fn save(&mut self) -> Result<SavedState, SaveError> {
        Ok(SavedState::default())
    }

    fn restore(&mut self, state: &SavedState) -> Result<(), RestoreError> {
        if *state == SavedState::default() {
            Ok(())
        } else {
            let text = "configuration space in memory has no state of its own";
            Err(RestoreError::Invalid(text.into()))
        }
    }

    fn inspect(&self) -> serde_json::Value {
        let range = self.window.range();
        json!({
            "base": range.as_ref().map(|range| format!("{:#x}", range.start())),
            "last": range.as_ref().map(|range| format!("{:#x}", range.end())),
        })
    }
}
