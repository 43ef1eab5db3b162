use super::*;
use chipset_device::DeviceWaker;
use chipset_device::LineInterrupt;
use chipset_device::LineTarget;
use chipset_device::MsiVector;
use guest_memory::MIN_RAM;
use guest_memory::MemoryLayout;
use parking_lot::Mutex;
use std::time::Duration;
use uefi_nvram::MemoryNvram;
use uefi_nvram::SecureBoot;
use uefi_nvram_storage::Name;
use uefi_specs::EfiTime;
use uefi_specs::bios_device::BootDeviceEvent;
use uefi_specs::bios_device::BootDeviceStatus;
use uefi_specs::bios_device::EventChannelHeader;
use uefi_specs::bios_device::EventHeader;
use uefi_specs::bios_device::LogEntryHeader;
use uefi_specs::bios_device::LogHeader;
use uefi_specs::bios_device::NvramCommand;
use uefi_specs::bios_device::NvramQueryInfo;
use uefi_specs::bios_device::NvramVariable;
use uefi_specs::bios_device::RandomRequest;
use uefi_specs::bios_device::TimeRequest;
use uefi_specs::bios_device::WatchdogConfig;
use vmtime::ManualTime;
use vmtime::VmClock;
use zerocopy::FromBytes;
use zerocopy::Immutable;
use zerocopy::IntoBytes;

const REQUEST: u32 = 0x1000;
const NAME: u32 = 0x2000;
const DATA: u32 = 0x3000;
const ID: [u8; 16] = [1; 16];
const BOOT: u32 = 3;

/// What the device signalled.
#[derive(Default)]
struct Signals {
    lines: Mutex<Vec<bool>>,
    messages: Mutex<Vec<MsiMessage>>,
    reports: Mutex<Vec<FirmwareReport>>,
}

impl LineTarget for Signals {
    fn set_line(&self, _gsi: u32, high: bool) {
        self.lines.lock().push(high);
    }
}

impl MsiTarget for Signals {
    fn signal(&self, message: MsiMessage) {
        self.messages.lock().push(message);
    }

    fn new_vector(&self) -> std::io::Result<Box<dyn MsiVector>> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
}

struct Machine {
    memory: GuestMemory,
    signals: Arc<Signals>,
    time: ManualTime,
    clock: VmClock,
    device: FirmwareUefi,
}

impl Machine {
    fn new() -> Self {
        let gap = MemoryLayout::DEFAULT_LOW_MMIO_START;
        let layout = MemoryLayout::new(MIN_RAM, gap, 46).unwrap();
        let memory = GuestMemory::anonymous(layout).unwrap();
        let signals = Arc::<Signals>::default();
        let (clock, time) = VmClock::manual();
        clock.start();
        let reports = signals.clone();
        let platform = Platform {
            memory: memory.clone(),
            clock: clock.clone(),
            // 2023-11-14T22:13:20Z.
            wall: WallClock::new(|| 1_700_000_000_000_000_000),
            generation_event: LineInterrupt::new(0, signals.clone()),
            interrupts: signals.clone(),
            reports: FirmwareReportSink::new(move |report| reports.reports.lock().push(report)),
            waker: DeviceWaker::default(),
        };
        let secure_boot = SecureBoot::default();
        let variables = VariableServices::new(Box::new(MemoryNvram), None, &secure_boot).unwrap();
        Self {
            device: FirmwareUefi::new(platform, variables, ID, LogLevel::Default),
            memory,
            signals,
            time,
            clock,
        }
    }

    fn write(&mut self, register: Register, value: u32) -> Result<(), IoError> {
        let address = register.0.to_le_bytes();
        self.device.write_port(ADDRESS_PORT, &address).unwrap();
        self.device.write_port(DATA_PORT, &value.to_le_bytes())
    }

    fn read(&mut self, register: Register) -> Result<u32, IoError> {
        let address = register.0.to_le_bytes();
        self.device.write_port(ADDRESS_PORT, &address).unwrap();
        let mut data = [0; 4];
        self.device.read_port(DATA_PORT, &mut data)?;
        Ok(u32::from_le_bytes(data))
    }

