//! The services of the UEFI device, at the ports 0x28 and 0x2c.

use crate::hardware;
use guest_test_firmware::bytes::digest;
use guest_test_firmware::report::Report;

const ADDRESS: u16 = 0x28;
const DATA: u16 = 0x2c;

/// Registers.
mod register {
    pub(super) const GENERATION_ID_LOW: u32 = 0x0e;
    pub(super) const GENERATION_ID_HIGH: u32 = 0x0f;
    pub(super) const NVRAM: u32 = 0x24;
    pub(super) const CRYPTO: u32 = 0x26;
    pub(super) const WATCHDOG_CONFIG: u32 = 0x27;
    pub(super) const WATCHDOG_RESOLUTION: u32 = 0x28;
    pub(super) const WATCHDOG_COUNT: u32 = 0x29;
    pub(super) const DIAGNOSTICS: u32 = 0x2b;
    pub(super) const PROCESS_DIAGNOSTICS: u32 = 0x2c;
    pub(super) const EVENT_LOG: u32 = 0x30;
    pub(super) const NFIT_SIZE: u32 = 0x37;
    pub(super) const UNKNOWN: u32 = 0x7777;
}

/// Commands of the NVRAM register.
mod command {
    pub(super) const GET: u32 = 0;
    pub(super) const SET: u32 = 1;
    pub(super) const FIRST: u32 = 2;
    pub(super) const NEXT: u32 = 3;
    pub(super) const QUERY: u32 = 4;
    pub(super) const RUNTIME: u32 = 5;
    pub(super) const UNKNOWN: u32 = 99;
}

/// EFI status codes without their highest bit.
mod status {
    pub(super) const SUCCESS: u64 = 0;
    pub(super) const INVALID: u64 = 2;
    pub(super) const UNSUPPORTED: u64 = 3;
    pub(super) const TOO_SMALL: u64 = 5;
    pub(super) const WRITE_PROTECTED: u64 = 8;
    pub(super) const NOT_FOUND: u64 = 14;
    /// What no service answers.
    pub(super) const NONE: u64 = 0x7777;
}

/// Kept, readable by the firmware and by the operating system.
const NV_BS_RT: u32 = 7;
const BS_RT_ONLY: u32 = 4;
const NV_BS: u32 = 3;

// RAM that nothing else uses, a page for each.
const REQUEST: u64 = 0x5_0000;
const NAME: u64 = 0x5_1000;
const VALUE: u64 = 0x5_2000;
const GENERATION_ID: u64 = 0x5_4000;
const EVENTS: u64 = 0x5_5000;
const LOG: u64 = 0x5_6000;

/// The vendor of this firmware's variables, and that of UEFI's own.
const OURS: [u8; 16] = *b"test firmware's.";
const GLOBAL: [u8; 16] = [
    0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c,
];

/// The most variables that are enumerated.
const MAX_VARIABLES: u32 = 200;

/// Checks all services, if there is a device.
pub(crate) fn check(report: &mut Report<'_>) {
    hardware::write_port_32(ADDRESS, register::WATCHDOG_RESOLUTION);
    let is_there = hardware::read_port_32(ADDRESS) == register::WATCHDOG_RESOLUTION;
    report.value("uefi.device", is_there.into());
    if !is_there {
        return;
    }
    registers(report);
    watchdog(report);
    generation_id(report);
    random(report);
    variables(report);
    boots(report);
    refusals(report);
    announce_log();
}

/// Tells the device that an operating system takes over.
pub(crate) fn hand_over(report: &mut Report<'_>) {
    flush_events();
    write(register::PROCESS_DIAGNOSTICS, 1);
    write(register::WATCHDOG_CONFIG, 0);
    zero(REQUEST, 20);
    hardware::write_u32(REQUEST, command::RUNTIME);
    report.equal("uefi.runtime", status::SUCCESS, send(register::NVRAM));
    // Not readable at run time.
    let refused = set(b"Boot only", &OURS, NV_BS, &[1]);
    report.equal("uefi.runtime.set", status::INVALID, refused);
    report.equal("uefi.runtime.get", status::SUCCESS, get(b"Boots", &OURS, 4));
}

fn registers(report: &mut Report<'_>) {
    report.equal("uefi.nfit", 0, read(register::NFIT_SIZE).into());
    report.equal("uefi.unknown", 0xffff_ffff, read(register::UNKNOWN).into());
    write(register::UNKNOWN, 1);
    // Only accesses of 32 bits.
    report.equal("uefi.byte", 0xff, hardware::read_port(DATA).into());
}

