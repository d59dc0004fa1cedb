//! The server: takes connections through the link stage and joins them to sessions.

#[cfg(fuzzing)]
pub mod fuzzing;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use rand::Rng;
use tokio::sync::{Semaphore, watch};

use crate::address::ListenAddress;
use crate::channel::{self, Context};
use crate::clock::MediaClock;
use crate::devices::{Devices, Shared};
use crate::link::auth::Auth;
use crate::link::keys::KeyStore;
use crate::link::message::LinkMessage;
use crate::link::{self, Refusal};
use crate::listener::{Connection, ListenError, Listener};
use crate::protocol::{ChannelKind, LinkResult};
use crate::session::{Ending, ServerInfo, Session, SessionEvent, SessionObserver};
use crate::ticket::Permissions;
use crate::tls::{SecureChannels, Tls};
use crate::transport::{self, Console, Opened, Origin, Security, Site};
use crate::wire::BoxedStream;

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
    /// Which channels a plain TCP connection can't have.
    pub secure_channels: SecureChannels,
    /// What a browser is shown that opens the server's port.
    pub console: Option<Console>,
    /// Whose web pages may connect by WebSocket; those of the server's own host always may.
    pub origins: Vec<Origin>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: "caraway".to_owned(),
            uuid: None,
            auth: Auth::None,
            max_sessions: 128,
            secure_channels: SecureChannels::None,
            console: None,
            origins: Vec::new(),
        }
    }
}

