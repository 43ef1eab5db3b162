//! Printing load options and device paths in the form that scripts parse.

use uefi_nvram_storage::DevicePathNode;
use uefi_nvram_storage::LoadOption;
use uuid::Uuid;

/// Names of subtypes, by type.
const HARDWARE: [(u8, &str); 6] = [
    (1, "PCI"),
    (2, "PCCARD"),
    (3, "MEMORY_MAPPED"),
    (4, "VENDOR"),
    (5, "CONTROLLER"),
    (6, "BMC"),
];
const ACPI: [(u8, &str); 4] = [(1, "ACPI"), (2, "EXPANDED_ACPI"), (3, "ADR"), (4, "NVDIMM")];
const MESSAGING: [(u8, &str); 32] = [
    (1, "ATAPI"),
    (2, "SCSI"),
    (3, "FIBRE_CHANNEL"),
    (4, "IEEE_1394"),
    (5, "USB"),
    (6, "I20_RANDOM_BLOCK_STORAGE_CLASS"),
    (9, "INFINIBAND"),
    (10, "SAS"),
    (11, "MAC_ADDRESS"),
    (12, "IPV4"),
    (13, "IPV6"),
    (14, "UART"),
    (15, "USB_CLASS"),
    (16, "USB_WWID"),
    (17, "LOGICAL_UNIT"),
    (18, "SATA"),
    (19, "ISCSI"),
    (20, "VLAN"),
    (21, "FIBRE_CHANNEL_EX"),
    (22, "SAS_EX"),
    (23, "NVME_NAMESPACE"),
    (24, "URI"),
    (25, "UFS"),
    (26, "SD"),
    (27, "BLUETOOTH"),
    (28, "WIFI"),
    (29, "EMMC"),
    (30, "BLUETOOTH_LE"),
    (31, "DNS"),
    (32, "NVDIMM"),
    (33, "REST_SERVICE"),
    (34, "NVME_OF"),
];
const MEDIA: [(u8, &str); 9] = [
    (1, "HARD_DRIVE"),
    (2, "CD_ROM"),
    (3, "VENDOR"),
    (4, "FILE"),
    (5, "MEDIA_PROTOCOL"),
    (6, "PIWG_FIRMWARE_FILE"),
    (7, "PIWG_FIRMWARE_VOLUME"),
    (8, "RELATIVE_OFFSET_RANGE"),
    (9, "RAM_DISK"),
];
const PARTITION_FORMATS: [(u8, &str); 2] = [(1, "MBR"), (2, "GUID")];
const SIGNATURE_TYPES: [(u8, &str); 3] = [(0, "NONE"), (1, "MBR"), (2, "GUID")];
const MEMORY_TYPES: [&str; 17] = [
    "EFI_RESERVED_MEMORY_TYPE",
    "EFI_LOADER_CODE",
    "EFI_LOADER_DATA",
    "EFI_BOOT_SERVICES_CODE",
    "EFI_BOOT_SERVICES_DATA",
    "EFI_RUNTIME_SERVICES_CODE",
    "EFI_RUNTIME_SERVICES_DATA",
    "EFI_CONVENTIONAL_MEMORY",
    "EFI_UNUSABLE_MEMORY",
    "EFI_ACPI_RECLAIM_MEMORY",
    "EFI_ACPI_MEMORY_NVS",
    "EFI_MEMORY_MAPPED_IO",
    "EFI_MEMORY_MAPPED_IOPORT_SPACE",
    "EFI_PAL_CODE",
    "EFI_PERSISTENT_MEMORY",
    "EFI_UNACCEPTED_MEMORY_TYPE",
    "EFI_MAX_MEMORY_TYPE",
];

/// The name of a value, or its hexadecimal digits if it has none.
fn named(names: &[(u8, &str)], value: u8) -> String {
    let name = names.iter().find(|(known, _)| *known == value);
    name.map_or_else(|| format!("{value:x}"), |(_, name)| (*name).into())
}

/// A node of a device path; none for a separator of instances, which is not printed.
pub(crate) fn node(node: &DevicePathNode) -> Option<String> {
    use DevicePathNode as N;
    Some(match node {
        N::MemoryMapped {
            memory_type,
            start,
            end,
        } => {
            let name = usize::try_from(*memory_type)
                .ok()
                .and_then(|index| MEMORY_TYPES.get(index));
            let memory_type =
                name.map_or_else(|| format!("{memory_type:x}"), |name| (*name).into());
            format!(
                "Hardware(MemoryMapped(EfiMemoryMappedDevice {{ memory_type: {memory_type}, \
                 start_address: {start:x}, end_address: {end:x} }}))"
            )
        }
        N::Vendor { guid, data } => {
            format!("Hardware(Vendor {{ vendor_guid: {guid}, data: {data:x?} }})")
        }
        N::ExpandedAcpi {
            hid,
            uid,
            cid,
            hid_text,
            uid_text,
            cid_text,
        } => format!(
            "Acpi(ExpandedAcpi {{ numeric: EfiExpandedAcpiDevice {{ hid: {hid:x}, cid: {cid:x}, uid: {uid:x} }}, \
             hidstr: {hid_text:?}, uidstr: {uid_text:?}, cidstr: {cid_text:?} }})"
        ),
        N::Scsi { target, lun } => format!(
            "Messaging(Scsi(EfiScsiDevice {{ target_id: {target:x}, logical_unit_num: {lun:x} }}))"
        ),
        N::HardDrive {
            partition,
            start,
            size,
            signature,
            format,
            signature_type,
        } => format!(
            "Media(HardDrive(EfiHardDriveDevice {{ partition_number: {partition:x}, partition_start: {start:x}, \
             partition_size: {size:x}, partition_signature: {}, partition_format: {}, partition_type: {} }}))",
            Uuid::from_bytes_le(*signature),
            named(&PARTITION_FORMATS, *format),
            named(&SIGNATURE_TYPES, *signature_type)
        ),
        N::FilePath(path) => format!("Media(File({path:?}))"),
        N::FirmwareFile(guid) => format!("Media(PiwgFirmwareFile({guid}))"),
        N::FirmwareVolume(guid) => format!("Media(PiwgFirmwareVolume({guid}))"),
        N::EndInstance => return None,
        N::Other {
            kind,
            subkind,
            data,
        } => other(*kind, *subkind, data),
    })
}

