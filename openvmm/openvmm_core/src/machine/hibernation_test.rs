//! Hibernation of whole machines.

use super::*;
use crate::machine::test_bench::*;
use disk_spec::VirtioBlkHandle;
use firmware_hibernation::ConsumePolicy;
use firmware_hibernation::Override;
use machine_parts::Ending;
use machine_parts::Guest as _;
use machine_parts::HaltReason;
use machine_parts::OnReset;
use openvmm_defs::start::BootOptions;
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

#[test]
fn a_guest_that_powers_off_has_left_its_hibernated_session() {
    let files = Files::new();
    let config = hibernated(&files);
    let mut bench = Bench::boot(&config);
    bench.hypervisor.push(0, [out(0x604, &[0, 0x20])]);
    bench.machine.lifecycle.resume().unwrap();
    bench.power_request();
    let events = bench.take_events();
    assert!(events.contains(&"token_cleared".to_owned()), "{events:?}");
    bench.end(&config);
}

#[test]
fn sleep_announcements_tell_whether_the_guest_resumed() {
    const SLEEP: u16 = 0x506;
    let happened = |bench: &Bench, event: &str| bench.take_events().iter().any(|e| e == event);
    let files = Files::new();
    let config = hibernated(&files);
    let mut bench = Bench::boot(&config);
    // Firmware resets before there is a guest.
    bench.machine.lifecycle.reset().unwrap();
    assert!(happened(&bench, "token_kept"));
    // Woke from S3, and from S4.
    bench.run(vec![out(SLEEP, &[0x23])]);
    assert!(!happened(&bench, "consumed"));
    bench.run(vec![out(SLEEP, &[0x24])]);
    assert!(happened(&bench, "consumed"));
    bench.end(&config);

    for on_reset in [OnReset::Restart, OnReset::Halt] {
        let files = Files::new();
        let config = hibernated(&files);
        let mut bench = Bench::boot(&config);
        // Prepares to enter S4: a guest runs that did not resume.
        bench.run(vec![out(SLEEP, &[0x14])]);
        match on_reset {
            OnReset::Restart => bench.machine.lifecycle.reset().unwrap(),
            OnReset::Halt => {
                let guest = bench.machine.lifecycle.guest();
                guest.settle(Ending::Halted(&HaltReason::Reset)).unwrap();
            }
        }
        assert!(happened(&bench, "token_cleared"), "{on_reset:?}");
        bench.end(&config);
    }
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

        let mut bench = Bench::new(&config, &Start::Restore(saved)).unwrap();
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
