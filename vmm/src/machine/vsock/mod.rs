//! The virtio socket device, and the Unix sockets that its connections lead to.
//!
//! A program of the host connects to the socket `PATH` and says `CONNECT PORT`, a line; once the
//! guest has taken the connection it reads `OK PORT`, with the port that the guest sees it by. What
//! the guest connects to is `PATH_PORT`, where a program of the host listens. All of it is served by
//! the event loop, through an epoll of its own: connections come and go by the hundred.

mod greeting;
mod lobby;
mod stream;

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use caraway_virtio::Vsock;
use caraway_virtio::vsock::{ConnectionId, Host, HostStream, Readiness, VsockCounts};
use parking_lot::Mutex;
use rustix::process::{Resource, getrlimit, setrlimit};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::event_loop::{Keep, Source};
use super::virtio::Slots;
use crate::config::VsockSpec;
use crate::exit::{Exit, Failure};
use crate::metrics::Metrics;
use crate::socket::SocketFile;

use lobby::Lobby;
use stream::Stream;

/// Events that are taken from the kernel at once.
const EVENTS: usize = 128;

/// Who waits in an epoll: a connection by its number, somebody in the lobby, or the lobby's door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Connection(ConnectionId),
    Arrival(u64),
    Door,
}

impl Token {
    /// Connections count up from 1, and never come that far.
    const ARRIVALS: u64 = 1 << 63;

    const fn number(self) -> u64 {
        match self {
            Self::Connection(ConnectionId(number)) => number,
            Self::Arrival(number) => number | Self::ARRIVALS,
            Self::Door => 0,
        }
    }

    const fn of(number: u64) -> Self {
        match number {
            0 => Self::Door,
            _ if number & Self::ARRIVALS != 0 => Self::Arrival(number & !Self::ARRIVALS),
            _ => Self::Connection(ConnectionId(number)),
        }
    }
}

/// The sockets that are watched. One that is closed is watched no more.
#[derive(Clone)]
struct Watch(Arc<Epoll>);

impl Watch {
    fn ctl(
        &self,
        what: ControlOperation,
        fd: RawFd,
        token: Token,
        events: EventSet,
    ) -> io::Result<()> {
        self.0
            .ctl(what, fd, EpollEvent::new(events, token.number()))
    }

    /// Tells each change of what a connection's socket can do once.
    fn connection(
        &self,
        what: ControlOperation,
        socket: &impl AsRawFd,
        id: ConnectionId,
    ) -> io::Result<()> {
        let edges =
            EventSet::IN | EventSet::OUT | EventSet::READ_HANG_UP | EventSet::EDGE_TRIGGERED;
        self.ctl(what, socket.as_raw_fd(), Token::Connection(id), edges)
    }
}

/// Programs of the host that listen, each on a socket named by its port.
struct Ports {
    path: PathBuf,
    watch: Watch,
}

impl Host for Ports {
    fn connect(&mut self, port: u32, id: ConnectionId) -> io::Result<Box<dyn HostStream>> {
        let stream = Stream::connect(&socket_of(&self.path, port))?;
        self.watch
            .connection(ControlOperation::Add, stream.socket(), id)?;
        Ok(Box::new(stream))
    }
}

/// The socket on which a program of the host serves `port`.
fn socket_of(path: &Path, port: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!("_{port}"));
    name.into()
}

/// Binds the socket. Call it before there are other threads, see [`SocketFile`].
///
/// # Errors
/// It can't be made.
pub(super) fn bind(spec: &VsockSpec) -> Result<SocketFile, Failure> {
    SocketFile::bind(&spec.path)
        .map_err(|error| Failure::of(Exit::Resource, &error).context("vsock.to"))
}

