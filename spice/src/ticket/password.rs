//! The secret of a ticket.

use std::fmt;

use rand::Rng;
use zeroize::Zeroizing;

/// Bytes of a password at most (`SPICE_MAX_PASSWORD_LENGTH`).
pub(super) const MAX_LEN: usize = 60;
/// Letters and digits that nobody takes for each other.
const ALPHABET: &[u8; 32] = b"23456789abcdefghijkmnpqrstuvwxyz";
/// Characters of a password that is made here, of five bits each.
const GENERATED_LEN: usize = 26;

/// A password. Never shown by `Debug`; overwritten when dropped.
#[derive(Clone)]
pub struct Password(Zeroizing<String>);

/// Why a text cannot be a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Too long for the protocol.
    #[error("the password has {0} bytes; SPICE allows {MAX_LEN}")]
    TooLong(usize),
    /// A zero byte ends a password on the wire.
    #[error("the password contains a zero byte")]
    Zero,
}

impl Password {
    /// Takes `text` as the password. An empty one is legal, and then is what clients send that were
    /// given none.
    ///
    /// # Errors
    ///
    /// If it is longer than 60 bytes or contains a zero byte.
    pub fn new(text: &str) -> Result<Self, PasswordError> {
        if text.len() > MAX_LEN {
            return Err(PasswordError::TooLong(text.len()));
        }
        if text.contains('\0') {
            return Err(PasswordError::Zero);
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    /// A new one that nobody can guess: 26 letters and digits, 130 bits.
    #[must_use]
    pub fn generate() -> Self {
        let mut random = rand::thread_rng();
        let letters = std::iter::repeat_with(|| {
            let index = random.gen_range(0..ALPHABET.len());
            char::from(ALPHABET[index])
        });
        // With its room reserved, it does not move and leave a copy behind.
        let mut text = Zeroizing::new(String::with_capacity(GENERATED_LEN));
        text.extend(letters.take(GENERATED_LEN));
        Self(text)
    }

    /// The text, for whoever must tell it to a person.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(hidden)")
    }
}

/// The password in a decrypted ticket: what is before the zero that ends it. Some clients send
/// everything after the zero too. `None` if it is none.
pub(super) fn in_ticket(plain: &[u8]) -> Option<&[u8]> {
    let Some((0, text)) = plain.split_last() else {
        return None;
    };
    let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
    (text.len() <= MAX_LEN).then_some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sixty_bytes_are_the_limit() {
        assert!(Password::new(&"x".repeat(60)).is_ok());
        assert_eq!(
            Password::new(&"x".repeat(61)).err(),
            Some(PasswordError::TooLong(61))
        );
    }

    #[test]
    fn a_zero_is_refused() {
        assert_eq!(Password::new("a\0b").err(), Some(PasswordError::Zero));
    }

    #[test]
    fn debug_does_not_tell() {
        let password = Password::new("secret").expect("it is short");
        assert!(!format!("{password:?}").contains("secret"));
    }

    #[test]
    fn no_two_generated_ones_are_the_same() {
        let (one, two) = (Password::generate(), Password::generate());
        assert_eq!(one.reveal().len(), GENERATED_LEN);
        assert_ne!(one.reveal(), two.reveal());
    }

    #[test]
    fn a_ticket_ends_with_a_zero() {
        for (plain, password) in [
            (b"secret\0".as_slice(), Some(b"secret".as_slice())),
            (b"\0", Some(b"")),
            (b"secret\0junk\0", Some(b"secret")),
            (b"secret", None),
            (b"secret\0junk", None),
            (b"", None),
        ] {
            assert_eq!(in_ticket(plain), password, "{plain:?}");
        }
    }

    proptest! {
        #[test]
        fn any_ticket_is_read_without_panic(plain in prop::collection::vec(any::<u8>(), 0..128)) {
            if let Some(password) = in_ticket(&plain) {
                prop_assert!(password.len() <= MAX_LEN && !password.contains(&0));
            }
        }
    }
}
