//! What a hibernated guest relies on: that its image is on disk, and that it finds the same machine again.

use super::*;
use crate::launch::LaunchOptions;
use crate::launch::launch;
use crate::machine::test_bench::*;
use chipset_device::ChipsetDevice as _;
use chipset_device::RomMapping;
use disk_backend::AttachedDisk;
use disk_backend::Disk;
use disk_backend::DiskAccess;
use disk_backend::DiskError;
use disk_backend::DiskInfo;
use disk_backend::DiskQueue;
use disk_backend::Faults;
use disk_backend::FaultyDisk;
use disk_backend::MemoryDisk;
use disk_spec::VirtioBlkHandle;
use firmware_hibernation::Override;
use flash::Atomicity;
use flash::Flash;
use flash::FlashConfig;
use flash::FlashStorage;
use flash::FlashStorageError;
use flash::Update;
use machine_parts::AfterGuest;
use openvmm_defs::config::LoadMode;
use openvmm_defs::config::UefiKernel;
use openvmm_defs::config::UefiVariables;
use openvmm_defs::config::VmConfig;
use openvmm_defs::event::VmEvent;
use openvmm_defs::event::VmEventKind;
use openvmm_defs::start::BootOptions;
use openvmm_defs::start::StartOptions;
use parking_lot::Mutex;
use std::io;
use std::io::Write;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt as _;
use std::sync::mpsc;
use std::time::Duration;
use virt::HostInfo;
use virt::Hypervisor as _;
use virt::IrqchipMode;
use virt_fake::Event;
use virt_fake::FakeHypervisor;
use virt_fake::Step;

/// The content of `disk`, with the identity of swap space.
fn swap_space(size: usize, uuid: u8) -> Vec<u8> {
    let mut image = vec![0; size];
    image[4086..4096].copy_from_slice(b"SWAPSPACE2");
    image[1036..1052].fill(uuid);
    image
}

fn file_disk(files: &Files, name: &str, device: u8) -> openvmm_defs::devices::PciDeviceConfig {
    let disk = format!("file:{}", files.path(name).display());
    let disk = disk.parse().unwrap();
    pci(name, device, &VirtioBlkHandle { disk })
}

/// A VM with two disks in files, `one` and `two`, that hold swap space.
fn with_disks(files: &Files) -> VmConfig {
    let mut config = files.config(files.uefi(), IrqchipMode::Kernel);
    config.pci_devices.clear();
    for (n, name) in [(1, "one"), (2, "two")] {
        std::fs::write(files.path(name), swap_space(1 << 20, n)).unwrap();
        config.pci_devices.push(file_disk(files, name, n));
    }
    config
}

fn sleep(config: &VmConfig) {
    let mut bench = Bench::boot(config);
    hibernate(&mut bench);
    let events = bench.take_events();
    assert_eq!(events.last().unwrap(), "halted hibernate", "{events:?}");
    bench.end(config);
}

/// Why the guest is not started.
#[track_caller]
fn refused(config: &VmConfig) -> String {
    let error = Bench::new(config, &Start::default()).err().unwrap();
    assert!(error.is_refused_resume(), "{error}");
    wait_for_store(config);
    error.to_string()
}

#[track_caller]
fn resumes(config: &VmConfig) {
    let bench = Bench::boot(config);
    let events = bench.take_events();
    assert!(events.contains(&"restored".to_owned()), "{events:?}");
    bench.end(config);
}

/// A disk whose writes are in a cache until it is flushed.
struct CachedDisk {
    cache: MemoryDisk,
    /// Called in place of a flush.
    flushed: Box<dyn Fn() + Send + Sync>,
}

impl Disk for CachedDisk {
    fn info(&self) -> &DiskInfo {
        self.cache.info()
    }

    fn flush(&self) -> Result<(), DiskError> {
        (self.flushed)();
        Ok(())
    }

