//! Frames for the guest: straight into its buffers, as many of them as one takes.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::sync::Arc;

use vm_memory::{GuestMemoryError, VolatileSlice};

use super::backend::{Backend, LONGEST};
use super::filter::Mac;
use super::header::Header;
use super::pieces::{Pieces, after, get, pieces, put};
use super::{Served, Terms, Turn};
use crate::queue::{Chain, Virtqueue};

/// Segments that are kept ready at most, but for those of one more chain; the kernel takes 1024.
const SEGMENTS: usize = 512;
/// Room that is kept ready where no frame is longer than an Ethernet's.
const ORDINARY: usize = 2048;
/// Room for any frame.
const ANY: usize = Header::SIZE + LONGEST;
/// For how many frames after a long one room for another is kept ready.
const LONG: u32 = 64;

/// The device's end of a receive queue.
pub(super) struct Receive {
    queue: Option<Arc<Virtqueue>>,
    /// Chains that were popped and not used yet, so that each is looked at once.
    held: VecDeque<Chain>,
    /// Bytes and segments of these.
    room: usize,
    segments: usize,
    /// What of a frame had no room in them.
    spill: Box<[u8]>,
    /// For how many more frames room for a long one is kept ready: its many pieces would cost each short
    /// one as much as the frame itself, and the first long one is only copied once more.
    long: u32,
    /// A frame whose rest waits in `spill` for more buffers.
    waiting: Option<Frame>,
    used: Vec<(u16, u32)>,
}

/// A frame of which the first bytes are in place.
#[derive(Debug, Clone, Copy)]
struct Frame {
    header: Header,
    length: usize,
    placed: usize,
}

impl Receive {
    pub(super) fn new() -> Self {
        Self {
            queue: None,
            held: VecDeque::new(),
            room: 0,
            segments: 0,
            spill: vec![0; LONGEST].into(),
            long: 0,
            waiting: None,
            used: Vec::new(),
        }
    }

    pub(super) fn set_queue(&mut self, queue: Option<Arc<Virtqueue>>) {
        self.forget();
        self.queue = queue;
    }

    /// The queue, to have it served.
    pub(super) fn ring(&self) {
        self.queue.iter().for_each(|queue| queue.ring());
    }

    /// Puts what was popped and not used back, so that the queue's position tells all. A frame that
    /// waits for buffers is lost; whether there was one.
    pub(super) fn give_back(&mut self) -> bool {
        if let Some(queue) = &self.queue {
            self.held.iter().for_each(|_| queue.unpop());
        }
        self.forget()
    }

    fn forget(&mut self) -> bool {
        self.held.clear();
        (self.room, self.segments) = (0, 0);
        self.waiting.take().is_some()
    }

    /// Gives the driver the frames that are there, as far as it has buffers for them.
    pub(super) fn serve(&mut self, backend: &mut dyn Backend, terms: &mut Terms<'_>) -> Served {
        let Some(queue) = self.queue.clone() else {
            return Served::Done;
        };
        queue.refuse_doorbell();
        let mut turn = Turn::new();
        let served = loop {
            if let Some(at) = terms.wait() {
                break Served::Until(at);
            }
            if turn.is_over() {
                queue.ring();
                break Served::Done;
            }
            let frame = match self.waiting.take() {
                Some(frame) => frame,
                None => match self.take(&queue, backend, terms) {
                    Ok(Some(frame)) => frame,
                    Ok(None) => break Served::Done,
                    Err(error) => match error.kind() {
                        ErrorKind::WouldBlock => break Served::Done,
                        ErrorKind::Interrupted => continue,
                        ErrorKind::ConnectionReset => break Served::Lost(error),
                        _ => {
                            terms.counters.dropped();
                            turn.pass(0);
                            continue;
                        }
                    },
                },
            };
            turn.pass(frame.length);
            match self.place(&queue, frame, terms) {
                Ok(true) => {}
                // The driver rings when it has more buffers.
                Ok(false) => break Served::Done,
                Err(error) => {
                    queue.fail(&error);
                    break Served::Done;
                }
            }
        };
        queue.interrupt();
        served
    }

