//! `net.*` from the shell.

use clap::{Args, ValueEnum};
use serde_json::json;

use super::{Request, Show, put};
use crate::config::limit::Limit;
use crate::config::net::FlowLimits;
use crate::config::units::{Size, UnitError};
use crate::nets::{LimitChange, LinkChange};

/// A card, and where its cable is to be.
#[derive(Debug, Args)]
pub(super) struct Link {
    /// The card's id.
    id: String,
    /// Whether the cable is in.
    #[arg(value_enum)]
    state: LinkState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LinkState {
    Up,
    Down,
}

/// A card, and what may pass it.
#[derive(Debug, Args)]
pub(super) struct Limits {
    /// The card's id.
    id: String,
    /// Bytes a second that the guest receives, with the burst after `:` if it is not a tenth of that;
    /// `none` lifts the limit.
    #[arg(long, value_name = "RATE[:BURST]")]
    receive_bytes: Option<Wish>,
    /// Frames a second that the guest receives.
    #[arg(long, value_name = "RATE[:BURST]")]
    receive_packets: Option<Wish>,
    /// Bytes a second that the guest sends.
    #[arg(long, value_name = "RATE[:BURST]")]
    transmit_bytes: Option<Wish>,
    /// Frames a second that the guest sends.
    #[arg(long, value_name = "RATE[:BURST]")]
    transmit_packets: Option<Wish>,
}

/// A limit, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wish(Option<Limit>);

impl std::str::FromStr for Wish {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        if text == "none" {
            return Ok(Self(None));
        }
        let (rate, burst) = match text.split_once(':') {
            Some((rate, burst)) => (rate, Some(burst.parse::<Size>()?)),
            None => (text, None),
        };
        let rate = rate.parse()?;
        Ok(Self(Some(Limit { rate, burst })))
    }
}

impl Link {
    pub(super) fn request(self) -> Request {
        let change = LinkChange {
            id: self.id,
            up: self.state == LinkState::Up,
        };
        Request {
            show: Show::Json,
            ..put("net.link", Some(json!(change)))
        }
    }
}

impl Limits {
    pub(super) fn request(self) -> Request {
        // A direction of which nothing is said stays as it is.
        let flow = |bytes: Option<Wish>, packets: Option<Wish>| {
            (bytes.is_some() || packets.is_some()).then(|| FlowLimits {
                bytes: bytes.and_then(|wish| wish.0),
                packets: packets.and_then(|wish| wish.0),
            })
        };
        let change = LimitChange {
            id: self.id,
            receive: flow(self.receive_bytes, self.receive_packets),
            transmit: flow(self.transmit_bytes, self.transmit_packets),
        };
        Request {
            show: Show::Json,
            ..put("net.limit", Some(json!(change)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_has_a_rate_and_perhaps_a_burst() {
        let limit = |rate, burst: Option<u64>| {
            let (rate, burst) = (Size(rate), burst.map(Size));
            Ok(Wish(Some(Limit { rate, burst })))
        };

        assert_eq!("1K".parse(), limit(1024, None));
        assert_eq!("1K:2K".parse(), limit(1024, Some(2048)));
        assert_eq!("none".parse(), Ok(Wish(None)));
        assert!("fast".parse::<Wish>().is_err());
    }
}
