//! What is asked and told of devices in general, and of those that come and go while the machine runs.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::command::Reply;
use crate::machine::{Plug, PlugError};

/// A PCI device of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeviceInfo {
    /// Its id in the config.
    pub id: String,
    /// What it is: `qxl`, `virtio-blk`, `virtio-input`, …
    pub kind: String,
    /// Its PCI address, `00:05.0`.
    pub address: String,
}

/// Which device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeviceName {
    /// Its id.
    pub id: String,
}

/// What a guest was asked about a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Asked {
    /// To take it.
    Add,
    /// To let it go.
    Remove,
}

/// A device on its way into a slot: what of the host it needs was opened, or could not be.
pub struct Opened<P: Plug, T> {
    /// The device.
    pub spec: P,
    /// What was opened.
    pub host: Result<P::Host, PlugError>,
    /// Takes what the device is, when it is in its slot.
    pub reply: Reply<T>,
}

impl<P: Plug, T> fmt::Debug for Opened<P, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Opened");
        shown.field("id", &self.spec.id()).finish_non_exhaustive()
    }
}
