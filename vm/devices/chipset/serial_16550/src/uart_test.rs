use crate::Serial16550;
use crate::SerialPort;
use chipset_device::ChipsetDevice;
use chipset_device::DeviceWaker;
use chipset_device::IoError;
use chipset_device::LineInterrupt;
use chipset_device::SavedState;

const BASE: u16 = 0x3f8;
const DATA: u16 = 0;
const IER: u16 = 1;
const IIR: u16 = 2;
const FCR: u16 = 2;
const LCR: u16 = 3;
const MCR: u16 = 4;
const LSR: u16 = 5;
const MSR: u16 = 6;
const SCR: u16 = 7;

fn uart() -> (Serial16550, SerialPort) {
    let port = SerialPort::new();
    let line = LineInterrupt::detached();
    let uart = Serial16550::new(BASE, line, port.clone(), DeviceWaker::default());
    (uart, port)
}

impl Serial16550 {
    fn get(&mut self, register: u16) -> u8 {
        let mut data = [0];
        self.read_port(BASE + register, &mut data).unwrap();
        data[0]
    }

    fn set(&mut self, register: u16, value: u8) {
        self.write_port(BASE + register, &[value]).unwrap();
    }

    fn interrupts(&self) -> bool {
        self.inspect()["interrupt"].as_bool().unwrap()
    }
}

fn output(port: &SerialPort) -> Vec<u8> {
    let mut bytes = Vec::new();
    port.peek_output(&mut bytes);
    bytes
}

/// Sets a reader that reads nothing by itself.
fn with_reader(port: &SerialPort) {
    assert!(port.attach_pump().unwrap());
    port.set_reader(true);
}

#[test]
fn polled_output_reaches_the_line() {
    let (mut uart, port) = uart();
    for byte in *b"hello" {
        assert_eq!(uart.get(LSR) & 0x60, 0x60);
        uart.set(DATA, byte);
    }
    assert_eq!(output(&port), b"hello");
    assert!(!uart.interrupts());
}

#[test]
fn a_driver_recognises_a_16550a() {
    let (mut uart, _port) = uart();
    uart.set(IER, 0xff);
    assert_eq!(uart.get(IER), 0x0f);
    uart.set(IER, 0);
    assert_eq!(uart.get(IIR), 0x01);
    uart.set(FCR, 0x01);
    assert_eq!(uart.get(IIR), 0xc1);
    uart.set(FCR, 0);
    assert_eq!(uart.get(IIR), 0x01);
    uart.set(SCR, 0xa5);
    assert_eq!(uart.get(SCR), 0xa5);
    uart.set(MCR, 0x1a);
    assert_eq!(uart.get(MSR) & 0xf0, 0x90);
    // No 64-byte FIFO.
    uart.set(LCR, 0x80);
    uart.set(FCR, 0x21);
    assert_eq!(uart.get(IIR) & 0xe0, 0xc0);
}

#[test]
fn the_divisor_is_accessed_with_dlab_set() {
    let (mut uart, port) = uart();
    uart.set(LCR, 0x83);
    uart.set(DATA, 0x34);
    uart.set(IER, 0x12);
    assert_eq!((uart.get(DATA), uart.get(IER)), (0x34, 0x12));
    uart.set(LCR, 0x03);
    assert_eq!(uart.get(IER), 0);
    assert_eq!(output(&port), b"");
    assert_eq!(uart.inspect()["divisor"], 0x1234);
}

#[test]
fn enabling_the_transmitter_interrupt_raises_it_again() {
    let (mut uart, _port) = uart();
    for _ in 0..2 {
        uart.set(IER, 0x02);
        assert!(uart.interrupts());
        assert_eq!(uart.get(IIR), 0x02);
        assert!(!uart.interrupts(), "reading it ends it");
        assert_eq!(uart.get(IIR), 0x01);
        uart.set(IER, 0);
    }
    uart.set(IER, 0x02);
    uart.get(IIR);
    uart.set(DATA, b'x');
    assert!(uart.interrupts(), "the byte has gone out");
}

