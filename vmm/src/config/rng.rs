//! `rng`: random numbers for the guest.

use std::path::PathBuf;

use caraway_devices::Rate;
use caraway_devices::pci::PciAddress;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::limit::Limit;

/// The virtio source of random numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rng {
    /// Names the device; `"rng"` if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// PCI address; the next free one if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub address: Option<PciAddress>,
    /// The host's source, a character device; `/dev/urandom` if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<PathBuf>,
    /// Bytes a second that the guest gets at most; as many as it wants if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limit>,
}

/// The virtio source of random numbers, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RngSpec {
    /// Its id.
    pub id: String,
    /// Its PCI address.
    pub address: PciAddress,
    /// The host's source.
    pub source: PathBuf,
    /// Bytes that the guest gets at most.
    pub limit: Option<Rate>,
}

impl RngSpec {
    /// As the config would say it.
    #[must_use]
    pub fn to_config(&self) -> Rng {
        Rng {
            id: Some(self.id.clone()),
            address: Some(self.address),
            source: Some(self.source.clone()),
            limit: self.limit.map(Limit::from),
        }
    }
}
