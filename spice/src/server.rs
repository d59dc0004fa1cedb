//! The server: what a program starts, asks and stops.

mod reception;

#[cfg(fuzzing)]
pub mod fuzzing;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::address::ListenAddress;
use crate::agent::{Grants, Seat};
use crate::clock::MediaClock;
use crate::devices::{Devices, Shared};
use crate::link::guard::Guard;
use crate::link::keys::{KeyStore, Keys};
use crate::listener::{ListenError, Listener};
use crate::session::{Ending, ServerInfo, Session, SessionObserver};
use crate::ticket::{Auth, NewTicket, TicketError, TicketInfo, TicketSet};
use crate::tls::SecureChannels;
use crate::transport::{Console, Origin};

/// What a server is told at its start.
#[derive(Debug, Clone)]
pub struct Config {
    /// The name that viewers show.
    pub name: String,
    /// The identity that viewers show, as the 16 bytes of a UUID.
    pub uuid: Option<[u8; 16]>,
    /// Who may connect.
    pub auth: Auth,
    /// Sessions at a time.
    pub max_sessions: usize,
    /// How several clients share the display.
    pub sharing: Sharing,
    /// Which channels a plain TCP connection can't have.
    pub secure_channels: SecureChannels,
    /// What a browser is shown that opens the server's port.
    pub console: Option<Console>,
    /// Whose web pages may connect by WebSocket; those of the server's own host always may.
    pub origins: Vec<Origin>,
    /// Whether clients and the guest may have each other's clipboard, as far as their sessions may.
    pub clipboard: bool,
    /// Whether clients may send the guest files, as far as their sessions may.
    pub file_transfer: bool,
}

/// How several clients share a display.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    /// All of them look and type at once.
    #[default]
    Shared,
    /// One at a time.
    Exclusive(Second),
    /// All of them look. Whoever connects when nobody has the input gets it, and keeps it to the
    /// end.
    ViewOnly,
}

/// What happens when a second client comes to a display that is for one at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Second {
    /// It is refused.
    #[default]
    Refuse,
    /// It takes over: the first one is ended.
    TakeOver,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: "caraway".to_owned(),
            uuid: None,
            auth: Auth::None,
            max_sessions: 128,
            sharing: Sharing::Shared,
            secure_channels: SecureChannels::None,
            console: None,
            origins: Vec::new(),
            clipboard: true,
            file_transfer: true,
        }
    }
}

/// How long to wait when the system has no room for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A SPICE server. Its methods may be called from any thread.
pub struct Server {
    config: Config,
    devices: Shared,
    observer: Arc<dyn SessionObserver>,
    keys: OnceLock<Keys>,
    guard: Guard,
    /// None if nobody is asked for a ticket.
    tickets: Option<TicketSet>,
    sessions: Mutex<BTreeMap<u32, Arc<Session>>>,
    /// How many sessions there are; what [`Server::closed`] waits for.
    population: watch::Sender<usize>,
    shutdown: watch::Sender<bool>,
    mouse_changes: watch::Sender<()>,
    lock_changes: watch::Sender<()>,
    clock: MediaClock,
    /// The port of a TLS listener; 0 while there is none.
    secure_port: AtomicU16,
}

impl Server {
    /// A server of these devices, that tells `observer` who comes and goes.
    #[must_use]
    pub fn new(config: Config, devices: Devices, observer: Arc<dyn SessionObserver>) -> Arc<Self> {
        let clock = MediaClock::start();
        let mouse_changes = match &devices.agent {
            Some(agent) => agent.pointer_changes(),
            None => watch::Sender::new(()),
        };
        let tickets = match &config.auth {
            Auth::None => None,
            Auth::Tickets => Some(TicketSet::new()),
            Auth::Password(password) => Some(TicketSet::with_first(password.clone())),
        };
        Arc::new(Self {
            config,
            devices: Shared::new(devices, clock),
            observer,
            keys: OnceLock::new(),
            guard: Guard::default(),
            tickets,
            sessions: Mutex::default(),
            population: watch::Sender::new(0),
            shutdown: watch::Sender::new(false),
            mouse_changes,
            lock_changes: watch::Sender::new(()),
            clock,
            secure_port: AtomicU16::new(0),
        })
    }

