//! `balloon`: memory that the guest gives back.

use caraway_devices::pci::PciAddress;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::Span;

/// The virtio memory balloon.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Balloon {
    /// Names the device; `"balloon"` if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// PCI address; the next free one if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub address: Option<PciAddress>,
    /// How often the guest is asked for its memory statistics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stats_interval: Option<Span>,
    /// Whether the guest tells which pages it does not use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_page_reporting: Option<bool>,
    /// Whether the guest may take pages back before it runs out of memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deflate_on_oom: Option<bool>,
}
