use super::*;
use crate::machine::HibernationSink;
use crate::machine::HostEnds;
use crate::machine::MachineError;
use crate::machine::MachinePlan;
use crate::machine::test_bench::*;
use firmware_hibernation::HibernationEvent;
use firmware_hibernation::Override;
use machine_parts::AfterGuest;
use machine_parts::RunControl;
use openvmm_defs::config::LoadMode;
use openvmm_defs::devices::ChipsetDeviceConfig;
use openvmm_defs::start::BootOptions;
use serial_16550::SerialEnd;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;
use virt::IrqchipMode;
use virt_fake::FakeHypervisor;
use vmgs::Protection;

fn config(files: &Files) -> VmConfig {
    files.config(files.uefi(), IrqchipMode::Kernel)
}

/// The machine with a device that cannot be built.
fn broken(files: &Files) -> VmConfig {
    let mut config = config(files);
    let disk = format!("file:{}", files.path("absent").display());
    let handle = disk_spec::VirtioBlkHandle {
        disk: disk.parse().unwrap(),
    };
    config.pci_devices.push(pci("disk1", 3, &handle));
    config
}

/// The machine with a device that is found to be impossible only when it is built.
fn broken_late(files: &Files) -> VmConfig {
    let mut config = config(files);
    let nowhere = SerialEnd::File(files.path("absent/com3"));
    let handle = serial(2, nowhere);
    config
        .chipset_devices
        .push(ChipsetDeviceConfig::new("com3", &handle));
    config
}

/// Waits until nothing has the file open.
fn closed(path: &Path) {
    while FileDevice::open(path, Container::Detect, ACCESS).is_err() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn store(path: &Path) -> Vmgs {
    closed(path);
    let device = FileDevice::open(path, Container::Detect, ACCESS).unwrap();
    Vmgs::open(Box::new(device), OpenOptions::default()).unwrap()
}

/// The names in the directory of the VM.
fn names(files: &Files) -> Vec<String> {
    let entries = std::fs::read_dir(files.path("")).unwrap();
    let mut names = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("vmgs"))
        .collect::<Vec<_>>();
    names.sort();
    names
}

fn formatting(format: FormatVmgs) -> Start {
    Start::Boot(BootOptions {
        vmgs_format: Some(format),
        ..BootOptions::default()
    })
}

#[test]
fn a_start_that_fails_leaves_no_new_file() {
    let files = Files::new();
    assert!(Bench::new(&broken(&files), &Start::default()).is_err());
    assert_eq!(names(&files), [""; 0]);
    // The same machine without the fault.
    Bench::boot(&config(&files)).end(&config(&files));
    assert_eq!(names(&files), ["vm.vmgs"]);
}

