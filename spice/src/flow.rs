//! How much a client may have on its way: the flight window of a display channel.

use std::collections::VecDeque;

/// Bytes that were sent and of which the client has not said that it read them.
///
/// A client acknowledges every [`Flight::ACK_WINDOW`] messages (`SPICE_MSG_SET_ACK`), so counting
/// messages tells which bytes arrived. The window is in bytes: what is on its way can't be replaced
/// by newer pixels, and a number of messages says nothing about how long they take. The size of the
/// window is fixed; whoever measures round trip and rate only has to move `limit`.
#[derive(Debug)]
pub(crate) struct Flight {
    limit: usize,
    bytes: usize,
    messages: VecDeque<usize>,
    /// The client agreed to acknowledge.
    synced: bool,
}

impl Flight {
    /// Messages that one acknowledgement stands for. One, so that the bytes are known exactly; it
    /// costs the client six bytes a message.
    pub(crate) const ACK_WINDOW: u32 = 1;
    /// The generation that `SET_ACK` announces and `ACK_SYNC` returns.
    pub(crate) const GENERATION: u32 = 1;
    /// 80 ms at 50 Mbit/s.
    const LIMIT: usize = 512 * 1024;
    /// Messages on the way at most, so that tiny ones do not fill the memory of this struct.
    const MAX_MESSAGES: usize = 1024;

    pub(crate) fn new() -> Self {
        Self {
            limit: Self::LIMIT,
            bytes: 0,
            messages: VecDeque::new(),
            synced: false,
        }
    }

    /// Whether another message may be sent. Always so if none is on its way; and before the client
    /// has agreed to acknowledge, the socket's own buffer is the only bound.
    pub(crate) fn has_room(&self) -> bool {
        !self.synced || (self.bytes < self.limit && self.messages.len() < Self::MAX_MESSAGES)
    }

    /// A message of this many bytes is about to be sent.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.messages.push_back(bytes);
        // A client that never acknowledges must not make this grow.
        if self.messages.len() > Self::MAX_MESSAGES {
            self.acknowledged();
        }
    }

    /// The client answered `SET_ACK`; another generation is an answer to nothing.
    pub(crate) fn sync(&mut self, generation: u32) {
        self.synced |= generation == Self::GENERATION;
    }

    /// The client read [`Flight::ACK_WINDOW`] messages. An acknowledgement too many is harmless.
    pub(crate) fn acknowledged(&mut self) {
        for _ in 0..Self::ACK_WINDOW {
            self.bytes -= self.messages.pop_front().unwrap_or(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_does_not_read_gets_a_bounded_number_of_bytes() {
        let mut flight = Flight::new();
        flight.sync(Flight::GENERATION);
        let mut sent = 0;
        while flight.has_room() {
            flight.sent(1000);
            sent += 1000;
        }
        assert!(sent <= Flight::LIMIT + 1000);
        flight.acknowledged();
        assert!(flight.has_room());
    }

    #[test]
    fn acknowledgements_of_nothing_are_harmless() {
        let mut flight = Flight::new();
        flight.sync(Flight::GENERATION);
        flight.acknowledged();
        flight.sent(10);
        flight.acknowledged();
        flight.acknowledged();
        assert_eq!((flight.bytes, flight.messages.len()), (0, 0));
    }

    #[test]
    fn a_client_that_never_agreed_is_not_counted() {
        let mut flight = Flight::new();
        flight.sync(Flight::GENERATION + 1);
        for _ in 0..5000 {
            flight.sent(1 << 20);
        }
        assert!(flight.has_room());
        assert!(flight.messages.len() <= Flight::MAX_MESSAGES);
    }
}
