//! Seconds since 1970 as the registers that a guest reads, and back.

use jiff::civil::{Date, DateTime, Time};

/// Register B: 24-hour mode.
pub(super) const HOURS_24: u8 = 1 << 1;
/// Register B: binary, not BCD.
pub(super) const BINARY: u8 = 1 << 2;
/// Set in the hours of the afternoon, in 12-hour mode.
const AFTERNOON: u8 = 1 << 7;
const SECONDS_PER_DAY: i64 = 86_400;
const EPOCH: Date = jiff::civil::date(1970, 1, 1);

/// How numbers are written, as register B says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Format(pub(super) u8);

impl Format {
    pub(super) fn encode(self, value: u8) -> u8 {
        if self.0 & BINARY != 0 {
            value
        } else {
            ((value / 10 % 10) << 4) | (value % 10)
        }
    }

    pub(super) fn decode(self, byte: u8) -> u8 {
        if self.0 & BINARY != 0 {
            byte
        } else {
            (byte >> 4).saturating_mul(10).saturating_add(byte & 0xf)
        }
    }

    pub(super) fn encode_hour(self, hour: u8) -> u8 {
        if self.0 & HOURS_24 != 0 {
            return self.encode(hour);
        }
        let twelve = match hour % 12 {
            0 => 12,
            hour => hour,
        };
        self.encode(twelve) | if hour >= 12 { AFTERNOON } else { 0 }
    }

    pub(super) fn decode_hour(self, byte: u8) -> u8 {
        if self.0 & HOURS_24 != 0 {
            return self.decode(byte);
        }
        let hour = self.decode(byte & !AFTERNOON) % 12;
        hour + if byte & AFTERNOON != 0 { 12 } else { 0 }
    }
}

/// The date and time registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TimeRegisters {
    pub(super) second: u8,
    pub(super) minute: u8,
    pub(super) hour: u8,
    /// 1 for Sunday to 7 for Saturday.
    pub(super) weekday: u8,
    pub(super) day: u8,
    pub(super) month: u8,
    pub(super) year: u8,
    pub(super) century: u8,
}

impl TimeRegisters {
    /// The registers for `seconds` since 1970 (years 0 to 9999; others show the nearest).
    pub(super) fn from_seconds(seconds: i64, format: Format) -> Self {
        let days = i32::try_from(seconds.div_euclid(SECONDS_PER_DAY)).unwrap_or(i32::MAX);
        let date = jiff::Span::new()
            .try_days(days)
            .and_then(|span| EPOCH.checked_add(span))
            .unwrap_or(if seconds < 0 { EPOCH } else { Date::MAX });
        // The remainder of a day fits in 17 bits.
        let of_day = seconds.rem_euclid(SECONDS_PER_DAY) as u32;
        let year = date.year().unsigned_abs();
        Self {
            second: format.encode((of_day % 60) as u8),
            minute: format.encode((of_day / 60 % 60) as u8),
            hour: format.encode_hour((of_day / 3600) as u8),
            weekday: format.encode(date.weekday().to_sunday_one_offset().unsigned_abs()),
            day: format.encode(date.day().unsigned_abs()),
            month: format.encode(date.month().unsigned_abs()),
            year: format.encode((year % 100) as u8),
            century: format.encode((year / 100) as u8),
        }
    }

