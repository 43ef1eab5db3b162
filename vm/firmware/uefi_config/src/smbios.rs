//! What the firmware puts into its SMBIOS structures.

use crate::structure::StructureType;

/// The most characters of a processor's string that the firmware takes.
pub(crate) const MAX_PROCESSOR_STRING: usize = 64;

/// Strings of the SMBIOS structures: printable ASCII. Empty ones are left out, and the firmware has its own instead.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SmbiosStrings {
    /// The system's manufacturer.
    pub manufacturer: String,
    /// The system's product name.
    pub product: String,
    /// The system's version.
    pub version: String,
    /// The system's serial number.
    pub serial: String,
    /// The system's SKU.
    pub sku: String,
    /// The system's family.
    pub family: String,
    /// The baseboard's serial number.
    pub baseboard_serial: String,
    /// The chassis' serial number.
    pub chassis_serial: String,
    /// The chassis' asset tag.
    pub chassis_asset_tag: String,
    /// The BIOS lock string.
    pub bios_lock: String,
    /// The serial number of the memory devices.
    pub memory_serial: String,
    /// The processors' strings.
    pub processor: ProcessorStrings,
}

/// Strings of the processors' SMBIOS structures, at most 64 characters each. Empty ones are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProcessorStrings {
    /// The socket's name.
    pub socket: String,
    /// The manufacturer.
    pub manufacturer: String,
    /// The version.
    pub version: String,
    /// The serial number.
    pub serial: String,
    /// The asset tag. The firmware has the part number there, if there is one: an error of its own.
    pub asset_tag: String,
    /// The part number.
    pub part_number: String,
}

/// The numbers of a processor's SMBIOS structure (SMBIOS 3.1, type 4).
#[derive(Debug, Copy, Clone, Default, PartialEq, Eq)]
pub struct SmbiosProcessor {
    /// What CPUID says.
    pub id: u64,
    /// External clock in MHz.
    pub external_clock: u16,
    /// Highest speed in MHz.
    pub max_speed: u16,
    /// Speed in MHz.
    pub current_speed: u16,
    /// Its characteristics.
    pub characteristics: u16,
    /// Its family.
    pub family2: u16,
    /// Its type.
    pub kind: u8,
    /// Its voltage.
    pub voltage: u8,
    /// Its status.
    pub status: u8,
    /// How it can be upgraded.
    pub upgrade: u8,
}

impl SmbiosStrings {
    /// All strings, by type.
    pub(crate) fn by_type(&self) -> impl Iterator<Item = (StructureType, &str)> {
        let own = [
            (StructureType::SystemManufacturer, &self.manufacturer),
            (StructureType::SystemProduct, &self.product),
            (StructureType::SystemVersion, &self.version),
            (StructureType::SystemSerial, &self.serial),
            (StructureType::SystemSku, &self.sku),
            (StructureType::SystemFamily, &self.family),
            (StructureType::BaseboardSerial, &self.baseboard_serial),
            (StructureType::ChassisSerial, &self.chassis_serial),
            (StructureType::ChassisAssetTag, &self.chassis_asset_tag),
            (StructureType::BiosLock, &self.bios_lock),
            (StructureType::MemorySerial, &self.memory_serial),
        ]
        .map(|(kind, text)| (kind, text.as_str()));
        own.into_iter().chain(self.processor.by_type())
    }
}

impl ProcessorStrings {
    /// The processor's strings, by type.
    pub(crate) fn by_type(&self) -> [(StructureType, &str); 6] {
        [
            (StructureType::ProcessorSocket, &self.socket),
            (StructureType::ProcessorManufacturer, &self.manufacturer),
            (StructureType::ProcessorVersion, &self.version),
            (StructureType::ProcessorSerial, &self.serial),
            (StructureType::ProcessorAssetTag, &self.asset_tag),
            (StructureType::ProcessorPartNumber, &self.part_number),
        ]
        .map(|(kind, text)| (kind, text.as_str()))
    }
}

impl SmbiosProcessor {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.id.to_le_bytes().to_vec();
        for word in [
            self.external_clock,
            self.max_speed,
            self.current_speed,
            self.characteristics,
            self.family2,
        ] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend([self.kind, self.voltage, self.status, self.upgrade]);
        bytes.extend([0; 2]);
        bytes
    }
}
