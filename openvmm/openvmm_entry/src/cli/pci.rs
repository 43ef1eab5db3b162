//! The options that add PCI devices.

use super::Options;
use super::config::Errors;
use super::net::parse_net;
use disk_backend::DiskAccess;
use disk_spec::DiskSource;
use disk_spec::DiskSpec;
use disk_spec::ParseError;
use disk_spec::VirtioBlkHandle;
use error_chain::Chain;
use file_identity::FileUse;
use openvmm_defs::devices::PciDeviceConfig;
use openvmm_defs::devices::PciDeviceRequest;
use openvmm_defs::devices::PciSlot;
use openvmm_defs::devices::assign_pci_slots;
use virtio_rng::VirtioRngHandle;
use vm_resource::Resource;

/// Reads the value of an option that adds a device, without the device's slot, and adds the files it uses.
type Parse = fn(&str, &mut Vec<FileUse>) -> Result<Resource, String>;

impl Options {
    /// The PCI devices, in the order in which they get slots: disks, networks, the rest.
    /// Adds the files of disks to `files`.
    pub(super) fn pci_devices(
        &self,
        errors: &mut Errors,
        files: &mut Vec<FileUse>,
    ) -> Vec<PciDeviceConfig> {
        let generators = vec![String::new(); self.virtio_rng.into()];
        let nets: Vec<_> = self
            .net
            .iter()
            .filter(|text| *text != "none")
            .cloned()
            .collect();
        let options: [(&str, &str, &[String], Parse); 3] = [
            ("--disk", "disk", &self.disk, |text, files| {
                let disk: DiskSpec = text
                    .parse()
                    .map_err(|error: ParseError| error.to_string())?;
                files.extend(disk_file(format!("--disk {text}"), &disk));
                disk.check().map_err(|error| Chain(&error).to_string())?;
                Ok(Resource::new(&VirtioBlkHandle { disk }))
            }),
            ("--net", "net", &nets, |text, _| {
                Ok(Resource::new(&parse_net(text)?))
            }),
            ("--virtio-rng", "rng", &generators, |_, _| {
                Ok(Resource::new(&VirtioRngHandle {}))
            }),
        ];
        let mut devices = Vec::new();
        for (option, name, values, parse) in options {
            for (n, text) in values.iter().enumerate() {
                let parsed = take_slot(text).and_then(|(slot, rest)| {
                    Ok(Some(PciDeviceRequest {
                        name: format!("{name}{n}"),
                        slot,
                        resource: parse(&rest, files)?,
                    }))
                });
                devices.extend(errors.take(option, parsed, None));
            }
        }
        assign_pci_slots(devices).unwrap_or_else(|error| {
            errors.add(error.to_string());
            Vec::new()
        })
    }
}

/// The file of a disk, if it has one. `what` says who uses it.
pub(super) fn disk_file(what: String, disk: &DiskSpec) -> Option<FileUse> {
    match &disk.source {
        DiskSource::File(path) if disk.access == DiskAccess::ReadWrite => {
            Some(FileUse::write(what, path))
        }
        DiskSource::File(path) | DiskSource::Overlay(path) => Some(FileUse::read(what, path)),
        DiskSource::Memory { .. } => None,
    }
}

/// Takes `slot=DEVICE[.FUNCTION]` (hexadecimal, as `lspci` prints it) out of the comma-separated parts of an option.
pub(crate) fn take_slot(text: &str) -> Result<(Option<PciSlot>, String), String> {
    let mut slot = None;
    let mut rest: Vec<String> = Vec::new();
    // A doubled comma is one in a path, and separates nothing.
    for (n, piece) in text.split(",,").enumerate() {
        for (m, part) in piece.split(',').enumerate() {
            match (n, m, rest.last_mut()) {
                (1.., 0, Some(last)) => {
                    last.push_str(",,");
                    last.push_str(part);
                }
                _ => match part.strip_prefix("slot=") {
                    None => rest.push(part.to_owned()),
                    Some(_) if slot.is_some() => return Err("slot is given twice".into()),
                    Some(value) => slot = Some(parse_slot(value)?),
                },
            }
        }
    }
    Ok((slot, rest.join(",")))
}

fn parse_slot(text: &str) -> Result<PciSlot, String> {
    let (device, function) = text.split_once('.').unwrap_or((text, "0"));
    match (
        u8::from_str_radix(device, 16),
        u8::from_str_radix(function, 16),
    ) {
        (Ok(device @ 1..=30), Ok(function @ 0..=7)) => Ok(PciSlot { device, function }),
        _ => Err(format!(
            "'{text}' is not an address on the PCI bus (example: slot=4 or slot=1e.2; devices 1 to 1e are free)"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_taken_out() {
        let (slot, rest) = take_slot("file:/a,slot=1e.2,ro").unwrap();
        let expected = PciSlot {
            device: 0x1e,
            function: 2,
        };
        assert_eq!(slot, Some(expected));
        assert_eq!(rest, "file:/a,ro");
        assert_eq!(take_slot("file:/a").unwrap().0, None);
        assert_eq!(take_slot("slot=4").unwrap().1, "");
        let (slot, rest) = take_slot("file:/a,,slot=1,,b,ro").unwrap();
        assert_eq!((slot, rest.as_str()), (None, "file:/a,,slot=1,,b,ro"));
    }

    #[test]
    fn wrong_slots_are_named() {
        for text in ["slot=0", "slot=1f", "slot=1.8", "slot=", "slot=1,slot=2"] {
            assert!(take_slot(text).is_err(), "{text}");
        }
    }
}
