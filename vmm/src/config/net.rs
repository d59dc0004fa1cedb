//! `nets`: network cards, and what they are joined to.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::str::FromStr;

use caraway_devices::pci::PciAddress;
use caraway_virtio::net::Limits;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::endpoint::UnixSocket;
use super::limit::Limit;
use super::path::JsonPath;
use super::problem::Problem;

/// A virtio network card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Net {
    /// Names the device; `"net0"`, `"net1"`, … if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// PCI address; the next free one if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub address: Option<PciAddress>,
    /// The host's tap interface, which must be there: its name, or the descriptor of an open one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tap: Option<TapRef>,
    /// A network that needs no rights: what the guest sends becomes sockets of this user's, by the program
    /// `passt`, which is started with the machine and ends with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<User>,
    /// `"unix:PATH"`, the socket of a `passt` that runs already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passt: Option<UnixSocket>,
    /// Ethernet address, `"52:54:00:12:34:56"`; made from the machine's identity and the card's id if
    /// not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddress>,
    /// The longest packet of the network in bytes, 68 to 65535, for the guest to keep to; the guest is
    /// told nothing if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 68, max = 65535))]
    pub mtu: Option<u32>,
    /// Pairs of queues, 1 to 8, of a tap that was made with `multi_queue` if more than 1; 1 if not
    /// given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 8))]
    pub queues: Option<u32>,
    /// How much may pass; everything if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<NetLimits>,
}

/// A tap of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "neither a tap's name such as \"tap0\" nor { \"fd\": 3 }"
)]
pub enum TapRef {
    /// The interface's name.
    Name(String),
    /// One that whoever starts the machine has opened, with `IFF_TAP`, `IFF_NO_PI` and
    /// `IFF_VNET_HDR`.
    Descriptor(TapDescriptor),
}

/// An open tap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TapDescriptor {
    /// The descriptor's number, 3 or more.
    #[schemars(range(min = 3))]
    pub fd: RawFd,
}

/// A network that needs no rights.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Ports of the host that lead to the guest; none if not given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forwards: Vec<Forward>,
    /// Whether the guest reaches the host's own services, those that listen on its loopback address alone
    /// included, at the address of its gateway; `false` if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_access: Option<bool>,
}

/// A port of the host that leads to the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Forward {
    /// `"tcp"` or `"udp"`; `"tcp"` if not given.
    #[serde(default)]
    pub protocol: Protocol,
    /// Where the host listens: `"127.0.0.1:2222"`, or `"0.0.0.0:2222"` for everybody.
    #[schemars(with = "String")]
    pub host: SocketAddr,
    /// The guest's port.
    #[schemars(range(min = 1))]
    pub guest: u16,
}

impl Forward {
    /// What no other card can have.
    #[must_use]
    pub fn claim(&self) -> String {
        format!("{} port {}", self.protocol, self.host)
    }
}

/// What a port is one of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// How much may pass a network card in each direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NetLimits {
    /// Of what the guest receives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receive: Option<FlowLimits>,
    /// Of what the guest sends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transmit: Option<FlowLimits>,
}

/// How much may pass in one direction.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema, ToSchema,
)]
#[serde(deny_unknown_fields)]
pub struct FlowLimits {
    /// Bytes of frames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Limit>,
    /// Frames; one that is still to be cut into segments counts once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets: Option<Limit>,
}

impl FlowLimits {
    /// The limits with their defaults filled in.
    ///
    /// # Errors
    /// One of their values, which are at `place`, is 0.
    pub fn check(self, place: &JsonPath) -> Result<Limits, Box<Problem>> {
        let rate = |limit: Option<Limit>, key: &str| {
            let checked = limit.map(|limit| limit.check(&place.then(key)));
            checked.transpose()
        };
        Ok(Limits {
            bytes: rate(self.bytes, "bytes")?,
            packets: rate(self.packets, "packets")?,
        })
    }
}

impl From<Limits> for FlowLimits {
    fn from(limits: Limits) -> Self {
        Self {
            bytes: limits.bytes.map(Limit::from),
            packets: limits.packets.map(Limit::from),
        }
    }
}

/// An Ethernet address of one station.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("pattern" = r"^([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}$"))]
pub struct MacAddress(pub [u8; 6]);

/// The text is not the address of a station.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MacError {
    /// Not six bytes.
    #[error("{0:?} is not an Ethernet address such as \"52:54:00:12:34:56\"")]
    Form(String),
    /// The address of a group.
    #[error("{0:?} is the address of a group, not of a card: its first byte is odd")]
    Group(String),
}

impl MacAddress {
    /// That of the card `id` of a machine: always the same, and locally administered.
    #[must_use]
    pub fn of(machine: Uuid, id: &str) -> Self {
        let hash = Uuid::new_v5(&machine, format!("net:{id}").as_bytes()).into_bytes();
        let mut mac = [0; 6];
        mac.copy_from_slice(&hash[..6]);
        mac[0] = mac[0] & !1 | 2;
        Self(mac)
    }
}

