//! `display`: the guest's graphics card.

use caraway_devices::pci::PciAddress;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::Size;

/// The guest's graphics card.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Display {
    /// Names the device; `"display"` if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// PCI address; `"00:02.0"` if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub address: Option<PciAddress>,
    /// Which card; QXL if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<DisplayDevice>,
    /// The most monitors that the guest may drive, 1 to 16; 1 if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16))]
    pub heads: Option<u32>,
    /// Video memory, a power of two from 16M to 512M; 64M if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vram: Option<Size>,
}

/// A model of graphics card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DisplayDevice {
    /// QXL, with a VGA core for firmware and early boot.
    Qxl,
}
