//! EFI_TIME: a date and time of day.

use core::fmt;
use zerocopy::FromBytes;
use zerocopy::Immutable;
use zerocopy::IntoBytes;
use zerocopy::KnownLayout;
use zerocopy::Unaligned;
use zerocopy::little_endian::I16;
use zerocopy::little_endian::U16;
use zerocopy::little_endian::U32;

/// EFI_TIME (UEFI specification, section 8.3). Not validated: the fields hold whatever was stored.
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
pub struct EfiTime {
    /// Year.
    pub year: U16,
    /// Month, 1 to 12.
    pub month: u8,
    /// Day of the month, from 1.
    pub day: u8,
    /// Hours.
    pub hour: u8,
    /// Minutes.
    pub minute: u8,
    /// Seconds.
    pub second: u8,
    /// Padding.
    pub pad1: u8,
    /// Nanoseconds.
    pub nanosecond: U32,
    /// Minutes to add to local time to get UTC; [`EfiTime::UNSPECIFIED`] for local time without a zone.
    pub time_zone: I16,
    /// Daylight saving flags.
    pub daylight: u8,
    /// Padding.
    pub pad2: u8,
}

impl EfiTime {
    /// EFI_UNSPECIFIED_TIMEZONE: the time is local time of an unknown zone.
    pub const UNSPECIFIED: i16 = 0x7ff;
}

/// Formats the time as ISO 8601.
impl fmt::Display for EfiTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
            self.year, self.month, self.day, self.hour, self.minute, self.second
        )?;
        if self.nanosecond.get() != 0 {
            write!(f, ".{:09}", self.nanosecond)?;
        }
        match self.time_zone.get() {
            0 => f.write_str("Z"),
            Self::UNSPECIFIED => Ok(()),
            // EFI counts from local time to UTC, ISO 8601 from UTC to local time.
            zone => {
                let sign = if zone > 0 { '-' } else { '+' };
                let minutes = i32::from(zone).abs();
                write!(f, "{sign}{:02}:{:02}", minutes / 60, minutes % 60)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString as _;

    #[test]
    fn text_is_iso_8601() {
        let mut time = EfiTime {
            year: 2024.into(),
            month: 3,
            day: 9,
            hour: 17,
            minute: 5,
            second: 1,
            ..EfiTime::default()
        };
        assert_eq!(size_of::<EfiTime>(), 16);
        assert_eq!(time.to_string(), "2024-03-09T17:05:01Z");
        time.time_zone = EfiTime::UNSPECIFIED.into();
        time.nanosecond = 5.into();
        assert_eq!(time.to_string(), "2024-03-09T17:05:01.000000005");
        time.nanosecond = 0.into();
        time.time_zone = 480.into();
        assert_eq!(time.to_string(), "2024-03-09T17:05:01-08:00");
        time.time_zone = (-90).into();
        assert_eq!(time.to_string(), "2024-03-09T17:05:01+01:30");
        time.time_zone = i16::MIN.into();
        assert_eq!(time.to_string(), "2024-03-09T17:05:01+546:08");
    }
}
