//! The content of a record: header and section table.

use crate::image::Architecture;
use crate::image::EntryRule;
use crate::image::ImagePart;
use platform_digest::Digest;
use serde::Serialize;
use std::time::Duration;
use std::time::SystemTime;
use uuid::Uuid;

/// The kind of a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SectionKind {
    /// A part of the image.
    ImagePart,
    /// The description of the machine.
    Platform,
    /// A file that the firmware was given.
    Pinned,
}

/// An entry of the section table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RecordSection {
    /// Its kind.
    pub kind: SectionKind,
    /// Its name.
    pub name: String,
    /// The guest-physical address of a part of the image; 0 for other sections.
    pub gpa: u64,
    /// The length of its content in bytes.
    pub len: u64,
    /// SHA-256 of its content.
    pub digest: Digest,
}

/// The validated header and section table of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Record {
    /// The architecture of the firmware.
    pub architecture: Architecture,
    /// How the entry point is found.
    pub entry_rule: EntryRule,
    /// The guest-physical address of the entry point.
    pub entry_gpa: u64,
    /// The guest-physical address of the image's first part.
    pub load_gpa: u64,
    /// The length of the image in bytes.
    pub image_len: u64,
    /// SHA-256 of the image: of its only part, or of the digests of its parts.
    pub image_digest: Digest,
    /// A random identifier, new for each record.
    pub image_id: Uuid,
    /// The version of the firmware, if known.
    pub firmware_version: Option<String>,
    /// The time of the capture, in units of 100 ns since 1601 UTC.
    pub capture_time: u64,
    /// SHA-256 of the encoded platform view.
    pub platform_digest: Digest,
    /// The length of the record in bytes.
    pub len: u64,
    /// The section table. The parts of the image come first.
    pub sections: Vec<RecordSection>,
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

    /// The time of the capture, if it is after 1970.
    pub fn captured_at(&self) -> Option<SystemTime> {
        let since_1970 = self.capture_time.checked_sub(FILETIME_1970)?;
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_micros(since_1970 / 10))
    }

    /// Whether both restore the same firmware: everything but `image_id` and `capture_time` is equal.
    pub fn is_equivalent(&self, other: &Self) -> bool {
        let with_identity_of_self = Self {
            image_id: self.image_id,
            capture_time: self.capture_time,
            ..other.clone()
        };
        *self == with_identity_of_self
    }

    /// As [`Self::is_equivalent`], whatever the content of the pinned file `name` is, if its length is the same.
    pub(crate) fn is_equivalent_except(&self, other: &Self, name: &str) -> bool {
        let mut other = other.clone();
        for section in &mut other.sections {
            if section.kind == SectionKind::Pinned && section.name == name {
                section.digest = self.pinned_digest(name).unwrap_or_default();
            }
        }
        self.is_equivalent(&other)
    }

    /// SHA-256 of the pinned file `name`.
    pub(crate) fn pinned_digest(&self, name: &str) -> Option<Digest> {
        let mut sections = self.sections.iter();
        let found = sections.find(|s| s.kind == SectionKind::Pinned && s.name == name);
        found.map(|section| section.digest)
    }
}

/// 1970 in units of 100 ns since 1601.
const FILETIME_1970: u64 = 116_444_736_000_000_000;

/// Now, in units of 100 ns since 1601 UTC.
pub(super) fn filetime_now() -> u64 {
    let since_1970 = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let ticks = u64::try_from(since_1970.as_nanos() / 100).unwrap_or(u64::MAX);
    ticks.saturating_add(FILETIME_1970)
}
