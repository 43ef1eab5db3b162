use crate::bar::Bar;
use crate::bar::Window;
use crate::msix::MsixInterrupt;
use crate::msix::MsixRegister;
use crate::msix::MsixState;
use crate::msix::MsixTable;
use crate::registers;
use chipset_device::AddressDecoder;
use chipset_device::DecodedRanges;
use chipset_device::IoError;
use chipset_device::LineInterrupt;
use chipset_device::PciConfigDevice;
use chipset_device::RestoreError;
use minicbor::Decode;
use minicbor::Encode;
use serde_json::json;

/// What a configuration space consists of.
#[derive(Debug)]
pub(crate) struct Layout {
    /// The registers after a reset.
    pub(crate) reset: [u32; registers::COUNT],
    /// The bits of them that remember what is written.
    pub(crate) writable: [u32; registers::COUNT],
    pub(crate) bars: [Option<Bar>; 6],
    /// The first register of the MSI-X capability, if there is one.
    pub(crate) msix_register: usize,
}

impl Layout {
    pub(crate) fn empty() -> Self {
        Self {
            reset: [0; registers::COUNT],
            writable: [0; registers::COUNT],
            bars: [None; 6],
            msix_register: 0,
        }
    }
}

/// The configuration space of a PCI function, and what follows from it: which addresses the function decodes
/// and how its interrupts are delivered.
#[derive(Debug)]
pub struct PciFunction {
    layout: Layout,
    registers: [u32; registers::COUNT],
    /// What the BARs decode now.
    windows: [Option<Window>; 6],
    decoder: AddressDecoder,
    line: Option<LineInterrupt>,
    intx: bool,
    msix: Option<MsixTable>,
}

/// Whether a write to the configuration space has further consequences for the device.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
#[must_use]
pub enum ConfigChange {
    /// The BARs decode what they decoded before.
    DecodingUnchanged,
    /// They decode something else. The chipset knows already; a device with doorbells must move them.
    DecodingChanged,
}

/// What is at an address that a function decodes.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum Location {
    /// A place in a BAR, which is the device's.
    Bar {
        /// Which BAR.
        index: usize,
        /// How many bytes or ports behind its begin.
        offset: u64,
    },
    /// The MSI-X table or its pending bits: for [`PciFunction::read_msix`] and [`PciFunction::write_msix`].
    Msix(MsixRegister),
}

/// The state of a [`PciFunction`], a part of the state of the device that has it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct FunctionState {
    /// All registers of the configuration space. Those that guests can't write tell whether the state is
    /// one of such a function.
    #[n(1)]
    registers: Vec<u32>,
    /// The function asks for an interrupt on its pin.
    #[n(2)]
    intx: bool,
    #[n(3)]
    msix: Option<MsixState>,
}

impl PciFunction {
    pub(crate) fn new(
        layout: Layout,
        line: Option<LineInterrupt>,
        msix: Option<MsixTable>,
        decoder: AddressDecoder,
    ) -> Self {
        Self {
            registers: layout.reset,
            layout,
            windows: Default::default(),
            decoder,
            line,
            intx: false,
            msix,
        }
    }

    /// Reads the register at `offset`, a multiple of 4. Behind 0x100 there is nothing, which reads all ones.
    pub fn read_config(&self, offset: u16) -> u32 {
        let index = usize::from(offset / 4);
        let Some(value) = self.registers.get(index) else {
            return u32::MAX;
        };
        match index {
            registers::COMMAND if self.intx => value | registers::INTX_STATUS,
            _ => *value,
        }
    }

    /// Writes `value` to the bits in `mask` of the register at `offset`, a multiple of 4.
    pub fn write_config(&mut self, offset: u16, value: u32, mask: u32) -> ConfigChange {
        let index = usize::from(offset / 4);
        let Some(register) = self.registers.get_mut(index) else {
            return ConfigChange::DecodingUnchanged;
        };
        let mask = mask & self.layout.writable[index];
        *register = *register & !mask | value & mask;
        self.apply()
    }

    /// Which BAR and offset guest-physical address `gpa` is, if the function decodes it.
    pub fn locate_memory(&self, gpa: u64) -> Option<Location> {
        let mut windows = self.windows.iter().enumerate();
        let (index, offset) = windows.find_map(|(index, window)| match window {
            Some(Window::Memory(range)) if range.contains(&gpa) => {
                Some((index, gpa - range.start()))
            }
            _ => None,
        })?;
        let msix = self.msix.as_ref().and_then(|m| m.locate(index, offset));
        Some(match msix {
            Some(register) => Location::Msix(register),
            None => Location::Bar { index, offset },
        })
    }

