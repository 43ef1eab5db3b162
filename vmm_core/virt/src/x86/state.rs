//! Saved state of a partition and its VPs.

/// A VP's whole state.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct VpState {
    /// General, control and segment registers.
    #[n(0)]
    pub registers: crate::x86::Registers,
}

/// Partition-wide state.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct PartitionState {
    /// The guest's paravirtual clock, in nanoseconds.
    #[n(0)]
    pub clock_ns: u64,
}