#[test]
fn a_full_line_makes_the_guest_wait_and_loses_nothing() {
    let (mut uart, port) = uart();
    with_reader(&port);
    uart.set(FCR, 0x01);
    let mut sent = Vec::new();
    // Like a driver: 16 bytes whenever the transmitter is ready.
    'fill: loop {
        for _ in 0..16 {
            if sent.len() % 16 == 0 && uart.get(LSR) & 0x20 == 0 {
                break 'fill;
            }
            let byte = sent.len() as u8;
            uart.set(DATA, byte);
            sent.push(byte);
        }
    }
    assert_eq!(uart.get(LSR) & 0x60, 0);
    assert_eq!(port.stats().refused, 0);
    assert!(sent.len() > SerialPort::OUTPUT_CAPACITY - 16);
    uart.get(IIR);
    uart.set(IER, 0x02);
    assert!(!uart.interrupts(), "not ready");

    port.consume_output(port.work().output, false);
    uart.poll();
    assert!(uart.interrupts(), "ready again");
    assert_eq!(uart.get(LSR) & 0x60, 0x60);
}

#[test]
fn a_byte_sent_while_the_transmitter_is_not_ready_is_lost() {
    let (mut uart, port) = uart();
    with_reader(&port);
    for i in 0..SerialPort::OUTPUT_CAPACITY + 3 {
        uart.set(DATA, i as u8);
    }
    assert_eq!(port.stats().refused, 3);
    let output = output(&port);
    assert_eq!(output.len(), SerialPort::OUTPUT_CAPACITY);
    assert!(output.iter().enumerate().all(|(i, byte)| *byte == i as u8));
}

#[test]
fn without_a_reader_the_latest_output_is_kept() {
    let (mut uart, port) = uart();
    for i in 0..SerialPort::OUTPUT_CAPACITY + 3 {
        assert_eq!(uart.get(LSR) & 0x60, 0x60);
        uart.set(DATA, i as u8);
    }
    assert_eq!(output(&port)[..2], [3, 4]);
    assert_eq!(port.stats().overwritten, 3);
    // A reader connects, and the line is full.
    with_reader(&port);
    assert_eq!(uart.get(LSR) & 0x60, 0);
}

#[test]
fn input_never_overruns() {
    let (mut uart, port) = uart();
    let sent: Vec<_> = (0..SerialPort::INPUT_CAPACITY + 100)
        .map(|i| i as u8)
        .collect();
    let mut taken = port.write_input(&sent);
    assert_eq!(taken, SerialPort::INPUT_CAPACITY);
    uart.set(FCR, 0x01);
    uart.poll();
    let mut received = Vec::new();
    loop {
        let status = uart.get(LSR);
        assert_eq!(status & 0x02, 0, "overrun");
        if status & 0x01 == 0 {
            break;
        }
        received.push(uart.get(DATA));
        taken += port.write_input(&sent[taken..]);
    }
    assert_eq!(received, sent);
}

#[test]
fn receiver_trigger_levels_and_timeout() {
    let (mut uart, port) = uart();
    uart.set(IER, 0x01);
    uart.set(FCR, 0x41 | 0x80);
    port.write_input(&[1; 20]);
    uart.poll();
    assert!(uart.interrupts());
    assert_eq!(uart.get(IIR), 0xc4);
    for left in (0..20).rev() {
        uart.get(DATA);
        let expected = match left {
            14.. => 0xc4,
            1..14 => 0xcc,
            _ => 0xc1,
        };
        assert_eq!(uart.get(IIR), expected, "{left} left");
    }
    assert!(!uart.interrupts());
    assert_eq!(uart.get(DATA), 0);
}

#[test]
fn interrupts_have_priorities() {
    let (mut uart, port) = uart();
    // A modem line changes, in loopback.
    uart.set(MCR, 0x10);
    uart.set(IER, 0x0f);
    port.send_break();
    uart.set(MCR, 0x00);
    assert_eq!(uart.get(IIR), 0x06);
    assert_eq!(uart.get(LSR), 0x71);
    assert_eq!(uart.get(LSR), 0x61, "read once");
    assert_eq!(uart.get(IIR), 0x04);
    assert_eq!(uart.get(DATA), 0, "a break reads as zero");
    assert_eq!(uart.get(IIR), 0x02);
    assert_eq!(uart.get(IIR), 0x00);
    assert_ne!(uart.get(MSR) & 0x0f, 0);
    assert_eq!(uart.get(IIR), 0x01);
    assert_eq!(uart.get(MSR), 0xb0);
    assert!(!uart.interrupts());
}

