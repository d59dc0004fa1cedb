//! `spice.ports`, `spice.webdav` and `spice.usb_redirection`: streams of bytes between a viewer and
//! whoever connects to a Unix socket of the host.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::endpoint::UnixSocket;

/// A stream of bytes that viewers know by a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// A reversed domain name, such as `org.example.console.0`; viewers show
    /// `org.qemu.console.serial.0` and `org.qemu.monitor.hmp.0` as terminals.
    pub name: String,
    /// The socket that Caraway listens on for the other end; one program at a time.
    pub to: UnixSocket,
}

/// All pipes of a SPICE server, checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PipesSpec {
    /// Names, unique, and absolute paths of sockets.
    pub ports: Vec<(String, PathBuf)>,
    /// Absolute path of the socket for shared folders.
    pub webdav: Option<PathBuf>,
    /// Absolute paths of sockets, one a USB slot.
    pub usb_redirection: Vec<PathBuf>,
}

impl PipesSpec {
    /// `ports` as the config would say them.
    #[must_use]
    pub fn ports(&self) -> Vec<Port> {
        let ports = self.ports.iter().map(|(name, path)| Port {
            name: name.clone(),
            to: UnixSocket(path.clone()),
        });
        ports.collect()
    }
}
