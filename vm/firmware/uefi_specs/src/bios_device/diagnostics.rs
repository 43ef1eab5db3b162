//! The firmware's log in memory, in the format of the "advanced logger".

use crate::EfiTime;
use zerocopy::FromBytes;
use zerocopy::Immutable;
use zerocopy::IntoBytes;
use zerocopy::KnownLayout;
use zerocopy::Unaligned;
use zerocopy::little_endian::U16;
use zerocopy::little_endian::U32;
use zerocopy::little_endian::U64;

/// The header of the log.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Default,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct LogHeader {
    /// [`LogHeader::SIGNATURE`].
    pub signature: [u8; 4],
    /// Version of the format.
    pub version: U16,
    #[allow(missing_docs)]
    pub reserved1: [u8; 6],
    /// Where the entries start, in bytes from the header.
    pub log_offset: U32,
    #[allow(missing_docs)]
    pub reserved2: U32,
    /// Where the next entry will be, in bytes from the header.
    pub current_offset: U32,
    /// Bytes of entries that found no room.
    pub discarded: U32,
    /// Bytes of the log, including the header.
    pub buffer_size: U32,
    /// Permanent RAM, at runtime, virtual addresses, port initialized, port disabled: the firmware's own state.
    pub flags: [u8; 5],
    #[allow(missing_docs)]
    pub reserved3: [u8; 3],
    /// Hertz of the entries' clock.
    pub timer_frequency: U64,
    /// The entries' clock at `time`.
    pub ticks_at_time: U64,
    /// A time of day.
    pub time: EfiTime,
    /// What the firmware itself prints: a mask of [`DebugLevel`]s.
    pub print_level: U32,
    #[allow(missing_docs)]
    pub reserved4: U32,
}

impl LogHeader {
    /// The first bytes of a log.
    pub const SIGNATURE: [u8; 4] = *b"ALOG";
}

/// The header of an entry. The text starts at `text_offset` and has `text_len` bytes; the next entry starts at the next
/// multiple of 8.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Default,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct LogEntryHeader {
    /// [`LogEntryHeader::SIGNATURE`].
    pub signature: [u8; 4],
    /// Version of the entry's format.
    pub major: u8,
    /// Version of the entry's format.
    pub minor: u8,
    /// A mask of [`DebugLevel`]s.
    pub level: U32,
    /// In units of 100 ns.
    pub timestamp: U64,
    /// [`LogPhase`].
    pub phase: U16,
    /// Bytes of the text.
    pub text_len: U16,
    /// Where the text starts, in bytes from the entry.
    pub text_offset: U16,
}

impl LogEntryHeader {
    /// The first bytes of an entry.
    pub const SIGNATURE: [u8; 4] = *b"ALM2";
}

/// The level of an entry: a mask.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct DebugLevel(pub u32);

#[allow(missing_docs, reason = "the names are those of the firmware")]
impl DebugLevel {
    pub const INIT: Self = Self(0x1);
    pub const WARN: Self = Self(0x2);
    pub const LOAD: Self = Self(0x4);
    pub const FILE_SYSTEM: Self = Self(0x8);
    pub const INFO: Self = Self(0x40);
    pub const DISPATCH: Self = Self(0x80);
    pub const VARIABLE: Self = Self(0x100);
    pub const BOOT_MANAGER: Self = Self(0x400);
    pub const BLOCK_IO: Self = Self(0x1000);
    pub const NET: Self = Self(0x4000);
    pub const UNDI: Self = Self(0x1_0000);
    pub const LOAD_FILE: Self = Self(0x2_0000);
    pub const EVENT: Self = Self(0x8_0000);
    pub const GCD: Self = Self(0x10_0000);
    pub const CACHE: Self = Self(0x20_0000);
    pub const VERBOSE: Self = Self(0x40_0000);
    pub const MANAGEABILITY: Self = Self(0x80_0000);
    pub const ERROR: Self = Self(0x8000_0000);
}

/// The phase of the firmware that wrote an entry.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct LogPhase(pub u16);

impl LogPhase {
    /// The phase's name.
    pub const fn name(self) -> &'static str {
        match self.0 {
            1 => "SEC",
            2 => "PEI core",
            3 => "PEIM",
            4 => "DXE",
            5 => "runtime",
            6 => "MM core",
            7 => "MM",
            8 => "SMM core",
            _ => "unspecified",
        }
    }
}
