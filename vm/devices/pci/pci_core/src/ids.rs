/// The identification of a function.
#[derive(Debug, Copy, Clone, Default, PartialEq, Eq)]
pub struct HardwareIds {
    /// The vendor, assigned by the PCI-SIG. 0xFFFF means that there is no function.
    pub vendor: u16,
    /// The device, assigned by the vendor.
    pub device: u16,
    /// The revision, assigned by the vendor.
    pub revision: u8,
    /// The kind of device.
    pub class: ClassCode,
    /// The vendor of the board, or 0.
    pub subsystem_vendor: u16,
    /// The board, assigned by its vendor.
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
