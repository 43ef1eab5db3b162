/// What a function says it is.
#[derive(Debug, Copy, Clone, Default, PartialEq, Eq)]
pub struct HardwareIds {
    /// The vendor's number, given by the PCI-SIG. 0xFFFF means that there is no function.
    pub vendor: u16,
    /// The device's number, given by the vendor.
    pub device: u16,
    /// The revision, given by the vendor.
    pub revision: u8,
    /// What kind of device it is.
    pub class: ClassCode,
    /// Whose board it is on; 0 if nobody's.
    pub subsystem_vendor: u16,
    /// Which board of theirs it is on.
    pub subsystem: u16,
}

/// A class code (PCI Local Bus Specification 3.0, appendix D).
#[derive(Debug, Copy, Clone, Default, PartialEq, Eq)]
pub struct ClassCode {
    /// The base class, such as 0x06 for bridges.
    pub base: u8,
    /// The sub-class, such as 0x01 for ISA bridges.
    pub sub: u8,
    /// The programming interface.
    pub interface: u8,
}
