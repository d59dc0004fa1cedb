//! Who owns the clipboards, and who waits for whose content.
//!
//! The agent knows one client and each client one agent, so the server stands between them: it
//! decides about the order of grabs, speaks each end's dialect, and routes content to who asked.
//!
//! *Races.* With `GRAB_SERIAL` both ends of a link number the grabs on it with one counter for each
//! selection. Two grabs that cross have the same number, and then the client's wins: the agent
//! takes it, the client drops the other. The server is the client's end of its link to the agent,
//! and the agent's end of its links to clients.

use std::collections::{BTreeMap, VecDeque};

use super::caps::Caps;
use super::wire::{AgentError, Header, Outgoing, kind};
use super::{ClientId, Destination, Post};
use crate::wire::Reader;

/// `VD_AGENT_CLIPBOARD_SELECTION_*`: clipboard, primary, secondary.
const SELECTIONS: usize = 3;
/// `VD_AGENT_CLIPBOARD_NONE`: there is no such content.
const NONE: u32 = 0;
/// Types that a grab may offer; there are seven.
const MAX_TYPES: usize = 64;
/// Requests that may wait for content, of each selection and direction.
const MAX_WAITING: usize = 32;

/// How an end of a link writes clipboard messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Dialect {
    /// Each message names its selection.
    selection: bool,
    /// Each grab has a number.
    serial: bool,
    /// No release comes before another grab of the same owner.
    regrab: bool,
}

impl Dialect {
    /// What two ends with these capabilities speak.
    pub(super) fn between(one: Caps, other: Caps) -> Self {
        let both = |bit| one.has(bit) && other.has(bit);
        Self {
            selection: both(Caps::CLIPBOARD_SELECTION),
            serial: both(Caps::CLIPBOARD_GRAB_SERIAL),
            regrab: both(Caps::CLIPBOARD_NO_RELEASE_ON_REGRAB),
        }
    }

    /// The selection that a message is about, `None` for one that nobody knows.
    fn selection(self, fields: &mut Reader<'_>, of: u32) -> Result<Option<usize>, AgentError> {
        if !self.selection {
            return Ok(Some(0));
        }
        let head = fields.bytes(4).map_err(|_| AgentError::Malformed(of))?;
        Ok(Some(usize::from(head[0])).filter(|selection| *selection < SELECTIONS))
    }

    /// A body; `None` if such an end has no such selection.
    fn body(self, selection: usize, content: &[u8]) -> Option<Vec<u8>> {
        match self.selection {
            true => Some([&[selection as u8, 0, 0, 0], content].concat()),
            false => (selection == 0).then(|| content.to_vec()),
        }
    }

    fn message(self, kind: u32, selection: usize, content: &[u8]) -> Option<Outgoing> {
        Some(Outgoing::new(kind, &self.body(selection, content)?))
    }
}

/// One end's link as far as clipboards go.
#[derive(Debug, Default)]
struct Link {
    dialect: Dialect,
    /// The number of the next grab of each selection.
    serials: [u32; SELECTIONS],
    /// The client at the end believes that the guest owns the selection.
    holds: [bool; SELECTIONS],
}

