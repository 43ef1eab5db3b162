use time::Date;
use time::Month;
use time::OffsetDateTime;
use time::Time;
use time::UtcDateTime;

pub(crate) const SECONDS: u8 = 0x00;
pub(crate) const SECONDS_ALARM: u8 = 0x01;
pub(crate) const MINUTES: u8 = 0x02;
pub(crate) const MINUTES_ALARM: u8 = 0x03;
pub(crate) const HOURS: u8 = 0x04;
pub(crate) const HOURS_ALARM: u8 = 0x05;
pub(crate) const DAY_OF_WEEK: u8 = 0x06;
pub(crate) const DAY: u8 = 0x07;
pub(crate) const MONTH: u8 = 0x08;
pub(crate) const YEAR: u8 = 0x09;
pub(crate) const CENTURY: u8 = 0x32;

const PM: u8 = 0x80;
const SECONDS_PER_DAY: i64 = 86_400;

/// How the registers encode numbers, from register B.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) struct Format {
    /// Binary numbers instead of BCD.
    pub(crate) binary: bool,
    /// Hours 0 to 23 instead of 1 to 12 with a PM bit.
    pub(crate) hours_24: bool,
}

impl Format {
    fn encode(self, value: u8) -> u8 {
        if self.binary {
            value
        } else {
            ((value / 10 % 10) << 4) | (value % 10)
        }
    }

    /// Decodes a number. BCD digits above nine are added up, as hardware does.
    fn decode(self, value: u8) -> u8 {
        if self.binary {
            value
        } else {
            (value >> 4) * 10 + (value & 0x0f)
        }
    }

    fn encode_hour(self, hour: u8) -> u8 {
        if self.hours_24 {
            return self.encode(hour);
        }
        let of_twelve = match hour % 12 {
            0 => 12,
            other => other,
        };
        let afternoon = if hour >= 12 { PM } else { 0 };
        self.encode(of_twelve) | afternoon
    }

    fn decode_hour(self, value: u8) -> u8 {
        if self.hours_24 {
            return self.decode(value);
        }
        let afternoon = if value & PM != 0 { 12 } else { 0 };
        self.decode(value & !PM) % 12 + afternoon
    }
}

/// Whether `register` is one of the time.
pub(crate) fn is_time(register: u8) -> bool {
    matches!(
        register,
        SECONDS | MINUTES | HOURS | DAY_OF_WEEK | DAY | MONTH | YEAR | CENTURY
    )
}

/// The value of time register `register` at `seconds` since 1970 (UTC).
pub(crate) fn time_register(register: u8, seconds: i64, format: Format) -> u8 {
    let time = date_time(seconds);
    match register {
        SECONDS => format.encode(time.second()),
        MINUTES => format.encode(time.minute()),
        HOURS => format.encode_hour(time.hour()),
        DAY_OF_WEEK => format.encode(time.weekday().number_from_sunday()),
        DAY => format.encode(time.day()),
        MONTH => format.encode(time.month().into()),
        YEAR => format.encode((time.year() % 100) as u8),
        _ => format.encode((time.year() / 100) as u8),
    }
}

/// The date and time, clamped to what the registers can hold: the years 0 to 9999.
fn date_time(seconds: i64) -> OffsetDateTime {
    let day_0 = Date::from_ordinal_date(0, 1).unwrap_or(Date::MIN);
    let first = UtcDateTime::new(day_0, Time::MIDNIGHT).unix_timestamp();
    let last = UtcDateTime::new(Date::MAX, Time::MAX).unix_timestamp();
    let seconds = seconds.clamp(first, last);
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// Decodes the time in `registers` to seconds since 1970. Fields are clamped to their range, because a guest may
/// write any value.
pub(crate) fn seconds_from_registers(registers: impl Fn(u8) -> u8, format: Format) -> i64 {
    let field = |register| format.decode(registers(register));
    let century = i32::from(field(CENTURY).min(99));
    let year = century * 100 + i32::from(field(YEAR).min(99));
    let month = Month::try_from(field(MONTH).clamp(1, 12)).unwrap_or(Month::January);
    let day = field(DAY).clamp(1, month.length(year));
    let date = Date::from_calendar_date(year, month, day).unwrap_or(Date::MIN);
    let hour = format.decode_hour(registers(HOURS)).min(23);
    let (minute, second) = (field(MINUTES).min(59), field(SECONDS).min(59));
    let time = Time::from_hms(hour, minute, second).unwrap_or(Time::MIDNIGHT);
    UtcDateTime::new(date, time).unix_timestamp()
}

/// The time of day of the alarm. `None` matches any value.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) struct Alarm {
    second: Option<u8>,
    minute: Option<u8>,
    hour: Option<u8>,
}

impl Alarm {
    /// Values from 0xC0 on mean "don't care".
    pub(crate) fn from_registers(registers: impl Fn(u8) -> u8, format: Format) -> Self {
        let specified = |register| Some(registers(register)).filter(|value| *value < 0xc0);
        Self {
            second: specified(SECONDS_ALARM).map(|value| format.decode(value)),
            minute: specified(MINUTES_ALARM).map(|value| format.decode(value)),
            hour: specified(HOURS_ALARM).map(|value| format.decode_hour(value)),
        }
    }

    /// The first second after `after` (since 1970) that matches the alarm. `None` if no time matches, because
    /// a field is out of range.
    pub(crate) fn next(self, after: i64) -> Option<i64> {
        let differs =
            |wanted: Option<u8>, actual: i64| wanted.is_some_and(|w| i64::from(w) != actual);
        let mut seconds = after.checked_add(1)?;
        let end = seconds.checked_add(SECONDS_PER_DAY)?;
        while seconds < end {
            let of_day = seconds.rem_euclid(SECONDS_PER_DAY);
            let (of_hour, of_minute) = (of_day % 3600, of_day % 60);
            if differs(self.hour, of_day / 3600) {
                seconds += 3600 - of_hour;
            } else if differs(self.minute, of_hour / 60) {
                seconds += 60 - of_minute;
            } else if differs(self.second, of_minute) {
                seconds += 1;
            } else {
                return Some(seconds);
            }
        }
        None
    }
}

#[cfg(test)]
#[path = "calendar_test.rs"]
mod tests;
