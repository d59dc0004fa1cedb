//! The main channel: the session itself.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::pings::{Act, Pings};
use super::{Context, Endless, ignore};
use crate::agent::{AgentError, Seat, TOKENS, ToClient};
use crate::devices::Offer;
use crate::protocol::{MouseMode, common, main as id};
use crate::session::Ending;
use crate::wire::{Message, MessageReader, MessageWriter, Reader};

/// Between two looks at whether anybody holds the agent up.
const AGENT_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes of display memory that clients take as a hint for the size of their dictionaries.
const RAM_HINT: u32 = 64 << 20;

struct Shared {
    wake: Arc<Notify>,
    due: Mutex<Due>,
    agent: Option<Seat>,
}

struct Due {
    channels_list: bool,
    mouse_mode: bool,
    migration_refusal: bool,
    pings: Pings,
}

pub(super) async fn serve(
    context: &Context,
    reader: &mut MessageReader,
    writer: &mut MessageWriter,
) -> Endless {
    let wake = Arc::new(Notify::new());
    let counts = context.capabilities.has(id::CAP_AGENT_CONNECTED_TOKENS);
    let shared = Shared {
        agent: context.server.seat(&context.session, counts, wake.clone()),
        wake,
        due: Mutex::new(Due {
            channels_list: false,
            mouse_mode: false,
            migration_refusal: false,
            pings: Pings::new(Instant::now()),
        }),
    };
    tokio::select! {
        end = read(context, &shared, reader) => end,
        end = write(context, &shared, writer) => end,
        end = watch_agent(&shared) => end,
    }
}

async fn read(context: &Context, shared: &Shared, reader: &mut MessageReader) -> Endless {
    loop {
        let (kind, body) = reader.next().await?;
        let malformed = context.malformed(kind);
        let mut fields = Reader(body);
        shared.due.lock().pings.heard(Instant::now());
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
                let round_trip = shared.due.lock().pings.answered(answered, Instant::now());
                if let Some(round_trip) = round_trip {
                    context.session.measured(round_trip);
                }
            }
            // The target of a migration is asked whether it takes over without a new start.
            id::C_MIGRATE_DST_DO_SEAMLESS => shared.due.lock().migration_refusal = true,
            id::C_AGENT_START | id::C_AGENT_TOKEN => {
                let tokens = fields.u32().map_err(malformed)?;
                match &shared.agent {
                    Some(agent) if kind == id::C_AGENT_START => agent.start(tokens),
                    Some(agent) => agent.tokens(tokens),
                    None => {}
                }
            }
            id::C_AGENT_DATA => {
                if let Some(agent) = &shared.agent {
                    agent.data(body).map_err(broken)?;
                }
            }
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
        .u32(
            shared
                .agent
                .as_ref()
                .is_some_and(Seat::began_connected)
                .into(),
        )
        .u32(TOKENS)
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

    let mut channel_changes = server.devices().changes();
    let mut announced = None;
    loop {
        let act = shared.due.lock().pings.act(Instant::now());
        let look_again = match act {
            Act::GiveUp => return Err(Ending::Silent),
            Act::WaitUntil(time) => time,
            Act::Ask(number) => {
                let ping = Message::new(common::PING)
                    .u32(number)
                    .u64(server.uptime_ns());
                writer.send(ping).await?;
                continue;
            }
        };
        tokio::select! {
            () = shared.wake.notified() => {}
            _ = mouse_changes.changed() => {}
            _ = channel_changes.changed() => {}
            () = sleep_until(look_again) => {}
        }
        let (list, told, refuse) = {
            let mut due = shared.due.lock();
            (
                std::mem::take(&mut due.channels_list),
                std::mem::take(&mut due.mouse_mode),
                std::mem::take(&mut due.migration_refusal),
            )
        };
        if refuse {
            // No machine was migrated here whose channels could go on.
            writer
                .send(Message::new(id::MIGRATE_DST_SEAMLESS_NACK))
                .await?;
        }
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
        while let Some(due) = next_for_agent(shared)? {
            writer.send(agent_message(context, due)).await?;
        }
    }
}

fn next_for_agent(shared: &Shared) -> Result<Option<ToClient>, Ending> {
    let agent = shared.agent.as_ref();
    agent.map_or(Ok(None), |agent| agent.next().map_err(broken))
}

fn broken(error: AgentError) -> Ending {
    Ending::Agent {
        error: error.to_string(),
    }
}

fn agent_message(context: &Context, due: ToClient) -> Message {
    match due {
        ToClient::Connected if context.capabilities.has(id::CAP_AGENT_CONNECTED_TOKENS) => {
            Message::new(id::AGENT_CONNECTED_TOKENS).u32(TOKENS)
        }
        ToClient::Connected => Message::new(id::AGENT_CONNECTED),
        ToClient::Disconnected(reason) => Message::new(id::AGENT_DISCONNECTED).u32(reason),
        ToClient::Tokens(count) => Message::new(id::AGENT_TOKEN).u32(count),
        ToClient::Data(data) => Message::with_capacity(id::AGENT_DATA, data.len()).bytes(&data),
    }
}

/// Looks after the agent even while this client takes nothing.
async fn watch_agent(shared: &Shared) -> Endless {
    let mut ticks = interval(AGENT_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Some(agent) = &shared.agent {
            agent.tick();
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
