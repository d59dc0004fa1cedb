//! Where bytes go to or come from: listeners, the serial port's other end, sockets.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The text names no place that bytes can go to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Not a [`Listen`].
    #[error(
        "{0:?} is not a listener such as \"127.0.0.1:5900\", \"[::1]:5900\" or \"unix:desk.spice\""
    )]
    Listen(String),
    /// Not a [`SerialTo`].
    #[error("{0:?} is not one of \"stdio\", \"none\", \"file:PATH\" or \"unix:PATH\"")]
    Serial(String),
    /// Not a [`UnixSocket`].
    #[error("{0:?} is not a socket such as \"unix:guest.sock\"")]
    Unix(String),
    /// Not a [`ChannelTo`].
    #[error("{0:?} is not one of \"spice-agent\", \"guest-agent\", \"unix:PATH\" or \"file:PATH\"")]
    Channel(String),
}

/// The path after `prefix`, if there is one.
fn path_after(text: &str, prefix: &str) -> Option<PathBuf> {
    text.strip_prefix(prefix)
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
}

/// Lets serde read and write a type by its text.
macro_rules! by_text {
    ($type:ty) => {
        impl TryFrom<String> for $type {
            type Error = EndpointError;

            fn try_from(text: String) -> Result<Self, EndpointError> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.to_string()
            }
        }
    };
}

/// Where a server waits for clients: `"127.0.0.1:5900"`, `"localhost:5900"`, `"[::1]:5900"` or
/// `"unix:PATH"`. Port 0 takes any free port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub enum Listen {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl FromStr for Listen {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let local_host = || {
            let port = text.strip_prefix("localhost:")?.parse().ok()?;
            Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))
        };
        path_after(text, "unix:")
            .map(Self::Unix)
            .or_else(|| text.parse().ok().or_else(local_host).map(Self::Tcp))
            .ok_or_else(|| EndpointError::Listen(text.to_owned()))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

by_text!(Listen);

/// Where a serial port's bytes go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub enum SerialTo {
    /// The terminal, or whatever standard input and output are.
    Stdio,
    /// Nowhere.
    None,
    /// A file, written anew.
    File(PathBuf),
    /// A Unix socket.
    Unix(PathBuf),
}

impl FromStr for SerialTo {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        match text {
            "stdio" => Ok(Self::Stdio),
            "none" => Ok(Self::None),
            _ => path_after(text, "file:")
                .map(Self::File)
                .or_else(|| path_after(text, "unix:").map(Self::Unix))
                .ok_or_else(|| EndpointError::Serial(text.to_owned())),
        }
    }
}

impl fmt::Display for SerialTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdio => f.write_str("stdio"),
            Self::None => f.write_str("none"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

by_text!(SerialTo);

/// A Unix socket, written `"unix:PATH"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct UnixSocket(pub PathBuf);

impl FromStr for UnixSocket {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        path_after(text, "unix:")
            .map(Self)
            .ok_or_else(|| EndpointError::Unix(text.to_owned()))
    }
}

impl fmt::Display for UnixSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unix:{}", self.0.display())
    }
}

by_text!(UnixSocket);

/// The other end of a virtio console port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub enum ChannelTo {
    /// The SPICE main channel's agent.
    SpiceAgent,
    /// The API's `agent.command`.
    GuestAgent,
    /// A Unix socket.
    Unix(PathBuf),
    /// A file, written anew.
    File(PathBuf),
}

impl FromStr for ChannelTo {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        match text {
            "spice-agent" => Ok(Self::SpiceAgent),
            "guest-agent" => Ok(Self::GuestAgent),
            _ => path_after(text, "unix:")
                .map(Self::Unix)
                .or_else(|| path_after(text, "file:").map(Self::File))
                .ok_or_else(|| EndpointError::Channel(text.to_owned())),
        }
    }
}

impl fmt::Display for ChannelTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SpiceAgent => f.write_str("spice-agent"),
            Self::GuestAgent => f.write_str("guest-agent"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

by_text!(ChannelTo);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_survive_text() {
        for text in ["127.0.0.1:5900", "[::1]:0", "unix:/run/desk.spice"] {
            let listen: Listen = text.parse().unwrap();

            assert_eq!(listen.to_string(), text);
        }
    }

    #[test]
    fn the_local_host_has_a_name() {
        let listen: Listen = "localhost:5900".parse().unwrap();

        assert_eq!(listen.to_string(), "127.0.0.1:5900");
    }

    #[test]
    fn a_listener_needs_a_port_or_a_path() {
        for text in ["127.0.0.1", "unix:", "5900", "host.example:5900", ""] {
            assert!(text.parse::<Listen>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn serial_ends_survive_text() {
        for text in ["stdio", "none", "file:log", "unix:/run/s"] {
            let to: SerialTo = text.parse().unwrap();

            assert_eq!(to.to_string(), text);
        }
    }
}
