//! Between one agent and any number of clients: whose bytes go where, and who has to wait.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::assembler::{Assembler, Piece};
use super::caps::Caps;
use super::client::{Client, Pace, ToClient};
use super::clipboard::Clipboards;
use super::files::Files;
use super::guest::GuestQueue;
use super::pointer::Pointer;
use super::wire::{AgentError, ChunkReader, MAX_DATA, Port};
use super::{ClientId, Counters, Destination, Grants, Post};
use crate::input::PointerEvent;
use crate::source::HeadRequest;

/// Reasons of `AGENT_DISCONNECTED` (`SPICE_LINK_ERR_*`): the agent left, or broke the protocol.
const LEFT: u32 = 0;
const BROKEN: u32 = 1;

/// Asks the guest's display driver for monitors; whether it takes them.
pub(super) type AskHeads = Box<dyn Fn(&[HeadRequest]) -> bool + Send>;

/// The guest's end.
#[derive(Debug, Default)]
pub(super) struct AgentEnd {
    pub(super) caps: Option<Caps>,
    /// What the agent knows of the clients, once it knows of any.
    pub(super) shown: Option<Caps>,
    /// It answered to the first client's announcement, and so begins its counts anew.
    pub(super) ready: bool,
    chunks: ChunkReader,
    for_clients: Assembler,
    for_server: Assembler,
    /// Who gets the rest of the message under way.
    audience: Vec<ClientId>,
    /// Nothing that it sends makes sense any more.
    broken: bool,
}

/// All of it. Time is any clock that does not go back.
#[derive(Default)]
pub(super) struct Switchboard {
    pub(super) agent: Option<AgentEnd>,
    pub(super) clients: BTreeMap<ClientId, Client>,
    pub(super) guest: GuestQueue,
    pub(super) clipboards: Clipboards,
    pub(super) files: Files,
    pub(super) pointer: Pointer,
    /// Who waits for the agent's replies, and to what.
    pub(super) replies: VecDeque<(ClientId, u32)>,
    pub(super) heads: Option<AskHeads>,
    pub(super) counters: Counters,
    /// Whose turn comes next.
    turn: ClientId,
}

impl Switchboard {
    /// Whether there is an agent that can be talked to.
    pub(super) fn is_connected(&self) -> bool {
        self.agent.as_ref().is_some_and(|agent| !agent.broken)
    }

    /// Whether nothing of the port's use so far stands against more of it.
    pub(super) fn is_usable(&self) -> bool {
        self.agent.as_ref().is_none_or(|agent| !agent.broken)
    }

    /// Whether the agent moves the guest's pointer.
    pub(super) fn has_pointer(&self) -> bool {
        let caps = self.agent.as_ref().filter(|agent| !agent.broken);
        caps.and_then(|agent| agent.caps)
            .is_some_and(|caps| caps.has(Caps::MOUSE_STATE))
    }

    /// The guest opened its port.
    pub(super) fn open(&mut self) {
        self.close();
        self.agent = Some(AgentEnd::default());
    }

    /// The guest closed its port.
    pub(super) fn close(&mut self) {
        self.forget(LEFT);
        self.agent = None;
    }

    /// Nothing that is under way with the agent will end.
    fn forget(&mut self, reason: u32) {
        if self.agent.is_some() {
            for client in self.clients.values_mut() {
                client.stop(reason);
            }
        }
        self.guest = GuestQueue::default();
        self.clipboards = Clipboards::default();
        self.files.clear();
        self.pointer = Pointer::default();
        self.replies.clear();
    }

    /// Takes what the guest wrote, as far as there is room.
    pub(super) fn hear_guest(&mut self, bytes: &[u8], now: Duration) -> usize {
        let mut taken = 0;
        while taken < bytes.len() && !self.must_agent_wait() {
            let piece = &bytes[taken..bytes.len().min(taken + MAX_DATA)];
            taken += piece.len();
            self.agent_piece(piece, now);
        }
        self.pump(now);
        taken
    }

    /// Whether somebody has to read before the agent may say more.
    fn must_agent_wait(&self) -> bool {
        self.guest.is_overfull() || self.clients.values().any(Client::is_full)
    }

    fn agent_piece(&mut self, bytes: &[u8], now: Duration) {
        let Some(mut agent) = self.agent.take() else {
            return;
        };
        let was_broken = agent.broken;
        if !was_broken {
            let mut chunks = std::mem::take(&mut agent.chunks);
            let outcome = self.agent_chunks(&mut agent, &mut chunks, bytes, now);
            agent.chunks = chunks;
            if let Err(error) = outcome {
                tracing::warn!(%error, "the guest's agent broke the protocol");
                self.counters.broken += 1;
                agent.broken = true;
            }
        }
        let breaks = agent.broken && !was_broken;
        self.agent = Some(agent);
        if breaks {
            self.forget(BROKEN);
        }
    }

