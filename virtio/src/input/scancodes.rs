//! From the scancodes of a PC keyboard (set 1) to the key codes of Linux' `input-event-codes.h`.

use std::ops::RangeInclusive;

/// Scancodes without prefix: runs of them, and the key code of the first.
///
/// The key codes were numbered after the scancodes, so that most of them are the same.
const PLAIN: [(RangeInclusive<u8>, u16); 17] = [
    (0x01..=0x53, 1),   // Escape to keypad full stop
    (0x54..=0x54, 99),  // Alt and Print Screen: System Request
    (0x56..=0x58, 86),  // the key beside left Shift, F11, F12
    (0x59..=0x59, 117), // keypad =
    (0x5c..=0x5c, 95),  // keypad comma of Japanese keyboards
    (0x64..=0x6e, 183), // F13 to F23
    (0x70..=0x70, 93),  // Katakana/Hiragana
    (0x71..=0x71, 123), // Hanja
    (0x72..=0x72, 122), // Hangul
    (0x73..=0x73, 89),  // Ro
    (0x76..=0x76, 194), // F24
    (0x77..=0x77, 91),  // Hiragana
    (0x78..=0x78, 90),  // Katakana
    (0x79..=0x79, 92),  // Henkan
    (0x7b..=0x7b, 94),  // Muhenkan
    (0x7d..=0x7d, 124), // Yen
    (0x7e..=0x7e, 121), // keypad comma of Brazil
];

/// Scancodes after 0xe0, in the same form.
const EXTENDED: [(RangeInclusive<u8>, u16); 35] = [
    (0x10..=0x10, 165), // previous track
    (0x19..=0x19, 163), // next track
    (0x1c..=0x1c, 96),  // keypad Enter
    (0x1d..=0x1d, 97),  // right Control
    (0x20..=0x20, 113), // mute
    (0x21..=0x21, 140), // calculator
    (0x22..=0x22, 164), // play or pause
    (0x24..=0x24, 166), // stop playing
    (0x2e..=0x2e, 114), // volume down
    (0x30..=0x30, 115), // volume up
    (0x32..=0x32, 172), // home page
    (0x35..=0x35, 98),  // keypad /
    (0x37..=0x37, 99),  // Print Screen
    (0x38..=0x38, 100), // right Alt
    (0x45..=0x45, 69),  // Num Lock
    (0x46..=0x46, 119), // Pause
    (0x47..=0x49, 102), // Home, up, Page Up
    (0x4b..=0x4b, 105), // left
    (0x4d..=0x4d, 106), // right
    (0x4f..=0x53, 107), // End, down, Page Down, Insert, Delete
    (0x5b..=0x5d, 125), // left and right Meta, Menu
    (0x5e..=0x5e, 116), // power
    (0x5f..=0x5f, 142), // sleep
    (0x63..=0x63, 143), // wake up
    (0x65..=0x65, 217), // search
    (0x66..=0x66, 156), // bookmarks
    (0x67..=0x67, 173), // refresh
    (0x68..=0x68, 128), // stop
    (0x69..=0x69, 159), // forward
    (0x6a..=0x6a, 158), // back
    (0x6b..=0x6b, 157), // my computer
    (0x6c..=0x6c, 155), // mail
    (0x6d..=0x6d, 226), // media
    (0x71..=0x71, 123), // Hanja
    (0x72..=0x72, 122), // Hangul
];

/// Linux' code for the key with scancode `code`, after a prefix if `extended`.
pub(crate) fn key_of(code: u8, extended: bool) -> Option<u16> {
    let runs: &[_] = if extended { &EXTENDED } else { &PLAIN };
    runs.iter()
        .find(|(codes, _)| codes.contains(&code))
        .map(|(codes, first)| first + u16::from(code - codes.start()))
}

/// Every key code that [`key_of`] gives.
pub(crate) fn all_keys() -> impl Iterator<Item = u16> {
    PLAIN.iter().chain(&EXTENDED).flat_map(|(codes, first)| {
        let len = u16::from(codes.end() - codes.start());
        *first..=*first + len
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scancodes_give_the_keys_of_linux() {
        let pairs = [
            ((0x01, false), 1),   // KEY_ESC
            ((0x1e, false), 30),  // KEY_A
            ((0x39, false), 57),  // KEY_SPACE
            ((0x56, false), 86),  // KEY_102ND
            ((0x58, false), 88),  // KEY_F12
            ((0x7e, false), 121), // KEY_KPCOMMA
            ((0x1c, true), 96),   // KEY_KPENTER
            ((0x48, true), 103),  // KEY_UP
            ((0x50, true), 108),  // KEY_DOWN
            ((0x53, true), 111),  // KEY_DELETE
            ((0x5d, true), 127),  // KEY_COMPOSE
            ((0x46, true), 119),  // KEY_PAUSE
        ];

        for ((code, extended), key) in pairs {
            assert_eq!(key_of(code, extended), Some(key), "{code:#x} {extended}");
        }
    }

    #[test]
    fn unknown_scancodes_give_nothing() {
        assert_eq!(key_of(0x00, false), None);
        assert_eq!(key_of(0x7f, false), None);
        assert_eq!(key_of(0x01, true), None);
    }
}
