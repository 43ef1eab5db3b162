//! The firmware image that is captured, and the target that it is restored to.

use platform_digest::Digest;
use serde::Serialize;
use sha2::Digest as _;
use sha2::Sha256;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A contiguous part of a firmware image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImagePart {
    /// Its name, such as `code`; at most 56 bytes.
    pub name: String,
    /// Its guest-physical address, a multiple of 4096.
    pub gpa: u64,
    /// Its length in bytes, a multiple of 4096.
    pub len: u64,
}

impl ImagePart {
    /// Whether the part contains `gpa`.
    pub(crate) fn contains(&self, gpa: u64) -> bool {
        gpa.checked_sub(self.gpa)
            .is_some_and(|offset| offset < self.len)
    }
}

/// A firmware image as it was loaded, with the content of its parts in host memory. One of the parts has the entry
/// point. What the guest writes to, such as the flash of UEFI variables, is not among them.
#[derive(Debug, Clone, Default)]
pub struct FirmwareImage(Vec<(ImagePart, Arc<[u8]>)>);

impl FirmwareImage {
    /// An image without parts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a part.
    #[must_use]
    pub fn part(
        mut self,
        name: impl Into<String>,
        gpa: u64,
        content: impl Into<Arc<[u8]>>,
    ) -> Self {
        let content = content.into();
        let part = ImagePart {
            name: name.into(),
            gpa,
            len: content.len() as u64,
        };
        self.0.push((part, content));
        self
    }

    /// The parts with their content.
    pub fn parts(&self) -> &[(ImagePart, Arc<[u8]>)] {
        &self.0
    }
}

/// Why a target does not take an image.
pub type TargetError = Box<dyn std::error::Error + Send + Sync>;

/// The machine that a stored image is restored to.
pub trait FirmwareTarget {
    /// Makes room for an image with these parts. Called once, after the stored image was validated and before
    /// the first write. An error leaves the machine as it was. Memory that the parts do not cover must read as if
    /// no firmware had been loaded.
    fn prepare(&mut self, parts: &[ImagePart]) -> Result<(), TargetError>;
    /// Writes bytes at an offset of a part. Called in ascending order for the whole image.
    fn write(&mut self, part: usize, offset: u64, bytes: &[u8]) -> Result<(), TargetError>;
    /// Finds the guest-physical address of the entry point in what was written; `None` if the rule alone gives
    /// it. If it is not the stored address, restoring fails.
    fn find_entry(&mut self, rule: EntryRule) -> Result<Option<u64>, TargetError> {
        let _ = rule;
        Ok(None)
    }
}

/// The architecture of a firmware image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Architecture {
    /// 64-bit x86.
    #[serde(rename = "x86_64")]
    X86_64,
    /// 64-bit Arm.
    #[serde(rename = "aarch64")]
    Aarch64,
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        })
    }
}

/// How the entry point of an image is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryRule {
    /// The x86 reset vector, at [`RESET_VECTOR`].
    ResetVector,
    /// The entry point of the security core (SEC) in the image (PI specification, volumes 1 and 3).
    SecCore,
    /// The same address in all images for the platform.
    Fixed,
}

/// The guest-physical address at which an x86 processor starts after reset.
pub const RESET_VECTOR: u64 = 0xffff_fff0;

/// The properties of an image besides its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirmwareDescription {
    /// Its architecture.
    pub architecture: Architecture,
    /// How its entry point is found.
    pub entry_rule: EntryRule,
    /// The guest-physical address of its entry point.
    pub entry_gpa: u64,
    /// Its version, if known. At most 64 bytes of it are stored.
    pub version: Option<String>,
}

impl FirmwareDescription {
    /// x86 firmware that starts at the reset vector, in a flash device that ends at 4 GiB.
    pub fn reset_vector() -> Self {
        Self {
            architecture: Architecture::X86_64,
            entry_rule: EntryRule::ResetVector,
            entry_gpa: RESET_VECTOR,
            version: None,
        }
    }
}

/// What the VMM gave the firmware when it started, by name: ACPI tables and their loader script, SMBIOS
/// structures, the RAM map. A name has at most 56 bytes. A resumed guest is given the same bytes again, so that
/// another version of the VMM does not change what it sees.
pub type PinnedFiles = BTreeMap<String, Vec<u8>>;

/// The digest of an image: of its only part, or of the digests of its parts.
pub(crate) fn digest_image(parts: &[Digest]) -> Digest {
    match parts {
        [only] => *only,
        several => {
            let mut hasher = Sha256::new();
            for digest in several {
                hasher.update(digest.0);
            }
            Digest(hasher.finalize().into())
        }
    }
}
