use super::*;
use crate::actions::GuestAction;
use clap::Parser;
use firmware_uefi::LogLevel;
use openvmm_defs::config::BootFailure;
use openvmm_defs::config::DefaultBoot;
use openvmm_defs::config::FirmwareConsole;
use openvmm_defs::config::FirmwareMemoryProtection;
use openvmm_defs::config::HypervUefiSettings;
use openvmm_defs::config::LoadMode;
use openvmm_defs::config::Population;
use openvmm_defs::config::Sharing;
use openvmm_defs::config::UefiDeviceConfig;
use openvmm_defs::config::VmgsMemory;
use openvmm_defs::start::FormatVmgs;
use serial_16550::Serial16550Handle;
use serial_16550::SerialEnd;
use serial_16550::SerialInput;
use uefi_nvram::SecureBootTemplate;

fn resolve(args: &[&str]) -> Result<Invocation, Errors> {
    let args = std::iter::once("openvmm").chain(args.iter().copied());
    Options::try_parse_from(args).unwrap().resolve()
}

#[test]
fn a_plain_invocation_resolves() {
    let kernel = tempfile::NamedTempFile::new().unwrap();
    let path = kernel.path().to_str().unwrap();
    let invocation = resolve(&[
        "--kernel", path, "-c", "a", "-c", "--b", "-p", "4", "-m", "512M",
    ])
    .unwrap();
    assert_eq!(invocation.vm.topology.processors, 4);
    assert_eq!(invocation.vm.memory.size, 512 << 20);
    let [com1] = &*invocation.vm.chipset_devices else {
        panic!("{:?}", invocation.vm.chipset_devices);
    };
    assert_eq!(com1.name, "com1");
    let port = com1.resource.handle::<Serial16550Handle>();
    assert_eq!(port.unwrap().unwrap().end, SerialEnd::Console);
    let LoadMode::LinuxDirect(linux) = invocation.vm.load_mode else {
        panic!("{:?}", invocation.vm.load_mode);
    };
    assert_eq!(linux.cmdline, "a --b");
    assert_eq!(invocation.start.initial_state, InitialState::Running);
}

#[test]
fn every_error_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let serial = format!("file={}/serial", directory.path().display());
    let errors = resolve(&[
        "--kernel",
        "/nonexistent/vmlinuz",
        "--initrd",
        "/",
        "-p",
        "65",
        "-m",
        "31M",
        "--smt",
        "maybe",
        "--com1",
        "what",
        "--com2",
        &serial,
        "--com3",
        &serial,
        "--debugcon",
        "99999:stderr",
        "--irqchip",
        "none",
        "--hypervisor",
        "xen",
        "--hibernation",
        "sometimes",
        "--nested",
        "yes",
        "--json-events",
        "fd=x",
        "--boot-protocol",
        "efi",
    ])
    .unwrap_err();
    let text = errors.to_string();
    for expected in [
        "--kernel: cannot read /nonexistent/vmlinuz",
        "--initrd: cannot read /: it is a directory",
        "65 processors",
        "32 MiB",
        "'maybe'",
        "'what'",
        "--com2 and --com3 are the same file",
        "'99999'",
        "--irqchip: 'none'",
        "--hypervisor: 'xen'",
        "'sometimes'",
        "--nested: 'yes'",
        "--json-events: 'x'",
        "--boot-protocol: 'efi'",
    ] {
        assert!(text.contains(expected), "{expected} not in:\n{text}");
    }
}

#[test]
fn memory_that_uefi_firmware_cannot_use_is_an_error() {
    let firmware = tempfile::NamedTempFile::new().unwrap();
    let path = firmware.path().to_str().unwrap();
    let with = |memory| {
        let errors = resolve(&["--uefi-firmware", path, "-m", memory]);
        errors.err().map(|errors| errors.to_string())
    };
    assert!(with("32M").unwrap().contains("64 MiB"));
    assert!(with("67112960").unwrap().contains("number of MiB"));
    assert_eq!(with("64M"), None);
}