    fn put<T: IntoBytes + Immutable + ?Sized>(&self, gpa: u32, value: &T) {
        guest::write(&self.memory, gpa.into(), value).unwrap();
    }

    fn at<T: FromBytes + IntoBytes>(&self, gpa: u32) -> T {
        guest::read(&self.memory, gpa.into()).unwrap()
    }

    /// Carries out a command of the NVRAM service, and returns the answer and its status.
    fn nvram(&mut self, request: NvramVariable) -> (NvramVariable, EfiStatus) {
        let status = u64::MAX.into();
        self.put(REQUEST, &NvramVariable { status, ..request });
        self.write(Register::NVRAM_COMMAND, REQUEST).unwrap();
        let answer: NvramVariable = self.at(REQUEST);
        (answer, EfiStatus(answer.status.get()))
    }

    fn request(&self, command: NvramCommand, name: &str) -> NvramVariable {
        let name = Name::new(name).unwrap();
        self.put(NAME, name.as_bytes());
        NvramVariable {
            command: command.0.into(),
            attributes: BOOT.into(),
            name: u64::from(NAME).into(),
            name_len: (name.as_bytes().len() as u32).into(),
            vendor: [9; 16],
            data: u64::from(DATA).into(),
            ..NvramVariable::default()
        }
    }

    fn set(&mut self, name: &str, data: &[u8]) -> EfiStatus {
        let request = NvramVariable {
            data_len: (data.len() as u32).into(),
            ..self.request(NvramCommand::SET_VARIABLE, name)
        };
        self.put(DATA, data);
        self.nvram(request).1
    }

    fn get(&mut self, name: &str, room: u32) -> (NvramVariable, EfiStatus) {
        let request = NvramVariable {
            data_len: room.into(),
            attributes: 0.into(),
            ..self.request(NvramCommand::GET_VARIABLE, name)
        };
        self.nvram(request)
    }
}

#[test]
fn the_address_register_reads_back_and_accesses_have_32_bits() {
    let mut m = Machine::new();
    m.device
        .write_port(ADDRESS_PORT, &[0x27, 0, 0, 0x80])
        .unwrap();
    let mut data = [0; 4];
    m.device.read_port(ADDRESS_PORT, &mut data).unwrap();
    assert_eq!(data, [0x27, 0, 0, 0x80]);
    for port in [ADDRESS_PORT, DATA_PORT] {
        for len in [1, 2] {
            let size = Err(IoError::InvalidAccessSize);
            assert_eq!(m.device.read_port(port, &mut data[..len]), size);
            assert_eq!(m.device.write_port(port, &data[..len]), size);
        }
    }
    assert_eq!(
        m.device.read_port(ADDRESS_PORT + 1, &mut [0; 4]),
        Err(IoError::InvalidRegister)
    );
    for register in [0, 0x12, 0x32, 0x40, u32::MAX] {
        let register = Register(register);
        assert_eq!(m.read(register), Err(IoError::InvalidRegister));
        assert_eq!(m.write(register, 1), Err(IoError::InvalidRegister));
    }
    for register in [0x13, 0x1a, 0x25, 0x31, 0x38, 0x39] {
        assert_eq!(m.write(Register(register), REQUEST), Ok(()));
    }
    assert_eq!(m.read(Register::NFIT_SIZE), Ok(0));
}

#[test]
fn variables_are_set_got_and_deleted() {
    let mut m = Machine::new();
    assert_eq!(m.get("a", 10).1, EfiStatus::NOT_FOUND);
    assert_eq!(m.set("a", b"hello"), EfiStatus::SUCCESS);
    m.put(DATA, &[0; 16]);
    let (answer, status) = m.get("a", 16);
    assert_eq!(status, EfiStatus::SUCCESS);
    assert_eq!((answer.attributes.get(), answer.data_len.get()), (BOOT, 5));
    assert_eq!(&m.at::<[u8; 6]>(DATA), b"hello\0");
    for room in [0, 4] {
        let (answer, status) = m.get("a", room);
        assert_eq!(status, EfiStatus::BUFFER_TOO_SMALL);
        assert_eq!((answer.attributes.get(), answer.data_len.get()), (BOOT, 5));
    }
    assert_eq!(m.set("a", b""), EfiStatus::SUCCESS);
    assert_eq!(m.get("a", 16).1, EfiStatus::NOT_FOUND);
}

