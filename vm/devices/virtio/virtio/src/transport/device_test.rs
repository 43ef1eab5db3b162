use super::*;
use crate::testing::GuestDriver;
use crate::testing::Interrupts;
use crate::testing::MirrorDevice;
use crate::testing::TestMachine;

const ALL: u64 = u64::MAX;

fn driver() -> (TestMachine, GuestDriver) {
    let machine = TestMachine::new();
    let device = machine.plug(MirrorDevice::default());
    let driver = GuestDriver::new(&machine, device);
    (machine, driver)
}

/// Sends `text` through queue `index`. Returns what comes back.
fn mirror(driver: &mut GuestDriver, index: u16, text: &[u8]) -> Vec<u8> {
    let to = add(driver, index, text);
    driver.notify(index);
    driver.wait_for_interrupt(index);
    let (_, len) = driver.wait_for_used(index);
    driver.fetch(to, len as usize)
}

fn add(driver: &mut GuestDriver, index: u16, text: &[u8]) -> u64 {
    let from = driver.place(text);
    let to = driver.allocate(text.len() as u64);
    let (half, len) = (text.len() as u32 / 2, text.len() as u32);
    driver.rings[usize::from(index)].add(&[
        (from, half, false),
        (from + u64::from(half), len - half, false),
        (to, len, true),
    ]);
    to
}

#[test]
fn the_function_is_a_modern_virtio_device() {
    let (_, mut driver) = driver();
    assert_eq!(driver.read_pci(0x00), 0x106a_1af4);
    assert_eq!(driver.read_pci(0x08) & 0xff, 1);
    assert_eq!(driver.read_pci(0x2c), 0x106a_1af4);
    assert_eq!(driver.read_pci(0x3c) >> 8 & 0xff, 1, "pin A");
    for kind in 1..=5 {
        driver.capability(9, Some(kind));
    }
    assert_eq!(driver.read_common(0x12, 2), 2);
    assert_ne!(driver.offered() & 1 << 32, 0);
}

#[test]
fn requests_complete_with_every_kind_of_interrupt() {
    for interrupts in [Interrupts::Polled, Interrupts::Pin, Interrupts::Msix] {
        for features in [ALL, ALL & !EVENT_IDX] {
            let (machine, mut driver) = driver();
            driver.initialize(features, interrupts);
            for round in 0..300u32 {
                let text = format!("request {round}");
                let ring = &driver.rings[0];
                ring.set_used_event(round as u16);
                assert_eq!(mirror(&mut driver, 0, text.as_bytes()), text.as_bytes());
            }
            assert_eq!(mirror(&mut driver, 1, b"other"), b"other");
            if interrupts == Interrupts::Msix {
                assert!(!machine.line_is_high());
            }
        }
    }
}

#[test]
fn a_notification_may_reach_the_device_as_a_write() {
    let (_, mut driver) = driver();
    driver.initialize(ALL, Interrupts::Polled);
    let to = add(&mut driver, 1, b"by hand");
    driver.notify_by_write(1);
    driver.wait_for_used(1);
    assert_eq!(driver.fetch(to, 7), b"by hand");
}

#[test]
fn no_interrupt_if_the_driver_asks_for_none() {
    let (machine, mut driver) = driver();
    driver.initialize(ALL & !EVENT_IDX, Interrupts::Pin);
    driver.rings[0].set_flags(1);
    add(&mut driver, 0, b"quiet");
    driver.notify(0);
    driver.wait_for_used(0);
    driver.device.stop();
    assert!(!machine.line_is_high());
}

#[test]
fn event_indices_suppress_interrupts() {
    let (machine, mut driver) = driver();
    driver.initialize(ALL, Interrupts::Msix);
    driver.rings[0].set_used_event(3);
    for _ in 0..3 {
        add(&mut driver, 0, b"batched");
        driver.notify(0);
        driver.wait_for_used(0);
    }
    driver.device.stop();
    assert!(!machine.take_msi(1));
    driver.device.start();
    assert_eq!(mirror(&mut driver, 0, b"fourth"), b"fourth");
}

