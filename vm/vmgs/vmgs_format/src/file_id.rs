//! Ids of the files in a store.

use core::fmt;
use core::ops::RangeInclusive;

/// Identifies a file: its index in the file tables.
///
/// The number is not validated; see [`FileId::range`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u32);

/// The kind of a [`FileId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileIdRange {
    /// The id of a file that can be read and written.
    File,
    /// The id of the file table or the extended file table, which only the store itself writes.
    Table,
    /// Outside the tables.
    OutOfRange,
}

macro_rules! file_ids {
    ($($(#[$doc:meta])* $name:ident = $value:literal;)*) => {
        impl FileId {
            $($(#[$doc])* pub const $name: FileId = FileId($value);)*

            /// All named ids with their names, in ascending order.
            const NAMED: &'static [(FileId, &'static str)] =
                &[$((FileId::$name, stringify!($name)),)*];
        }
    };
}

file_ids! {
    /// The file table itself.
    FILE_TABLE = 0;
    /// UEFI variables.
    BIOS_NVRAM = 1;
    /// TPM physical-presence interface: seven `u32`.
    TPM_PPI = 2;
    /// The virtual TPM's non-volatile state.
    TPM_NVRAM = 3;
    /// Guest clock minus host clock, an `i64` in units of 100 ns.
    RTC_SKEW = 4;
    /// Attestation request data.
    ATTEST = 5;
    /// Key protector: wrapped disk encryption keys.
    KEY_PROTECTOR = 6;
    /// The GUID of the VM, optionally followed by a flag.
    VM_UNIQUE_ID = 7;
    /// An IGVM image to boot the paravisor from.
    GUEST_FIRMWARE = 8;
    /// Custom UEFI variables, a JSON document.
    CUSTOM_UEFI = 9;
    /// One byte: 1 if the previous boot ended in a watchdog reset.
    GUEST_WATCHDOG = 10;
    /// Key protector bound to the hardware.
    HW_KEY_PROTECTOR = 11;
    /// A guest secret, up to 2048 bytes.
    GUEST_SECRET_KEY = 13;
    /// Whether the guest is hibernated: a [`HibernationToken`](crate::HibernationToken).
    ///
    /// Some releases called this id `HIBERNATION_FIRMWARE` although it held the same eight bytes.
    HIBERNATION_TOKEN = 14;
    /// Seed, label and context of the platform's identity, as text.
    PLATFORM_SEED = 15;
    /// A signed document (JWT) about the origin of the VM.
    PROVENANCE_DOC = 16;
    /// A copy of `TPM_NVRAM`, made before it is replaced.
    TPM_NVRAM_BACKUP = 17;
    /// Which program formatted the store and why, a JSON document.
    PROVISIONING_MARKER = 18;
    /// The firmware image that a hibernated guest must resume on.
    ///
    /// Other implementations have since given 19 to the non-volatile state of a newer virtual TPM
    /// (`TPM_185_NVRAM`) and put a firmware image at 20. A reader must therefore classify the content
    /// ([`FirmwareFileKind`](crate::FirmwareFileKind)) and not rely on either number.
    HIBERNATION_FIRMWARE = 19;
    /// The image of the flash chip in which PC firmware (OVMF) keeps its variables.
    ///
    /// The format is unrelated to that of [`FileId::BIOS_NVRAM`]. The number is specific to this
    /// implementation, and far from those that other implementations assign in sequence.
    FLASH_VARIABLES = 48;
    /// The CMOS RAM of a PC's real-time clock, 128 bytes. Specific to this implementation, as 48 is.
    CMOS_RAM = 49;
    /// The extended file table.
    EXTENDED_FILE_TABLE = 63;
}

impl FileId {
    /// The id at which a proposal of another implementation puts a raw firmware image. It has no name
    /// here; [`FirmwareFileKind`](crate::FirmwareFileKind) classifies the content.
    pub const PROPOSED_HIBERNATION_FIRMWARE: FileId = FileId(20);

    /// The ids at which this implementation puts the firmware record if [`FileId::HIBERNATION_FIRMWARE`] has other data.
    /// They are the last of those that are specific to this implementation, which are named from 48 on.
    pub const FIRMWARE_RECORD_ALTERNATIVES: RangeInclusive<u32> = 56..=62;

    /// The ids that may have the firmware record, in the order in which they are searched and used. The record is at the
    /// first whose content begins as a record ([`FirmwareRecordHeader::MAGIC`](crate::FirmwareRecordHeader::MAGIC));
    /// others have the data of other programs.
    pub fn firmware_record_places() -> impl Iterator<Item = FileId> {
        core::iter::once(Self::HIBERNATION_FIRMWARE)
            .chain(Self::FIRMWARE_RECORD_ALTERNATIVES.map(FileId))
    }

    /// The kind of the id.
    pub const fn range(self) -> FileIdRange {
        match self.0 {
            0 | 63 => FileIdRange::Table,
            1..=62 => FileIdRange::File,
            _ => FileIdRange::OutOfRange,
        }
    }

    /// The name of the id, if it has one.
    pub fn name(self) -> Option<&'static str> {
        Self::NAMED
            .iter()
            .find(|(id, _)| *id == self)
            .map(|(_, name)| *name)
    }

    /// The id with this name, which is case-sensitive (upper case).
    pub fn from_name(name: &str) -> Option<FileId> {
        Self::NAMED
            .iter()
            .find(|(_, known)| *known == name)
            .map(|(id, _)| *id)
    }

    /// The index of the id in the tables; none if it is outside them.
    pub const fn index(self) -> Option<usize> {
        if self.0 < crate::FILE_COUNT as u32 {
            Some(self.0 as usize)
        } else {
            None
        }
    }
}

/// The name, or the number if the id has no name.
impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None => fmt::Display::fmt(&self.0, f),
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    #[test]
    fn hibernation_ids_are_fourteen_and_nineteen() {
        assert_eq!(FileId::HIBERNATION_TOKEN, FileId(14));
        assert_eq!(FileId::HIBERNATION_FIRMWARE, FileId(19));
    }

    #[test]
    fn the_record_may_be_at_nineteen_and_at_ids_of_no_other_use() {
        let places: std::vec::Vec<_> = FileId::firmware_record_places().map(|id| id.0).collect();
        let expected: std::vec::Vec<_> = core::iter::once(19).chain(56..=62).collect();
        assert_eq!(places, expected);
        let mut others = FileId::firmware_record_places().skip(1);
        assert!(others.all(|id| id.name().is_none()));
    }

    #[test]
    fn names_round_trip_and_are_case_sensitive() {
        for (id, name) in FileId::NAMED {
            assert_eq!(FileId::from_name(name), Some(*id));
            assert_eq!(id.to_string(), *name);
        }
        assert_eq!(FileId::from_name("bios_nvram"), None);
        assert_eq!(FileId(12).to_string(), "12");
    }

    #[test]
    fn ids_of_tables_and_out_of_range_ids_are_not_files() {
        assert_eq!(FileId(0).range(), FileIdRange::Table);
        assert_eq!(FileId(63).range(), FileIdRange::Table);
        assert_eq!(FileId(64).range(), FileIdRange::OutOfRange);
        assert!((1..63).all(|n| FileId(n).range() == FileIdRange::File));
        assert_eq!(FileId(64).index(), None);
        assert_eq!(FileId(63).index(), Some(63));
    }
}