#[test]
fn names_are_enumerated() {
    let mut m = Machine::new();
    m.set("b", b"1");
    m.set("long name", b"1");
    let mut request = NvramVariable {
        name_len: 2048.into(),
        ..m.request(NvramCommand::GET_FIRST_VARIABLE_NAME, "")
    };
    let mut names = Vec::new();
    loop {
        let (answer, status) = m.nvram(request);
        if status == EfiStatus::NOT_FOUND {
            break;
        }
        assert_eq!(status, EfiStatus::SUCCESS);
        let name: [u8; 64] = m.at(NAME);
        let name = Name::from_bytes(&name).unwrap();
        assert_eq!(answer.name_len.get() as usize, name.as_bytes().len());
        names.push((answer.vendor, name.to_string()));
        request = NvramVariable {
            command: NvramCommand::GET_NEXT_VARIABLE_NAME.0.into(),
            name_len: 2048.into(),
            ..answer
        };
    }
    let ours: Vec<_> = names
        .iter()
        .filter(|(vendor, _)| *vendor == [9; 16])
        .collect();
    assert_eq!(ours.len(), 2);
    assert_eq!(names.len(), 2 + 6);
    let too_small = NvramVariable {
        name_len: 4.into(),
        ..m.request(NvramCommand::GET_NEXT_VARIABLE_NAME, "b")
    };
    let (answer, status) = m.nvram(too_small);
    assert_eq!(
        (answer.name_len.get(), status),
        (20, EfiStatus::BUFFER_TOO_SMALL)
    );
    let unknown = m.request(NvramCommand::GET_NEXT_VARIABLE_NAME, "c");
    assert_eq!(m.nvram(unknown).1, EfiStatus::INVALID_PARAMETER);
}

#[test]
fn the_store_tells_its_size_and_runtime_hides_variables() {
    let mut m = Machine::new();
    m.set("a", b"1");
    let query = NvramQueryInfo {
        command: NvramCommand::QUERY_INFO.0.into(),
        attributes: BOOT.into(),
        ..NvramQueryInfo::default()
    };
    m.put(REQUEST, &query);
    m.write(Register::NVRAM_COMMAND, REQUEST).unwrap();
    let answer: NvramQueryInfo = m.at(REQUEST);
    assert_eq!(answer.status.get(), 0);
    assert_eq!(answer.maximum_storage.get(), 128 << 10);
    assert_eq!(answer.maximum_variable.get(), 32 << 10);
    assert!((1..128 << 10).contains(&answer.remaining_storage.get()));
    for _ in 0..2 {
        let exit = m.request(NvramCommand::SIGNAL_RUNTIME, "");
        assert_eq!(m.nvram(exit).1, EfiStatus::SUCCESS);
    }
    assert_eq!(*m.signals.reports.lock(), [FirmwareReport::RuntimeHandoff]);
    assert_eq!(m.get("a", 16).1, EfiStatus::NOT_FOUND);
    let text = m.request(NvramCommand::DEBUG_STRING, "text for the log");
    assert_eq!(m.nvram(text).1, EfiStatus::SUCCESS);
    let unknown = m.request(NvramCommand(7), "");
    assert_eq!(m.nvram(unknown).1, EfiStatus::UNSUPPORTED);
    m.device.reset();
    assert_eq!(m.get("a", 16).1, EfiStatus::SUCCESS);
}

