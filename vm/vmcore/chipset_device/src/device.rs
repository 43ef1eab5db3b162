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

/// A device on the chipset.
///
/// Lifecycle of a device: built stopped; `start`; any mix of accesses and `poll`; `stop`; then `save`,
/// `restore`, `reset` or `start` again. `reset` may also be called while running.
///
/// A device with state implements `reset`, `save` and `restore`. Their defaults are for a device without state.
pub trait ChipsetDevice: Send + 'static {
    /// The addresses that the device always decodes. Read once, when the device is added.
    fn fixed_resources(&self) -> FixedResources;

    /// The device's I/O ports, if it has any.
    fn port_io(&mut self) -> Option<&mut dyn PortIoDevice> {
        None
    }

    /// The device's memory-mapped registers, if it has any.
    fn mmio(&mut self) -> Option<&mut dyn MmioDevice> {
        None
    }

    /// The device's PCI configuration space, if it has one.
    fn pci(&mut self) -> Option<&mut dyn PciConfigDevice> {
        None
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

/// A device with I/O ports. `data` is 1, 2 or 4 bytes, little-endian.
pub trait PortIoDevice {
    /// Reads from `port`. On an error the guest reads all ones.
    fn read(&mut self, port: u16, data: &mut [u8]) -> Result<(), IoError>;

    /// Writes to `port`. On an error the write is dropped.
    fn write(&mut self, port: u16, data: &[u8]) -> Result<(), IoError>;
}

/// A device with memory-mapped registers. `data` is 1, 2, 4 or 8 bytes, little-endian.
pub trait MmioDevice {
    /// Reads from `gpa`. On an error the guest reads all ones.
    fn read(&mut self, gpa: u64, data: &mut [u8]) -> Result<(), IoError>;

    /// Writes to `gpa`. On an error the write is dropped.
    fn write(&mut self, gpa: u64, data: &[u8]) -> Result<(), IoError>;
}

/// A PCI function's configuration space, in aligned 32-bit registers.
pub trait PciConfigDevice {
    /// Reads the register at `offset` (a multiple of 4).
    fn read(&mut self, offset: u16) -> Result<u32, IoError>;

    /// Writes `value` to the bytes of the register at `offset` (a multiple of 4) that `mask` selects.
    fn write(&mut self, offset: u16, value: u32, mask: u32) -> Result<(), IoError>;
}
