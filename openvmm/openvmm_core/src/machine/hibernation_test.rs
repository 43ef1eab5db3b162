//! Hibernation of whole machines.

use super::*;
use crate::machine::test_bench::*;
use disk_spec::VirtioBlkHandle;
use firmware_hibernation::Collected;
use firmware_hibernation::Collector;
use firmware_hibernation::ConsumePolicy;
use firmware_hibernation::Override;
use firmware_hibernation::RESET_VECTOR;
use firmware_hibernation::Record;
use firmware_hibernation::RecordReader;
use machine_parts::Ending;
use machine_parts::Guest as _;
use machine_parts::HaltReason;
use openvmm_defs::start::BootOptions;
use ovmf_image::constructed;
use platform_digest::AddressRange;
use platform_digest::DiskContent;
use platform_digest::MmioRange;
use platform_digest::PlatformDisk;
use std::time::Duration;
use virt::IrqchipMode;

#[test]
fn a_stop_keeps_the_token_and_says_so() {
    let files = Files::new();
    let config = files.config(files.uefi(), IrqchipMode::Kernel);
    let mut bench = Bench::boot(&config);
    hibernate(&mut bench);
    let events = bench.take_events();
    assert_eq!(events.last().unwrap(), "halted hibernate", "{events:?}");
    bench.end(&config);

    let mut bench = Bench::boot(&config);
    bench.machine.lifecycle.resume().unwrap();
    bench.machine.stop();
    let events = bench.take_events();
    assert!(events.contains(&"restored".to_owned()), "{events:?}");
    assert!(events.contains(&"token_kept".to_owned()), "{events:?}");
}

#[test]
fn a_hibernated_session_can_be_discarded() {
    let files = Files::new();
    let config = hibernated(&files);
    let bench = Bench::new(
        &config,
        &Start::Boot(BootOptions {
            hibernation_override: Some(Override::Discard),
            ..BootOptions::default()
        }),
    )
    .unwrap();
    assert_eq!(bench.take_events(), ["discarded", "captured"]);
    bench.end(&config);
    let bench = Bench::boot(&config);
    assert_eq!(bench.take_events(), ["captured"]);
    bench.end(&config);
}

/// The port of the sleep announcements, and what `_PTS` and `_WAK` write there.
const SLEEP: u16 = 0x506;
const PTS: u8 = 0x10;
const WAK: u8 = 0x20;

/// Powers the machine off, without telling anything first.
fn power_off(bench: &mut Bench) {
    bench.hypervisor.push(0, [out(0x604, &[0, 0x20])]);
    bench.machine.lifecycle.resume().unwrap();
    bench.power_request();
}

