//! What the structures say. A text left empty is not given.

use std::ops::Range;

/// A machine, as its inventory is to show it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Description {
    /// The firmware (type 0).
    pub firmware: Firmware,
    /// The machine as a product (type 1).
    pub system: System,
    /// Its board (type 2).
    pub baseboard: Baseboard,
    /// Its case (type 3).
    pub chassis: Chassis,
    /// What is in each processor socket (type 4).
    pub processors: Vec<Processor>,
    /// The guest-physical ranges that are RAM (types 16, 17 and 19).
    pub memory: Vec<Range<u64>>,
}

/// The firmware.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Firmware {
    /// Who made it.
    pub vendor: String,
    /// Its version.
    pub version: String,
    /// Its date, as mm/dd/yyyy.
    pub release_date: String,
    /// Major and minor release; 0xFF and 0xFF if it has none.
    pub release: (u8, u8),
}

/// The machine as a product.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct System {
    /// Who made it.
    pub manufacturer: String,
    /// What it is called.
    pub product: String,
    /// Its version.
    pub version: String,
    /// Its serial number.
    pub serial: String,
    /// Its identity, which stays the same for its whole life.
    pub uuid: Uuid,
    /// The number it is ordered by.
    pub sku: String,
    /// The family of products it belongs to.
    pub family: String,
}

/// A UUID, as the 16 bytes in the order in which they are printed (RFC 9562).
#[derive(Debug, Copy, Clone, Default, PartialEq, Eq)]
pub struct Uuid(pub [u8; 16]);

impl Uuid {
    /// The bytes in SMBIOS order: the first three fields are little-endian.
    pub(crate) fn to_wire(self) -> [u8; 16] {
        let mut bytes = self.0;
        bytes[0..4].reverse();
        bytes[4..6].reverse();
        bytes[6..8].reverse();
        bytes
    }
}

/// The board.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Baseboard {
    /// Who made it.
    pub manufacturer: String,
    /// What it is called.
    pub product: String,
    /// Its version.
    pub version: String,
    /// Its serial number.
    pub serial: String,
    /// Its asset tag.
    pub asset_tag: String,
}

/// The case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chassis {
    /// Who made it.
    pub manufacturer: String,
    /// Its version.
    pub version: String,
    /// Its serial number.
    pub serial: String,
    /// Its asset tag, in which clouds say who they are.
    pub asset_tag: String,
    /// The number it is ordered by.
    pub sku: String,
}

/// What is in a processor socket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Processor {
    /// Who made it, such as `GenuineIntel`.
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
