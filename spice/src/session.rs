//! One person's connection: a main channel and the others that present its id.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{Notify, watch};

use crate::codec::Dictionary;
use crate::protocol::{ChannelKind, MouseMode};
use crate::ticket::{Permissions, Ticket};
use crate::transport::Security;
use crate::wire::Traffic;

/// Why a channel or a whole session ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
#[serde(rename_all = "kebab-case", tag = "why")]
#[non_exhaustive]
pub enum Ending {
    /// The client closed the connection between two messages, or said that it would.
    #[error("the client left")]
    Closed,
    /// The connection broke in the middle of a message.
    #[error("the client vanished")]
    Vanished,
    /// The client did not answer.
    #[error("the client is silent")]
    Silent,
    /// The client announced a message that is too long for its channel.
    #[error("message {kind} of {size} bytes is over the channel's limit of {limit}")]
    Oversized {
        /// The message's type.
        kind: u16,
        /// The announced bytes.
        size: u32,
        /// The allowed bytes.
        limit: u32,
    },
    /// The client sent a message that is too short or says the impossible.
    #[error("message {kind} on the {channel} channel is malformed")]
    Malformed {
        /// On which channel.
        channel: ChannelKind,
        /// The message's type.
        kind: u16,
    },
    /// The client broke the protocol of the guest's agent.
    #[error("the agent's stream: {error}")]
    Agent {
        /// How.
        error: String,
    },
    /// A display channel without `SPICE_MSGC_DISPLAY_INIT`.
    #[error("the display channel was not initialised in time")]
    NotInitialised,
    /// The client opened the same channel again.
    #[error("the client opened the channel anew")]
    Replaced,
    /// What is behind the channel went away.
    #[error("the device is gone")]
    Unplugged,
    /// The server shuts down.
    #[error("the server shuts down")]
    Shutdown,
    /// Somebody who controls the server ended the session.
    #[error("the session was ended: {reason}")]
    Terminated {
        /// Why, in their words.
        reason: String,
    },
    /// Another client took over a display that is for one at a time.
    #[error("somebody else took over")]
    TakenOver,
    /// The session's ticket was revoked, and its sessions with it.
    #[error("the session's ticket was revoked")]
    Revoked,
    /// The system reported an error on the socket.
    #[error("socket error: {error}")]
    Socket {
        /// The system's words.
        error: String,
    },
}

impl Ending {
    /// Whether the client broke the protocol, so that none of its channels is to be trusted.
    pub(crate) fn is_violation(&self) -> bool {
        matches!(
            self,
            Self::Oversized { .. }
                | Self::Malformed { .. }
                | Self::Agent { .. }
                | Self::NotInitialised
        )
    }
}

/// What happens to sessions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
#[non_exhaustive]
pub enum SessionEvent {
    /// A client got through the link stage with its main channel.
    Connected {
        /// The session's id.
        session: u32,
        /// Who it is: address and port, or the process behind a Unix socket.
        peer: String,
        /// The id of its ticket; `None` if none is asked for.
        ticket: Option<String>,
    },
    /// A session has one more channel.
    ChannelOpened {
        /// The session's id.
        session: u32,
        /// What the channel is for.
        channel: ChannelKind,
        /// Which one of that kind.
        id: u8,
    },
    /// A session is over.
    Disconnected {
        /// The session's id.
        session: u32,
        /// Who it was.
        peer: String,
        /// Why.
        reason: Ending,
    },
    /// A connection did not get through the link stage.
    Refused {
        /// Who it was.
        peer: String,
        /// Why: a word that stays the same from release to release, such as `wrong-ticket`.
        code: &'static str,
        /// Why, in words.
        reason: String,
        /// The id of the ticket that was presented, if it opens nothing any more.
        ticket: Option<String>,
    },
}

/// Told of everything that happens to sessions. Called on the thread that drives the server, which
/// must not wait.
pub trait SessionObserver: Send + Sync {
    /// Something happened.
    fn event(&self, event: SessionEvent);
}

/// Nobody cares.
impl SessionObserver for () {
    fn event(&self, _: SessionEvent) {}
}

/// A server's sessions at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServerInfo {
    /// In the order of their ids.
    pub sessions: Vec<SessionInfo>,
}

/// A session at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SessionInfo {
    /// Its id (`connection_id` on the wire).
    pub id: u32,
    /// Who it is.
    pub peer: String,
    /// The id of its ticket; `None` if none was asked for.
    pub ticket: Option<String>,
    /// Whose its ticket is.
    pub label: String,
    /// What it may do.
    pub permissions: Permissions,
    /// When it began.
    pub since: SystemTime,
    /// Who draws the pointer.
    pub mouse_mode: MouseMode,
    /// The last measured round trip of the main channel, in microseconds.
    pub round_trip_us: Option<u64>,
    /// Its open channels.
    pub channels: Vec<ChannelInfo>,
}

/// A channel at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChannelInfo {
    /// What it is for.
    pub kind: ChannelKind,
    /// Which one of that kind.
    pub id: u8,
    /// What keeps others from listening to it.
    pub security: Security,
    /// Bytes that came from the client, without the link stage.
    pub bytes_in: u64,
    /// Bytes that went to the client, without the link stage.
    pub bytes_out: u64,
}