/// What a start from a token shows of each program that then powers the machine off or resets it.
#[test]
fn the_token_goes_when_an_operating_system_has_taken_over() {
    enum End {
        PowerOff,
        Reset,
    }
    use ConsumePolicy::Handoff;
    use ConsumePolicy::NextTransition;
    let kept = "token_kept";
    for (who, announced, end, policy, expected) in [
        (
            "GRUB's halt, the UEFI shell's reset -s",
            &[][..],
            End::PowerOff,
            Handoff,
            kept,
        ),
        ("a boot loader that resets", &[], End::Reset, Handoff, kept),
        (
            "a crashed kernel that resets",
            &[],
            End::Reset,
            Handoff,
            kept,
        ),
        (
            "Linux at a passphrase prompt",
            &[PTS | 5],
            End::PowerOff,
            Handoff,
            kept,
        ),
        (
            "Linux as a boot loader that resets",
            &[PTS | 5],
            End::Reset,
            Handoff,
            kept,
        ),
        (
            "firmware that resumes from S3",
            &[WAK | 3],
            End::PowerOff,
            Handoff,
            kept,
        ),
        (
            "a resumed guest",
            &[WAK | 4, PTS | 5],
            End::PowerOff,
            Handoff,
            "consumed",
        ),
        (
            "a resumed guest that uses kexec",
            &[WAK | 4],
            End::Reset,
            Handoff,
            "consumed",
        ),
        (
            "a new system that suspended",
            &[PTS | 3, WAK | 3, PTS | 5],
            End::PowerOff,
            Handoff,
            "token_cleared",
        ),
        (
            "a new system that failed to hibernate",
            &[PTS | 4, WAK | 4, PTS | 5],
            End::PowerOff,
            Handoff,
            "token_cleared",
        ),
        (
            "the same, and then resets",
            &[PTS | 4, WAK | 4],
            End::Reset,
            Handoff,
            "token_cleared",
        ),
        ("GRUB's halt", &[], End::PowerOff, NextTransition, kept),
        (
            "any operating system",
            &[PTS | 5],
            End::PowerOff,
            NextTransition,
            "token_cleared",
        ),
        (
            "a resumed guest",
            &[WAK | 4, PTS | 5],
            End::PowerOff,
            NextTransition,
            "token_cleared",
        ),
    ] {
        let files = Files::new();
        let mut config = hibernated(&files);
        config.hibernation.consume = policy;
        let mut bench = Bench::boot(&config);
        if !announced.is_empty() {
            bench.run(announced.iter().map(|byte| out(SLEEP, &[*byte])).collect());
        }
        match end {
            End::PowerOff => power_off(&mut bench),
            End::Reset => bench.machine.lifecycle.reset().unwrap(),
        }
        let events = bench.take_events();
        for event in ["token_kept", "consumed", "token_cleared"] {
            let seen = events.contains(&event.to_owned());
            assert_eq!(
                seen,
                event == expected,
                "{who} ({policy}): {event} in {events:?}"
            );
        }
        drop(bench);
    }
}

#[test]
fn sleep_announcements_tell_whether_the_guest_resumed() {
    let happened = |bench: &Bench, event: &str| bench.take_events().iter().any(|e| e == event);
    let files = Files::new();
    let config = hibernated(&files);
    let mut bench = Bench::boot(&config);
    // Firmware resets before there is a guest.
    bench.machine.lifecycle.reset().unwrap();
    assert!(happened(&bench, "token_kept"));
    // Woke from S3, and from S4.
    bench.run(vec![out(SLEEP, &[WAK | 3])]);
    assert!(!happened(&bench, "consumed"));
    bench.run(vec![out(SLEEP, &[WAK | 4])]);
    assert!(happened(&bench, "consumed"));
    bench.end(&config);

    // Prepares to enter S4: a guest runs that did not resume.
    let files = Files::new();
    let config = hibernated(&files);
    let mut bench = Bench::boot(&config);
    bench.run(vec![out(SLEEP, &[PTS | 4])]);
    let guest = bench.machine.lifecycle.guest();
    guest.settle(Ending::Halted(&HaltReason::Reset)).unwrap();
    assert!(happened(&bench, "token_cleared"));
    bench.end(&config);
}