/// A hibernated guest resumes on its stored firmware.
#[test]
fn missing_firmware_is_an_error_unless_a_guest_may_resume() {
    let store = tempfile::NamedTempFile::new().unwrap();
    let store = store.path().to_str().unwrap();
    let firmware = ["--uefi-firmware", "/nonexistent/OVMF.fd"];
    for (more, accepted) in [
        (&[][..], false),
        (&["--vmgs", store], false),
        (&["--hibernation", "on"], false),
        (
            &["--hibernation", "on", "--vmgs", "/nonexistent/vmgs"],
            false,
        ),
        (&["--hibernation", "on", "--vmgs", store], true),
    ] {
        let resolved = resolve(&[&firmware[..], more].concat());
        let refused = resolved.err().map(|errors| errors.to_string());
        let expected = "--uefi-firmware: cannot read /nonexistent/OVMF.fd";
        match refused {
            Some(text) => assert!(!accepted && text.contains(expected), "{more:?}: {text}"),
            None => assert!(accepted, "{more:?}"),
        }
    }
}

#[test]
fn no_kernel_is_an_error() {
    assert_eq!(resolve(&[]).unwrap_err().0.len(), 1);
}

fn with_kernel(args: &[&str]) -> Result<Invocation, Errors> {
    let kernel = tempfile::NamedTempFile::new().unwrap();
    let path = kernel.path().to_str().unwrap();
    resolve(&[&["--kernel", path], args].concat())
}

#[test]
fn nested_virtualization_is_off_unless_asked_for() {
    let nested = |args: &[&str]| with_kernel(args).unwrap().vm.nested;
    assert!(!nested(&[]));
    assert!(!nested(&["--nested", "off"]));
    assert!(nested(&["--nested", "on"]));
}

#[test]
fn options_of_other_scripts_are_taken() {
    let invocation = with_kernel(&[
        "-M",
        "-m",
        "size=64MB,prefetch=on",
        "--smt",
        "auto",
        "--x2apic",
        "supported",
        "--net",
        "none",
        "--virtio-net",
        "none",
        "--virtio-blk",
        "mem:1M",
        "--disk",
        "mem:2M",
        "--no-hv",
        "--no-vmbus",
        "--no-get",
        "--single-process",
        "--serial-tx-only",
        "--com2",
        "listen=tcp:127.0.0.1:0",
        "--pidfile",
        "/tmp/openvmm-test.pid",
    ])
    .unwrap();
    let memory = invocation.vm.memory;
    assert_eq!(memory.size, 64 << 20);
    assert_eq!(memory.sharing, Some(Sharing::Shared));
    assert_eq!(memory.population, Population::Prealloc);
    assert_eq!(invocation.vm.topology.threads_per_core, 1);
    let names: Vec<_> = invocation
        .vm
        .pci_devices
        .iter()
        .map(|device| &*device.name)
        .collect();
    assert_eq!(names, ["disk0", "disk1"]);
    for device in &invocation.vm.chipset_devices {
        let port = device.resource.handle::<Serial16550Handle>();
        assert_eq!(port.unwrap().unwrap().input, Some(SerialInput::Dropped));
    }
    assert_eq!(invocation.pidfile, Some("/tmp/openvmm-test.pid".into()));
}

#[test]
fn what_is_missing_is_named() {
    for (args, expected) in [
        (&["--x2apic", "off"][..], "--x2apic: not supported yet: off"),
        (&["--x2apic", "on"], "--x2apic: not supported yet: on"),
        (&["--com1", "term"], "--com1: 'term': not supported yet"),
    ] {
        let errors = with_kernel(args).unwrap_err().to_string();
        assert!(errors.contains(expected), "{args:?}: {errors}");
    }
}

#[test]
fn ports_that_collide_are_refused() {
    for (args, owner) in [
        (&["--debugcon", "0x3f8:stderr"][..], "COM1"),
        (&["--debugcon", "0x3ff,stderr"], "COM1"),
        (&["--com2", "pty", "--debugcon", "0x2f8:stderr"], "COM2"),
        (&["--debugcon", "0x70:stderr"], "the real-time clock"),
        (&["--debugcon", "0xcf8:stderr"], "PCI configuration"),
    ] {
        let errors = with_kernel(args).unwrap_err().to_string();
        assert!(errors.contains(owner), "{args:?}: {errors}");
    }
    for free in ["0x402:stderr", "0x2f8:stderr", "0x400:stderr"] {
        with_kernel(&["--debugcon", free]).unwrap();
    }
    with_kernel(&["--com1", "none", "--debugcon", "0x3f8:stderr"]).unwrap();
}

