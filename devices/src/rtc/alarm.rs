//! When the alarm rings.

use super::calendar::Format;

/// In an alarm register, from here on: any value matches.
const DONT_CARE: u8 = 0xc0;
const SECONDS_PER_DAY: i64 = 86_400;

/// The first second after `seen` that matches the alarm's registers for second, minute and hour;
/// `None` if none ever does.
pub(super) fn next(alarm: [u8; 3], format: Format, seen: i64) -> Option<i64> {
    let [second, minute, hour] = alarm;
    let matches = |register: u8, decoded: u8, value: i64| {
        register >= DONT_CARE || i64::from(decoded) == value
    };
    let from = seen.checked_add(1)?;
    let (mut day, mut of_day) = (
        from.div_euclid(SECONDS_PER_DAY),
        from.rem_euclid(SECONDS_PER_DAY),
    );
    // Skips to the start of the next hour, minute or second that may match; a day and a bit has
    // been searched when it comes by the same time again.
    for _ in 0..2 * (24 + 60 + 60) {
        if !matches(hour, format.decode_hour(hour), of_day / 3600) {
            of_day = (of_day / 3600 + 1) * 3600;
        } else if !matches(minute, format.decode(minute), of_day / 60 % 60) {
            of_day = (of_day / 60 + 1) * 60;
        } else if !matches(second, format.decode(second), of_day % 60) {
            of_day += 1;
        } else {
            return day.checked_mul(SECONDS_PER_DAY)?.checked_add(of_day);
        }
        if of_day >= SECONDS_PER_DAY {
            (day, of_day) = (day + 1, of_day - SECONDS_PER_DAY);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::calendar::{BINARY, HOURS_24, TimeRegisters};
    use super::*;

    /// Looks at the registers of every second.
    fn slow_next(alarm: [u8; 3], format: Format, seen: i64) -> Option<i64> {
        (seen + 1..=seen + SECONDS_PER_DAY).find(|&now| {
            let time = TimeRegisters::from_seconds(now, format);
            let shown = [time.second, time.minute, time.hour];
            let mut registers = alarm.iter().zip(shown);
            registers.all(|(&alarm, shown)| alarm >= DONT_CARE || alarm == shown)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]

        #[test]
        fn the_next_alarm_is_the_first_second_that_matches(
            seen in 0_i64..4_000_000_000,
            wanted in 0_i64..86_400,
            ignore: [bool; 3],
            register_b in prop_oneof![Just(0), Just(BINARY), Just(HOURS_24), Just(BINARY | HOURS_24)],
        ) {
            let format = Format(register_b);
            let time = TimeRegisters::from_seconds(wanted, format);
            let shown = [time.second, time.minute, time.hour];
            let alarm = [0, 1, 2].map(|n| if ignore[n] { 0xff } else { shown[n] });

            prop_assert_eq!(next(alarm, format, seen), slow_next(alarm, format, seen));
        }
    }
}
