//! The guest's agent: the stream of the port `com.redhat.spice.0`, shared by all clients.
//!
//! An agent (spice-vdagent and its like) talks to one client. The server is that client to it, and
//! the agent to each client: it puts every stream's messages together, checks them, decides about
//! each and sends it on, so that nobody's half message, number or mistake reaches anybody else.
//!
//! *Who owns what.* The newest grab of a clipboard counts, whoever it is from; content goes to who
//! asked for it and nowhere else, and one client's clipboard is never another's. Files are numbered
//! anew. The newest request for monitors counts. Replies go to who asked. The volume of sound, and
//! messages that this server does not know, go to everybody.
//!
//! *Who waits.* Each direction of each client and of the guest has a bounded queue. An agent that
//! does not read makes the clients' tokens run out, and nothing but agent traffic waits for it. A
//! client that takes less than 64 KiB in ten seconds while the agent has more for it, or sends less
//! of a long message that it has begun, is told that the agent is gone and there again: what was
//! under way is lost to it, and nobody waits for it any longer.

mod assembler;
mod caps;
mod client;
mod clipboard;
mod dispatch;
mod files;
mod guest;
mod pointer;
mod switchboard;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, watch};

use crate::input::PointerEvent;
use switchboard::{AskHeads, Switchboard};
use wire::Outgoing;

pub(crate) use client::{TOKENS, ToClient};
pub(crate) use wire::AgentError;

/// A session's id.
type ClientId = u32;

/// Where a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Destination {
    /// To the agent, as from its client.
    Agent,
    /// To the agent, as from the server.
    AgentFromServer,
    Client(ClientId),
}

/// Messages on their way.
type Post = Vec<(Destination, Outgoing)>;

/// What a client may do by way of the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Grants {
    pub(crate) clipboard: bool,
    pub(crate) file_transfer: bool,
    /// Monitors, volume, and what else acts on the guest.
    pub(crate) control: bool,
}

/// What happened on an agent's stream, since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counters {
    /// Messages from the agent.
    pub from_agent: u64,
    /// Messages from clients.
    pub from_clients: u64,
    /// Times that the agent broke the protocol and was not listened to until it came anew.
    pub broken: u64,
    /// Times that a client held the agent up and had to begin anew.
    pub given_up: u64,
}

/// An agent at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct AgentInfo {
    /// There is one, and clients can talk to it.
    pub connected: bool,
    /// It moves the guest's pointer.
    pub pointer: bool,
    /// What happened.
    pub counters: Counters,
}

type Waker = Arc<dyn Fn() + Send + Sync>;

/// The port through which a guest's agent and a server's clients talk. Whoever has the guest's end,
/// a virtio console port or a Unix socket, carries its bytes; a [`Server`](crate::Server) that has
/// it among its [`Devices`](crate::Devices) does the rest.
///
/// None of the methods waits.
pub struct Agent {
    state: Mutex<State>,
    started: Instant,
    /// [`AgentInfo::pointer`] is different.
    pointer_changes: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    board: Switchboard,
    wakes: BTreeMap<ClientId, Arc<Notify>>,
    waker: Option<Waker>,
    /// The guest has more than there was room for.
    guest_waits: bool,
}

