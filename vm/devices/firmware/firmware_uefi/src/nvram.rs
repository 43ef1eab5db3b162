//! The variable services over descriptors in guest memory.

use crate::guest;
use crate::log_text::log_debug_text;
use guest_memory::GuestMemory;
use log_limit::LogLimit;
use uefi_nvram::VariableServices;
use uefi_nvram_storage::Name;
use uefi_nvram_storage::VariableKey;
use uefi_specs::EfiStatus;
use uefi_specs::bios_device::MAX_VARIABLE_DATA_LEN;
use uefi_specs::bios_device::MAX_VARIABLE_NAME_LEN;
use uefi_specs::bios_device::NvramCommand;
use uefi_specs::bios_device::NvramHeader;
use uefi_specs::bios_device::NvramQueryInfo;
use uefi_specs::bios_device::NvramVariable;
use uuid::Uuid;
use zerocopy::IntoBytes as _;

/// The most bytes that SetVariable takes: the largest variable, and a signature.
const MAX_SET_LEN: usize = MAX_VARIABLE_DATA_LEN + (16 << 10);

/// Bytes of the part that all structures have, which the guest does not read back except for the status.
const HEADER_LEN: usize = size_of::<NvramHeader>();

/// Carries out the command of the structure at `gpa`, and returns its status.
pub(crate) fn command(
    services: &mut VariableServices,
    memory: &GuestMemory,
    gpa: u64,
    debug_text: &LogLimit,
) -> Result<(), EfiStatus> {
    let header: NvramHeader = guest::read(memory, gpa)?;
    let variable = || -> Result<NvramVariable, EfiStatus> { Ok(guest::read(memory, gpa)?) };
    match NvramCommand(header.command.get()) {
        NvramCommand::GET_VARIABLE => get(services, memory, gpa, variable()?),
        NvramCommand::SET_VARIABLE => set(services, memory, &variable()?),
        NvramCommand::GET_FIRST_VARIABLE_NAME => next(services, memory, gpa, variable()?, None),
        NvramCommand::GET_NEXT_VARIABLE_NAME => {
            let variable = variable()?;
            let previous = key(memory, &variable)?;
            next(services, memory, gpa, variable, Some(&previous))
        }
        NvramCommand::QUERY_INFO => query_info(services, memory, gpa),
        NvramCommand::SIGNAL_RUNTIME => {
            // Whether the caller knows of virtual secure mode does not matter: there is none.
            services.exit_boot_services();
            Ok(())
        }
        NvramCommand::DEBUG_STRING => {
            let variable = variable()?;
            let text = read_name(memory, &variable)?;
            log_debug_text(debug_text, &utf16(&text));
            Ok(())
        }
        _ => Err(EfiStatus::UNSUPPORTED),
    }
}

/// The bytes of the name, or of the buffer for it.
fn read_name(memory: &GuestMemory, variable: &NvramVariable) -> Result<Vec<u8>, EfiStatus> {
    let len = variable.name_len.get() as usize;
    if variable.name.get() == 0 || len > MAX_VARIABLE_NAME_LEN {
        return Err(EfiStatus::INVALID_PARAMETER);
    }
    // Half a unit is none.
    Ok(guest::read_bytes(memory, variable.name.get(), len & !1)?)
}

/// Which variable.
fn key(memory: &GuestMemory, variable: &NvramVariable) -> Result<VariableKey, EfiStatus> {
    let name = Name::from_bytes(&read_name(memory, variable)?);
    let name = name.filter(|name| !name.is(""));
    Ok(VariableKey {
        vendor: Uuid::from_bytes_le(variable.vendor),
        name: name.ok_or(EfiStatus::INVALID_PARAMETER)?,
    })
}

/// Writes the outputs of a structure, without its status.
fn answer(memory: &GuestMemory, gpa: u64, variable: &NvramVariable) -> Result<(), EfiStatus> {
    let outputs = &variable.as_bytes()[HEADER_LEN..];
    Ok(guest::write(memory, gpa + HEADER_LEN as u64, outputs)?)
}

fn get(
    services: &VariableServices,
    memory: &GuestMemory,
    gpa: u64,
    mut request: NvramVariable,
) -> Result<(), EfiStatus> {
    let found = services.get(&key(memory, &request)?)?;
    let room = request.data_len.get() as usize;
    if request.data.get() == 0 && room > 0 {
        return Err(EfiStatus::INVALID_PARAMETER);
    }
    request.attributes = found.attributes.into();
    // A variable has at most 32 KiB.
    request.data_len = (found.data.len() as u32).into();
    answer(memory, gpa, &request)?;
    if room < found.data.len() {
        return Err(EfiStatus::BUFFER_TOO_SMALL);
    }
    Ok(guest::write(
        memory,
        request.data.get(),
        found.data.as_slice(),
    )?)
}

fn set(
    services: &mut VariableServices,
    memory: &GuestMemory,
    request: &NvramVariable,
) -> Result<(), EfiStatus> {
    let key = key(memory, request)?;
    let len = request.data_len.get() as usize;
    if len > MAX_SET_LEN || (len > 0 && request.data.get() == 0) {
        return Err(EfiStatus::INVALID_PARAMETER);
    }
    let data = match len {
        // Deletes the variable; there need be no address.
        0 => Vec::new(),
        len => guest::read_bytes(memory, request.data.get(), len)?,
    };
    services.set(&key, request.attributes.get(), &data)
}

fn next(
    services: &VariableServices,
    memory: &GuestMemory,
    gpa: u64,
    mut request: NvramVariable,
    previous: Option<&VariableKey>,
) -> Result<(), EfiStatus> {
    let key = services.next(previous)?;
    let room = request.name_len.get() as usize;
    let name = key.name.as_bytes();
    // A name has at most 2 KiB.
    request.name_len = (name.len() as u32).into();
    if room < name.len() {
        answer(memory, gpa, &request)?;
        return Err(EfiStatus::BUFFER_TOO_SMALL);
    }
    if request.name.get() == 0 {
        return Err(EfiStatus::INVALID_PARAMETER);
    }
    request.vendor = key.vendor.to_bytes_le();
    answer(memory, gpa, &request)?;
    Ok(guest::write(memory, request.name.get(), name)?)
}

fn query_info(
    services: &VariableServices,
    memory: &GuestMemory,
    gpa: u64,
) -> Result<(), EfiStatus> {
    let mut request: NvramQueryInfo = guest::read(memory, gpa)?;
    let info = services.query_info(request.attributes.get())?;
    request.maximum_storage = info.maximum.into();
    request.remaining_storage = info.remaining.into();
    request.maximum_variable = info.maximum_variable.into();
    let outputs = &request.as_bytes()[HEADER_LEN..];
    Ok(guest::write(memory, gpa + HEADER_LEN as u64, outputs)?)
}

/// UTF-16 up to the first NUL.
fn utf16(bytes: &[u8]) -> String {
    let units = bytes
        .chunks_exact(2)
        .map(|unit| u16::from_le_bytes([unit[0], unit[1]]))
        .take_while(|unit| *unit != 0);
    char::decode_utf16(units)
        .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect()
}
