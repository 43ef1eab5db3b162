use crate::bar::Bar;
use crate::bar::Window;
use crate::msix::MsixInterrupt;
use crate::msix::MsixRegister;
use crate::msix::MsixState;
use crate::msix::MsixTable;
use crate::msix_layout::MsixLayout;
use crate::registers;
use chipset_device::AddressDecoder;
use chipset_device::DecodedRanges;
use chipset_device::IoError;
use chipset_device::LineInterrupt;
use chipset_device::RestoreError;
use minicbor::Decode;
use minicbor::Encode;
use serde_json::json;

/// The fixed properties of a configuration space.
#[derive(Debug)]
pub(crate) struct Layout {
    /// The values of the registers at reset.
    pub(crate) reset: [u32; registers::COUNT],
    /// The bits of the registers that guests can write.
    pub(crate) writable: [u32; registers::COUNT],
    pub(crate) bars: [Option<Bar>; 6],
    /// The first register of the MSI-X capability; 0 if there is none.
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

/// The configuration space of a PCI function. It controls which addresses the function decodes and how its
/// interrupts are delivered.
pub struct PciFunction {
    layout: Layout,
    registers: [u32; registers::COUNT],
    /// The ranges that the BARs decode.
    windows: [Option<Window>; 6],
    decoder: AddressDecoder,
    line: Option<LineInterrupt>,
    intx: bool,
    msix: Option<MsixTable>,
}

/// The meaning of an address that a function decodes.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum Location {
    /// An offset into a BAR, to be handled by the device.
    Bar {
        /// The number of the BAR.
        index: usize,
        /// Offset into the BAR, in bytes or ports.
        offset: u64,
    },
    /// The MSI-X table or its pending bits, to be passed to [`PciFunction::read_msix`] and
    /// [`PciFunction::write_msix`].
    Msix(MsixRegister),
}