/// A process that is killed cannot remove anything.
#[test]
fn a_new_file_has_no_name_until_the_machine_is_built() {
    let files = Files::new();
    let planned = PlannedStore::new(&config(&files), &Start::default(), None)
        .unwrap()
        .unwrap();
    assert!(!planned.is_old_file());
    planned.create().unwrap();
    assert_eq!(names(&files), [""; 0]);
    planned.keep().unwrap().stays();
    drop(planned);
    assert_eq!(names(&files), ["vm.vmgs"]);
    let path = files.path("vm.vmgs");
    closed(&path);
    assert_eq!(store(&path).findings(), []);
    // What a guest keeps there is nobody else's business.
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn an_empty_file_becomes_a_store_unless_the_start_fails() {
    let files = Files::new();
    let path = files.path("vm.vmgs");
    std::fs::write(&path, b"").unwrap();
    let inode = std::fs::metadata(&path).unwrap().ino();
    assert!(Bench::new(&broken_late(&files), &Start::default()).is_err());
    closed_or_empty(&path);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
    Bench::boot(&config(&files)).end(&config(&files));
    assert!(store(&path).is_allocated(FileId::HIBERNATION_FIRMWARE));
    assert_eq!(std::fs::metadata(&path).unwrap().ino(), inode);
    assert_eq!(names(&files), ["vm.vmgs"]);
}

/// Waits until nobody has the empty file locked.
fn closed_or_empty(path: &Path) {
    let file = File::open(path).unwrap();
    file.lock().unwrap();
}

#[test]
fn a_link_to_nothing_is_named_before_anything_is_made() {
    let files = Files::new();
    let path = files.path("vm.vmgs");
    std::os::unix::fs::symlink(files.path("elsewhere"), &path).unwrap();
    let error = Bench::new(&config(&files), &Start::default())
        .err()
        .unwrap();
    let error = error.to_string();
    assert!(error.contains("vm.vmgs is a link to "), "{error}");
    assert!(error.contains("elsewhere"), "{error}");
    assert!(!files.path("elsewhere").exists());
    // A link to a store is followed.
    Bench::boot(&VmConfig {
        vmgs: Some(files.path("elsewhere")),
        ..config(&files)
    })
    .end(&VmConfig {
        vmgs: Some(files.path("elsewhere")),
        ..config(&files)
    });
    Bench::boot(&config(&files)).end(&config(&files));
    assert!(path.is_symlink());
}

#[test]
fn a_start_that_fails_allocates_no_space() {
    let files = Files::new();
    let path = files.path("vm.vmgs");
    let file = File::create_new(&path).unwrap();
    vmgs::create_file(&file, 64 << 20, Container::Vhd1, None).unwrap();
    let device = FileDevice::open(&path, Container::Detect, ACCESS).unwrap();
    drop(Vmgs::format(Box::new(device), OpenOptions::default()).unwrap());
    let allocated = || std::fs::metadata(&path).unwrap().blocks() * 512;
    assert!(allocated() < 1 << 20);
    assert!(Bench::new(&broken_late(&files), &Start::default()).is_err());
    closed(&path);
    assert!(allocated() < 1 << 20);
    Bench::boot(&config(&files)).end(&config(&files));
    assert!(allocated() >= 64 << 20);
}

#[test]
fn a_start_that_fails_changes_no_file() {
    type Prepare = fn(&Path);
    let blank: Prepare = |path| {
        let file = File::create(path).unwrap();
        file.set_len(64 << 20).unwrap();
    };
    // Opening such a store clears its marker.
    let reprovisioned: Prepare = |path| {
        let file = File::create_new(path).unwrap();
        vmgs::create_file(&file, 64 << 20, Container::Vhd1, None).unwrap();
        let device = FileDevice::open(path, Container::Detect, ACCESS).unwrap();
        Vmgs::format_once(Box::new(device), OpenOptions::default()).unwrap();
    };
    for prepare in [blank, reprovisioned] {
        for format in [None, Some(FormatVmgs::Always)] {
            let files = Files::new();
            let path = files.path("vm.vmgs");
            prepare(&path);
            let before = std::fs::read(&path).unwrap();
            let start = format.map_or_else(Start::default, formatting);
            assert!(Bench::new(&broken(&files), &start).is_err());
            closed(&path);
            assert!(std::fs::read(&path).unwrap() == before);
            // The same start without the fault.
            Bench::new(&config(&files), &start)
                .unwrap()
                .end(&config(&files));
            let store = store(&path);
            assert!(store.is_allocated(FileId::HIBERNATION_FIRMWARE));
            assert!(!store.is_reprovisioned());
        }
    }
}

/// The sequence note, which is written next, would otherwise be of a store that a crash undoes.
#[test]
fn what_a_start_does_to_a_session_is_in_the_file_when_it_is_told() {
    let files = Files::new();
    let config = hibernated(&files);
    let path = files.path("vm.vmgs");
    let start = Start::Boot(BootOptions {
        hibernation_override: Some(Override::Discard),
        ..BootOptions::default()
    });
    let told = Arc::new(Mutex::new(Vec::new()));
    let (heard, file) = (told.clone(), path.clone());
    let hypervisor = FakeHypervisor::new();
    let on_hibernation: HibernationSink = Arc::new(move |event: HibernationEvent| {
        let mut disk = std::fs::read(&file).unwrap();
        // Without the footer of the VHD.
        disk.truncate(disk.len() - 512);
        let device = Box::new(MemoryDevice::with_bytes(512, disk));
        let store = Vmgs::open(device, OpenOptions::default()).unwrap();
        let kept = [FileId::HIBERNATION_TOKEN, FileId::HIBERNATION_FIRMWARE]
            .map(|id| store.is_allocated(id));
        heard
            .lock()
            .push((matches!(event, HibernationEvent::Discarded), kept));
    });
    let plan = MachinePlan::new(&hypervisor, &config, &start, None, &on_hibernation).unwrap();
    let ends = HostEnds {
        console_output: Box::new(io::sink()),
        control: RunControl::new(|_| ()),
        events: Box::new(|_, _| ()),
        after_guest: AfterGuest::default(),
    };
    let mut machine = plan.build(&hypervisor, &config, &start, ends).unwrap();
    machine.stop();
    drop(machine);
    closed(&path);
    let told = std::mem::take(&mut *told.lock());
    assert_eq!(told, [(true, [false; 2]), (false, [false, true])]);
}

#[test]
fn a_new_file_is_removed_if_the_machine_does_not_run() {
    let files = Files::new();
    let path = files.path("vm.vmgs");
    let planned = PlannedStore::new(&config(&files), &Start::default(), None)
        .unwrap()
        .unwrap();
    planned.create().unwrap();
    let new = planned.keep().unwrap();
    assert!(path.exists());
    drop(new);
    assert!(!path.exists());
}

#[test]
fn a_file_that_appears_meanwhile_is_not_replaced() {
    let files = Files::new();
    let path = files.path("vm.vmgs");
    let planned = PlannedStore::new(&config(&files), &Start::default(), None)
        .unwrap()
        .unwrap();
    planned.create().unwrap();
    std::fs::write(&path, b"mine").unwrap();
    assert!(matches!(planned.keep(), Err(VmgsError::Create { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    drop(planned);
    assert_eq!(names(&files), ["vm.vmgs"]);
}

#[test]
fn a_store_has_its_space_when_the_vm_runs() {
    let files = Files::new();
    let path = files.path("vm.vmgs");
    let bench = Bench::boot(&config(&files));
    let allocated = std::fs::metadata(&path).unwrap().blocks() * 512;
    assert!(allocated >= 64 << 20, "{allocated}");
    bench.end(&config(&files));
    // And one that was sparse.
    let files = Files::new();
    let mut without = config(&files);
    without.hibernation.enabled = false;
    let path = files.path("vm.vmgs");
    Bench::boot(&without).end(&without);
    assert!(std::fs::metadata(&path).unwrap().blocks() * 512 < 32 << 20);
    Bench::boot(&without).end(&without);
    assert!(std::fs::metadata(&path).unwrap().blocks() * 512 < 32 << 20);
    let bench = Bench::boot(&config(&files));
    assert!(std::fs::metadata(&path).unwrap().blocks() * 512 >= 64 << 20);
    bench.end(&config(&files));
}

#[test]
fn a_key_encrypts_a_new_store_and_opens_it_again() {
    let files = Files::new();
    let config = config(&files);
    let path = files.path("vm.vmgs");
    let boot = |key: Option<u8>| {
        Bench::with_key(
            &config,
            &Start::default(),
            key.map(|byte| Key::new([byte; 32])),
        )
    };
    let mut bench = boot(Some(1)).unwrap();
    hibernate(&mut bench);
    bench.end(&config);
    {
        let mut store = store(&path);
        assert!(store.is_encrypted());
        store.unlock(&Key::new([1; 32])).unwrap();
        for id in [FileId::HIBERNATION_TOKEN, FileId::HIBERNATION_FIRMWARE] {
            assert!(store.file_info(id).unwrap().encrypted, "{id}");
        }
        assert_eq!(store.read(FileId::HIBERNATION_TOKEN).unwrap(), [0xff; 8]);
    }
    let error = boot(None).err().unwrap();
    assert!(
        matches!(&error, MachineError::Vmgs(VmgsError::Locked { path: p }) if *p == path),
        "{error}"
    );
    assert!(error.is_config());
    let error = boot(Some(2)).err().unwrap();
    assert!(matches!(
        error,
        MachineError::Vmgs(VmgsError::Store {
            source: vmgs::Error::WrongKey,
            ..
        })
    ));
    let bench = boot(Some(1)).unwrap();
    let events = bench.take_events();
    assert!(events.contains(&"restored".to_owned()), "{events:?}");
    bench.end(&config);
}

#[test]
fn a_key_for_a_store_without_encryption_is_refused() {
    let files = Files::new();
    let config = config(&files);
    Bench::boot(&config).end(&config);
    let error = Bench::with_key(&config, &Start::default(), Some(Key::new([1; 32])));
    assert!(matches!(
        error.err().unwrap(),
        MachineError::Vmgs(VmgsError::NotEncrypted { .. })
    ));
}

#[test]
fn a_store_is_made_anew_only_if_that_is_asked_for() {
    let files = Files::new();
    let config = config(&files);
    let path = files.path("vm.vmgs");
    Bench::boot(&config).end(&config);
    let mark = || {
        let mut store = store(&path);
        store.write(FileId(40), Protection::Plain, b"mark").unwrap();
    };
    let is_marked = || store(&path).is_allocated(FileId(40));
    mark();
    // It is not damaged.
    for start in [Start::default(), formatting(FormatVmgs::IfDamaged)] {
        Bench::new(&config, &start).unwrap().end(&config);
        assert!(is_marked());
    }
    Bench::new(&config, &formatting(FormatVmgs::Always))
        .unwrap()
        .end(&config);
    assert!(!is_marked());
    // Both headers are damaged.
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[20] ^= 1;
    bytes[512 + 20] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let error = Bench::new(&config, &Start::default()).err().unwrap();
    assert!(matches!(error, MachineError::Vmgs(VmgsError::Store { .. })));
    assert!(std::fs::read(&path).unwrap() == bytes);
    // That is known before anything else is planned.
    let planned = PlannedStore::new(&config, &Start::default(), None);
    assert!(matches!(planned, Err(VmgsError::Store { .. })));
    Bench::new(&config, &formatting(FormatVmgs::IfDamaged))
        .unwrap()
        .end(&config);
    assert!(store(&path).is_allocated(FileId::HIBERNATION_FIRMWARE));
}

#[test]
fn a_store_in_memory_leaves_no_file() {
    let files = Files::new();
    let mut config = config(&files);
    config.vmgs = None;
    config.vmgs_memory = Some(VmgsMemory::New(64 << 20));
    let mut bench = Bench::boot(&config);
    hibernate(&mut bench);
    let events = bench.take_events();
    assert!(events.contains(&"token_written".to_owned()), "{events:?}");
    bench.end(&config);
    assert_eq!(names(&files), [""; 0]);
    // Its sequence number is of no use to the next start.
    let planned = PlannedStore::new(&config, &Start::default(), None).unwrap();
    assert!(planned.unwrap().sequence_note().is_none());
    for size in [0, 4096, (64 << 20) + 1, 2 << 30] {
        config.vmgs_memory = Some(VmgsMemory::New(size));
        let error = Bench::new(&config, &Start::default()).err().unwrap();
        assert!(
            matches!(error, MachineError::Vmgs(VmgsError::MemorySize { size: s }) if s == size)
        );
    }
}

#[test]
fn an_overlay_reads_the_file_and_does_not_write_it() {
    let files = Files::new();
    let mut config = config(&files);
    let path = files.path("vm.vmgs");
    config.vmgs_memory = Some(VmgsMemory::Overlay);
    let error = Bench::new(&config, &Start::default()).err().unwrap();
    assert!(matches!(error, MachineError::Vmgs(VmgsError::Open { .. })));
    config.vmgs_memory = None;
    let mut bench = Bench::boot(&config);
    hibernate(&mut bench);
    bench.end(&config);
    let names_before = names(&files);
    let before = std::fs::read(&path).unwrap();
    let note = files.path("vm.vmgs.seen");
    let note_before = std::fs::read(&note).unwrap();
    config.vmgs_memory = Some(VmgsMemory::Overlay);
    for _ in 0..2 {
        let mut bench = Bench::boot(&config);
        let events = bench.take_events();
        assert!(events.contains(&"restored".to_owned()), "{events:?}");
        hibernate(&mut bench);
        bench.machine.stop();
        drop(bench);
        closed(&path);
        assert!(std::fs::read(&path).unwrap() == before);
        assert_eq!(names(&files), names_before);
        assert!(std::fs::read(&note).unwrap() == note_before);
    }
    assert!(matches!(config.load_mode, LoadMode::PcUefi(_)));
}

/// The name of the file is said once.
#[test]
fn a_store_in_use_is_refused_with_its_name_once() {
    let files = Files::new();
    let config = config(&files);
    Bench::boot(&config).end(&config);
    let path = files.path("vm.vmgs");
    closed(&path);
    let _lock = FileDevice::open(&path, Container::Detect, ACCESS).unwrap();
    let error = Bench::new(&config, &Start::default()).err().unwrap();
    let text = error_chain::Chain(&error).to_string();
    assert_eq!(
        text,
        format!(
            "cannot open the VMGS file {}: another process uses it",
            path.display()
        )
    );
}

#[test]
fn a_host_that_fails_is_no_wrong_configuration() {
    let path = || PathBuf::from("vm.vmgs");
    let full = || vmgs::Error::DiskFull {
        path: None,
        needed: 1,
        source: io::ErrorKind::StorageFull.into(),
    };
    let failures = [
        VmgsError::Write {
            path: path(),
            source: io::ErrorKind::StorageFull.into(),
        },
        VmgsError::Store {
            path: path(),
            source: full(),
        },
        VmgsError::Reserve {
            path: path(),
            source: BrokerError::Store(full()),
        },
    ];
    for error in failures {
        assert!(!MachineError::Vmgs(error).is_config());
    }
    let error = VmgsError::Store {
        path: path(),
        source: vmgs::Error::WrongKey,
    };
    assert!(MachineError::Vmgs(error).is_config());
}

#[test]
fn a_new_store_without_space_for_the_token_is_refused() {
    let files = Files::new();
    let mut config = config(&files);
    config.vmgs = None;
    // Headers and tables fit, and nothing else.
    config.vmgs_memory = Some(VmgsMemory::New(16384));
    let error = Bench::new(&config, &Start::default()).err().unwrap();
    assert!(
        matches!(error, MachineError::Vmgs(VmgsError::Reserve { .. })),
        "{error}"
    );
}

/// A new name is durable only when its directory is synchronized, for which it is opened.
#[test]
fn the_directory_of_a_new_file_is_synchronized() {
    use rustix::fs::inotify;
    let files = Files::new();
    let config = config(&files);
    let planned = PlannedStore::new(&config, &Start::default(), None)
        .unwrap()
        .unwrap();
    planned.create().unwrap();
    let events = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
    let wanted =
        inotify::WatchFlags::OPEN | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
    inotify::add_watch(&events, files.path(""), wanted).unwrap();
    planned.keep().unwrap().stays();
    let mut buffer = [const { std::mem::MaybeUninit::uninit() }; 4096];
    let mut reader = inotify::Reader::new(&events, &mut buffer);
    let mut seen = Vec::new();
    while let Ok(event) = reader.next() {
        let flags = event.events();
        if flags.intersects(inotify::ReadFlags::CREATE | inotify::ReadFlags::MOVED_TO) {
            seen.push("named");
        } else if flags.contains(inotify::ReadFlags::ISDIR) {
            seen.push("directory opened");
        }
    }
    assert_eq!(seen, ["named", "directory opened"]);
}
