//! What each source of connections may cost.
//!
//! Nobody who floods the server or guesses passwords may slow down others, so both are counted by
//! source: an address (of IPv6 its /64, which one peer has all of), or a process behind a Unix
//! socket.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::link::Refusal;

/// Connections in their link stage at a time.
const MAX_LINKS: usize = 512;
/// Of these, from one source: half, so that no source can take all.
const MAX_LINKS_OF_ONE: usize = MAX_LINKS / 2;
/// Wrong passwords that cost nothing: people mistype.
const FREE_FAILURES: u32 = 8;
/// The first lock-out; each further failure doubles it.
const FIRST_LOCKOUT: Duration = Duration::from_secs(1);
const LONGEST_LOCKOUT: Duration = Duration::from_secs(60);
/// Failures are forgotten when there was none for so long.
const MEMORY: Duration = Duration::from_secs(15 * 60);
/// Sources whose failures are remembered.
const MAX_SOURCES: usize = 4096;

/// Whom a connection is counted against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    V4([u8; 4]),
    /// The /64 of an address.
    V6([u16; 4]),
    /// Who connected to a Unix socket; 0 if the system does not tell.
    Process {
        user: u32,
        process: u32,
    },
}

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = Ipv6Addr::segments(&address);
                Self::V6([a, b, c, d])
            }
        }
    }
}

/// Who connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    /// For people: address and port, or the process behind a Unix socket.
    pub(crate) name: String,
    pub(crate) source: Source,
}

/// Counts by source. Memory is bounded by the limits above.
#[derive(Default)]
pub(crate) struct Guard {
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    links: BTreeMap<Source, usize>,
    all_links: usize,
    failures: BTreeMap<Source, Failures>,
}

#[derive(Clone, Copy)]
struct Failures {
    count: u32,
    last: Instant,
}

impl Failures {
    /// How long the source has to wait from now on.
    fn lockout(&self, now: Instant) -> Duration {
        let Some(doublings) = self.count.checked_sub(FREE_FAILURES + 1) else {
            return Duration::ZERO;
        };
        let factor = 1u32.checked_shl(doublings).unwrap_or(u32::MAX);
        let whole = FIRST_LOCKOUT.saturating_mul(factor).min(LONGEST_LOCKOUT);
        whole.saturating_sub(now.saturating_duration_since(self.last))
    }

    fn is_forgotten(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) >= MEMORY
    }
}

impl Guard {
    /// Lets a connection into its link stage, until the pass is dropped.
    pub(crate) fn enter(&self, source: Source) -> Result<Pass<'_>, Refusal> {
        let mut counts = self.counts.lock();
        let counts = &mut *counts;
        let of_source = counts.links.get(&source).copied().unwrap_or(0);
        if counts.all_links >= MAX_LINKS || of_source >= MAX_LINKS_OF_ONE {
            return Err(Refusal::TooManyLinks);
        }
        counts.all_links += 1;
        counts.links.insert(source, of_source + 1);
        Ok(Pass {
            guard: self,
            source,
        })
    }

    /// Refuses a source that guessed too often, until it has waited.
    pub(crate) fn check(&self, source: Source, now: Instant) -> Result<(), Refusal> {
        let failures = self.counts.lock().failures.get(&source).copied();
        match failures.map_or(Duration::ZERO, |failures| failures.lockout(now)) {
            Duration::ZERO => Ok(()),
            wait => Err(Refusal::LockedOut { wait }),
        }
    }

    /// Notes a wrong password.
    pub(crate) fn failed(&self, source: Source, now: Instant) {
        let known = &mut self.counts.lock().failures;
        if known.len() >= MAX_SOURCES && !known.contains_key(&source) {
            known.retain(|_, failures| !failures.is_forgotten(now));
            // Whoever has many addresses to guess from pushes out its own first.
            let oldest = known.iter().min_by_key(|(_, failures)| failures.last);
            if let Some(oldest) = oldest.map(|(&source, _)| source)
                && known.len() >= MAX_SOURCES
            {
                known.remove(&oldest);
            }
        }
        let failures = known.entry(source).or_insert(Failures {
            count: 0,
            last: now,
        });
        if failures.is_forgotten(now) {
            failures.count = 0;
        }
        failures.count = failures.count.saturating_add(1);
        failures.last = now;
    }
}

/// A connection in its link stage.
pub(crate) struct Pass<'a> {
    guard: &'a Guard,
    source: Source,
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let mut counts = self.guard.counts.lock();
        counts.all_links -= 1;
        match counts.links.get_mut(&self.source) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                counts.links.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Source = Source::V4([127, 0, 0, 1]);
    const OTHER: Source = Source::Process {
        user: 1000,
        process: 7,
    };

    fn wait(guard: &Guard, source: Source, now: Instant) -> Duration {
        match guard.check(source, now) {
            Err(Refusal::LockedOut { wait }) => wait,
            _ => Duration::ZERO,
        }
    }

    #[test]
    fn no_source_takes_all_links() {
        let guard = Guard::default();
        let mut passes: Vec<_> = (0..MAX_LINKS_OF_ONE).map(|_| guard.enter(ONE)).collect();
        assert!(passes.iter().all(Result::is_ok));

        assert_eq!(guard.enter(ONE).err(), Some(Refusal::TooManyLinks));
        assert!(guard.enter(OTHER).is_ok());

        passes.pop();
        assert!(guard.enter(ONE).is_ok());
    }

    #[test]
    fn nothing_is_remembered_of_those_who_left() {
        let guard = Guard::default();
        drop(guard.enter(ONE));
        let counts = guard.counts.lock();
        assert_eq!((counts.links.len(), counts.all_links), (0, 0));
    }

    #[test]
    fn mistakes_cost_nothing_and_guessing_ever_more() {
        let guard = Guard::default();
        let now = Instant::now();
        let waits: Vec<u64> = (0..FREE_FAILURES + 8)
            .map(|_| {
                guard.failed(ONE, now);
                wait(&guard, ONE, now).as_secs()
            })
            .collect();

        let free = FREE_FAILURES as usize;
        assert!(waits[..free].iter().all(|&wait| wait == 0));
        assert_eq!(waits[free..], [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(wait(&guard, OTHER, now), Duration::ZERO);
    }

    #[test]
    fn whoever_waited_may_try_again() {
        let guard = Guard::default();
        let now = Instant::now();
        for _ in 0..=FREE_FAILURES {
            guard.failed(ONE, now);
        }
        assert_eq!(wait(&guard, ONE, now + FIRST_LOCKOUT), Duration::ZERO);
    }

    #[test]
    fn failures_of_long_ago_are_forgotten() {
        let guard = Guard::default();
        let now = Instant::now();
        for _ in 0..100 {
            guard.failed(ONE, now);
        }
        let later = now + MEMORY;
        guard.failed(ONE, later);
        assert_eq!(wait(&guard, ONE, later), Duration::ZERO);
    }

    #[test]
    fn guessing_from_many_addresses_takes_no_more_memory() {
        let guard = Guard::default();
        let now = Instant::now();
        for address in 0..MAX_SOURCES as u32 + 100 {
            let source = Source::V4(address.to_be_bytes());
            guard.failed(source, now + Duration::from_micros(address.into()));
        }
        assert_eq!(guard.counts.lock().failures.len(), MAX_SOURCES);
    }

    #[test]
    fn all_addresses_of_a_network_are_one_source() {
        let source = |text: &str| Source::from(text.parse::<IpAddr>().expect("it is an address"));
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:1"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        assert_eq!(source("::ffff:127.0.0.1"), ONE);
    }
}
