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
    /// How often the guest is asked for its memory statistics; only when it starts if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stats_interval: Option<Span>,
    /// Whether the guest tells which pages it does not use, for the host to take; `false` if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_page_reporting: Option<bool>,
    /// Whether the guest may take pages back before it runs out of memory; `false` if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deflate_on_oom: Option<bool>,
}

/// The virtio memory balloon, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BalloonSpec {
    /// Its id.
    pub id: String,
    /// Its PCI address.
    pub address: PciAddress,
    /// How often the guest is asked for its memory statistics.
    pub stats_interval: Option<Span>,
    /// Whether the guest tells which pages it does not use.
    pub free_page_reporting: bool,
    /// Whether the guest may take pages back before it runs out of memory.
    pub deflate_on_oom: bool,
}

impl BalloonSpec {
    /// As the config would say it.
    #[must_use]
    pub fn to_config(&self) -> Balloon {
        Balloon {
            id: Some(self.id.clone()),
            address: Some(self.address),
            stats_interval: self.stats_interval,
            free_page_reporting: Some(self.free_page_reporting),
            deflate_on_oom: Some(self.deflate_on_oom),
        }
    }
}
