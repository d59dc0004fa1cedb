//! The link stage: what happens on every connection before it is a channel.
//!
//! Client: header and `SpiceLinkMess`. Server: `SpiceLinkReply` with a public key. Client: which
//! authentication it takes (if both sides have `AUTH_SELECTION`), then the password, encrypted.
//! Server: a result. Each stage has a limit for its size and its time, so that whoever does not
//! get through costs little.

pub(crate) mod auth;
pub(crate) mod keys;
pub(crate) mod message;

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::link::auth::Auth;
use crate::link::keys::{KeyStore, TICKET_LEN};
use crate::link::message::{HEADER_LEN, LinkMessage};
use crate::protocol::{ChannelKind, LinkResult};
use crate::tls::SecureChannels;
use crate::transport::Security;
use crate::wire::BoxedStream;

/// For header and link message.
const HELLO_TIME: Duration = Duration::from_secs(10);
/// For a key to be made and the reply to be sent.
const REPLY_TIME: Duration = Duration::from_secs(20);
/// For the choice of authentication and the ticket.
const TICKET_TIME: Duration = Duration::from_secs(20);
/// For a refused client to close.
const PART_TIME: Duration = Duration::from_millis(500);
/// Reads of 4 KiB that a refused client's last words may take.
const PART_READS: usize = 16;

/// Why a connection did not become a channel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("it does not speak SPICE")]
    BadMagic,
    #[error("it speaks SPICE {major}.{minor}; this server speaks 2.2")]
    BadVersion { major: u32, minor: u32 },
    #[error("its link message of {size} bytes is out of bounds")]
    BadSize { size: u32 },
    #[error("its link message is malformed")]
    BadCapabilities,
    #[error("it asks for authentication {mechanism}; this server has tickets only (1)")]
    UnknownMechanism { mechanism: u32 },
    #[error("wrong password")]
    WrongTicket,
    #[error("there is no session {id:#x}")]
    NoSuchSession { id: u32 },
    #[error("there is no channel of type {kind} with number {id}")]
    NoSuchChannel { kind: u8, id: u8 },
    #[error("its ticket does not allow the {kind} channel")]
    NotPermitted { kind: ChannelKind },
    #[error("there are too many sessions already")]
    TooManySessions,
    #[error("too many connections are being made at once")]
    TooManyLinks,
    #[error("it took too long to {stage}")]
    TooSlow { stage: &'static str },
    #[error("it asks for the {kind} channel without TLS, which that channel wants")]
    NeedSecured { kind: ChannelKind },
    #[error("it does not speak TLS, and this port speaks nothing else")]
    NotTls,
    #[error("it speaks TLS, and this port does not")]
    UnexpectedTls,
    #[error("the TLS handshake failed: {reason}")]
    TlsFailed { reason: String },
    #[error("a web page of {origin:?} may not connect; spice.origins can allow it")]
    ForeignPage { origin: String },
    #[error("its HTTP is broken: {reason}")]
    BadHttp { reason: String },
    #[error("it left in the middle of the link")]
    Vanished,
    #[error("the server shuts down or can make no keys")]
    Unavailable,
}

impl Refusal {
    /// What the client is told.
    pub(crate) fn code(&self) -> Option<LinkResult> {
        Some(match self {
            Self::BadMagic => LinkResult::InvalidMagic,
            Self::BadVersion { .. } => LinkResult::VersionMismatch,
            Self::BadSize { .. } | Self::BadCapabilities => LinkResult::InvalidData,
            Self::UnknownMechanism { .. } | Self::TooManySessions | Self::Unavailable => {
                LinkResult::Error
            }
            Self::WrongTicket => LinkResult::PermissionDenied,
            Self::NoSuchSession { .. } => LinkResult::BadConnectionId,
            Self::NoSuchChannel { .. } | Self::NotPermitted { .. } => {
                LinkResult::ChannelNotAvailable
            }
            Self::NeedSecured { .. } | Self::NotTls => LinkResult::NeedSecured,
            Self::TooSlow { .. }
            | Self::Vanished
            | Self::TooManyLinks
            | Self::UnexpectedTls
            | Self::TlsFailed { .. }
            | Self::ForeignPage { .. }
            | Self::BadHttp { .. } => return None,
        })
    }
}

