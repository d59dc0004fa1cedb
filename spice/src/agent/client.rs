//! A client's end of the agent's stream: what it sent and was not read yet, and what it is to get.

use std::collections::VecDeque;
use std::time::Duration;

use super::Grants;
use super::assembler::Assembler;
use super::caps::Caps;
use super::wire::{AgentError, MAX_DATA, Outgoing};

/// Messages that a client may send ahead, as the reference server allows.
pub(crate) const TOKENS: u32 = 10;
/// Tokens are given back in lots of this many.
const TOKEN_LOT: u32 = 5;
/// Messages of a client that are kept unread. A client that was never told how many tokens it has
/// may be somewhat ahead of our count.
const MAX_INBOX: usize = 4 * TOKENS as usize;
/// Bytes for a client past which the agent waits.
const FULL: usize = 64 * 1024;
/// A client that holds others up moves this many bytes in each [`PATIENCE`].
const PACE: usize = 64 * 1024;
/// How long an end may hold others up.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a client's main channel is to send it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ToClient {
    /// `AGENT_CONNECTED_TOKENS` with [`TOKENS`], or `AGENT_CONNECTED`.
    Connected,
    /// `AGENT_DISCONNECTED` with a reason (`SPICE_LINK_ERR_*`).
    Disconnected(u32),
    /// `AGENT_TOKEN`.
    Tokens(u32),
    /// `AGENT_DATA`.
    Data(Vec<u8>),
}

/// Whether something moves fast enough while others wait for it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pace {
    since: Duration,
    bytes: usize,
}

impl Pace {
    /// Others wait from now on.
    pub(super) fn from(now: Duration) -> Self {
        Self {
            since: now,
            bytes: 0,
        }
    }

    pub(super) fn moved(&mut self, bytes: usize, now: Duration) {
        self.bytes += bytes;
        if self.bytes >= PACE {
            *self = Self::from(now);
        }
    }

    fn is_too_slow(self, now: Duration) -> bool {
        now.saturating_sub(self.since) > PATIENCE
    }
}

/// A client as far as the agent goes.
#[derive(Debug, Default)]
pub(super) struct Client {
    pub(super) grants: Grants,
    /// It begins to count its tokens anew with each agent.
    counts: bool,
    /// It announced that it has an end for the agent to talk to (`AGENT_START`), since it was last
    /// told that there is an agent.
    pub(super) started: bool,
    /// What it announced; `None` before.
    pub(super) caps: Option<Caps>,
    pub(super) assembler: Assembler,
    inbox: VecDeque<Vec<u8>>,
    outbox: VecDeque<Vec<u8>>,
    outbox_bytes: usize,
    /// Data messages that it still takes; `u32::MAX` is without end.
    credit: u32,
    /// Tokens to give back.
    owed: u32,
    /// It believes that there is an agent.
    told: bool,
    /// Why what it believes is not so any more.
    stale: Option<u32>,
    /// It broke the protocol.
    failure: Option<AgentError>,
    /// How it sends a message that nobody else's can pass.
    pub(super) giving: Pace,
    /// How it takes what the agent sends; only while that is much.
    taking: Option<Pace>,
}

impl Client {
    /// A client that is told in its `INIT` whether there is an agent.
    pub(super) fn new(grants: Grants, counts: bool, told: bool) -> Self {
        Self {
            grants,
            counts,
            told,
            ..Self::default()
        }
    }

    /// Its end of the stream is void.
    pub(super) fn void(&mut self) {
        let owed = match self.counts {
            true => 0,
            false => self.owed + self.inbox.len() as u32,
        };
        *self = Self {
            owed,
            stale: self.stale,
            failure: self.failure.take(),
            ..Self::new(self.grants, self.counts, self.told)
        };
    }

    /// Its end of the stream is void, and it is to hear of it before anything else.
    pub(super) fn stop(&mut self, reason: u32) {
        self.void();
        self.stale = self.told.then_some(reason);
    }

    /// It begins, and takes `credit` messages. What it says to an agent that it does not know to be
    /// gone is not for the next one.
    pub(super) fn start(&mut self, credit: u32) {
        self.started = self.stale.is_none();
        self.credit = credit;
    }

