//! Whole machines are saved to snapshots, and made from them again.

use super::*;
use crate::machine::test_bench::*;
use openvmm_defs::start::Start;
use std::fs;
use std::os::unix::fs::FileExt as _;
use virt::IrqchipMode;
use virt_fake::Event;
use virt_fake::FakeHypervisor;
use virt_fake::Step;

/// A configuration with a disk that several machines can have.
fn shared_config(files: &Files, uefi: bool, irqchip: IrqchipMode) -> VmConfig {
    let mut config = config(files, uefi, irqchip);
    let disk = format!("file:{},ro", files.path("disk").display());
    let disk = disk.parse().unwrap();
    config.pci_devices[0] = pci("disk0", 1, &VirtioBlkHandle { disk });
    config
}

/// A configuration whose disk is a file.
fn config(files: &Files, uefi: bool, irqchip: IrqchipMode) -> VmConfig {
    let load_mode = match uefi {
        true => files.uefi(),
        false => files.linux(),
    };
    let mut config = files.config(load_mode, irqchip);
    let disk = files.path("disk");
    fs::write(&disk, vec![7; 1 << 20]).unwrap();
    let disk = format!("file:{}", disk.display()).parse().unwrap();
    config.pci_devices[0] = pci("disk0", 1, &VirtioBlkHandle { disk });
    config.memory.file = None;
    // Only one machine can have it.
    config.chipset_devices.truncate(1);
    config
}

fn save(
    bench: &mut Bench,
    config: &VmConfig,
    dir: &Path,
) -> Result<SavedSnapshot, SaveSnapshotError> {
    bench.machine.save_snapshot(SnapshotRequest {
        dir,
        config,
        host: HostKind::Unknown,
        progress: &mut |_, _| {},
    })
}

/// A snapshot of a machine that has ended.
fn saved(files: &Files, config: &VmConfig) -> PathBuf {
    let mut bench = Bench::boot(config);
    let dir = files.path("snapshot");
    save(&mut bench, config, &dir).unwrap();
    bench.end(config);
    dir
}

fn restored(dir: &Path) -> (VmConfig, Bench) {
    let RestorableVm { config, saved } = open_snapshot(dir).unwrap();
    let bench = Bench::new(&config, &Start::Restore(Box::new(saved))).unwrap();
    (config, bench)
}

/// Ends a machine whose VMGS file others may have open.
fn end(mut bench: Bench) {
    bench.machine.stop();
}

fn same_units(left: &SavedUnits, right: &SavedUnits) {
    for (before, after) in left.units().iter().zip(right.units()) {
        assert_eq!(before.name, after.name);
        // It is new for each copy.
        let copied = ["generation-id", "pm", "uefi"].contains(&before.name.as_str());
        assert!(copied || before == after, "unit {}", before.name);
    }
    assert_eq!(left.units().len(), right.units().len());
}

#[test]
fn a_machine_is_saved_and_restored_any_number_of_times() {
    for uefi in [false, true] {
        for irqchip in [IrqchipMode::Kernel, IrqchipMode::Split] {
            let files = Files::new();
            let config = shared_config(&files, uefi, irqchip);
            let mut first = Bench::boot(&config);
            first.run(busy_guest());
            let units = first.save();
            let dir = files.path("snapshot");
            let saved = save(&mut first, &config, &dir).unwrap();
            assert_eq!((saved.memory, saved.paused_ms), (RAM, 0));
            assert!(saved.stored < 1 << 20, "{saved:?}");
            // The original goes on, and what it does has no effect on the snapshot.
            first.run(vec![Step::WriteMemory {
                gpa: 0x10_0000,
                data: b"changed".to_vec(),
            }]);
            first.end(&config);

            let before = fs::read(dir.join("memory.bin")).unwrap();
            let (second_config, mut second) = restored(&dir);
            let (_, mut third) = restored(&dir);
            for bench in [&mut second, &mut third] {
                same_units(&units, &bench.save());
                bench.run(vec![
                    Step::ReadMemory {
                        gpa: 0x10_0000,
                        size: 8,
                    },
                    Step::WriteMemory {
                        gpa: 0x10_0000,
                        data: b"mine".to_vec(),
                    },
                ]);
                bench.machine.lifecycle.reset().unwrap();
            }
            // One more generation.
            let next = files.path("next");
            let units = second.save();
            save(&mut second, &second_config, &next).unwrap();
            let (_, mut fourth) = restored(&next);
            same_units(&units, &fourth.save());
            end(fourth);
            end(second);
            end(third);
            assert!(fs::read(dir.join("memory.bin")).unwrap() == before);
        }
    }
}

#[test]
fn a_running_machine_goes_on_after_it_was_saved_and_after_it_was_not() {
    let files = Files::new();
    let config = config(&files, false, IrqchipMode::Kernel);
    let mut bench = Bench::boot(&config);
    bench.machine.lifecycle.resume().unwrap();
    bench.take_events();
    save(&mut bench, &config, &files.path("snapshot")).unwrap();
    assert_eq!(bench.take_events(), ["Paused", "Resumed"]);
    assert_eq!(bench.machine.lifecycle.state(), MachineState::Running);
    let error = save(&mut bench, &config, &files.path("snapshot")).unwrap_err();
    assert!(error.to_string().contains("exists"), "{error}");
    assert_eq!(bench.take_events(), [""; 0]);
    bench.end(&config);
}

