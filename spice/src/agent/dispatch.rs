//! What each message means to the switchboard.

use super::caps::Caps;
use super::client::Client;
use super::clipboard::Dialect;
use super::switchboard::{AgentEnd, Switchboard};
use super::wire::{AgentError, Header, Outgoing, kind};
use super::{ClientId, Destination, Post};
use crate::source::HeadRequest;
use crate::wire::{Reader, Truncated};

/// Replies that may be outstanding; agents answer to a few messages only, in order.
const MAX_REPLIES: usize = 32;
/// Monitors in one request, as in the reference server.
const MAX_MONITORS: u32 = 256;
/// `VDAgentMonitorsConfig`: how many monitors, and flags.
const MONITORS_HEADER: usize = 8;
/// `VDAgentMonConfig`: height, width, depth, x and y.
const MONITOR: usize = 20;
/// `VD_AGENT_CONFIG_MONITORS_FLAG_USE_POS`.
const USE_POSITIONS: u32 = 1;

impl Switchboard {
    /// Acts on a client's message. `true` if it is passed on to the agent, and its rest with it.
    pub(super) fn client_message(
        &mut self,
        id: ClientId,
        header: Header,
        body: &[u8],
        left: u32,
        post: &mut Post,
    ) -> Result<bool, AgentError> {
        let malformed = |_: Truncated| AgentError::Malformed(header.kind);
        let Some(grants) = self.clients.get(&id).map(|client| client.grants) else {
            return Ok(false);
        };
        match header.kind {
            kind::ANNOUNCE_CAPABILITIES => {
                let (request, caps) = Caps::parse(body).map_err(malformed)?;
                self.client_announced(id, request, caps, post);
                Ok(false)
            }
            kind::CLIPBOARD
            | kind::CLIPBOARD_GRAB
            | kind::CLIPBOARD_REQUEST
            | kind::CLIPBOARD_RELEASE => self.clipboards.hear_client(id, header, body, left, post),
            kind::FILE_XFER_START | kind::FILE_XFER_STATUS | kind::FILE_XFER_DATA => {
                let owner = (id, grants.file_transfer);
                self.files.hear_client(owner, header, body, left, post)
            }
            // The pointer is the server's to move, and only it knows who is there.
            kind::MOUSE_STATE | kind::CLIENT_DISCONNECTED | kind::GRAPHICS_DEVICE_INFO => Ok(false),
            kind::MAX_CLIPBOARD if !grants.clipboard => Ok(false),
            _ if header.kind != kind::MAX_CLIPBOARD && !grants.control => Ok(false),
            kind::MONITORS_CONFIG => {
                let heads = monitors(body).map_err(malformed)?;
                // The newest request counts, whoever it is from.
                let taken = self.heads.as_ref().is_some_and(|ask| ask(&heads));
                if !taken {
                    let request = without_millimetres(body, heads.len());
                    self.pass(id, header, &request, 0, post);
                }
                Ok(false)
            }
            _ => {
                self.pass(id, header, body, left, post);
                Ok(true)
            }
        }
    }

    fn pass(&mut self, id: ClientId, header: Header, body: &[u8], left: u32, post: &mut Post) {
        if matches!(header.kind, kind::MONITORS_CONFIG | kind::DISPLAY_CONFIG) {
            self.replies.push_back((id, header.kind));
            self.replies
                .drain(..self.replies.len().saturating_sub(MAX_REPLIES));
        }
        let message = Outgoing::passed(header, body, left);
        post.push((Destination::Agent, message));
    }

