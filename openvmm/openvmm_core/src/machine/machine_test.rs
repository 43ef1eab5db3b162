//! The life of whole machines.

use super::*;
use crate::machine::test_bench::*;
use chipset_device::VpCount;
use disk_spec::VirtioBlkHandle;
use error_chain::Chain;
use machine_parts::AfterEnd;
use machine_parts::AfterGuest;
use machine_parts::MachineState;
use openvmm_defs::config::LoadMode;
use openvmm_defs::config::UefiVariables;
use openvmm_defs::devices::PciDeviceConfig;
use openvmm_defs::devices::PciSlot;
use openvmm_defs::request::VmRequest;
use std::path::Path;
use std::time::Duration;
use virt::IrqchipMode;
use virt_fake::Event;
use virt_fake::FakeHypervisor;
use virt_fake::Step;
use vm_resource::Resource;

#[test]
fn a_guest_resets_and_powers_off() {
    each_profile(|_, config| {
        let mut bench = Bench::boot(config);
        bench.take_events();
        bench.hypervisor.push(0, [out(0xcf9, &[6])]);
        bench.machine.lifecycle.resume().unwrap();
        bench.power_request();
        assert_eq!(bench.machine.lifecycle.state(), MachineState::Running);
        // S5 with sleep enable.
        bench
            .hypervisor
            .push(0, [out(0x604, &0x2000_u16.to_le_bytes())]);
        bench.power_request();
        assert_eq!(bench.machine.lifecycle.state(), MachineState::Halted);
        let events = bench.take_events();
        assert_eq!(events.first().unwrap(), "Started");
        assert!(events.contains(&"Reset".to_owned()), "{events:?}");
        assert_eq!(events.last().unwrap(), "halted power_off");
        bench.machine.stop();
        assert_eq!(bench.machine.inspect()["units"]["vps"], json!({}));
    });
}

#[test]
fn a_machine_can_start_again_after_a_power_off_or_a_crash() {
    each_profile(|_, config| {
        let after_guest = AfterGuest {
            power_off: AfterEnd::Restart,
            crash: AfterEnd::Restart,
            ..AfterGuest::default()
        };
        let mut bench = Bench::ending(config, after_guest);
        bench.machine.lifecycle.resume().unwrap();
        let off = || out(0x604, &0x2000_u16.to_le_bytes());
        for (n, end) in [off(), Step::TripleFault, out(0x505, &[1]), off()]
            .into_iter()
            .enumerate()
        {
            bench.take_events();
            bench.hypervisor.push(0, [end]);
            while bench.machine.lifecycle.state() == MachineState::Running {
                let report = bench.reports.recv_timeout(Duration::from_secs(20)).unwrap();
                bench.machine.lifecycle.report(report);
                if bench.take_events().contains(&"Reset".to_owned()) {
                    break;
                }
            }
            assert_eq!(
                bench.machine.lifecycle.state(),
                MachineState::Running,
                "{n}"
            );
        }
        // The last guest runs as the first did.
        bench.run(vec![out(0x80, &[1])]);
        bench.machine.stop();
    });
}

#[test]
fn a_host_without_nested_virtualization_is_refused_before_anything_is_made() {
    let files = Files::new();
    let mut config = files.config(files.uefi(), IrqchipMode::Kernel);
    config.nested = true;
    let error = Bench::new(&config, &Start::default()).err().unwrap();
    assert!(error.is_hypervisor());
    assert!(error.to_string().contains("nested=1"), "{error}");
    assert!(!files.path("vm.vmgs").exists());
}