#[test]
fn actions_say_what_happens_when_the_guest_ends() {
    let invocation = with_kernel(&[
        "--guest-reset-action",
        "exit:9",
        "--guest-shutdown-action",
        "halt",
        "--guest-crash-action",
        "exit",
    ])
    .unwrap();
    let halts = AfterGuest {
        reset: AfterEnd::Halt,
        ..AfterGuest::default()
    };
    assert_eq!(invocation.start.after_guest, halts);
    let expected = GuestActions {
        reset: GuestAction::Exit(9),
        shutdown: GuestAction::Halt,
        crash: GuestAction::Exit(0),
    };
    assert_eq!(invocation.actions, expected);
    let restarts = AfterGuest {
        power_off: AfterEnd::Restart,
        crash: AfterEnd::Restart,
        ..AfterGuest::default()
    };
    for (args, after_guest) in [
        (&[][..], AfterGuest::default()),
        (&["--guest-reset-action", "reset"], AfterGuest::default()),
        (&["--halt-on-reset"], halts),
        (
            &[
                "--guest-shutdown-action",
                "reset",
                "--guest-crash-action",
                "reset",
            ],
            restarts,
        ),
    ] {
        let invocation = with_kernel(args).unwrap();
        assert_eq!(invocation.start.after_guest, after_guest, "{args:?}");
        assert_eq!(invocation.actions, GuestActions::default());
    }
    let both = with_kernel(&["--halt-on-reset", "--guest-reset-action", "halt"]);
    assert!(both.unwrap_err().to_string().contains("--halt-on-reset"));
}

#[test]
fn older_options_for_memory_do_not_contradict_it() {
    for (args, expected) in [
        (&["--private-memory", "-M"][..], "--private-memory"),
        (&["-m", "64M,shared=on", "--private-memory"], "shared="),
        (&["-m", "64M,prefetch=off", "--prefetch"], "prefetch="),
        (
            &["-m", "64M,file=/tmp/a", "--memory-backing-file", "/tmp/b"],
            "--memory-backing-file",
        ),
    ] {
        let errors = with_kernel(args).unwrap_err().to_string();
        assert!(errors.contains(expected), "{args:?}: {errors}");
    }
}

#[test]
fn huge_pages_must_divide_the_memory() {
    for (memory, page) in [
        ("65M,hugepages", "huge pages of 2 MiB"),
        ("1536M,hugepages,hugepage_size=1G", "huge pages of 1024 MiB"),
        ("4G,hugepages,hugepage_size=1G", "huge pages of 1024 MiB"),
    ] {
        let errors = with_kernel(&["-m", memory]).unwrap_err().to_string();
        assert!(errors.contains(page), "{memory}: {errors}");
    }
    with_kernel(&["-m", "2G,hugepages,hugepage_size=1G"]).unwrap();
}

#[test]
fn a_store_can_be_in_memory_or_made_anew() {
    let firmware = tempfile::NamedTempFile::new().unwrap();
    let firmware = firmware.path().to_str().unwrap();
    for (text, path, memory, format) in [
        ("/tmp/a,,b", Some("/tmp/a,b"), None, None),
        ("file:/x,fmt", Some("/x"), None, Some(FormatVmgs::Always)),
        ("mem:4M", None, Some(VmgsMemory::New(4 << 20)), None),
        (
            "memdiff:file:/x,fmt-on-fail",
            Some("/x"),
            Some(VmgsMemory::Overlay),
            Some(FormatVmgs::IfDamaged),
        ),
    ] {
        let invocation = with_kernel(&["--uefi-firmware", firmware, "--vmgs", text]).unwrap();
        assert_eq!(invocation.vm.vmgs, path.map(PathBuf::from), "{text}");
        assert_eq!(invocation.vm.vmgs_memory, memory, "{text}");
        let Start::Boot(boot) = invocation.start.start else {
            panic!("{text}");
        };
        assert_eq!(boot.vmgs_format, format, "{text}");
    }
}

/// A file with firmware of a generation-2 VM.
fn msvm() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), ovmf_image::constructed::msvm()).unwrap();
    file
}