#[test]
fn hostile_requests_get_a_status_and_change_nothing() {
    let mut m = Machine::new();
    m.set("a", b"1");
    let before = m.device.save().unwrap();
    let beyond = u64::MAX - 3;
    let set = m.request(NvramCommand::SET_VARIABLE, "b");
    let get = NvramVariable {
        data_len: 64.into(),
        ..m.request(NvramCommand::GET_VARIABLE, "a")
    };
    let next = m.request(NvramCommand::GET_NEXT_VARIABLE_NAME, "a");
    m.put(NAME, Name::new("a").unwrap().as_bytes());
    let mut requests = Vec::new();
    for request in [set, get, next] {
        for name in [0, MIN_RAM - 1, MIN_RAM, beyond] {
            requests.push(NvramVariable {
                name: name.into(),
                ..request
            });
        }
        // Without a NUL, empty, too long.
        for name_len in [0, 1, 2, 3, 2049, 2050, u32::MAX] {
            let named = name_len == 2 || name_len == 3;
            if !named {
                requests.push(NvramVariable {
                    name_len: name_len.into(),
                    ..request
                });
            }
        }
    }
    for data in [0, MIN_RAM, beyond] {
        requests.push(NvramVariable {
            data: data.into(),
            ..get
        });
        requests.push(NvramVariable {
            data: data.into(),
            data_len: 1.into(),
            ..set
        });
    }
    for data_len in [48 << 10 | 1, 1 << 31, u32::MAX] {
        requests.push(NvramVariable {
            data_len: data_len.into(),
            ..set
        });
    }
    for request in requests {
        let status = m.nvram(request).1;
        assert_eq!(status, EfiStatus::INVALID_PARAMETER, "{request:?}");
    }
    // The structures themselves.
    for register in [0x24, 0x26, 0x30, 0x34, 0x35, 0x36] {
        for gpa in [
            MIN_RAM as u32 - 1,
            MIN_RAM as u32 - 12,
            MIN_RAM as u32,
            u32::MAX,
        ] {
            m.write(Register(register), gpa).unwrap();
        }
    }
    m.device.registers.address = 0;
    let after = m.device.save().unwrap();
    let mut fresh = Machine::new();
    fresh.device.restore(&before).unwrap();
    fresh.device.registers.address = 0;
    assert_eq!(fresh.device.save().unwrap(), after);
}

#[test]
fn the_watchdog_expires_interrupts_the_guest_and_says_so_after_the_reset() {
    let mut m = Machine::new();
    let run = WatchdogConfig::CONFIGURED | WatchdogConfig::ENABLED | WatchdogConfig::ONE_SHOT;
    assert_eq!(m.read(Register::WATCHDOG_RESOLUTION), Ok(1));
    assert_eq!(m.read(Register::WATCHDOG_COUNT), Ok(120));
    m.write(Register::WATCHDOG_CONFIG, run).unwrap();
    assert_eq!(
        m.write(Register::WATCHDOG_CONFIG, run | 0x1000),
        Err(IoError::InvalidValue)
    );
    assert_eq!(m.read(Register::WATCHDOG_CONFIG), Ok(run));
    m.time.advance(Duration::from_secs(119));
    m.device.poll();
    assert_eq!(*m.signals.messages.lock(), []);
    // The guest restarts it.
    m.write(Register::WATCHDOG_COUNT, 10).unwrap();
    m.write(Register::WATCHDOG_CONFIG, run).unwrap();
    m.time.advance(Duration::from_secs(9));
    m.device.poll();
    assert_eq!(*m.signals.messages.lock(), []);
    m.time.advance(Duration::from_secs(1));
    m.device.poll();
    m.device.poll();
    assert_eq!(*m.signals.messages.lock(), [NMI]);
    assert_eq!(*m.signals.reports.lock(), [FirmwareReport::WatchdogExpired]);
    m.device.reset();
    let status = WatchdogConfig::BOOT_STATUS;
    assert_eq!(m.read(Register::WATCHDOG_CONFIG), Ok(status));
    m.write(Register::WATCHDOG_CONFIG, status).unwrap();
    assert_eq!(m.read(Register::WATCHDOG_CONFIG), Ok(0));
}

