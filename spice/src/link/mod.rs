//! The link stage: what happens on every connection before it is a channel.
//!
//! Client: header and `SpiceLinkMess`. Server: `SpiceLinkReply` with a public key. Client: which
//! authentication it takes (if both sides have `AUTH_SELECTION`), then the password, encrypted.
//! Server: a result. Each stage has a limit for its size and its time, so that whoever does not
//! get through costs little.

pub(crate) mod guard;
pub(crate) mod keys;
pub(crate) mod message;
pub(crate) mod refusal;

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::link::keys::{Keys, Lease, TICKET_LEN};
use crate::link::message::{HEADER_LEN, LinkMessage};
use crate::protocol::{ChannelKind, LinkResult};
use crate::tls::SecureChannels;
use crate::transport::Security;
use crate::wire::BoxedStream;

pub(crate) use refusal::Refusal;

/// For header and link message.
const HELLO_TIME: Duration = Duration::from_secs(10);
/// For a key to be there.
const KEY_TIME: Duration = Duration::from_secs(10);
/// For the reply to be sent.
const REPLY_TIME: Duration = Duration::from_secs(10);
/// For the choice of authentication and the ticket.
const TICKET_TIME: Duration = Duration::from_secs(20);
/// For a refused client to close.
const PART_TIME: Duration = Duration::from_millis(500);
/// Reads of 4 KiB that a refused client's last words may take.
const PART_READS: usize = 16;

/// `SPICE_COMMON_CAP_AUTH_SPICE`, as a choice of authentication.
const AUTH_SPICE: u32 = 1;

/// Reads what the client wants, and whether such a connection can have it.
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
    within(HELLO_TIME, "say what it wants", read).await
}

/// Waits for a key.
pub(crate) async fn key(keys: &Keys) -> Result<Lease, Refusal> {
    match timeout(KEY_TIME, keys.take()).await {
        Ok(key) => key.ok_or(Refusal::Unavailable),
        Err(_) => Err(Refusal::NoKey),
    }
}

/// Tells a client in the place of a reply that it is not let in.
pub(crate) async fn turn_away(stream: &mut BoxedStream, refusal: &Refusal) {
    if let Some(code) = refusal.result() {
        let reply = message::refuse(code);
        let _ = timeout(REPLY_TIME, tell(stream, &reply)).await;
    }
}

/// Whether what the client sends as its ticket matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    Ignored,
    Wanted,
}

/// Replies, and reads the client's ticket: its text, or `None` if it is none for this key, or if
/// nobody wants it.
pub(crate) async fn ticket(
    stream: &mut BoxedStream,
    wanted: &LinkMessage,
    key: Lease,
    proof: Proof,
) -> Result<Option<Zeroizing<Vec<u8>>>, Refusal> {
    let capabilities = ChannelKind::from_wire(wanted.channel_type)
        .map_or(&[] as &[u32], ChannelKind::capabilities);
    let welcome = message::welcome(key.public(), capabilities);
    // A key that will decrypt nothing is free for others at once.
    let key = (proof == Proof::Wanted).then_some(key);
    let reply = async { Ok(tell(stream, &welcome).await?) };
    within(REPLY_TIME, "take the reply", reply).await?;

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
    Ok(key.and_then(|key| key.decrypt(&ticket)))
}

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
