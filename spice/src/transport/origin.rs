//! Which web pages may open a connection.
//!
//! Browsers let any page of any site open a WebSocket to any address that the person's computer
//! reaches, and leave it to the server to look at `Origin` (RFC 6455, 10.2). Without that, a page
//! somewhere could type into a machine on the reader's own loopback.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where a page comes from: `https://desks.example` or `https://desks.example:8443`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Origin(String);

/// The text is no [`Origin`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no origin of web pages; write SCHEME://HOST or SCHEME://HOST:PORT, with nothing after it"
)]
pub struct OriginError(String);

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-.:[]".contains(c);
        let authority = ["http://", "https://"]
            .iter()
            .find_map(|scheme| text.strip_prefix(scheme));
        authority
            .filter(|authority| !authority.is_empty() && authority.chars().all(plain))
            .map(|_| Self(text.to_ascii_lowercase()))
            .ok_or_else(|| OriginError(text.to_owned()))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Origin {
    type Error = OriginError;

    fn try_from(text: String) -> Result<Self, OriginError> {
        text.parse()
    }
}

impl From<Origin> for String {
    fn from(origin: Origin) -> Self {
        origin.0
    }
}

/// Whether a page of `origin` may connect to what it calls `host` (the `Host` of its request): if it
/// comes from there too, whatever its port, or if it is one of `allowed`.
pub(super) fn may_connect(origin: &str, host: &str, allowed: &[Origin]) -> bool {
    let Ok(origin) = origin.parse::<Origin>() else {
        // `null`, which is a file or a sandboxed frame, and anything odd.
        return false;
    };
    let of_page = origin.0.split("://").nth(1).unwrap_or_default();
    allowed.contains(&origin) || same_host(host_name(of_page), host_name(host))
}

/// The host of `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`, without brackets; empty if it is none
/// of them, such as `[HOST]ANOTHER`.
pub(super) fn host_name(authority: &str) -> &str {
    match authority.strip_prefix('[') {
        Some(rest) => rest
            .split_once(']')
            .filter(|(_, after)| after.is_empty() || after.starts_with(':'))
            .map_or("", |(host, _)| host),
        None => authority.split(':').next().unwrap_or_default(),
    }
}

fn same_host(a: &str, b: &str) -> bool {
    !a.is_empty() && a.eq_ignore_ascii_case(b) || is_loopback(a) && is_loopback(b)
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_in_brackets_with_another_behind_it_is_neither() {
        for (origin, host) in [
            ("https://[desk]evil.example:5900", "desk:5900"),
            ("https://[desk", "desk:5900"),
            ("https://[]evil.example", ""),
        ] {
            assert!(!may_connect(origin, host, &[]), "{origin} to {host}");
        }
    }

    #[test]
    fn a_page_of_the_same_host_may_connect_whatever_its_port() {
        for (origin, host) in [
            ("http://desk.example", "desk.example:5900"),
            ("https://Desk.example:8443", "desk.example:5900"),
            ("http://127.0.0.1:8000", "localhost:5900"),
            ("http://[::1]:5900", "[::1]:5900"),
            ("http://[::1]", "127.0.0.1:5900"),
        ] {
            assert!(may_connect(origin, host, &[]), "{origin} {host}");
        }
    }

    #[test]
    fn a_page_from_elsewhere_may_not() {
        for (origin, host) in [
            ("https://evil.example", "127.0.0.1:5900"),
            ("https://evil.example", "desk.example:5900"),
            ("https://desk.example.evil.example", "desk.example:5900"),
            ("https://evil.example#desk.example", "desk.example:5900"),
            ("https://desk.example@evil.example", "desk.example:5900"),
            ("null", "127.0.0.1:5900"),
            ("null", "null"),
            ("", ""),
        ] {
            assert!(!may_connect(origin, host, &[]), "{origin} {host}");
        }
    }

    #[test]
    fn a_page_that_is_named_may_connect_from_anywhere() {
        let portal = "https://portal.example:8443".parse::<Origin>().into_iter();
        let allowed: Vec<_> = portal.collect();

        assert!(may_connect(
            "https://portal.example:8443",
            "10.0.0.1:5900",
            &allowed
        ));
        assert!(!may_connect(
            "http://portal.example:8443",
            "10.0.0.1:5900",
            &allowed
        ));
        assert!(!may_connect(
            "https://portal.example",
            "10.0.0.1:5900",
            &allowed
        ));
    }

    #[test]
    fn an_origin_has_no_path() {
        for text in [
            "portal.example",
            "https://portal.example/",
            "https://",
            "*",
            "ftp://x",
        ] {
            assert!(text.parse::<Origin>().is_err(), "{text}");
        }
    }
}
