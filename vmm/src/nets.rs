//! The machine's network cards, as the API has them.

use caraway_virtio::net::{Limits, Traffic};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::config::net::{FlowLimits, MacAddress};
use crate::machine::NetCard;

/// All network cards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetList {
    /// In the order of the config.
    pub nets: Vec<NetInfo>,
}

/// A network card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetInfo {
    /// Its id in the config.
    pub id: String,
    /// The Ethernet address that the guest uses: `52:54:00:12:34:56`.
    #[schema(value_type = String)]
    pub mac: MacAddress,
    /// Whether its cable is in, and both ends of it are there.
    pub up: bool,
    /// What the guest received.
    pub receive: FlowInfo,
    /// What the guest sent.
    pub transmit: FlowInfo,
}

/// What passes a network card in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FlowInfo {
    /// Frames that passed.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Frames that were thrown away.
    pub drops: u64,
    /// How much may pass.
    pub limits: FlowLimits,
}

impl FlowInfo {
    fn new(traffic: Traffic, limits: Limits) -> Self {
        let Traffic {
            packets,
            bytes,
            drops,
        } = traffic;
        Self {
            packets,
            bytes,
            drops,
            limits: limits.into(),
        }
    }
}

impl From<&NetCard> for NetInfo {
    fn from(card: &NetCard) -> Self {
        let device = card.device();
        let (received, transmitted) = device.counters();
        let (receive, transmit) = device.limits();
        Self {
            id: card.id().to_owned(),
            mac: MacAddress(device.mac()),
            up: device.is_link_up(),
            receive: FlowInfo::new(received.read(), receive),
            transmit: FlowInfo::new(transmitted.read(), transmit),
        }
    }
}

/// A cable to be put in or pulled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LinkChange {
    /// The card's id.
    pub id: String,
    /// Whether the cable is to be in.
    pub up: bool,
}

/// Other limits for a card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitChange {
    /// The card's id.
    pub id: String,
    /// All limits of what the guest receives, `{}` for none; as they are if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receive: Option<FlowLimits>,
    /// All limits of what the guest sends, `{}` for none; as they are if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transmit: Option<FlowLimits>,
}
