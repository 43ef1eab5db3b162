//! The variable services.

use zerocopy::FromBytes;
use zerocopy::Immutable;
use zerocopy::IntoBytes;
use zerocopy::KnownLayout;
use zerocopy::Unaligned;
use zerocopy::little_endian::U32;
use zerocopy::little_endian::U64;

/// The longest name that firmware sends, in bytes including the NUL.
pub const MAX_VARIABLE_NAME_LEN: usize = 2048;
/// The most bytes of data that firmware sends, with the header of an authenticated variable.
pub const MAX_VARIABLE_DATA_LEN: usize = 32 << 10;

/// The commands of the register [`NVRAM_COMMAND`](super::Register::NVRAM_COMMAND), and the structure that each takes.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct NvramCommand(pub u32);

impl NvramCommand {
    /// GetVariable: [`NvramVariable`].
    pub const GET_VARIABLE: Self = Self(0);
    /// SetVariable: [`NvramVariable`].
    pub const SET_VARIABLE: Self = Self(1);
    /// The first variable: [`NvramVariable`].
    pub const GET_FIRST_VARIABLE_NAME: Self = Self(2);
    /// The variable after another: [`NvramVariable`].
    pub const GET_NEXT_VARIABLE_NAME: Self = Self(3);
    /// QueryVariableInfo: [`NvramQueryInfo`].
    pub const QUERY_INFO: Self = Self(4);
    /// ExitBootServices was called: [`NvramSignalRuntime`].
    pub const SIGNAL_RUNTIME: Self = Self(5);
    /// Text for the log, UTF-16: the name's fields of [`NvramVariable`], of which nothing after them need be there.
    pub const DEBUG_STRING: Self = Self(6);
}

/// What all structures start with.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct NvramHeader {
    /// [`NvramCommand`].
    pub command: U32,
    /// Out: [`EfiStatus`](crate::EfiStatus).
    pub status: U64,
}

/// A variable.
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
pub struct NvramVariable {
    /// [`NvramCommand`].
    pub command: U32,
    /// Out: [`EfiStatus`](crate::EfiStatus).
    pub status: U64,
    /// In to set, out to get.
    pub attributes: U32,
    /// The address of the name: UCS-2 with a NUL.
    pub name: U64,
    /// Bytes of the name with its NUL; to get the next name, in: bytes of the buffer.
    pub name_len: U32,
    /// The vendor, in EFI's byte order.
    pub vendor: [u8; 16],
    /// The address of the data.
    pub data: U64,
    /// Bytes of the data; to get, in: bytes of the buffer.
    pub data_len: U32,
}

/// How much room there is.
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
pub struct NvramQueryInfo {
    /// [`NvramCommand`].
    pub command: U32,
    /// Out: [`EfiStatus`](crate::EfiStatus).
    pub status: U64,
    /// The kind of variables that is asked for.
    pub attributes: U32,
    /// Out: bytes of the store.
    pub maximum_storage: U64,
    /// Out: free bytes of the store.
    pub remaining_storage: U64,
    /// Out: the most bytes of one variable.
    pub maximum_variable: U64,
}

/// ExitBootServices was called.
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
pub struct NvramSignalRuntime {
    /// [`NvramCommand`].
    pub command: U32,
    /// Out: [`EfiStatus`](crate::EfiStatus).
    pub status: U64,
    /// Bit 0: the operating system knows of virtual secure mode.
    pub flags: U64,
}
