//! `vsock`: stream sockets between the guest and programs of the host.

use std::path::PathBuf;

use caraway_devices::pci::PciAddress;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::endpoint::UnixSocket;

/// The virtio socket device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Vsock {
    /// Names the device; `"vsock"` if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// PCI address; the next free one if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub address: Option<PciAddress>,
    /// The guest's context id, 3 to 4294967294.
    #[schemars(range(min = 3, max = 4_294_967_294_u32))]
    pub cid: u32,
    /// `"unix:PATH"`: programs of the host connect to `PATH` and say `CONNECT PORT`; connections of the
    /// guest to port 52 go to `PATH_52`.
    pub to: UnixSocket,
}

/// The virtio socket device, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VsockSpec {
    /// Its id.
    pub id: String,
    /// Its PCI address.
    pub address: PciAddress,
    /// The guest's context id.
    pub cid: u32,
    /// Absolute path of the socket.
    pub path: PathBuf,
}

impl VsockSpec {
    /// As the config would say it.
    #[must_use]
    pub fn to_config(&self) -> Vsock {
        Vsock {
            id: Some(self.id.clone()),
            address: Some(self.address),
            cid: self.cid,
            to: UnixSocket(self.path.clone()),
        }
    }
}