#[test]
fn indirect_descriptors_work() {
    let (_, mut driver) = driver();
    driver.initialize(ALL, Interrupts::Polled);
    let from = driver.place(b"indirect");
    let to = driver.allocate(8);
    let table = driver.allocate(32);
    driver.rings[0].add_indirect(table, &[(from, 8, false), (to, 8, true)]);
    driver.notify(0);
    assert_eq!(driver.wait_for_used(0).1, 8);
    assert_eq!(driver.fetch(to, 8), b"indirect");
}

#[test]
fn doorbells_follow_the_bar() {
    let (machine, mut driver) = driver();
    assert_eq!(machine.doorbells(), 2);
    assert!(machine.ring_doorbell(0xd000_3004));
    driver.write_pci(0x04, 0);
    assert_eq!(machine.doorbells(), 0);
    driver.write_pci(0x10, 0xd800_0000);
    driver.write_pci(0x04, 6);
    assert!(machine.ring_doorbell(0xd800_3004));
    assert!(!machine.ring_doorbell(0xd000_3004));
    driver.device.reset();
    assert_eq!(machine.doorbells(), 0);
}

#[test]
fn the_bar_is_accessible_through_the_configuration_space() {
    let (_, mut driver) = driver();
    let window = driver.capability(9, Some(5));
    let mut access = |offset: u32, len: u32, write: Option<u32>| {
        driver.write_pci(window + 4, 0);
        driver.write_pci(window + 8, offset);
        driver.write_pci(window + 12, len);
        if let Some(value) = write {
            driver.write_pci(window + 16, value);
        }
        ChipsetDevice::read_config(&mut driver.device, window + 16)
    };
    assert_eq!(access(0x12, 2, None), Ok(2));
    assert_eq!(access(0x16, 2, Some(1)), Ok(1));
    assert_eq!(access(0x18, 2, None), Ok(256));
    assert_eq!(access(0x2000, 4, Some(0x1234_5678)), Ok(0x1234_5678));
    assert_eq!(access(0x2004, 1, Some(0xff)), Ok(0xff));
    // Invalid accesses read as 0.
    assert_eq!(access(0x13, 2, None), Ok(0));
    assert_eq!(access(0x12, 3, None), Ok(0));
    assert!(access(0xffff_fffc, 4, None).is_err());
}

#[test]
fn a_stopped_device_does_nothing_and_continues_after_a_start() {
    let (_, mut driver) = driver();
    driver.initialize(ALL, Interrupts::Msix);
    assert_eq!(mirror(&mut driver, 0, b"before"), b"before");
    driver.device.stop();
    driver.rings[0].set_used_event(1);
    let to = add(&mut driver, 0, b"while stopped");
    driver.notify(0);
    assert_eq!(driver.device.inspect()["working"], false);
    assert_eq!(driver.rings[0].take_used(), None);
    driver.device.start();
    driver.wait_for_interrupt(0);
    driver.wait_for_used(0);
    assert_eq!(driver.fetch(to, 13), b"while stopped");
}

#[test]
fn a_function_without_bus_mastering_does_nothing() {
    let (_, mut driver) = driver();
    driver.initialize(ALL, Interrupts::Polled);
    driver.write_pci(0x04, 0x2);
    let to = add(&mut driver, 0, b"later");
    driver.notify(0);
    assert_eq!(driver.device.inspect()["working"], false);
    driver.write_pci(0x04, 0x6);
    driver.wait_for_used(0);
    assert_eq!(driver.fetch(to, 5), b"later");
}

/// Saves the driver's device, and replaces it by a new one restored from the state.
fn move_to_new_device(machine: &TestMachine, driver: &mut GuestDriver) -> SavedState {
    driver.device.stop();
    let state = driver.device.save().unwrap();
    let mut device: VirtioPciDevice = machine.plug(MirrorDevice::default());
    device.restore(&state).unwrap();
    assert_eq!(device.save().unwrap(), state);
    device.start();
    driver.device = device;
    state
}

