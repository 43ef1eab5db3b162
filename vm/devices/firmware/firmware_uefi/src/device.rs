use crate::clock::ClockState;
use crate::diagnostics;
use crate::diagnostics::LogLevel;
use crate::event_log;
use crate::guest;
use crate::log_text::MAX_TEXT;
use crate::log_text::ReadLimit;
use crate::log_text::log_debug_text;
use crate::nvram;
use crate::platform::BootOutcome;
use crate::platform::FirmwareControl;
use crate::platform::FirmwareReport;
use crate::platform::FirmwareReportSink;
use crate::platform::Platform;
use crate::random;
use crate::watchdog;
use crate::watchdog::InvalidConfig;
use crate::watchdog::Watchdog;
use crate::watchdog::WatchdogState;
use chipset::rtc::WallClock;
use chipset_device::ChipsetDevice;
use chipset_device::FixedResources;
use chipset_device::IoError;
use chipset_device::MsiMessage;
use chipset_device::MsiTarget;
use chipset_device::RestoreError;
use chipset_device::SaveError;
use chipset_device::SavedState;
use generation_id::GENERATION_ID_LEN;
use generation_id::GenerationId;
use guest_memory::GuestMemory;
use log_limit::LogLimit;
use minicbor::Decode;
use minicbor::Encode;
use serde_json::json;
use std::sync::Arc;
use std::time::Instant;
use uefi_nvram::NvramState;
use uefi_nvram::Phase;
use uefi_nvram::VariableServices;
use uefi_specs::EfiStatus;
use uefi_specs::bios_device::ADDRESS_PORT;
use uefi_specs::bios_device::DATA_PORT;
use uefi_specs::bios_device::Register;
use vm_memory::Bytes as _;
use vm_memory::GuestAddress;
use zerocopy::little_endian::U64;

/// The offset of the status in the structures of the NVRAM and crypto services.
const STATUS_OFFSET: u64 = 4;

/// A non-maskable interrupt of the boot processor.
const NMI: MsiMessage = MsiMessage {
    address: 0xfee0_0000,
    data: 0x400,
};

/// The UEFI device of generation-2 VMs, at ports 0x28 and 0x2C.
///
/// Services are carried out within the access, which waits for the variables' storage. Nothing that the guest gives is
/// trusted: structures are read once, lengths are limited, and what cannot be carried out is answered with a status.
/// Registers that do not exist read all ones, and writes to them are dropped.
pub struct FirmwareUefi {
    memory: GuestMemory,
    wall: WallClock,
    interrupts: Arc<dyn MsiTarget>,
    reports: FirmwareReportSink,
    control: FirmwareControl,
    variables: VariableServices,
    watchdog: Watchdog,
    generation_id: GenerationId,
    log_level: LogLevel,
    registers: Registers,
    clock: ClockState,
    last_boot: Option<BootOutcome>,
    /// Text that the firmware sends on its own.
    debug_text: LogLimit,
    /// Requests that cannot be carried out.
    refusals: LogLimit,
    /// Readings of the firmware's log that the guest causes.
    log_readings: ReadLimit,
    /// What happens once per boot.
    happenings: LogLimit,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct Registers {
    #[n(1)]
    address: u32,
    /// The halves of the address of the generation ID, as far as the guest has set them.
    #[n(2)]
    generation_low: Option<u32>,
    #[n(3)]
    generation_high: Option<u32>,
    /// The address of the firmware's log.
    #[n(4)]
    log_gpa: Option<u32>,
    /// Whether the guest had the log read since the last reset.
    #[n(5)]
    log_was_read: bool,
}

#[derive(Debug, Encode, Decode)]
#[cbor(map)]
struct State {
    #[n(1)]
    registers: Registers,
    #[n(2)]
    variables: NvramState,
    #[n(3)]
    watchdog: WatchdogState,
    #[cbor(n(4), with = "minicbor::bytes")]
    generation_id: Vec<u8>,
    #[n(5)]
    clock: ClockState,
}

impl FirmwareUefi {
    /// A device with `variables`, and the generation ID of a new VM.
    pub fn new(
        platform: Platform,
        variables: VariableServices,
        generation_id: [u8; GENERATION_ID_LEN],
        log_level: LogLevel,
    ) -> Self {
        let Platform {
            memory,
            clock,
            wall,
            generation_event,
            interrupts,
            reports,
            waker,
        } = platform;
        Self {
            watchdog: Watchdog::new(clock, waker.clone()),
            control: FirmwareControl {
                requests: Arc::default(),
                waker,
            },
            variables,
            generation_id: GenerationId::new(generation_id, memory.clone(), generation_event),
            log_level,
            registers: Registers::default(),
            clock: ClockState::default(),
            last_boot: None,
            debug_text: LogLimit::new(),
            refusals: LogLimit::new(),
            log_readings: ReadLimit::default(),
            happenings: LogLimit::new(),
            memory,
            wall,
            interrupts,
            reports,
        }
    }

