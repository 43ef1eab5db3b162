use super::IoApicRouting;
use super::PINS;
use super::core::Core;
use super::core::State;
use chipset_device::ChipsetDevice;
use chipset_device::FixedResources;
use chipset_device::IoError;
use chipset_device::LineTarget;
use chipset_device::RestoreError;
use chipset_device::SaveError;
use chipset_device::SavedState;
use parking_lot::Mutex;
use serde_json::json;
use std::sync::Arc;

const PAGE: u64 = 0x1000;

/// Registers by their offset in the page.
const SELECT: u64 = 0x00;
const WINDOW: u64 = 0x10;
const EOI: u64 = 0x40;

/// An I/O APIC with 24 pins (Intel 82093AA data sheet, with the EOI register of later ones).
///
/// A high pin means "asserted": the polarity that the guest programs is stored and not applied.
/// The levels of the pins are not part of the saved state; the devices drive them again when they are restored.
pub struct IoApic {
    gpa: u64,
    core: Arc<Mutex<Core>>,
}

/// The inputs of an [`IoApic`] from devices and local APICs. Cheap to clone.
#[derive(Clone)]
pub struct IoApicPins(Arc<Mutex<Core>>);

impl IoApic {
    /// The address of the first I/O APIC of a PC.
    pub const DEFAULT_GPA: u64 = 0xfec0_0000;

    /// An I/O APIC with its registers in the page at `gpa`, which delivers through `routing`.
    pub fn new(gpa: u64, routing: Arc<dyn IoApicRouting>) -> Self {
        Self {
            gpa,
            core: Arc::new(Mutex::new(Core::new(routing))),
        }
    }

    /// Its inputs.
    pub fn pins(&self) -> IoApicPins {
        IoApicPins(self.core.clone())
    }
}

impl IoApicPins {
    /// Handles that a local APIC has ended the level-triggered interrupt `vector`.
    pub fn eoi(&self, vector: u8) {
        self.0.lock().eoi(vector);
    }
}

impl LineTarget for IoApicPins {
    /// Drives pin `gsi`. A pin that does not exist is ignored.
    fn set_line(&self, gsi: u32, high: bool) {
        if let Ok(pin) = u8::try_from(gsi)
            && pin < PINS
        {
            self.0.lock().set_line(pin, high);
        }
    }
}

impl ChipsetDevice for IoApic {
    fn fixed_resources(&self) -> FixedResources {
        FixedResources::mmio([self.gpa..=self.gpa.saturating_add(PAGE - 1)])
    }

    fn read_mmio(&mut self, gpa: u64, data: &mut [u8]) -> Result<(), IoError> {
        let core = self.core.lock();
        let value = match gpa.wrapping_sub(self.gpa) {
            SELECT => core.state.select.into(),
            WINDOW => core.read(),
            _ => return Err(IoError::InvalidRegister),
        };
        data.fill(0);
        let len = data.len().min(4);
        data[..len].copy_from_slice(&value.to_le_bytes()[..len]);
        Ok(())
    }

    fn write_mmio(&mut self, gpa: u64, data: &[u8]) -> Result<(), IoError> {
        let mut bytes = [0; 4];
        let len = data.len().min(4);
        bytes[..len].copy_from_slice(&data[..len]);
        let value = u32::from_le_bytes(bytes);
        let mut core = self.core.lock();
        match gpa.wrapping_sub(self.gpa) {
            // Firmware writes only the low byte.
            SELECT => core.state.select = value as u8,
            WINDOW if data.len() < 4 => return Err(IoError::InvalidAccessSize),
            WINDOW => core.write(value),
            EOI => core.eoi(value as u8),
            _ => return Err(IoError::InvalidRegister),
        }
        Ok(())
    }

    fn reset(&mut self) {
        self.core.lock().set_state(State::new());
    }

    fn save(&mut self) -> Result<SavedState, SaveError> {
        Ok(SavedState::encode(&self.core.lock().state))
    }

    fn restore(&mut self, state: &SavedState) -> Result<(), RestoreError> {
        let state: State = state.decode()?;
        state.check()?;
        self.core.lock().set_state(state);
        Ok(())
    }

    fn inspect(&self) -> serde_json::Value {
        let core = self.core.lock();
        let redirections = core.state.redirections.iter();
        let redirections: Vec<_> = redirections.map(|rte| format!("{rte:#018x}")).collect();
        json!({
            "id": core.state.id >> 24,
            "select": core.state.select,
            "lines": format!("{:#08x}", core.lines()),
            "redirections": redirections,
        })
    }
}

#[cfg(test)]
#[path = "device_test.rs"]
mod tests;