    fn agent_chunks(
        &mut self,
        agent: &mut AgentEnd,
        chunks: &mut ChunkReader,
        mut bytes: &[u8],
        now: Duration,
    ) -> Result<(), AgentError> {
        while let Some((port, mut data)) = chunks.next(&mut bytes)? {
            let mut assembler = match port {
                Port::Client => std::mem::take(&mut agent.for_clients),
                Port::Server => std::mem::take(&mut agent.for_server),
            };
            while let Some(piece) = assembler.next(&mut data)? {
                match (port, piece) {
                    (Port::Server, _) => {}
                    (Port::Client, Piece::Message { header, body, left }) => {
                        self.counters.from_agent += 1;
                        let mut post = Post::new();
                        agent.audience =
                            self.agent_message(agent, header, body, left, &mut post)?;
                        self.deliver(post, now);
                    }
                    (Port::Client, Piece::Rest(bytes)) => {
                        for client in &agent.audience {
                            if let Some(client) = self.clients.get_mut(client) {
                                client.push_out(bytes, now);
                            }
                        }
                    }
                }
            }
            match port {
                Port::Client => agent.for_clients = assembler,
                Port::Server => agent.for_server = assembler,
            }
        }
        Ok(())
    }

    /// Puts messages where they go.
    pub(super) fn deliver(&mut self, post: Post, now: Duration) {
        for (to, message) in post {
            match to {
                Destination::Agent => self.guest.push(&message),
                Destination::AgentFromServer => self.guest.push_server(&message),
                Destination::Client(client) => {
                    if let Some(client) = self.clients.get_mut(&client) {
                        client.deliver(&message, now);
                    }
                }
            }
        }
    }

    /// Gives the guest what there is for it.
    pub(super) fn feed_guest(&mut self, buffer: &mut [u8], now: Duration) -> usize {
        self.pump(now);
        let count = self.guest.read(buffer);
        self.pump(now);
        count
    }

    /// Moves what clients sent to the guest's queue, as far as there is room: message by message in
    /// turn, pointer first.
    fn pump(&mut self, now: Duration) {
        while !self.guest.is_full() {
            if let Some(state) = self.pointer.next() {
                self.guest.push_server(&state);
                continue;
            }
            self.guest.pad();
            let next = match self.guest.is_occupied() {
                true => self
                    .guest
                    .lane_owner()
                    .filter(|owner| self.has_sent(*owner)),
                false => self.next_sender(),
            };
            let Some(client) = next else { return };
            self.turn = client + 1;
            if let Err(error) = self.client_piece(client, now) {
                self.fail(client, error);
            }
        }
    }

    fn has_sent(&self, client: ClientId) -> bool {
        self.clients.get(&client).is_some_and(Client::has_sent)
    }

    fn next_sender(&self) -> Option<ClientId> {
        let after = self.clients.range(self.turn..);
        let before = self.clients.range(..self.turn);
        after
            .chain(before)
            .find_map(|(id, client)| client.has_sent().then_some(*id))
    }

    fn client_piece(&mut self, id: ClientId, now: Duration) -> Result<(), AgentError> {
        let Some(client) = self.clients.get_mut(&id) else {
            return Ok(());
        };
        let Some(piece) = client.pop_in(now) else {
            return Ok(());
        };
        let mut assembler = std::mem::take(&mut client.assembler);
        let mut bytes = piece.as_slice();
        while let Some(piece) = assembler.next(&mut bytes)? {
            match piece {
                Piece::Message { header, body, left } => {
                    self.counters.from_clients += 1;
                    let mut post = Post::new();
                    let passed = self.client_message(id, header, body, left, &mut post)?;
                    self.deliver_from(id, passed, left, post, now);
                }
                Piece::Rest(bytes) if self.guest.lane_owner() == Some(id) => {
                    self.guest.proceed(bytes);
                }
                Piece::Rest(_) => {}
            }
        }
        if let Some(client) = self.clients.get_mut(&id) {
            client.assembler = assembler;
        }
        Ok(())
    }

    /// Delivers what came of a client's message. If that is passed on, it is the last for the agent
    /// and its rest follows.
    fn deliver_from(&mut self, id: ClientId, passed: bool, left: u32, post: Post, now: Duration) {
        let last = match passed {
            true => post.iter().rposition(|(to, _)| *to == Destination::Agent),
            false => None,
        };
        for (index, (to, message)) in post.into_iter().enumerate() {
            if Some(index) == last {
                self.guest.begin(&message, id, left);
                if let Some(client) = self.clients.get_mut(&id) {
                    client.giving = Pace::from(now);
                }
            } else {
                self.deliver(vec![(to, message)], now);
            }
        }
    }

