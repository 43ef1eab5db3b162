//! The SEC phase of the test firmware: where the machine enters it.
#![no_std]
#![no_main]

mod checks;
mod entry;
mod hardware;
mod memory_functions;
mod power;
mod uefi_device;

use core::panic::PanicInfo;
use entry::Registers;
use guest_test_firmware::VERSION_TEXT;
use guest_test_firmware::report::Report;
use hardware::Serial;

/// The version, where whoever makes another version of an image finds it.
static VERSION: [u8; VERSION_TEXT.len()] = VERSION_TEXT;

/// Checks everything, and then does what the serial port says.
fn run(registers: &Registers) -> ! {
    let mut serial = Serial::new();
    let mut report = Report::new(&mut serial);
    report.text("\nfirmware ");
    for n in 0..VERSION.len() {
        let byte = [hardware::constant_byte(&VERSION, n)];
        report.text(core::str::from_utf8(&byte).unwrap_or("?"));
    }
    report.text("\n");
    checks::all(registers, &mut report);
    let failed = report.failed();
    report.value("failed", failed.into());
    report.text("ready\n");
    power::serve(&mut serial)
}

/// There is nothing to unwind, and nobody to return to.
#[panic_handler]
fn panicked(_info: &PanicInfo<'_>) -> ! {
    let mut serial = Serial::new();
    Report::new(&mut serial).text("check panic FAIL\n");
    hardware::crash()
}