#[test]
fn a_stopped_or_reset_watchdog_does_not_expire() {
    let mut m = Machine::new();
    let run = WatchdogConfig::CONFIGURED | WatchdogConfig::ENABLED;
    m.write(Register::WATCHDOG_CONFIG, run).unwrap();
    m.write(Register::WATCHDOG_CONFIG, 0).unwrap();
    assert_eq!(m.read(Register::WATCHDOG_COUNT), Ok(0));
    m.time.advance(Duration::from_secs(1000));
    m.device.poll();
    m.write(Register::WATCHDOG_CONFIG, run).unwrap();
    m.device.reset();
    m.time.advance(Duration::from_secs(1000));
    m.device.poll();
    // Without a count there is nothing to wait for.
    m.write(Register::WATCHDOG_COUNT, 0).unwrap();
    m.write(Register::WATCHDOG_CONFIG, run).unwrap();
    assert_eq!(
        m.read(Register::WATCHDOG_CONFIG),
        Ok(WatchdogConfig::CONFIGURED)
    );
    m.device.poll();
    // The longest.
    m.write(Register::WATCHDOG_COUNT, u32::MAX).unwrap();
    m.write(Register::WATCHDOG_CONFIG, run).unwrap();
    m.time.advance(Duration::from_secs(u64::from(u32::MAX) - 1));
    m.device.poll();
    assert_eq!(*m.signals.messages.lock(), []);
    m.time.advance(Duration::from_secs(1));
    m.device.poll();
    assert_eq!(*m.signals.messages.lock(), [NMI]);
}

#[test]
fn the_generation_id_is_written_where_the_firmware_says() {
    let mut m = Machine::new();
    m.write(Register::GENERATION_ID_LOW, 0x5000).unwrap();
    assert_eq!(m.at::<[u8; 16]>(0x5000), [0; 16]);
    m.write(Register::GENERATION_ID_HIGH, 0).unwrap();
    assert_eq!(m.at::<[u8; 16]>(0x5000), ID);
    m.write(Register::GENERATION_ID_LOW, 0x6000).unwrap();
    assert_eq!(m.at::<[u8; 16]>(0x6000), ID);
    assert!(m.signals.lines.lock().is_empty());
    m.device.control().change_generation_id([2; 16]);
    m.device.poll();
    assert_eq!(m.at::<[u8; 16]>(0x6000), [2; 16]);
    assert_eq!(*m.signals.lines.lock(), [true, false]);
    m.device.reset();
    m.put(0x6000, &[0; 16]);
    // Both halves are needed again.
    m.write(Register::GENERATION_ID_HIGH, 0).unwrap();
    assert_eq!(m.at::<[u8; 16]>(0x6000), [0; 16]);
    m.write(Register::GENERATION_ID_LOW, 0x6000).unwrap();
    assert_eq!(m.at::<[u8; 16]>(0x6000), [2; 16]);
}

#[test]
fn the_time_is_that_of_the_host_until_the_guest_sets_it() {
    let mut m = Machine::new();
    let mut get = || -> TimeRequest {
        m.put(REQUEST, &[0xff; 24]);
        m.write(Register::GET_TIME, REQUEST).unwrap();
        m.at(REQUEST)
    };
    let answer = get();
    assert_eq!(answer.status.get(), 0);
    assert_eq!(answer.time.to_string(), "2023-11-14T22:13:20Z");
    let mut set = answer;
    set.time.year = 1999.into();
    set.time.nanosecond = 500.into();
    set.time.time_zone = 1440.into();
    set.time.daylight = 1;
    let mut put = |time: EfiTime| {
        m.put(
            REQUEST,
            &TimeRequest {
                status: u64::MAX.into(),
                time,
            },
        );
        m.write(Register::SET_TIME, REQUEST).unwrap();
        EfiStatus(m.at::<TimeRequest>(REQUEST).status.get())
    };
    assert_eq!(put(set.time), EfiStatus::SUCCESS);
    let changes: [fn(&mut EfiTime); 9] = [
        |t| t.year = 1899.into(),
        |t| t.month = 13,
        |t| t.day = 31,
        |t| t.hour = 24,
        |t| t.minute = 60,
        |t| t.second = 60,
        |t| t.nanosecond = 1_000_000_000.into(),
        |t| t.time_zone = (-1441).into(),
        |t| t.daylight = 4,
    ];
    for change in changes {
        let mut time = set.time;
        change(&mut time);
        assert_eq!(put(time), EfiStatus::INVALID_PARAMETER, "{time:?}");
    }
    m.write(Register::GET_TIME, REQUEST).unwrap();
    assert_eq!(m.at::<TimeRequest>(REQUEST).time, set.time);
}

