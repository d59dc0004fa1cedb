//! What a program of the host says first: `CONNECT PORT`, a line.

/// The most bytes that a greeting is looked for in.
pub(super) const MOST: usize = 32;

/// What the first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Greeting {
    /// Not all of it is there.
    More,
    /// It is none.
    Nonsense,
    /// To be connected to this port of the guest's.
    Connect {
        port: u32,
        /// Bytes of the greeting; what follows is for the guest.
        len: usize,
    },
}

impl Greeting {
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let Some(end) = bytes.iter().take(MOST).position(|byte| *byte == b'\n') else {
            return match bytes.len() {
                0..MOST => Self::More,
                _ => Self::Nonsense,
            };
        };
        let line = std::str::from_utf8(&bytes[..end]).unwrap_or_default();
        let line = line.strip_suffix('\r').unwrap_or(line);
        let port = line
            .strip_prefix("CONNECT ")
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        match port.and_then(|digits| digits.parse().ok()) {
            Some(port) => Self::Connect { port, len: end + 1 },
            None => Self::Nonsense,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_may_come_byte_by_byte_with_data_behind_it() {
        let text = b"CONNECT 1024\nhello";

        for len in 0..12 {
            assert_eq!(Greeting::parse(&text[..len]), Greeting::More);
        }
        let connect = Greeting::Connect {
            port: 1024,
            len: 13,
        };
        assert_eq!(Greeting::parse(text), connect);
    }

    #[test]
    fn every_port_can_be_named() {
        let greeting = Greeting::parse(b"CONNECT 4294967295\n");

        assert!(matches!(greeting, Greeting::Connect { port: u32::MAX, .. }));
    }

    #[test]
    fn what_is_no_greeting_is_refused() {
        for text in [
            "CONNECT\n",
            "CONNECT \n",
            "CONNECT 4294967296\n",
            "CONNECT +5\n",
            "connect 5\n",
            "\n",
            "CONNECT 0000000000000000000000000000005\n",
            "GET / HTTP/1.1 and so on and so forth",
            "\u{fffd}\n",
        ] {
            assert_eq!(Greeting::parse(text.as_bytes()), Greeting::Nonsense);
        }
    }
}
