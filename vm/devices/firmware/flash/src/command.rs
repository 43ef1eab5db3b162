//! The command set of the chip.

use minicbor::Decode;
use minicbor::Encode;

/// Commands of Intel's basic command set (28F-family data sheets). The chip accepts one byte at a time.
const PROGRAM: u8 = 0x10;
const PROGRAM_ALTERNATE: u8 = 0x40;
const ERASE: u8 = 0x20;
const ERASE_CONFIRM: u8 = 0xd0;
const CLEAR_STATUS: u8 = 0x50;
const READ_STATUS: u8 = 0x70;
const READ_ID: u8 = 0x90;

/// Status bits.
const READY: u8 = 0x80;
const ERASE_ERROR: u8 = 0x20;
const PROGRAM_ERROR: u8 = 0x10;

/// The identifier code: Intel, 28F008SA.
const ID: [u8; 2] = [0x89, 0xa2];

/// The meaning of the next write, and of reads.
///
/// A program or an erase is done at once and returns to array mode, so that the memory need not be unmapped and mapped
/// again for each byte. Software reads the status with a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(index_only)]
pub(crate) enum Mode {
    /// Reads return the content.
    #[default]
    #[n(0)]
    Array,
    /// Reads return the status.
    #[n(1)]
    Status,
    /// Reads return the identifier.
    #[n(2)]
    Id,
    /// Reads return the content. The next write is the byte to program.
    #[n(3)]
    Program,
    /// Reads return the content. The next write confirms the erase.
    #[n(4)]
    Erase,
}

/// The change of the content that a write makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Nothing,
    /// Program this byte at the address.
    Program(u8),
    /// Erase the block that contains the address.
    Erase,
}

/// The chip's command interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct CommandInterface {
    pub(crate) mode: Mode,
    pub(crate) status: u8,
}

impl CommandInterface {
    pub(crate) fn write(&mut self, value: u8) -> Action {
        let (mode, action) = match (self.mode, value) {
            (Mode::Program, _) => {
                self.status |= READY;
                (Mode::Array, Action::Program(value))
            }
            (Mode::Erase, ERASE_CONFIRM) => {
                self.status |= READY;
                (Mode::Array, Action::Erase)
            }
            (Mode::Erase, _) => {
                // Both error bits mean a command sequence error.
                self.status |= READY | ERASE_ERROR | PROGRAM_ERROR;
                (Mode::Array, Action::Nothing)
            }
            (_, PROGRAM | PROGRAM_ALTERNATE) => (Mode::Program, Action::Nothing),
            (_, ERASE) => (Mode::Erase, Action::Nothing),
            (_, CLEAR_STATUS) => {
                // Also clears the ready bit: drivers check for a status of zero to tell flash from RAM and ROM.
                self.status = 0;
                (Mode::Array, Action::Nothing)
            }
            (_, READ_STATUS) => (Mode::Status, Action::Nothing),
            (_, READ_ID) => (Mode::Id, Action::Nothing),
            _ => (Mode::Array, Action::Nothing),
        };
        self.mode = mode;
        action
    }

    /// The value of a read at `offset`, or `None` if that is the content.
    pub(crate) fn read(&self, offset: u64) -> Option<u8> {
        match self.mode {
            Mode::Array | Mode::Program | Mode::Erase => None,
            Mode::Status => Some(self.status),
            Mode::Id => Some(ID.get((offset & 0xff) as usize).copied().unwrap_or(0)),
        }
    }

    /// Whether reads return the content.
    pub(crate) fn reads_content(&self) -> bool {
        self.read(0).is_none()
    }
}