impl Agent {
    /// A port that no guest has opened.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            started: Instant::now(),
            pointer_changes: watch::Sender::new(()),
        })
    }

    /// The guest opened its end: an agent is there. One that was there before is gone.
    pub fn open(&self) {
        self.by_guest(|state, _| state.board.open());
    }

    /// The guest closed its end: nothing of what was under way is kept.
    pub fn close(&self) {
        self.by_guest(|state, _| state.board.close());
    }

    /// Whether there is any use in opening it: not after the guest's agent broke the protocol, until
    /// that has closed its end.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.state.lock().board.is_usable()
    }

    /// Takes bytes from the guest; how many, which are fewer if clients or the guest have to read
    /// first. There may be something to [`read`](Self::read) afterwards.
    pub fn write(&self, bytes: &[u8]) -> usize {
        self.by_guest(|state, now| {
            let taken = state.board.hear_guest(bytes, now);
            state.guest_waits = taken < bytes.len();
            taken
        })
    }

    /// Puts bytes for the guest into `buffer`; how many, 0 if there are none. Afterwards there may
    /// be room to [`write`](Self::write).
    pub fn read(&self, buffer: &mut [u8]) -> usize {
        self.by_guest(|state, now| state.board.feed_guest(buffer, now))
    }

    /// Calls `waker` from now on whenever there is something to [`read`](Self::read), or room for
    /// a [`write`](Self::write) that was cut short, by what a client did. It is called on the thread
    /// that drives the server and must not call back.
    pub fn on_progress(&self, waker: impl Fn() + Send + Sync + 'static) {
        self.state.lock().waker = Some(Arc::new(waker));
    }

    /// What it does now, and did.
    #[must_use]
    pub fn info(&self) -> AgentInfo {
        let board = &self.state.lock().board;
        AgentInfo {
            connected: board.is_connected(),
            pointer: board.has_pointer(),
            counters: board.counters,
        }
    }

    /// Carries the bytes of `stream`, the guest's end, until that ends.
    ///
    /// # Errors
    ///
    /// Whatever `stream` says.
    pub async fn carry(&self, stream: impl AsyncRead + AsyncWrite) -> io::Result<()> {
        let progress = Arc::new(Notify::new());
        let waker = progress.clone();
        self.on_progress(move || waker.notify_one());
        self.open();
        let (mut from, mut to) = tokio::io::split(stream);
        let room = Notify::new();
        let inward = async {
            let mut buffer = vec![0; 16 * 1024];
            loop {
                let got = from.read(&mut buffer).await?;
                if got == 0 {
                    return Ok(());
                }
                let mut rest = &buffer[..got];
                while !rest.is_empty() {
                    let taken = self.write(rest);
                    rest = &rest[taken..];
                    if taken > 0 {
                        // There may be an answer.
                        progress.notify_one();
                    }
                    if !rest.is_empty() {
                        room.notified().await;
                    }
                }
            }
        };
        let outward = async {
            let mut buffer = vec![0; 16 * 1024];
            loop {
                progress.notified().await;
                room.notify_one();
                loop {
                    let count = self.read(&mut buffer);
                    if count == 0 {
                        break;
                    }
                    to.write_all(&buffer[..count]).await?;
                    to.flush().await?;
                    room.notify_one();
                }
            }
        };
        let ended = tokio::select! {
            ended = inward => ended,
            ended = outward => ended,
        };
        self.close();
        ended
    }

    /// Runs on the guest's side of the port: clients hear of it, the guest does not.
    fn by_guest<R>(&self, act: impl FnOnce(&mut State, Duration) -> R) -> R {
        self.act(act).0
    }

    /// Runs on the clients' side: the guest hears of it too.
    fn by_client<R>(&self, act: impl FnOnce(&mut Switchboard, Duration) -> R) -> R {
        let (result, waker) = self.act(|state, now| act(&mut state.board, now));
        if let Some(waker) = waker {
            waker();
        }
        result
    }

    fn act<R>(&self, act: impl FnOnce(&mut State, Duration) -> R) -> (R, Option<Waker>) {
        let now = self.started.elapsed();
        let mut state = self.state.lock();
        let had_pointer = state.board.has_pointer();
        let result = act(&mut state, now);
        for id in state.board.due() {
            if let Some(wake) = state.wakes.get(&id) {
                wake.notify_one();
            }
        }
        let pointer_changed = had_pointer != state.board.has_pointer();
        let awaited = state.guest_waits || state.board.has_for_guest();
        let waker = state.waker.clone().filter(|_| awaited);
        drop(state);
        if pointer_changed {
            self.pointer_changes.send_replace(());
        }
        (result, waker)
    }

    /// Asks `heads` about clients' wishes for monitors before the agent.
    pub(crate) fn set_heads(&self, heads: AskHeads) {
        self.state.lock().board.heads = Some(heads);
    }

    /// Where changes of [`Agent::has_pointer`] are told, beside others of the pointer.
    pub(crate) fn pointer_changes(&self) -> watch::Sender<()> {
        self.pointer_changes.clone()
    }

    pub(crate) fn has_pointer(&self) -> bool {
        self.state.lock().board.has_pointer()
    }

    pub(crate) fn point(&self, event: PointerEvent) {
        self.by_client(|board, now| board.point(event, now));
    }

    /// A client's seat, for as long as it is kept; `wake` is rung when it is to ask
    /// [`Seat::next`]. `counts` says whether the client begins to count its tokens anew with each
    /// agent.
    pub(crate) fn seat(
        self: &Arc<Self>,
        id: ClientId,
        grants: Grants,
        counts: bool,
        wake: Arc<Notify>,
    ) -> Seat {
        self.state.lock().wakes.insert(id, wake);
        let told = self.by_client(|board, now| board.join(id, grants, counts, now));
        Seat {
            agent: self.clone(),
            id,
            told,
        }
    }
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent").field("info", &self.info()).finish()
    }
}

/// A client's place at the agent's port.
pub(crate) struct Seat {
    agent: Arc<Agent>,
    id: ClientId,
    told: bool,
}

impl Seat {
    /// Whether the client's `INIT` is to say that there is an agent.
    pub(crate) fn began_connected(&self) -> bool {
        self.told
    }

    /// `AGENT_START`.
    pub(crate) fn start(&self, tokens: u32) {
        self.agent
            .by_client(|board, now| board.start(self.id, tokens, now));
    }

    /// `AGENT_TOKEN`.
    pub(crate) fn tokens(&self, tokens: u32) {
        self.agent
            .by_client(|board, _| board.tokens(self.id, tokens));
    }

    /// `AGENT_DATA`.
    pub(crate) fn data(&self, piece: &[u8]) -> Result<(), AgentError> {
        self.agent
            .by_client(|board, now| board.hear_client(self.id, piece.to_vec(), now))
    }

    /// What to send to the client next.
    pub(crate) fn next(&self) -> Result<Option<ToClient>, AgentError> {
        self.agent
            .by_client(|board, now| board.next_for(self.id, now))
    }

    /// Gives up whoever holds others up; to be called once a second or so.
    pub(crate) fn tick(&self) {
        self.agent.by_client(Switchboard::tick);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.agent.state.lock().wakes.remove(&self.id);
        self.agent.by_client(|board, now| board.leave(self.id, now));
    }
}
