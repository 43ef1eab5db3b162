//! The description that the structures are built from. An empty text is left out of its structure.

use std::ops::Range;
use uuid::Uuid;

/// The maximum length of a text, in bytes: longer ones are not read by every reader.
pub const MAX_TEXT_LEN: usize = 64;

/// A machine as its inventory shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Description {
    /// BIOS information (type 0).
    pub bios: BiosInformation,
    /// System information (type 1).
    pub system: SystemInformation,
    /// Baseboard information (type 2).
    pub baseboard: BaseboardInformation,
    /// The chassis (type 3).
    pub chassis: Chassis,
    /// The processor in each socket (type 4).
    pub processors: Vec<ProcessorInformation>,
    /// The guest-physical ranges that are RAM (types 16, 17 and 19).
    pub memory: Vec<Range<u64>>,
}

/// BIOS information (DSP0134, 7.1): the firmware.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BiosInformation {
    /// Its manufacturer.
    pub vendor: String,
    /// Its version.
    pub version: String,
    /// Its date, as mm/dd/yyyy.
    pub release_date: String,
    /// Major and minor release; 0xFF and 0xFF if it has none.
    pub release: (u8, u8),
}

/// System information (7.2): the machine as a product.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SystemInformation {
    /// Its manufacturer.
    pub manufacturer: String,
    /// Its product name.
    pub product: String,
    /// Its version.
    pub version: String,
    /// Its serial number.
    pub serial: String,
    /// Its UUID, which never changes.
    pub uuid: Uuid,
    /// Its SKU number.
    pub sku: String,
    /// Its product family.
    pub family: String,
}

/// Baseboard information (7.3).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BaseboardInformation {
    /// Its manufacturer.
    pub manufacturer: String,
    /// Its product name.
    pub product: String,
    /// Its version.
    pub version: String,
    /// Its serial number.
    pub serial: String,
    /// Its asset tag.
    pub asset_tag: String,
}

/// The system enclosure or chassis (7.4).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chassis {
    /// Its manufacturer.
    pub manufacturer: String,
    /// Its version.
    pub version: String,
    /// Its serial number.
    pub serial: String,
    /// Its asset tag; clouds identify themselves in it.
    pub asset_tag: String,
    /// Its SKU number.
    pub sku: String,
}

/// Processor information (7.5): what is in a socket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProcessorInformation {
    /// Its manufacturer, such as `GenuineIntel`.
    pub manufacturer: String,
    /// Its brand string.
    pub version: String,
    /// EAX (low half) and EDX (high half) of CPUID leaf 1.
    pub id: u64,
    /// Its highest speed, in MHz; 0 if unknown.
    pub max_speed: u16,
    /// Its speed at boot, in MHz; 0 if unknown.
    pub current_speed: u16,
    /// Cores in the socket.
    pub cores: u16,
    /// Threads in the socket.
    pub threads: u16,
}