    /// What the host asks of this device.
    pub fn control(&self) -> FirmwareControl {
        self.control.clone()
    }

    fn read_register(&self) -> Result<u32, IoError> {
        match Register(self.registers.address) {
            Register::WATCHDOG_CONFIG => Ok(self.watchdog.config()),
            Register::WATCHDOG_RESOLUTION => Ok(watchdog::RESOLUTION),
            Register::WATCHDOG_COUNT => Ok(self.watchdog.count()),
            // Firmware would allocate what it reads, and there are no NVDIMMs.
            Register::NFIT_SIZE => Ok(0),
            _ => Err(IoError::InvalidRegister),
        }
    }

    fn write_register(&mut self, value: u32) -> Result<(), IoError> {
        let gpa = u64::from(value);
        let memory = &self.memory;
        match Register(self.registers.address) {
            Register::GENERATION_ID_LOW => {
                self.registers.generation_low = Some(value);
                self.set_generation_address();
            }
            Register::GENERATION_ID_HIGH => {
                self.registers.generation_high = Some(value);
                self.set_generation_address();
            }
            Register::NVRAM_COMMAND => {
                let before = self.variables.phase();
                let done = nvram::command(&mut self.variables, memory, gpa, &self.debug_text);
                self.answer(gpa + STATUS_OFFSET, done);
                if before != self.variables.phase() {
                    self.reports.report(FirmwareReport::RuntimeHandoff);
                }
            }
            Register::CRYPTO_COMMAND => {
                let done = random::command(memory, gpa);
                self.answer(gpa + STATUS_OFFSET, done);
            }
            Register::GET_TIME => {
                let done = self.clock.get(&self.wall, memory, gpa);
                self.answer(gpa, done);
            }
            Register::SET_TIME => {
                let done = self.clock.set(&self.wall, memory, gpa);
                self.answer(gpa, done);
            }
            Register::WATCHDOG_CONFIG => {
                let set = self.watchdog.set_config(value);
                set.map_err(|InvalidConfig| IoError::InvalidValue)?;
            }
            Register::WATCHDOG_COUNT => self.watchdog.set_count(value),
            Register::DIAGNOSTICS_BUFFER => {
                self.registers.log_gpa = (value != 0 && value != u32::MAX).then_some(value);
            }
            Register::PROCESS_DIAGNOSTICS => {
                // Once per boot.
                if !std::mem::replace(&mut self.registers.log_was_read, true) {
                    self.read_log_for_guest(self.log_level);
                }
            }
            Register::EVENT_LOG_FLUSH => self.read_events(gpa),
            Register::DEBUG_OUTPUT => self.log_debug_output(gpa),
            // What they offer or ask for does not exist here.
            Register::PROCESSOR_REPLY_STATUS
            | Register::PROCESSOR_MAT_ENABLE
            | Register::PROCESSOR_STA_ENABLE
            | Register::PROCESSOR_WAIT
            | Register::BOOT_FINALIZE
            | Register::CONFIG_PAGE
            | Register::MEMORY_OVERWRITE_REQUEST
            | Register::NFIT_POPULATE
            | Register::VPMEM_BUFFER => {}
            _ => return Err(IoError::InvalidRegister),
        }
        Ok(())
    }