#[test]
fn more_msi_vectors_than_there_are_are_refused_before_anything_is_made() {
    let files = Files::new();
    let mut config = files.config(files.uefi(), IrqchipMode::Kernel);
    let disk = |text: &str| VirtioBlkHandle {
        disk: text.parse().unwrap(),
    };
    let disks = |count: u8, last: &str| {
        let all = (0..count).map(|n| {
            let text = if n + 1 == count {
                last
            } else {
                "mem:1M,queues=64"
            };
            PciDeviceConfig {
                name: format!("disk{n}"),
                slot: PciSlot {
                    device: 1 + n / 8,
                    function: n % 8,
                },
                resource: Resource::new(&disk(text)),
            }
        });
        all.collect()
    };
    // 62 * 65 + 28 = 4058.
    config.pci_devices = disks(63, "mem:1M,queues=27");
    let error = Bench::new(&config, &Start::default()).err().unwrap();
    assert!(error.is_config());
    let text = "need 4058 interrupt vectors (MSI-X), and the hypervisor has 4057";
    assert!(error.to_string().contains(text), "{error}");
    assert!(!files.path("vm.vmgs").exists());
    // A queue for each of the two VPs.
    config.pci_devices = disks(1, "mem:1M");
    let layout = memory::layout(&config.memory, &config.load_mode, 40).unwrap();
    let plan = devices::DevicePlan::new(&config, &layout).unwrap();
    assert_eq!(plan.msi_vectors(VpCount(2)), 3);
}

#[test]
fn a_plan_that_fails_creates_no_store() {
    let files = Files::new();
    let mut config = files.config(files.uefi(), IrqchipMode::Kernel);
    if let LoadMode::PcUefi(uefi) = &mut config.load_mode {
        uefi.code = files.path("kernel");
    }
    assert!(Bench::new(&config, &Start::default()).is_err());
    assert!(!Path::new(&files.path("vm.vmgs")).exists());
}

#[test]
fn an_empty_store_file_is_formatted_after_the_plan() {
    let files = Files::new();
    let config = files.config(files.uefi(), IrqchipMode::Kernel);
    let store = files.path("vm.vmgs");
    let file = std::fs::File::create(&store).unwrap();
    file.set_len(64 << 20).unwrap();
    let mut broken = config.clone();
    if let LoadMode::PcUefi(uefi) = &mut broken.load_mode {
        uefi.code = files.path("kernel");
    }
    assert!(Bench::new(&broken, &Start::default()).is_err());
    assert!(std::fs::read(&store).unwrap().iter().all(|&byte| byte == 0));
    let bench = Bench::boot(&config);
    assert!(bench.take_events().contains(&"captured".to_owned()));
}

#[test]
fn a_disk_named_as_the_store_is_kept() {
    let files = Files::new();
    let config = files.config(files.uefi(), IrqchipMode::Kernel);
    let store = files.path("vm.vmgs");
    let mut disk = vec![0; 4 << 20];
    // The superblock of ext4.
    disk[1080..1082].copy_from_slice(&[0x53, 0xef]);
    std::fs::write(&store, &disk).unwrap();
    assert!(Bench::new(&config, &Start::default()).is_err());
    assert!(std::fs::read(&store).unwrap() == disk);
}

/// The same bytes are refused, or run, from the VMGS file and from `--uefi-vars`.
#[test]
fn variables_are_checked_wherever_they_are() {
    const LEN: usize = 0x8_4000;
    let intact = ovmf_image::constructed::variables(LEN);
    let noise: Vec<u8> = (0..LEN as u64)
        .map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u8)
        .collect();
    let mut header = intact.clone();
    header[44] ^= 1;
    let not_a_volume = Some("it does not start with a firmware volume");
    for (content, expected) in [
        (&intact, None),
        (&noise, not_a_volume),
        (
            &header,
            Some("the header of its firmware volume is damaged"),
        ),
        (&vec![0xff; LEN], Some("all of its bytes are 0xff")),
    ] {
        let files = Files::new();
        let config = files.config(files.uefi(), IrqchipMode::Kernel);
        Bench::boot(&config).end(&config);
        let open = || {
            let path = files.path("vm.vmgs");
            // A thread of its own closes it.
            let device = loop {
                match vmgs::FileDevice::open(&path, vmgs::Container::Detect, ACCESS) {
                    Ok(device) => break device,
                    Err(_) => std::thread::sleep(Duration::from_millis(1)),
                }
            };
            vmgs::Vmgs::open(Box::new(device), vmgs::OpenOptions::default()).unwrap()
        };
        let id = vmgs::FileId::FLASH_VARIABLES;
        open().write(id, vmgs::Protection::Plain, content).unwrap();
        let mut from_file = config.clone();
        let path = files.path("vars");
        std::fs::write(&path, content).unwrap();
        if let LoadMode::PcUefi(uefi) = &mut from_file.load_mode {
            uefi.variables = UefiVariables::File(path.clone());
        }
        for config in [&config, &from_file] {
            match (Bench::new(config, &Start::default()), expected) {
                (Ok(bench), None) => bench.end(config),
                (Err(error), Some(expected)) => {
                    let text = Chain(&error).to_string();
                    assert!(text.contains(expected), "{text}");
                }
                (result, _) => panic!("{expected:?}, {:?}", result.err()),
            }
            drop(open());
        }
        assert!(open().read(id).unwrap() == *content);
        assert!(std::fs::read(path).unwrap() == *content);
    }
}

