//! Options of Microsoft's openvmm that this one does not have: the answer says what is missing.

use clap::error::ContextKind;
use clap::error::ContextValue;
use clap::error::ErrorKind;

/// The options by what they need. In each group, the names have no leading dashes.
const MISSING: &[(&str, &[&str])] = &[
    ("NUMA topologies", &["numa", "numa-distance", "numa-memory"]),
    ("snapshots", &["write-saved-state-proto"]),
    (
        "Hyper-V enlightenments",
        &[
            "hv",
            "no-enlightenments",
            "guest-watchdog",
            "guest-watchdog-action",
        ],
    ),
    ("guests for ARM64", &["device-tree", "gic-msi", "smmu"]),
    (
        "the OpenHCL paravisor",
        &[
            "vtl2",
            "get",
            "no-alias-map",
            "late-map-vtl0-policy",
            "vtl2-gfx",
            "vmbus-redirect",
            "openhcl-controller",
            "openhcl-dump-path",
            "vmbus-vtl2-vsock-path",
            "vtl2-vsock-path",
        ],
    ),
    ("isolated VMs", &["isolation", "test-gsp-by-id"]),
    (
        "VMBus devices",
        &[
            "vmbus-vsock-path",
            "vsock-path",
            "vmbus-com1-serial",
            "vmbus-com2-serial",
            "vmbus-max-version",
            "vmbus-scsi",
            "scsi-sub-channels",
            "nic",
            "kernel-vmnic",
        ],
    ),
    (
        "a PC BIOS and its devices",
        &[
            "pcat",
            "pcat-boot-order",
            "pcat-firmware",
            "vga-firmware",
            "ide",
            "floppy",
        ],
    ),
    ("a TPM", &["tpm"]),
    ("NVMe controllers", &["nvme", "nvme-pci"]),
    ("vhost-user devices", &["vhost-user"]),
    ("MANA devices", &["mana"]),
    (
        "shared directories",
        &[
            "virtio-9p",
            "virtio-9p-debug",
            "virtio-fs",
            "virtio-fs-shmem",
            "virtio-fs-bus",
        ],
    ),
    ("persistent memory", &["virtio-pmem"]),
    (
        "a virtio console",
        &["virtio-console", "virtio-console-pcie-port"],
    ),
    (
        "virtio sockets",
        &[
            "virtio-vsock-bus",
            "virtio-vsock-path",
            "virtio-vsock-vhost-cid",
        ],
    ),
    (
        "a choice of the bus of --virtio-rng",
        &["virtio-rng-bus", "virtio-rng-pcie-port"],
    ),
    (
        "PCI Express topologies",
        &[
            "pcie-root-complex",
            "pcie-ecam-below-4gb",
            "pcie-root-port",
            "pcie-switch",
            "pcie-generic-initiator",
            "pcie-remote",
            "cxl-test",
        ],
    ),
    ("IOMMUs", &["amd-iommu", "intel-vtd"]),
    ("devices of the host", &["vfio", "iommu", "device"]),
    (
        "graphics",
        &[
            "gfx",
            "vnc",
            "vnc-port",
            "vnc-listen",
            "vnc-max-clients",
            "vnc-read-only",
            "vnc-evict-oldest",
        ],
    ),
    ("a battery", &["battery"]),
    ("RPC servers", &["rpc", "ttrpc", "grpc"]),
    ("a debugger", &["gdb"]),
    ("local APICs outside of the hypervisor", &["user-mode-apic"]),
    ("a choice of APIC ids", &["apic-id-offset"]),
    ("crash dumps", &["crash-dump-path"]),
    ("registry hives for Windows", &["imc"]),
    (
        "separate console windows",
        &[
            "relay-console-path",
            "relay-console-title",
            "internal-worker",
        ],
    ),
];

/// The answer to a command line that clap did not accept, if that is because of such an option.
pub(crate) fn answer(error: &clap::Error) -> Option<String> {
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let name = argument.strip_prefix("--")?;
    let name = name.split_once('=').map_or(name, |(name, _)| name);
    let (what, _) = MISSING.iter().find(|(_, names)| names.contains(&name))?;
    Some(format!("--{name}: not supported yet: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Options;
    use clap::CommandFactory;
    use clap::Parser;

    fn answer_to(argument: &str) -> Option<String> {
        let error = Options::try_parse_from(["openvmm", argument, "value"]).unwrap_err();
        answer(&error)
    }

    #[test]
    fn each_missing_option_is_answered_by_name() {
        for (what, names) in MISSING {
            for name in *names {
                let expected = Some(format!("--{name}: not supported yet: {what}"));
                assert_eq!(answer_to(&format!("--{name}")), expected);
                assert_eq!(answer_to(&format!("--{name}=x")), expected);
            }
        }
        assert_eq!(answer_to("--no-such-option"), None);
    }

    #[test]
    fn an_option_that_exists_is_not_missing() {
        let command = Options::command();
        for argument in command.get_arguments() {
            let names = argument.get_long_and_visible_aliases().unwrap_or_default();
            for name in names {
                assert!(
                    !MISSING.iter().any(|(_, names)| names.contains(&name)),
                    "{name}"
                );
            }
        }
    }
}
