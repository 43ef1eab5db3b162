use crate::IoError;
use crate::RestoreError;
use crate::SaveError;
use crate::SavedState;
use std::ops::RangeInclusive;

/// The bus, device and function number of a PCI function on segment 0.
#[derive(Debug, Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    /// Bus number.
    pub bus: u8,
    /// Device number, 0 to 31.
    pub device: u8,
    /// Function number, 0 to 7.
    pub function: u8,
}

impl std::fmt::Display for PciAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:02x}:{:02x}.{}", self.bus, self.device, self.function)
    }
}

/// The addresses that a device decodes for as long as the VM exists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FixedResources {
    /// I/O ports.
    pub ports: Vec<RangeInclusive<u16>>,
    /// Guest-physical addresses.
    pub mmio: Vec<RangeInclusive<u64>>,
    /// The PCI function.
    pub pci: Option<PciAddress>,
}

impl FixedResources {
    /// The resources of a device that has I/O ports only.
    pub fn ports(ports: impl Into<Vec<RangeInclusive<u16>>>) -> Self {
        Self {
            ports: ports.into(),
            ..Self::default()
        }
    }

    /// The resources of a device that has memory-mapped registers only.
    pub fn mmio(mmio: impl Into<Vec<RangeInclusive<u64>>>) -> Self {
        Self {
            mmio: mmio.into(),
            ..Self::default()
        }
    }

    /// The resources of a device that is the PCI function at `address`.
    pub fn pci(address: PciAddress) -> Self {
        Self {
            pci: Some(address),
            ..Self::default()
        }
    }
}

/// A device on the chipset.
///
/// Lifecycle of a device: built stopped; `start`; any mix of accesses and `poll`; `stop`; then `save`,
/// `restore`, `reset` or `start` again. `reset` may also be called while running.
///
/// A device with state implements `reset`, `save` and `restore`. Their defaults are for a device without state.
pub trait ChipsetDevice: Send + 'static {
    /// The addresses that the device always decodes. Read once, when the device is added.
    fn fixed_resources(&self) -> FixedResources {
        FixedResources::default()
    }

    /// Reads from an I/O port of the device. `data` is 1, 2 or 4 bytes, little-endian. On an error the guest reads all ones.
    fn read_port(&mut self, _port: u16, _data: &mut [u8]) -> Result<(), IoError> {
        Err(IoError::InvalidRegister)
    }

    /// Writes to an I/O port of the device, like [`Self::read_port`]. On an error the write is dropped.
    fn write_port(&mut self, _port: u16, _data: &[u8]) -> Result<(), IoError> {
        Err(IoError::InvalidRegister)
    }

    /// Reads from a memory-mapped register of the device. `data` is 1, 2, 4 or 8 bytes, little-endian. On an error the guest
    /// reads all ones.
    fn read_mmio(&mut self, _gpa: u64, _data: &mut [u8]) -> Result<(), IoError> {
        Err(IoError::InvalidRegister)
    }

    /// Writes to a memory-mapped register of the device, like [`Self::read_mmio`]. On an error the write is dropped.
    fn write_mmio(&mut self, _gpa: u64, _data: &[u8]) -> Result<(), IoError> {
        Err(IoError::InvalidRegister)
    }

    /// Reads the register at `offset` (a multiple of 4) of the device's PCI configuration space.
    fn read_config(&mut self, _offset: u16) -> Result<u32, IoError> {
        Err(IoError::InvalidRegister)
    }

    /// Writes `value` to the bytes of the register at `offset` (a multiple of 4) that `mask` selects.
    fn write_config(&mut self, _offset: u16, _value: u32, _mask: u32) -> Result<(), IoError> {
        Err(IoError::InvalidRegister)
    }

    /// Handles a change from outside the guest: a deadline passed, or input arrived.
    fn poll(&mut self) {}

    /// VPs are about to run.
    fn start(&mut self) {}

    /// VPs have stopped. From here on the device's state changes only through these methods.
    fn stop(&mut self) {}

    /// Returns to the state at power-on. Host-side connections stay.
    fn reset(&mut self) {}

    /// Returns the device's state. Called only while stopped.
    fn save(&mut self) -> Result<SavedState, SaveError> {
        Ok(SavedState::default())
    }

    /// Restores a saved state. Called only while stopped. On an error the device is unchanged.
    ///
    /// A level-triggered interrupt line that the restored state asserts is driven again.
    fn restore(&mut self, state: &SavedState) -> Result<(), RestoreError> {
        if *state == SavedState::default() {
            Ok(())
        } else {
            Err(RestoreError::Invalid("the device has no state".into()))
        }
    }

    /// The device's state for debugging.
    fn inspect(&self) -> serde_json::Value;
}