#[test]
fn a_restored_device_continues_where_the_saved_one_was() {
    for interrupts in [Interrupts::Pin, Interrupts::Msix] {
        let (machine, mut driver) = driver();
        driver.initialize(ALL, interrupts);
        for round in 0..3 {
            driver.rings[0].set_used_event(2 * round);
            assert_eq!(mirror(&mut driver, 0, b"saved"), b"saved");
            driver.device.stop();
            driver.rings[0].set_used_event(2 * round + 1);
            let to = add(&mut driver, 0, b"in the ring");
            driver.rings[0].publish();
            move_to_new_device(&machine, &mut driver);
            driver.wait_for_interrupt(0);
            driver.wait_for_used(0);
            assert_eq!(driver.fetch(to, 11), b"in the ring");
        }
    }
}

#[test]
fn an_asserted_pin_survives_a_restore() {
    let (machine, mut driver) = driver();
    driver.initialize(ALL, Interrupts::Pin);
    add(&mut driver, 0, b"pending");
    driver.notify(0);
    driver.wait_for_used(0);
    driver.wait_until(|_| machine.line_is_high().then_some(()));
    move_to_new_device(&machine, &mut driver);
    assert!(machine.line_is_high());
    assert_eq!(driver.read_isr(), 1);
    assert!(!machine.line_is_high());
}

#[test]
fn a_refused_state_does_not_change_the_device() {
    let (machine, mut driver) = driver();
    driver.initialize(ALL, Interrupts::Polled);
    driver.device.stop();
    let state = driver.device.save().unwrap();
    for index in 0..state.as_bytes().len() {
        let mut bytes = state.as_bytes().to_vec();
        bytes[index] ^= 0x55;
        let mut device = machine.plug(MirrorDevice::default());
        let fresh = device.save().unwrap();
        if device.restore(&SavedState::from_bytes(bytes)).is_err() {
            assert_eq!(device.save().unwrap(), fresh, "byte {index}");
        }
    }
}

#[test]
fn one_queue_is_reset_while_the_other_works() {
    let (_, mut driver) = driver();
    driver.initialize(ALL, Interrupts::Msix);
    assert_eq!(mirror(&mut driver, 0, b"one"), b"one");
    driver.write_common(0x16, 2, 0);
    driver.write_common(0x3a, 2, 1);
    assert_eq!(driver.read_common(0x3a, 2), 0);
    assert_eq!(driver.read_common(0x1c, 2), 0);
    assert_eq!(mirror(&mut driver, 1, b"two"), b"two");
    driver.enable_queue(0);
    assert_eq!(mirror(&mut driver, 0, b"three"), b"three");
}

type Breakage = fn(&mut GuestDriver);

