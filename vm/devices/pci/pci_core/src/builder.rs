use crate::bar::Bar;
use crate::error::PciLayoutError;
use crate::function::Layout;
use crate::function::PciFunction;
use crate::ids::HardwareIds;
use crate::msix::MsixTable;
use crate::msix_layout::MsixLayout;
use crate::registers;
use chipset_device::AddressDecoder;
use chipset_device::LineInterrupt;
use chipset_device::MsiTarget;

/// Builds a [`PciFunction`] from its BARs, registers, capabilities and interrupts, and checks that they do not overlap.
pub struct FunctionBuilder {
    layout: Layout,
    /// A bit for each 32-bit register that is in use.
    taken: u64,
    /// Offset of the byte that links to the next capability.
    link: u16,
    line: Option<LineInterrupt>,
    msix: Option<MsixTable>,
}

impl FunctionBuilder {
    /// A function with these ids, without BARs, capabilities and interrupts.
    pub fn new(ids: &HardwareIds) -> Self {
        let mut layout = Layout::empty();
        layout.reset[registers::IDS] = u32::from(ids.device) << 16 | u32::from(ids.vendor);
        layout.reset[registers::CLASS] = u32::from_le_bytes([
            ids.revision,
            ids.class.interface,
            ids.class.sub,
            ids.class.base,
        ]);
        layout.reset[registers::SUBSYSTEM] =
            u32::from(ids.subsystem) << 16 | u32::from(ids.subsystem_vendor);
        layout.writable[registers::COMMAND] = registers::COMMAND_WRITABLE;
        layout.writable[registers::HEADER] = registers::HEADER_WRITABLE;
        layout.writable[registers::INTERRUPT] = registers::INTERRUPT_WRITABLE;
        Self {
            layout,
            // The header.
            taken: 0xffff,
            link: registers::CAPABILITIES as u16 * 4,
            line: None,
            msix: None,
        }
    }

    /// Sets the multi-function bit of the header. Guests look for functions 1 to 7 of a device only if function 0 has it.
    pub fn multifunction(&mut self) -> &mut Self {
        self.layout.reset[registers::HEADER] |= registers::MULTIFUNCTION;
        self
    }

    /// Hard-wires the command register to `value`.
    pub fn fixed_command(&mut self, value: u16) -> &mut Self {
        self.layout.reset[registers::COMMAND] |= u32::from(value);
        self.layout.writable[registers::COMMAND] = 0;
        self
    }

    /// Adds a BAR.
    pub fn bar(&mut self, index: usize, bar: Bar) -> Result<&mut Self, PciLayoutError> {
        let last = index.saturating_add(bar.registers() - 1);
        if last > 5 {
            return Err(PciLayoutError::NoSuchBar(index));
        }
        if !bar.has_valid_size() {
            let size = bar.size();
            return Err(PciLayoutError::BarSize { index, size });
        }
        let overlaps = |other: usize| {
            let taken = self.layout.bars[other];
            taken.is_some_and(|bar| other <= last && index < other + bar.registers())
        };
        if (0..6).any(overlaps) {
            return Err(PciLayoutError::BarTaken(index));
        }
        self.layout.bars[index] = Some(bar);
        let register = registers::BAR0 + index;
        self.layout.reset[register] = bar.kind_bits();
        let bits = bar.address_bits();
        self.layout.writable[register] = bits as u32;
        if bar.registers() == 2 {
            self.layout.writable[register + 1] = (bits >> 32) as u32;
        }
        Ok(self)
    }

    /// Adds a device-specific 32-bit register at `offset` (a multiple of 4, 0x40 or more), with its value at reset and
    /// the bits that guests can write.
    pub fn register(
        &mut self,
        offset: u16,
        reset: u32,
        writable: u32,
    ) -> Result<&mut Self, PciLayoutError> {
        if !offset.is_multiple_of(4) || !self.take(offset, 4) {
            return Err(PciLayoutError::NoRoomForRegister(offset));
        }
        let register = usize::from(offset / 4);
        self.layout.reset[register] = reset;
        self.layout.writable[register] = writable;
        Ok(self)
    }

    /// Adds a capability. `body` follows its id and link. `writable` are the bits of the body that guests can write;
    /// bytes that are missing are read-only. Returns the offset of the capability.
    pub fn capability(
        &mut self,
        id: u8,
        body: &[u8],
        writable: &[u8],
    ) -> Result<u16, PciLayoutError> {
        let len = body.len().saturating_add(2);
        let offset = (registers::HEADER_LENGTH..=0xfc)
            .step_by(4)
            .find(|offset| self.take(*offset, len));
        let Some(offset) = offset else {
            return Err(PciLayoutError::NoRoomForCapability { id, len });
        };
        self.set_byte(self.link, offset as u8);
        self.link = offset + 1;
        self.layout.reset[registers::COMMAND] |= registers::CAPABILITY_LIST;
        self.set_byte(offset, id);
        for (at, byte) in (offset + 2..).zip(body) {
            self.set_byte(at, *byte);
        }
        for (at, bits) in (offset + 2..).zip(writable).take(body.len()) {
            let shift = 8 * (at % 4);
            self.layout.writable[usize::from(at / 4)] |= u32::from(*bits) << shift;
        }
        Ok(offset)
    }

    /// Adds interrupt pin A, which drives `line`.
    pub fn intx(&mut self, line: LineInterrupt) -> &mut Self {
        self.layout.reset[registers::INTERRUPT] |= registers::INTERRUPT_PIN_A;
        self.line = Some(line);
        self
    }

    /// Adds MSI-X. Its BAR must have been added before.
    pub fn msix(
        &mut self,
        layout: MsixLayout,
        target: &dyn MsiTarget,
    ) -> Result<&mut Self, PciLayoutError> {
        if self.msix.is_some() {
            return Err(PciLayoutError::MsixTwice);
        }
        let size = match self.layout.bars.get(layout.bar) {
            Some(Some(bar @ (Bar::Memory32 { .. } | Bar::Memory64 { .. }))) => bar.size(),
            _ => 0,
        };
        if !layout.fits(size) {
            return Err(PciLayoutError::MsixLayout(layout));
        }
        self.msix = Some(MsixTable::new(layout, target)?);
        let (body, writable) = layout.capability();
        let offset = self.capability(MsixLayout::CAPABILITY_ID, &body, &writable)?;
        self.layout.msix_register = usize::from(offset / 4);
        Ok(self)
    }

    /// Builds the function in its state at reset. It reports the ranges that its BARs decode to `decoder`.
    pub fn build(self, decoder: AddressDecoder) -> PciFunction {
        PciFunction::new(self.layout, self.line, self.msix, decoder)
    }

    /// Marks the registers of `len` bytes at `offset` as taken. Returns false if one is taken or does not exist.
    fn take(&mut self, offset: u16, len: usize) -> bool {
        let (first, count) = (usize::from(offset / 4), len.div_ceil(4));
        if first + count > registers::COUNT {
            return false;
        }
        let bits = (u64::MAX >> (registers::COUNT - count)) << first;
        let free = self.taken & bits == 0;
        if free {
            self.taken |= bits;
        }
        free
    }

    fn set_byte(&mut self, offset: u16, value: u8) {
        let shift = 8 * (offset % 4);
        let register = &mut self.layout.reset[usize::from(offset / 4)];
        *register = *register & !(0xff << shift) | u32::from(value) << shift;
    }
}
