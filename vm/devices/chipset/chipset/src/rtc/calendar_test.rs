use super::*;
use proptest::prelude::*;

const BCD_24: Format = Format {
    binary: false,
    hours_24: true,
};

fn formats() -> impl Strategy<Value = Format> {
    any::<(bool, bool)>().prop_map(|(binary, hours_24)| Format { binary, hours_24 })
}

#[test]
fn twelve_hour_format() {
    let format = Format {
        binary: false,
        hours_24: false,
    };
    for (hour, register) in [(0, 0x12), (1, 0x01), (11, 0x11), (12, 0x92), (23, 0x91)] {
        assert_eq!(format.encode_hour(hour), register);
        assert_eq!(format.decode_hour(register), hour);
    }
}

#[test]
fn registers_on_a_leap_day() {
    // 2024-02-29 12:34:56, a Thursday.
    let seconds = 1_709_210_096;
    let registers = [
        (SECONDS, 0x56),
        (MINUTES, 0x34),
        (HOURS, 0x12),
        (DAY_OF_WEEK, 5),
        (DAY, 0x29),
        (MONTH, 0x02),
        (YEAR, 0x24),
        (CENTURY, 0x20),
    ];
    for (register, value) in registers {
        assert_eq!(time_register(register, seconds, BCD_24), value);
    }
    assert_eq!(time_register(DAY, seconds + 86_400, BCD_24), 0x01);
}

#[test]
fn a_day_past_the_end_of_the_month_is_clamped() {
    let value = |register| match register {
        DAY => 0x31,
        MONTH => 0x02,
        YEAR => 0x23,
        CENTURY => 0x20,
        _ => 0,
    };
    let seconds = seconds_from_registers(value, BCD_24);
    assert_eq!(time_register(DAY, seconds, BCD_24), 0x28);
}

#[test]
fn alarms_with_dont_care_codes() {
    let alarm = |hour, minute, second| {
        let value = move |register| match register {
            HOURS_ALARM => hour,
            MINUTES_ALARM => minute,
            _ => second,
        };
        Alarm::from_registers(value, BCD_24)
    };
    assert_eq!(alarm(0xff, 0xc0, 0xff).next(5), Some(6));
    assert_eq!(alarm(0xff, 0xff, 0x05).next(5), Some(65));
    assert_eq!(alarm(0x00, 0x00, 0x00).next(0), Some(86_400));
    assert_eq!(alarm(0x23, 0x59, 0x59).next(-2), Some(-1));
    assert_eq!(alarm(0x24, 0x00, 0x00).next(0), None);
    assert_eq!(alarm(0x00, 0x7f, 0x00).next(0), None);
}

proptest! {
    #[test]
    fn registers_round_trip(seconds in -62_167_219_200_i64..253_402_300_800, format in formats()) {
        let seconds_again =
            seconds_from_registers(|register| time_register(register, seconds, format), format);
        prop_assert_eq!(seconds_again, seconds);
    }

    #[test]
    fn any_register_values_decode_to_a_time(values in any::<[u8; 128]>(), format in formats(), after in any::<i64>()) {
        let seconds = seconds_from_registers(|r| values[usize::from(r)], format);
        for register in 0..=CENTURY {
            time_register(register, seconds, format);
            time_register(register, after, format);
        }
        let alarm = Alarm::from_registers(|r| values[usize::from(r)], format);
        let scan = (after.min(1 << 40)..).skip(1).take(86_400).find(|s| {
            let day = s.rem_euclid(86_400);
            let fields = [
                (alarm.hour, day / 3600),
                (alarm.minute, day / 60 % 60),
                (alarm.second, day % 60),
            ];
            fields.iter().all(|(w, is)| w.is_none_or(|w| i64::from(w) == *is))
        });
        prop_assert_eq!(alarm.next(after.min(1 << 40)), scan);
    }
}