    /// Writes the status of a request, which is the last that is written.
    fn answer(&self, gpa: u64, done: Result<(), EfiStatus>) {
        let status = done.err().unwrap_or(EfiStatus::SUCCESS);
        if guest::write(&self.memory, gpa, &U64::new(status.0)).is_err()
            && let Some(suppressed) = self.refusals.allow()
        {
            tracing::warn!(
                gpa = format_args!("{gpa:#x}"),
                %status,
                suppressed,
                "the guest asked the UEFI device for a service with an address that is not in RAM"
            );
        }
    }

    fn set_generation_address(&mut self) {
        let (low, high) = (
            self.registers.generation_low,
            self.registers.generation_high,
        );
        if let (Some(low), Some(high)) = (low, high) {
            self.generation_id
                .set_address(u64::from(high) << 32 | u64::from(low));
        }
    }

    fn read_events(&mut self, gpa: u64) {
        match event_log::read(&self.memory, gpa) {
            Ok(None) => {}
            Ok(Some(summary)) => {
                self.last_boot = Some(summary.outcome);
                if let Some(suppressed) = self.happenings.allow() {
                    let attempts = summary.attempts;
                    let was_refused = summary.was_refused;
                    match summary.outcome {
                        BootOutcome::Booted => {
                            tracing::info!(attempts, suppressed, "the UEFI firmware booted");
                        }
                        BootOutcome::NoDevice => tracing::warn!(
                            suppressed,
                            "the UEFI firmware found no device to boot from"
                        ),
                        BootOutcome::Failed(status) => tracing::warn!(
                            attempts,
                            was_refused,
                            last = status.name(),
                            suppressed,
                            "the UEFI firmware could not boot"
                        ),
                    }
                    self.reports.report(FirmwareReport::Boot {
                        outcome: summary.outcome,
                        was_refused,
                    });
                }
            }
            Err(error) => {
                if let Some(suppressed) = self.refusals.allow() {
                    tracing::warn!(
                        ?error,
                        suppressed,
                        "the UEFI firmware's events cannot be read"
                    );
                }
            }
        }
    }

    /// Reads the log, unless that was done a moment ago: a guest cannot fill the host's log.
    fn read_log_for_guest(&mut self, level: LogLevel) {
        if self.log_readings.allow_at(Instant::now()) {
            self.read_log(level);
        }
    }

    fn read_log(&self, level: LogLevel) {
        let Some(gpa) = self.registers.log_gpa else {
            return;
        };
        match diagnostics::read(&self.memory, gpa, level) {
            Ok(lines) => diagnostics::log(&lines),
            Err(error) => {
                if let Some(suppressed) = self.refusals.allow() {
                    tracing::warn!(
                        gpa = format_args!("{gpa:#x}"),
                        ?error,
                        suppressed,
                        "the UEFI firmware's log cannot be read"
                    );
                }
            }
        }
    }

    fn log_debug_output(&self, gpa: u64) {
        let mut text = Vec::new();
        let mut byte = [0];
        let map = self.memory.map();
        while text.len() < MAX_TEXT
            && map
                .read_slice(&mut byte, GuestAddress(gpa + text.len() as u64))
                .is_ok()
            && byte[0] != 0
        {
            text.push(byte[0]);
        }
        log_debug_text(&self.debug_text, &String::from_utf8_lossy(&text));
    }

    fn watchdog_expired(&mut self) {
        if let Some(suppressed) = self.happenings.allow() {
            tracing::error!(
                suppressed,
                "the UEFI firmware's watchdog expired: it, or the boot loader, made no progress"
            );
            self.read_log_for_guest(self.log_level.with_info());
            self.reports.report(FirmwareReport::WatchdogExpired);
        }
        // Makes the guest stop where it can be seen.
        self.interrupts.signal(NMI);
    }

    fn state(&self, state: &SavedState) -> Result<State, RestoreError> {
        let state: State = state.decode()?;
        let invalid = |text: &str| Err(RestoreError::Invalid(text.into()));
        if !state.watchdog.is_valid() {
            return invalid("the state of the UEFI watchdog contradicts itself");
        }
        if !state.clock.is_valid() {
            return invalid("the UEFI clock has a zone that does not exist");
        }
        Ok(state)
    }
}

impl ChipsetDevice for FirmwareUefi {
    fn fixed_resources(&self) -> FixedResources {
        FixedResources::ports([ADDRESS_PORT..=DATA_PORT + 3])
    }