fn watchdog(report: &mut Report<'_>) {
    /// Configured, enabled, once.
    const RUNNING: u32 = 0x13;
    report.equal(
        "uefi.watchdog.resolution",
        1,
        read(register::WATCHDOG_RESOLUTION).into(),
    );
    write(register::WATCHDOG_CONFIG, 0);
    write(register::WATCHDOG_COUNT, 600);
    report.equal(
        "uefi.watchdog.count",
        600,
        read(register::WATCHDOG_COUNT).into(),
    );
    write(register::WATCHDOG_CONFIG, RUNNING);
    report.equal(
        "uefi.watchdog.runs",
        RUNNING.into(),
        read(register::WATCHDOG_CONFIG).into(),
    );
    write(register::WATCHDOG_CONFIG, 0);
    report.equal(
        "uefi.watchdog.stops",
        0,
        read(register::WATCHDOG_CONFIG).into(),
    );
    // A bit that does not exist: the whole write is refused.
    write(register::WATCHDOG_CONFIG, RUNNING | 1 << 20);
    report.equal(
        "uefi.watchdog.refused",
        0,
        read(register::WATCHDOG_CONFIG).into(),
    );
}

fn generation_id(report: &mut Report<'_>) {
    zero(GENERATION_ID, 16);
    write(register::GENERATION_ID_LOW, GENERATION_ID as u32);
    write(register::GENERATION_ID_HIGH, 0);
    let id = hardware::memory(GENERATION_ID, 16);
    let (low, high) = (
        hardware::read_memory(GENERATION_ID),
        hardware::read_memory(GENERATION_ID + 8),
    );
    report.holds("uefi.generation_id", low | high != 0, low);
    report.value("uefi.generation_id.digest", digest(id));
}

fn random(report: &mut Report<'_>) {
    const RANDOM: u32 = 5;
    zero(REQUEST, 24);
    hardware::write_memory(VALUE, 0);
    hardware::write_u32(REQUEST, RANDOM);
    hardware::write_u64(REQUEST + 12, VALUE);
    hardware::write_u32(REQUEST + 20, 8);
    report.equal("uefi.random", status::SUCCESS, send(register::CRYPTO));
    let random = hardware::read_memory(VALUE);
    report.holds("uefi.random.bytes", random != 0, random);
    zero(REQUEST, 24);
    hardware::write_u64(REQUEST + 12, VALUE);
    hardware::write_u32(REQUEST + 20, 8);
    let other = send(register::CRYPTO);
    report.holds("uefi.crypto.other", other != status::SUCCESS, other);
}

fn variables(report: &mut Report<'_>) {
    report.equal(
        "uefi.get.missing",
        status::NOT_FOUND,
        get(b"Missing", &OURS, 8),
    );
    report.equal(
        "uefi.set",
        status::SUCCESS,
        set(b"Passing", &OURS, NV_BS_RT, b"12345"),
    );
    report.equal(
        "uefi.get.short",
        status::TOO_SMALL,
        get(b"Passing", &OURS, 4),
    );
    report.equal("uefi.get.short.length", 5, data_len());
    report.equal("uefi.get", status::SUCCESS, get(b"Passing", &OURS, 64));
    report.equal("uefi.get.length", 5, data_len());
    report.equal("uefi.get.attributes", NV_BS_RT.into(), attributes());
    let found = hardware::memory(VALUE, 5);
    report.equal("uefi.get.data", digest(b"12345"), digest(found));
    // One character less, one case other.
    report.equal(
        "uefi.get.other",
        status::NOT_FOUND,
        get(b"Passin", &OURS, 64),
    );
    report.equal(
        "uefi.get.case",
        status::NOT_FOUND,
        get(b"passing", &OURS, 64),
    );
    report.equal(
        "uefi.get.vendor",
        status::NOT_FOUND,
        get(b"Passing", &GLOBAL, 64),
    );
    let appended = set(b"Passing", &OURS, NV_BS_RT | 0x40, b"67");
    report.equal("uefi.append", status::SUCCESS, appended);
    report.equal(
        "uefi.append.get",
        status::SUCCESS,
        get(b"Passing", &OURS, 64),
    );
    report.equal("uefi.append.length", 7, data_len());
    let other = set(b"Passing", &OURS, NV_BS, b"1");
    report.equal("uefi.set.attributes", status::INVALID, other);
    let (own, all) = enumerate(report);
    report.holds("uefi.names.own", own > 0, own.into());
    report.holds("uefi.names.all", all > own, all.into());
    report.equal(
        "uefi.delete",
        status::SUCCESS,
        set(b"Passing", &OURS, 0, b""),
    );
    report.equal(
        "uefi.delete.get",
        status::NOT_FOUND,
        get(b"Passing", &OURS, 64),
    );
    report.equal(
        "uefi.delete.again",
        status::NOT_FOUND,
        set(b"Passing", &OURS, 0, b""),
    );
    report.equal(
        "uefi.secure_boot",
        status::SUCCESS,
        get(b"SecureBoot", &GLOBAL, 1),
    );
    report.value("uefi.secure_boot.on", u64::from(hardware::read_u8(VALUE)));
    report.equal(
        "uefi.setup_mode",
        status::SUCCESS,
        get(b"SetupMode", &GLOBAL, 1),
    );
    report.value("uefi.setup_mode.on", u64::from(hardware::read_u8(VALUE)));
    let protected = set(b"SecureBoot", &GLOBAL, NV_BS_RT, &[1]);
    report.equal("uefi.secure_boot.set", status::WRITE_PROTECTED, protected);
    query(report);
}

