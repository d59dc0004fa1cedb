//! Keys by name and by the character they type on a US keyboard, as scancodes of set 1.

use caraway_spice::Key;

const fn plain(code: u8) -> Key {
    Key {
        code,
        extended: false,
    }
}

const fn extended(code: u8) -> Key {
    Key {
        code,
        extended: true,
    }
}

/// The left shift key.
pub const SHIFT: Key = plain(0x2a);

/// Every key by its names; the first name of a key is the one that is shown. (IBM PC/AT scancode
/// set 1; the extended ones follow the prefix 0xe0.)
const NAMES: [(&str, Key); 138] = [
    ("esc", plain(0x01)),
    ("escape", plain(0x01)),
    ("1", plain(0x02)),
    ("2", plain(0x03)),
    ("3", plain(0x04)),
    ("4", plain(0x05)),
    ("5", plain(0x06)),
    ("6", plain(0x07)),
    ("7", plain(0x08)),
    ("8", plain(0x09)),
    ("9", plain(0x0a)),
    ("0", plain(0x0b)),
    ("minus", plain(0x0c)),
    ("equal", plain(0x0d)),
    ("backspace", plain(0x0e)),
    ("tab", plain(0x0f)),
    ("q", plain(0x10)),
    ("w", plain(0x11)),
    ("e", plain(0x12)),
    ("r", plain(0x13)),
    ("t", plain(0x14)),
    ("y", plain(0x15)),
    ("u", plain(0x16)),
    ("i", plain(0x17)),
    ("o", plain(0x18)),
    ("p", plain(0x19)),
    ("bracket-left", plain(0x1a)),
    ("bracket-right", plain(0x1b)),
    ("enter", plain(0x1c)),
    ("return", plain(0x1c)),
    ("ctrl", plain(0x1d)),
    ("control", plain(0x1d)),
    ("ctrl-left", plain(0x1d)),
    ("a", plain(0x1e)),
    ("s", plain(0x1f)),
    ("d", plain(0x20)),
    ("f", plain(0x21)),
    ("g", plain(0x22)),
    ("h", plain(0x23)),
    ("j", plain(0x24)),
    ("k", plain(0x25)),
    ("l", plain(0x26)),
    ("semicolon", plain(0x27)),
    ("apostrophe", plain(0x28)),
    ("grave", plain(0x29)),
    ("shift", SHIFT),
    ("shift-left", SHIFT),
    ("backslash", plain(0x2b)),
    ("z", plain(0x2c)),
    ("x", plain(0x2d)),
    ("c", plain(0x2e)),
    ("v", plain(0x2f)),
    ("b", plain(0x30)),
    ("n", plain(0x31)),
    ("m", plain(0x32)),
    ("comma", plain(0x33)),
    ("dot", plain(0x34)),
    ("period", plain(0x34)),
    ("slash", plain(0x35)),
    ("shift-right", plain(0x36)),
    ("kp-multiply", plain(0x37)),
    ("alt", plain(0x38)),
    ("alt-left", plain(0x38)),
    ("space", plain(0x39)),
    ("caps-lock", plain(0x3a)),
    ("f1", plain(0x3b)),
    ("f2", plain(0x3c)),
    ("f3", plain(0x3d)),
    ("f4", plain(0x3e)),
    ("f5", plain(0x3f)),
    ("f6", plain(0x40)),
    ("f7", plain(0x41)),
    ("f8", plain(0x42)),
    ("f9", plain(0x43)),
    ("f10", plain(0x44)),
    ("num-lock", plain(0x45)),
    ("scroll-lock", plain(0x46)),
    ("kp-7", plain(0x47)),
    ("kp-8", plain(0x48)),
    ("kp-9", plain(0x49)),
    ("kp-minus", plain(0x4a)),
    ("kp-4", plain(0x4b)),
    ("kp-5", plain(0x4c)),
    ("kp-6", plain(0x4d)),
    ("kp-plus", plain(0x4e)),
    ("kp-1", plain(0x4f)),
    ("kp-2", plain(0x50)),
    ("kp-3", plain(0x51)),
    ("kp-0", plain(0x52)),
    ("kp-dot", plain(0x53)),
    ("less", plain(0x56)),
    ("f11", plain(0x57)),
    ("f12", plain(0x58)),
    ("kp-enter", extended(0x1c)),
    ("ctrl-right", extended(0x1d)),
    ("mute", extended(0x20)),
    ("volume-down", extended(0x2e)),
    ("volume-up", extended(0x30)),
    ("kp-divide", extended(0x35)),
    ("print", extended(0x37)),
    ("sysrq", extended(0x37)),
    ("alt-right", extended(0x38)),
    ("altgr", extended(0x38)),
    ("home", extended(0x47)),
    ("up", extended(0x48)),
    ("page-up", extended(0x49)),
    ("pgup", extended(0x49)),
    ("left", extended(0x4b)),
    ("right", extended(0x4d)),
    ("end", extended(0x4f)),
    ("down", extended(0x50)),
    ("page-down", extended(0x51)),
    ("pgdn", extended(0x51)),
    ("insert", extended(0x52)),
    ("delete", extended(0x53)),
    ("del", extended(0x53)),
    ("meta", extended(0x5b)),
    ("super", extended(0x5b)),
    ("win", extended(0x5b)),
    ("meta-left", extended(0x5b)),
    ("meta-right", extended(0x5c)),
    ("menu", extended(0x5d)),
    ("power", extended(0x5e)),
    ("sleep", extended(0x5f)),
    ("wake", extended(0x63)),
    // The keys' own characters are names, too.
    ("-", plain(0x0c)),
    ("=", plain(0x0d)),
    ("[", plain(0x1a)),
    ("]", plain(0x1b)),
    (";", plain(0x27)),
    ("'", plain(0x28)),
    ("`", plain(0x29)),
    ("\\", plain(0x2b)),
    (",", plain(0x33)),
    (".", plain(0x34)),
    ("/", plain(0x35)),
    (" ", plain(0x39)),
    ("\n", plain(0x1c)),
];

