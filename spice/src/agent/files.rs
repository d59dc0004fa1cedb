//! Files on their way to the guest.
//!
//! Each client numbers its own, so two of them use the same numbers; the agent sees numbers of ours.

use std::collections::BTreeMap;

use super::wire::{AgentError, Header, Outgoing, kind};
use super::{ClientId, Destination, Post};
use crate::wire::Reader;

/// Files under way at a time, as many as spice-vdagentd takes.
const MAX_FILES: usize = 128;

/// `VD_AGENT_FILE_XFER_STATUS_*`.
mod status {
    pub(super) const CAN_SEND_DATA: u32 = 0;
    pub(super) const CANCELLED: u32 = 1;
    pub(super) const ERROR: u32 = 2;
    pub(super) const DISABLED: u32 = 7;
}

/// The files under way.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// By the agent's number: whose file it is, and that client's number.
    under_way: BTreeMap<u32, (ClientId, u32)>,
    next: u32,
}

impl Files {
    /// Another agent knows nothing of them.
    pub(super) fn clear(&mut self) {
        self.under_way.clear();
    }

    /// A client is gone, and the agent is to forget its files.
    pub(super) fn leave(&mut self, client: ClientId, post: &mut Post) {
        self.under_way.retain(|number, (owner, _)| {
            if *owner == client {
                let body = answer(*number, status::CANCELLED);
                let cancel = Outgoing::new(kind::FILE_XFER_STATUS, &body);
                post.push((Destination::Agent, cancel));
            }
            *owner != client
        });
    }

    /// What a client says. `true` if the message goes to the agent, and its rest with it.
    pub(super) fn hear_client(
        &mut self,
        (client, allowed): (ClientId, bool),
        header: Header,
        body: &[u8],
        left: u32,
        post: &mut Post,
    ) -> Result<bool, AgentError> {
        let mut fields = Reader(body);
        let theirs = fields
            .u32()
            .map_err(|_| AgentError::Malformed(header.kind))?;
        let known = self
            .under_way
            .iter()
            .find_map(|(ours, file)| (*file == (client, theirs)).then_some(*ours));
        let number = match (header.kind, known) {
            (kind::FILE_XFER_START, None) if !allowed => Err(status::DISABLED),
            (kind::FILE_XFER_START, None) if self.under_way.len() < MAX_FILES => {
                Ok(Some(self.begin(client, theirs)))
            }
            (kind::FILE_XFER_START, _) => Err(status::ERROR),
            (kind::FILE_XFER_STATUS, Some(ours)) => {
                self.under_way.remove(&ours);
                Ok(Some(ours))
            }
            (_, known) => Ok(known),
        };
        match number {
            Ok(Some(number)) => {
                let body = [&number.to_le_bytes(), fields.0].concat();
                post.push((Destination::Agent, Outgoing::passed(header, &body, left)));
                Ok(true)
            }
            // It was cancelled while its data was on the way.
            Ok(None) => Ok(false),
            Err(result) => {
                let refusal = Outgoing::new(kind::FILE_XFER_STATUS, &answer(theirs, result));
                post.push((Destination::Client(client), refusal));
                Ok(false)
            }
        }
    }

    fn begin(&mut self, client: ClientId, theirs: u32) -> u32 {
        while self.under_way.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let ours = self.next;
        self.next = self.next.wrapping_add(1);
        self.under_way.insert(ours, (client, theirs));
        ours
    }

    /// How a file fares in the guest; the client that the rest of the message goes to.
    pub(super) fn hear_agent(
        &mut self,
        header: Header,
        body: &[u8],
        left: u32,
        post: &mut Post,
    ) -> Result<Option<ClientId>, AgentError> {
        let malformed = |_| AgentError::Malformed(header.kind);
        let mut fields = Reader(body);
        let ours = fields.u32().map_err(malformed)?;
        let Some(&(client, theirs)) = self.under_way.get(&ours) else {
            return Ok(None);
        };
        if Reader(fields.0).u32().map_err(malformed)? != status::CAN_SEND_DATA {
            self.under_way.remove(&ours);
        }
        let body = [&theirs.to_le_bytes(), fields.0].concat();
        let message = Outgoing::passed(header, &body, left);
        post.push((Destination::Client(client), message));
        Ok(Some(client))
    }
}

fn answer(number: u32, result: u32) -> Vec<u8> {
    [number.to_le_bytes(), result.to_le_bytes()].concat()
}