#[test]
fn what_cannot_be_saved_is_named_before_anything_is_written() {
    let files = Files::new();
    let dir = files.path("snapshot");
    for disk in [
        "mem:1M".to_owned(),
        format!("memdiff:{}", files.path("disk").display()),
    ] {
        let mut config = config(&files, false, IrqchipMode::Kernel);
        let disk = disk.parse().unwrap();
        config.pci_devices[0] = pci("disk0", 1, &VirtioBlkHandle { disk });
        let mut bench = Bench::boot(&config);
        let error = save(&mut bench, &config, &dir).unwrap_err();
        assert!(error.to_string().contains("disk0"), "{error}");
        assert!(!dir.exists());
        bench.machine.lifecycle.stop();
        assert!(matches!(
            save(&mut bench, &config, &dir),
            Err(SaveSnapshotError::Halted)
        ));
        bench.end(&config);
    }
}

fn refused(dir: &Path, change: impl FnOnce(&mut RestorableVm)) -> String {
    let mut vm = open_snapshot(dir).unwrap();
    change(&mut vm);
    let start = Start::Restore(Box::new(vm.saved));
    let hypervisor = FakeHypervisor::new();
    let error = Bench::on(hypervisor.clone(), &vm.config, &start)
        .err()
        .unwrap();
    // Nothing was created.
    assert_eq!(hypervisor.events(), Vec::<Event>::new());
    error_chain::Chain(&error).to_string()
}

#[test]
fn a_disk_that_is_not_what_it_was_is_refused() {
    let files = Files::new();
    let config = config(&files, false, IrqchipMode::Kernel);
    let dir = saved(&files, &config);
    let other = |text: &str| {
        let disk = text.parse().unwrap();
        pci("disk0", 1, &VirtioBlkHandle { disk })
    };
    let text = refused(&dir, |vm| drop(vm.config.pci_devices.remove(0)));
    assert!(text.contains("disk0"), "{text}");
    let text = refused(&dir, |vm| vm.config.pci_devices[0] = other("mem:2M"));
    assert!(text.contains("size"), "{text}");
    let disk = files.path("disk");
    let read_only = format!("file:{},ro", disk.display());
    let text = refused(&dir, |vm| vm.config.pci_devices[0] = other(&read_only));
    assert!(text.contains("read-only"), "{text}");
    // A copy is as good.
    let copy = files.path("copy");
    fs::copy(&disk, &copy).unwrap();
    let mut vm = open_snapshot(&dir).unwrap();
    vm.config.pci_devices[0] = other(&format!("memdiff:{}", copy.display()));
    let bench = Bench::new(&vm.config, &Start::Restore(Box::new(vm.saved))).unwrap();
    bench.end(&vm.config);
    let file = fs::File::options().write(true).open(&disk).unwrap();
    file.write_all_at(&[8], 1000).unwrap();
    file.set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(9))
        .unwrap();
    drop(file);
    let text = refused(&dir, |_| {});
    assert!(text.contains("was written after"), "{text}");
}

#[test]
fn a_host_without_the_guest_s_features_is_refused() {
    let files = Files::new();
    let config = config(&files, false, IrqchipMode::Kernel);
    let hypervisor = FakeHypervisor::new();
    hypervisor.set_features(1 << 28 | 1);
    let mut bench = Bench::on(hypervisor, &config, &Start::default()).unwrap();
    let dir = files.path("snapshot");
    save(&mut bench, &config, &dir).unwrap();
    bench.end(&config);
    let text = refused(&dir, |_| {});
    assert!(text.contains("avx"), "{text}");
    let vm = open_snapshot(&dir).unwrap();
    let hypervisor = FakeHypervisor::new();
    hypervisor.set_features(!0);
    let bench = Bench::on(hypervisor, &vm.config, &Start::Restore(Box::new(vm.saved)));
    bench.unwrap().end(&vm.config);
}

#[test]
fn the_generation_id_of_each_copy_is_new_and_announced() {
    let files = Files::new();
    let config = shared_config(&files, true, IrqchipMode::Kernel);
    let mut bench = Bench::boot(&config);
    let dir = files.path("snapshot");
    save(&mut bench, &config, &dir).unwrap();
    let id = |bench: &mut Bench| {
        bench.machine.inspect()["units"]["generation-id"]["id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let original = id(&mut bench);
    let units = bench.save();
    bench.end(&config);
    let (_, mut one) = restored(&dir);
    let (_, mut two) = restored(&dir);
    let (first, second) = (id(&mut one), id(&mut two));
    assert!(first != original && second != original && first != second);
    // The event is pending.
    assert_ne!(units.get("pm"), one.save().get("pm"));
    // It stays over a reset.
    one.machine.lifecycle.reset().unwrap();
    assert_eq!(id(&mut one), first);
    end(one);
    end(two);
}

#[test]
fn a_device_without_state_is_refused_before_anything_is_created() {
    let files = Files::new();
    let config = config(&files, false, IrqchipMode::Kernel);
    let mut less = config.clone();
    less.pci_devices.pop();
    let dir = saved(&files, &less);
    let text = refused(&dir, |vm| vm.config.pci_devices = config.pci_devices);
    assert!(text.contains("rng0"), "{text}");
}

#[test]
fn another_set_of_units_is_refused() {
    let files = Files::new();
    let config = config(&files, false, IrqchipMode::Kernel);
    let dir = saved(&files, &config);
    let mut vm = open_snapshot(&dir).unwrap();
    vm.config.pci_devices.pop();
    let start = Start::Restore(Box::new(vm.saved));
    let error = Bench::new(&vm.config, &start).err().unwrap();
    let text = error_chain::Chain(&error).to_string();
    assert!(text.contains("rng0"), "{text}");
}
