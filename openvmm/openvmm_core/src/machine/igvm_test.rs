//! Guests in IGVM files.

use crate::machine::HibernationSink;
use crate::machine::MachinePlan;
use crate::machine::test_bench::*;
use error_chain::Chain;
use igvm_format::Architecture;
use igvm_format::Directive;
use igvm_format::IgvmFile;
use igvm_format::NativeVpContext;
use igvm_format::PageDataRecord;
use igvm_format::PageDataType;
use igvm_format::PageFlags;
use igvm_format::Platform;
use igvm_format::PlatformType;
use igvm_format::RequiredMemory;
use igvm_format::Revision;
use igvm_format::VpContext;
use igvm_format::VpContextData;
use igvmfilegen::Manifest;
use igvmfilegen::Resources;
use openvmm_defs::config::Igvm;
use openvmm_defs::config::IgvmHost;
use openvmm_defs::config::IgvmHypervUefi;
use openvmm_defs::config::IgvmPcUefi;
use openvmm_defs::config::LoadMode;
use openvmm_defs::config::UefiVariables;
use openvmm_defs::config::VmConfig;
use openvmm_defs::start::Start;
use serde_json::json;
use std::sync::Arc;
use uefi_config::ENTROPY_LEN;
use virt::IrqchipMode;
use virt::x86::VpState;
use virt_fake::FakeHypervisor;
use zerocopy::FromZeros as _;

/// Packs this image of the VM's files.
fn pack(files: &Files, image: &serde_json::Value) {
    pack_for(files, "native", image);
}

fn pack_for(files: &Files, isolation: &str, image: &serde_json::Value) {
    let manifest: Manifest = serde_json::from_value(json!({
        "guest_arch": "x64",
        "guest_configs": [{"max_vtl": 0, "isolation_type": isolation, "image": image}],
    }))
    .unwrap();
    let resources: Resources = serde_json::from_value(json!({"resources": {
        "linux_kernel": files.path("kernel"),
        "ovmf_code": files.path("OVMF_CODE.fd"),
        "ovmf_vars": files.path("OVMF_VARS.fd"),
        "uefi": files.path("MSVM.fd"),
    }}))
    .unwrap();
    let generated = igvmfilegen::generate(&manifest, &resources).unwrap();
    std::fs::write(files.path("igvm"), generated.file).unwrap();
}

fn linux(files: &Files) -> LoadMode {
    pack(
        files,
        &json!({"linux": {"use_initrd": false, "memory_size": RAM}}),
    );
    LoadMode::Igvm(Igvm {
        file: files.path("igvm"),
        cmdline: Some("console=ttyS0".into()),
        host: IgvmHost::Linux,
    })
}

fn pc_uefi(files: &Files) -> LoadMode {
    LoadMode::Igvm(Igvm {
        file: files.path("igvm"),
        cmdline: None,
        host: IgvmHost::PcUefi(IgvmPcUefi {
            variables: UefiVariables::Memory(None),
            kernel: None,
        }),
    })
}

fn hyperv_uefi(files: &Files) -> LoadMode {
    LoadMode::Igvm(Igvm {
        file: files.path("igvm"),
        cmdline: None,
        host: IgvmHost::HypervUefi(IgvmHypervUefi::default()),
    })
}

fn config(files: &Files, load_mode: LoadMode) -> VmConfig {
    let mut config = files.config(load_mode, IrqchipMode::Kernel);
    // A file with more than firmware is not preserved.
    config.hibernation.enabled = false;
    config
}

/// RAM with the configuration's random bytes cleared, and the state of both VPs.
fn generation_2(files: &Files, load_mode: LoadMode) -> (Vec<u8>, [VpState; 2]) {
    let bench = Bench::boot(&config(files, load_mode));
    let mut ram = std::fs::read(files.path("ram")).unwrap();
    let config = &mut ram[0x70_9000..];
    let len = u32::from_le_bytes(config[12..16].try_into().unwrap());
    uefi_config::replace_entropy(&mut config[..len as usize], &[0; ENTROPY_LEN]).unwrap();
    (ram, [0, 1].map(|vp| bench.hypervisor.vp_state(vp)))
}

