use super::*;
use mesh::payload;
use mesh::payload::DecodeError;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use uefi_nvram::SecureBootTemplate;

fn config(load_mode: LoadMode) -> VmConfig {
    VmConfig {
        topology: TopologyConfig {
            processors: 4,
            vps_per_socket: Some(2),
            threads_per_core: 2,
        },
        irqchip: IrqchipMode::Split,
        memory: MemoryConfig {
            size: 1 << 30,
            // Not UTF-8.
            file: Some(OsString::from_vec(b"/ram\xff".to_vec()).into()),
            pages: HostPages::Huge,
            population: Population::Prealloc,
            sharing: None,
        },
        load_mode,
        chipset_devices: Vec::new(),
        hibernation: HibernationConfig {
            enabled: true,
            consume: ConsumePolicy::AtStart,
        },
        pci_devices: Vec::new(),
        vmgs: Some("/vm.vmgs".into()),
        vmgs_memory: None,
        nested: true,
        uuid: std::array::from_fn(|n| n as u8),
    }
}

fn linux() -> LoadMode {
    LoadMode::LinuxDirect(LinuxDirect {
        kernel: "/vmlinuz".into(),
        initrd: None,
        cmdline: "quiet".into(),
        protocol: BootProtocol::Pvh,
    })
}

#[test]
fn each_load_mode_survives_encoding() {
    let variables = [
        UefiVariables::Memory(None),
        UefiVariables::Memory(Some("/t".into())),
        UefiVariables::File("/v".into()),
        UefiVariables::Vmgs,
    ];
    let uefi = variables.into_iter().map(|variables| {
        LoadMode::PcUefi(PcUefi {
            code: "/OVMF.fd".into(),
            variables,
            kernel: Some(UefiKernel {
                kernel: "/vmlinuz".into(),
                initrd: Some("/initrd".into()),
                cmdline: String::new(),
            }),
        })
    });
    let settings = HypervUefiSettings {
        console: Some(FirmwareConsole::Com2),
        memory_protection: FirmwareMemoryProtection::Relaxed,
        boot_failure: BootFailure::PowerOff,
        default_boot: DefaultBoot::Always,
        debugger: true,
        dma_bounce: true,
    };
    let hyperv = [HypervUefiSettings::default(), settings].map(|settings| {
        LoadMode::HypervUefi(HypervUefi {
            firmware: "/MSVM.fd".into(),
            settings,
            device: UefiDeviceConfig {
                secure_boot: SecureBoot {
                    is_enabled: true,
                    keys: SecureBootTemplate::MicrosoftWindows.keys(),
                },
                log_level: LogLevel::Full,
            },
        })
    });
    for load_mode in uefi.chain([linux()]).chain(hyperv) {
        let config = config(load_mode);
        assert_eq!(payload::decode(&payload::encode(&config)), Ok(config));
    }
}

#[test]
fn a_store_in_memory_survives_encoding() {
    for memory in [VmgsMemory::New(4 << 20), VmgsMemory::Overlay] {
        let config = VmConfig {
            vmgs_memory: Some(memory),
            ..config(linux())
        };
        assert_eq!(payload::decode(&payload::encode(&config)), Ok(config));
    }
}

#[test]
fn unknown_fields_are_skipped_and_missing_ones_named() {
    #[derive(Encode)]
    #[cbor(map)]
    struct Newer {
        #[n(1)]
        size: u64,
        #[n(3)]
        pages: HostPages,
        #[n(4)]
        population: Population,
        #[n(99)]
        later: &'static str,
    }
    let newer = Newer {
        size: 7,
        pages: HostPages::Default,
        population: Population::OnDemand,
        later: "unknown",
    };
    let memory: MemoryConfig = payload::decode(&payload::encode(&newer)).unwrap();
    assert_eq!((memory.size, memory.file), (7, None));
    // An empty map.
    assert_eq!(
        payload::decode::<MemoryConfig>(&[0xa0]),
        Err(DecodeError::MissingField { field: 1 })
    );
}

#[test]
fn the_encoding_stays() {
    let hex: String = payload::encode(&config(linux()))
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let expected = "aa\
        01a3010402020302\
        0201\
        03a4011a4000000002452f72616dff03010401\
        04820081a301482f766d6c696e757a03657175696574\
        0402\
        0580\
        06a201f50201\
        0780\
        08482f766d2e766d6773\
        0950000102030405060708090a0b0c0d0e0f\
        0bf5";
    assert_eq!(hex, expected);
}

#[test]
fn configurations_from_before_nested_virtualization_are_without_it() {
    let config = VmConfig {
        nested: false,
        ..config(linux())
    };
    let mut bytes = payload::encode(&config);
    // A map with one entry less, and without the last one.
    bytes[0] -= 1;
    bytes.truncate(bytes.len() - 2);
    assert_eq!(payload::decode(&bytes), Ok(config));
}
