//! Channels: what a connection is after its link stage.
//!
//! Each channel is one task with two halves that run side by side: one reads what the client sends
//! and notes it, the other sends whatever is due. They share a little state instead of a queue, so
//! that a client which sends much and reads nothing makes no memory grow.

mod cursor;
mod display;
mod draw;
pub(crate) mod inputs;
mod main;
mod pings;
mod playback;
mod record;
mod scancode;
mod sound;
mod stream;
mod vmc;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::link::message::Capabilities;
use crate::protocol::{ChannelKind, common};
use crate::server::Server;
use crate::session::{Channel, Ending, Session};
use crate::wire::{BoxedStream, Framing, Message, MessageReader, MessageWriter};

/// Everything that a channel works with.
pub(crate) struct Context {
    pub(crate) server: Arc<Server>,
    pub(crate) session: Arc<Session>,
    pub(crate) channel: Arc<Channel>,
    pub(crate) capabilities: Capabilities,
}

/// A half of a channel ends by an [`Ending`] only.
type Endless = Result<Infallible, Ending>;

/// How long a client may take for the goodbye.
const FAREWELL_TIME: Duration = Duration::from_millis(500);

/// Serves a channel to its end and says why it ended.
pub(crate) async fn run(context: &Context, stream: BoxedStream, framing: Framing) -> Ending {
    let (read, write) = tokio::io::split(stream);
    let channel = &context.channel;
    let limit = channel.kind.message_limit();
    let mut reader = MessageReader::new(read, framing, limit, channel.traffic.clone());
    let mut writer = MessageWriter::new(write, framing, channel.traffic.clone());

    let ending = tokio::select! {
        ending = serve(context, &mut reader, &mut writer) => ending,
        ending = context.session.ended() => ending,
        () = channel.replaced.notified() => Ending::Replaced,
    };
    let _ = timeout(FAREWELL_TIME, say_goodbye(context, &mut writer, &ending)).await;
    ending
}

async fn serve(
    context: &Context,
    reader: &mut MessageReader,
    writer: &mut MessageWriter,
) -> Ending {
    let Err(ending) = match context.channel.kind {
        ChannelKind::Main => main::serve(context, reader, writer).await,
        ChannelKind::Display => display::serve(context, reader, writer).await,
        ChannelKind::Inputs => inputs::serve(context, reader, writer).await,
        ChannelKind::Cursor => cursor::serve(context, reader, writer).await,
        ChannelKind::Playback => playback::serve(context, reader, writer).await,
        ChannelKind::Record => record::serve(context, reader, writer).await,
        ChannelKind::UsbRedir | ChannelKind::Port | ChannelKind::WebDav => {
            vmc::serve(context, reader, writer).await
        }
    };
    ending
}

async fn say_goodbye(context: &Context, writer: &mut MessageWriter, ending: &Ending) {
    let gone = matches!(
        ending,
        Ending::Vanished | Ending::Closed | Ending::Socket { .. }
    );
    if !gone && !writer.is_torn() {
        if context.channel.kind == ChannelKind::Main {
            let _ = writer.send(notice(context, &ending.to_string())).await;
        }
        let error = u32::from(ending.is_violation());
        let bye = Message::new(common::DISCONNECTING)
            .u64(context.server.uptime_ns())
            .u32(error);
        let _ = writer.send(bye).await;
    }
    writer.close().await;
}

/// Tells the person at the client, as a warning.
fn notice(context: &Context, text: &str) -> Message {
    /// `SPICE_NOTIFY_SEVERITY_WARN` and `SPICE_NOTIFY_VISIBILITY_HIGH`.
    const WARNING: u32 = 1;
    const VISIBLE: u32 = 2;
    let length = u32::try_from(text.len()).unwrap_or(0);
    Message::new(common::NOTIFY)
        .u64(context.server.uptime_ns())
        .u32(WARNING)
        .u32(VISIBLE)
        .u32(0)
        .u32(length)
        .bytes(text.as_bytes())
        .u8(0)
}

impl Context {
    /// What to answer to a body that is too short or says the impossible.
    fn malformed<E>(&self, kind: u16) -> impl Fn(E) -> Ending + '_ {
        move |_| Ending::Malformed {
            channel: self.channel.kind,
            kind,
        }
    }
}

/// The messages that mean the same on every channel and matter on few: acknowledgements and answers
/// to pings that nobody counts, the end of a migration that never began. Anything unknown is
/// ignored too, as proxies and newer clients may send what this server never heard of.
fn ignore(kind: u16) -> Result<(), Ending> {
    match kind {
        common::C_DISCONNECTING => Err(Ending::Closed),
        _ => {
            tracing::trace!(kind, "message ignored");
            Ok(())
        }
    }
}
