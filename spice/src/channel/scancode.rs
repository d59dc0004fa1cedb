//! Keys as clients send them: bytes of scancode set 1.

use crate::input::Key;

/// Announces a key of the extended block.
const EXTENDED: u8 = 0xe0;
/// Announces the two bytes of the Pause key.
const PAUSE: u8 = 0xe1;
/// Set in the byte of a key that goes up.
const BREAK: u8 = 0x80;

/// The keys in `bytes`, and whether each goes down. Bytes that make no key are left out.
pub(super) fn keys(bytes: &[u8]) -> impl Iterator<Item = (Key, bool)> {
    let mut bytes = bytes.iter().copied();
    std::iter::from_fn(move || {
        loop {
            let first = bytes.next()?;
            let (key, last) = match first {
                EXTENDED => {
                    let code = bytes.next()?;
                    (
                        Key {
                            code: code & !BREAK,
                            extended: true,
                        },
                        code,
                    )
                }
                PAUSE => {
                    bytes.next()?;
                    (Key::PAUSE, bytes.next()?)
                }
                code => (
                    Key {
                        code: code & !BREAK,
                        extended: false,
                    },
                    code,
                ),
            };
            if key.code != 0 && last != EXTENDED && last != PAUSE {
                return Some((key, last & BREAK == 0));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(bytes: &[u8]) -> Vec<(Key, bool)> {
        keys(bytes).collect()
    }

    const fn plain(code: u8) -> Key {
        Key {
            code,
            extended: false,
        }
    }

    #[test]
    fn plain_extended_and_pause_keys_are_told_apart() {
        assert_eq!(
            decode(&[0x1c, 0x9c]),
            [(plain(0x1c), true), (plain(0x1c), false)]
        );
        let up = Key {
            code: 0x48,
            extended: true,
        };
        assert_eq!(decode(&[0xe0, 0x48, 0xe0, 0xc8]), [(up, true), (up, false)]);
        let pause = [(Key::PAUSE, true), (Key::PAUSE, false)];
        assert_eq!(decode(&[0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5]), pause);
    }

    #[test]
    fn padding_and_halves_of_keys_are_no_keys() {
        assert_eq!(decode(&[0x1e, 0, 0, 0]), [(plain(0x1e), true)]);
        assert_eq!(decode(&[0xe0]), []);
        assert_eq!(decode(&[0xe1, 0x1d]), []);
    }

    proptest! {
        #[test]
        fn every_key_has_a_legal_code(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            for (key, _) in keys(&bytes) {
                prop_assert!((1..0x80).contains(&key.code));
            }
        }
    }
}
