//! One port: what both ends know of each other, and the bytes between them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::PortConfig;
use super::control::{Message, event};
use crate::queue::Virtqueue;

/// The host's end of a port. No method waits, and none calls the console back: whatever happens at
/// the end later rings [`Console::wake`](super::Console::wake).
pub trait PortEnd: Send + Sync {
    /// Whether somebody is there to take bytes. While nobody is, what the guest writes waits.
    fn is_open(&self) -> bool;
    /// The guest opened or closed its end.
    fn guest_opened(&self, open: bool);
    /// Takes bytes from the guest; how many. Less than all means no for now.
    fn take(&self, bytes: &[u8]) -> usize;
    /// Puts bytes for the guest into `buffer`; how many, 0 if there are none.
    fn give(&self, buffer: &mut [u8]) -> usize;
}

/// Bytes that are moved at once.
const PIECE: usize = 16 * 1024;
/// Bytes that a port moves each way before the others get their turn.
const TURN: usize = 1 << 20;
/// What a chain costs of a turn beside its bytes.
const CHAIN: usize = 1024;

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) from_guest: u64,
    pub(super) to_guest: u64,
}

/// What a snapshot keeps of a port.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PortState {
    name: String,
    ready: bool,
    named: bool,
    added: bool,
    told_open: bool,
    guest_open: bool,
    /// Bytes that the host's end has taken of the chain at the front of the driver's queue.
    taken: u64,
}

pub(super) struct Port {
    number: u32,
    end: Arc<dyn PortEnd>,
    /// What the guest's driver knows and did. The rest is nobody's but ours.
    state: PortState,
    /// What the driver filled, and what it wants filled.
    outward: Option<Arc<Virtqueue>>,
    inward: Option<Arc<Virtqueue>>,
    /// [`PortState::taken`] of a saved state whose queue is not there yet.
    restored: Option<u64>,
    /// What the end was told of the guest's.
    end_knows_open: bool,
    counts: Counts,
}

impl Port {
    pub(super) fn new(number: u32, config: PortConfig) -> Self {
        Self {
            number,
            end: config.end,
            state: PortState {
                name: config.name,
                ready: false,
                named: false,
                added: false,
                told_open: false,
                guest_open: false,
                taken: 0,
            },
            outward: None,
            inward: None,
            restored: None,
            end_knows_open: false,
            counts: Counts::default(),
        }
    }

    pub(super) fn number(&self) -> u32 {
        self.number
    }

    pub(super) fn name(&self) -> &str {
        &self.state.name
    }