fn query(report: &mut Report<'_>) {
    zero(REQUEST, 40);
    hardware::write_u32(REQUEST, command::QUERY);
    hardware::write_u32(REQUEST + 12, NV_BS_RT);
    report.equal("uefi.query", status::SUCCESS, send(register::NVRAM));
    let word = |at: u64| hardware::read_u64(REQUEST + at);
    let (all, rest, one) = (word(16), word(24), word(32));
    report.holds("uefi.query.rest", rest > 0 && rest <= all, rest);
    report.holds("uefi.query.one", one >= 0x8000 && one <= all, one);
}

/// Counts the boots in a variable.
fn boots(report: &mut Report<'_>) {
    let before = match get(b"Boots", &OURS, 4) {
        status::SUCCESS => hardware::read_u32(VALUE),
        _ => 0,
    };
    let boots = before.wrapping_add(1);
    let stored = set(b"Boots", &OURS, NV_BS_RT, &boots.to_le_bytes());
    report.equal("uefi.boots.set", status::SUCCESS, stored);
    report.value("uefi.boots", boots.into());
}

/// Requests that make no sense.
fn refusals(report: &mut Report<'_>) {
    let refused = set(b"Wrong", &OURS, BS_RT_ONLY, &[1]);
    report.equal("uefi.set.runtime_only", status::INVALID, refused);
    report.equal(
        "uefi.set.no_name",
        status::INVALID,
        set(b"", &OURS, NV_BS_RT, &[1]),
    );
    request(command::GET, b"Name", &OURS, 8);
    hardware::write_u32(REQUEST + 24, 0x10_0000);
    report.equal("uefi.get.long_name", status::INVALID, send(register::NVRAM));
    request(command::SET, b"Huge", &OURS, u32::MAX);
    hardware::write_u32(REQUEST + 12, NV_BS_RT);
    let refused = send(register::NVRAM);
    report.holds(
        "uefi.set.huge",
        refused != status::SUCCESS && refused != status::NONE,
        refused,
    );
    // Data, and the whole request, where there is no RAM.
    request(command::GET, b"Boots", &OURS, 64);
    hardware::write_u64(REQUEST + 44, 0xf900_0000);
    let refused = send(register::NVRAM);
    report.holds(
        "uefi.get.no_ram",
        refused != status::SUCCESS && refused != status::NONE,
        refused,
    );
    for gpa in [0xf900_0000, 0xffff_ffff, 0xffff_fff8] {
        write(register::NVRAM, gpa);
        write(register::CRYPTO, gpa);
        write(register::EVENT_LOG, gpa);
    }
    request(command::UNKNOWN, b"Name", &OURS, 8);
    report.equal("uefi.command", status::UNSUPPORTED, send(register::NVRAM));
}

/// Walks all names. Returns the number of ours, and of all.
fn enumerate(report: &mut Report<'_>) -> (u32, u32) {
    const ROOM: u32 = 2048;
    let (mut own, mut all) = (0, 0);
    zero(REQUEST, 56);
    hardware::write_u32(REQUEST, command::FIRST);
    hardware::write_u64(REQUEST + 16, NAME);
    loop {
        hardware::write_u32(REQUEST + 24, ROOM);
        let status = send(register::NVRAM);
        if status != status::SUCCESS {
            report.equal("uefi.names.end", status::NOT_FOUND, status);
            return (own, all);
        }
        all += 1;
        let vendor = hardware::memory(REQUEST + 28, 16);
        own += u32::from(digest(vendor) == digest(&OURS));
        if all == MAX_VARIABLES {
            report.holds("uefi.names.end", false, all.into());
            return (own, all);
        }
        hardware::write_u32(REQUEST, command::NEXT);
    }
}

fn get(name: &[u8], vendor: &[u8; 16], room: u32) -> u64 {
    request(command::GET, name, vendor, room);
    send(register::NVRAM)
}

