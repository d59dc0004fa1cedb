//! What joins the guest to the outside: `nets`, `serial`, `channels`.

use caraway_devices::pci::PciAddress;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::endpoint::{ChannelTo, SerialTo};

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
    /// Name of the host's tap interface.
    pub tap: String,
    /// Ethernet address, `"52:54:00:12:34:56"`; made from the machine's identity if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}$"))]
    pub mac: Option<String>,
}

/// The first serial port (COM1).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Serial {
    /// `"stdio"`, `"none"`, `"file:PATH"` or `"unix:PATH"`; `"stdio"` if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<SerialTo>,
}

/// A virtio console port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Channel {
    /// The port's name in the guest, such as `"com.redhat.spice.0"`.
    pub name: String,
    /// `"spice-agent"`, `"guest-agent"` (for the API), `"unix:PATH"` (one program at a time) or `"file:PATH"`.
    pub to: ChannelTo,
}
