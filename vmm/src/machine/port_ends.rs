//! What is at the host's end of console ports: the SPICE agent, Unix sockets, files.
//!
//! Everything here runs on the `devices` thread, but for the bells that others ring.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;

use caraway_spice::Agent;
use caraway_virtio::{PortConfig, PortEnd};
use event_manager::{EventOps, Events, MutEventSubscriber};
use parking_lot::Mutex;
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::event_loop::Source;
use crate::config::PortSpec;
use crate::config::endpoint::ChannelTo;
use crate::exit::{Exit, Failure};
use crate::guest_agent::GuestAgent;
use crate::socket::SocketFile;

/// The ends of a console's ports, opened and not yet joined to it.
#[derive(Default)]
pub struct PortEnds {
    ports: Vec<PortConfig>,
    sockets: Vec<Arc<SocketEnd>>,
    agent: Option<Arc<Agent>>,
    guest_agent: Option<Arc<GuestAgent>>,
}

impl PortEnds {
    /// Opens what `specs` name. Call it before there are other threads, as it makes sockets.
    ///
    /// # Errors
    /// A socket or a file can't be made.
    pub fn open(specs: &[PortSpec]) -> Result<Self, Failure> {
        let mut ends = Self::default();
        for (index, spec) in specs.iter().enumerate() {
            let failed = |error: &dyn std::error::Error| {
                Failure::of(Exit::Resource, error).context(format!("channels[{index}].to"))
            };
            let end: Arc<dyn PortEnd> = match &spec.to {
                ChannelTo::SpiceAgent => {
                    let agent = Agent::new();
                    ends.agent = Some(Arc::clone(&agent));
                    Arc::new(AgentPort(agent))
                }
                ChannelTo::GuestAgent => {
                    let agent: Arc<GuestAgent> = Arc::default();
                    ends.guest_agent = Some(Arc::clone(&agent));
                    agent
                }
                ChannelTo::Unix(path) => {
                    let file = SocketFile::bind(path).map_err(|error| failed(&error))?;
                    let end = SocketEnd::new(file).map_err(|error| failed(&error))?;
                    let end = Arc::new(end);
                    ends.sockets.push(Arc::clone(&end));
                    end
                }
                ChannelTo::File(path) => {
                    // A FIFO that nobody reads must not hold us up.
                    let mut how = OpenOptions::new();
                    how.write(true).create(true).truncate(true);
                    let file = how.custom_flags(libc::O_NONBLOCK).open(path);
                    Arc::new(FileEnd(Mutex::new(Some(
                        file.map_err(|error| failed(&error))?,
                    ))))
                }
            };
            let name = spec.name.clone();
            ends.ports.push(PortConfig { name, end });
        }
        Ok(ends)
    }

    /// The SPICE agent's port, if a channel is for it.
    pub fn agent(&self) -> Option<&Arc<Agent>> {
        self.agent.as_ref()
    }

    /// The QEMU guest agent's port, if a channel is for it.
    pub fn guest_agent(&self) -> Option<&Arc<GuestAgent>> {
        self.guest_agent.as_ref()
    }

    /// The ports for the console.
    pub fn take_ports(&mut self) -> Vec<PortConfig> {
        std::mem::take(&mut self.ports)
    }

    /// Has the ends ring `wake`; what the event loop must serve for that.
    pub fn join(self, wake: &Arc<EventFd>) -> Vec<Source> {
        if let Some(agent) = self.agent {
            let wake = Arc::clone(wake);
            // A full counter is a bell that rings already.
            agent.on_progress(move || drop(wake.write(1)));
        }
        if let Some(agent) = self.guest_agent {
            let wake = Arc::clone(wake);
            agent.on_progress(move || drop(wake.write(1)));
        }
        let watch = |end| {
            let wake = Arc::clone(wake);
            Source::own(SocketWatch { end, wake })
        };
        self.sockets.into_iter().map(watch).collect()
    }
}

/// The SPICE server's agent port.
struct AgentPort(Arc<Agent>);

impl PortEnd for AgentPort {
    fn is_open(&self) -> bool {
        self.0.is_usable()
    }

    fn guest_opened(&self, open: bool) {
        match open {
            true => self.0.open(),
            false => self.0.close(),
        }
    }

    fn take(&self, bytes: &[u8]) -> usize {
        self.0.write(bytes)
    }

    fn give(&self, buffer: &mut [u8]) -> usize {
        self.0.read(buffer)
    }
}

/// A file that gets what the guest writes; none once it fails.
struct FileEnd(Mutex<Option<File>>);

impl PortEnd for FileEnd {
    fn is_open(&self) -> bool {
        self.0.lock().is_some()
    }

