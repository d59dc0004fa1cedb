//! `spice`: the server that viewers connect to.

use std::fmt;
use std::path::PathBuf;

use caraway_spice::Origin;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use super::endpoint::{Listen, UnixSocket};
use super::pipe::Port;
use super::tls::Tls;

/// The SPICE server.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spice {
    /// Where it waits for viewers, plainly; `127.0.0.1:5900` if neither this nor `tls` is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<Vec<Listen>>,
    /// What a viewer must know; `"password"` if one is given, else `"none"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
    /// The password, 1 to 60 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// Path of a file whose first line is the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// How several viewers share the display; `"shared"` if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sharing: Option<Sharing>,
    /// What happens when a second viewer comes to an `"exclusive"` display; `"refuse"` if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_connect: Option<OnConnect>,
    /// What happens when the last viewer has gone; `"keep-running"` if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_disconnect: Option<OnDisconnect>,
    /// Viewers at a time, 1 to 1024; 128 if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub max_sessions: Option<u32>,
    /// Streams of bytes to viewers, such as consoles.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    /// Socket for the folders that a viewer shares: whoever connects speaks as the guest's
    /// `spice-webdavd` does on `org.spice-space.webdav.0`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webdav: Option<UnixSocket>,
    /// Slots for USB devices of a viewer, each a socket: whoever connects speaks the usbredir
    /// protocol, as the host of the device. Viewers are offered a slot while somebody is connected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub usb_redirection: Vec<UnixSocket>,
    /// Where it waits for viewers by TLS, and the certificate that they are shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Folder with a console for browsers, such as `/usr/share/spice-html5`; none if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console: Option<PathBuf>,
    /// Whose web pages may connect, such as `https://portal.example`; those of the same host may
    /// always.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub origins: Vec<Origin>,
    /// Whether viewers and the guest share their clipboards; `true` if not given. Needs a channel to
    /// `"spice-agent"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clipboard: Option<bool>,
    /// Whether viewers may send files to the guest; `true` if not given. Needs a channel to
    /// `"spice-agent"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_transfer: Option<bool>,
}

/// How several viewers share a display.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Sharing {
    /// All of them look and type at once.
    #[default]
    Shared,
    /// One at a time.
    Exclusive,
    /// All of them look. Whoever connects when nobody has keyboard and pointer gets them.
    ViewOnly,
}

/// What happens when a second viewer comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnConnect {
    /// It is refused.
    #[default]
    Refuse,
    /// It takes over, and the first one is put out.
    TakeOver,
}

/// What happens when the last viewer has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnDisconnect {
    /// The guest runs on.
    #[default]
    KeepRunning,
    /// The guest's power button is pressed: what that does is the guest's choice.
    PowerButton,
    /// The machine ends at once.
    End,
}

/// How viewers prove who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// Whoever can connect may look and type.
    #[default]
    None,
    /// A ticket; the first one is the password.
    Password,
    /// A ticket; there is none until `display.ticket.add` makes one.
    Ticket,
}

/// Text that is never shown: not in logs, not by `check`, not in errors. Overwritten when dropped.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text` from being shown.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for whoever must compare or send it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}