    /// Keeps a piece of its stream, unless nobody is there to read it.
    pub(super) fn push_in(&mut self, piece: Vec<u8>) -> Result<(), AgentError> {
        if piece.len() > MAX_DATA {
            return Err(AgentError::Piece(piece.len()));
        }
        if !self.started {
            self.owed += u32::from(!self.counts);
            return Ok(());
        }
        if self.inbox.len() >= MAX_INBOX {
            return Err(AgentError::Tokens);
        }
        self.inbox.push_back(piece);
        Ok(())
    }

    /// The next piece of its stream, for which it gets its token back.
    pub(super) fn pop_in(&mut self, now: Duration) -> Option<Vec<u8>> {
        let piece = self.inbox.pop_front()?;
        self.owed += 1;
        self.giving.moved(piece.len(), now);
        Some(piece)
    }

    pub(super) fn has_sent(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// Queues bytes of a message for it.
    pub(super) fn push_out(&mut self, bytes: &[u8], now: Duration) {
        if !self.started {
            return;
        }
        self.outbox_bytes += bytes.len();
        self.outbox
            .extend(bytes.chunks(MAX_DATA).map(<[u8]>::to_vec));
        if self.is_full() {
            self.taking.get_or_insert_with(|| Pace::from(now));
        }
    }

    pub(super) fn deliver(&mut self, message: &Outgoing, now: Duration) {
        self.push_out(message.bytes(), now);
    }

    /// Whether the agent has to wait for it.
    pub(super) fn is_full(&self) -> bool {
        self.outbox_bytes >= FULL
    }

    /// Whether it holds others up for too long; `in_lane` if its message is under way to the agent.
    pub(super) fn is_stuck(&self, in_lane: bool, now: Duration) -> bool {
        let slow = |pace: Pace| pace.is_too_slow(now);
        self.is_full() && self.taking.is_some_and(slow) || in_lane && slow(self.giving)
    }

    pub(super) fn add_credit(&mut self, tokens: u32) {
        self.credit = self.credit.saturating_add(tokens);
    }

    /// What is to be sent to it next; `agent` says whether there is one.
    pub(super) fn pop_out(&mut self, agent: bool, now: Duration) -> Option<ToClient> {
        if let Some(reason) = self.stale.take() {
            self.told = false;
            return Some(ToClient::Disconnected(reason));
        }
        if agent && !self.told {
            self.told = true;
            return Some(ToClient::Connected);
        }
        if self.owed >= TOKEN_LOT {
            return Some(ToClient::Tokens(std::mem::take(&mut self.owed)));
        }
        if self.credit == 0 {
            return None;
        }
        let data = self.outbox.pop_front()?;
        self.outbox_bytes -= data.len();
        if let Some(pace) = &mut self.taking {
            pace.moved(data.len(), now);
        }
        self.taking.take_if(|_| self.outbox_bytes < FULL / 2);
        if self.credit != u32::MAX {
            self.credit -= 1;
        }
        Some(ToClient::Data(data))
    }

    /// Whether [`Client::pop_out`] or [`Client::take_failure`] has something.
    pub(super) fn is_due(&self, agent: bool) -> bool {
        self.failure.is_some()
            || self.stale.is_some()
            || agent && !self.told
            || self.owed >= TOKEN_LOT
            || self.credit > 0 && !self.outbox.is_empty()
    }

    /// What the agent can do, as far as this client may make use of it.
    pub(super) fn view(&self, agent: Caps) -> Caps {
        agent.of_agent(self.grants.clipboard, self.grants.file_transfer)
    }

    /// What it can do, as far as it may.
    pub(super) fn offered(&self) -> Option<Caps> {
        let caps = self.caps?;
        Some(match self.grants.clipboard {
            true => caps,
            false => caps.without(&Caps::ALL_CLIPBOARD),
        })
    }

    /// It broke the protocol: nothing of it is read any more.
    pub(super) fn fail(&mut self, error: AgentError) {
        self.failure = Some(error);
        self.started = false;
        self.inbox.clear();
    }

    pub(super) fn take_failure(&mut self) -> Option<AgentError> {
        self.failure.take()
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.outbox_bytes + self.inbox.iter().map(Vec::len).sum::<usize>()
    }
}
