use super::*;

fn package(folder: &str, name: &str, dependencies: &[&str]) -> WorkspaceCrate {
    WorkspaceCrate {
        name: name.to_owned(),
        folder: folder.to_owned(),
        dependencies: dependencies
            .iter()
            .map(|name| CrateDependency {
                name: (*name).to_owned(),
                development: false,
            })
            .collect(),
    }
}

fn shown(packages: &[WorkspaceCrate]) -> Vec<String> {
    check(packages).iter().map(ToString::to_string).collect()
}

#[test]
fn dependencies_on_lower_and_sibling_folders_are_allowed() {
    let packages = [
        package("support", "pal_async", &["smol", "mesh"]),
        package("support", "mesh", &[]),
        package("vm/devices", "chipset", &["mesh", "vmtime", "serde"]),
        package("vm/vmcore", "vmtime", &[]),
        package("vm/firmware", "firmware_hibernation", &["vmgs"]),
        package("vm/vmgs", "vmgs", &[]),
        package("openvmm", "openvmm_core", &["chipset", "pal_async"]),
        package("xtask", "xtask", &["lab_init"]),
        package("vmm_tests", "lab_init", &["mesh"]),
    ];
    assert!(shown(&packages).is_empty());
}

#[test]
fn every_forbidden_dependency_is_reported() {
    let packages = [
        package("support", "mesh", &["chipset"]),
        package("vm/devices", "chipset", &["virt"]),
        package("vm/vmcore", "vmtime", &["chipset"]),
        package("vmm_core", "virt", &["async-io"]),
        package("openvmm", "openvmm_core", &["underhill_core"]),
        package("openhcl", "underhill_core", &["openvmm_core"]),
        package("misc", "odd", &[]),
    ];
    assert_eq!(
        shown(&packages),
        [
            "mesh -> chipset: support/ may not use vm/devices/",
            "chipset -> virt: vm/devices/ may not use vmm_core/",
            "vmtime -> chipset: vm/vmcore/ may not use vm/devices/",
            "virt -> async-io: only pal_async may use the async runtime",
            "openvmm_core -> underhill_core: openvmm/ may not use openhcl/",
            "underhill_core -> openvmm_core: openhcl/ may not use openvmm/",
            "odd: its folder misc/ is not a layer",
        ]
    );
}

#[test]
fn tests_may_use_the_runtime_but_not_a_higher_layer() {
    let mut mesh = package("support", "mesh", &["smol", "chipset"]);
    for dependency in &mut mesh.dependencies {
        dependency.development = true;
    }
    assert_eq!(
        shown(&[mesh, package("vm/devices", "chipset", &[])]),
        ["mesh -> chipset: support/ may not use vm/devices/"]
    );
}

#[test]
fn a_crate_is_in_the_folder_of_its_layer() {
    let folder = |path: &str| folder(Path::new(path));
    assert_eq!(folder("vm/devices/pci/q35/Cargo.toml"), "vm/devices");
    assert_eq!(folder("vm/vmgs/vmgs/Cargo.toml"), "vm/vmgs");
    assert_eq!(folder("vm/odd/Cargo.toml"), "vm");
    assert_eq!(folder("openvmm/openvmm/Cargo.toml"), "openvmm");
}
