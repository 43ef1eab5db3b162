//! The time of day, for firmware that uses no real-time clock.

use crate::guest;
use chipset::rtc::WallClock;
use guest_memory::GuestMemory;
use minicbor::Decode;
use minicbor::Encode;
use time::Date;
use time::Month;
use time::OffsetDateTime;
use time::PrimitiveDateTime;
use time::Time;
use uefi_specs::EfiStatus;
use uefi_specs::EfiTime;
use uefi_specs::bios_device::TimeRequest;

/// Nanoseconds of the unit of the offset.
const UNIT: i128 = 100;

/// The years that the specification allows.
const YEARS: std::ops::RangeInclusive<i32> = 1900..=9999;

/// The most minutes that a zone differs from UTC.
const MAX_ZONE: i16 = 1440;

/// EFI_TIME_ADJUST_DAYLIGHT and EFI_TIME_IN_DAYLIGHT.
const DAYLIGHT: u8 = 3;

/// The guest's clock: an offset to the host's, and what the guest says of its zone.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub(crate) struct ClockState {
    /// The guest's local time minus the host's time (UTC), in units of 100 ns.
    #[n(1)]
    offset: i64,
    #[n(2)]
    zone: i16,
    #[n(3)]
    daylight: u8,
}

impl ClockState {
    #[cfg(test)]
    pub(crate) fn with_zone(zone: i16) -> Self {
        Self {
            zone,
            ..Self::default()
        }
    }

    pub(crate) fn is_valid(&self) -> bool {
        is_zone(self.zone) && self.daylight & !DAYLIGHT == 0
    }

    /// Answers the request at `gpa` with the time.
    pub(crate) fn get(
        &self,
        wall: &WallClock,
        memory: &GuestMemory,
        gpa: u64,
    ) -> Result<(), EfiStatus> {
        let local = wall.now().saturating_add(i128::from(self.offset) * UNIT);
        let local = OffsetDateTime::from_unix_timestamp_nanos(local);
        let local = local.map_err(|_| EfiStatus::DEVICE_ERROR)?;
        if !YEARS.contains(&local.year()) {
            return Err(EfiStatus::DEVICE_ERROR);
        }
        let time = EfiTime {
            // The year is within bounds.
            year: (local.year() as u16).into(),
            month: local.month().into(),
            day: local.day(),
            hour: local.hour(),
            minute: local.minute(),
            second: local.second(),
            pad1: 0,
            nanosecond: local.nanosecond().into(),
            time_zone: self.zone.into(),
            daylight: self.daylight,
            pad2: 0,
        };
        let request = TimeRequest {
            status: EfiStatus::SUCCESS.0.into(),
            time,
        };
        Ok(guest::write(memory, gpa, &request)?)
    }

    /// Sets the time as the request at `gpa` says.
    pub(crate) fn set(
        &mut self,
        wall: &WallClock,
        memory: &GuestMemory,
        gpa: u64,
    ) -> Result<(), EfiStatus> {
        let TimeRequest { time, .. } = guest::read(memory, gpa)?;
        let local = local_nanos(&time).ok_or(EfiStatus::INVALID_PARAMETER)?;
        let offset = local.saturating_sub(wall.now()).div_euclid(UNIT);
        *self = Self {
            offset: i64::try_from(offset).map_err(|_| EfiStatus::DEVICE_ERROR)?,
            zone: time.time_zone.get(),
            daylight: time.daylight,
        };
        Ok(())
    }
}

fn is_zone(zone: i16) -> bool {
    zone == EfiTime::UNSPECIFIED || (-MAX_ZONE..=MAX_ZONE).contains(&zone)
}

/// Nanoseconds since 1970 of a time of day, as if it were UTC; `None` if it is invalid.
fn local_nanos(time: &EfiTime) -> Option<i128> {
    let year = i32::from(time.year.get());
    if !YEARS.contains(&year) || !is_zone(time.time_zone.get()) || time.daylight & !DAYLIGHT != 0 {
        return None;
    }
    let month = Month::try_from(time.month).ok()?;
    let date = Date::from_calendar_date(year, month, time.day).ok()?;
    let nanos = time.nanosecond.get();
    let time = Time::from_hms_nano(time.hour, time.minute, time.second, nanos).ok()?;
    let local = PrimitiveDateTime::new(date, time);
    Some(local.assume_utc().unix_timestamp_nanos())
}