/// Characters that need the shift key, and the character of the same key without it.
const SHIFTED: [(char, char); 21] = [
    ('!', '1'),
    ('@', '2'),
    ('#', '3'),
    ('$', '4'),
    ('%', '5'),
    ('^', '6'),
    ('&', '7'),
    ('*', '8'),
    ('(', '9'),
    (')', '0'),
    ('_', '-'),
    ('+', '='),
    ('{', '['),
    ('}', ']'),
    (':', ';'),
    ('"', '\''),
    ('~', '`'),
    ('|', '\\'),
    ('<', ','),
    ('>', '.'),
    ('?', '/'),
];

/// The key that has this name; upper and lower case are the same.
#[must_use]
pub fn named(name: &str) -> Option<Key> {
    NAMES
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name))
        .map(|(_, key)| *key)
}

/// Every name.
pub fn names() -> impl Iterator<Item = &'static str> {
    NAMES.iter().map(|(name, _)| *name)
}

/// The key that types `character` on a US keyboard, and whether shift is needed.
#[must_use]
pub fn typed(character: char) -> Option<(Key, bool)> {
    let unshifted = SHIFTED
        .iter()
        .find(|(shifted, _)| *shifted == character)
        .map(|(_, bare)| *bare)
        .or_else(|| {
            character
                .is_ascii_uppercase()
                .then(|| character.to_ascii_lowercase())
        });
    let bare = unshifted.unwrap_or(character);
    let key = match bare {
        '\t' => named("tab"),
        '\r' => named("enter"),
        _ => named(bare.encode_utf8(&mut [0; 4])),
    };
    key.map(|key| (key, unshifted.is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_printable_ascii_character_can_be_typed() {
        for byte in 0x20..0x7f_u8 {
            assert!(typed(byte.into()).is_some(), "{:?}", char::from(byte));
        }
    }

    #[test]
    fn no_two_characters_are_one_stroke() {
        let strokes: BTreeSet<_> = (0x20..0x7f_u8)
            .filter_map(|byte| typed(byte.into()))
            .map(|(key, shift)| (key.code, key.extended, shift))
            .collect();

        assert_eq!(strokes.len(), 0x7f - 0x20);
    }

    #[test]
    fn capitals_need_shift() {
        assert_eq!(typed('a'), Some((plain(0x1e), false)));
        assert_eq!(typed('A'), Some((plain(0x1e), true)));
        assert_eq!(typed('\n'), Some((plain(0x1c), false)));
    }

    #[test]
    fn other_alphabets_have_no_key() {
        assert_eq!(typed('ß'), None);
        assert_eq!(typed('\0'), None);
    }

    #[test]
    fn names_are_unique_and_codes_are_make_codes() {
        let unique: BTreeSet<_> = names().collect();

        assert_eq!(unique.len(), NAMES.len());
        assert!(
            NAMES
                .iter()
                .all(|(_, key)| (0x01..=0x7f).contains(&key.code))
        );
    }

    #[test]
    fn names_take_any_case() {
        assert_eq!(named("Delete"), Some(extended(0x53)));
        assert_eq!(named("F2"), Some(plain(0x3c)));
        assert_eq!(named("hyper"), None);
    }
}
