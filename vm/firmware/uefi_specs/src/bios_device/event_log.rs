//! Events that the firmware reports in channels.

use uuid::Uuid;
use uuid::uuid;
use zerocopy::FromBytes;
use zerocopy::Immutable;
use zerocopy::IntoBytes;
use zerocopy::KnownLayout;
use zerocopy::Unaligned;
use zerocopy::little_endian::U16;
use zerocopy::little_endian::U32;
use zerocopy::little_endian::U64;

/// The channel of events about booting.
pub const BOOT_EVENT_CHANNEL: Uuid = uuid!("8cc6713b-360d-4406-9268-f6b0cfdfca91");

/// The header of a channel, followed by `data_size` bytes of events.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Default,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct EventChannelHeader {
    /// Which channel, in EFI's byte order.
    pub channel: [u8; 16],
    /// Number of events.
    pub events_written: U32,
    /// Number of events that found no room.
    pub events_lost: U32,
    /// Bytes of the events.
    pub data_size: U32,
}

impl EventChannelHeader {
    /// The least bytes of events in a channel.
    pub const MIN_DATA_SIZE: u32 = 64;
    /// The most bytes of events in a channel.
    pub const MAX_DATA_SIZE: u32 = 16 << 10;
}

/// The header of an event, followed by its data.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Default,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct EventHeader {
    /// Who produced the event, in EFI's byte order.
    pub producer: [u8; 16],
    /// What it belongs to, in EFI's byte order.
    pub correlation: [u8; 16],
    /// When it was created.
    pub create_time: U64,
    /// When it was complete.
    pub commit_time: U64,
    /// What happened, such as [`BootDeviceEvent::ID`].
    pub id: U32,
    /// 1: pending; 2: incomplete.
    pub flags: U32,
    /// Bytes of this header: [`EventHeader::SIZE`] or more.
    pub header_size: U32,
    /// Bytes of the data.
    pub data_size: U32,
}

impl EventHeader {
    /// Bytes of the header.
    pub const SIZE: usize = size_of::<Self>();
}

/// The data of the event that a boot device was tried, followed by its device path.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Default,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct BootDeviceEvent {
    /// [`BootDeviceStatus`].
    pub status: U32,
    #[allow(missing_docs)]
    pub reserved1: U32,
    /// The EFI_STATUS, with its error bit.
    pub extended_status: U64,
    /// The number of the boot option.
    pub boot_variable: U16,
    #[allow(missing_docs)]
    pub reserved2: U16,
    /// Bytes of the device path.
    pub device_path_size: U32,
}

impl BootDeviceEvent {
    /// The [`EventHeader::id`] of this event.
    pub const ID: u32 = 1;
}

/// How the attempt to boot from a device ended.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct BootDeviceStatus(pub u32);

impl BootDeviceStatus {
    /// The operating system was loaded.
    pub const OS_LOADED: Self = Self(0x1_0005);
    /// There is no device to boot from.
    pub const NO_DEVICES: Self = Self(0x1_0006);

    /// Whether Secure Boot refused the image.
    pub const fn is_secure_boot_failure(self) -> bool {
        self.0 >> 16 == 2
    }

    /// The status in words.
    pub const fn name(self) -> &'static str {
        match self.0 {
            0 => "pending",
            0x1_0000 => "no file system",
            0x1_0001 => "no loader",
            0x1_0002 => "incompatible loader",
            0x1_0003 => "the loader returned a failure",
            0x1_0004 => "the operating system was not loaded",
            0x1_0005 => "the operating system was loaded",
            0x1_0006 => "no devices",
            0x1_0007 => "load error",
            0x2_0000 => "Secure Boot failed",
            0x2_0001 => "Secure Boot: denied by policy",
            0x2_0002 => "Secure Boot: the image's hash is denied",
            0x2_0003 => "Secure Boot: the image's certificate is denied",
            0x2_0004 => "Secure Boot: invalid image",
            0x2_0005 => "Secure Boot: the image is not signed, and its hash is not in db",
            0x2_0006 => "Secure Boot: the image is signed, and its hash is not found",
            0x2_0007 => "Secure Boot: neither the image's certificate nor its hash is in db",
            0x3_0000 => "network: media disconnected",
            0x3_0001 => "network: DHCP failed",
            0x3_0002 => "network: no response",
            0x3_0003 => "network: buffer too small",
            0x3_0004 => "network: device error",
            0x3_0005 => "network: no resources",
            0x3_0006 => "network: the server timed out",
            0x3_0007 => "network: cancelled",
            0x3_0008 => "network: ICMP error",
            0x3_0009 => "network: TFTP error",
            0x3_000a => "network: no boot file",
            0x3_000b => "network: unexpected failure",
            _ => "unknown status",
        }
    }
}