/// The override starts other firmware, or the same with other tables: a reset must not go on with them as if they were
/// the stored ones.
#[test]
fn a_reset_does_not_go_on_with_other_firmware_than_the_stored() {
    let other_code = |files: &Files| {
        let code = constructed::code(2 << 20, constructed::Smm::Without);
        std::fs::write(files.path("OVMF_CODE.fd"), code).unwrap();
    };
    let other_tables = |files: &Files| {
        // As if another version of the VMM had stored them.
        change_pinned_file(&mut store(files));
    };
    for (change, what) in [
        (&other_code as &dyn Fn(&Files), "code"),
        (&other_tables, "etc/acpi/tables"),
    ] {
        let files = Files::new();
        let config = hibernated(&files);
        change(&files);
        let current = Start::Boot(BootOptions {
            hibernation_override: Some(Override::CurrentFirmware),
            ..BootOptions::default()
        });
        let mut bench = Bench::new(&config, &current).unwrap();
        assert_eq!(bench.take_events(), ["current_firmware_used"]);
        let error = bench.machine.lifecycle.reset().unwrap_err();
        let text = error_chain::Chain(&error).to_string();
        assert!(text.contains(&format!("there differ: {what}")), "{text}");
        let events = bench.take_events();
        assert!(events.contains(&"refused".to_owned()), "{events:?}");
        assert!(!events.contains(&"restored".to_owned()), "{events:?}");
        drop(bench);
    }
    // Without a change the reset goes on.
    let files = Files::new();
    let config = hibernated(&files);
    let mut bench = Bench::boot(&config);
    bench.take_events();
    bench.machine.lifecycle.reset().unwrap();
    let events = bench.take_events();
    assert!(!events.contains(&"refused".to_owned()), "{events:?}");
    bench.run(vec![out(SLEEP, &[WAK | 4])]);
    let events = bench.take_events();
    assert!(events.contains(&"consumed".to_owned()), "{events:?}");
    bench.end(&config);
}

fn store(files: &Files) -> vmgs::Vmgs {
    let device = vmgs::FileDevice::open(&files.path("vm.vmgs"), vmgs::Container::Detect, ACCESS);
    vmgs::Vmgs::open(Box::new(device.unwrap()), vmgs::OpenOptions::default()).unwrap()
}

/// The record of the stored firmware.
fn record(store: &mut vmgs::Vmgs) -> (Record, Collected) {
    let bytes = store.read(vmgs::FileId::HIBERNATION_FIRMWARE).unwrap();
    let mut reader = RecordReader::new(bytes.len() as u64);
    let mut collector = Collector::default();
    reader.push(&bytes, &mut collector).unwrap();
    let (record, _) = reader.finish().unwrap();
    (record, collector.finish().unwrap())
}

/// Replaces the record of the stored firmware by one with another ACPI table.
fn change_pinned_file(store: &mut vmgs::Vmgs) {
    use firmware_hibernation::FirmwareDescription;
    use firmware_hibernation::FirmwareImage;
    use firmware_hibernation::NewRecord;
    let (record, mut collected) = record(store);
    let tables = collected.pinned.get_mut("etc/acpi/tables").unwrap();
    *tables.last_mut().unwrap() ^= 1;
    let [part] = &record.parts()[..] else {
        panic!("one part");
    };
    let image = FirmwareImage::new().part(part.name.clone(), part.gpa, &**CODE);
    let new = NewRecord::new(
        &FirmwareDescription::reset_vector(),
        image,
        &collected.pinned,
        &collected.platform,
    );
    let mut changed = Vec::new();
    std::io::Read::read_to_end(&mut new.unwrap().stream(), &mut changed).unwrap();
    let id = vmgs::FileId::HIBERNATION_FIRMWARE;
    store.write(id, vmgs::Protection::Plain, &changed).unwrap();
}

