//! What the machine says it is: SMBIOS structures, and the identities derived from the VM's.

use guest_memory::MemoryLayout;
use sha2::Digest as _;
use sha2::Sha256;
use smbios::BaseboardInformation;
use smbios::BiosInformation;
use smbios::Chassis;
use smbios::Description;
use smbios::ProcessorInformation;
use smbios::SystemInformation;
use uuid::Uuid;
use virt::ProcessorIdentity;
use virt::Topology;

const VENDOR: &str = "OpenVMM";

/// The description that SMBIOS structures are made from. The same VM has the same, whatever the version of the VMM.
pub(crate) fn smbios(uuid: [u8; 16], topology: &Topology, layout: &MemoryLayout) -> Description {
    let vps = topology.vps().len();
    let per_socket = topology.vps_per_socket() as usize;
    let per_core = topology.threads_per_core() as usize;
    Description {
        bios: BiosInformation {
            vendor: VENDOR.into(),
            version: "UEFI".into(),
            release_date: "01/01/2026".into(),
            release: (0xff, 0xff),
        },
        system: SystemInformation {
            manufacturer: VENDOR.into(),
            product: "Virtual Machine".into(),
            version: "pc-uefi".into(),
            uuid: Uuid::from_bytes(uuid),
            ..SystemInformation::default()
        },
        baseboard: BaseboardInformation {
            manufacturer: VENDOR.into(),
            product: "Virtual Machine".into(),
            ..BaseboardInformation::default()
        },
        chassis: Chassis {
            manufacturer: VENDOR.into(),
            ..Chassis::default()
        },
        processors: (0..vps)
            .step_by(per_socket.max(1))
            .map(|first| {
                let threads = (vps - first).min(per_socket);
                ProcessorInformation {
                    manufacturer: VENDOR.into(),
                    cores: threads.div_ceil(per_core.max(1)) as u16,
                    threads: threads as u16,
                    ..ProcessorInformation::default()
                }
            })
            .collect(),
        memory: layout.ram().iter().map(|ram| ram.start..ram.end).collect(),
    }
}

/// The description with what the partition's processors say of themselves.
pub(crate) fn with_processor(
    mut machine: Description,
    processor: ProcessorIdentity,
) -> Description {
    // Rounded: a host measures its counter again at each boot.
    let mhz = u16::try_from(processor.tsc_khz.saturating_add(500) / 1000).unwrap_or(u16::MAX);
    for socket in &mut machine.processors {
        socket.id = processor.signature;
        socket.max_speed = mhz;
        socket.current_speed = mhz;
    }
    machine
}

/// The generation ID of a VM that was never copied or set back.
pub(crate) fn generation_id(uuid: [u8; 16]) -> [u8; 16] {
    let digest = Sha256::new()
        .chain_update(uuid)
        .chain_update("generation")
        .finalize();
    std::array::from_fn(|n| digest[n])
}

#[cfg(test)]
mod tests {
    use super::*;
    use virt::TopologyConfig;

    #[test]
    fn the_description_is_that_of_the_machine() {
        let topology = Topology::new(TopologyConfig {
            processors: 6,
            vps_per_socket: Some(4),
            threads_per_core: 2,
        })
        .unwrap();
        let layout = MemoryLayout::new(4 << 30, 0xb000_0000, 40).unwrap();
        let machine = smbios([7; 16], &topology, &layout);
        let system = SystemInformation {
            manufacturer: "OpenVMM".into(),
            product: "Virtual Machine".into(),
            version: "pc-uefi".into(),
            uuid: Uuid::from_bytes([7; 16]),
            ..SystemInformation::default()
        };
        assert_eq!(machine.system, system);
        let baseboard = BaseboardInformation {
            manufacturer: "OpenVMM".into(),
            product: "Virtual Machine".into(),
            ..BaseboardInformation::default()
        };
        assert_eq!(machine.baseboard, baseboard);
        assert_eq!(machine.chassis.manufacturer, "OpenVMM");
        let socket = |cores, threads| ProcessorInformation {
            manufacturer: "OpenVMM".into(),
            cores,
            threads,
            ..ProcessorInformation::default()
        };
        // The last socket is not full.
        assert_eq!(machine.processors, [socket(2, 4), socket(1, 2)]);
        let ram = [0..0xb000_0000, 1 << 32..(1 << 32) + 0x5000_0000];
        assert_eq!(machine.memory, ram);
    }

    #[test]
    fn identities_follow_from_the_uuid() {
        let uuid = std::array::from_fn(|n| n as u8 * 0x11);
        assert_eq!(generation_id(uuid), generation_id(uuid));
        assert_ne!(generation_id(uuid), generation_id([0; 16]));
    }
}