/// Registers of a processor in real mode.
fn real_mode() -> NativeVpContext {
    let mut registers = NativeVpContext::new_zeroed();
    registers.rflags = 2.into();
    registers.cr0 = 0x10.into();
    registers.code_attributes = 0x9b.into();
    registers.data_attributes = 0x93.into();
    registers
}

#[test]
fn packed_firmware_of_a_generation_2_vm_starts_as_an_image_does() {
    let files = Files::new();
    let (direct_ram, direct_vps) = generation_2(&files, files.hyperv());
    let uefi = json!({"uefi": {"config_type": "none"}});
    pack_for(&files, "none", &uefi);
    let packed = Files::new();
    std::fs::copy(files.path("igvm"), packed.path("igvm")).unwrap();
    let (ram, vps) = generation_2(&packed, hyperv_uefi(&packed));
    let differs = direct_ram.iter().zip(&ram).position(|(a, b)| a != b);
    assert_eq!((differs, ram.len()), (None, direct_ram.len()));
    for (vp, direct) in vps.iter().zip(&direct_vps) {
        assert_eq!(vp.registers, direct.registers);
        assert_eq!(vp.msrs, direct.msrs);
    }
}

/// The state has the file, and the host's may be gone.
#[test]
fn a_saved_machine_with_packed_firmware_resets_with_it() {
    let files = Files::new();
    files.hyperv();
    pack_for(&files, "none", &json!({"uefi": {"config_type": "none"}}));
    let config = config(&files, hyperv_uefi(&files));
    let image = std::fs::read(files.path("MSVM.fd")).unwrap();
    let mut bench = Bench::boot(&config);
    let saved = bench.save();
    bench.end(&config);
    std::fs::remove_file(files.path("igvm")).unwrap();
    std::fs::write(files.path("ram"), vec![0; RAM as usize]).unwrap();
    let mut bench = Bench::new(&config, &Start::from(saved)).unwrap();
    bench.machine.lifecycle.reset().unwrap();
    bench.end(&config);
    let ram = std::fs::read(files.path("ram")).unwrap();
    assert!(ram[0x10_0000..][..image.len()] == image);
}

#[test]
fn what_is_where_the_configuration_goes_is_named() {
    let files = Files::new();
    let page = Directive::PageData(PageDataRecord {
        gpa: 0x70_9000,
        mask: 1,
        flags: PageFlags::default(),
        data_type: PageDataType::Normal,
        data: &[],
    });
    let registers = real_mode();
    let context = Directive::VpContext(VpContext {
        gpa: 0,
        mask: 1,
        vp_index: 0,
        data: VpContextData::Native(&registers),
    });
    let file = IgvmFile {
        revision: Revision::V2(Architecture::X64),
        platforms: vec![
            Platform {
                mask: 1,
                highest_vtl: 0,
                platform_type: PlatformType::Native,
                shared_gpa_boundary: 0,
            }
            .into(),
        ],
        initializations: Vec::new(),
        directives: vec![context.into(), page.into()],
        skipped: Vec::new(),
    };
    std::fs::write(files.path("igvm"), file.write().unwrap()).unwrap();
    // Before anything is built.
    let config = config(&files, hyperv_uefi(&files));
    let events: HibernationSink = Arc::new(|_| ());
    let hypervisor = FakeHypervisor::new();
    let plan = MachinePlan::new(&hypervisor, &config, &Start::default(), None, &events);
    let error = Chain(&plan.err().unwrap()).to_string();
    assert!(
        error.contains("the firmware's configuration at 0x709000-"),
        "{error}"
    );
}