/// A session's shared state.
pub(crate) struct Session {
    pub(crate) id: u32,
    pub(crate) peer: String,
    /// What it was opened with; none if nobody asks for tickets.
    ticket: Option<Arc<Ticket>>,
    permissions: Permissions,
    since: SystemTime,
    ended: watch::Sender<Option<Ending>>,
    channels: Mutex<Vec<Arc<Channel>>>,
    wanted_mode: Mutex<Option<MouseMode>>,
    /// The images that its display channels can refer to.
    pub(crate) dictionary: Dictionary,
    /// Numbers of images that are taken: its displays keep their images together.
    images: AtomicU64,
    round_trip: AtomicU64,
}

/// One open channel.
pub(crate) struct Channel {
    pub(crate) kind: ChannelKind,
    pub(crate) id: u8,
    pub(crate) security: Security,
    pub(crate) traffic: Arc<Traffic>,
    pub(crate) replaced: Notify,
}

const NOT_MEASURED: u64 = u64::MAX;
/// Channels that one session may have at a time; far more than there are kinds and displays.
const MAX_CHANNELS: usize = 64;

impl Session {
    pub(crate) fn new(
        id: u32,
        peer: String,
        ticket: Option<Arc<Ticket>>,
        permissions: Permissions,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            peer,
            ticket,
            permissions,
            since: SystemTime::now(),
            ended: watch::Sender::new(None),
            channels: Mutex::default(),
            wanted_mode: Mutex::default(),
            dictionary: Dictionary::default(),
            images: AtomicU64::new(0),
            round_trip: AtomicU64::new(NOT_MEASURED),
        })
    }

    /// The ticket that each of its channels has to prove.
    pub(crate) fn ticket(&self) -> Option<&Arc<Ticket>> {
        self.ticket.as_ref()
    }

    /// The first of so many numbers of images that none of its displays ever used.
    pub(crate) fn take_images(&self, count: u64) -> u64 {
        self.images.fetch_add(count, Ordering::Relaxed)
    }

    /// What it may do; the same from its first channel to its last.
    pub(crate) fn permissions(&self) -> &Permissions {
        &self.permissions
    }

    /// Ends all channels. The first reason stays.
    pub(crate) fn end(&self, reason: Ending) {
        self.ended.send_if_modified(|ended| {
            let first = ended.is_none();
            ended.get_or_insert(reason);
            first
        });
    }

    /// Waits for the end.
    pub(crate) async fn ended(&self) -> Ending {
        let mut ended = self.ended.subscribe();
        match ended.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or(Ending::Closed),
            Err(_) => Ending::Closed,
        }
    }

    pub(crate) fn has_ended(&self) -> Option<Ending> {
        self.ended.borrow().clone()
    }

    /// Opens a channel; the same one opened before ends. `None` if there are too many.
    pub(crate) fn open(
        &self,
        kind: ChannelKind,
        id: u8,
        security: Security,
    ) -> Option<Arc<Channel>> {
        let mut channels = self.channels.lock();
        channels.retain(|channel| {
            let same = channel.kind == kind && channel.id == id;
            if same {
                channel.replaced.notify_one();
            }
            !same
        });
        if channels.len() >= MAX_CHANNELS {
            return None;
        }
        let channel = Arc::new(Channel {
            kind,
            id,
            security,
            traffic: Arc::default(),
            replaced: Notify::new(),
        });
        channels.push(channel.clone());
        Some(channel)
    }

    pub(crate) fn close(&self, channel: &Arc<Channel>) {
        self.channels
            .lock()
            .retain(|open| !Arc::ptr_eq(open, channel));
    }

    pub(crate) fn want_mode(&self, mode: MouseMode) {
        *self.wanted_mode.lock() = Some(mode);
    }

    /// Who draws the pointer, given whether the guest has an absolute one. The client's wish
    /// counts where there is a choice.
    pub(crate) fn mouse_mode(&self, absolute: bool) -> MouseMode {
        match *self.wanted_mode.lock() {
            _ if !absolute => MouseMode::Server,
            Some(mode) => mode,
            None => MouseMode::Client,
        }
    }

    pub(crate) fn measured(&self, round_trip: Duration) {
        let micros = u64::try_from(round_trip.as_micros()).unwrap_or(NOT_MEASURED - 1);
        self.round_trip.store(micros, Ordering::Relaxed);
    }

    pub(crate) fn info(&self, absolute: bool) -> SessionInfo {
        let channels = self.channels.lock();
        let round_trip = self.round_trip.load(Ordering::Relaxed);
        SessionInfo {
            id: self.id,
            peer: self.peer.clone(),
            ticket: self.ticket.as_ref().map(|ticket| ticket.id.clone()),
            label: self
                .ticket
                .as_ref()
                .map_or(String::new(), |ticket| ticket.label.clone()),
            permissions: self.permissions.clone(),
            since: self.since,
            mouse_mode: self.mouse_mode(absolute),
            round_trip_us: (round_trip != NOT_MEASURED).then_some(round_trip),
            channels: channels
                .iter()
                .map(|channel| ChannelInfo {
                    kind: channel.kind,
                    id: channel.id,
                    security: channel.security,
                    bytes_in: channel.traffic.received.load(Ordering::Relaxed),
                    bytes_out: channel.traffic.sent.load(Ordering::Relaxed),
                })
                .collect(),
        }
    }
}
