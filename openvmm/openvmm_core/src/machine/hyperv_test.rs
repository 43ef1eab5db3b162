//! Machines with the firmware of generation-2 VMs.

use super::*;
use crate::machine::test_bench::*;
use error_chain::Chain;
use firmware_hibernation::Override;
use openvmm_defs::config::LoadMode;
use openvmm_defs::config::VmConfig;
use openvmm_defs::start::BootOptions;
use ovmf_image::constructed;
use std::collections::BTreeMap;
use uefi_config::StructureType;
use uefi_config::structures;
use uefi_specs::bios_device::NvramCommand;
use uefi_specs::bios_device::NvramVariable;
use virt::IrqchipMode;
use virt_fake::Event;
use vm_memory::Bytes as _;
use vm_memory::GuestAddress;
use zerocopy::FromBytes as _;
use zerocopy::IntoBytes as _;

const CONFIG: u64 = 0x70_9000;

fn config(files: &Files) -> VmConfig {
    files.config(files.hyperv(), IrqchipMode::Kernel)
}

fn memory(bench: &mut Bench, gpa: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let memory = bench.machine.lifecycle.guest().memory.clone();
    memory
        .map()
        .read_slice(&mut bytes, GuestAddress(gpa))
        .unwrap();
    bytes
}

/// The payloads of the configuration in guest memory, by type.
fn told(bench: &mut Bench) -> BTreeMap<u32, Vec<u8>> {
    let start = memory(bench, CONFIG, 16);
    let len = u32::from_le_bytes(start[12..16].try_into().unwrap());
    let blob = memory(bench, CONFIG, len as usize);
    let structures = structures(&blob).unwrap().into_iter();
    structures
        .map(|structure| (structure.kind, blob[structure.payload].to_vec()))
        .collect()
}

fn payload(told: &BTreeMap<u32, Vec<u8>>, kind: StructureType) -> &[u8] {
    &told[&kind.number()]
}

#[test]
fn firmware_and_configuration_are_in_memory() {
    let files = Files::new();
    let mut bench = Bench::boot(&config(&files));
    assert!(memory(&mut bench, 0x10_0000, 6 << 20) == constructed::msvm());
    let told = told(&mut bench);
    let map = payload(&told, StructureType::MemoryMap);
    assert_eq!(map, [&[0; 8][..], &RAM.to_le_bytes(), &[0; 8]].concat());
    let processors = payload(&told, StructureType::ProcessorInformation);
    let expected: Vec<u8> = [2_u32, 2, 2, 1]
        .iter()
        .flat_map(|n| n.to_le_bytes())
        .collect();
    assert_eq!(processors, expected);
    assert_eq!(payload(&told, StructureType::BiosGuid), [7; 16]);
    let image = payload(&told, StructureType::BiosInformation);
    assert_eq!(image, [0, 6, 0, 0, 0, 0, 0, 0]);
    // There are PCI functions.
    let aperture = payload(&told, StructureType::PcieApertures);
    assert_eq!(aperture[8..16], 0xc000_0000_u64.to_le_bytes());
    assert_eq!(aperture[16..24], 0x3800_0000_u64.to_le_bytes());
    for (kind, expected) in [
        (StructureType::SystemManufacturer, &b"OpenVMM\0"[..]),
        (StructureType::SystemProduct, b"Virtual Machine\0"),
        (StructureType::SystemVersion, b"hyperv-uefi\0"),
        (StructureType::ProcessorManufacturer, b"OpenVMM\0"),
    ] {
        assert!(payload(&told, kind).starts_with(expected));
    }
}

#[test]
fn every_processor_has_the_memory_types() {
    let files = Files::new();
    let bench = Bench::boot(&config(&files));
    let events = bench.hypervisor.events();
    for vp in 0..2 {
        let set = events.iter().find_map(|event| match event {
            Event::SetMsrs { vp: of, msrs } if *of == vp => Some(msrs),
            _ => None,
        });
        let set = set.unwrap();
        for msr in [
            (0x250, 0x0606_0606_0606_0606),
            (0x258, 0x0606_0606_0606_0606),
            (0x2ff, 0xc00),
            (0x200, 6),
        ] {
            assert!(set.contains(&msr), "{vp}: {msr:x?} in {set:x?}");
        }
        // 64 MiB of RAM.
        let (_, mask) = set.iter().find(|(index, _)| *index == 0x201).unwrap();
        assert_eq!(mask & 0xffff_ffff, 0xfc00_0800);
    }
}