    /// Takes connections until [`Server::shutdown`]. Runs inside of a tokio runtime with time and
    /// I/O. One thread is enough to drive it; its blocking threads encode large pieces, and one that makes
    /// keys is started here if viewers are asked for passwords. A server may serve several listeners at once.
    ///
    /// # Errors
    ///
    /// If the runtime cannot drive the listener or no thread can be started.
    pub async fn serve(self: Arc<Self>, listener: Listener) -> Result<(), ListenError> {
        let address = listener.address().clone();
        let (acceptor, tls) = listener.into_acceptor()?;
        if let (Some(_), ListenAddress::Tcp { port, .. }) = (&tls, &address) {
            self.secure_port.store(*port, Ordering::Relaxed);
        }
        if self.keys.get().is_none() {
            let failed = |source| ListenError::System {
                address: address.clone(),
                source,
            };
            let keys = match self.tickets {
                None => Keys::Nobodys,
                Some(_) => Keys::Store(KeyStore::start().map_err(failed)?),
            };
            let _ = self.keys.set(keys);
        }
        tracing::info!(%address, "SPICE listens");
        let mut shutdown = self.shutdown.subscribe();
        loop {
            let accepted = tokio::select! {
                accepted = acceptor.accept() => accepted,
                _ = shutdown.wait_for(|&down| down) => return Ok(()),
            };
            match accepted {
                Ok(connection) => {
                    tokio::spawn(self.clone().welcome(connection, tls.clone()));
                }
                Err(error) => {
                    tracing::warn!(%address, %error, "cannot take a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Tells all clients goodbye, closes them and the listeners. Returns at once; see
    /// [`Server::closed`].
    pub fn shutdown(&self) {
        self.shutdown.send_replace(true);
        for session in self.sessions.lock().values() {
            session.end(Ending::Shutdown);
        }
    }

    /// Waits until no session is left.
    pub async fn closed(&self) {
        let _ = self
            .population
            .subscribe()
            .wait_for(|&count| count == 0)
            .await;
    }

    /// Sessions and channels as they are now.
    #[must_use]
    pub fn info(&self) -> ServerInfo {
        let absolute = self.absolute();
        let sessions = self.sessions.lock();
        ServerInfo {
            sessions: sessions
                .values()
                .map(|session| session.info(absolute))
                .collect(),
        }
    }

    /// Adds a ticket; those that are there stay as they are.
    ///
    /// # Errors
    ///
    /// If nobody is asked for tickets, there are too many, or another one has its id or password.
    pub fn add_ticket(&self, new: NewTicket) -> Result<TicketInfo, TicketError> {
        self.ticket_set()?.add(new, Instant::now())
    }

    /// All tickets, and those that lapsed lately, in the order in which they were added.
    ///
    /// # Errors
    ///
    /// If nobody is asked for tickets.
    pub fn tickets(&self) -> Result<Vec<TicketInfo>, TicketError> {
        Ok(self.ticket_set()?.list(Instant::now()))
    }

    /// Lets no new session be had with a ticket; and ends those that it opened, or lets them go on.
    /// Returns how many there are.
    ///
    /// # Errors
    ///
    /// If nobody is asked for tickets, or there is none of that id.
    pub fn revoke_ticket(&self, id: &str, end_sessions: bool) -> Result<usize, TicketError> {
        let ticket = self.ticket_set()?.revoke(id)?;
        let sessions = self.sessions.lock();
        let opened = sessions.values().filter(|session| {
            let its = session.ticket();
            its.is_some_and(|its| Arc::ptr_eq(its, &ticket)) && session.has_ended().is_none()
        });
        let count = opened.inspect(|session| {
            if end_sessions {
                session.end(Ending::Revoked);
            }
        });
        Ok(count.count())
    }

    /// Ends a session, whose client is told the reason. `false` if there is none of that id.
    pub fn terminate(&self, session: u32, reason: &str) -> bool {
        let sessions = self.sessions.lock();
        let session = sessions
            .get(&session)
            .filter(|session| session.has_ended().is_none());
        if let Some(session) = session {
            session.end(Ending::Terminated {
                reason: reason.to_owned(),
            });
        }
        session.is_some()
    }

    fn ticket_set(&self) -> Result<&TicketSet, TicketError> {
        self.tickets.as_ref().ok_or(TicketError::NotAsked)
    }

    /// [`InputSink::absolute`](crate::InputSink::absolute) may have changed: clients are told.
    pub fn refresh_mouse_mode(&self) {
        self.mouse_changes.send_replace(());
    }

    /// [`InputSink::locks`](crate::InputSink::locks) may have changed: clients are told.
    pub fn refresh_locks(&self) {
        self.lock_changes.send_replace(());
    }

    pub(crate) fn devices(&self) -> &Shared {
        &self.devices
    }

    /// A client's place at the agent's port, if there is one.
    pub(crate) fn seat(&self, session: &Session, counts: bool, wake: Arc<Notify>) -> Option<Seat> {
        let may = session.permissions();
        let grants = Grants {
            clipboard: self.config.clipboard && may.clipboard,
            file_transfer: self.config.file_transfer && may.file_transfer,
            control: may.input,
        };
        let agent = self.devices.agent.as_ref()?;
        Some(agent.seat(session.id, grants, counts, wake))
    }

    pub(crate) fn absolute(&self) -> bool {
        self.devices.desk.absolute()
    }

    pub(crate) fn name(&self) -> &str {
        &self.config.name
    }

    pub(crate) fn uuid(&self) -> Option<[u8; 16]> {
        self.config.uuid
    }

    pub(crate) fn mouse_changes(&self) -> watch::Receiver<()> {
        self.mouse_changes.subscribe()
    }

    pub(crate) fn lock_changes(&self) -> watch::Receiver<()> {
        self.lock_changes.subscribe()
    }

    pub(crate) fn uptime_ns(&self) -> u64 {
        self.clock.nanoseconds()
    }

    /// The clock of audio and video: milliseconds, wrapping.
    pub(crate) fn media_time(&self) -> u32 {
        self.clock.media_time()
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
