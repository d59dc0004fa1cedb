//! Who may connect.

use std::fmt;

use subtle::ConstantTimeEq;

/// Bytes of a password at most (`SPICE_MAX_PASSWORD_LENGTH`).
const MAX_LEN: usize = 60;

/// What a client must know to connect.
#[derive(Debug, Clone, Default)]
pub enum Auth {
    /// Nothing: whoever reaches the socket is let in. The ticket is not even decrypted.
    #[default]
    None,
    /// This password, on every channel.
    Password(Password),
}

/// A password. Never shown by `Debug`.
#[derive(Clone)]
pub struct Password {
    /// Padded with zeros, so that the time of a comparison does not depend on the length.
    padded: [u8; MAX_LEN + 1],
}

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
        let mut padded = [0; MAX_LEN + 1];
        padded[..text.len()].copy_from_slice(text.as_bytes());
        Ok(Self { padded })
    }

    /// Whether a decrypted ticket is this password and a zero. The time depends only on the
    /// ticket's length.
    pub(crate) fn matches(&self, ticket: &[u8]) -> bool {
        let Some((0, text)) = ticket.split_last() else {
            return false;
        };
        // Some clients send everything after the zero too; the password ends at the first.
        let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
        if text.len() > MAX_LEN {
            return false;
        }
        let mut padded = [0; MAX_LEN + 1];
        padded[..text.len()].copy_from_slice(text);
        bool::from(padded.ct_eq(&self.padded))
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_password_with_its_zero_matches() {
        let password = Password::new("secret").expect("it is short");
        assert!(password.matches(b"secret\0"));
        for wrong in [
            b"secret".as_slice(),
            b"",
            b"\0",
            b"secre\0",
            b"secrets\0",
            b"Secret\0",
        ] {
            assert!(!password.matches(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn sixty_bytes_are_the_limit() {
        let longest = "x".repeat(60);
        let password = Password::new(&longest).expect("it is just short enough");
        assert!(password.matches(format!("{longest}\0").as_bytes()));
        assert!(!password.matches(format!("{longest}x\0").as_bytes()));
        assert_eq!(
            Password::new(&"x".repeat(61)).err(),
            Some(PasswordError::TooLong(61))
        );
    }

    #[test]
    fn debug_does_not_tell() {
        let auth = Auth::Password(Password::new("secret").expect("it is short"));
        assert!(!format!("{auth:?}").contains("secret"));
    }

    proptest! {
        #[test]
        fn any_ticket_is_compared_without_panic(ticket in prop::collection::vec(any::<u8>(), 0..128)) {
            let password = Password::new("secret").expect("it is short");
            prop_assert_eq!(password.matches(&ticket), ticket.starts_with(b"secret\0") && ticket.ends_with(b"\0"));
        }
    }
}
