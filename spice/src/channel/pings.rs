//! Whether a client is still there: pings on the main channel, with a deadline.
//!
//! The other channels need none of their own: a session ends with its main channel. What they do
//! notice is a client that takes no byte of a message ([`MessageWriter::send`]); and on TCP the system
//! looks after idle connections and unanswered bytes (`listener.rs`).
//!
//! [`MessageWriter::send`]: crate::wire::MessageWriter::send

use std::time::Duration;

use tokio::time::Instant;

use crate::wire::PATIENCE;

/// From one ping's answer to the next ping.
const INTERVAL: Duration = Duration::from_secs(5);

/// The pings of one client.
#[derive(Debug)]
pub(super) struct Pings {
    /// The last ping's number.
    last: u32,
    state: State,
    /// When anything came from the client.
    heard: Instant,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// The next is due then.
    Due(Instant),
    /// Asked then.
    Asked(Instant),
}

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Send a ping of this number.
    Ask(u32),
    /// Nothing, until then or until something comes from the client.
    WaitUntil(Instant),
    /// The client is gone.
    GiveUp,
}

impl Pings {
    /// Of a client that was heard just now; the first ping is due at once, as it measures the link.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            last: 0,
            state: State::Due(now),
            heard: now,
        }
    }

    /// What to do now. A ping counts as sent.
    pub(super) fn act(&mut self, now: Instant) -> Act {
        match self.state {
            State::Due(at) if at <= now => {
                self.last = self.last.wrapping_add(1);
                self.state = State::Asked(now);
                Act::Ask(self.last)
            }
            State::Due(at) => Act::WaitUntil(at),
            State::Asked(at) => {
                // On a slow link an answer may wait behind much else that comes from the client.
                let end = at.max(self.heard) + PATIENCE;
                if end <= now {
                    Act::GiveUp
                } else {
                    Act::WaitUntil(end)
                }
            }
        }
    }

    /// A message came.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// An answer came: the round trip, unless it answers nothing that was asked.
    pub(super) fn answered(&mut self, number: u32, now: Instant) -> Option<Duration> {
        match self.state {
            State::Asked(at) if number == self.last => {
                self.state = State::Due(now + INTERVAL);
                Some(now.saturating_duration_since(at))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, sleep_until};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_measures_the_round_trip_and_puts_the_next_ping_off() {
        let mut pings = Pings::new(Instant::now());
        assert_eq!(pings.act(Instant::now()), Act::Ask(1));
        advance(Duration::from_millis(80)).await;

        let round_trip = pings.answered(1, Instant::now());

        assert_eq!(round_trip, Some(Duration::from_millis(80)));
        let next = Instant::now() + INTERVAL;
        assert_eq!(pings.act(Instant::now()), Act::WaitUntil(next));
        sleep_until(next).await;
        assert_eq!(pings.act(Instant::now()), Act::Ask(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_is_given_up_at_the_deadline() {
        let start = Instant::now();
        let mut pings = Pings::new(start);
        assert_eq!(pings.act(start), Act::Ask(1));

        let Act::WaitUntil(end) = pings.act(start) else {
            unreachable!("it was asked just now")
        };
        sleep_until(end).await;

        assert_eq!(start.elapsed(), PATIENCE);
        assert_eq!(pings.act(Instant::now()), Act::GiveUp);
    }

    #[tokio::test(start_paused = true)]
    async fn whatever_comes_is_a_sign_of_life_but_no_answer() {
        let mut pings = Pings::new(Instant::now());
        assert_eq!(pings.act(Instant::now()), Act::Ask(1));
        advance(PATIENCE / 2).await;
        pings.heard(Instant::now());
        assert_eq!(pings.answered(7, Instant::now()), None);
        advance(PATIENCE / 2).await;

        let end = Instant::now() + PATIENCE / 2;
        assert_eq!(pings.act(Instant::now()), Act::WaitUntil(end));
    }
}
