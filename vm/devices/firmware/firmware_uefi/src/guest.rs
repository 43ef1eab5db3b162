//! Structures in guest memory.

use guest_memory::GuestMemory;
use uefi_specs::EfiStatus;
use vm_memory::Bytes as _;
use vm_memory::GuestAddress;
use zerocopy::FromBytes;
use zerocopy::Immutable;
use zerocopy::IntoBytes;

/// An address that the guest gave is not in its RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotRam;

impl From<NotRam> for EfiStatus {
    fn from(_: NotRam) -> Self {
        Self::INVALID_PARAMETER
    }
}

/// The structure at `gpa`.
pub(crate) fn read<T: FromBytes + IntoBytes>(memory: &GuestMemory, gpa: u64) -> Result<T, NotRam> {
    let mut value = T::new_zeroed();
    let read = memory
        .map()
        .read_slice(value.as_mut_bytes(), GuestAddress(gpa));
    read.map(|()| value).map_err(|_| NotRam)
}

/// `len` bytes at `gpa`. The caller limits the length.
pub(crate) fn read_bytes(memory: &GuestMemory, gpa: u64, len: usize) -> Result<Vec<u8>, NotRam> {
    let mut bytes = vec![0; len];
    let read = memory.map().read_slice(&mut bytes, GuestAddress(gpa));
    read.map(|()| bytes).map_err(|_| NotRam)
}

/// Writes a structure to `gpa`.
pub(crate) fn write<T: IntoBytes + Immutable + ?Sized>(
    memory: &GuestMemory,
    gpa: u64,
    value: &T,
) -> Result<(), NotRam> {
    let written = memory
        .map()
        .write_slice(value.as_bytes(), GuestAddress(gpa));
    written.map_err(|_| NotRam)
}