    /// A main channel opened.
    pub(super) fn join(
        &mut self,
        id: ClientId,
        grants: Grants,
        counts: bool,
        now: Duration,
    ) -> bool {
        self.withdraw(id, now);
        let told = self.is_connected();
        self.clients.insert(id, Client::new(grants, counts, told));
        told
    }

    /// A main channel closed.
    pub(super) fn leave(&mut self, id: ClientId, now: Duration) {
        self.withdraw(id, now);
        self.clients.remove(&id);
        self.pump(now);
    }

    /// A client's end of the stream begins anew; it takes `tokens` messages.
    pub(super) fn start(&mut self, id: ClientId, tokens: u32, now: Duration) {
        self.withdraw(id, now);
        let connected = self.is_connected();
        if let Some(client) = self.clients.get_mut(&id).filter(|_| connected) {
            client.start(tokens);
        }
    }

    /// Nothing that is under way with this client will end.
    fn withdraw(&mut self, id: ClientId, now: Duration) {
        if self.guest.lane_owner() == Some(id) {
            self.guest.orphan();
        }
        self.replies.retain(|(client, _)| *client != id);
        let mut post = Post::new();
        self.clipboards.leave(id, &mut post);
        self.files.leave(id, &mut post);
        if let Some(client) = self.clients.get_mut(&id) {
            client.void();
        }
        if let Some(mut agent) = self.agent.take() {
            agent.audience.retain(|client| *client != id);
            self.show_clients(&mut agent, &mut post);
            self.agent = Some(agent);
        }
        self.deliver(post, now);
    }

    /// A client sent a piece of its stream.
    pub(super) fn hear_client(
        &mut self,
        id: ClientId,
        piece: Vec<u8>,
        now: Duration,
    ) -> Result<(), AgentError> {
        let Some(client) = self.clients.get_mut(&id) else {
            return Ok(());
        };
        client.push_in(piece)?;
        self.pump(now);
        match self.clients.get_mut(&id).and_then(Client::take_failure) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// A client broke the protocol; its channel ends for it.
    fn fail(&mut self, id: ClientId, error: AgentError) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.fail(error);
        }
        if self.guest.lane_owner() == Some(id) {
            self.guest.orphan();
        }
    }

    /// A client takes more.
    pub(super) fn tokens(&mut self, id: ClientId, tokens: u32) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.add_credit(tokens);
        }
    }

    /// What is to be sent to a client next.
    pub(super) fn next_for(
        &mut self,
        id: ClientId,
        now: Duration,
    ) -> Result<Option<ToClient>, AgentError> {
        let connected = self.is_connected();
        let Some(client) = self.clients.get_mut(&id) else {
            return Ok(None);
        };
        match client.take_failure() {
            Some(error) => Err(error),
            None => Ok(client.pop_out(connected, now)),
        }
    }

    /// The clients that [`Switchboard::next_for`] has something for.
    pub(super) fn due(&self) -> impl Iterator<Item = ClientId> + '_ {
        let connected = self.is_connected();
        let due = move |(id, client): (&ClientId, &Client)| client.is_due(connected).then_some(*id);
        self.clients.iter().filter_map(due)
    }

    /// A client moved the pointer.
    pub(super) fn point(&mut self, event: PointerEvent, now: Duration) {
        if self.has_pointer() {
            self.pointer.take(event);
            self.pump(now);
        }
    }

    /// Gives up whoever holds others up for too long. What such a client has of the stream is void:
    /// it is told that the agent went and came again.
    pub(super) fn tick(&mut self, now: Duration) {
        let lane = self.guest.lane_owner().filter(|_| !self.guest.is_full());
        let is_stuck = |(id, client): (&ClientId, &Client)| {
            client.is_stuck(lane == Some(*id), now).then_some(*id)
        };
        let stuck: Vec<ClientId> = self.clients.iter().filter_map(is_stuck).collect();
        for id in stuck {
            tracing::info!(session = id, "a client holds the agent up and starts anew");
            self.counters.given_up += 1;
            self.withdraw(id, now);
            if let Some(client) = self.clients.get_mut(&id) {
                client.stop(LEFT);
            }
        }
        self.pump(now);
    }

    /// Whether the guest can read something.
    pub(super) fn has_for_guest(&self) -> bool {
        !self.guest.is_empty()
    }

    /// Bytes that are kept for anybody.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        let clients = self.clients.values().map(Client::held);
        self.guest.held() + clients.sum::<usize>()
    }
}