    fn read_port(&mut self, port: u16, data: &mut [u8]) -> Result<(), IoError> {
        let data: &mut [u8; 4] = data.try_into()?;
        let value = match port {
            ADDRESS_PORT => self.registers.address,
            DATA_PORT => self.read_register()?,
            _ => return Err(IoError::InvalidRegister),
        };
        *data = value.to_le_bytes();
        Ok(())
    }

    fn write_port(&mut self, port: u16, data: &[u8]) -> Result<(), IoError> {
        let data: &[u8; 4] = data.try_into()?;
        let value = u32::from_le_bytes(*data);
        match port {
            ADDRESS_PORT => self.registers.address = value,
            DATA_PORT => self.write_register(value)?,
            _ => return Err(IoError::InvalidRegister),
        }
        Ok(())
    }

    fn poll(&mut self) {
        let requests = std::mem::take(&mut *self.control.requests.lock());
        if let Some(id) = requests.generation_id {
            self.generation_id.change(id);
        }
        if requests.read_log {
            self.read_log(LogLevel::Full);
        }
        if self.watchdog.take_expired() {
            self.watchdog_expired();
        }
    }

    /// Stores the variables that a new VM starts with, or that were restored.
    fn start(&mut self) {
        self.variables.synchronize();
    }

    fn stop(&mut self) {
        self.variables.synchronize();
    }

    /// The variables stay, and so does whether the watchdog has expired.
    fn reset(&mut self) {
        self.registers = Registers::default();
        self.watchdog.reset();
        self.generation_id.reset();
        self.variables.reset();
    }

    fn save(&mut self) -> Result<SavedState, SaveError> {
        Ok(SavedState::encode(&State {
            registers: self.registers.clone(),
            variables: self.variables.save(),
            watchdog: self.watchdog.state().clone(),
            generation_id: self.generation_id.save()?.as_bytes().to_vec(),
            clock: self.clock.clone(),
        }))
    }

    /// The restored variables replace those of the storage when the device starts.
    fn restore(&mut self, state: &SavedState) -> Result<(), RestoreError> {
        let state = self.state(state)?;
        let generation_id = self.generation_id.save();
        let generation_id = generation_id.map_err(|e| RestoreError::Invalid(e.to_string()))?;
        self.generation_id
            .restore(&SavedState::from_bytes(state.generation_id))?;
        if let Err(error) = self.variables.restore(&state.variables) {
            // Its own state is restored.
            self.generation_id.restore(&generation_id)?;
            return Err(RestoreError::Invalid(format!(
                "the UEFI variables cannot be restored: {error}"
            )));
        }
        self.registers = state.registers;
        self.watchdog.set_state(state.watchdog);
        self.clock = state.clock;
        Ok(())
    }

    fn inspect(&self) -> serde_json::Value {
        let variables = self.variables.variables();
        let hex = |gpa: Option<u32>| gpa.map(|gpa| format!("{gpa:#x}"));
        json!({
            "address": format!("{:#x}", self.registers.address),
            "variables": {
                "place": self.variables.place(),
                "count": variables.len(),
                "bytes": variables.encoded_len(),
                "at_runtime": self.variables.phase() == Phase::Runtime,
                "synchronized": self.variables.is_synchronized(),
                "failures": self.variables.storage_failures(),
            },
            "watchdog": {
                "config": format!("{:#x}", self.watchdog.config()),
                "seconds_left": self.watchdog.seconds_left(),
            },
            "generation_id": self.generation_id.inspect(),
            "log": {
                "gpa": hex(self.registers.log_gpa),
                "was_read": self.registers.log_was_read,
            },
            "last_boot": self.last_boot.map(|outcome| match outcome {
                BootOutcome::Booted => "booted",
                BootOutcome::NoDevice => "no device",
                BootOutcome::Failed(status) => status.name(),
            }),
        })
    }
}

#[cfg(test)]
#[path = "device_test.rs"]
mod tests;