    fn open_queue(
        self: Arc<Self>,
        _depth: u16,
        _events: &[BorrowedFd<'_>],
    ) -> io::Result<Box<dyn DiskQueue>> {
        Err(io::Error::other("no queue"))
    }
}

fn attach(bench: &mut Bench, device: &str, disk: Arc<dyn Disk>) {
    let disks = &bench.machine.lifecycle.guest().media.disks;
    disks.add(AttachedDisk {
        device: device.into(),
        serial: None,
        disk,
    });
}

/// After a power cut at any moment, either there is no token, or the disk has what the guest wrote.
#[test]
fn a_token_is_never_durable_before_the_disks_are() {
    for uefi in [true, false] {
        let files = Files::new();
        let load_mode = match uefi {
            true => files.uefi(),
            false => files.linux(),
        };
        let config = files.config(load_mode, IrqchipMode::Kernel);
        let mut bench = Bench::boot(&config);
        let events = bench.events.clone();
        // What was said when the disk was flushed.
        let at_flush = Arc::new(Mutex::new(None));
        let seen = at_flush.clone();
        let disk = CachedDisk {
            cache: MemoryDisk::new(512, DiskAccess::ReadWrite).unwrap(),
            flushed: Box::new(move || *seen.lock() = Some(events.lock().clone())),
        };
        attach(&mut bench, "disk9", Arc::new(disk));
        hibernate(&mut bench);
        let before = at_flush.lock().take().expect("the disk was not flushed");
        assert!(
            !before
                .iter()
                .any(|event| event == "token_written" || event.starts_with("halted")),
            "{before:?}"
        );
        let events = bench.take_events();
        assert_eq!(events.last().unwrap(), "halted hibernate");
        assert_eq!(events.contains(&"token_written".to_owned()), uefi);
        bench.end(&config);
    }
}

#[test]
fn a_disk_that_cannot_be_flushed_is_a_hibernation_that_is_not_promised() {
    let files = Files::new();
    let config = files.config(files.uefi(), IrqchipMode::Kernel);
    let mut bench = Bench::boot(&config);
    let faults = Faults::default();
    let memory = Arc::new(MemoryDisk::new(512, DiskAccess::ReadWrite).unwrap());
    let disk = Arc::new(FaultyDisk::new(memory, faults.clone()));
    attach(&mut bench, "disk9", disk);
    faults.fail_next(1, 5);
    hibernate(&mut bench);
    let events = bench.take_events();
    assert_eq!(events.last().unwrap(), "halted error", "{events:?}");
    let reason = bench.halted.lock().take().unwrap();
    for part in [
        "its image may be lost",
        "disk9",
        "mem",
        "Input/output error",
    ] {
        assert!(reason.contains(part), "{reason}");
    }
    assert!(!events.contains(&"token_written".to_owned()), "{events:?}");
    bench.end(&config);
    let bench = Bench::boot(&config);
    assert_eq!(bench.take_events(), ["captured"]);
    bench.end(&config);
}

/// A file system that is full.
struct FullStorage;

impl FlashStorage for FullStorage {
    fn atomicity(&self) -> Atomicity {
        Atomicity::Block
    }

    fn persist(&mut self, _update: Update<'_>) -> Result<(), FlashStorageError> {
        Err("no space left on device".into())
    }

    fn describe(&self) -> String {
        "VARS.fd".into()
    }
}

struct Unmapped;

impl RomMapping for Unmapped {
    fn show(&self) -> io::Result<()> {
        Ok(())
    }