    /// Which BAR and offset I/O port `port` is, if the function decodes it.
    pub fn locate_port(&self, port: u16) -> Option<Location> {
        let mut windows = self.windows.iter().enumerate();
        windows.find_map(|(index, window)| match window {
            Some(Window::Ports(range)) if range.contains(&port) => Some(Location::Bar {
                index,
                offset: (port - range.start()).into(),
            }),
            _ => None,
        })
    }

    /// The address at which a memory BAR begins, if it is decoded.
    pub fn memory_base(&self, bar: usize) -> Option<u64> {
        match self.windows.get(bar)? {
            Some(Window::Memory(range)) => Some(*range.start()),
            _ => None,
        }
    }

    /// The port at which an I/O BAR begins, if it is decoded.
    pub fn port_base(&self, bar: usize) -> Option<u16> {
        match self.windows.get(bar)? {
            Some(Window::Ports(range)) => Some(*range.start()),
            _ => None,
        }
    }

    /// The guest lets the function access memory.
    pub fn is_bus_master(&self) -> bool {
        self.registers[registers::COMMAND] & registers::BUS_MASTER != 0
    }

    /// The guest chose MSI-X: [`Self::msix_vector`] delivers, and [`Self::set_intx`] does not.
    pub fn msix_enabled(&self) -> bool {
        self.msix.is_some()
            && self.registers[self.layout.msix_register] & MsixTable::CONTROL_ENABLE != 0
    }

    /// How many MSI-X vectors there are.
    pub fn msix_vectors(&self) -> u16 {
        self.msix.as_ref().map_or(0, MsixTable::len)
    }

    /// An MSI-X vector, to be signalled from any thread. The vector is the same for as long as the function
    /// exists.
    pub fn msix_vector(&self, index: u16) -> Option<MsixInterrupt> {
        self.msix.as_ref()?.interrupt(index)
    }

    /// Reads from the MSI-X table or its pending bits.
    pub fn read_msix(&self, register: MsixRegister, data: &mut [u8]) -> Result<(), IoError> {
        let msix = self.msix.as_ref().ok_or(IoError::InvalidRegister)?;
        msix.read(register, data)
    }

    /// Writes to the MSI-X table or its pending bits.
    pub fn write_msix(&mut self, register: MsixRegister, data: &[u8]) -> Result<(), IoError> {
        let msix = self.msix.as_mut().ok_or(IoError::InvalidRegister)?;
        msix.write(register, data)
    }

    /// Asks for an interrupt on the pin, or no longer. While the guest uses MSI-X or disabled the pin, that
    /// shows only in the status register.
    pub fn set_intx(&mut self, high: bool) {
        self.intx = high;
        self.drive_line();
    }

    /// Whether the function asks for an interrupt on its pin.
    pub fn intx(&self) -> bool {
        self.intx
    }

    /// Returns to the state at power-on. Nothing is decoded then, no interrupt pending or enabled. A device
    /// with doorbells removes them.
    pub fn reset(&mut self) {
        self.registers = self.layout.reset;
        self.intx = false;
        if let Some(msix) = &mut self.msix {
            msix.reset();
        }
        let _ = self.apply();
    }

    /// The state of the function.
    pub fn save(&self) -> FunctionState {
        FunctionState {
            registers: self.registers.to_vec(),
            intx: self.intx,
            msix: self.msix.as_ref().map(MsixTable::save),
        }
    }

    /// Whether `state` can be restored. A device asks this before it restores anything of its own.
    pub fn check(&self, state: &FunctionState) -> Result<(), RestoreError> {
        let count = state.registers.len();
        if count != registers::COUNT {
            let text = format!("{count} PCI configuration registers");
            return Err(RestoreError::Invalid(text));
        }
        let registers = state.registers.iter().zip(&self.layout.reset);
        for (index, ((saved, own), writable)) in registers.zip(&self.layout.writable).enumerate() {
            if (saved ^ own) & !writable != 0 {
                let offset = index * 4;
                return Err(RestoreError::Invalid(format!(
                    "PCI configuration register {offset:#04x} is {saved:#010x}, and {own:#010x} here"
                )));
            }
        }
        match (&self.msix, &state.msix) {
            (Some(msix), Some(state)) => msix.check(state),
            (None, None) => Ok(()),
            _ => Err(RestoreError::Invalid("only one side has MSI-X".into())),
        }
    }

