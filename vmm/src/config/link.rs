//! What joins the guest to the outside: `serial`, `channels`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::endpoint::{ChannelTo, SerialTo};

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