/// What two versions of the VMM say of the same machine is compared, so each part is as stated here.
#[test]
fn the_stored_machine_is_the_one_that_the_guest_runs_on() {
    let range = |name: &str, start, length| MmioRange {
        name: name.into(),
        range: AddressRange::new(start, length),
    };
    let ecam = range("ecam", 0xb000_0000, 1 << 20);
    let pci64 = range("pci64", 32 << 30, 32 << 30);
    let pc = [
        ecam.clone(),
        range("pci32", 0xc000_0000, 0x3c00_0000),
        pci64.clone(),
    ];
    let generation_2 = [
        range("chipset32", 0xf800_0000, 0x800_0000),
        ecam,
        range("pci32", 0xc000_0000, 0x3800_0000),
        pci64,
    ];
    let files = Files::new();
    let sec_core = loader::msvm::MsvmImage::new(constructed::msvm().into()).unwrap();
    for (load_mode, mmio, entry) in [
        (files.uefi(), &pc[..], RESET_VECTOR),
        (files.hyperv(), &generation_2, sec_core.entry_gpa()),
    ] {
        let config = files.config(load_mode, IrqchipMode::Kernel);
        Bench::boot(&config).end(&config);
        let (record, Collected { platform, .. }) = record(&mut store(&files));
        assert_eq!(record.entry_gpa, entry);
        assert_eq!(platform.ram, [AddressRange::new(0, RAM)]);
        assert_eq!(platform.mmio, mmio);
        assert_eq!(platform.apic_ids, [0, 1]);
        assert!(platform.acpi.length > 0 && platform.smbios.length > 0);
        let devices = platform.devices.iter().map(|device| &*device.name);
        assert_eq!(
            devices.collect::<Vec<_>>(),
            ["com1", "com2", "disk0", "rng0"]
        );
        let disk = PlatformDisk {
            name: "disk0".into(),
            size: 1 << 20,
            sector: 512,
            read_only: false,
            serial: String::new(),
            content: DiskContent::NotRead,
        };
        assert_eq!(platform.disks, Some(vec![disk]));
        let processor = platform.processor.unwrap();
        assert_eq!(
            (processor.vps_per_socket, processor.threads_per_core),
            (2, 1)
        );
        assert!(!processor.cpuid.is_empty());
        assert_eq!(platform.boot_files, Some(Vec::new()));
    }
}

/// The firmware's entry is part of what is stored for the guest, and of what a saved machine has.
#[test]
fn a_machine_that_was_restored_hibernates_and_resumes() {
    let files = Files::new();
    let config = files.config(files.hyperv(), IrqchipMode::Kernel);
    let mut bench = Bench::boot(&config);
    let saved = bench.save();
    bench.end(&config);
    let entry = record(&mut store(&files)).0.entry_gpa;
    let mut bench = Bench::new(&config, &Start::from(saved)).unwrap();
    hibernate_generation_2(&mut bench);
    let state = &bench.machine.inspect()["units"]["firmware"];
    assert_eq!(state["record"]["entry_gpa"], entry);
    bench.end(&config);
    let (record, Collected { platform, .. }) = record(&mut store(&files));
    assert_eq!(record.entry_gpa, entry);
    let disks = platform.disks.unwrap();
    assert_ne!(
        disks[0].content,
        DiskContent::NotRead,
        "stored as it is now"
    );
    let bench = Bench::boot(&config);
    assert!(bench.take_events().contains(&"restored".to_owned()));
    bench.end(&config);
}

/// A resume needs the stored firmware, and not the host's.
#[test]
fn a_guest_resumes_without_firmware_on_the_host() {
    for garbage in [None, Some(b"garbage")] {
        let files = Files::new();
        let config = hibernated(&files);
        let path = files.path("OVMF_CODE.fd");
        match garbage {
            None => std::fs::remove_file(path).unwrap(),
            Some(bytes) => std::fs::write(path, bytes).unwrap(),
        }
        let bench = Bench::boot(&config);
        let events = bench.take_events();
        assert!(events.contains(&"restored".to_owned()), "{events:?}");
        bench.end(&config);
        // A cold start does.
        let discard = Start::Boot(BootOptions {
            hibernation_override: Some(Override::Discard),
            ..BootOptions::default()
        });
        let error = Bench::new(&config, &discard).err().unwrap();
        assert!(matches!(error, MachineError::Boot(_)), "{error}");
    }
}