#[test]
fn random_bytes_are_fresh_after_each_reset_and_nothing_else_is() {
    let files = Files::new();
    let mut bench = Bench::boot(&config(&files));
    let mut first = told(&mut bench);
    // The reset register of the power-management block.
    bench.hypervisor.push(0, [out(0x433, &[1])]);
    bench.machine.lifecycle.resume().unwrap();
    bench.power_request();
    let mut second = told(&mut bench);
    let entropy = StructureType::Entropy.number();
    let (a, b) = (first.remove(&entropy), second.remove(&entropy));
    assert_ne!(a, b);
    assert_ne!(a.unwrap(), [0; 64]);
    assert_eq!(first, second);
    assert!(bench.take_events().contains(&"Reset".to_owned()));
    bench.machine.stop();
}

#[test]
fn a_hibernated_guest_keeps_image_and_configuration() {
    let files = Files::new();
    let mut config = config(&files);
    let mut bench = Bench::boot(&config);
    let mut told_first = told(&mut bench);
    hibernate_generation_2(&mut bench);
    let events = bench.take_events();
    assert_eq!(events.last().unwrap(), "halted hibernate");
    bench.end(&config);

    // The host has another build, and would give other settings.
    let mut other = constructed::msvm();
    other[0x1000] ^= 1;
    std::fs::write(files.path("MSVM.fd"), &other).unwrap();
    if let LoadMode::HypervUefi(uefi) = &mut config.load_mode {
        uefi.settings.dma_bounce = true;
    }
    let mut bench = Bench::boot(&config);
    assert!(bench.take_events().contains(&"restored".to_owned()));
    assert!(memory(&mut bench, 0x10_0000, 6 << 20) == constructed::msvm());
    let mut told_second = told(&mut bench);
    let entropy = StructureType::Entropy.number();
    assert_ne!(told_first.remove(&entropy), told_second.remove(&entropy));
    assert_eq!(told_first, told_second);
    // No operating system has taken over before it powers off, so the session goes on until it is discarded.
    bench
        .hypervisor
        .push(0, [out(0x404, &0x2000_u16.to_le_bytes())]);
    bench.machine.lifecycle.resume().unwrap();
    bench.power_request();
    bench.end(&config);
    let mut bench = Bench::boot(&config);
    assert!(memory(&mut bench, 0x10_0000, 6 << 20) == constructed::msvm());
    bench.end(&config);
    let discard = BootOptions {
        hibernation_override: Some(Override::Discard),
        ..BootOptions::default()
    };
    let mut bench = Bench::new(&config, &Start::Boot(discard)).unwrap();
    assert!(memory(&mut bench, 0x10_0000, 6 << 20) == other);
    bench.end(&config);
}

/// Has the guest carry out a command of the UEFI device for the variable `test`, and returns what is in the structure
/// after that.
fn variable_command(bench: &mut Bench, command: NvramCommand, data: &[u8]) -> NvramVariable {
    const REQUEST: u32 = 0x9000;
    const NAME: u64 = 0xa000;
    let name = b"t\0e\0s\0t\0\0\0";
    let request = NvramVariable {
        command: command.0.into(),
        status: u64::MAX.into(),
        // Non-volatile, for boot and runtime.
        attributes: 7.into(),
        name: NAME.into(),
        name_len: (name.len() as u32).into(),
        vendor: [3; 16],
        data: DATA.into(),
        data_len: (data.len() as u32).into(),
    };
    let ram = bench.machine.lifecycle.guest().memory.clone();
    let write = |bytes: &[u8], gpa| ram.map().write_slice(bytes, GuestAddress(gpa)).unwrap();
    write(name, NAME);
    write(data, DATA);
    write(request.as_bytes(), REQUEST.into());
    bench.run(vec![
        out(0x28, &0x24_u32.to_le_bytes()),
        out(0x2c, &REQUEST.to_le_bytes()),
    ]);
    let answer = memory(bench, REQUEST.into(), size_of::<NvramVariable>());
    NvramVariable::read_from_bytes(&answer).unwrap()
}

const DATA: u64 = 0xb000;

