//! Who may look at the machine and who does: tickets and sessions, as the API has them.

use std::num::NonZeroU32;
use std::time::{Duration, SystemTime};

use caraway_spice::{ChannelKind, Lapse};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::config::spice::Secret;
use crate::config::units::Span;

/// What a session may do beside looking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Permissions {
    /// Keys, pointer, microphone, ports: whatever acts on the guest. Without it, a session is
    /// view-only.
    pub input: bool,
    /// The clipboard, in both directions.
    pub clipboard: bool,
    /// Files, by the agent and by shared folders.
    pub file_transfer: bool,
    /// USB devices of the viewer.
    pub usb: bool,
    /// The kinds of channel beside `main` that may be opened: `display`, `inputs`, `cursor`, …; all
    /// of them if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub channels: Option<Vec<ChannelKind>>,
}

impl Default for Permissions {
    fn default() -> Self {
        caraway_spice::Permissions::ALL.into()
    }
}

impl From<caraway_spice::Permissions> for Permissions {
    fn from(granted: caraway_spice::Permissions) -> Self {
        Self {
            input: granted.input,
            clipboard: granted.clipboard,
            file_transfer: granted.file_transfer,
            usb: granted.usb,
            channels: granted
                .channels
                .map(|channels| channels.into_iter().collect()),
        }
    }
}

impl From<Permissions> for caraway_spice::Permissions {
    fn from(asked: Permissions) -> Self {
        Self {
            input: asked.input,
            clipboard: asked.clipboard,
            file_transfer: asked.file_transfer,
            usb: asked.usb,
            channels: asked
                .channels
                .map(|channels| channels.into_iter().collect()),
        }
    }
}

/// A ticket to be added.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NewTicket {
    /// What it is called, 1 to 64 letters, digits, `-`, `_` or `.`; `ticket-N` if not given.
    pub id: Option<String>,
    /// Whose it is, for people; at most 256 bytes.
    pub label: String,
    /// What a viewer must send, 1 to 60 bytes; one is made, and told once, if not given.
    #[schema(value_type = Option<String>)]
    pub secret: Option<Secret>,
    /// For how long it opens new sessions: `30s`, `5m`; for ever if not given.
    #[schema(value_type = Option<String>, example = "60s")]
    pub expires_in: Option<Span>,
    /// How many sessions it opens; any number if not given.
    #[schema(value_type = Option<u32>, minimum = 1)]
    pub uses: Option<NonZeroU32>,
    /// What its sessions may do; everything if not given.
    pub permissions: Permissions,
}

/// A ticket that was added. If its secret was made here, this is the only time that it is told.
#[derive(Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct AddedTicket {
    /// The ticket.
    pub ticket: TicketInfo,
    /// Its secret, if it was made here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// The connection file of virt-viewer with that secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vv: Option<String>,
}

impl std::fmt::Debug for AddedTicket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AddedTicket")
            .field("ticket", &self.ticket)
            .finish_non_exhaustive()
    }
}

/// Whether a ticket opens sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TicketState {
    /// It does.
    Valid,
    /// Its time is over.
    Expired,
    /// It has opened as many as it may.
    Used,
    /// It was taken back.
    Revoked,
}

/// A ticket, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TicketInfo {
    /// What it is called; that of the config's password is `config`.
    pub id: String,
    /// Whose it is.
    pub label: String,
    /// Whether it opens sessions.
    pub state: TicketState,
    /// What its sessions may do.
    pub permissions: Permissions,
    /// Milliseconds to its end; nothing if it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in_ms: Option<u64>,
    /// How many sessions it still opens; nothing if any number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uses_left: Option<u32>,
    /// How many sessions it has opened.
    pub used: u64,
}

impl From<caraway_spice::TicketInfo> for TicketInfo {
    fn from(ticket: caraway_spice::TicketInfo) -> Self {
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            id: ticket.id,
            label: ticket.label,
            state: match ticket.lapse {
                None => TicketState::Valid,
                Some(Lapse::Expired) => TicketState::Expired,
                Some(Lapse::Used) => TicketState::Used,
                Some(Lapse::Revoked) => TicketState::Revoked,
            },
            permissions: ticket.permissions.into(),
            expires_in_ms: ticket.expires_in.map(milliseconds),
            uses_left: ticket.uses_left,
            used: ticket.used,
        }
    }
}

/// All tickets, and those that lapsed lately.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TicketList {
    /// In the order in which they were added.
    pub tickets: Vec<TicketInfo>,
}

/// What becomes of a revoked ticket's sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RevokedSessions {
    /// They go on.
    #[default]
    Keep,
    /// They end.
    End,
}

/// A ticket to be revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// The ticket's id.
    pub id: String,
    /// What becomes of its sessions; `keep` if not given.
    #[serde(default)]
    pub sessions: RevokedSessions,
}

/// How a ticket was revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Revoked {
    /// How many sessions it had, which go on or were ended.
    pub sessions: u64,
}

/// Who is connected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionList {
    /// In the order of their numbers.
    pub sessions: Vec<SessionInfo>,
}

/// A connected viewer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionInfo {
    /// The session's number, which the viewer's channels share.
    pub id: u32,
    /// Where it comes from.
    pub peer: String,
    /// The id of its ticket; nothing if the machine asks for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
    /// Whose its ticket is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub label: String,
    /// What it may do.
    pub permissions: Permissions,
    /// When it began, in UTC, RFC 3339.
    pub since: String,
    /// Microseconds of the last measured round trip.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_trip_us: Option<u64>,
    /// Its channels.
    pub channels: Vec<ChannelInfo>,
}

/// A channel of a viewer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChannelInfo {
    /// `main`, `display`, `inputs`, `cursor`, …
    pub kind: String,
    /// Number among the channels of its kind.
    pub id: u32,
    /// What keeps others from listening: `tls`, `local` (a Unix socket) or `plain`, which is nothing.
    pub security: String,
    /// Bytes that came from the viewer.
    pub bytes_in: u64,
    /// Bytes that went to it.
    pub bytes_out: u64,
}

impl From<caraway_spice::SessionInfo> for SessionInfo {
    fn from(session: caraway_spice::SessionInfo) -> Self {
        let channels = session.channels.into_iter().map(|channel| ChannelInfo {
            kind: channel.kind.to_string(),
            id: channel.id.into(),
            security: channel.security.to_string(),
            bytes_in: channel.bytes_in,
            bytes_out: channel.bytes_out,
        });
        Self {
            id: session.id,
            peer: session.peer,
            ticket: session.ticket,
            label: session.label,
            permissions: session.permissions.into(),
            since: shown(session.since),
            round_trip_us: session.round_trip_us,
            channels: channels.collect(),
        }
    }
}

fn shown(time: SystemTime) -> String {
    // A clock before the year -9999 is no clock.
    jiff::Timestamp::try_from(time).map_or_else(|_| String::new(), |time| time.to_string())
}

/// A session to be ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Termination {
    /// The session's number.
    pub session: u32,
    /// What its viewer is told, at most 256 bytes.
    #[serde(default)]
    pub reason: Option<String>,
}