/// A store that was made on purpose, beside the note of another that had its name.
#[test]
fn a_note_of_another_store_is_not_believed() {
    let files = Files::new();
    let config = hibernated(&files);
    let store = files.path("vm.vmgs");
    std::fs::remove_file(&store).unwrap();
    let file = std::fs::File::create_new(&store).unwrap();
    vmgs::create_file(&file, 64 << 20, vmgs::Container::Vhd1, None).unwrap();
    drop(file);
    let device = vmgs::FileDevice::open(&store, vmgs::Container::Detect, ACCESS).unwrap();
    drop(vmgs::Vmgs::format(Box::new(device), vmgs::OpenOptions::default()).unwrap());

    let mut bench = Bench::boot(&config);
    let events = bench.take_events();
    assert!(events.contains(&"captured".to_owned()), "{events:?}");
    hibernate(&mut bench);
    bench.end(&config);
    let bench = Bench::boot(&config);
    let events = bench.take_events();
    assert!(events.contains(&"restored".to_owned()), "{events:?}");
    bench.end(&config);
}

#[test]
fn a_token_that_is_consumed_at_start_lasts_until_the_guest_runs() {
    for reset in [false, true] {
        let files = Files::new();
        let mut config = hibernated(&files);
        config.hibernation.consume = ConsumePolicy::AtStart;
        let consumed = |bench: &Bench| bench.take_events().contains(&"consumed".to_owned());
        let mut bench = Bench::boot(&config);
        if reset {
            bench.machine.lifecycle.reset().unwrap();
        }
        let saved = bench.save();
        assert!(!consumed(&bench));
        bench.end(&config);

        let mut bench = Bench::new(&config, &Start::from(saved)).unwrap();
        assert!(!consumed(&bench));
        bench.machine.lifecycle.resume().unwrap();
        assert!(consumed(&bench), "reset: {reset}");
        bench.end(&config);
    }
}

#[test]
fn a_machine_that_cannot_be_built_keeps_the_hibernated_session() {
    let files = Files::new();
    let config = files.config(files.uefi(), IrqchipMode::Kernel);
    let mut bench = Bench::boot(&config);
    hibernate(&mut bench);
    bench.end(&config);

    let mut broken = config.clone();
    broken.pci_devices.push(pci(
        "disk1",
        3,
        &VirtioBlkHandle {
            disk: format!("file:{}", files.path("absent").display())
                .parse()
                .unwrap(),
        },
    ));
    let discard = Start::Boot(BootOptions {
        hibernation_override: Some(Override::Discard),
        ..BootOptions::default()
    });
    let error = Bench::new(&broken, &discard).err().unwrap();
    assert!(matches!(error, MachineError::Device(_)), "{error}");
    while vmgs::FileDevice::open(&files.path("vm.vmgs"), vmgs::Container::Detect, ACCESS).is_err() {
        std::thread::sleep(Duration::from_millis(1));
    }

    let bench = Bench::boot(&config);
    let events = bench.take_events();
    assert!(events.contains(&"restored".to_owned()), "{events:?}");
}

/// The note beside the store says that the guest hibernated, so a cold boot would corrupt its disks.
#[test]
fn a_store_that_is_gone_since_the_guest_hibernated_refuses_the_start() {
    let files = Files::new();
    let config = files.config(files.uefi(), IrqchipMode::Kernel);
    let mut bench = Bench::boot(&config);
    hibernate(&mut bench);
    bench.end(&config);
    let store = files.path("vm.vmgs");
    // Noted although the store was new when the guest started.
    assert!(files.path("vm.vmgs.seen").exists());
    std::fs::remove_file(&store).unwrap();
    let refused = || {
        let error = Bench::new(&config, &Start::default()).err().unwrap();
        assert!(error.is_refused_resume(), "{error}");
        let text = error.to_string();
        assert!(text.contains("its store is gone"), "{text}");
    };
    refused();
    assert!(!store.exists());
    let file = std::fs::File::create(&store).unwrap();
    file.set_len(64 << 20).unwrap();
    refused();
    let discard = Start::Boot(BootOptions {
        hibernation_override: Some(Override::Discard),
        ..BootOptions::default()
    });
    let bench = Bench::new(&config, &discard).unwrap();
    let events = bench.take_events();
    assert!(events.contains(&"captured".to_owned()), "{events:?}");
}