#[test]
fn random_numbers_fill_the_buffer_and_no_more() {
    let mut m = Machine::new();
    let mut ask = |command: u32, len: u32| {
        let request = RandomRequest {
            command: command.into(),
            status: u64::MAX.into(),
            buffer: u64::from(DATA).into(),
            len: len.into(),
        };
        m.put(REQUEST, &request);
        m.put(DATA, &[0; 16]);
        m.write(Register::CRYPTO_COMMAND, REQUEST).unwrap();
        let status = EfiStatus(m.at::<RandomRequest>(REQUEST).status.get());
        (status, m.at::<[u8; 16]>(DATA))
    };
    let (status, bytes) = ask(5, 8);
    assert_eq!(status, EfiStatus::SUCCESS);
    assert_ne!(bytes[..8], [0; 8]);
    assert_eq!(bytes[8..], [0; 8]);
    assert_eq!(ask(5, 0), (EfiStatus::SUCCESS, [0; 16]));
    assert_eq!(ask(5, 9), (EfiStatus::INVALID_PARAMETER, [0; 16]));
    assert_eq!(ask(5, u32::MAX), (EfiStatus::INVALID_PARAMETER, [0; 16]));
    for command in [0, 1, 2, 3, 4, 6] {
        assert_eq!(ask(command, 8), (EfiStatus::DEVICE_ERROR, [0; 16]));
    }
}

#[test]
fn boot_events_are_reported() {
    let mut m = Machine::new();
    let event = BootDeviceEvent {
        status: 0x2_0007.into(),
        ..BootDeviceEvent::default()
    };
    let header = EventHeader {
        id: BootDeviceEvent::ID.into(),
        header_size: 64.into(),
        data_size: 24.into(),
        ..EventHeader::default()
    };
    let channel = EventChannelHeader {
        events_written: 1.into(),
        data_size: 88.into(),
        ..EventChannelHeader::default()
    };
    let put = |m: &Machine, channel: &EventChannelHeader| {
        let bytes = [channel.as_bytes(), header.as_bytes(), event.as_bytes()].concat();
        m.put(REQUEST, &bytes[..]);
    };
    put(&m, &channel);
    m.write(Register::EVENT_LOG_FLUSH, REQUEST).unwrap();
    let report = FirmwareReport::Boot {
        outcome: BootOutcome::Failed(BootDeviceStatus(0x2_0007)),
        was_refused: true,
    };
    assert_eq!(*m.signals.reports.lock(), [report]);
    for size in [0, 63, 89, 16 << 10 | 1, u32::MAX] {
        let data_size = size.into();
        put(
            &m,
            &EventChannelHeader {
                data_size,
                ..channel
            },
        );
        m.write(Register::EVENT_LOG_FLUSH, REQUEST).unwrap();
    }
    assert_eq!(m.signals.reports.lock().len(), 1);
    assert!(
        m.device.inspect()["last_boot"]
            .as_str()
            .unwrap()
            .contains("Secure Boot")
    );
}