    fn client_announced(&mut self, id: ClientId, request: bool, caps: Caps, post: &mut Post) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        client.caps = Some(caps);
        let agent = self.agent.as_ref().and_then(|agent| agent.caps);
        if let Some(agent) = agent.filter(|_| request) {
            let body = client.view(agent).announcement(false);
            let answer = Outgoing::new(kind::ANNOUNCE_CAPABILITIES, &body);
            post.push((Destination::Client(id), answer));
        }
        if let Some(mut agent) = self.agent.take() {
            self.show_clients(&mut agent, post);
            self.agent = Some(agent);
        }
        self.join_clipboards(id, agent, post);
    }

    /// Tells the agent of the clients as if they were one: what they can do together, and when the
    /// first came or the last went. Asking for an answer tells an agent that another client is
    /// there, which makes it forget all before; hence only the first client's announcement asks.
    pub(super) fn show_clients(&mut self, agent: &mut AgentEnd, post: &mut Post) {
        let all = self.clients.values().filter_map(Client::offered);
        let together = all.reduce(Caps::union).map(Caps::of_clients);
        match together {
            None => {
                if agent.shown.take().is_some() {
                    agent.ready = false;
                    let gone = Outgoing::new(kind::CLIENT_DISCONNECTED, &[]);
                    post.push((Destination::AgentFromServer, gone));
                }
            }
            Some(caps) if agent.shown != Some(caps) => {
                let is_first = agent.shown.is_none();
                let body = caps.announcement(is_first);
                let announce = Outgoing::new(kind::ANNOUNCE_CAPABILITIES, &body);
                post.push((Destination::Agent, announce));
                agent.shown = Some(caps);
                let dialect = agent_dialect(agent);
                match is_first {
                    true => self.clipboards.begin(dialect),
                    false => self.clipboards.set_agent_dialect(dialect),
                }
            }
            Some(_) => {}
        }
    }

    /// Lets a client take part in clipboards, if it may and can, in the dialect that both know.
    fn join_clipboards(&mut self, id: ClientId, agent: Option<Caps>, post: &mut Post) {
        let client = self.clients.get(&id);
        let may = client.filter(|client| client.grants.clipboard);
        if let (Some(agent), Some(caps)) = (agent, may.and_then(|client| client.caps)) {
            let dialect = Dialect::between(agent, caps);
            self.clipboards.join(id, dialect, post);
        }
    }

    /// Acts on the agent's message; the clients that its rest goes to.
    pub(super) fn agent_message(
        &mut self,
        agent: &mut AgentEnd,
        header: Header,
        body: &[u8],
        left: u32,
        post: &mut Post,
    ) -> Result<Vec<ClientId>, AgentError> {
        let malformed = |_: Truncated| AgentError::Malformed(header.kind);
        let audience = match header.kind {
            kind::ANNOUNCE_CAPABILITIES => {
                let (request, caps) = Caps::parse(body).map_err(malformed)?;
                self.agent_announced(agent, request, caps, post);
                return Ok(Vec::new());
            }
            kind::CLIPBOARD
            | kind::CLIPBOARD_GRAB
            | kind::CLIPBOARD_REQUEST
            | kind::CLIPBOARD_RELEASE => match agent.ready {
                true => self.clipboards.hear_agent(header, body, left, post)?,
                false => None,
            },
            kind::FILE_XFER_STATUS => self.files.hear_agent(header, body, left, post)?,
            kind::REPLY => {
                let to = Reader(body).u32().map_err(malformed)?;
                let place = self.replies.iter().position(|(_, kind)| *kind == to);
                let asker = place.and_then(|place| self.replies.remove(place));
                let asker = asker.map(|(client, _)| client);
                let message = Outgoing::passed(header, body, left);
                post.extend(asker.map(|client| (Destination::Client(client), message)));
                asker
            }
            kind::MOUSE_STATE
            | kind::MONITORS_CONFIG
            | kind::FILE_XFER_START
            | kind::FILE_XFER_DATA
            | kind::CLIENT_DISCONNECTED
            | kind::GRAPHICS_DEVICE_INFO => None,
            // The volume of the guest's sound, and whatever is newer than this server, is for all.
            _ => {
                let all = self.clients.iter().filter(|(_, client)| client.started);
                let all: Vec<ClientId> = all.map(|(id, _)| *id).collect();
                let message = Outgoing::passed(header, body, left);
                post.extend(
                    all.iter()
                        .map(|id| (Destination::Client(*id), message.clone())),
                );
                return Ok(all);
            }
        };
        Ok(audience.into_iter().collect())
    }

    fn agent_announced(
        &mut self,
        agent: &mut AgentEnd,
        request: bool,
        caps: Caps,
        post: &mut Post,
    ) {
        agent.caps = Some(caps);
        agent.ready |= !request;
        self.clipboards.set_agent_dialect(agent_dialect(agent));
        if let Some(shown) = agent.shown.filter(|_| request) {
            let answer = Outgoing::new(kind::ANNOUNCE_CAPABILITIES, &shown.announcement(false));
            post.push((Destination::Agent, answer));
        }
        let listening: Vec<(ClientId, bool, Caps)> = self
            .clients
            .iter()
            .filter(|(_, client)| client.started)
            .map(|(id, client)| (*id, client.caps.is_some(), client.view(caps)))
            .collect();
        for (id, announced, shown) in listening {
            // Whoever did not say yet what it can do is asked to.
            let body = shown.announcement(!announced);
            let announce = Outgoing::new(kind::ANNOUNCE_CAPABILITIES, &body);
            post.push((Destination::Client(id), announce));
            self.join_clipboards(id, Some(caps), post);
        }
    }
}

fn agent_dialect(agent: &AgentEnd) -> Dialect {
    let both = agent.caps.zip(agent.shown);
    both.map_or_else(Dialect::default, |(agent, clients)| {
        Dialect::between(agent, clients)
    })
}

/// A request of `count` monitors without what spice-gtk adds to it: how large they are in millimetres.
///
/// No capability says which agents know that, and spice-vdagent (0.22) refuses the longer message.
fn without_millimetres(body: &[u8], count: usize) -> Vec<u8> {
    let mut request = body[..MONITORS_HEADER + count * MONITOR].to_vec();
    let flags = &mut request[size_of::<u32>()..MONITORS_HEADER];
    for (flag, known) in flags.iter_mut().zip(USE_POSITIONS.to_le_bytes()) {
        *flag &= known;
    }
    request
}

/// The monitors that `MONITORS_CONFIG` asks for; those without a place stand side by side.
fn monitors(body: &[u8]) -> Result<Vec<HeadRequest>, Truncated> {
    let mut fields = Reader(body);
    let (count, flags) = (fields.u32()?, fields.u32()?);
    if count > MAX_MONITORS {
        return Err(Truncated);
    }
    let mut right = 0_i32;
    (0..count)
        .map(|_| {
            let (height, width, _depth) = (fields.u32()?, fields.u32()?, fields.u32()?);
            let (mut x, y) = (fields.i32()?, fields.i32()?);
            if flags & USE_POSITIONS == 0 {
                x = right;
                right = right.saturating_add_unsigned(width);
            }
            Ok(HeadRequest {
                width,
                height,
                x,
                y,
            })
        })
        .collect()
}