fn set(name: &[u8], vendor: &[u8; 16], attributes: u32, data: &[u8]) -> u64 {
    request(command::SET, name, vendor, data.len() as u32);
    hardware::write_u32(REQUEST + 12, attributes);
    for (at, byte) in (0..).zip(data) {
        hardware::write_u8(VALUE + at, *byte);
    }
    send(register::NVRAM)
}

/// Makes a request for a variable, whose data is at [`VALUE`].
fn request(command: u32, name: &[u8], vendor: &[u8; 16], len: u32) {
    zero(REQUEST, 56);
    hardware::write_u32(REQUEST, command);
    let mut units = 0;
    for byte in name {
        hardware::write_u8(NAME + 2 * units, *byte);
        hardware::write_u8(NAME + 2 * units + 1, 0);
        units += 1;
    }
    hardware::write_u8(NAME + 2 * units, 0);
    hardware::write_u8(NAME + 2 * units + 1, 0);
    hardware::write_u64(REQUEST + 16, NAME);
    hardware::write_u32(REQUEST + 24, 2 * (units as u32 + 1));
    for (at, byte) in (0..).zip(vendor) {
        hardware::write_u8(REQUEST + 28 + at, *byte);
    }
    hardware::write_u64(REQUEST + 44, VALUE);
    hardware::write_u32(REQUEST + 52, len);
}

/// Sends the request, and returns its status.
fn send(register: u32) -> u64 {
    hardware::write_u64(REQUEST + 4, status::NONE);
    write(register, REQUEST as u32);
    hardware::read_u64(REQUEST + 4)
}

fn attributes() -> u64 {
    hardware::read_u32(REQUEST + 12).into()
}

fn data_len() -> u64 {
    hardware::read_u32(REQUEST + 52).into()
}

/// Says where the firmware's log is: one line, as an error.
fn announce_log() {
    const TEXT: &[u8] = b"the test firmware's log\n";
    const HEADER: u64 = 80;
    const ENTRY: u64 = 24;
    const ERROR: u32 = 0x8000_0000;
    let end = (ENTRY + TEXT.len() as u64).next_multiple_of(8);
    zero(LOG, HEADER + end);
    for (at, byte) in (0..).zip(*b"ALOG") {
        hardware::write_u8(LOG + at, byte);
    }
    hardware::write_u32(LOG + 12, HEADER as u32);
    hardware::write_u32(LOG + 20, (HEADER + end) as u32);
    hardware::write_u32(LOG + 28, 0x1000);
    let entry = LOG + HEADER;
    for (at, byte) in (0..).zip(*b"ALM2") {
        hardware::write_u8(entry + at, byte);
    }
    hardware::write_u32(entry + 6, ERROR);
    hardware::write_u8(entry + 20, TEXT.len() as u8);
    hardware::write_u8(entry + 22, ENTRY as u8);
    for (at, byte) in (0..).zip(TEXT) {
        hardware::write_u8(entry + ENTRY + at, *byte);
    }
    write(register::DIAGNOSTICS, LOG as u32);
}

/// Tells of one attempt to boot, which succeeded.
fn flush_events() {
    const CHANNEL: [u8; 16] = [
        0x3b, 0x71, 0xc6, 0x8c, 0x0d, 0x36, 0x06, 0x44, 0x92, 0x68, 0xf6, 0xb0, 0xcf, 0xdf, 0xca,
        0x91,
    ];
    const HEADER: u64 = 28;
    const EVENT: u32 = 64;
    const DATA_LEN: u32 = 24;
    const OS_LOADED: u32 = 0x1_0005;
    zero(EVENTS, HEADER + u64::from(EVENT + DATA_LEN));
    for (at, byte) in (0..).zip(CHANNEL) {
        hardware::write_u8(EVENTS + at, byte);
    }
    hardware::write_u32(EVENTS + 16, 1);
    hardware::write_u32(EVENTS + 24, EVENT + DATA_LEN);
    let event = EVENTS + HEADER;
    hardware::write_u32(event + 48, 1);
    hardware::write_u32(event + 56, EVENT);
    hardware::write_u32(event + 60, DATA_LEN);
    hardware::write_u32(event + u64::from(EVENT), OS_LOADED);
    write(register::EVENT_LOG, EVENTS as u32);
}

fn zero(gpa: u64, len: u64) {
    for at in 0..len {
        hardware::write_u8(gpa + at, 0);
    }
}

fn read(register: u32) -> u32 {
    hardware::write_port_32(ADDRESS, register);
    hardware::read_port_32(DATA)
}

fn write(register: u32, value: u32) {
    hardware::write_port_32(ADDRESS, register);
    hardware::write_port_32(DATA, value);
}