#[test]
fn a_hibernated_guest_keeps_the_image_that_was_in_the_file() {
    let files = Files::new();
    files.hyperv();
    let uefi = json!({"uefi": {"config_type": "none"}});
    pack_for(&files, "none", &uefi);
    let mut config = config(&files, hyperv_uefi(&files));
    config.hibernation.enabled = true;
    let mut bench = Bench::boot(&config);
    hibernate_generation_2(&mut bench);
    assert_eq!(bench.take_events().last().unwrap(), "halted hibernate");
    let image = std::fs::read(files.path("MSVM.fd")).unwrap();
    bench.end(&config);

    // The host has another build in its file, and then only an image of it.
    let mut other = image.clone();
    other[0x1000] ^= 1;
    std::fs::write(files.path("MSVM.fd"), other).unwrap();
    pack_for(&files, "none", &uefi);
    for load_mode in [config.load_mode.clone(), files.hyperv()] {
        config.load_mode = load_mode;
        let bench = Bench::boot(&config);
        assert!(bench.take_events().contains(&"restored".to_owned()));
        bench.end(&config);
        let ram = std::fs::read(files.path("ram")).unwrap();
        assert!(ram[0x10_0000..][..image.len()] == image);
    }
}

#[test]
fn what_an_image_does_not_have_is_not_preserved() {
    let files = Files::new();
    files.hyperv();
    pack_for(&files, "none", &json!({"uefi": {"config_type": "none"}}));
    let bytes = std::fs::read(files.path("igvm")).unwrap();
    let mut file = IgvmFile::parse(&bytes).unwrap();
    let content = [1; 4096];
    let page = Directive::PageData(PageDataRecord {
        gpa: 0x80_0000,
        mask: 1,
        flags: PageFlags::default(),
        data_type: PageDataType::Normal,
        data: &content,
    });
    file.directives.push(page.into());
    std::fs::write(files.path("igvm"), file.write().unwrap()).unwrap();
    let mut config = config(&files, hyperv_uefi(&files));
    Bench::boot(&config).end(&config);
    config.hibernation.enabled = true;
    let error = Bench::new(&config, &Start::default()).map(|_| ());
    let error = Chain(&error.unwrap_err()).to_string();
    assert!(error.contains("in another way than an image"), "{error}");
}

/// OVMF in a file, whose variables are in the VMGS store.
fn preserved_ovmf(files: &Files) -> VmConfig {
    pack(files, &json!({"ovmf": {}}));
    let mut load_mode = pc_uefi(files);
    if let LoadMode::Igvm(igvm) = &mut load_mode
        && let IgvmHost::PcUefi(host) = &mut igvm.host
    {
        host.variables = UefiVariables::Vmgs;
    }
    let mut config = config(files, load_mode);
    config.hibernation.enabled = true;
    config
}

#[test]
fn a_hibernated_guest_keeps_the_ovmf_that_was_in_the_file() {
    let files = Files::new();
    let mut config = preserved_ovmf(&files);
    let mut bench = Bench::boot(&config);
    hibernate(&mut bench);
    assert_eq!(bench.take_events().last().unwrap(), "halted hibernate");
    bench.end(&config);

    // The host has another build in its file; then no such file; then only an image.
    let mut other = std::fs::read(files.path("OVMF_CODE.fd")).unwrap();
    other[0x1000] ^= 1;
    std::fs::write(files.path("OVMF_CODE.fd"), other).unwrap();
    pack(&files, &json!({"ovmf": {}}));
    let packed = config.load_mode.clone();
    let resumes = |config: &VmConfig| {
        let bench = Bench::boot(config);
        assert!(bench.take_events().contains(&"restored".to_owned()));
        bench.end(config);
    };
    resumes(&config);
    std::fs::remove_file(files.path("igvm")).unwrap();
    config.load_mode = packed;
    resumes(&config);
    config.load_mode = files.uefi();
    resumes(&config);
}

#[test]
fn ovmf_is_not_preserved_from_a_file_with_more() {
    let files = Files::new();
    let mut config = preserved_ovmf(&files);
    let bytes = std::fs::read(files.path("igvm")).unwrap();
    let content = [1; 4096];
    let registers = real_mode();
    for more in [
        Directive::PageData(PageDataRecord {
            gpa: 0x80_0000,
            mask: 1,
            flags: PageFlags::default(),
            data_type: PageDataType::Normal,
            data: &content,
        }),
        Directive::RequiredMemory(RequiredMemory {
            gpa: 0,
            mask: 1,
            size: 4096,
            vtl2_protectable: false,
        }),
        Directive::VpContext(VpContext {
            gpa: 0,
            mask: 1,
            vp_index: 0,
            data: VpContextData::Native(&registers),
        }),
    ] {
        let mut file = IgvmFile::parse(&bytes).unwrap();
        file.directives.push(more.into());
        std::fs::write(files.path("igvm"), file.write().unwrap()).unwrap();
        config.hibernation.enabled = false;
        Bench::boot(&config).end(&config);
        config.hibernation.enabled = true;
        let error = Bench::new(&config, &Start::default()).map(|_| ());
        let error = Chain(&error.unwrap_err()).to_string();
        assert!(error.contains("in another way than an image"), "{error}");
    }
}

