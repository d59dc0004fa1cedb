//! What is known of a link: its round trip and its rate.

use std::time::Duration;

use tokio::time::Instant;

use super::SLACK;

/// For so long the smallest round trip counts; then it is measured anew, on an empty queue.
const ROUND_TRIP_LIFE: Duration = Duration::from_secs(10);
/// A way that seems to have become longer is measured once more after so long before it is believed:
/// TCP makes pauses of its own, BBR for instance one of 0.3 s every ten seconds.
const DOUBT: Duration = Duration::from_secs(1);
/// Spans for which the largest rate counts, and how long one is at least. Time and not rounds: on a
/// link that has become slow, a round takes as long as the queue that must go.
const SPANS: usize = 10;
const SPAN: Duration = Duration::from_millis(100);
/// A rate that grew by less in a round did not grow.
const GROWTH: f64 = 1.25;
/// After so many rounds without growth the link is full.
const FLAT_ROUNDS: u32 = 3;

/// The smallest round trip of late.
#[derive(Debug, Default)]
pub(super) struct RoundTrip {
    known: Option<Known>,
    /// What is being measured on an empty queue.
    trial: Option<Trial>,
}

#[derive(Debug)]
struct Known {
    least: Duration,
    until: Instant,
    /// It was measured again, and seemed to be longer.
    doubted: bool,
}

#[derive(Debug)]
struct Trial {
    least: Duration,
    ends: Instant,
}

impl RoundTrip {
    /// A message's round trip; `alone` if nothing of ours waited before it. Whether the way is so
    /// much longer than it was that the window's slack does not make up for it.
    pub(super) fn measured(&mut self, sample: Duration, alone: bool, now: Instant) -> bool {
        let Some(known) = &mut self.known else {
            self.know(sample, now);
            return false;
        };
        if sample <= known.least {
            self.know(sample, now);
        } else if alone && known.until < now {
            // For one round trip, as a single message may have been held up.
            let trial = self.trial.get_or_insert(Trial {
                least: sample,
                ends: now + sample,
            });
            trial.least = trial.least.min(sample);
            if trial.ends <= now {
                let least = trial.least;
                let is_longer = least > known.least.mul_f64(GROWTH) + SLACK;
                if !is_longer || known.doubted {
                    self.know(least, now);
                    return is_longer;
                }
                known.doubted = true;
                known.until = now + DOUBT;
                self.trial = None;
            }
        }
        false
    }

    fn know(&mut self, least: Duration, now: Instant) {
        self.known = Some(Known {
            least,
            until: now + ROUND_TRIP_LIFE,
            doubted: false,
        });
        self.trial = None;
    }

    pub(super) fn least(&self) -> Option<Duration> {
        self.known.as_ref().map(|known| known.least)
    }

    /// Whether it should be measured again.
    pub(super) fn is_stale(&self, now: Instant) -> bool {
        self.known.as_ref().is_some_and(|known| known.until < now)
    }
}

/// The largest rate of late, and whether it still grows from round to round. A round is over when
/// what was sent after its start begins to arrive.
#[derive(Debug)]
pub(super) struct Rate {
    /// Bytes a second; the largest of each of the last spans, this one first.
    spans: [f64; SPANS],
    span_began: Instant,
    /// The round ends with the message that was sent when so much had been delivered.
    ends: u64,
    /// The rate when it last grew, and rounds since.
    plateau: f64,
    flat: u32,
}

/// What one acknowledgement tells of the rate.
pub(super) struct Sample {
    /// Bytes a second while the message was on its way.
    pub(super) rate: f64,
    /// The link was kept busy meanwhile; an idle one shows a rate that it has at least.
    pub(super) was_busy: bool,
    /// Bytes that had been delivered when the message was sent, and now.
    pub(super) delivered_before: u64,
    pub(super) delivered: u64,
}

impl Rate {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            spans: [0.0; SPANS],
            span_began: now,
            ends: 0,
            plateau: 0.0,
            flat: 0,
        }
    }

    /// A message arrived, on a link with this round trip.
    pub(super) fn measured(&mut self, sample: &Sample, round_trip: Duration, now: Instant) {
        if sample.was_busy {
            if now.saturating_duration_since(self.span_began) >= round_trip.max(SPAN) {
                self.span_began = now;
                self.spans.rotate_right(1);
                self.spans[0] = 0.0;
            }
            if sample.delivered_before >= self.ends {
                self.ends = sample.delivered;
                self.end_round();
            }
        }
        if sample.was_busy || sample.rate > self.largest() {
            self.spans[0] = self.spans[0].max(sample.rate);
        }
    }

    fn end_round(&mut self) {
        let rate = self.largest();
        if rate >= self.plateau * GROWTH {
            self.plateau = rate;
            self.flat = 0;
        } else {
            self.flat = self.flat.saturating_add(1);
        }
    }

    /// Bytes a second; 0 if nothing is known.
    pub(super) fn largest(&self) -> f64 {
        self.spans.iter().copied().fold(0.0, f64::max)
    }

    /// Whether the link has not shown yet how fast it is.
    pub(super) fn is_growing(&self) -> bool {
        self.flat < FLAT_ROUNDS
    }

    /// The way is another, and what it can is to be found out again.
    pub(super) fn grow_again(&mut self) {
        self.plateau = 0.0;
        self.flat = 0;
    }
}