impl FromStr for MacAddress {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let bytes = text.split(':').map(|part| {
            let plain = part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
            plain.then(|| u8::from_str_radix(part, 16).ok()).flatten()
        });
        let bytes: Option<Vec<u8>> = bytes.collect();
        let mac = bytes.and_then(|bytes| <[u8; 6]>::try_from(bytes).ok());
        let mac = mac.ok_or_else(|| MacError::Form(text.to_owned()))?;
        match mac[0] & 1 {
            0 => Ok(Self(mac)),
            _ => Err(MacError::Group(text.to_owned())),
        }
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl TryFrom<String> for MacAddress {
    type Error = MacError;

    fn try_from(text: String) -> Result<Self, MacError> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(mac: MacAddress) -> Self {
        mac.to_string()
    }
}

/// A network card, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetSpec {
    /// Its id.
    pub id: String,
    /// Its PCI address.
    pub address: PciAddress,
    /// Its Ethernet address.
    pub mac: MacAddress,
    /// The longest packet in bytes, if the guest is told.
    pub mtu: Option<u16>,
    /// Pairs of queues.
    pub queues: u16,
    /// Limits of what the guest receives.
    pub receive: Limits,
    /// Limits of what the guest sends.
    pub transmit: Limits,
    /// What it is joined to.
    pub to: NetTo,
}

/// What a network card is joined to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetTo {
    /// A tap of this name.
    Tap(String),
    /// An open tap.
    TapFd(RawFd),
    /// A `passt` that is started for it.
    User(UserSpec),
    /// The socket of a `passt` that runs.
    Passt(PathBuf),
}

impl NetTo {
    /// What no other card can have.
    #[must_use]
    pub fn claims(&self) -> Vec<String> {
        match self {
            Self::User(user) => user.forwards.iter().map(Forward::claim).collect(),
            _ => vec![self.to_string()],
        }
    }
}

/// A network that needs no rights, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserSpec {
    /// Ports of the host that lead to the guest.
    pub forwards: Vec<Forward>,
    /// Whether the guest reaches the host's own services.
    pub host_access: bool,
}

impl fmt::Display for NetTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tap(name) => write!(f, "tap {name}"),
            Self::TapFd(fd) => write!(f, "tap of descriptor {fd}"),
            Self::User(user) => {
                f.write_str("user mode")?;
                for Forward {
                    protocol,
                    host,
                    guest,
                } in &user.forwards
                {
                    write!(f, ", {protocol} {host} to {guest}")?;
                }
                Ok(())
            }
            Self::Passt(path) => write!(f, "passt at {}", path.display()),
        }
    }
}

impl NetSpec {
    /// As the config would say it.
    #[must_use]
    pub fn to_config(&self) -> Net {
        let limits = |limits: Limits| (limits != Limits::default()).then(|| limits.into());
        let (receive, transmit) = (limits(self.receive), limits(self.transmit));
        let (mut tap, mut user, mut passt) = (None, None, None);
        match &self.to {
            NetTo::Tap(name) => tap = Some(TapRef::Name(name.clone())),
            NetTo::TapFd(fd) => tap = Some(TapRef::Descriptor(TapDescriptor { fd: *fd })),
            NetTo::User(spec) => {
                user = Some(User {
                    forwards: spec.forwards.clone(),
                    host_access: Some(spec.host_access),
                });
            }
            NetTo::Passt(path) => passt = Some(UnixSocket(path.clone())),
        }
        Net {
            id: Some(self.id.clone()),
            address: Some(self.address),
            tap,
            user,
            passt,
            mac: Some(self.mac),
            mtu: self.mtu.map(u32::from),
            queues: Some(self.queues.into()),
            limits: (receive.is_some() || transmit.is_some())
                .then_some(NetLimits { receive, transmit }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_its_text() {
        let mac: MacAddress = "52:54:00:12:AB:56".parse().unwrap();

        assert_eq!(mac.to_string(), "52:54:00:12:ab:56");
    }

    #[test]
    fn what_is_no_stations_address_is_refused() {
        for text in [
            "",
            "52:54:00:12:34",
            "52:54:00:12:34:5g",
            "52-54-00-12-34-56",
            "+2:54:00:12:34:56",
        ] {
            assert!(
                matches!(text.parse::<MacAddress>(), Err(MacError::Form(_))),
                "{text}"
            );
        }
        let group = "01:00:5e:00:00:01".parse::<MacAddress>();
        assert!(matches!(group, Err(MacError::Group(_))));
    }

    #[test]
    fn a_made_address_is_the_same_each_time_and_nobody_elses() {
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));

        let mac = MacAddress::of(one, "net0");

        assert_eq!(mac, MacAddress::of(one, "net0"));
        assert_ne!(mac, MacAddress::of(one, "net1"));
        assert_ne!(mac, MacAddress::of(other, "net0"));
        assert_eq!(mac.0[0] & 3, 2);
    }
}
