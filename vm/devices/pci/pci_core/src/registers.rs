//! The registers of a type 0 header, and their bits.

/// The number of 32-bit registers of a conventional function.
pub(crate) const COUNT: usize = 64;

/// Numbers of 32-bit registers: their offsets divided by 4.
pub(crate) const IDS: usize = 0;
pub(crate) const COMMAND: usize = 1;
pub(crate) const CLASS: usize = 2;
pub(crate) const HEADER: usize = 3;
pub(crate) const BAR0: usize = 4;
pub(crate) const SUBSYSTEM: usize = 11;
pub(crate) const CAPABILITIES: usize = 13;
pub(crate) const INTERRUPT: usize = 15;

/// The end of the header, after which device-specific registers start.
pub(crate) const HEADER_LENGTH: u16 = 0x40;

/// Bits of the command register, the low half of its 32 bits.
pub(crate) const IO_ENABLE: u32 = 1 << 0;
pub(crate) const MEMORY_ENABLE: u32 = 1 << 1;
pub(crate) const BUS_MASTER: u32 = 1 << 2;
const PARITY_RESPONSE: u32 = 1 << 6;
const SYSTEM_ERROR: u32 = 1 << 8;
pub(crate) const INTX_DISABLE: u32 = 1 << 10;
pub(crate) const COMMAND_WRITABLE: u32 =
    IO_ENABLE | MEMORY_ENABLE | BUS_MASTER | PARITY_RESPONSE | SYSTEM_ERROR | INTX_DISABLE;

/// Bits of the status register, the high half.
pub(crate) const INTX_STATUS: u32 = 1 << 19;
pub(crate) const CAPABILITY_LIST: u32 = 1 << 20;

/// Cache line size and latency timer, which are stored and have no effect.
pub(crate) const HEADER_WRITABLE: u32 = 0x0000_ffff;
pub(crate) const MULTIFUNCTION: u32 = 1 << 23;

/// The interrupt line, which is stored and has no effect. Software stores there how it routed the interrupt.
pub(crate) const INTERRUPT_WRITABLE: u32 = 0x0000_00ff;
/// Interrupt pin A.
pub(crate) const INTERRUPT_PIN_A: u32 = 1 << 8;
