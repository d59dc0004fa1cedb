//! How much a client may have on its way: the flight window of a display channel.
//!
//! What is on its way can't be replaced by newer pixels, so it should be as little as keeps the link
//! busy: the bandwidth-delay product. A client acknowledges each message once it has read it, which
//! tells how long the round trip is and how fast bytes arrive, whatever is between: other TCP
//! connections, a proxy, a client that decodes slowly. From the two follows the window, in bytes,
//! the way BBR does it (draft-ietf-ccwg-bbr): the largest delivery rate of late, times the smallest
//! round trip of late, and [`SLACK`] on top, which pays for acknowledgements that come late and
//! leaves room for the link to show that it has become faster.
//!
//! The sockets' part is that nothing waits unseen below the window: see `listener.rs` for the limit
//! on what TCP may hold unsent.

mod estimate;

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use estimate::{Rate, RoundTrip, Sample};

/// How long a queue the window may make on the link; also what a faster link is found out by: a
/// window that is `SLACK` too large lets the rate grow by `SLACK` a round trip, each round trip.
const SLACK: Duration = Duration::from_millis(25);
/// How long one piece should keep the link busy; less than [`SLACK`], as a message is acknowledged
/// only when all of it has arrived.
const PIECE: Duration = Duration::from_millis(10);
/// The window while nothing is known: what TCP's own initial window lets through at once, twice.
const INITIAL: usize = 32 * 1024;
/// The smallest window, and the largest: 80 ms at 400 Mbit/s.
const MIN_WINDOW: usize = 4 * 1024;
const MAX_WINDOW: usize = 4 * 1024 * 1024;
/// Bounds of a piece: smaller ones are mostly headers, larger ones gain nothing.
const MIN_PIECE: usize = 2 * 1024;
const MAX_PIECE: usize = 256 * 1024;
/// Of a piece while the link may be faster than is known yet.
const INITIAL_PIECE: usize = 4 * 1024;
/// Messages on the way at most, so that tiny ones do not fill the memory of this struct.
const MAX_MESSAGES: usize = 1024;

/// Bytes that were sent and of which the client has not said that it read them.
///
/// Costs one entry of 48 bytes a message on its way, and no allocation once the queue has grown to
/// what the link needs.
#[derive(Debug)]
pub(crate) struct Flight {
    /// The client agreed to acknowledge.
    synced: bool,
    messages: VecDeque<Sent>,
    bytes: usize,
    /// Bytes that were acknowledged so far, and when the last of them were, and when these were sent.
    delivered: u64,
    delivered_at: Instant,
    delivered_sent_at: Instant,
    /// Until this much is delivered, rates show how much there was to send and not what the link can.
    idle_until: u64,
    rate: Rate,
    round_trip: RoundTrip,
}

/// A message on its way, and what was known when it was sent.
#[derive(Debug)]
struct Sent {
    bytes: usize,
    at: Instant,
    delivered: u64,
    delivered_at: Instant,
    delivered_sent_at: Instant,
    /// So little was on the way that its round trip has no queue of ours in it.
    alone: bool,
}

impl Flight {
    /// Messages that one acknowledgement stands for. One, so that the bytes are known exactly; it
    /// costs the client six bytes a message.
    pub(crate) const ACK_WINDOW: u32 = 1;
    /// The generation that `SET_ACK` announces and `ACK_SYNC` returns.
    pub(crate) const GENERATION: u32 = 1;

    pub(crate) fn new(now: Instant) -> Self {
        Self {
            synced: false,
            messages: VecDeque::new(),
            bytes: 0,
            delivered: 0,
            delivered_at: now,
            delivered_sent_at: now,
            idle_until: 0,
            rate: Rate::new(now),
            round_trip: RoundTrip::default(),
        }
    }

    /// How many bytes the next piece should take; `None` while the window is full. A message may
    /// always be sent if none is on its way; and before the client has agreed to acknowledge, the
    /// socket is the only bound.
    pub(crate) fn room(&self, now: Instant) -> Option<usize> {
        let full = self.bytes >= self.window(now) || self.messages.len() >= MAX_MESSAGES;
        if self.synced && full && self.bytes > 0 {
            return None;
        }
        let least = if self.rate.is_growing() {
            INITIAL_PIECE
        } else {
            MIN_PIECE
        };
        Some(self.bytes_in(PIECE).clamp(least, MAX_PIECE))
    }

