//! Programs of the host that have connected and not yet said where to.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;

use caraway_devices::{Clock, Nanos, Timer};
use caraway_virtio::Vsock;
use vmm_sys_util::epoll::{ControlOperation, EventSet};

use super::greeting::{self, Greeting};
use super::stream::Stream;
use super::{Token, Watch};
use crate::socket::SocketFile;

/// Who may be in the lobby at a time; others are sent away.
const MOST: usize = 256;
/// Who is let in before others get their turn.
const TURN: usize = 64;
/// How long a program may take to say where to.
const PATIENCE: Nanos = 5_000_000_000;
/// How long the door is shut when the system has no descriptor left.
const PAUSE: Nanos = 100_000_000;

pub(super) struct Lobby {
    listener: UnixListener,
    _file: SocketFile,
    watch: Watch,
    clock: Arc<dyn Clock>,
    timer: Arc<dyn Timer>,
    /// By number, which is also the order in which they came.
    arrivals: BTreeMap<u64, Arrival>,
    next: u64,
    /// When the door, which is shut, opens again.
    shut_until: Option<Nanos>,
}

struct Arrival {
    socket: UnixStream,
    said: Vec<u8>,
    deadline: Nanos,
}

impl Lobby {
    /// Waits for whoever connects to the socket.
    ///
    /// # Errors
    /// The system's, if the socket can't be watched.
    pub(super) fn open(
        file: SocketFile,
        watch: Watch,
        clock: Arc<dyn Clock>,
        timer: Arc<dyn Timer>,
    ) -> std::io::Result<Self> {
        let listener = file.listener()?;
        let fd = listener.as_raw_fd();
        watch.ctl(ControlOperation::Add, fd, Token::Door, EventSet::IN)?;
        Ok(Self {
            listener,
            _file: file,
            watch,
            clock,
            timer,
            arrivals: BTreeMap::new(),
            next: 0,
            shut_until: None,
        })
    }

    /// Lets in whoever waits outside.
    pub(super) fn open_door(&mut self) {
        for _ in 0..TURN {
            match self.listener.accept() {
                Ok((socket, _)) => self.welcome(socket),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => {
                    tracing::warn!(%error, "no connection can be taken for the guest");
                    self.shut_until = Some(self.clock.now().saturating_add(PAUSE));
                    self.set_door(EventSet::empty());
                    break;
                }
            }
        }
        self.set_timer();
    }

    fn set_door(&self, events: EventSet) {
        let fd = self.listener.as_raw_fd();
        let set = self
            .watch
            .ctl(ControlOperation::Modify, fd, Token::Door, events);
        if let Err(error) = set {
            tracing::error!(%error, "the virtio socket device's socket can't be watched");
        }
    }

    fn welcome(&mut self, socket: UnixStream) {
        self.next += 1;
        let (fd, token) = (socket.as_raw_fd(), Token::Arrival(self.next));
        let is_watched = self.arrivals.len() < MOST
            && socket.set_nonblocking(true).is_ok()
            && self
                .watch
                .ctl(ControlOperation::Add, fd, token, EventSet::IN)
                .is_ok();
        if is_watched {
            let arrival = Arrival {
                socket,
                said: Vec::new(),
                deadline: self.clock.now().saturating_add(PATIENCE),
            };
            self.arrivals.insert(self.next, arrival);
        }
    }

    /// Somebody says something, or leaves.
    pub(super) fn hear(&mut self, number: u64, vsock: &Vsock) {
        let Some(arrival) = self.arrivals.get_mut(&number) else {
            return;
        };
        let greeting = arrival.listen();
        if greeting == Greeting::More {
            return;
        }
        if let (Greeting::Connect { port, len }, Some(arrival)) =
            (greeting, self.arrivals.remove(&number))
        {
            let Arrival { socket, said, .. } = arrival;
            let ahead = said[len..].to_vec();
            let connected = vsock.connect(port, |id| {
                self.watch
                    .connection(ControlOperation::Modify, &socket, id)?;
                Ok(Box::new(Stream::arrived(socket, ahead)))
            });
            if let Err(error) = connected {
                tracing::debug!(port, %error, "a connection to the guest is refused");
            }
        }
        self.set_timer();
    }

    /// Sends away who has said nothing for too long, and opens the door again.
    pub(super) fn expired(&mut self) {
        let now = self.clock.now();
        self.arrivals.retain(|_, arrival| arrival.deadline > now);
        if self.shut_until.take_if(|until| *until <= now).is_some() {
            self.set_door(EventSet::IN);
        }
        self.set_timer();
    }

    fn set_timer(&self) {
        // Everybody gets the same time: who came first is sent away first.
        let first = self.arrivals.values().next().map(|first| first.deadline);
        self.timer
            .arm(first.into_iter().chain(self.shut_until).min());
    }
}

impl Arrival {
    /// What was said so far.
    fn listen(&mut self) -> Greeting {
        let mut bytes = [0; greeting::MOST];
        match self.socket.read(&mut bytes) {
            Ok(0) => Greeting::Nonsense,
            Ok(count) => {
                self.said.extend(&bytes[..count]);
                Greeting::parse(&self.said)
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                Greeting::More
            }
            Err(_) => Greeting::Nonsense,
        }
    }
}