#[test]
fn a_worker_ends_while_its_guest_is_busy() {
    for round in 0..6 {
        let files = Files::new();
        let config = files.config(files.uefi(), IrqchipMode::Kernel);
        if round % 2 == 0 {
            // The session is hibernated, so that the guest's announcements delete its token.
            let mut bench = Bench::boot(&config);
            hibernate(&mut bench);
            bench.end(&config);
        }
        let hypervisor = FakeHypervisor::new();
        let port = sleep_port::SleepPort::DEFAULT_PORT;
        let steps = || {
            let woke = sleep_port::SleepAnnouncement::Woke(sleep_port::SleepState::S4);
            let to_sleep =
                sleep_port::SleepAnnouncement::PreparingToSleep(sleep_port::SleepState::S4);
            [woke, to_sleep].map(|announcement| out(port, &[announcement.to_byte()]))
        };
        for vp in 0..2 {
            for _ in 0..200 {
                hypervisor.push(vp, steps());
            }
            hypervisor.push(vp, [out(0xcf9, &[6])]);
            for _ in 0..200 {
                hypervisor.push(vp, steps());
            }
        }
        let handle = launched(&config, &hypervisor);
        let store = files.path("vm.vmgs");
        in_time(move || {
            let inspected = handle.requests.call(VmRequest::Inspect, ());
            let paused = handle.requests.call(VmRequest::Pause, ());
            let resumed = handle.requests.call(VmRequest::Resume, ());
            let reset = handle.requests.call(VmRequest::Reset, ());
            pal_async::block_on(async {
                inspected.await.unwrap();
                paused.await.unwrap().unwrap();
                resumed.await.unwrap().unwrap();
                reset.await.unwrap().unwrap();
            });
            // Whether or not anybody waits for it, the worker ends with its last handle.
            if round < 3 {
                drop(handle.requests.call(VmRequest::Stop, ()));
            }
            drop(handle);
            while vmgs::FileDevice::open(&store, vmgs::Container::Detect, ACCESS).is_err() {
                std::thread::sleep(Duration::from_millis(1));
            }
        });
    }
}

#[test]
fn the_rtc_says_how_much_ram_there_is() {
    let files = Files::new();
    let config = files.config(files.linux(), IrqchipMode::Kernel);
    let mut bench = Bench::boot(&config);
    // Units of 64 KiB: above 16 MiB, and above 4 GiB.
    for (register, value) in [(0x34, 0), (0x35, 3), (0x5b, 0), (0x5c, 0), (0x5d, 0)] {
        bench.run(vec![
            out(0x70, &[register]),
            Step::ReadPort {
                port: 0x71,
                size: 1,
            },
        ]);
        let read = Event::PortRead {
            vp: 0,
            port: 0x71,
            data: vec![value],
        };
        assert!(
            bench.hypervisor.take_events().contains(&read),
            "register {register:#x}"
        );
    }
    bench.machine.stop();
}
