//! What a guest's hibernation image is on: the disks, and the firmware's variables.

use chipset_device::MediumInfo;
use disk_backend::AttachedDisks;
use disk_backend::FlushDisksError;
use error_chain::Chain;
use flash::FlashControl;
use flash::FlushError;
use platform_digest::DiskContent;
use platform_digest::PlatformDisk;

/// The media of a machine that was built.
pub(crate) struct Media {
    pub disks: AttachedDisks,
    /// The firmware's variables, if it keeps any.
    pub variables: Option<FlashControl>,
}

/// What a guest wrote may not survive a power failure.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// A disk.
    #[error(
        "the guest hibernated, but its image may be lost: a disk cannot be made to keep it (if the guest does not resume, \
         it starts anew; check its file systems)"
    )]
    Disk(#[from] FlushDisksError),
    /// The firmware's variables, in which a guest notes where its image is.
    #[error(
        "the guest hibernated, but it may not find its image: the firmware's variables cannot be saved (if the guest does \
         not resume, it starts anew; check its file systems)"
    )]
    Variables(#[from] FlushError),
}

impl Media {
    /// Makes everything that the guest wrote survive a power failure. The devices are stopped.
    pub(crate) fn sync(&self) -> Result<(), MediaError> {
        self.disks.flush()?;
        if let Some(variables) = &self.variables {
            variables.flush()?;
        }
        Ok(())
    }

    /// The disks and what is on them. The devices are stopped.
    pub(crate) fn disks(&self) -> Vec<PlatformDisk> {
        let disks = self.disks.list().into_iter();
        disks
            .filter_map(|attached| {
                match disk_spec::examine(&attached.disk, attached.serial) {
                    Ok(medium) => Some(platform_disk(&attached.device, medium)),
                    Err(error) => {
                        tracing::warn!(
                            disk = attached.device,
                            error = %Chain(&error),
                            "what is on the disk cannot be noted: if it is replaced before the guest resumes, that is not noticed"
                        );
                        None
                    }
                }
            })
            .collect()
    }
}

/// The disk of the device called `name`.
pub(crate) fn platform_disk(name: &str, medium: MediumInfo) -> PlatformDisk {
    let MediumInfo {
        size,
        sector,
        serial,
        read_only,
        content,
    } = medium;
    PlatformDisk {
        name: name.to_owned(),
        size,
        sector,
        read_only,
        serial,
        content: content.map_or(DiskContent::Unknown, DiskContent::Known),
    }
}
