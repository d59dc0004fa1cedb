//! The divider chain and the periodic event that is tapped from it.

use super::map::{DIVIDER_RESET, RATE};
use crate::clock::Nanos;

/// Frequency of the divider's input in Hz.
const HZ: u128 = 32_768;
const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// Steps of the divider until `now`.
pub(super) fn steps(now: Nanos) -> u64 {
    (u128::from(now) * HZ / NANOS_PER_SECOND) as u64
}

/// The first nanosecond of step `steps`.
pub(super) fn nanos(steps: u64) -> Nanos {
    let nanos = (u128::from(steps) * NANOS_PER_SECOND).div_ceil(HZ);
    Nanos::try_from(nanos).unwrap_or(Nanos::MAX)
}

/// Steps between periodic events, if register A lets there be any.
pub(super) fn period(register_a: u8) -> Option<u64> {
    let running = register_a & DIVIDER_RESET != DIVIDER_RESET;
    match register_a & RATE {
        _ if !running => None,
        0 => None,
        // The two fastest codes stand for the rates of codes 8 and 9.
        code @ 1..=2 => Some(1 << (code + 6)),
        code => Some(1 << (code - 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rate_is_the_datasheets() {
        // In Hz, by the code in register A; 0 is none.
        let rates = [
            0, 256, 128, 8192, 4096, 2048, 1024, 512, 256, 128, 64, 32, 16, 8, 4, 2,
        ];

        for (code, rate) in (0_u8..).zip(rates) {
            let steps = period(0x20 | code);
            assert_eq!(
                steps.map_or(0, |steps| HZ as u64 / steps),
                rate,
                "code {code}"
            );
            assert_eq!(period(DIVIDER_RESET | code), None);
        }
    }
}
