use crate::bar::Bar;
use crate::function::Layout;
use crate::function::PciFunction;
use crate::ids::HardwareIds;
use crate::msix::MsixLayout;
use crate::msix::MsixTable;
use crate::registers;
use chipset_device::AddressDecoder;
use chipset_device::LineInterrupt;
use chipset_device::MsiTarget;

/// Lays out the configuration space of a [`PciFunction`].
#[derive(Debug)]
pub struct FunctionBuilder {
    layout: Layout,
    /// A bit for each byte of the configuration space that is in use.
    taken: [u32; 8],
    /// Where the offset of the next capability is to be written.
    link: u16,
    line: Option<LineInterrupt>,
    msix: Option<MsixTable>,
}

/// Why a function cannot be laid out as its device wants it. A mistake of the device's author, or (the last
/// one) a host without resources.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// BARs are 0 to 5, and one that takes two registers is 0 to 4.
    #[error("there is no BAR {0} of that kind")]
    NoSuchBar(usize),
    /// Another BAR has the register.
    #[error("BAR {0} is taken")]
    BarTaken(usize),
    /// BARs have power-of-two sizes, of at least 16 bytes or 4 ports.
    #[error("BAR {index} cannot have a size of {size:#x}")]
    BarSize {
        /// Which BAR.
        index: usize,
        /// Its size in bytes or ports.
        size: u64,
    },
    /// Something else is in this place, or it is outside of 0x40 to 0xFF, or not aligned.
    #[error("there is no room for a register at {0:#x}")]
    NoRoomForRegister(u16),
    /// The capability does not fit behind the others.
    #[error("there is no room for a capability {id:#04x} of {len} bytes")]
    NoRoomForCapability {
        /// The capability's id.
        id: u8,
        /// Its length in bytes, header included.
        len: usize,
    },
    /// The table and the pending bits must lie apart in a memory BAR, each 8-byte aligned, with 1 to 2048
    /// vectors.
    #[error("impossible layout of MSI-X: {0:?}")]
    MsixLayout(MsixLayout),
    /// The function has MSI-X already.
    #[error("MSI-X is there twice")]
    MsixTwice,
    /// The host has no more interrupt routes or file descriptors.
    #[error("creating MSI-X vector {vector} failed")]
    MsixVector {
        /// Which vector.
        vector: u16,
        /// What the host says.
        #[source]
        source: std::io::Error,
    },
}

impl FunctionBuilder {
    /// A function that is called so, without BARs, capabilities and interrupts.
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
        let mut taken = [0; 8];
        taken[..2].fill(u32::MAX);
        Self {
            layout,
            taken,
            link: registers::CAPABILITIES as u16 * 4,
            line: None,
            msix: None,
        }
    }

    /// Says in the header that the device has further functions. Guests look for functions 1 to 7 only if
    /// function 0 says so.
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

    /// Gives the function address space of its own.
    pub fn bar(&mut self, index: usize, bar: Bar) -> Result<&mut Self, LayoutError> {
        let last = index.saturating_add(bar.registers() - 1);
        if last > 5 {
            return Err(LayoutError::NoSuchBar(index));
        }
        if !bar.has_valid_size() {
            let size = bar.size();
            return Err(LayoutError::BarSize { index, size });
        }
        let overlaps = |other: usize| {
            let taken = self.layout.bars[other];
            taken.is_some_and(|bar| other <= last && index < other + bar.registers())
        };
        if (0..6).any(overlaps) {
            return Err(LayoutError::BarTaken(index));
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

    /// A 32-bit register of the device's own at `offset` (a multiple of 4, 0x40 or more), with its value at
    /// reset and the bits that remember what guests write to them.
    pub fn register(
        &mut self,
        offset: u16,
        reset: u32,
        writable: u32,
    ) -> Result<&mut Self, LayoutError> {
        if !offset.is_multiple_of(4) || !self.take(offset, 4) {
            return Err(LayoutError::NoRoomForRegister(offset));
        }
        let register = usize::from(offset / 4);
        self.layout.reset[register] = reset;
        self.layout.writable[register] = writable;
        Ok(self)
    }

    /// Appends a capability. `body` is what follows its id and link, and `writable` the bits of it that
    /// remember what guests write to them; missing bytes have none. Returns the
    /// capability's offset.
    pub fn capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> Result<u16, LayoutError> {
        let len = body.len().saturating_add(2);
        let place = (registers::HEADER_LENGTH..=0xfc)
            .step_by(4)
            .find(|offset| self.take(*offset, len));
        let Some(offset) = place else {
            return Err(LayoutError::NoRoomForCapability { id, len });
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

    /// Gives the function interrupt pin A, which drives `line`.
    pub fn intx(&mut self, line: LineInterrupt) -> &mut Self {
        self.layout.reset[registers::INTERRUPT] |= registers::INTERRUPT_PIN_A;
        self.line = Some(line);
        self
    }

    /// Gives the function MSI-X. Its BAR must be there already.
    pub fn msix(
        &mut self,
        layout: MsixLayout,
        target: &dyn MsiTarget,
    ) -> Result<&mut Self, LayoutError> {
        if self.msix.is_some() {
            return Err(LayoutError::MsixTwice);
        }
        let room = match self.layout.bars.get(layout.bar) {
            Some(Some(bar @ (Bar::Memory32 { .. } | Bar::Memory64 { .. }))) => bar.size(),
            _ => 0,
        };
        if !layout.fits(room) {
            return Err(LayoutError::MsixLayout(layout));
        }
        self.msix = Some(MsixTable::new(layout, target)?);
        let (body, writable) = layout.capability();
        let offset = self.capability(MsixLayout::CAPABILITY_ID, &body, &writable)?;
        self.layout.msix_register = usize::from(offset / 4);
        Ok(self)
    }

    /// Builds the function, as it is after a reset. It tells `decoder` which addresses its BARs decode.
    pub fn build(self, decoder: AddressDecoder) -> PciFunction {
        PciFunction::new(self.layout, self.line, self.msix, decoder)
    }

    /// Marks bytes as taken, unless one of them is.
    fn take(&mut self, offset: u16, len: usize) -> bool {
        let range = usize::from(offset)..usize::from(offset).saturating_add(len);
        let free = |at: usize| {
            let word = self.taken.get(at / 32);
            word.is_some_and(|word| word & 1 << (at % 32) == 0)
        };
        // A capability has its registers for itself.
        let range = range.start..range.end.next_multiple_of(4);
        if !range.clone().all(free) {
            return false;
        }
        range.for_each(|at| self.taken[at / 32] |= 1 << (at % 32));
        true
    }

    fn set_byte(&mut self, offset: u16, value: u8) {
        let shift = 8 * (offset % 4);
        let register = &mut self.layout.reset[usize::from(offset / 4)];
        *register = *register & !(0xff << shift) | u32::from(value) << shift;
    }
}