    /// Takes a saved state. On an error the function is as it was. A device with doorbells places them anew.
    pub fn restore(&mut self, state: &FunctionState) -> Result<(), RestoreError> {
        self.check(state)?;
        self.registers.copy_from_slice(&state.registers);
        self.intx = state.intx;
        if let (Some(msix), Some(state)) = (&mut self.msix, &state.msix) {
            msix.load(state);
        }
        let _ = self.apply();
        if let Some(line) = &self.line {
            // The controller may have been restored to another level.
            line.redrive();
        }
        Ok(())
    }

    /// What a person debugging the guest wants to see.
    pub fn inspect(&self) -> serde_json::Value {
        let ids = self.registers[registers::IDS];
        let bars: Vec<_> = self
            .layout
            .bars
            .iter()
            .enumerate()
            .filter_map(|(index, bar)| {
                let bar = (*bar)?;
                let register = |offset| self.registers[registers::BAR0 + index + offset];
                let high = u64::from(if bar.registers() == 2 { register(1) } else { 0 });
                let address = (high << 32 | u64::from(register(0))) & bar.address_bits();
                let kind = match bar {
                    Bar::Memory32 { .. } => "memory32",
                    Bar::Memory64 { .. } => "memory64",
                    Bar::Io { .. } => "io",
                };
                Some(json!({
                    "index": index,
                    "kind": kind,
                    "size": format!("{:#x}", bar.size()),
                    "address": format!("{address:#x}"),
                    "decoded": self.windows[index].is_some(),
                }))
            })
            .collect();
        let msix = self.msix.as_ref().map(|msix| {
            let mut value = msix.inspect();
            value["enabled"] = self.msix_enabled().into();
            value
        });
        json!({
            "vendor": format!("{:04x}", ids as u16),
            "device": format!("{:04x}", ids >> 16),
            "class": format!("{:06x}", self.registers[registers::CLASS] >> 8),
            "command": format!("{:#06x}", self.registers[registers::COMMAND] as u16),
            "bars": bars,
            "intx": self.intx,
            "msix": msix,
        })
    }

    /// Makes what is outside of the registers what they say.
    fn apply(&mut self) -> ConfigChange {
        self.drive_line();
        let delivers = self.msix_enabled()
            && self.is_bus_master()
            && self.registers[self.layout.msix_register] & MsixTable::CONTROL_MASK == 0;
        if let Some(msix) = &mut self.msix {
            msix.set_delivering(delivers);
        }
        let windows = std::array::from_fn(|index| {
            let register = |offset| {
                let at = registers::BAR0 + index + offset;
                self.registers[at]
            };
            let bar = self.layout.bars[index]?;
            let high = if bar.registers() == 2 { register(1) } else { 0 };
            bar.window(self.registers[registers::COMMAND], register(0), high)
        });
        if windows == self.windows {
            return ConfigChange::DecodingUnchanged;
        }
        self.windows = windows;
        self.decoder.set(self.decoded_ranges());
        ConfigChange::DecodingChanged
    }

    /// All that the BARs decode now.
    pub fn decoded_ranges(&self) -> DecodedRanges {
        let mut decodes = DecodedRanges::default();
        for window in self.windows.iter().flatten() {
            match window {
                Window::Memory(range) => decodes.mmio.push(range.clone()),
                Window::Ports(range) => decodes.ports.push(range.clone()),
            }
        }
        decodes
    }

    fn drive_line(&self) {
        if let Some(line) = &self.line {
            let disabled = self.registers[registers::COMMAND] & registers::INTX_DISABLE != 0;
            line.set(self.intx && !disabled && !self.msix_enabled());
        }
    }
}

/// For a device with nothing of its own in its configuration space.
impl PciConfigDevice for PciFunction {
    fn read(&mut self, offset: u16) -> Result<u32, IoError> {
        Ok(self.read_config(offset))
    }

    fn write(&mut self, offset: u16, value: u32, mask: u32) -> Result<(), IoError> {
        let _ = self.write_config(offset, value, mask);
        Ok(())
    }
}
