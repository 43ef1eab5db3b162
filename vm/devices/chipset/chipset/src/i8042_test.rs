use super::*;
use parking_lot::Mutex;
use std::sync::Arc;

fn i8042() -> (I8042, Arc<Mutex<Vec<PowerEvent>>>) {
    let requests: Arc<Mutex<Vec<PowerEvent>>> = Arc::default();
    let log = requests.clone();
    let power = PowerSink::new(move |event| log.lock().push(event));
    (I8042::new(LineInterrupt::detached(), power), requests)
}

impl I8042 {
    fn get(&mut self, port: u16) -> u8 {
        let mut data = [0];
        self.read_port(port, &mut data).unwrap();
        data[0]
    }

    fn set(&mut self, port: u16, value: u8) {
        self.write_port(port, &[value]).unwrap();
    }

    /// Writes a command and returns its response, which must be available at once.
    fn ask(&mut self, command: u8) -> u8 {
        self.set(0x64, command);
        assert_eq!(self.get(0x64) & 0x03, 0x01);
        self.get(0x60)
    }
}

#[test]
fn resets_the_machine() {
    let (mut controller, requests) = i8042();
    controller.set(0x64, 0xfe);
    assert_eq!(*requests.lock(), [PowerEvent::Reset]);
    controller.set(0x64, 0xff);
    controller.set(0x64, 0xd1);
    controller.set(0x60, 0x03);
    assert_eq!(requests.lock().len(), 1);
    controller.set(0x64, 0xd1);
    controller.set(0x60, 0x02);
    assert_eq!(requests.lock().len(), 2);
}

#[test]
fn the_probe_of_linux_does_not_time_out() {
    let (mut controller, requests) = i8042();
    // The buffer is empty.
    assert_eq!(controller.get(0x64) & 0x01, 0);
    assert_eq!(controller.ask(0xaa), 0x55);
    // The mode is read twice with the same result, then written and read back.
    let mode = controller.ask(0x20);
    assert_eq!(controller.ask(0x20), mode);
    controller.set(0x64, 0x60);
    controller.set(0x60, mode & !1 | 0x10);
    assert_eq!(controller.ask(0x20), mode & !1 | 0x10);
    // The auxiliary loopback responds without the auxiliary status bit, and the port's test fails.
    controller.set(0x64, 0xd3);
    controller.set(0x60, 0x5a);
    assert_eq!(controller.get(0x64) & 0x21, 0x01);
    assert_eq!(controller.get(0x60), 0x5a);
    assert_eq!(controller.ask(0xa9), 0x02);
    // The keyboard is identified, with its interrupt enabled.
    controller.set(0x64, 0x60);
    controller.set(0x60, mode & !0x10 | 0x41);
    controller.set(0x60, 0xf2);
    assert_eq!(controller.inspect()["interrupt"], true);
    assert_eq!(controller.get(0x64) & 0x41, 0x41);
    assert_eq!(controller.get(0x60), 0xfe);
    assert_eq!(controller.inspect()["interrupt"], false);
    assert_eq!(controller.get(0x64) & 0x41, 0);
    assert_eq!(*requests.lock(), []);
}

#[test]
fn uefi_does_not_wait_for_a_keyboard() {
    let (mut controller, _requests) = i8042();
    assert_eq!(controller.get(0x64) & 0xc0, 0xc0);
    assert_eq!(controller.ask(0xaa), 0x55);
    assert_eq!(controller.get(0x64) & 0xc0, 0);
    controller.reset();
    assert_eq!(controller.get(0x64) & 0xc0, 0xc0);
}

#[test]
fn the_a20_bit_is_stored() {
    let (mut controller, _requests) = i8042();
    assert_eq!(controller.ask(0xd0), 0x03);
    controller.set(0x64, 0xdd);
    assert_eq!(controller.ask(0xd0), 0x01);
    controller.set(0x64, 0xdf);
    assert_eq!(controller.ask(0xd0), 0x03);
}

#[test]
fn a_restored_controller_continues() {
    let (mut first, _) = i8042();
    first.set(0x64, 0x60);
    first.set(0x60, 0x45);
    first.set(0x64, 0xab);
    first.set(0x64, 0x65);
    let state = first.save().unwrap();
    let (mut second, _) = i8042();
    second.restore(&state).unwrap();
    assert_eq!(second.inspect()["interrupt"], true);
    assert_eq!(second.get(0x60), 0x00);
    second.set(0x60, 0x77);
    assert_eq!(second.ask(0x25), 0x77);
    assert_eq!(second.ask(0x20), 0x45);
}