/// Connections in their link stage at a time; more are closed at once.
const MAX_LINKS: usize = 256;
/// How long to wait when the system has no room for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A SPICE server. Its methods may be called from any thread.
pub struct Server {
    config: Config,
    devices: Shared,
    observer: Arc<dyn SessionObserver>,
    keys: OnceLock<KeyStore>,
    links: Semaphore,
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
        Arc::new(Self {
            config,
            devices: Shared::new(devices, clock),
            observer,
            keys: OnceLock::new(),
            links: Semaphore::new(MAX_LINKS),
            sessions: Mutex::default(),
            population: watch::Sender::new(0),
            shutdown: watch::Sender::new(false),
            mouse_changes: watch::Sender::new(()),
            lock_changes: watch::Sender::new(()),
            clock,
            secure_port: AtomicU16::new(0),
        })
    }

    /// Takes connections until [`Server::shutdown`]. Runs inside of a tokio runtime with time and
    /// I/O, and needs no other thread than the one which drives that runtime (and one that makes
    /// keys, started here). A server may serve several listeners at once.
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
            let keys = KeyStore::start().map_err(|source| ListenError::System {
                address: address.clone(),
                source,
            })?;
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

    /// [`InputSink::absolute`] may have changed: clients are told.
    pub fn refresh_mouse_mode(&self) {
        self.mouse_changes.send_replace(());
    }

    /// [`InputSink::locks`] may have changed: clients are told.
    pub fn refresh_locks(&self) {
        self.lock_changes.send_replace(());
    }

    pub(crate) fn devices(&self) -> &Shared {
        &self.devices
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

    /// Serves one connection to its end.
    async fn welcome(self: Arc<Self>, connection: Connection, tls: Option<Arc<Tls>>) {
        let permit = self.links.try_acquire();
        let Connection {
            stream,
            security,
            peer,
        } = connection;
        let opened = match &permit {
            Ok(_) => transport::open(stream, security, tls.as_deref(), self.site()).await,
            Err(_) => Err(Refusal::TooManyLinks),
        };
        let (mut stream, security) = match opened {
            Ok(Opened::Link(stream, security)) => (stream, security),
            Ok(Opened::Served) => return,
            Err(refusal) => return self.refused(peer, &refusal),
        };
        match self.link(&mut stream, security, &peer).await {
            Ok((context, wanted)) => {
                drop(permit);
                self.attend(context, stream, &wanted).await;
            }
            Err(refusal) => {
                self.refused(peer, &refusal);
                if refusal.code().is_some() {
                    link::part(&mut stream).await;
                }
            }
        }
    }

    fn refused(&self, peer: String, refusal: &Refusal) {
        let reason = refusal.to_string();
        tracing::info!(peer, reason, "SPICE connection refused");
        self.observer.event(SessionEvent::Refused { peer, reason });
    }

    /// What browsers find here.
    fn site(&self) -> Site<'_> {
        let Config {
            name,
            console,
            origins,
            secure_channels,
            ..
        } = &self.config;
        let port = self.secure_port.load(Ordering::Relaxed);
        let secured = port != 0 && secure_channels.contains(ChannelKind::Main);
        Site {
            title: name,
            console: console.as_ref(),
            origins,
            secure_port: secured.then_some(port),
        }
    }

    /// The link stage: makes a connection a channel of a session.
    async fn link(
        self: &Arc<Self>,
        stream: &mut BoxedStream,
        security: Security,
        peer: &str,
    ) -> Result<(Context, LinkMessage), Refusal> {
        let wanted = link::hello(stream, security, &self.config.secure_channels).await?;
        let keys = self.keys.get().ok_or(Refusal::Unavailable)?;
        let admitted = match link::authenticate(stream, &wanted, keys, &self.config.auth).await {
            Ok(()) => self.admit(&wanted, peer, security),
            Err(refusal) => Err(refusal),
        };
        let result = match &admitted {
            Ok(_) => Some(LinkResult::Ok),
            Err(refusal) => refusal.code(),
        };
        let concluded = match result {
            Some(code) => link::conclude(stream, code).await,
            None => Ok(()),
        };
        let context = admitted?;
        if let Err(refusal) = concluded {
            self.dismiss(&context, Ending::Vanished);
            return Err(refusal);
        }
        Ok((context, wanted))
    }

    /// Finds or makes the session and opens the channel in it. Only asked after authentication, so
    /// that strangers learn nothing about sessions.
    fn admit(
        self: &Arc<Self>,
        wanted: &LinkMessage,
        peer: &str,
        security: Security,
    ) -> Result<Context, Refusal> {
        let no_channel = Refusal::NoSuchChannel {
            kind: wanted.channel_type,
            id: wanted.channel_id,
        };
        let kind = ChannelKind::from_wire(wanted.channel_type).ok_or(no_channel.clone())?;
        let there = match (kind, wanted.channel_id) {
            (ChannelKind::Main, id) => id == 0,
            (kind, id) => self.devices.has_channel(kind, id),
        };
        if !there {
            return Err(no_channel);
        }
        if *self.shutdown.borrow() {
            return Err(Refusal::Unavailable);
        }
        let session = match (kind, wanted.connection_id) {
            (ChannelKind::Main, 0) => self.new_session(peer)?,
            // A main channel with an id continues a migrated session, and none was migrated here.
            (ChannelKind::Main, id) => return Err(Refusal::NoSuchSession { id }),
            (_, id) => {
                let session = self.sessions.lock().get(&id).cloned();
                session.ok_or(Refusal::NoSuchSession { id })?
            }
        };
        if !session.permissions().allows(kind) {
            return Err(Refusal::NotPermitted { kind });
        }
        let channel = session
            .open(kind, wanted.channel_id, security)
            .ok_or(no_channel)?;
        Ok(Context {
            server: self.clone(),
            session,
            channel,
            capabilities: wanted.channel.clone(),
        })
    }

    fn new_session(&self, peer: &str) -> Result<Arc<Session>, Refusal> {
        let mut sessions = self.sessions.lock();
        if sessions.len() >= self.config.max_sessions {
            return Err(Refusal::TooManySessions);
        }
        // Ids are a secret of a kind: whoever has the password and the id may join the session.
        let id = loop {
            let id = rand::thread_rng().r#gen();
            if id != 0 && !sessions.contains_key(&id) {
                break id;
            }
        };
        let session = Session::new(id, peer.to_owned(), Permissions::ALL);
        sessions.insert(id, session.clone());
        self.population.send_replace(sessions.len());
        Ok(session)
    }

    /// Serves a channel, and ends its session if it was the main one or broke the protocol.
    async fn attend(&self, context: Context, stream: BoxedStream, wanted: &LinkMessage) {
        let (session, kind) = (context.session.id, context.channel.kind);
        let peer = context.session.peer.clone();
        if kind == ChannelKind::Main {
            tracing::info!(session, peer, "SPICE client connected");
            self.observer
                .event(SessionEvent::Connected { session, peer });
        }
        let id = context.channel.id;
        self.observer.event(SessionEvent::ChannelOpened {
            session,
            channel: kind,
            id,
        });

        let ending = channel::run(&context, stream, wanted.framing()).await;
        tracing::debug!(session, channel = %kind, id, %ending, "SPICE channel closed");
        self.dismiss(&context, ending);
    }

    /// Takes a channel out of its session; the session too, if it cannot go on without.
    fn dismiss(&self, context: &Context, ending: Ending) {
        let Context {
            session, channel, ..
        } = context;
        session.close(channel);
        let is_main = channel.kind == ChannelKind::Main;
        if !is_main && !ending.is_violation() {
            return;
        }
        session.end(ending);
        if is_main {
            let mut sessions = self.sessions.lock();
            sessions.remove(&session.id);
            self.population.send_replace(sessions.len());
            drop(sessions);
            let reason = session.has_ended().unwrap_or(Ending::Closed);
            let peer = session.peer.clone();
            tracing::info!(session = session.id, peer, %reason, "SPICE client disconnected");
            let session = session.id;
            self.observer.event(SessionEvent::Disconnected {
                session,
                peer,
                reason,
            });
        }
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