#[test]
fn a_broken_queue_needs_a_reset_and_works_after_it() {
    let breakages: &[(&str, Breakage)] = &[
        ("an index far ahead", |d| {
            d.rings[0].set_available_index(1000);
        }),
        ("a head outside of the table", |d| d.rings[0].add_head(64)),
        ("a loop", |d| {
            let table = d.rings[0].descriptors;
            d.rings[0].write_descriptor(table, 0, (0x1000, 4, 1, 0));
            d.rings[0].add_head(0);
        }),
        ("a next outside of the table", |d| {
            let table = d.rings[0].descriptors;
            d.rings[0].write_descriptor(table, 0, (0x1000, 4, 1, 64));
            d.rings[0].add_head(0);
        }),
        ("a buffer outside of RAM", |d| {
            d.rings[0].add(&[(32 << 20, 1, false)]);
        }),
        ("a buffer that ends outside of RAM", |d| {
            d.rings[0].add(&[((32 << 20) - 4, 5, true)]);
        }),
        ("a buffer that wraps around", |d| {
            d.rings[0].add(&[(u64::MAX - 1, 8, false)]);
        }),
        ("a buffer to read after one to write", |d| {
            d.rings[0].add(&[(0x1000, 4, true), (0x1000, 4, false)]);
        }),
        ("an empty indirect table", |d| {
            let table = d.rings[0].descriptors;
            d.rings[0].write_descriptor(table, 0, (0x1000, 0, 4, 0));
            d.rings[0].add_head(0);
        }),
        ("an indirect table in an indirect table", |d| {
            let inner = d.allocate(64);
            let table = d.rings[0].descriptors;
            d.rings[0].write_descriptor(inner, 0, (inner, 16, 4, 0));
            d.rings[0].write_descriptor(table, 0, (inner, 16, 4, 0));
            d.rings[0].add_head(0);
        }),
        ("an indirect table outside of RAM", |d| {
            let table = d.rings[0].descriptors;
            d.rings[0].write_descriptor(table, 0, (1 << 60, 16, 4, 0));
            d.rings[0].add_head(0);
        }),
        ("an endless indirect table", |d| {
            let table = d.rings[0].descriptors;
            let inner = d.allocate(16 * 2000);
            for index in 0..2000 {
                d.rings[0].write_descriptor(inner, index, (0x1000, 1, 1, index + 1));
            }
            d.rings[0].write_descriptor(table, 0, (inner, 16 * 2000, 4, 0));
            d.rings[0].add_head(0);
        }),
    ];
    let (machine, mut driver) = driver();
    for (name, breakage) in breakages {
        driver.initialize(ALL, Interrupts::Msix);
        assert_eq!(mirror(&mut driver, 1, b"fine"), b"fine", "{name}");
        machine.take_msi(0);
        breakage(&mut driver);
        if *name == "an index far ahead" {
            let gpa = 0xd000_3000;
            assert!(machine.ring_doorbell(gpa));
        } else {
            driver.notify(0);
        }
        driver.wait_for_needs_reset();
        driver.wait_until(|_| machine.take_msi(0).then_some(()));
        // A broken device can be saved, and is still broken after a restore.
        move_to_new_device(&machine, &mut driver);
        assert_ne!(driver.status() & 0x40, 0, "{name}");
    }
}

#[test]
fn invalid_rings_need_a_reset() {
    let (_, mut driver) = driver();
    for (offset, value) in [
        (0x20, 8),
        (0x28, 1),
        (0x30, 2),
        (0x20, (32 << 20) - 16),
        (0x28, 1 << 40),
        (0x34, u64::from(u32::MAX)),
    ] {
        driver.reset();
        driver.write_common(0x14, 1, 3);
        driver.write_common(0x08, 4, 1);
        driver.write_common(0x0c, 4, 1);
        driver.write_common(0x14, 1, 0xb);
        driver.write_common(0x16, 2, 0);
        driver.write_common(0x20, 4, 0x1000);
        driver.write_common(0x28, 4, 0x2000);
        driver.write_common(0x30, 4, 0x3000);
        let len = if offset == 0x34 { 4 } else { 8 };
        driver.write_common(offset, len, value);
        driver.write_common(0x1c, 2, 1);
        driver.write_common(0x14, 1, 0xf);
        assert_eq!(driver.status(), 0x4f, "{offset:#x} {value:#x}");
    }
}

#[test]
fn accesses_past_the_device_configuration_fail() {
    let (_, mut driver) = driver();
    driver.write_config(4, 4, 0xdead_beef).unwrap();
    assert_eq!(driver.read_config(4, 2), Ok(0xbeef));
    assert!(driver.read_config(8, 1).is_err());
    assert!(driver.read_config(4, 8).is_err());
    assert!(driver.write_config(7, 2, 0).is_err());
    let before = driver.read_common(0x15, 1);
    driver.device.signals().config_changed();
    assert_ne!(driver.read_common(0x15, 1), before);
    assert_eq!(driver.read_isr(), 2);
}

#[test]
fn a_reset_returns_to_the_initial_state() {
    let (machine, mut driver) = driver();
    let fresh = machine.plug(MirrorDevice::default()).save().unwrap();
    driver.initialize(ALL, Interrupts::Pin);
    assert_eq!(mirror(&mut driver, 0, b"text"), b"text");
    driver.write_config(0, 4, 7).unwrap();
    driver.device.reset();
    driver.device.stop();
    assert_eq!(driver.device.save().unwrap(), fresh);
}
