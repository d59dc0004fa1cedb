//! The guest's end of the agent's stream: what it is to get.

use std::collections::VecDeque;

use super::ClientId;
use super::wire::{CHUNK_HEADER, MAX_DATA, Outgoing, Port};

/// Bytes for the guest past which clients wait.
const FULL: usize = 64 * 1024;
/// Bytes for the guest past which nothing of its own is taken either: its requests make answers.
const OVERFULL: usize = 256 * 1024;
/// A piece of what nobody sends any more.
const NOTHING: [u8; MAX_DATA] = [0; MAX_DATA];

/// What the guest is to get, in chunks. Whatever message is begun is finished, so that the guest
/// never loses its place.
#[derive(Debug, Default)]
pub(super) struct GuestQueue {
    bytes: VecDeque<u8>,
    /// A client's message that is passed on while it comes.
    lane: Option<Lane>,
    /// Messages of clients' port that wait for the lane's end.
    waiting: Vec<Outgoing>,
}

#[derive(Debug)]
struct Lane {
    /// Who sends the rest; `None` if nobody does and zeroes take its place.
    owner: Option<ClientId>,
    left: u32,
}

impl GuestQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether clients have to wait.
    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() >= FULL
    }

    /// Whether the guest has to read before it may say more.
    pub(super) fn is_overfull(&self) -> bool {
        self.held() >= OVERFULL
    }

    /// Bytes that are kept for the guest.
    pub(super) fn held(&self) -> usize {
        self.bytes.len() + self.waiting.iter().map(Outgoing::len).sum::<usize>()
    }

    /// Whose message is under way.
    pub(super) fn lane_owner(&self) -> Option<ClientId> {
        self.lane.as_ref().and_then(|lane| lane.owner)
    }

    /// Whether no other message can begin on the clients' port.
    pub(super) fn is_occupied(&self) -> bool {
        self.lane.is_some()
    }

    /// The guest's driver takes bytes.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> usize {
        let count = buffer.len().min(self.bytes.len());
        for (target, byte) in buffer.iter_mut().zip(self.bytes.drain(..count)) {
            *target = byte;
        }
        count
    }

    /// A message from the server itself. Agents take these in between the pieces of a client's.
    pub(super) fn push_server(&mut self, message: &Outgoing) {
        self.chunks(Port::Server, message.bytes());
    }

    /// A whole message on the clients' port.
    pub(super) fn push(&mut self, message: &Outgoing) {
        if self.is_occupied() {
            self.waiting.push(message.clone());
        } else {
            self.chunks(Port::Client, message.bytes());
        }
    }

    /// The beginning of a message of `owner`, who sends `left` bytes more.
    pub(super) fn begin(&mut self, message: &Outgoing, owner: ClientId, left: u32) {
        self.push(message);
        if left > 0 {
            let owner = Some(owner);
            self.lane = Some(Lane { owner, left });
        }
    }

    /// More of the message under way.
    pub(super) fn proceed(&mut self, bytes: &[u8]) {
        let Some(lane) = &mut self.lane else { return };
        lane.left = lane.left.saturating_sub(bytes.len() as u32);
        let done = lane.left == 0;
        self.chunks(Port::Client, bytes);
        if done {
            self.lane = None;
            for message in std::mem::take(&mut self.waiting) {
                self.chunks(Port::Client, message.bytes());
            }
        }
    }

    /// The owner of the message under way is gone.
    pub(super) fn orphan(&mut self) {
        if let Some(lane) = &mut self.lane {
            lane.owner = None;
        }
    }

    /// Goes on with a message that nobody sends any more, as far as there is room.
    pub(super) fn pad(&mut self) {
        while let Some(Lane { owner: None, left }) = self.lane
            && !self.is_full()
        {
            self.proceed(&NOTHING[..MAX_DATA.min(left as usize)]);
        }
    }

    /// Chunks hold bytes of one message only: the agent for Windows counts on it.
    fn chunks(&mut self, port: Port, bytes: &[u8]) {
        self.bytes
            .reserve(bytes.len() + CHUNK_HEADER * (1 + bytes.len() / MAX_DATA));
        for chunk in bytes.chunks(MAX_DATA) {
            self.bytes.extend((port as u32).to_le_bytes());
            self.bytes.extend((chunk.len() as u32).to_le_bytes());
            self.bytes.extend(chunk);
        }
    }
}