impl From<io::Error> for Refusal {
    fn from(_: io::Error) -> Self {
        Self::Vanished
    }
}

/// Reads what the client wants; tells it if that is nonsense, or not to be had by such a connection.
pub(crate) async fn hello(
    stream: &mut BoxedStream,
    security: Security,
    secured: &SecureChannels,
) -> Result<LinkMessage, Refusal> {
    let read = async {
        let mut header = [0; HEADER_LEN];
        stream.read_exact(&mut header).await?;
        let mut body = vec![0; message::parse_header(&header)?];
        stream.read_exact(&mut body).await?;
        let wanted = LinkMessage::parse(&body)?;
        match ChannelKind::from_wire(wanted.channel_type) {
            Some(kind) if security == Security::Plain && secured.contains(kind) => {
                Err(Refusal::NeedSecured { kind })
            }
            _ => Ok(wanted),
        }
    };
    match within(HELLO_TIME, "say what it wants", read).await {
        Ok(wanted) => Ok(wanted),
        Err(refusal) => {
            if let Some(code) = refusal.code() {
                let reply = message::refuse(code);
                let _ = timeout(REPLY_TIME, tell(stream, &reply)).await;
            }
            Err(refusal)
        }
    }
}

/// Replies, and lets the client prove that it may connect. The caller sends the result.
pub(crate) async fn authenticate(
    stream: &mut BoxedStream,
    wanted: &LinkMessage,
    keys: &KeyStore,
    auth: &Auth,
) -> Result<(), Refusal> {
    let reply = async {
        let (secret, public) = match auth {
            Auth::None => (None, keys.take_public().await.ok_or(Refusal::Unavailable)?),
            Auth::Password(password) => {
                let key = keys.take().await.ok_or(Refusal::Unavailable)?;
                let public = key.public;
                (Some((key, password)), public)
            }
        };
        let capabilities = ChannelKind::from_wire(wanted.channel_type)
            .map_or(&[] as &[u32], ChannelKind::capabilities);
        tell(stream, &message::welcome(&public, capabilities)).await?;
        Ok(secret)
    };
    let secret = within(REPLY_TIME, "take the reply", reply).await?;

    let read = async {
        if wanted.selects_auth() {
            let mechanism = stream.read_u32_le().await?;
            if mechanism != AUTH_SPICE {
                return Err(Refusal::UnknownMechanism { mechanism });
            }
        }
        let mut ticket = [0; TICKET_LEN];
        stream.read_exact(&mut ticket).await?;
        Ok(ticket)
    };
    let ticket = within(TICKET_TIME, "send its ticket", read).await?;

    let Some((key, password)) = secret else {
        return Ok(());
    };
    match key.decrypt(&ticket) {
        Some(text) if password.matches(&text) => Ok(()),
        _ => Err(Refusal::WrongTicket),
    }
}

/// `SPICE_COMMON_CAP_AUTH_SPICE`, as a choice of authentication.
const AUTH_SPICE: u32 = 1;

/// Sends the result of the whole stage.
pub(crate) async fn conclude(stream: &mut BoxedStream, result: LinkResult) -> Result<(), Refusal> {
    let send = async { Ok(tell(stream, &(result as u32).to_le_bytes()).await?) };
    within(REPLY_TIME, "take the result", send).await
}

/// Writes all, also out of the buffers that TLS and WebSocket have.
pub(crate) async fn tell(stream: &mut BoxedStream, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// Closes a refused connection so that the client surely reads why. Closing with bytes unread would
/// make the system reset the connection and drop what the client has not read yet.
pub(crate) async fn part(stream: &mut BoxedStream) {
    let drain = async {
        stream.shutdown().await?;
        let mut unread = [0; 4096];
        for _ in 0..PART_READS {
            if stream.read(&mut unread).await? == 0 {
                break;
            }
        }
        io::Result::Ok(())
    };
    let _ = timeout(PART_TIME, drain).await;
}

pub(crate) async fn within<T>(
    time: Duration,
    stage: &'static str,
    work: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    timeout(time, work)
        .await
        .unwrap_or(Err(Refusal::TooSlow { stage }))
}
