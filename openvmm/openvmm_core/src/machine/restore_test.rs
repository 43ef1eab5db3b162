//! Saving and restoring whole machines.

use super::*;
use crate::machine::test_bench::*;
use mesh::saved_state::SavedState;
use serial_16550::COM_PORTS;
use state_unit::SavedUnit;
use state_unit::SavedUnits;
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;
use virt::IrqchipMode;
use virt_fake::Event;
use virt_fake::Step;

#[test]
fn each_profile_is_saved_and_restored() {
    each_profile(|_, config| {
        let mut first = Bench::boot(config);
        let fresh = first.save();
        first.run(busy_guest());
        first
            .hypervisor
            .change_vp(1, |vp| vp.registers.rax = 0x1234);
        let saved = first.save();
        let changed = |name: &str| saved.get(name) != fresh.get(name);
        for unit in ["com1", "rtc", "pm", "i8042", "disk0", "rng0", "vps"] {
            assert!(changed(unit), "{unit} is as at power-on");
        }
        first.end(config);

        let bytes = saved.encode();
        let start = Start::from(SavedUnits::decode(&bytes).unwrap());
        let mut second = Bench::new(config, &start).unwrap();
        let restored = second.save();
        for (before, after) in saved.units().iter().zip(restored.units()) {
            assert_eq!(before, after, "unit {}", before.name);
        }
        assert_eq!(saved, restored);
        assert_eq!(second.hypervisor.vp_state(1).registers.rax, 0x1234);

        // The restored machine runs, and a reset of it is a reset.
        second.run(vec![out(0x3f8, b"z")]);
        second.machine.lifecycle.reset().unwrap();
        let reset = second.save();
        for unit in ["com1", "pm", "disk0", "rng0"] {
            assert_eq!(reset.get(unit), fresh.get(unit), "{unit}");
        }
        second.machine.stop();
    });
}

#[test]
fn a_missing_unit_refuses_the_restore() {
    let files = Files::new();
    let config = files.config(files.linux(), IrqchipMode::Kernel);
    let mut bench = Bench::boot(&config);
    let saved = bench.save();
    bench.end(&config);
    let mut other = config.clone();
    other.pci_devices.pop();
    let error = Bench::new(&other, &Start::from(saved)).err().unwrap();
    let text = error_chain::Chain(&error).to_string();
    assert!(text.contains("rng0"), "{text}");
}

#[test]
fn a_machine_with_fewer_vps_refuses_the_restore() {
    let files = Files::new();
    let mut config = files.config(files.linux(), IrqchipMode::Kernel);
    // The disk has a queue for each VP.
    config.pci_devices.remove(0);
    let mut bench = Bench::boot(&config);
    let saved = bench.save();
    bench.end(&config);
    let mut other = config.clone();
    other.topology.processors = 1;
    let error = Bench::new(&other, &Start::from(saved)).err().unwrap();
    let text = error_chain::Chain(&error).to_string();
    assert!(text.contains("2 VPs"), "{text}");
}

#[test]
fn a_machine_is_not_restored_beside_a_changed_store() {
    let files = Files::new();
    let config = files.config(files.uefi(), IrqchipMode::Kernel);
    let mut bench = Bench::boot(&config);
    let saved = bench.save();
    hibernate(&mut bench);
    bench.end(&config);
    let error = Bench::new(&config, &Start::from(saved)).err().unwrap();
    let text = error_chain::Chain(&error).to_string();
    assert!(
        text.contains("vmgs") && text.contains("was changed"),
        "{text}"
    );
}

#[test]
fn a_machine_is_not_restored_beside_a_new_store() {
    let files = Files::new();
    let config = files.config(files.uefi(), IrqchipMode::Kernel);
    let mut bench = Bench::boot(&config);
    let saved = bench.save();
    bench.end(&config);
    let store = files.path("vm.vmgs");
    std::fs::remove_file(&store).unwrap();
    let error = Bench::new(&config, &Start::from(saved)).err().unwrap();
    assert!(matches!(error, MachineError::Vmgs(_)), "{error}");
    assert!(!store.exists());
}