#[test]
fn firmware_of_a_generation_2_vm_is_recognized() {
    let file = msvm();
    let path = file.path().to_str().unwrap();
    let settings = |args: &[&str]| {
        let args = [&["--uefi-firmware", path], args].concat();
        match resolve(&args).unwrap().vm.load_mode {
            LoadMode::HypervUefi(uefi) => {
                assert_eq!(uefi.firmware, file.path());
                uefi.settings
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(settings(&["--uefi"]), HypervUefiSettings::default());
    let all = [
        "--uefi-console-mode",
        "com2",
        "--uefi-debug",
        "--uefi-enable-memory-protections",
        "--uefi-force-dma-bounce",
        "--disable-frontpage",
        "--default-boot-always-attempt",
    ];
    let expected = HypervUefiSettings {
        console: Some(FirmwareConsole::Com2),
        memory_protection: FirmwareMemoryProtection::Default,
        boot_failure: BootFailure::PowerOff,
        default_boot: DefaultBoot::Always,
        debugger: true,
        dma_bounce: true,
    };
    assert_eq!(settings(&all), expected);
    for (mode, console) in [
        ("default", FirmwareConsole::Video),
        ("com1", FirmwareConsole::Com1),
        ("none", FirmwareConsole::None),
    ] {
        let settings = settings(&["--uefi-console-mode", mode]);
        assert_eq!(settings.console, Some(console));
    }
}

#[test]
fn keys_come_from_a_template_and_a_file() {
    let file = msvm();
    let path = file.path().to_str().unwrap();
    let device = |args: &[&str]| {
        let args = [&["--uefi-firmware", path], args].concat();
        resolve(&args).map(|invocation| match invocation.vm.load_mode {
            LoadMode::HypervUefi(uefi) => uefi.device,
            other => panic!("{other:?}"),
        })
    };
    assert_eq!(device(&[]).unwrap(), UefiDeviceConfig::default());
    let template = ["--secure-boot", "--secure-boot-template", "windows"];
    let more = ["--efi-diagnostics-log-level", "full"];
    let windows = device(&[&template[..], &more].concat()).unwrap();
    let keys = SecureBootTemplate::MicrosoftWindows.keys();
    assert!(windows.secure_boot.is_enabled);
    assert_eq!(windows.secure_boot.keys, keys);
    assert_eq!(windows.log_level, LogLevel::Full);

    let json = tempfile::NamedTempFile::new().unwrap();
    let content = r#"{"type": "Microsoft.Compute/disks", "properties": {"uefiSettings": {
        "signatureMode": "Append", "signatures": {"db": [{"type": "x509", "value": ["AQI="]}]}}}}"#;
    std::fs::write(&json, content).unwrap();
    let json = ["--custom-uefi-json", json.path().to_str().unwrap()];
    let custom = device(&[&template[..], &json].concat()).unwrap();
    assert_eq!(custom.secure_boot.keys.db.len(), keys.db.len() + 1);
    let errors = device(&json).unwrap_err().to_string();
    assert!(errors.contains("needs a template"), "{errors}");
    let wrong = [
        "--secure-boot-template",
        "mine",
        "--custom-uefi-json",
        "/nonexistent/uefi.json",
        "--efi-diagnostics-log-level",
        "all",
    ];
    let errors = device(&wrong).unwrap_err().to_string();
    for expected in ["`mine`", "/nonexistent/uefi.json", "'all'"] {
        assert!(errors.contains(expected), "{errors}");
    }
    let errors = resolve(&["--kernel", path, "--secure-boot"]);
    let errors = errors.unwrap_err().to_string();
    assert!(errors.contains("--secure-boot needs"), "{errors}");
}

#[test]
fn options_of_one_firmware_are_errors_with_another() {
    let file = msvm();
    let path = file.path().to_str().unwrap();
    let errors = resolve(&[
        "--uefi-firmware",
        path,
        "--uefi-vars",
        path,
        "--kernel",
        path,
        "-c",
        "quiet",
        "--uefi-console-mode",
        "vga",
    ])
    .unwrap_err()
    .to_string();
    for expected in [
        "--uefi-vars: the firmware",
        "--kernel: ",
        "--cmdline: ",
        "'vga'",
    ] {
        assert!(errors.contains(expected), "{errors}");
    }
    let errors = resolve(&["--kernel", path, "--disable-frontpage", "--uefi-debug"]);
    let errors = errors.unwrap_err().to_string();
    for expected in ["--disable-frontpage needs", "--uefi-debug needs"] {
        assert!(errors.contains(expected), "{errors}");
    }
}
