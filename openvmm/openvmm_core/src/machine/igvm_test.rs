//! Guests in IGVM files.

use crate::machine::test_bench::*;
use igvmfilegen::Manifest;
use igvmfilegen::Resources;
use openvmm_defs::config::Igvm;
use openvmm_defs::config::IgvmHost;
use openvmm_defs::config::IgvmPcUefi;
use openvmm_defs::config::LoadMode;
use openvmm_defs::config::UefiVariables;
use openvmm_defs::config::VmConfig;
use openvmm_defs::start::Start;
use serde_json::json;
use virt::IrqchipMode;

/// Packs this image of the VM's files.
fn pack(files: &Files, image: &serde_json::Value) {
    let manifest: Manifest = serde_json::from_value(json!({
        "guest_arch": "x64",
        "guest_configs": [{"max_vtl": 0, "isolation_type": "native", "image": image}],
    }))
    .unwrap();
    let resources: Resources = serde_json::from_value(json!({"resources": {
        "linux_kernel": files.path("kernel"),
        "ovmf_code": files.path("OVMF_CODE.fd"),
        "ovmf_vars": files.path("OVMF_VARS.fd"),
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

fn config(files: &Files, load_mode: LoadMode) -> VmConfig {
    files.config(load_mode, IrqchipMode::Kernel)
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
    let files = Files::new();
    pack(&files, &json!({"ovmf": {}}));
    let bench = Bench::boot(&config(&files, pc_uefi(&files)));
    let packed = (
        bench.hypervisor.mappings(),
        bench.hypervisor.vp_state(0).registers,
    );
    let files = Files::new();
    let mut load_mode = files.uefi();
    if let LoadMode::PcUefi(uefi) = &mut load_mode {
        uefi.variables = UefiVariables::Memory(None);
    }
    let bench = Bench::boot(&config(&files, load_mode));
    let separate = (
        bench.hypervisor.mappings(),
        bench.hypervisor.vp_state(0).registers,
    );
    assert_eq!(packed, separate);
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