/// The saved state of a [`PciFunction`], which is part of the saved state of its device.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct FunctionState {
    /// All registers of the configuration space. The bits that guests cannot write are compared when it is restored.
    #[n(1)]
    registers: Vec<u32>,
    /// Whether the function asserts its interrupt pin.
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

    /// Reads the register at `offset`, a multiple of 4. Offsets from 0x100 on read all ones.
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

    /// Writes `value` to the bits in `mask` of the register at `offset`, a multiple of 4. If the BARs then decode other
    /// ranges, the chipset is told; a device with doorbells must move them.
    pub fn write_config(&mut self, offset: u16, value: u32, mask: u32) {
        let index = usize::from(offset / 4);
        if let Some(register) = self.registers.get_mut(index) {
            let mask = mask & self.layout.writable[index];
            *register = *register & !mask | value & mask;
            self.apply();
        }
    }

    /// Returns the location of guest-physical address `gpa`, if the function decodes it.
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

    /// Returns the location of I/O port `port`, if the function decodes it.
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

    /// The start address of a memory BAR, if it is decoded.
    pub fn memory_base(&self, bar: usize) -> Option<u64> {
        match self.windows.get(bar)? {
            Some(Window::Memory(range)) => Some(*range.start()),
            _ => None,
        }
    }

    /// Whether the guest allows the function to access memory.
    pub fn is_bus_master(&self) -> bool {
        self.registers[registers::COMMAND] & registers::BUS_MASTER != 0
    }

    /// Whether the guest enabled MSI-X. Then [`Self::msix_vector`] delivers interrupts and [`Self::set_intx`] does not.
    pub fn msix_enabled(&self) -> bool {
        self.msix.is_some()
            && self.registers[self.layout.msix_register] & MsixLayout::CONTROL_ENABLE != 0
    }

    /// The number of MSI-X vectors.
    pub fn msix_vectors(&self) -> u16 {
        self.msix.as_ref().map_or(0, MsixTable::len)
    }

    /// Returns an MSI-X vector, which can be signalled from any thread. It is valid for as long as the function exists.
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

    /// Asserts or deasserts the interrupt pin. While MSI-X is enabled or the pin is disabled, this only changes
    /// the status register.
    pub fn set_intx(&mut self, high: bool) {
        self.intx = high;
        self.drive_line();
    }

    /// Whether the function asserts its interrupt pin.
    pub fn intx(&self) -> bool {
        self.intx
    }

    /// Returns to the state at power-on: no BAR is decoded, and no interrupt is pending or enabled. A device
    /// with doorbells must remove them.
    pub fn reset(&mut self) {
        self.registers = self.layout.reset;
        self.intx = false;
        if let Some(msix) = &mut self.msix {
            msix.reset();
        }
        self.apply();
    }

    /// Returns the state of the function.
    pub fn save(&self) -> FunctionState {
        FunctionState {
            registers: self.registers.to_vec(),
            intx: self.intx,
            msix: self.msix.as_ref().map(MsixTable::save),
        }
    }

    /// Checks whether `state` can be restored. A device calls this before it restores its own state.
    pub fn check(&self, state: &FunctionState) -> Result<(), RestoreError> {
        let count = state.registers.len();
        if count != registers::COUNT {
            let text = format!(
                "{count} PCI configuration registers instead of {}",
                registers::COUNT
            );
            return Err(RestoreError::Invalid(text));
        }
        let registers = state.registers.iter().zip(&self.layout.reset);
        for (index, ((saved, own), writable)) in registers.zip(&self.layout.writable).enumerate() {
            if (saved ^ own) & !writable != 0 {
                let offset = index * 4;
                return Err(RestoreError::Invalid(format!(
                    "the saved PCI configuration register {offset:#04x} is {saved:#010x}, \
                     and that of this device is {own:#010x}"
                )));
            }
        }
        match (&self.msix, &state.msix) {
            (Some(msix), Some(state)) => msix.check(state),
            (None, None) => Ok(()),
            (Some(_), None) => Err(RestoreError::Invalid(
                "the saved function lacks MSI-X".into(),
            )),
            (None, Some(_)) => Err(RestoreError::Invalid(
                "the saved function has MSI-X, which this device lacks".into(),
            )),
        }
    }

    /// Restores a saved state. On an error the function is unchanged. A device with doorbells must register them again.
    pub fn restore(&mut self, state: &FunctionState) -> Result<(), RestoreError> {
        self.check(state)?;
        self.registers.copy_from_slice(&state.registers);
        self.intx = state.intx;
        if let (Some(msix), Some(state)) = (&mut self.msix, &state.msix) {
            msix.load(state);
        }
        self.apply();
        if let Some(line) = &self.line {
            // The interrupt controller may have been restored with another level.
            line.redrive();
        }
        Ok(())
    }

    /// The function's state for debugging.
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

    /// Applies the registers to the decoded ranges and the interrupts.
    fn apply(&mut self) {
        self.drive_line();
        let delivers = self.msix_enabled()
            && self.is_bus_master()
            && self.registers[self.layout.msix_register] & MsixLayout::CONTROL_MASK == 0;
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
        if windows != self.windows {
            self.windows = windows;
            self.decoder.set(self.decoded_ranges());
        }
    }

    /// The ranges that the BARs decode.
    pub fn decoded_ranges(&self) -> DecodedRanges {
        let mut ranges = DecodedRanges::default();
        for window in self.windows.iter().flatten() {
            match window {
                Window::Memory(range) => ranges.mmio.push(range.clone()),
                Window::Ports(range) => ranges.ports.push(range.clone()),
            }
        }
        ranges
    }

    fn drive_line(&self) {
        if let Some(line) = &self.line {
            let disabled = self.registers[registers::COMMAND] & registers::INTX_DISABLE != 0;
            line.set(self.intx && !disabled && !self.msix_enabled());
        }
    }
}

#[cfg(test)]
#[path = "function_test.rs"]
mod tests;