    fn guest_opened(&self, _open: bool) {}

    fn take(&self, bytes: &[u8]) -> usize {
        let mut file = self.0.lock();
        match file.as_mut().map(|file| file.write(bytes)) {
            Some(Ok(count)) => count,
            Some(Err(error)) if error.kind() == ErrorKind::Interrupted => 0,
            Some(Err(error)) => {
                tracing::error!(%error, "a channel's file can't be written and is closed");
                *file = None;
                0
            }
            None => 0,
        }
    }

    fn give(&self, _buffer: &mut [u8]) -> usize {
        0
    }
}

/// A Unix socket on which one program at a time is the host's end; others wait in line.
struct SocketEnd {
    listener: UnixListener,
    _file: SocketFile,
    peer: Mutex<Option<Peer>>,
    /// Rung when the peer is gone.
    gone: EventFd,
}

struct Peer {
    stream: UnixStream,
    gone: bool,
}

impl SocketEnd {
    fn new(file: SocketFile) -> std::io::Result<Self> {
        Ok(Self {
            listener: file.listener()?,
            _file: file,
            peer: Mutex::default(),
            gone: EventFd::new(EFD_NONBLOCK)?,
        })
    }

    /// Moves bytes between `stream` and whoever asks; 0 if that has to wait, or is over.
    fn transfer(&self, act: impl FnOnce(&mut &UnixStream) -> std::io::Result<usize>) -> usize {
        let mut peer = self.peer.lock();
        let Some(peer) = peer.as_mut().filter(|peer| !peer.gone) else {
            return 0;
        };
        let error = match act(&mut &peer.stream) {
            Ok(0) => None,
            Ok(count) => return count,
            Err(error) => Some(error.kind()),
        };
        if !matches!(error, Some(ErrorKind::WouldBlock | ErrorKind::Interrupted)) {
            peer.gone = true;
            // Two do not fill its counter.
            let _ = self.gone.write(1);
        }
        0
    }
}

impl PortEnd for SocketEnd {
    fn is_open(&self) -> bool {
        self.peer.lock().as_ref().is_some_and(|peer| !peer.gone)
    }

    fn guest_opened(&self, _open: bool) {}

    fn take(&self, bytes: &[u8]) -> usize {
        self.transfer(|stream| stream.write(bytes))
    }

    fn give(&self, buffer: &mut [u8]) -> usize {
        self.transfer(|stream| stream.read(buffer))
    }
}

/// Watches a socket's listener and whoever is connected to it.
struct SocketWatch {
    end: Arc<SocketEnd>,
    wake: Arc<EventFd>,
}

impl SocketWatch {
    /// Each event is told once: what comes of it is asked for until there is no more.
    fn edges(fd: RawFd) -> Events {
        let edges =
            EventSet::IN | EventSet::OUT | EventSet::READ_HANG_UP | EventSet::EDGE_TRIGGERED;
        Events::new_raw(fd, edges)
    }

    /// Lets go of a peer that is gone, and takes the next in line.
    fn settle(&self, ops: &mut EventOps) {
        let mut peer = self.end.peer.lock();
        if let Some(left) = peer.take_if(|peer| peer.gone)
            && let Err(error) = ops.remove(Events::empty_raw(left.stream.as_raw_fd()))
        {
            tracing::warn!(%error, "a channel's socket could not leave the event loop");
        }
        if peer.is_some() {
            return;
        }
        let Ok((stream, _)) = self.end.listener.accept() else {
            return;
        };
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        match ops.add(Self::edges(stream.as_raw_fd())) {
            Ok(()) => {
                let gone = false;
                *peer = Some(Peer { stream, gone });
            }
            Err(error) => {
                tracing::warn!(%error, "a channel's socket could not join the event loop")
            }
        }
    }
}

impl MutEventSubscriber for SocketWatch {
    fn process(&mut self, events: Events, ops: &mut EventOps) {
        if events.fd() == self.end.gone.as_raw_fd() {
            // It may have been silent.
            let _ = self.end.gone.read();
        }
        self.settle(ops);
        let _ = self.wake.write(1);
    }

    fn init(&mut self, ops: &mut EventOps) {
        let listener = self.end.listener.as_raw_fd();
        let watched = [
            Events::new_raw(listener, EventSet::IN | EventSet::EDGE_TRIGGERED),
            Events::new_raw(self.end.gone.as_raw_fd(), EventSet::IN),
        ];
        for events in watched {
            if let Err(error) = ops.add(events) {
                tracing::warn!(%error, "a channel's socket could not join the event loop");
            }
        }
    }
}