    /// Seconds since 1970. What can be no date or time is taken for the nearest that can.
    pub(super) fn to_seconds(self, format: Format) -> i64 {
        let number = |byte, low: u8, high: u8| i16::from(format.decode(byte).clamp(low, high));
        let year = number(self.century, 0, 99) * 100 + number(self.year, 0, 99);
        let month = number(self.month, 1, 12) as i8;
        let last = Date::new(year, month, 1).map_or(28, Date::days_in_month);
        let day = (number(self.day, 1, 31) as i8).min(last);
        let hour = format.decode_hour(self.hour).min(23) as i8;
        let minute = number(self.minute, 0, 59) as i8;
        let second = number(self.second, 0, 59) as i8;
        let moment = Date::new(year, month, day).and_then(|date| {
            Time::new(hour, minute, second, 0).map(|time| DateTime::from_parts(date, time))
        });
        moment.map_or(0, |moment| {
            moment
                .duration_since(DateTime::from_parts(EPOCH, Time::midnight()))
                .as_secs()
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2026-11-21 16:05:09 UTC, a Saturday.
    const MOMENT: i64 = 1_795_277_109;

    #[test]
    fn bcd_and_24_hours() {
        let registers = TimeRegisters::from_seconds(MOMENT, Format(HOURS_24));

        assert_eq!(
            [
                registers.century,
                registers.year,
                registers.month,
                registers.day,
                registers.hour,
                registers.minute,
                registers.second,
                registers.weekday
            ],
            [0x20, 0x26, 0x11, 0x21, 0x16, 0x05, 0x09, 7]
        );
    }

    #[test]
    fn twelve_hours_have_no_hour_zero() {
        let format = Format(BINARY);

        let hours = [0, 1, 11, 12, 13, 23].map(|hour| format.encode_hour(hour));

        assert_eq!(hours, [12, 1, 11, 0x8c, 0x81, 0x8b]);
    }

    /// Year, month, day and day of the week (1 for Sunday) of the day that is `days` after
    /// 1970-01-01, which was a Thursday: by counting.
    fn slow_date(days: i64) -> (i64, i64, i64, i64) {
        let leap = |year: i64| year % 4 == 0 && year % 100 != 0 || year % 400 == 0;
        let (mut year, mut month, mut rest) = (1970, 1, days);
        while rest >= 365 + i64::from(leap(year)) {
            rest -= 365 + i64::from(leap(year));
            year += 1;
        }
        let lengths = [
            31,
            28 + i64::from(leap(year)),
            31,
            30,
            31,
            30,
            31,
            31,
            30,
            31,
            30,
            31,
        ];
        for length in lengths {
            if rest < length {
                break;
            }
            rest -= length;
            month += 1;
        }
        (year, month, rest + 1, (days + 4) % 7 + 1)
    }

    proptest! {
        #[test]
        fn dates_are_those_that_counting_gives(seconds in 0_i64..253_402_300_800) {
            let format = Format(HOURS_24 | BINARY);
            let (year, month, day, weekday) = slow_date(seconds / SECONDS_PER_DAY);

            let shown = TimeRegisters::from_seconds(seconds, format);

            let date = [shown.century, shown.year, shown.month, shown.day, shown.weekday];
            let counted = [year / 100, year % 100, month, day, weekday];
            prop_assert_eq!(date.map(i64::from), counted);
            let time = [shown.hour, shown.minute, shown.second].map(i64::from);
            let of_day = seconds % SECONDS_PER_DAY;
            prop_assert_eq!(time, [of_day / 3600, of_day / 60 % 60, of_day % 60]);
        }

        #[test]
        fn times_survive_the_registers(
            seconds in 0_i64..253_402_300_800,
            register_b in prop_oneof![Just(0), Just(BINARY), Just(HOURS_24), Just(BINARY | HOURS_24)],
        ) {
            let format = Format(register_b);

            let registers = TimeRegisters::from_seconds(seconds, format);

            prop_assert_eq!(registers.to_seconds(format), seconds);
        }

        #[test]
        fn any_bytes_are_some_time(bytes: [u8; 8], register_b: u8) {
            let [second, minute, hour, weekday, day, month, year, century] = bytes;
            let registers = TimeRegisters { second, minute, hour, weekday, day, month, year, century };

            registers.to_seconds(Format(register_b));
        }

        #[test]
        fn any_second_has_registers(seconds: i64) {
            TimeRegisters::from_seconds(seconds, Format(0));
        }
    }
}