#[test]
fn variables_survive_the_machine() {
    let files = Files::new();
    let mut config = config(&files);
    if let LoadMode::HypervUefi(uefi) = &mut config.load_mode {
        uefi.device.secure_boot.is_enabled = true;
    }
    let mut bench = Bench::boot(&config);
    let set = variable_command(&mut bench, NvramCommand::SET_VARIABLE, b"kept");
    assert_eq!(set.status.get(), 0);
    let saved = bench.save();
    bench.end(&config);
    for start in [Start::default(), Start::from(saved)] {
        let mut bench = Bench::new(&config, &start).unwrap();
        let got = variable_command(&mut bench, NvramCommand::GET_VARIABLE, &[0; 8]);
        assert_eq!((got.status.get(), got.data_len.get()), (0, 4));
        assert_eq!(memory(&mut bench, DATA, 4), b"kept");
        let place = &bench.machine.inspect()["units"]["uefi"]["variables"]["place"];
        assert_eq!(place, "VMGS file BIOS_NVRAM");
        bench.end(&config);
    }
    config.vmgs = None;
    let mut bench = Bench::boot(&config);
    let got = variable_command(&mut bench, NvramCommand::GET_VARIABLE, &[0; 8]);
    assert_eq!(got.status.get(), 14);
    bench.machine.stop();
}

#[test]
fn a_resumed_guest_ends_its_session_when_it_takes_over() {
    let files = Files::new();
    let config = config(&files);
    let mut bench = Bench::boot(&config);
    hibernate_generation_2(&mut bench);
    bench.end(&config);
    let mut other = constructed::msvm();
    other[0x1000] ^= 1;
    std::fs::write(files.path("MSVM.fd"), &other).unwrap();

    let mut bench = Bench::boot(&config);
    assert!(memory(&mut bench, 0x10_0000, 6 << 20) == constructed::msvm());
    variable_command(&mut bench, NvramCommand::SIGNAL_RUNTIME, &[]);
    bench.end(&config);
    // The next start is not a resume, and has the host's firmware.
    let mut bench = Bench::boot(&config);
    assert!(memory(&mut bench, 0x10_0000, 6 << 20) == other);
    bench.end(&config);
}

#[test]
fn a_hibernated_guest_is_not_started_on_another_kind_of_machine() {
    let files = Files::new();
    let config = config(&files);
    let mut bench = Bench::boot(&config);
    hibernate_generation_2(&mut bench);
    bench.end(&config);
    let pc = VmConfig {
        load_mode: files.uefi(),
        ..config.clone()
    };
    let error = Bench::new(&pc, &Start::default()).err().unwrap();
    assert!(error.is_refused_resume(), "{}", Chain(&error));
}

#[test]
fn a_saved_machine_is_restored_and_resets_with_its_firmware() {
    let files = Files::new();
    let config = config(&files);
    let mut bench = Bench::boot(&config);
    let mut told_first = told(&mut bench);
    bench.run(vec![out(0x40e, &0x0101_u16.to_le_bytes())]);
    let saved = bench.save();
    bench.end(&config);

    std::fs::remove_file(files.path("MSVM.fd")).unwrap();
    let mut bench = Bench::new(&config, &Start::from(saved.clone())).unwrap();
    assert_eq!(bench.save(), saved);
    bench.hypervisor.push(0, [out(0x433, &[1])]);
    bench.machine.lifecycle.resume().unwrap();
    bench.power_request();
    assert!(memory(&mut bench, 0x10_0000, 6 << 20) == constructed::msvm());
    let mut told_second = told(&mut bench);
    let entropy = StructureType::Entropy.number();
    told_first.remove(&entropy);
    told_second.remove(&entropy);
    assert_eq!(told_first, told_second);
    bench.machine.stop();
}

#[test]
fn what_is_no_such_firmware_is_refused() {
    let files = Files::new();
    let config = config(&files);
    let path = files.path("MSVM.fd");
    for (content, expected) in [
        (constructed::msvm_with(0x10, b"MZ"), "header"),
        (CODE.clone(), "it is OVMF"),
        (vec![1; 100], "4 KiB"),
    ] {
        std::fs::write(&path, content).unwrap();
        let error = Bench::new(&config, &Start::default()).err().unwrap();
        let text = Chain(&error).to_string();
        assert!(
            text.contains("MSVM.fd") && text.contains(expected),
            "{text}"
        );
        assert!(error.is_config());
    }
}

#[test]
fn a_machine_without_pci_functions_has_no_pci() {
    let files = Files::new();
    let mut config = config(&files);
    config.pci_devices.clear();
    let mut bench = Bench::boot(&config);
    let units = bench.machine.inspect()["units"].clone();
    assert!(units.get("host-bridge").is_none());
    assert!(units.get("i8042").is_none());
    let told = told(&mut bench);
    assert!(!told.contains_key(&StructureType::PcieApertures.number()));
    bench.machine.stop();
}