    /// Bytes a second that the link carries; `None` if nothing is known.
    pub(crate) fn rate(&self) -> Option<f64> {
        Some(self.rate.largest()).filter(|&rate| rate > 0.0)
    }

    /// The same, once the link has been busy for long enough to show that it carries no more.
    pub(crate) fn known_rate(&self) -> Option<f64> {
        self.rate().filter(|_| !self.rate.is_growing())
    }

    /// Bytes that may be on their way.
    fn window(&self, now: Instant) -> usize {
        let Some(round_trip) = self.round_trip.least() else {
            return INITIAL;
        };
        if self.round_trip.is_stale(now) {
            return self.queueless();
        }
        if self.rate.is_growing() {
            let window = self.bytes_in(round_trip * 2 + SLACK);
            return window.clamp(INITIAL, MAX_WINDOW);
        }
        let window = self.bytes_in(round_trip + SLACK);
        window.clamp(MIN_WINDOW, MAX_WINDOW)
    }

    /// Half of what the link holds, which makes no queue, so that it shows its own round trip.
    fn queueless(&self) -> usize {
        let round_trip = self.round_trip.least().unwrap_or_default();
        (self.bytes_in(round_trip) / 2).clamp(MIN_WINDOW, MAX_WINDOW)
    }

    /// What the link carries in this time, as far as is known.
    fn bytes_in(&self, time: Duration) -> usize {
        (self.rate.largest() * time.as_secs_f64()) as usize
    }

    /// There is room and nothing to send.
    pub(crate) fn idle(&mut self) {
        self.idle_until = self.delivered + self.bytes as u64;
    }

    /// A message of this many bytes is about to be sent.
    pub(crate) fn sent(&mut self, bytes: usize, now: Instant) {
        if self.messages.is_empty() {
            self.delivered_at = now;
            self.delivered_sent_at = now;
        }
        let alone = self.bytes < self.queueless();
        self.bytes += bytes;
        self.messages.push_back(Sent {
            bytes,
            at: now,
            delivered: self.delivered,
            delivered_at: self.delivered_at,
            delivered_sent_at: self.delivered_sent_at,
            alone,
        });
        // A client that never acknowledges must not make this grow.
        if self.messages.len() > MAX_MESSAGES {
            self.arrived();
        }
    }

    /// The client answered `SET_ACK`; another generation is an answer to nothing.
    pub(crate) fn sync(&mut self, generation: u32) {
        self.synced |= generation == Self::GENERATION;
    }

    /// The client read a message. An acknowledgement too many is harmless.
    pub(crate) fn acknowledged(&mut self, now: Instant) {
        let Some(message) = self.arrived() else {
            return;
        };
        self.delivered_at = now;
        self.delivered_sent_at = message.at;
        let round_trip = now.saturating_duration_since(message.at);
        if self.round_trip.measured(round_trip, message.alone, now) {
            self.rate.grow_again();
        }

        // Neither may bytes have been sent faster than they arrive, nor may acknowledgements come
        // in a bunch: the slower of the two paces is the link's.
        let sending = message
            .at
            .saturating_duration_since(message.delivered_sent_at);
        let arriving = now.saturating_duration_since(message.delivered_at);
        let bytes = self.delivered - message.delivered;
        let sample = Sample {
            rate: bytes as f64 / sending.max(arriving).as_secs_f64().max(1e-6),
            was_busy: message.delivered >= self.idle_until,
            delivered_before: message.delivered,
            delivered: self.delivered,
        };
        let round_trip = self.round_trip.least().unwrap_or_default();
        self.rate.measured(&sample, round_trip, now);
    }

    /// The oldest message is not on its way any more.
    fn arrived(&mut self) -> Option<Sent> {
        let message = self.messages.pop_front()?;
        self.bytes -= message.bytes;
        self.delivered += message.bytes as u64;
        Some(message)
    }
}

#[cfg(test)]
mod tests;
