//! The main channel: the session itself.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval};

use super::{Context, Endless, ignore};
use crate::devices::Offer;
use crate::protocol::{MouseMode, common, main as id};
use crate::session::Ending;
use crate::wire::{Message, MessageReader, MessageWriter, Reader};

const PING_INTERVAL: Duration = Duration::from_secs(5);
/// A client that leaves a ping unanswered for so long is gone.
const PING_TIME: Duration = Duration::from_secs(60);
/// Agent messages that a client may send ahead, as the reference server allows.
const AGENT_TOKENS: u32 = 10;
/// Bytes of display memory that clients take as a hint for the size of their dictionaries.
const RAM_HINT: u32 = 64 << 20;

#[derive(Default)]
struct Shared {
    wake: Notify,
    due: Mutex<Due>,
}

#[derive(Default)]
struct Due {
    channels_list: bool,
    mouse_mode: bool,
    ping: Option<(u32, Instant)>,
}

pub(super) async fn serve(
    context: &Context,
    reader: &mut MessageReader,
    writer: &mut MessageWriter,
) -> Endless {
    let shared = Shared::default();
    tokio::select! {
        end = read(context, &shared, reader) => end,
        end = write(context, &shared, writer) => end,
    }
}

async fn read(context: &Context, shared: &Shared, reader: &mut MessageReader) -> Endless {
    loop {
        let (kind, body) = reader.next().await?;
        let malformed = context.malformed(kind);
        let mut fields = Reader(body);
        match kind {
            id::C_ATTACH_CHANNELS => shared.due.lock().channels_list = true,
            id::C_MOUSE_MODE_REQUEST => {
                let wish = fields.u16().map_err(malformed)?;
                let client = wish & MouseMode::Client as u16 != 0;
                let mode = if client {
                    MouseMode::Client
                } else {
                    MouseMode::Server
                };
                context.session.want_mode(mode);
                // The cursor channel wants to know as well.
                context.server.refresh_mouse_mode();
                shared.due.lock().mouse_mode = true;
            }
            common::C_PONG => {
                let answered = fields.u32().map_err(malformed)?;
                let mut due = shared.due.lock();
                if let Some((_, sent)) = due.ping.take_if(|&mut (asked, _)| asked == answered) {
                    context.session.measured(sent.elapsed());
                }
            }
            // There is no agent yet: whatever is for it goes nowhere.
            _ => ignore(kind)?,
        }
        shared.wake.notify_one();
    }
}

async fn write(context: &Context, shared: &Shared, writer: &mut MessageWriter) -> Endless {
    let server = &context.server;
    let mut mouse_changes = server.mouse_changes();
    let mut mode = context.session.mouse_mode(server.absolute());
    let displays = u32::try_from(server.devices().displays.len()).unwrap_or(u32::MAX);
    let init = Message::new(id::INIT)
        .u32(context.session.id)
        .u32(displays)
        .u32(supported_modes(context).into())
        .u32(mode as u32)
        .u32(0) // no agent
        .u32(AGENT_TOKENS)
        .u32(server.media_time())
        .u32(RAM_HINT);
    writer.send(init).await?;
    if context.capabilities.has(id::CAP_NAME_AND_UUID) {
        let name = server.name().as_bytes();
        let length = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        writer
            .send(Message::new(id::NAME).u32(length).bytes(name).u8(0))
            .await?;
        if let Some(uuid) = server.uuid() {
            writer.send(Message::new(id::UUID).bytes(&uuid)).await?;
        }
    }

    let mut pings = interval(PING_INTERVAL);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut next_ping = 0u32;
    let mut channel_changes = server.devices().changes();
    let mut announced = None;
    loop {
        let mut ask = false;
        tokio::select! {
            () = shared.wake.notified() => {}
            _ = mouse_changes.changed() => {}
            _ = channel_changes.changed() => {}
            _ = pings.tick() => ask = true,
        }
        let (list, told) = {
            let mut due = shared.due.lock();
            (
                std::mem::take(&mut due.channels_list),
                std::mem::take(&mut due.mouse_mode),
            )
        };
        if list {
            announced = Some(BTreeSet::new());
        }
        if let Some(before) = &mut announced {
            let now = channels(context);
            let new = &now - before;
            if list || !new.is_empty() {
                writer.send(channels_list(&new)).await?;
            }
            *before = now;
        }
        let now = context.session.mouse_mode(server.absolute());
        if told || now != mode {
            mode = now;
            let modes = supported_modes(context);
            writer
                .send(Message::new(id::MOUSE_MODE).u16(modes).u16(mode as u16))
                .await?;
        }
        if ask {
            let waiting = shared.due.lock().ping;
            match waiting {
                Some((_, since)) if since.elapsed() > PING_TIME => return Err(Ending::Silent),
                Some(_) => {}
                None => {
                    next_ping = next_ping.wrapping_add(1);
                    shared.due.lock().ping = Some((next_ping, Instant::now()));
                    let ping = Message::new(common::PING)
                        .u32(next_ping)
                        .u64(server.uptime_ns());
                    writer.send(ping).await?;
                }
            }
        }
    }
}

/// A mask of the modes that a client may ask for.
fn supported_modes(context: &Context) -> u16 {
    let client = if context.server.absolute() {
        MouseMode::Client as u16
    } else {
        0
    };
    MouseMode::Server as u16 | client
}

/// The channels that the client may open now.
fn channels(context: &Context) -> BTreeSet<Offer> {
    let mut channels = context.server.devices().channels();
    channels.retain(|offer| context.session.permissions().allows(offer.kind));
    channels.into_iter().collect()
}

/// A list of these channels only: clients open each channel that they are told of, even twice.
fn channels_list(channels: &BTreeSet<Offer>) -> Message {
    let count = u32::try_from(channels.len()).unwrap_or(0);
    channels
        .iter()
        .fold(Message::new(id::CHANNELS_LIST).u32(count), |list, offer| {
            list.u8(offer.kind as u8).u8(offer.id)
        })
}