    fn hide(&self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn variables_that_cannot_be_saved_are_a_hibernation_that_is_not_promised() {
    const GPA: u64 = 0xffe0_0000;
    let files = Files::new();
    let config = files.config(files.uefi(), IrqchipMode::Kernel);
    let mut bench = Bench::boot(&config);
    let chip = FlashConfig {
        name: "variables".into(),
        region: guest_memory::device_region(GPA, 4096).unwrap(),
        mapping: Arc::new(Unmapped),
    };
    let mut chip = Flash::variables(chip, vec![0xff; 4096], FullStorage).unwrap();
    chip.start();
    chip.write_mmio(GPA, &[0x10]).unwrap();
    chip.write_mmio(GPA, &[0]).unwrap();
    bench.machine.lifecycle.guest().media.variables = chip.control();
    hibernate(&mut bench);
    let events = bench.take_events();
    assert_eq!(events.last().unwrap(), "halted error", "{events:?}");
    let reason = bench.halted.lock().take().unwrap();
    for part in ["it may not find its image", "VARS.fd", "no space left"] {
        assert!(reason.contains(part), "{reason}");
    }
    assert!(!events.contains(&"token_written".to_owned()), "{events:?}");
    bench.end(&config);
}

#[test]
fn replaced_disks_are_noticed() {
    let files = Files::new();
    let config = with_disks(&files);
    sleep(&config);
    let rename = |from: &str, to: &str| {
        std::fs::rename(files.path(from), files.path(to)).unwrap();
    };
    // Swapped.
    let swap = || {
        rename("one", "three");
        rename("two", "one");
        rename("three", "two");
    };
    swap();
    let error = refused(&config);
    assert!(
        error.contains(
            "disks: hibernated with one containing swap space 01010101-0101-0101-0101-010101010101, \
             started with one containing swap space 02020202-0202-0202-0202-020202020202"
        ),
        "{error}"
    );
    swap();
    // A file that shrank.
    let file = std::fs::File::options()
        .write(true)
        .open(files.path("two"))
        .unwrap();
    file.set_len(512 << 10).unwrap();
    let error = refused(&config);
    let expected = "disks: hibernated with two of 1 MiB, started with two of 524288 bytes";
    assert!(error.contains(expected), "{error}");
    file.set_len(1 << 20).unwrap();
    // Formatted, and without what was on it.
    for (image, found) in [
        (
            swap_space(1 << 20, 9),
            "swap space 09090909-0909-0909-0909-090909090909",
        ),
        (vec![0; 1 << 20], "nothing known"),
    ] {
        std::fs::write(files.path("two"), image).unwrap();
        let error = refused(&config);
        assert!(
            error.contains(&format!("started with two containing {found}")),
            "{error}"
        );
    }
    // Read-only.
    std::fs::write(files.path("two"), swap_space(1 << 20, 2)).unwrap();
    let mut read_only = config.clone();
    let disk = format!("file:{},ro", files.path("two").display());
    let disk = disk.parse().unwrap();
    read_only.pci_devices[1] = pci("two", 2, &VirtioBlkHandle { disk });
    let error = refused(&read_only);
    assert!(
        error.contains("hibernated with two writable, started with two read-only"),
        "{error}"
    );
    resumes(&config);
}

/// What a guest does to its disks before it hibernates is no difference.
#[test]
fn disks_are_pinned_as_they_are_when_the_guest_hibernates() {
    let files = Files::new();
    let config = with_disks(&files);
    std::fs::write(files.path("one"), vec![0; 1 << 20]).unwrap();
    let mut bench = Bench::boot(&config);
    let file = std::fs::File::options()
        .write(true)
        .open(files.path("one"))
        .unwrap();
    file.write_all_at(&swap_space(8192, 5), 0).unwrap();
    hibernate(&mut bench);
    bench.end(&config);
    // The image is in the swap space, whose magic tells that.
    file.write_all_at(b"S1SUSPEND\0", 4086).unwrap();
    resumes(&config);
    file.write_all_at(&swap_space(8192, 6), 0).unwrap();
    assert!(refused(&config).contains("one containing swap space 06060606"));
}

/// The machine that is stored at a cold start is the same, whatever the last guest did to its disks.
#[test]
fn what_is_on_the_disks_is_no_reason_to_store_the_firmware_again() {
    let files = Files::new();
    let config = with_disks(&files);
    let sequence = || {
        let bench = Bench::boot(&config);
        let saved = bench.machine_sequence();
        bench.end(&config);
        saved
    };
    let first = sequence();
    std::fs::write(files.path("one"), swap_space(1 << 20, 7)).unwrap();
    assert_eq!(sequence(), first);
}

#[test]
fn a_processor_that_lacks_what_the_guest_was_told_is_refused_by_name() {
    let files = Files::new();
    let config = files.config(files.uefi(), IrqchipMode::Kernel);
    let host = |features| {
        let hypervisor = FakeHypervisor::new();
        hypervisor.set_features(features);
        hypervisor
    };
    let start = Start::default();
    let mut bench = Bench::on(host(1 << 25 | 1), &config, &start).unwrap();
    hibernate(&mut bench);
    bench.end(&config);
    let error = Bench::on(host(1), &config, &start).err().unwrap();
    wait_for_store(&config);
    assert!(error.is_refused_resume());
    let expected = "processors: hibernated with aes, started without";
    assert!(error.to_string().contains(expected), "{error}");
    let better = Bench::on(host(1 << 28 | 1 << 25 | 1), &config, &start).unwrap();
    assert!(better.take_events().contains(&"restored".to_owned()));
    better.end(&config);
}

#[test]
fn a_guest_that_was_offered_nested_virtualization_is_not_resumed_without() {
    let files = Files::new();
    let host = || {
        FakeHypervisor::with_host_info(HostInfo {
            nested: true,
            ..FakeHypervisor::new().host_info().unwrap()
        })
    };
    let mut config = files.config(files.uefi(), IrqchipMode::Kernel);
    config.nested = true;
    let start = Start::default();
    let mut bench = Bench::on(host(), &config, &start).unwrap();
    hibernate(&mut bench);
    bench.end(&config);
    config.nested = false;
    let error = Bench::on(host(), &config, &start).err().unwrap();
    wait_for_store(&config);
    assert!(error.is_refused_resume());
    let expected = "processors: hibernated with vmx, started without";
    assert!(error.to_string().contains(expected), "{error}");
}

#[test]
fn sockets_and_threads_are_compared() {
    let files = Files::new();
    let mut config = files.config(files.uefi(), IrqchipMode::Kernel);
    config.topology.vps_per_socket = Some(2);
    sleep(&config);
    // The same APIC ids.
    config.topology.threads_per_core = 2;
    let error = refused(&config);
    assert!(
        error.contains("hibernated with 1 threads in a core, started with 2 threads in a core"),
        "{error}"
    );
}

#[test]
fn another_kernel_or_command_line_is_refused() {
    let files = Files::new();
    std::fs::write(files.path("kernel"), b"MZ an EFI program").unwrap();
    let config = |cmdline: &str| {
        let mut config = files.config(files.uefi(), IrqchipMode::Kernel);
        if let LoadMode::PcUefi(uefi) = &mut config.load_mode {
            uefi.kernel = Some(UefiKernel {
                kernel: files.path("kernel"),
                initrd: None,
                cmdline: cmdline.into(),
            });
        }
        config
    };
    sleep(&config("resume=/dev/vda"));
    let error = refused(&config("resume=/dev/vdb"));
    assert!(
        error.contains("boot files: hibernated with a command line of 15 bytes"),
        "{error}"
    );
    let kernel = std::fs::read(files.path("kernel")).unwrap();
    let mut other = kernel.clone();
    other[9] = 1;
    std::fs::write(files.path("kernel"), other).unwrap();
    let error = refused(&config("resume=/dev/vda"));
    assert!(
        error.contains("boot files: hibernated with a kernel of"),
        "{error}"
    );
    std::fs::write(files.path("kernel"), kernel).unwrap();
    resumes(&config("resume=/dev/vda"));
}

#[test]
fn variables_in_memory_are_warned_of_if_a_guest_can_hibernate() {
    let files = Files::new();
    let warns = |variables: UefiVariables, enabled: bool| {
        let mut config = files.config(files.uefi(), IrqchipMode::Kernel);
        config.vmgs = matches!(variables, UefiVariables::Vmgs).then(|| files.path("vm.vmgs"));
        config.hibernation.enabled = enabled;
        if let LoadMode::PcUefi(uefi) = &mut config.load_mode {
            uefi.variables = variables;
        }
        let bench = Bench::boot(&config);
        let events = bench.take_events();
        bench.end(&config);
        events.contains(&"variables_in_memory".to_owned())
    };
    assert!(warns(UefiVariables::Memory(None), true));
    assert!(!warns(UefiVariables::Memory(None), false));
    assert!(!warns(
        UefiVariables::File(files.path("OVMF_VARS.fd")),
        true
    ));
    assert!(!warns(UefiVariables::Vmgs, true));
}

#[test]
fn a_reset_that_is_refused_ends_the_vm() {
    let files = Files::new();
    let config = files.config(files.uefi(), IrqchipMode::Kernel);
    sleep(&config);
    let mut other = CODE.clone();
    other[100] ^= 1;
    std::fs::write(files.path("OVMF_CODE.fd"), other).unwrap();
    let start = Start::Boot(BootOptions {
        hibernation_override: Some(Override::CurrentFirmware),
        ..BootOptions::default()
    });
    let mut bench = Bench::new(&config, &start).unwrap();
    bench.hypervisor.push(0, [out(0xcf9, &[6])]);
    bench.machine.lifecycle.resume().unwrap();
    bench.power_request();
    let events = bench.take_events();
    assert_eq!(events.last().unwrap(), "halted error", "{events:?}");
    assert!(!events.contains(&"Reset".to_owned()), "{events:?}");
    bench.end(&config);
}

#[test]
fn a_memory_file_that_cannot_be_used_is_a_matter_of_configuration() {
    let files = Files::new();
    let config = files.config(files.linux(), IrqchipMode::Kernel);
    let bench = Bench::boot(&config);
    let in_use = Bench::new(&config, &Start::default()).err().unwrap();
    assert!(in_use.is_config(), "{in_use}");
    bench.end(&config);
    std::fs::write(files.path("ram"), [1]).unwrap();
    let size = Bench::new(&config, &Start::default()).err().unwrap();
    assert!(size.is_config(), "{size}");
    let mut config = config;
    config.memory.file = Some(files.path("absent/ram"));
    let absent = Bench::new(&config, &Start::default()).err().unwrap();
    assert!(absent.is_config(), "{absent}");
    assert!(!absent.is_refused_resume());
    // The hypervisor's own errors are another matter.
    assert!(!absent.is_hypervisor());
    let lacking = MachineError::from(virt::Error::MissingCapability { what: "x" });
    assert!(lacking.is_hypervisor() && !lacking.is_config());
}

/// The content of a file of the firmware configuration device, as a guest reads it.
fn read_fw_cfg(bench: &mut Bench, name: &str) -> Vec<u8> {
    let mut read = |selector: u16, len: usize| -> Vec<u8> {
        let mut steps = vec![out(0x510, &selector.to_le_bytes())];
        steps.extend((0..len).map(|_| Step::ReadPort {
            port: 0x511,
            size: 1,
        }));
        bench.hypervisor.take_events();
        bench.run(steps);
        let events = bench.hypervisor.take_events().into_iter();
        let bytes = events.filter_map(|event| match event {
            Event::PortRead {
                port: 0x511, data, ..
            } => Some(data),
            _ => None,
        });
        bytes.flatten().collect()
    };
    let directory = read(0x19, 4);
    let count = u32::from_be_bytes(directory.try_into().unwrap()) as usize;
    let directory = read(0x19, 4 + 64 * count);
    let entry = directory[4..]
        .chunks(64)
        .find(|entry| entry[8..].starts_with(name.as_bytes()) && entry[8 + name.len()] == 0)
        .unwrap();
    let size = u32::from_be_bytes(entry[..4].try_into().unwrap());
    let selector = u16::from_be_bytes(entry[4..6].try_into().unwrap());
    read(selector, size as usize)
}

#[test]
fn a_guest_that_resumes_is_given_the_files_it_hibernated_with() {
    const SMBIOS: &str = "etc/smbios/smbios-tables";
    let files = Files::new();
    let mut config = files.config(files.uefi(), IrqchipMode::Kernel);
    let mut bench = Bench::boot(&config);
    let pinned = read_fw_cfg(&mut bench, SMBIOS);
    hibernate(&mut bench);
    bench.end(&config);
    // The UUID is in the SMBIOS structures.
    config.uuid = [8; 16];
    let mut bench = Bench::boot(&config);
    assert!(bench.take_events().contains(&"restored".to_owned()));
    let given = read_fw_cfg(&mut bench, SMBIOS);
    assert!(given.windows(16).any(|bytes| bytes == [7; 16]));
    assert!(given == pinned);
    bench.end(&config);
    // A host's own, after the session.
    let discard = Start::Boot(BootOptions {
        hibernation_override: Some(Override::Discard),
        ..BootOptions::default()
    });
    let mut bench = Bench::new(&config, &discard).unwrap();
    let own = read_fw_cfg(&mut bench, SMBIOS);
    assert!(own.windows(16).any(|bytes| bytes == [8; 16]));
    bench.end(&config);
}

/// A VM with a worker, its events, and what its console has shown, slowly.
fn slow_console(
    config: &VmConfig,
    hypervisor: &FakeHypervisor,
) -> (crate::VmHandle, mpsc::Receiver<String>, Arc<Mutex<Vec<u8>>>) {
    struct Slow(Arc<Mutex<Vec<u8>>>);
    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            std::thread::sleep(Duration::from_millis(200));
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let shown = Arc::new(Mutex::new(Vec::new()));
    let (send, events) = mpsc::channel();
    let options = LaunchOptions {
        console_output: Box::new(Slow(shown.clone())),
        vmgs_key: None,
        events: Arc::new(move |VmEvent { kind, .. }| {
            let name = match kind {
                VmEventKind::Hibernation(event) => {
                    serde_json::to_value(event).unwrap()["event"].to_string()
                }
                kind => format!("{kind:?}"),
            };
            drop(send.send(name));
        }),
    };
    let start = StartOptions {
        after_guest: AfterGuest::default(),
        ..StartOptions::default()
    };
    let vm = launch(hypervisor, config, &start, options).unwrap();
    (vm, events, shown)
}

#[test]
fn what_the_guest_said_last_is_shown_before_its_end_is() {
    let files = Files::new();
    let config = files.config(files.linux(), IrqchipMode::Kernel);
    let hypervisor = FakeHypervisor::new();
    hypervisor.push(0, [out(0x3f8, b"x"), out(0x604, &0x2000_u16.to_le_bytes())]);
    let (vm, events, shown) = slow_console(&config, &hypervisor);
    while !events
        .recv_timeout(Duration::from_secs(20))
        .unwrap()
        .contains("PowerOff")
    {}
    assert_eq!(*shown.lock(), b"x");
    drop(vm);

    // A guest that is stopped.
    let hypervisor = FakeHypervisor::new();
    hypervisor.push(0, [out(0x3f8, b"y")]);
    let mut config = config;
    config.memory.file = None;
    let (vm, _events, shown) = slow_console(&config, &hypervisor);
    while hypervisor.steps_left(0) > 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let stopped = vm.requests.call(openvmm_defs::request::VmRequest::Stop, ());
    pal_async::block_on(stopped).unwrap();
    assert_eq!(*shown.lock(), b"y");
}

#[test]
fn a_vm_that_nobody_holds_ends_as_one_that_is_stopped() {
    let files = Files::new();
    let config = hibernated(&files);
    let hypervisor = FakeHypervisor::new();
    let (vm, events, _shown) = slow_console(&config, &hypervisor);
    drop(vm);
    while events.recv_timeout(Duration::from_secs(20)).unwrap() != "\"token_kept\"" {}
}
