//! Where a server listens, as people write it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A place to listen: `HOST:PORT`, `[IPV6]:PORT` or `unix:PATH`.
///
/// ```
/// use caraway_spice::ListenAddress;
///
/// let address: ListenAddress = "127.0.0.1:5900".parse()?;
/// assert_eq!(address.to_string(), "127.0.0.1:5900");
/// assert!("5900".parse::<ListenAddress>().is_err());
/// # Ok::<(), caraway_spice::AddressError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ListenAddress {
    /// A TCP port.
    Tcp {
        /// A name or an address; IPv6 without brackets.
        host: String,
        /// The port; 0 lets the system choose a free one.
        port: u16,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

/// Why a text is not a [`ListenAddress`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Neither form.
    #[error("{0:?} is no listen address; write HOST:PORT (127.0.0.1:5900) or unix:PATH")]
    Form(String),
    /// The host is missing.
    #[error("{0:?} names no host; write 127.0.0.1{0} for this machine only, 0.0.0.0{0} for all")]
    NoHost(String),
    /// The port is not a number from 0 to 65535.
    #[error("{port:?} in {address:?} is no port; write a number from 0 (any free one) to 65535")]
    Port {
        /// The whole text.
        address: String,
        /// What stands for the port.
        port: String,
    },
    /// An IPv6 address without brackets.
    #[error("the IPv6 address in {0:?} needs brackets: [ADDRESS]:PORT")]
    Brackets(String),
    /// `unix:` without a path.
    #[error("unix: needs the path of a socket after it")]
    NoPath,
    /// A Unix socket's path that the system cannot take.
    #[error("the socket path {path:?} has {length} bytes; the system allows {MAX_PATH}", path = .0, length = .0.as_os_str().len())]
    LongPath(PathBuf),
}

/// Bytes that the path of a Unix socket may have: `sun_path` less its terminating zero.
pub(crate) const MAX_PATH: usize = 107;

impl FromStr for ListenAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            if path.is_empty() {
                return Err(AddressError::NoPath);
            }
            let path = PathBuf::from(path);
            if path.as_os_str().len() > MAX_PATH {
                return Err(AddressError::LongPath(path));
            }
            return Ok(Self::Unix(path));
        }
        let (host, port) = text
            .rsplit_once(':')
            .ok_or_else(|| AddressError::Form(text.to_owned()))?;
        let host = match host.strip_prefix('[') {
            Some(rest) => rest
                .strip_suffix(']')
                .ok_or_else(|| AddressError::Form(text.to_owned()))?,
            None if host.contains(':') => return Err(AddressError::Brackets(text.to_owned())),
            None => host,
        };
        if host.is_empty() {
            return Err(AddressError::NoHost(text.to_owned()));
        }
        let number = port
            .parse()
            .ok()
            .filter(|_| port.bytes().all(|b| b.is_ascii_digit()));
        let port = number.ok_or_else(|| AddressError::Port {
            address: text.to_owned(),
            port: port.to_owned(),
        })?;
        Ok(Self::Tcp {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl TryFrom<String> for ListenAddress {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<ListenAddress> for String {
    fn from(address: ListenAddress) -> Self {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_addresses_survive_a_round_trip() {
        for text in [
            "127.0.0.1:5900",
            "localhost:0",
            "[::1]:65535",
            "unix:a/b.sock",
        ] {
            let address: ListenAddress = text.parse().expect("it is well formed");
            assert_eq!(address.to_string(), text);
            let json = serde_json::to_string(&address).expect("it serializes");
            assert_eq!(json, format!("{text:?}"));
            assert_eq!(
                serde_json::from_str::<ListenAddress>(&json).ok(),
                Some(address)
            );
        }
    }

    #[test]
    fn each_mistake_has_its_error() {
        let error = |text: &str| text.parse::<ListenAddress>().expect_err("it is wrong");
        assert!(matches!(error("5900"), AddressError::Form(_)));
        assert!(matches!(error("[::1"), AddressError::Form(_)));
        assert!(matches!(error(":5900"), AddressError::NoHost(_)));
        assert!(matches!(error("::1:5900"), AddressError::Brackets(_)));
        assert!(matches!(error("localhost:+1"), AddressError::Port { .. }));
        assert!(matches!(
            error("localhost:70000"),
            AddressError::Port { .. }
        ));
        assert!(matches!(error("localhost:"), AddressError::Port { .. }));
        assert!(matches!(error("unix:"), AddressError::NoPath));
        let long = error(&format!("unix:{}", "x".repeat(108)));
        assert!(long.to_string().contains("108 bytes"), "{long}");
    }
}
