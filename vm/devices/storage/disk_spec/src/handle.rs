//! The handle of a virtio disk. It is here and not in `virtio_blk`, which knows no kind of disk by name.

use crate::DiskSpec;
use chipset_device::BuildResult;
use chipset_device::DeviceHandle;
use chipset_device::MachineContext;
use chipset_device::MediumError;
use chipset_device::MediumInfo;
use chipset_device::VpCount;
use disk_backend::AttachedDisk;
use disk_backend::AttachedDisks;
use minicbor::Decode;
use minicbor::Encode;
use uuid::Uuid;
use virtio_blk::VirtioBlk;

/// A disk has a queue for each VP, up to this, unless its specification says another number.
const MAX_DEFAULT_QUEUES: u32 = 4;

/// A virtio block device.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct VirtioBlkHandle {
    /// The disk.
    #[n(1)]
    pub disk: DiskSpec,
}

impl VirtioBlkHandle {
    fn default_queues(vps: VpCount) -> u16 {
        vps.0.min(MAX_DEFAULT_QUEUES) as u16
    }
}

impl DeviceHandle for VirtioBlkHandle {
    const ID: &'static str = "virtio-blk";

    fn identity(&self, _name: &str, _vm: Uuid) -> Option<String> {
        Some(match &self.disk.serial {
            Some(serial) => format!("virtio-blk {serial}"),
            None => "virtio-blk".to_owned(),
        })
    }

    fn medium(&self) -> Result<Option<MediumInfo>, MediumError> {
        let disk = self.disk.open()?;
        let serial = VirtioBlk::new(disk.clone(), self.disk.blk_config(1)?).serial();
        Ok(Some(crate::examine(&disk, serial)?))
    }

    fn msi_vectors(&self, vps: VpCount) -> u32 {
        let queues = self.disk.queues.unwrap_or(Self::default_queues(vps));
        virtio::msi_vectors(queues)
    }

    fn build(&self, machine: &mut MachineContext<'_>) -> BuildResult {
        let opened = self.disk.open()?;
        let disks = machine.get::<AttachedDisks>()?.clone();
        let queues = Self::default_queues(*machine.get::<VpCount>()?);
        let config = self.disk.blk_config(queues)?;
        let device = VirtioBlk::new(opened.clone(), config);
        let attached = AttachedDisk {
            device: machine.name.to_owned(),
            serial: device.serial(),
            disk: opened,
        };
        let function = virtio::build_pci_function(device, machine)?;
        disks.add(attached);
        Ok(function)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh::payload;

    fn handle(text: &str) -> VirtioBlkHandle {
        VirtioBlkHandle {
            disk: text.parse().unwrap(),
        }
    }

    #[test]
    fn handles_survive_encoding() {
        for text in [
            "file:/a",
            "file:/a,ro,serial=x,queues=3,format=raw,aio=io_uring",
            "file:/a,format=vhd,aio=threads",
            "memdiff:file:/a",
            "/a;create=1M,sector=4096",
            "mem:1G",
        ] {
            let handle = handle(text);
            assert_eq!(payload::decode(&payload::encode(&handle)), Ok(handle));
        }
        let bytes = payload::encode(&handle("mem:512"));
        assert_eq!(
            payload::decode::<VirtioBlkHandle>(&bytes),
            Ok(handle("mem:512"))
        );
        assert!(payload::decode::<VirtioBlkHandle>(&[0xa0]).is_err());
    }

    #[test]
    fn the_identity_is_the_serial_number() {
        let identity = |text| handle(text).identity("disk0", Uuid::nil()).unwrap();
        assert_eq!(identity("mem:1G"), "virtio-blk");
        assert_eq!(identity("mem:1G,serial=abc"), "virtio-blk abc");
    }
}
