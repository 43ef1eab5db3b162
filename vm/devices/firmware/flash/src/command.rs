//! The command set: what a byte written to the chip does.

use minicbor::Decode;
use minicbor::Encode;

/// Commands, as in Intel's basic command set (28F-family data sheets). The chip takes one byte at a time.
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

/// What the chip does next, and what reads give.
///
/// A program or an erase is done at once, and leaves the chip in array mode: the memory then need not be
/// hidden from the guest and shown again for each byte. Software that wants the status asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(index_only)]
pub(crate) enum Mode {
    /// Reads give the content.
    #[default]
    #[n(0)]
    Array,
    /// Reads give the status.
    #[n(1)]
    Status,
    /// Reads give the identifier.
    #[n(2)]
    Id,
    /// Reads give the content; the next write is the byte to program.
    #[n(3)]
    Program,
    /// Reads give the content; the next write confirms an erase.
    #[n(4)]
    Erase,
}

/// What a write asks of the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Nothing,
    /// Store this byte at the address.
    Program(u8),
    /// Erase the block with the address.
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
                // A command sequence error is both.
                self.status |= READY | ERASE_ERROR | PROGRAM_ERROR;
                (Mode::Array, Action::Nothing)
            }
            (_, PROGRAM | PROGRAM_ALTERNATE) => (Mode::Program, Action::Nothing),
            (_, ERASE) => (Mode::Erase, Action::Nothing),
            (_, CLEAR_STATUS) => {
                // Nothing is pending, and yet "ready" goes too: drivers look for a status of zero to tell flash
                // from RAM and ROM.
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

    /// What a read at `offset` gives, unless that is the content.
    pub(crate) fn read(&self, offset: u64) -> Option<u8> {
        match self.mode {
            Mode::Array | Mode::Program | Mode::Erase => None,
            Mode::Status => Some(self.status),
            Mode::Id => Some(ID.get((offset & 0xff) as usize).copied().unwrap_or(0)),
        }
    }

    /// Whether reads give the content.
    pub(crate) fn reads_content(&self) -> bool {
        self.read(0).is_none()
    }
}
