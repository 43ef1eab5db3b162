use crate::EfiTime;
use zerocopy::FromBytes;
use zerocopy::Immutable;
use zerocopy::IntoBytes;
use zerocopy::KnownLayout;
use zerocopy::Unaligned;
use zerocopy::little_endian::U64;

/// What the registers [`GET_TIME`](super::Register::GET_TIME) and [`SET_TIME`](super::Register::SET_TIME) take.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct TimeRequest {
    /// Out: [`EfiStatus`](crate::EfiStatus).
    pub status: U64,
    /// The time: out to get it, in to set it.
    pub time: EfiTime,
}
