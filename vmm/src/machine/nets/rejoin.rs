//! The descriptors of host's ends in the event loop, and another end in place of one that is gone.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use caraway_virtio::Net;
use event_manager::{EventOps, Events, MutEventSubscriber};
use parking_lot::Mutex;
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::passt::Passt;
use super::stream::Stream;
use crate::machine::notices::{Notice, Notices};

/// Before the first attempt.
const SHORTEST: Duration = Duration::from_millis(100);
/// Between attempts when many have failed; who stays for longer is no failure.
const LONGEST: Duration = Duration::from_secs(30);

/// Looks for another end in a thread of its own, as that may take as long as the host likes, and gives it
/// to the event loop.
pub struct Rejoin {
    passt: Passt,
    number: usize,
    notices: Arc<Notices>,
    bell: EventFd,
    found: Mutex<Option<Stream>>,
    pace: Mutex<Pace>,
}

impl Rejoin {
    /// For the card of this `number`, which is joined to `passt` already.
    ///
    /// # Errors
    /// The system's, if it has no eventfd to give.
    pub fn new(passt: Passt, number: usize, notices: Arc<Notices>) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            passt,
            number,
            notices,
            bell: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
            found: Mutex::default(),
            pace: Mutex::new(Pace::new(Instant::now())),
        }))
    }

    /// Begins to look. Call it once for each end that is gone.
    pub fn begin(self: &Arc<Self>) {
        let card = Arc::downgrade(self);
        self.pace.lock().lost(Instant::now());
        let work = move || {
            // Until the machine is gone.
            while let Some(pause) = card.upgrade().map(|this| this.pace.lock().next()) {
                thread::sleep(pause);
                if card.upgrade().is_some_and(|this| this.attempt()) {
                    return;
                }
            }
        };
        let started = thread::Builder::new().name("net-rejoin".to_owned());
        if let Err(error) = started.spawn(work) {
            tracing::error!(%error, "a network card stays without its other end");
        }
    }

    fn attempt(&self) -> bool {
        match self.passt.join() {
            Ok(stream) => {
                self.pace.lock().joined(Instant::now());
                *self.found.lock() = Some(stream);
                // The counter of an eventfd can't overflow by one write a connection.
                let _ = self.bell.write(1);
                true
            }
            Err(error) => {
                tracing::debug!(net = self.number, %error, "no other end yet");
                false
            }
        }
    }
}

/// How long to wait before the next attempt: longer each time, and from the beginning again after an end
/// that stayed.
#[derive(Debug)]
struct Pace {
    next: Duration,
    joined: Instant,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self {
            next: SHORTEST,
            joined: now,
        }
    }

    fn joined(&mut self, now: Instant) {
        self.joined = now;
    }

    fn lost(&mut self, now: Instant) {
        if now.duration_since(self.joined) > LONGEST {
            self.next = SHORTEST;
        }
    }

    fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(LONGEST);
        pause
    }
}

/// Waits for the host's end of one pair of queues. Each event is told once: what comes of it is
/// asked for until there is no more, or until the guest has buffers again.
pub struct Watch {
    net: Arc<Net>,
    pair: usize,
    fd: RawFd,
    rejoin: Option<Arc<Rejoin>>,
}

impl Watch {
    /// For the end that `fd` is of.
    pub fn new(net: Arc<Net>, pair: usize, fd: RawFd, rejoin: Option<Arc<Rejoin>>) -> Self {
        Self {
            net,
            pair,
            fd,
            rejoin,
        }
    }

    fn events(&self) -> Events {
        let edges = EventSet::IN | EventSet::OUT | EventSet::EDGE_TRIGGERED;
        Events::new_raw(self.fd, edges)
    }

    /// Takes the end that was found.
    fn replace(&mut self, rejoin: &Rejoin, ops: &mut EventOps) {
        // Not having rung is no error.
        let _ = rejoin.bell.read();
        let Some(stream) = rejoin.found.lock().take() else {
            return;
        };
        told(ops.remove(self.events()));
        self.fd = stream.as_raw_fd();
        self.net.rejoin(self.pair, Box::new(stream));
        told(ops.add(self.events()));
        let number = rejoin.number;
        rejoin.notices.post(Notice::NetJoined { number });
    }
}

impl MutEventSubscriber for Watch {
    fn process(&mut self, events: Events, ops: &mut EventOps) {
        match self.rejoin.clone() {
            Some(rejoin) if events.fd() == rejoin.bell.as_raw_fd() => self.replace(&rejoin, ops),
            _ => self.net.serve_pair(self.pair),
        }
    }

    fn init(&mut self, ops: &mut EventOps) {
        told(ops.add(self.events()));
        if let Some(rejoin) = &self.rejoin {
            told(ops.add(Events::new(&rejoin.bell, EventSet::IN)));
        }
    }
}

fn told(result: Result<(), event_manager::Error>) {
    if let Err(error) = result {
        tracing::warn!(%error, "a network card's host end and the event loop do not agree");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_fails_again_and_again_is_tried_less_often() {
        let start = Instant::now();
        let mut pace = Pace::new(start);

        let pauses: Vec<_> = (0..12).map(|_| pace.next().as_millis()).collect();
        pace.joined(start);
        pace.lost(start + Duration::from_secs(1));
        let soon = pace.next();
        pace.lost(start + Duration::from_secs(31));
        let late = pace.next();

        assert_eq!(pauses[..4], [100, 200, 400, 800]);
        assert_eq!(pauses[11], 30_000);
        assert_eq!((soon, late), (LONGEST, SHORTEST));
    }
}