/// Puts the device in its slot.
///
/// # Errors
/// The host lacks what it needs.
pub(super) fn add(
    spec: &VsockSpec,
    socket: SocketFile,
    slots: &mut Slots<'_>,
) -> Result<Arc<Vsock>, Failure> {
    let failed = |error: &dyn std::error::Error| {
        Failure::of(Exit::Resource, error).context("the virtio socket device can't be made")
    };
    raise_limit();
    let watch = Epoll::new().map_err(|error| failed(&error))?;
    let watch = Watch(Arc::new(watch));
    let ports = Ports {
        path: spec.path.clone(),
        watch: watch.clone(),
    };
    let timer = slots.timers.timer().map_err(|error| failed(&error))?;
    let clock = slots.clock.clone();
    let vsock = Vsock::new(spec.cid, ports, clock.clone(), timer.clone());
    let vsock = Arc::new(vsock);
    slots
        .attach_to_loop(spec.address, Arc::clone(&vsock))
        .map_err(|error| failed(&error))?;
    let served = Arc::clone(&vsock);
    slots.serve_timer(timer, move || served.expired());

    let patience = slots.timers.timer().map_err(|error| failed(&error))?;
    let lobby = Lobby::open(socket, watch.clone(), clock, patience.clone())
        .map_err(|error| failed(&error))?;
    let lobby = Arc::new(Mutex::new(lobby));
    let waiting = Arc::clone(&lobby);
    slots.serve_timer(patience, move || waiting.lock().expired());
    let served = Arc::clone(&vsock);
    let source = Source::new(watch.0.as_raw_fd(), move || {
        serve(&watch, &lobby, &served);
        Keep::Yes
    });
    slots.board.sources.push(source);
    Ok(vsock)
}

/// Each connection is a descriptor, and many systems begin with a limit of 1024.
fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = rustix::process::Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// Hands on what the sockets have to tell. What is left makes the epoll readable again.
fn serve(watch: &Watch, lobby: &Mutex<Lobby>, vsock: &Vsock) {
    let mut events = [EpollEvent::default(); EVENTS];
    let count = watch.0.wait(0, &mut events).unwrap_or(0);
    let mut ready = Vec::new();
    for event in &events[..count] {
        match Token::of(event.data()) {
            Token::Connection(id) => ready.push((id, readiness(event.event_set()))),
            Token::Arrival(number) => lobby.lock().hear(number, vsock),
            Token::Door => lobby.lock().open_door(),
        }
    }
    if !ready.is_empty() {
        vsock.ready(ready);
    }
}

fn readiness(events: EventSet) -> Readiness {
    let any = |these: EventSet| events.intersects(these);
    Readiness {
        readable: any(EventSet::IN | EventSet::READ_HANG_UP),
        writable: any(EventSet::OUT),
        hung_up: any(EventSet::HANG_UP | EventSet::ERROR),
    }
}

/// Shows what its connections do.
pub(super) fn export(vsock: &Arc<Vsock>, metrics: &Metrics) {
    let asked = |number: fn(&VsockCounts) -> u64| {
        let vsock = Arc::clone(vsock);
        move || number(&vsock.counts())
    };
    metrics.gauge_of(
        "vsock_connections",
        "Connections over the virtio socket device.",
        &[],
        asked(|counts| counts.connections),
    );
    let help = "Connections that were asked for over the virtio socket device, by whom.";
    for (by, number) in [
        ("guest", asked(|counts| counts.from_guest)),
        ("host", asked(|counts| counts.from_host)),
    ] {
        metrics.counter_of("vsock_connections_total", help, &[("by", by)], number);
    }
    metrics.counter_of(
        "vsock_refused_total",
        "Connections that the guest asked for in vain.",
        &[],
        asked(|counts| counts.refused),
    );
    let help = "Bytes over the virtio socket device, from the guest (out) and to it (in).";
    for (direction, number) in [
        ("out", asked(|counts| counts.bytes_out)),
        ("in", asked(|counts| counts.bytes_in)),
    ] {
        metrics.counter_of(
            "vsock_bytes_total",
            help,
            &[("direction", direction)],
            number,
        );
    }
}
