//! Drives a function with a script of arbitrary operations, for fuzzing and tests.

use crate::Bar;
use crate::FunctionBuilder;
use crate::FunctionState;
use crate::HardwareIds;
use crate::Location;
use crate::MsiRecorder;
use crate::MsixLayout;
use crate::PciFunction;
use crate::PciLayoutError;
use chipset_device::AddressDecoder;
use chipset_device::ChipsetDevice;
use chipset_device::DecodedRanges;
use chipset_device::FixedResources;
use chipset_device::IoError;
use chipset_device::LineInterrupt;
use chipset_device::PciAddress;
use chipset_device::RestoreError;
use chipset_device::SaveError;
use chipset_device::SavedState;
use chipset_device::exercise::exercise_with_bars;
use parking_lot::Mutex;
use std::sync::Arc;

/// The number of MSI-X vectors of the device.
const VECTORS: u16 = 70;

/// A device that uses all features of a function. Writes to its BARs drive its interrupt pin.
struct Device {
    function: PciFunction,
    reported: Arc<Mutex<DecodedRanges>>,
}

impl Device {
    fn new(messages: &MsiRecorder) -> Result<Self, PciLayoutError> {
        let reported = Arc::new(Mutex::new(DecodedRanges::default()));
        let decoder = {
            let reported = reported.clone();
            AddressDecoder::new(move |ranges| *reported.lock() = ranges)
        };
        let mut builder = FunctionBuilder::new(&HardwareIds {
            vendor: 0x1234,
            device: 0x5678,
            ..HardwareIds::default()
        });
        builder.bar(0, Bar::Memory32 { size: 16 })?;
        builder.bar(1, Bar::Io { size: 8 })?;
        let msix_bar = Bar::Memory64 {
            size: 0x1000,
            prefetchable: true,
        };
        builder.bar(2, msix_bar)?;
        builder.bar(5, Bar::Memory32 { size: 1 << 31 })?;
        builder.capability(0x09, &[1, 2, 3], &[0, 0xff])?;
        let msix = MsixLayout {
            bar: 2,
            vectors: VECTORS,
            table_offset: 0x800,
            pending_offset: 0x10,
        };
        builder.msix(msix, messages)?;
        builder.intx(LineInterrupt::detached());
        Ok(Self {
            function: builder.build(decoder),
            reported,
        })
    }

    fn write_bar(&mut self, index: usize, data: &[u8]) {
        assert!([0, 1, 2, 5].contains(&index));
        self.function.set_intx(data[0] & 1 != 0);
    }

    /// Checks invariants.
    fn check(&self) {
        let decoded = self.function.decoded_ranges();
        assert_eq!(*self.reported.lock(), decoded, "the chipset was not told");
        for range in &decoded.mmio {
            for gpa in [*range.start(), *range.end()] {
                assert!(self.function.locate_memory(gpa).is_some(), "{gpa:#x}");
            }
        }
        for range in &decoded.ports {
            for port in [*range.start(), *range.end()] {
                assert!(self.function.locate_port(port).is_some(), "{port:#x}");
            }
        }
    }
}

impl ChipsetDevice for Device {
    fn fixed_resources(&self) -> FixedResources {
        FixedResources::pci(PciAddress {
            bus: 0,
            device: 1,
            function: 0,
        })
    }

    fn read_port(&mut self, port: u16, data: &mut [u8]) -> Result<(), IoError> {
        let location = self.function.locate_port(port);
        assert!(matches!(location, Some(Location::Bar { index: 1, offset }) if offset < 8));
        data.fill(0);
        Ok(())
    }

    fn write_port(&mut self, port: u16, data: &[u8]) -> Result<(), IoError> {
        if let Some(Location::Bar { index, .. }) = self.function.locate_port(port) {
            self.write_bar(index, data);
        }
        Ok(())
    }

    fn read_mmio(&mut self, gpa: u64, data: &mut [u8]) -> Result<(), IoError> {
        match self.function.locate_memory(gpa) {
            Some(Location::Msix(register)) => self.function.read_msix(register, data),
            Some(Location::Bar { .. }) => {
                data.fill(0);
                Ok(())
            }
            None => panic!("{gpa:#x} is decoded but has no location"),
        }
    }

    fn write_mmio(&mut self, gpa: u64, data: &[u8]) -> Result<(), IoError> {
        match self.function.locate_memory(gpa) {
            Some(Location::Msix(register)) => self.function.write_msix(register, data),
            Some(Location::Bar { index, .. }) => {
                self.write_bar(index, data);
                Ok(())
            }
            None => panic!("{gpa:#x} is decoded but has no location"),
        }
    }

    fn read_config(&mut self, offset: u16) -> Result<u32, IoError> {
        self.check();
        Ok(self.function.read_config(offset))
    }

    fn write_config(&mut self, offset: u16, value: u32, mask: u32) -> Result<(), IoError> {
        self.check();
        self.function.write_config(offset, value, mask);
        Ok(())
    }

    fn poll(&mut self) {
        self.check();
    }

    fn reset(&mut self) {
        self.function.reset();
        self.check();
        assert_eq!(self.function.decoded_ranges(), DecodedRanges::default());
    }

    fn save(&mut self) -> Result<SavedState, SaveError> {
        Ok(SavedState::encode(&self.function.save()))
    }

    fn restore(&mut self, state: &SavedState) -> Result<(), RestoreError> {
        let state: FunctionState = state.decode()?;
        let result = self.function.restore(&state);
        self.check();
        result
    }

    fn inspect(&self) -> serde_json::Value {
        self.function.inspect()
    }
}

/// A function that the guest accesses, while its vectors are signalled and changes of its interrupt routes
/// sometimes fail.
pub fn pci_function(script: &[u8]) {
    let messages = MsiRecorder::new();
    let mut device = match Device::new(&messages) {
        Ok(device) => device,
        Err(error) => panic!("{error}"),
    };
    let vectors: Vec<_> = (0..VECTORS)
        .filter_map(|index| device.function.msix_vector(index))
        .collect();
    let reported = device.reported.clone();
    // A random script rarely enables anything, so start with BARs and MSI-X enabled.
    for (offset, value) in [
        (0x10, 0xc000_0000),
        (0x14, 0x6000),
        (0x18, 0xc000_1000),
        (0x04, 0x7),
        (0x48, 1 << 31),
    ] {
        device.function.write_config(offset, value, u32::MAX);
    }
    let decoded = || reported.lock().clone();
    exercise_with_bars(&mut device, script, &decoded, &mut |byte| match byte {
        0 => messages.break_down(),
        1..16 => messages.mend(),
        16..32 => drop(messages.take()),
        _ => {
            if let Some(vector) = vectors.get(usize::from(byte - 32)) {
                vector.signal();
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use chipset_device::exercise::pseudo_random_script;

    #[test]
    fn survives_random_scripts() {
        for seed in 0..100 {
            pci_function(&pseudo_random_script(seed, 1500));
        }
    }
}