    pub(super) fn is_guest_open(&self) -> bool {
        self.state.guest_open
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    pub(super) fn set_queue(&mut self, outward: bool, queue: Option<Arc<Virtqueue>>) {
        match outward {
            true => {
                self.state.taken = match &queue {
                    Some(_) => self.restored.take().unwrap_or(0),
                    None => 0,
                };
                self.outward = queue;
            }
            false => self.inward = queue,
        }
    }

    /// The driver took the port on, or could not.
    pub(super) fn set_ready(&mut self, ready: bool) {
        self.state.added |= ready;
        self.state.ready = ready;
        self.state.named = false;
        self.state.told_open = false;
    }

    pub(super) fn set_guest_open(&mut self, open: bool) {
        if self.state.guest_open && !open {
            // What it wrote before goes first, if the end takes it.
            self.take_from_guest();
        }
        self.state.guest_open = open;
        self.tell_end();
    }

    fn tell_end(&mut self) {
        if self.end_knows_open != self.state.guest_open {
            self.end_knows_open = self.state.guest_open;
            self.end.guest_opened(self.state.guest_open);
        }
    }

    /// The next control message for the driver.
    pub(super) fn due(&self) -> Option<Vec<u8>> {
        let message = |event, value| Message {
            port: self.number,
            event,
            value,
        };
        let open = self.end.is_open();
        if !self.state.added {
            Some(message(event::DEVICE_ADD, 1).to_bytes())
        } else if !self.state.ready {
            None
        } else if !self.state.named {
            let name = self.state.name.as_bytes();
            Some([&message(event::PORT_NAME, 1).to_bytes(), name].concat())
        } else if self.state.told_open != open {
            Some(message(event::PORT_OPEN, open.into()).to_bytes())
        } else {
            None
        }
    }

    /// The driver has what [`Port::due`] said.
    pub(super) fn told(&mut self) {
        if !self.state.added {
            self.state.added = true;
        } else if !self.state.named {
            self.state.named = true;
        } else {
            self.state.told_open = !self.state.told_open;
        }
    }

    /// Moves bytes both ways, as far as they can go.
    pub(super) fn serve(&mut self) {
        self.tell_end();
        self.take_from_guest();
        self.give_to_guest();
        // An end may wait for the guest to read before it takes more.
        self.take_from_guest();
    }

    fn take_from_guest(&mut self) {
        let Some(queue) = self.outward.clone() else {
            return;
        };
        let mut turn = TURN;
        let mut done = false;
        let mut piece = Vec::new();
        while self.end.is_open() {
            let Some(chain) = queue.pop() else {
                match queue.want_doorbell() {
                    true => continue,
                    false => break,
                }
            };
            let length = chain.readable_len();
            if self.state.taken < length {
                piece.clear();
                let read = chain.read(queue.memory(), self.state.taken, PIECE, &mut piece);
                if let Err(error) = read {
                    return queue.fail(&error);
                }
                let count = self.end.take(&piece).min(piece.len());
                self.state.taken += count as u64;
                self.counts.from_guest += count as u64;
                turn = turn.saturating_sub(count);
                if count < piece.len() {
                    queue.unpop();
                    break;
                }
            }
            if self.state.taken >= length {
                queue.complete(chain.head, 0);
                self.state.taken = 0;
                done = true;
                turn = turn.saturating_sub(CHAIN);
            } else {
                queue.unpop();
            }
            if turn == 0 {
                queue.ring();
                break;
            }
        }
        if done {
            queue.interrupt();
        }
    }

    fn give_to_guest(&mut self) {
        let Some(queue) = self.inward.clone() else {
            return;
        };
        // A guest that has not opened its end would throw them away.
        if !self.state.guest_open || !self.state.told_open {
            return;
        }
        let mut turn = TURN;
        let mut given = false;
        let mut buffer = [0; PIECE];
        loop {
            let Some(chain) = queue.pop() else {
                match queue.want_doorbell() {
                    true => continue,
                    false => break,
                }
            };
            let room = usize::try_from(chain.writable_len());
            let room = room.unwrap_or(PIECE).min(PIECE);
            let count = self.end.give(&mut buffer[..room]).min(room);
            if count == 0 {
                queue.unpop();
                break;
            }
            if let Err(error) = chain.write(queue.memory(), 0, &buffer[..count]) {
                return queue.fail(&error);
            }
            queue.complete(chain.head, count as u32);
            self.counts.to_guest += count as u64;
            given = true;
            turn = turn.saturating_sub(count + CHAIN);
            if turn == 0 {
                queue.ring();
                break;
            }
        }
        if given {
            queue.interrupt();
        }
    }

    pub(super) fn reset(&mut self) {
        self.state = PortState {
            name: std::mem::take(&mut self.state.name),
            ready: false,
            named: false,
            added: false,
            told_open: false,
            guest_open: false,
            taken: 0,
        };
        self.restored = None;
        self.tell_end();
    }

    pub(super) fn save(&self) -> PortState {
        PortState {
            taken: self.restored.unwrap_or(self.state.taken),
            ..self.state.clone()
        }
    }

    pub(super) fn check(&self, state: &PortState) -> Result<(), String> {
        match state.name == self.state.name {
            true => Ok(()),
            false => Err(format!(
                "port {} is {:?}, not {:?}",
                self.number, self.state.name, state.name
            )),
        }
    }

    pub(super) fn restore(&mut self, state: PortState) {
        self.restored = Some(state.taken);
        self.state = state;
        self.tell_end();
    }
}
