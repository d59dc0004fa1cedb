//! `inputs`: virtio keyboards and tablets beside the PS/2 pair that every machine has.

use caraway_devices::pci::PciAddress;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A virtio input device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Which device.
    pub device: InputDevice,
    /// Names the device; `"tablet"` or `"keyboard"` if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// PCI address; the next free one if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub address: Option<PciAddress>,
}

/// A kind of virtio input device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum InputDevice {
    /// An absolute pointer, by which a viewer's pointer needs no grab.
    Tablet,
    /// A keyboard.
    Keyboard,
}

impl InputDevice {
    /// The word that the config uses.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Tablet => "tablet",
            Self::Keyboard => "keyboard",
        }
    }
}
