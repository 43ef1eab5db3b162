//! The record: the stored image with everything that belongs to it.

mod decode;
mod encode;
mod reader;

pub use encode::MAX_IMAGE_LEN;
pub use encode::MAX_PINNED_LEN;
pub use encode::MAX_SECTIONS;
pub use encode::NewRecord;
pub use encode::RecordInputError;
pub use reader::Collected;
pub use reader::Collector;
pub use reader::ImageWriter;
pub use reader::RecordReader;
pub use reader::RecordVisitor;

pub(crate) use decode::decode_start;
pub(crate) use encode::encode_start;
pub(crate) use reader::Restorer;

use crate::image::Architecture;
use crate::image::EntryRule;
use crate::image::ImagePart;
use platform_digest::Digest;
use serde::Serialize;
use serde::Serializer;
use std::fmt;
use std::time::Duration;
use std::time::SystemTime;

/// Tells one stored record from another: random, new for each that is stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ImageId(pub [u8; 16]);

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(|(i, byte)| {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")
        })
    }
}

impl fmt::Debug for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ImageId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What is in a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SectionKind {
    /// A part of the image.
    ImagePart,
    /// The description of the machine.
    Platform,
    /// Something the firmware was given.
    Pinned,
}

/// A section of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Section {
    /// What is in it.
    pub kind: SectionKind,
    /// Its name.
    pub name: String,
    /// For a part of the image, its guest-physical address; otherwise 0.
    pub gpa: u64,
    /// Bytes of its content.
    pub len: u64,
    /// SHA-256 of its content.
    pub digest: Digest,
}

/// What the header and the section table of a record say, validated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Record {
    /// Which processors the firmware is for.
    pub architecture: Architecture,
    /// How its first instruction is found.
    pub entry_rule: EntryRule,
    /// Where its first instruction is.
    pub entry_gpa: u64,
    /// The guest-physical address of the image's first part.
    pub load_gpa: u64,
    /// Bytes of the image.
    pub image_len: u64,
    /// Digest of the image: SHA-256 of its only part, or of the digests of its parts.
    pub image_digest: Digest,
    /// Which record this is.
    pub image_id: ImageId,
    /// What the firmware calls itself, if that is known.
    pub firmware_version: Option<String>,
    /// When it was captured, in units of 100 ns since 1601 UTC.
    pub capture_time: u64,
    /// Digest of the machine's description.
    pub platform_digest: Digest,
    /// Bytes of the whole record.
    pub len: u64,
    /// The sections: first the parts of the image.
    pub sections: Vec<Section>,
}

impl Record {
    /// The parts of the image.
    pub fn parts(&self) -> Vec<ImagePart> {
        self.sections
            .iter()
            .filter(|section| section.kind == SectionKind::ImagePart)
            .map(|section| ImagePart {
                name: section.name.clone(),
                gpa: section.gpa,
                len: section.len,
            })
            .collect()
    }

    /// When the image was captured, if that is a time after 1970.
    pub fn captured_at(&self) -> Option<SystemTime> {
        let since_1970 = self.capture_time.checked_sub(FILETIME_1970)?;
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_micros(since_1970 / 10))
    }

    /// Whether both would restore the same view: everything but identity and time is equal.
    pub fn is_equivalent(&self, other: &Self) -> bool {
        let Self {
            architecture,
            entry_rule,
            entry_gpa,
            load_gpa,
            image_len,
            image_digest,
            image_id: _,
            firmware_version,
            capture_time: _,
            platform_digest,
            len,
            sections,
        } = self;
        *architecture == other.architecture
            && *entry_rule == other.entry_rule
            && *entry_gpa == other.entry_gpa
            && *load_gpa == other.load_gpa
            && *image_len == other.image_len
            && *image_digest == other.image_digest
            && *firmware_version == other.firmware_version
            && *platform_digest == other.platform_digest
            && *len == other.len
            && *sections == other.sections
    }
}

/// 1970 in units of 100 ns since 1601.
const FILETIME_1970: u64 = 116_444_736_000_000_000;

/// Now, in units of 100 ns since 1601 UTC.
fn filetime_now() -> u64 {
    let since_1970 = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let ticks = u64::try_from(since_1970.as_nanos() / 100).unwrap_or(u64::MAX);
    ticks.saturating_add(FILETIME_1970)
}

/// Why stored bytes are no sound record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The store knows that it is damaged.
    #[error("the store says that it is damaged")]
    Damaged(#[source] crate::storage::StorageError),
    /// It does not start as a record does.
    #[error("it is no record of a firmware")]
    NotARecord,
    /// The record has a version or flags of another implementation.
    #[error("it is a record of version {version} with flags {flags:#x}, which is not supported")]
    Unsupported {
        /// The version.
        version: u16,
        /// The flags.
        flags: u32,
    },
    /// The header is damaged.
    #[error("its header is damaged: {0}")]
    Header(&'static str),
    /// The section table is damaged.
    #[error("its section table is damaged: {0}")]
    Table(&'static str),
    /// It is longer or shorter than it says.
    #[error("it has {found} bytes instead of {expected}")]
    Length {
        /// What it says.
        expected: u64,
        /// What there is.
        found: u64,
    },
    /// The content of a section is not what was stored.
    #[error("the digest of its section {0} is wrong")]
    SectionDigest(String),
    /// The content of a section is not what it was when it was read before.
    #[error("its section {0} changed while it was being read")]
    Changed(String),
    /// The description of the machine cannot be decoded.
    #[error("its description of the machine is damaged")]
    Platform(#[source] platform_digest::DecodeError),
    /// There is no memory for a section.
    #[error("there is no memory for the {len} bytes of its section {name}")]
    OutOfMemory {
        /// The section.
        name: String,
        /// Its length.
        len: u64,
    },
    /// The machine did not take what was read.
    #[error("the machine does not take it")]
    Target(#[source] crate::image::TargetError),
}