#[test]
fn a_packed_kernel_starts_as_a_direct_boot_does() {
    let start = |files: &Files, load_mode| {
        let bench = Bench::boot(&config(files, load_mode));
        let ram = std::fs::read(files.path("ram")).unwrap();
        (ram, bench.hypervisor.vp_state(0))
    };
    let files = Files::new();
    let (direct_ram, direct_vp) = start(&files, files.linux());
    let files = Files::new();
    let load_mode = linux(&files);
    let (ram, vp) = start(&files, load_mode);
    let differs = direct_ram.iter().zip(&ram).position(|(a, b)| a != b);
    assert_eq!(differs, None);
    assert_eq!(vp.registers, direct_vp.registers);
    assert_eq!(vp.msrs, direct_vp.msrs);
}

#[test]
fn packed_firmware_is_in_flash_memory() {
    let start = |files: &Files, load_mode| {
        let mut bench = Bench::boot(&config(files, load_mode));
        let registers = bench.hypervisor.vp_state(0).registers;
        bench.run(vec![out(0x80, &[1])]);
        (bench.hypervisor.mappings(), registers)
    };
    let files = Files::new();
    pack(&files, &json!({"ovmf": {}}));
    let packed = start(&files, pc_uefi(&files));
    let files = Files::new();
    let mut load_mode = files.uefi();
    if let LoadMode::PcUefi(uefi) = &mut load_mode {
        uefi.variables = UefiVariables::Memory(None);
    }
    let separate = start(&files, load_mode);
    assert_eq!(packed, separate);
    // The variables are right below the code.
    let (mappings, _) = packed;
    let flash = mappings.iter().filter(|(range, _)| range.start >= RAM);
    let flash: Vec<_> = flash.map(|(range, _)| (range.start, range.end)).collect();
    let (variables, code) = (0xffc0_0000, 0xffc8_4000);
    assert_eq!(flash, [(variables, code), (code, 1 << 32)]);
}

#[test]
fn a_page_that_is_neither_in_ram_nor_in_flash_memory_is_refused() {
    let files = Files::new();
    pack(&files, &json!({"ovmf": {}}));
    let config = config(&files, pc_uefi(&files));
    let bytes = std::fs::read(files.path("igvm")).unwrap();
    let content = [1; 4096];
    let mut file = IgvmFile::parse(&bytes).unwrap();
    let page = Directive::PageData(PageDataRecord {
        gpa: (1 << 32) - ovmf_image::MAX_SIZE - 4096,
        mask: 1,
        flags: PageFlags::default(),
        data_type: PageDataType::Normal,
        data: &content,
    });
    file.directives.push(page.into());
    std::fs::write(files.path("igvm"), file.write().unwrap()).unwrap();
    let error = Bench::new(&config, &Start::default()).map(|_| ());
    let error = error.unwrap_err().to_string();
    assert!(error.contains("but this guest has RAM at"), "{error}");
}

#[test]
fn a_file_without_firmware_is_refused_where_firmware_is_to_run() {
    let files = Files::new();
    linux(&files);
    let mut config = config(&files, pc_uefi(&files));
    let error = Bench::new(&config, &Start::default()).map(|_| ());
    let error = error.unwrap_err().to_string();
    assert!(error.contains("has no firmware for PCs"), "{error}");

    // And firmware where a kernel is to run.
    pack(&files, &json!({"ovmf": {}}));
    if let LoadMode::Igvm(igvm) = &mut config.load_mode {
        igvm.host = IgvmHost::Linux;
    }
    let error = Bench::new(&config, &Start::default()).map(|_| ());
    let error = error.unwrap_err().to_string();
    assert!(error.contains("PAGE_DATA at offset"), "{error}");
}