    /// The next frame, its first bytes in the driver's buffers; `None` if there are none of these.
    fn take(
        &mut self,
        queue: &Virtqueue,
        backend: &mut dyn Backend,
        terms: &Terms<'_>,
    ) -> io::Result<Option<Frame>> {
        if !terms.link_up {
            let (header, length) = backend.receive(&[], &mut self.spill)?;
            let placed = 0;
            return Ok(Some(Frame {
                header,
                length,
                placed,
            }));
        }
        let (wanted, chains) = match terms.mergeable {
            true if self.long > 0 && terms.guest.segments() => (ANY, usize::MAX),
            true => (ORDINARY, usize::MAX),
            false => (1, 1),
        };
        self.gather(queue, wanted);
        if self.held.is_empty() {
            return Ok(None);
        }
        let segments = self.held.iter().take(chains).flat_map(|c| &c.writable);
        let count = if terms.mergeable { wanted } else { ANY };
        let room = pieces(queue.memory(), segments, count)
            .map_err(|_| io::Error::from(ErrorKind::InvalidInput))?;
        let room: Pieces<'_> = after(&room, Header::SIZE).collect();
        let (header, length) = backend.receive(&room, &mut self.spill)?;
        self.long = match length > ORDINARY {
            true => LONG,
            false => self.long.saturating_sub(1),
        };
        let placed = room.iter().map(VolatileSlice::len).sum::<usize>();
        Ok(Some(Frame {
            header,
            length,
            placed: placed.min(length),
        }))
    }

    /// Pops chains until there is room for `wanted` bytes, or none is left.
    fn gather(&mut self, queue: &Virtqueue, wanted: usize) {
        while self.room < wanted && self.segments < SEGMENTS {
            match queue.pop() {
                Some(chain) => {
                    self.room += length(&chain);
                    self.segments += chain.writable.len();
                    self.held.push_back(chain);
                }
                None if queue.want_doorbell() => {}
                None => return,
            }
        }
    }

    /// Gives a frame to the driver, or drops it; `false` if that has to wait for buffers.
    fn place(
        &mut self,
        queue: &Virtqueue,
        frame: Frame,
        terms: &mut Terms<'_>,
    ) -> Result<bool, Unusable> {
        if !terms.link_up {
            terms.counters.dropped();
            return Ok(true);
        }
        let needed = Header::SIZE + frame.length;
        if terms.mergeable {
            self.gather(queue, needed);
        }
        let first = self.held.front().map_or(0, length);
        if first < Header::SIZE {
            return Err(Unusable::Short { length: first });
        }
        let room = if terms.mergeable { self.room } else { first };
        if room < needed {
            // All buffers that the driver can ever have are here, and still too few.
            let hopeless =
                self.held.len() >= usize::from(queue.size()) || self.segments >= SEGMENTS;
            if !terms.mergeable || hopeless {
                terms.counters.dropped();
                return Ok(true);
            }
            self.waiting = Some(frame);
            return Ok(false);
        }
        let segments = self.held.iter().flat_map(|chain| &chain.writable);
        let room = pieces(queue.memory(), segments, needed)?;
        let rest = &self.spill[..frame.length - frame.placed];
        put(&room, Header::SIZE + frame.placed, rest);
        let mut target: Mac = [0; 6];
        get(&room, Header::SIZE, &mut target);
        if frame.length < target.len() || !terms.filter.wants(target, terms.mac) {
            // It is for others; its bytes lie in buffers that the driver does not get.
            return Ok(true);
        }
        self.settle(needed);
        let header = frame.header.for_driver(terms.guest);
        put(&room, 0, &header.to_bytes(self.used.len() as u16));
        queue.complete_together(&self.used);
        terms.passed(frame.length);
        Ok(true)
    }

    /// Lets go of the chains that `needed` bytes take, which are `used` then.
    fn settle(&mut self, needed: usize) {
        self.used.clear();
        let mut left = needed;
        while left > 0
            && let Some(chain) = self.held.pop_front()
        {
            let room = length(&chain);
            let written = left.min(room);
            self.used.push((chain.head, written as u32));
            left -= written;
            self.room -= room;
            self.segments -= chain.writable.len();
        }
    }
}

/// Buffers that a driver must not give.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("a receive buffer has {length} bytes, fewer than the header")]
    Short { length: usize },
    #[error("a receive buffer is not in RAM")]
    NotRam(#[from] GuestMemoryError),
}

fn length(chain: &Chain) -> usize {
    // A driver may name the same memory many times: more than is ever wanted is as good as that.
    let total: u64 = chain.writable.iter().map(|s| u64::from(s.len)).sum();
    total.min(1 << 31) as usize
}