#[test]
fn the_log_is_read_once_per_boot_and_checked() {
    let mut m = Machine::new();
    let entry = LogEntryHeader {
        signature: LogEntryHeader::SIGNATURE,
        level: 0x8000_0000.into(),
        text_len: 8.into(),
        text_offset: 24.into(),
        ..LogEntryHeader::default()
    };
    let header = LogHeader {
        signature: LogHeader::SIGNATURE,
        log_offset: 80.into(),
        current_offset: 112.into(),
        buffer_size: 4096.into(),
        ..LogHeader::default()
    };
    let bytes = [header.as_bytes(), entry.as_bytes(), b"an error"].concat();
    m.put(REQUEST, &bytes[..]);
    let lines = diagnostics::read(&m.memory, REQUEST, LogLevel::Default).unwrap();
    assert_eq!((&*lines.lines[0].text, lines.lines.len()), ("an error", 1));
    let wrong = |change: fn(&mut LogHeader)| {
        let mut header = header;
        change(&mut header);
        m.put(REQUEST, &header);
        diagnostics::read(&m.memory, REQUEST, LogLevel::Default).unwrap_err()
    };
    use diagnostics::LogError;
    assert_eq!(wrong(|h| h.signature[0] = 0), LogError::Signature);
    assert_eq!(wrong(|h| h.log_offset = 4096.into()), LogError::Sizes);
    assert_eq!(wrong(|h| h.current_offset = 79.into()), LogError::Sizes);
    assert_eq!(wrong(|h| h.current_offset = 4097.into()), LogError::Sizes);
    assert_eq!(wrong(|h| h.buffer_size = 79.into()), LogError::Sizes);
    assert_eq!(
        wrong(|h| h.buffer_size = (4 << 20 | 1).into()),
        LogError::Sizes
    );
    let late = diagnostics::read(&m.memory, u32::MAX - 20, LogLevel::Full);
    assert_eq!(late, Err(LogError::NotRam));

    for gpa in [0, u32::MAX] {
        m.write(Register::DIAGNOSTICS_BUFFER, gpa).unwrap();
        assert_eq!(m.device.registers.log_gpa, None);
    }
    m.write(Register::DIAGNOSTICS_BUFFER, REQUEST).unwrap();
    m.write(Register::PROCESS_DIAGNOSTICS, 1).unwrap();
    assert!(m.device.registers.log_was_read);
    m.device.control().read_log();
    m.device.poll();
    m.device.reset();
    assert_eq!(m.device.registers, Registers::default());
}

#[test]
fn a_restored_device_continues() {
    let mut m = Machine::new();
    m.set("a", b"kept");
    m.write(Register::GENERATION_ID_LOW, 0x5000).unwrap();
    m.write(Register::GENERATION_ID_HIGH, 0).unwrap();
    m.write(Register::DIAGNOSTICS_BUFFER, 0x7000).unwrap();
    m.time.advance(Duration::from_secs(5));
    m.write(Register::WATCHDOG_COUNT, 10).unwrap();
    m.write(Register::WATCHDOG_CONFIG, 3).unwrap();
    m.time.advance(Duration::from_secs(4));
    let state = m.device.save().unwrap();

    let mut n = Machine::new();
    n.device.restore(&state).unwrap();
    assert_eq!(n.device.save().unwrap(), state);
    n.clock.set(m.clock.now());
    assert_eq!(n.get("a", 8).1, EfiStatus::SUCCESS);
    assert_eq!(n.at::<[u8; 16]>(0x5000), ID);
    n.time.advance(Duration::from_secs(5));
    n.device.poll();
    assert_eq!(*n.signals.messages.lock(), []);
    n.time.advance(Duration::from_secs(1));
    n.device.poll();
    assert_eq!(*n.signals.messages.lock(), [NMI]);
    assert!(n.signals.lines.lock().is_empty());
}

#[test]
fn states_that_cannot_be_are_refused() {
    let mut m = Machine::new();
    m.set("a", b"1");
    let state = m.device.save().unwrap();
    let changes: [fn(&mut State); 3] = [
        |state| {
            let id = std::mem::take(&mut state.generation_id);
            state.generation_id = id[1..].to_vec();
        },
        |state| state.clock = ClockState::with_zone(5000),
        |state| state.watchdog = WatchdogState::contradiction(),
    ];
    for change in changes {
        let mut bad: State = state.decode().unwrap();
        change(&mut bad);
        m.device.restore(&SavedState::encode(&bad)).unwrap_err();
        assert_eq!(m.device.save().unwrap(), state);
    }
    m.device
        .restore(&SavedState::from_bytes(vec![0xa0]))
        .unwrap_err();
}
