//! What the firmware does when it is told: handing over, sleep states, and reset.

use crate::hardware;
use crate::hardware::Serial;
use crate::uefi_device;
use guest_test_firmware::report::Report;

const PM1_CONTROL: u16 = 0x404;
const SLEEP_ENABLE: u16 = 1 << 13;
const SLEEP_TYPE_SHIFT: u16 = 10;
const S5: u16 = 0;
const S4: u16 = 1;
const RESET_PORT: u16 = 0x433;
const RESET: u8 = 1;

/// Reads commands from the serial port, and does them.
pub(crate) fn serve(serial: &mut Serial) -> ! {
    loop {
        match serial.read() {
            b'p' => sleep(S5),
            b'h' => sleep(S4),
            b'r' => hardware::write_port(RESET_PORT, RESET),
            b'c' => hardware::crash(),
            b'o' => {
                let mut report = Report::new(serial);
                uefi_device::hand_over(&mut report);
                report.text("handed over\n");
                continue;
            }
            _ => continue,
        }
        // None of them comes back.
        Report::new(serial).text("check power FAIL\n");
        loop {
            hardware::halt();
        }
    }
}

fn sleep(kind: u16) {
    hardware::write_port_16(PM1_CONTROL, SLEEP_ENABLE | kind << SLEEP_TYPE_SHIFT);
}