fn other(kind: u8, subkind: u8, data: &[u8]) -> String {
    let (category, names): (_, &[_]) = match kind {
        1 => ("Hardware", &HARDWARE),
        2 => ("Acpi", &ACPI),
        3 => ("Messaging", &MESSAGING),
        4 => ("Media", &MEDIA),
        _ => {
            let kind = named(&[(5, "BIOS_BOOT_SPEC")], kind);
            return format!(
                "Unknown {{ device_type: {kind}, device_subtype: {subkind:x}, path_data: {data:x?} }}"
            );
        }
    };
    let subkind = named(names, subkind);
    format!("{category}(Unknown {{ device_subtype: {subkind}, path_data: {data:x?} }})")
}

/// A whole load option, on one line.
pub(crate) fn load_option(option: &LoadOption) -> String {
    let path: Vec<String> = option.device_path.iter().filter_map(node).collect();
    let optional = match option.optional_data.as_slice() {
        [] => "None".to_string(),
        data => format!("Some({data:x?})"),
    };
    format!(
        "EfiLoadOption {{ attributes: {:x}, description: {:?}, device_paths: [{}], opt: {optional} }}",
        option.attributes,
        option.description,
        path.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_node_has_its_form() {
        let guid = Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        let text = "01234567-89ab-cdef-0123-456789abcdef";
        let cases = [
            (
                DevicePathNode::MemoryMapped {
                    memory_type: 11,
                    start: 0x1000,
                    end: 0x1fff,
                },
                "Hardware(MemoryMapped(EfiMemoryMappedDevice { memory_type: EFI_MEMORY_MAPPED_IO, \
                 start_address: 1000, end_address: 1fff }))"
                    .to_string(),
            ),
            (
                DevicePathNode::Vendor {
                    guid,
                    data: vec![1, 0xff],
                },
                format!("Hardware(Vendor {{ vendor_guid: {text}, data: [1, ff] }})"),
            ),
            (
                DevicePathNode::ExpandedAcpi {
                    hid: 0xa,
                    uid: 0xb,
                    cid: 0xc,
                    hid_text: "VMBus".into(),
                    uid_text: String::new(),
                    cid_text: String::new(),
                },
                "Acpi(ExpandedAcpi { numeric: EfiExpandedAcpiDevice { hid: a, cid: c, uid: b }, \
                 hidstr: \"VMBus\", uidstr: \"\", cidstr: \"\" })"
                    .into(),
            ),
            (
                DevicePathNode::Scsi { target: 0, lun: 17 },
                "Messaging(Scsi(EfiScsiDevice { target_id: 0, logical_unit_num: 11 }))".into(),
            ),
            (
                DevicePathNode::HardDrive {
                    partition: 1,
                    start: 0x800,
                    size: 0x3_2000,
                    signature: guid.to_bytes_le(),
                    format: 2,
                    signature_type: 9,
                },
                format!(
                    "Media(HardDrive(EfiHardDriveDevice {{ partition_number: 1, partition_start: 800, \
                     partition_size: 32000, partition_signature: {text}, partition_format: GUID, \
                     partition_type: 9 }}))"
                ),
            ),
            (
                DevicePathNode::FilePath("\\EFI\\x".into()),
                "Media(File(\"\\\\EFI\\\\x\"))".into(),
            ),
            (
                DevicePathNode::FirmwareFile(guid),
                format!("Media(PiwgFirmwareFile({text}))"),
            ),
            (
                DevicePathNode::FirmwareVolume(guid),
                format!("Media(PiwgFirmwareVolume({text}))"),
            ),
            (
                DevicePathNode::Other {
                    kind: 3,
                    subkind: 18,
                    data: vec![0, 0x10],
                },
                "Messaging(Unknown { device_subtype: SATA, path_data: [0, 10] })".into(),
            ),
            (
                DevicePathNode::Other {
                    kind: 2,
                    subkind: 0x7e,
                    data: Vec::new(),
                },
                "Acpi(Unknown { device_subtype: 7e, path_data: [] })".into(),
            ),
            (
                DevicePathNode::Other {
                    kind: 5,
                    subkind: 1,
                    data: vec![2],
                },
                "Unknown { device_type: BIOS_BOOT_SPEC, device_subtype: 1, path_data: [2] }".into(),
            ),
        ];
        for (given, expected) in cases {
            assert_eq!(node(&given), Some(expected));
        }
        assert_eq!(node(&DevicePathNode::EndInstance), None);
    }

    #[test]
    fn a_load_option_is_one_line() {
        let option = LoadOption {
            attributes: 0x101,
            description: "Disk\n".into(),
            device_path: vec![
                DevicePathNode::Scsi { target: 0, lun: 3 },
                DevicePathNode::EndInstance,
                DevicePathNode::FilePath("a".into()),
            ],
            optional_data: vec![0x6f, 0x64],
        };
        assert_eq!(
            load_option(&option),
            "EfiLoadOption { attributes: 101, description: \"Disk\\n\", device_paths: \
             [Messaging(Scsi(EfiScsiDevice { target_id: 0, logical_unit_num: 3 })), Media(File(\"a\"))], \
             opt: Some([6f, 64]) }"
        );
    }
}
