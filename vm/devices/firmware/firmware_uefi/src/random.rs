//! The crypto service. Firmware asks it for random numbers, if the processor has none.

use crate::guest;
use guest_memory::GuestMemory;
use uefi_specs::EfiStatus;
use uefi_specs::bios_device::CryptoCommand;
use uefi_specs::bios_device::RandomRequest;

/// Carries out the command of the structure at `gpa`, and returns its status.
pub(crate) fn command(memory: &GuestMemory, gpa: u64) -> Result<(), EfiStatus> {
    let request: RandomRequest = guest::read(memory, gpa)?;
    if CryptoCommand(request.command.get()) != CryptoCommand::RANDOM {
        // As the reference answers.
        return Err(EfiStatus::DEVICE_ERROR);
    }
    let mut bytes = [0; RandomRequest::MAX_LEN];
    let bytes = usize::try_from(request.len.get())
        .ok()
        .and_then(|len| bytes.get_mut(..len))
        .ok_or(EfiStatus::INVALID_PARAMETER)?;
    if let Err(error) = getrandom::fill(bytes) {
        tracing::error!(%error, "the host has no random numbers for the UEFI firmware");
        return Err(EfiStatus::DEVICE_ERROR);
    }
    Ok(guest::write(memory, request.buffer.get(), &*bytes)?)
}