#[test]
fn a_restore_that_fails_closes_the_store() {
    let files = Files::new();
    let config = files.config(files.uefi(), IrqchipMode::Kernel);
    let mut bench = Bench::boot(&config);
    let saved = bench.save();
    bench.end(&config);
    let store = files.path("vm.vmgs");
    in_time(move || {
        for unit in saved.units() {
            let start = with_unit(&saved, &unit.name, vec![0xff]);
            assert!(Bench::new(&config, &start).is_err(), "{}", unit.name);
            while vmgs::FileDevice::open(&store, vmgs::Container::Detect, ACCESS).is_err() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    });
}

#[test]
fn a_reset_loads_the_kernel_again_and_a_restore_does_not() {
    // Where the kernel wants to be.
    const KERNEL: u64 = 0x100_0000;
    let overwrite = || {
        vec![Step::WriteMemory {
            gpa: KERNEL,
            data: vec![0xaa],
        }]
    };
    let files = Files::new();
    let config = files.config(files.linux(), IrqchipMode::Kernel);
    let ram = || {
        let file = std::fs::File::open(files.path("ram")).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, KERNEL).unwrap();
        byte[0]
    };
    let mut first = Bench::boot(&config);
    first.run(overwrite());
    first.machine.lifecycle.reset().unwrap();
    assert_eq!(ram(), 0);
    first.run(overwrite());
    let saved = first.save();
    first.end(&config);

    let mut second = Bench::new(&config, &Start::from(saved)).unwrap();
    assert_eq!(ram(), 0xaa);
    second.machine.lifecycle.reset().unwrap();
    assert_eq!(ram(), 0);
    second.end(&config);
}

#[test]
fn interrupt_controllers_are_restored_before_devices() {
    let files = Files::new();
    let config = files.config(files.linux(), IrqchipMode::Kernel);
    let mut first = Bench::boot(&config);
    // COM1 interrupts because it can send.
    first.run(vec![out(0x3fc, &[0x0b]), out(0x3f9, &[2])]);
    let saved = first.save();
    first.end(&config);
    let second = Bench::new(&config, &Start::from(saved)).unwrap();
    let events = second.hypervisor.events();
    let at = |event: &Event| events.iter().position(|e| e == event).unwrap();
    let gsi = u32::from(COM_PORTS[0].1);
    let high = Event::SetLine { gsi, high: true };
    assert!(at(&Event::RestorePartition) < at(&high), "{events:?}");
    second.end(&config);
}

#[test]
fn a_line_that_is_still_high_interrupts_again_at_the_end_of_an_interrupt() {
    const IOAPIC: u64 = 0xfec0_0000;
    const VECTOR: u8 = 0x30;
    let files = Files::new();
    let config = files.config(files.linux(), IrqchipMode::Split);
    let mut bench = Bench::boot(&config);
    let gsi = u32::from(COM_PORTS[0].1);
    let write = |offset: u64, value: u32| Step::WriteMemory {
        gpa: IOAPIC + offset,
        data: value.to_le_bytes().to_vec(),
    };
    bench.run(vec![
        write(0, 0x10 + 2 * gsi),
        write(0x10, 1 << 15 | u32::from(VECTOR)), // level-triggered
        out(0x3fc, &[0x0b]),
        out(0x3f9, &[2]),
    ]);
    let hypervisor = bench.hypervisor.clone();
    let asserted = || {
        let events = hypervisor.take_events().into_iter();
        events.filter(|e| *e == Event::AssertLine { gsi }).count()
    };
    assert_eq!(asserted(), 1);
    bench.run(vec![Step::EndOfInterrupt { vector: VECTOR }]);
    assert_eq!(asserted(), 1);
    bench.machine.stop();
}

#[test]
fn input_that_was_not_read_is_kept_across_a_restore_and_a_reset() {
    let files = Files::new();
    let config = files.config(files.linux(), IrqchipMode::Kernel);
    let mut first = Bench::boot(&config);
    let console = first.machine.lifecycle.guest().serial.console().unwrap();
    assert_eq!(console.write_input(&[b'x'; 100]), 100);
    let saved = first.save();
    first.end(&config);
    let mut second = Bench::new(&config, &Start::from(saved)).unwrap();
    second.machine.lifecycle.reset().unwrap();
    let read = |port| Step::ReadPort { port, size: 1 };
    second.run(vec![read(0x3fd), read(0x3f8)]);
    let input = Event::PortRead {
        vp: 0,
        port: 0x3f8,
        data: vec![b'x'],
    };
    let events = second.hypervisor.take_events();
    assert!(events.contains(&input), "{events:?}");
    second.end(&config);
}