#[test]
fn a_break_keeps_its_place_in_the_fifo() {
    let (mut uart, port) = uart();
    uart.set(FCR, 0x01);
    port.write_input(b"a");
    port.send_break();
    port.write_input(b"h");
    uart.poll();
    assert_eq!(uart.get(LSR), 0xe1);
    assert_eq!(uart.get(DATA), b'a');
    assert_eq!(uart.get(LSR), 0xf1);
    assert_eq!(uart.get(DATA), 0);
    assert_eq!(uart.get(LSR), 0x61);
    assert_eq!(uart.get(DATA), b'h');
    assert_eq!(uart.get(LSR), 0x60);
}

#[test]
fn loopback_does_not_reach_the_line_and_can_overrun() {
    let (mut uart, port) = uart();
    uart.set(MCR, 0x10);
    port.write_input(b"from the host");
    uart.poll();
    assert_eq!(uart.get(LSR), 0x60, "input waits");
    uart.set(DATA, b'1');
    assert_eq!(uart.get(LSR), 0x61);
    uart.set(DATA, b'2');
    assert_eq!(uart.get(LSR), 0x63);
    assert_eq!(uart.get(DATA), b'2');
    uart.set(FCR, 0x01);
    for byte in 0..17 {
        uart.set(DATA, byte);
    }
    assert_eq!(uart.get(LSR), 0x63);
    let received: Vec<_> = (0..16).map(|_| uart.get(DATA)).collect();
    assert_eq!(received, (0..16).collect::<Vec<_>>());
    uart.set(LCR, 0x43);
    assert_eq!(uart.get(LSR), 0xf1);
    assert_eq!(output(&port), b"");
    uart.get(DATA);
    uart.set(MCR, 0);
    assert_eq!(uart.get(DATA), b'f');
}

#[test]
fn modem_line_changes_in_loopback_set_delta_bits() {
    let (mut uart, _port) = uart();
    uart.get(MSR);
    uart.set(MCR, 0x1f);
    // A rising edge of RI sets no bit.
    assert_eq!(uart.get(MSR), 0xf0);
    uart.set(MCR, 0x18);
    assert_eq!(uart.get(MSR), 0x87);
    uart.set(MCR, 0x10);
    assert_eq!(uart.get(MSR), 0x08);
}

#[test]
fn only_byte_accesses_are_accepted() {
    let (mut uart, _port) = uart();
    let error = uart.read_port(BASE, &mut [0; 2]).unwrap_err();
    assert_eq!(error, IoError::InvalidAccessSize);
    let error = uart.write_port(BASE + 7, &[0; 4]).unwrap_err();
    assert_eq!(error, IoError::InvalidAccessSize);
}

#[test]
fn a_restored_uart_continues() {
    let (mut first, port) = uart();
    first.set(FCR, 0x81);
    first.set(IER, 0x05);
    first.set(LCR, 0x03);
    first.set(SCR, 7);
    port.write_input(b"abc");
    port.send_break();
    first.poll();
    first.stop();
    let state = first.save().unwrap();

    let (mut second, _port) = uart();
    second.restore(&state).unwrap();
    assert!(second.interrupts(), "the line is driven again");
    assert_eq!(second.save().unwrap(), state);
    second.start();
    assert_eq!(second.get(SCR), 7);
    assert_eq!(second.get(IIR), 0xcc);
    assert_eq!([(); 3].map(|()| second.get(DATA)), *b"abc");
    assert_eq!(second.get(IIR), 0xc6);

    let noise = SavedState::from_bytes(vec![0xa0]);
    let before = second.save().unwrap();
    second.restore(&noise).unwrap_err();
    assert_eq!(second.save().unwrap(), before);
}

#[test]
fn invalid_states_are_refused() {
    let (mut uart, _port) = uart();
    let mut regs = crate::registers::Registers::new();
    regs.received = vec![crate::port::Input::Break; 17].into();
    let error = uart.restore(&SavedState::encode(&regs)).unwrap_err();
    assert!(error.to_string().contains("17 bytes"), "{error}");
    let mut regs = crate::registers::Registers::new();
    regs.mcr = 0x20;
    uart.restore(&SavedState::encode(&regs)).unwrap_err();
}

#[test]
fn reset_keeps_the_buffers_of_the_line() {
    let (mut uart, port) = uart();
    uart.set(DATA, b'x');
    port.write_input(b"0123456789abcdefgh");
    uart.set(IER, 1);
    uart.poll();
    uart.reset();
    assert_eq!(uart.get(IER), 0);
    assert_eq!(output(&port), b"x");
    // The content of the receiver is lost.
    assert_eq!(uart.get(DATA), b'1');
}