impl Link {
    fn grab(&mut self, selection: usize, types: &[u32]) -> Option<Outgoing> {
        let mut content = Vec::new();
        if self.dialect.serial {
            content.extend(self.serials[selection].to_le_bytes());
        }
        content.extend(types.iter().flat_map(|kind| kind.to_le_bytes()));
        let message = self
            .dialect
            .message(kind::CLIPBOARD_GRAB, selection, &content)?;
        self.serials[selection] = self.serials[selection].wrapping_add(1);
        Some(message)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Owner {
    #[default]
    Nobody,
    Agent,
    Client(ClientId),
}

#[derive(Debug, Default)]
struct Selection {
    owner: Owner,
    /// What the owner offers.
    types: Vec<u32>,
    /// Types that clients asked the agent for, in order. A client that is gone leaves its place:
    /// the answer still comes.
    asked: VecDeque<(Option<ClientId>, u32)>,
    /// Types that the agent asked the owner for.
    wanted: VecDeque<u32>,
}

/// The clipboards of a machine.
#[derive(Debug, Default)]
pub(super) struct Clipboards {
    selections: [Selection; SELECTIONS],
    agent: Link,
    clients: BTreeMap<ClientId, Link>,
}

impl Clipboards {
    /// The agent begins anew: nobody owns anything, and numbers begin at 0.
    pub(super) fn begin(&mut self, dialect: Dialect) {
        self.selections = Default::default();
        self.agent = Link {
            dialect,
            ..Link::default()
        };
    }

    pub(super) fn set_agent_dialect(&mut self, dialect: Dialect) {
        self.agent.dialect = dialect;
    }

    /// A client takes part, or speaks another dialect from now on. A new one is told what the guest
    /// offers.
    pub(super) fn join(&mut self, client: ClientId, dialect: Dialect, post: &mut Post) {
        if let Some(link) = self.clients.get_mut(&client) {
            link.dialect = dialect;
            return;
        }
        let mut link = Link {
            dialect,
            ..Link::default()
        };
        for (index, selection) in self.selections.iter().enumerate() {
            if selection.owner == Owner::Agent
                && let Some(grab) = link.grab(index, &selection.types)
            {
                link.holds[index] = true;
                post.push((Destination::Client(client), grab));
            }
        }
        self.clients.insert(client, link);
    }

    /// A client does not take part any more.
    pub(super) fn leave(&mut self, client: ClientId, post: &mut Post) {
        self.clients.remove(&client);
        for index in 0..SELECTIONS {
            let selection = &mut self.selections[index];
            for (asker, _) in &mut selection.asked {
                asker.take_if(|asker| *asker == client);
            }
            if selection.owner == Owner::Client(client) {
                selection.owner = Owner::Nobody;
                self.disappoint_agent(index, post);
                self.to_agent(kind::CLIPBOARD_RELEASE, index, &[], post);
            }
        }
    }

    /// What a client says. `true` if the message goes to the agent, and its rest with it.
    pub(super) fn hear_client(
        &mut self,
        client: ClientId,
        header: Header,
        body: &[u8],
        left: u32,
        post: &mut Post,
    ) -> Result<bool, AgentError> {
        let malformed = AgentError::Malformed(header.kind);
        let Some(link) = self.clients.get_mut(&client) else {
            return Ok(false);
        };
        let mut fields = Reader(body);
        let Some(index) = link.dialect.selection(&mut fields, header.kind)? else {
            return Ok(false);
        };
        let owner = self.selections[index].owner;
        match header.kind {
            kind::CLIPBOARD_GRAB => {
                if link.dialect.serial {
                    let serial = fields.u32().map_err(|_| malformed)?;
                    let next = &mut link.serials[index];
                    if serial == *next {
                        *next = next.wrapping_add(1);
                    } else if serial != next.wrapping_sub(1) {
                        return Ok(false);
                    }
                }
                let types = types(fields.0, left).ok_or(malformed)?;
                link.holds[index] = false;
                if owner != Owner::Client(client) {
                    self.disappoint_agent(index, post);
                }
                if owner == Owner::Agent {
                    self.release_to_clients(index, post);
                } else if owner != Owner::Nobody && !self.agent.dialect.regrab {
                    self.to_agent(kind::CLIPBOARD_RELEASE, index, &[], post);
                }
                let selection = &mut self.selections[index];
                selection.owner = Owner::Client(client);
                selection.types = types;
                let grab = self.agent.grab(index, &selection.types);
                post.extend(grab.map(|grab| (Destination::Agent, grab)));
            }
            kind::CLIPBOARD_RELEASE if owner == Owner::Client(client) => {
                self.selections[index].owner = Owner::Nobody;
                self.disappoint_agent(index, post);
                self.to_agent(kind::CLIPBOARD_RELEASE, index, &[], post);
            }
            kind::CLIPBOARD_REQUEST => {
                let wanted = fields.u32().map_err(|_| malformed)?;
                let asked = &mut self.selections[index].asked;
                if owner == Owner::Agent && asked.len() < MAX_WAITING {
                    asked.push_back((Some(client), wanted));
                    let content = wanted.to_le_bytes();
                    self.to_agent(kind::CLIPBOARD_REQUEST, index, &content, post);
                } else {
                    self.disappoint(client, index, post);
                }
            }
            kind::CLIPBOARD => {
                let content = fields.u32().map_err(|_| malformed)?;
                let wanted = &mut self.selections[index].wanted;
                let place = wanted
                    .iter()
                    .position(|kind| *kind == content || content == NONE);
                let Some(place) = place.filter(|_| owner == Owner::Client(client)) else {
                    return Ok(false);
                };
                wanted.remove(place);
                let content = [&content.to_le_bytes(), fields.0].concat();
                let Some(body) = self.agent.dialect.body(index, &content) else {
                    return Ok(false);
                };
                post.push((Destination::Agent, Outgoing::passed(header, &body, left)));
                return Ok(true);
            }
            _ => {}
        }
        Ok(false)
    }

    /// What the agent says; the client that the rest of the message goes to.
    pub(super) fn hear_agent(
        &mut self,
        header: Header,
        body: &[u8],
        left: u32,
        post: &mut Post,
    ) -> Result<Option<ClientId>, AgentError> {
        let malformed = AgentError::Malformed(header.kind);
        let mut fields = Reader(body);
        let Some(index) = self.agent.dialect.selection(&mut fields, header.kind)? else {
            return Ok(None);
        };
        let owner = self.selections[index].owner;
        match header.kind {
            kind::CLIPBOARD_GRAB => {
                if self.agent.dialect.serial {
                    let serial = fields.u32().map_err(|_| malformed)?;
                    let next = &mut self.agent.serials[index];
                    if serial != *next {
                        // It crossed one of ours, which the agent takes.
                        return Ok(None);
                    }
                    *next = next.wrapping_add(1);
                }
                let types = types(fields.0, left).ok_or(malformed)?;
                self.disappoint_agent(index, post);
                let selection = &mut self.selections[index];
                selection.owner = Owner::Agent;
                selection.types = types;
                for (client, link) in &mut self.clients {
                    let to = Destination::Client(*client);
                    if link.holds[index] && !link.dialect.regrab {
                        let release = link.dialect.message(kind::CLIPBOARD_RELEASE, index, &[]);
                        post.extend(release.map(|release| (to, release)));
                    }
                    if let Some(grab) = link.grab(index, &selection.types) {
                        link.holds[index] = true;
                        post.push((to, grab));
                    }
                }
            }
            kind::CLIPBOARD_RELEASE if owner == Owner::Agent => {
                self.selections[index].owner = Owner::Nobody;
                self.release_to_clients(index, post);
            }
            kind::CLIPBOARD_REQUEST => {
                let content = fields.u32().map_err(|_| malformed)?;
                let wanted = &mut self.selections[index].wanted;
                wanted.push_back(content);
                match owner {
                    Owner::Client(client) if wanted.len() <= MAX_WAITING => {
                        let content = content.to_le_bytes();
                        self.to_client(client, kind::CLIPBOARD_REQUEST, index, &content, post);
                    }
                    _ => {
                        wanted.pop_back();
                        self.to_agent(kind::CLIPBOARD, index, &NONE.to_le_bytes(), post);
                    }
                }
            }
            kind::CLIPBOARD => {
                let content = fields.u32().map_err(|_| malformed)?;
                let asked = &mut self.selections[index].asked;
                let place = asked
                    .iter()
                    .position(|(_, kind)| *kind == content || content == NONE);
                let asker = place.and_then(|place| asked.remove(place));
                let Some((Some(client), _)) = asker else {
                    return Ok(None);
                };
                let content = [&content.to_le_bytes(), fields.0].concat();
                let link = self.clients.get(&client);
                let body = link.and_then(|link| link.dialect.body(index, &content));
                let Some(body) = body else { return Ok(None) };
                let message = Outgoing::passed(header, &body, left);
                post.push((Destination::Client(client), message));
                return Ok(Some(client));
            }
            _ => {}
        }
        Ok(None)
    }

    /// Tells whoever believes that the guest owns the selection that it does not.
    fn release_to_clients(&mut self, index: usize, post: &mut Post) {
        for (client, link) in &mut self.clients {
            if std::mem::take(&mut link.holds[index]) {
                let release = link.dialect.message(kind::CLIPBOARD_RELEASE, index, &[]);
                post.extend(release.map(|release| (Destination::Client(*client), release)));
            }
        }
    }

    /// Answers everything that the agent waits for: the owner that it asked is not the owner any
    /// more.
    fn disappoint_agent(&mut self, index: usize, post: &mut Post) {
        for _ in std::mem::take(&mut self.selections[index].wanted) {
            self.to_agent(kind::CLIPBOARD, index, &NONE.to_le_bytes(), post);
        }
    }

    fn disappoint(&self, client: ClientId, index: usize, post: &mut Post) {
        let content = NONE.to_le_bytes();
        self.to_client(client, kind::CLIPBOARD, index, &content, post);
    }

    fn to_agent(&self, kind: u32, index: usize, content: &[u8], post: &mut Post) {
        let message = self.agent.dialect.message(kind, index, content);
        post.extend(message.map(|message| (Destination::Agent, message)));
    }

    fn to_client(
        &self,
        client: ClientId,
        kind: u32,
        index: usize,
        content: &[u8],
        post: &mut Post,
    ) {
        let link = self.clients.get(&client);
        let message = link.and_then(|link| link.dialect.message(kind, index, content));
        post.extend(message.map(|message| (Destination::Client(client), message)));
    }
}

/// The types that a grab offers; `None` if it is too long for a grab.
fn types(bytes: &[u8], left: u32) -> Option<Vec<u32>> {
    let (words, _) = bytes.as_chunks();
    (left == 0 && words.len() <= MAX_TYPES)
        .then(|| words.iter().map(|word| u32::from_le_bytes(*word)).collect())
}