/// The encoding of [`SavedUnits`], which only units make.
#[derive(minicbor::Encode)]
#[cbor(map)]
struct Units {
    #[n(1)]
    units: Vec<SavedUnit>,
}

/// Replaces the state of one unit.
fn with_unit(saved: &SavedUnits, name: &str, state: Vec<u8>) -> Start {
    let mut units = saved.units().to_vec();
    let unit = units.iter_mut().find(|unit| unit.name == name).unwrap();
    unit.state = SavedState::from_bytes(state);
    let bytes = mesh::payload::encode(&Units { units });
    Start::from(SavedUnits::decode(&bytes).unwrap())
}

/// The state of the unit `firmware`.
#[derive(minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
struct Firmware {
    #[cbor(n(0), with = "minicbor::bytes")]
    code: Vec<u8>,
    #[n(1)]
    files: BTreeMap<String, Vec<u8>>,
    #[n(2)]
    hibernation: SavedState,
    #[n(3)]
    fresh: bool,
}

#[test]
fn impossible_saved_firmware_is_refused() {
    let files = Files::new();
    let mut config = files.config(files.uefi(), IrqchipMode::Kernel);
    config.memory.file = None;
    let mut bench = Bench::boot(&config);
    let saved = bench.save();
    bench.end(&config);
    let state = saved.get(firmware::SESSION_UNIT).unwrap();
    let code = |len: usize| {
        let mut code = vec![0xff; len];
        let end = len.min(CODE.len());
        code[len - end..].copy_from_slice(&CODE[CODE.len() - end..]);
        code
    };
    let refused = |change: &dyn Fn(&mut Firmware)| {
        let mut firmware: Firmware = state.decode().unwrap();
        change(&mut firmware);
        let bytes = mesh::payload::encode(&firmware);
        let start = with_unit(&saved, firmware::SESSION_UNIT, bytes);
        let error = Bench::new(&config, &start).err().unwrap();
        assert!(!error_chain::Chain(&error).to_string().is_empty());
    };
    for len in [0, 1, 15, 16, 4095, 4096, CODE.len() - 1, CODE.len() + 1] {
        refused(&|firmware| firmware.code = code(len));
    }
    for len in [12 << 20, 16 << 20, (16 << 20) + 4096, 64 << 20] {
        refused(&|firmware| firmware.code = code(len));
    }
    for name in [String::new(), "x".repeat(1000), "etc/\0".into()] {
        refused(&|firmware| drop(firmware.files.insert(name.clone(), vec![1])));
    }
    refused(&|firmware| {
        firmware
            .files
            .extend((0..70_000).map(|n| (format!("f{n}"), Vec::new())));
    });
}

const ROUNDS: usize = 6;

#[test]
fn damaged_states_of_units_are_refused_or_restored() {
    let files = Files::new();
    let mut config = files.config(files.uefi(), IrqchipMode::Split);
    config.memory.file = None;
    let mut bench = Bench::boot(&config);
    bench.run(busy_guest());
    let saved = bench.save();
    bench.end(&config);
    let mut seed = 1_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed as usize
    };
    for unit in saved.units() {
        let bytes = unit.state.as_bytes();
        for round in 0..ROUNDS {
            let mut bytes = bytes.to_vec();
            match round {
                0 => bytes.clear(),
                1 => bytes.truncate(bytes.len() / 2),
                2 => bytes = vec![0xa0],
                _ if bytes.is_empty() => continue,
                _ => {
                    for _ in 0..1 + random() % 3 {
                        let at = random() % bytes.len().min(if round % 2 == 0 { 64 } else { 4096 });
                        bytes[at] = random() as u8;
                    }
                }
            }
            let start = with_unit(&saved, &unit.name, bytes);
            // A damaged state may be that of another machine that can be.
            if let Ok(bench) = Bench::new(&config, &start) {
                let mut bench = bench;
                let _ = bench.machine.inspect();
                bench.machine.lifecycle.resume().unwrap();
                let _ = bench.machine.lifecycle.reset();
                bench.end(&config);
            }
        }
    }
}
