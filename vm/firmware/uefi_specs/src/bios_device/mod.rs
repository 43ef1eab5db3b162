//! The device through which Hyper-V's UEFI firmware asks its host for services ("BIOS device").
//!
//! The guest writes the number of a [register](Register) to the address port, then reads or writes the data port, with
//! accesses of 32 bits. Most registers take the guest-physical address of a structure; when the write has completed,
//! the host has answered in that structure.

mod clock;
mod crypto;
mod diagnostics;
mod event_log;
mod nvram;
mod watchdog;

pub use clock::TimeRequest;
pub use crypto::CryptoCommand;
pub use crypto::RandomRequest;
pub use diagnostics::DebugLevel;
pub use diagnostics::LogEntryHeader;
pub use diagnostics::LogHeader;
pub use diagnostics::LogPhase;
pub use event_log::BOOT_EVENT_CHANNEL;
pub use event_log::BootDeviceEvent;
pub use event_log::BootDeviceStatus;
pub use event_log::EventChannelHeader;
pub use event_log::EventHeader;
pub use nvram::MAX_VARIABLE_DATA_LEN;
pub use nvram::MAX_VARIABLE_NAME_LEN;
pub use nvram::NvramCommand;
pub use nvram::NvramHeader;
pub use nvram::NvramQueryInfo;
pub use nvram::NvramSignalRuntime;
pub use nvram::NvramVariable;
pub use watchdog::WatchdogConfig;

/// The port of the address register on x86_64. It is 32 bits wide.
pub const ADDRESS_PORT: u16 = 0x28;
/// The port of the data register on x86_64. It is 32 bits wide.
pub const DATA_PORT: u16 = 0x2c;

/// The numbers of the registers.
#[allow(missing_docs, reason = "the module documents the structures they take")]
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct Register(pub u32);

impl Register {
    /// W: the low half of the address of the generation ID.
    pub const GENERATION_ID_LOW: Self = Self(0x0e);
    /// W: the high half of the address of the generation ID.
    pub const GENERATION_ID_HIGH: Self = Self(0x0f);
    /// W: processors can be added: the reply to a request.
    pub const PROCESSOR_REPLY_STATUS: Self = Self(0x13);
    /// W: as above, the MAT enable bit.
    pub const PROCESSOR_MAT_ENABLE: Self = Self(0x14);
    /// W: as above, the status enable bit.
    pub const PROCESSOR_STA_ENABLE: Self = Self(0x15);
    /// W: as above, the wait for a status.
    pub const PROCESSOR_WAIT: Self = Self(0x16);
    /// W: the boot processor's MTRRs are set, and are to be copied to all processors.
    pub const BOOT_FINALIZE: Self = Self(0x1a);
    /// W: the address of a structure that starts with [`NvramHeader`].
    pub const NVRAM_COMMAND: Self = Self(0x24);
    /// W: not used by current firmware.
    pub const CONFIG_PAGE: Self = Self(0x25);
    /// W: the address of a structure that starts with a [`CryptoCommand`].
    pub const CRYPTO_COMMAND: Self = Self(0x26);
    /// RW: [`WatchdogConfig`].
    pub const WATCHDOG_CONFIG: Self = Self(0x27);
    /// R: seconds per tick of the watchdog.
    pub const WATCHDOG_RESOLUTION: Self = Self(0x28);
    /// RW: the watchdog's ticks.
    pub const WATCHDOG_COUNT: Self = Self(0x29);
    /// W: the address of the firmware's log, which starts with [`LogHeader`]; 0 or all ones if there is none.
    pub const DIAGNOSTICS_BUFFER: Self = Self(0x2b);
    /// W: any value: the firmware's log is to be read now.
    pub const PROCESS_DIAGNOSTICS: Self = Self(0x2c);
    /// W: the address of an event channel, which starts with [`EventChannelHeader`].
    pub const EVENT_LOG_FLUSH: Self = Self(0x30);
    /// W: the memory-overwrite request, from ACPI code.
    pub const MEMORY_OVERWRITE_REQUEST: Self = Self(0x31);
    /// W: the address of a [`TimeRequest`] that is filled in.
    pub const GET_TIME: Self = Self(0x34);
    /// W: the address of a [`TimeRequest`] with the new time.
    pub const SET_TIME: Self = Self(0x35);
    /// W: the address of text that ends with a NUL.
    pub const DEBUG_OUTPUT: Self = Self(0x36);
    /// R: bytes of the ACPI table of NVDIMMs; 0 if there are none.
    pub const NFIT_SIZE: Self = Self(0x37);
    /// W: the address to which the ACPI table of NVDIMMs is copied.
    pub const NFIT_POPULATE: Self = Self(0x38);
    /// W: the address of the buffer of NVDIMMs' ACPI methods.
    pub const VPMEM_BUFFER: Self = Self(0x39);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EfiTime;
    use crate::variable::AuthenticationHeader;
    use core::mem::offset_of;

    #[test]
    fn structures_have_the_documented_layout() {
        assert_eq!(size_of::<NvramHeader>(), 12);
        assert_eq!(size_of::<NvramVariable>(), 56);
        assert_eq!(offset_of!(NvramVariable, attributes), 12);
        assert_eq!(offset_of!(NvramVariable, name), 16);
        assert_eq!(offset_of!(NvramVariable, name_len), 24);
        assert_eq!(offset_of!(NvramVariable, vendor), 28);
        assert_eq!(offset_of!(NvramVariable, data), 44);
        assert_eq!(offset_of!(NvramVariable, data_len), 52);
        assert_eq!(size_of::<NvramQueryInfo>(), 40);
        assert_eq!(offset_of!(NvramQueryInfo, maximum_storage), 16);
        assert_eq!(size_of::<NvramSignalRuntime>(), 20);
        assert_eq!(size_of::<RandomRequest>(), 24);
        assert_eq!(size_of::<TimeRequest>(), 24);
        assert_eq!(size_of::<EfiTime>(), 16);
        assert_eq!(size_of::<EventChannelHeader>(), 28);
        assert_eq!(EventHeader::SIZE, 64);
        assert_eq!(offset_of!(EventHeader, id), 48);
        assert_eq!(size_of::<BootDeviceEvent>(), 24);
        assert_eq!(offset_of!(BootDeviceEvent, boot_variable), 16);
        assert_eq!(size_of::<LogHeader>(), 80);
        assert_eq!(offset_of!(LogHeader, log_offset), 12);
        assert_eq!(offset_of!(LogHeader, current_offset), 20);
        assert_eq!(offset_of!(LogHeader, buffer_size), 28);
        assert_eq!(offset_of!(LogHeader, timer_frequency), 40);
        assert_eq!(offset_of!(LogHeader, print_level), 72);
        assert_eq!(size_of::<LogEntryHeader>(), 24);
        assert_eq!(offset_of!(LogEntryHeader, level), 6);
        assert_eq!(offset_of!(LogEntryHeader, timestamp), 10);
        assert_eq!(offset_of!(LogEntryHeader, text_len), 20);
        assert_eq!(size_of::<AuthenticationHeader>(), 40);
        assert_eq!(AuthenticationHeader::CERTIFICATE_HEADER_LEN, 24);
    }
}
