//! The firmware image in the machine: where it is read from, and where it is put back.

use platform_digest::Digest;
use serde::Serialize;
use sha2::Digest as _;
use sha2::Sha256;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;

/// A contiguous part of a firmware image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImagePart {
    /// What it is called, such as `code`; at most 56 bytes.
    pub name: String,
    /// Its guest-physical address, a multiple of 4096.
    pub gpa: u64,
    /// Its length in bytes, a multiple of 4096.
    pub len: u64,
}

impl ImagePart {
    /// Whether `gpa` is in the part.
    pub(crate) fn contains(&self, gpa: u64) -> bool {
        gpa.checked_sub(self.gpa)
            .is_some_and(|offset| offset < self.len)
    }
}

/// The firmware image as it was loaded, before anything was written near it. It must not change while it
/// is captured.
///
/// Read once for its digest, and once more, on another thread, if it has to be stored.
pub trait FirmwareImage: Send + Sync {
    /// Its parts, the one with the first instruction among them. Not what the guest writes to, such as
    /// the flash that holds UEFI variables.
    fn parts(&self) -> &[ImagePart];
    /// Fills `buf` from byte `offset` of a part.
    fn read(&self, part: usize, offset: u64, buf: &mut [u8]) -> io::Result<()>;
}

/// An image whose bytes the VMM has in host memory, such as the content of a flash chip.
#[derive(Debug, Clone, Default)]
pub struct MemoryImage {
    parts: Vec<ImagePart>,
    contents: Vec<Arc<[u8]>>,
}

impl MemoryImage {
    /// An image without parts.
    pub fn new() -> Self {
        Self::default()
    }

    /// The image with one more part.
    pub fn part(
        mut self,
        name: impl Into<String>,
        gpa: u64,
        content: impl Into<Arc<[u8]>>,
    ) -> Self {
        let content = content.into();
        self.parts.push(ImagePart {
            name: name.into(),
            gpa,
            len: content.len() as u64,
        });
        self.contents.push(content);
        self
    }
}

impl FirmwareImage for MemoryImage {
    fn parts(&self) -> &[ImagePart] {
        &self.parts
    }

    fn read(&self, part: usize, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = self
            .contents
            .get(part)
            .and_then(|content| content.get(from..from.checked_add(buf.len())?))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(bytes);
        Ok(())
    }
}

/// Why the machine cannot take a part of an image.
pub type TargetError = Box<dyn std::error::Error + Send + Sync>;

/// The machine that a stored image is put back into.
pub trait FirmwareTarget {
    /// Makes room for an image with these parts, where they belong. Called once, before anything is
    /// written and after everything about the stored image was validated. An error leaves the machine
    /// as it was. What the machine has there and the parts do not cover is to read as if no firmware had
    /// ever been loaded.
    fn prepare(&mut self, parts: &[ImagePart]) -> Result<(), TargetError>;
    /// Writes bytes at an offset of a part. Called in ascending order, until all is written.
    fn write(&mut self, part: usize, offset: u64, bytes: &[u8]) -> Result<(), TargetError>;
    /// The guest-physical address of the first instruction, found anew in what was written; `None` if
    /// the rule says it without looking. If it is not the stored one, restoring fails.
    fn find_entry(&mut self, rule: EntryRule) -> Result<Option<u64>, TargetError> {
        let _ = rule;
        Ok(None)
    }
}

/// Which processors the firmware is for.
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

/// How the first instruction is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryRule {
    /// The x86 reset vector, at [`RESET_VECTOR`].
    ResetVector,
    /// The entry point of the security core (SEC) in the image (PI specification, volumes 1 and 3).
    SecCore,
    /// The same address in every image for this kind of machine.
    Fixed,
}

/// The guest-physical address of the first instruction of an x86 processor after reset.
pub const RESET_VECTOR: u64 = 0xffff_fff0;

/// What is to know about an image besides its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirmwareDescription {
    /// Which processors it is for.
    pub architecture: Architecture,
    /// How its first instruction is found.
    pub entry_rule: EntryRule,
    /// The guest-physical address of its first instruction.
    pub entry_gpa: u64,
    /// What it calls itself, if that is known. At most 64 bytes of it are kept.
    pub version: Option<String>,
}

impl FirmwareDescription {
    /// An x86 firmware that starts at the reset vector: what a flash chip below 4 GiB holds.
    pub fn reset_vector() -> Self {
        Self {
            architecture: Architecture::X86_64,
            entry_rule: EntryRule::ResetVector,
            entry_gpa: RESET_VECTOR,
            version: None,
        }
    }
}

/// What the VMM gave the firmware when it started, by name: ACPI tables, their loader's script, SMBIOS
/// structures, the RAM map, a configuration blob without entropy and times.
///
/// A resumed guest is given the same bytes again, so that a newer VMM cannot change its view.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pinned(pub BTreeMap<String, Vec<u8>>);

impl Pinned {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// This and one more. The name has at most 56 bytes; the same name again replaces the bytes.
    pub fn with(mut self, name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        self.0.insert(name.into(), bytes.into());
        self
    }

    /// The bytes with this name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.get(name).map(Vec::as_slice)
    }
}

/// Bytes of an image that pass through memory at a time.
pub(crate) const PIECE: usize = 128 << 10;

/// The digest of a part.
pub(crate) fn digest_part(
    image: &dyn FirmwareImage,
    index: usize,
    part: &ImagePart,
) -> io::Result<Digest> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; PIECE.min(usize::try_from(part.len).unwrap_or(PIECE))];
    let mut offset = 0;
    while offset < part.len {
        let len = (part.len - offset).min(buffer.len() as u64) as usize;
        image.read(index, offset, &mut buffer[..len])?;
        hasher.update(&buffer[..len]);
        offset += len as u64;
    }
    Ok(Digest(hasher.finalize().into()))
}

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
