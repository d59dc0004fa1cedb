//! What the machine shows: pictures of it, the server for it, and how to connect to that.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use caraway_qxl::Qxl;
use caraway_spice::tls::SecureChannels;
use caraway_spice::{
    Agent, Auth, Console, Devices, DisplayObserver, DisplaySource, Password, Second, Server,
    SessionEvent, SessionObserver, Sharing, Update,
};

use super::certificate::Certificate;
use super::ending::Artifacts;
use super::net::Addresses;
use super::pipes::Pipes;
use crate::command::{
    ApiError, DisplayInfo, ErrorCode, HeadInfo, Screenshot, SecureViewer, TextScreen, TlsInfo,
    Viewer,
};
use crate::config::MachineSpec;
use crate::config::endpoint::Listen;
use crate::config::spice::{self as config, OnConnect, Secret};
use crate::config::tls::Channels;
use crate::events::{Event, EventLog};
use crate::exit::{Exit, Failure};
use crate::machine::{Input, Machine, Notice, Notices};
use crate::metrics::Metrics;
use crate::vv;

/// The display of a machine, if it has one.
pub(super) struct Display {
    name: String,
    /// In the order of their channels; heads are counted through all of them.
    displays: Vec<Arc<Qxl>>,
    input: Arc<Input>,
    agent: Option<Arc<Agent>>,
    changes: Arc<Changes>,
    addresses: Addresses,
    certificate: Option<Certificate>,
    browsers: bool,
    password: Option<Secret>,
}

/// Counts what changes on the display, and has the control loop told of new modes.
struct Changes {
    count: AtomicU64,
    notices: Arc<Notices>,
}

impl DisplayObserver for Changes {
    fn updated(&self, _updates: &[Update]) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    fn layout_changed(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.notices.post(Notice::Display);
    }

    fn cursor_changed(&self) {}
}

fn no_display() -> ApiError {
    ApiError::new(ErrorCode::NoDisplay, "the machine has no display")
        .hint("give its config a `display`")
}

impl Display {
    /// The display of `machine`, shown at `addresses`.
    pub(super) fn new(
        spec: &MachineSpec,
        machine: &Machine,
        addresses: Addresses,
        certificate: Option<Certificate>,
        notices: &Arc<Notices>,
    ) -> Self {
        let displays = machine.displays().to_vec();
        let notices = Arc::clone(notices);
        let changes = Arc::new(Changes {
            count: AtomicU64::new(0),
            notices,
        });
        for qxl in &displays {
            let observer: Arc<dyn DisplayObserver> = changes.clone();
            qxl.observe(Arc::downgrade(&observer));
        }
        Self {
            name: spec.name.clone(),
            displays,
            input: Arc::clone(machine.input()),
            agent: machine.agent().cloned(),
            changes,
            addresses,
            certificate,
            browsers: spec
                .spice
                .as_ref()
                .is_some_and(|spice| spice.console.is_some()),
            password: spec.spice.as_ref().and_then(|spice| spice.password.clone()),
        }
    }

    /// A SPICE server for it, if the config asks for one.
    ///
    /// # Errors
    /// The password is not one that SPICE can carry, or the console's folder is gone.
    pub(super) fn server(
        &self,
        spec: &MachineSpec,
        pipes: &Pipes,
        events: &Arc<EventLog>,
        metrics: &Arc<Metrics>,
    ) -> Result<Option<Arc<Server>>, Failure> {
        let Some(spice) = spec.spice.as_ref().filter(|_| !self.displays.is_empty()) else {
            return Ok(None);
        };
        let auth = match (spice.auth, &spice.password) {
            (config::Auth::None, _) => Auth::None,
            (config::Auth::Ticket, _) | (config::Auth::Password, None) => Auth::Tickets,
            (config::Auth::Password, Some(secret)) => Auth::Password(
                Password::new(secret.reveal())
                    .map_err(|error| Failure::of(Exit::Config, &error).context("spice.password"))?,
            ),
        };
        let config = caraway_spice::Config {
            name: spec.name.clone(),
            uuid: Some(*spec.uuid.as_bytes()),
            auth,
            max_sessions: spice.max_sessions as usize,
            sharing: match (spice.sharing, spice.on_connect) {
                (config::Sharing::Shared, _) => Sharing::Shared,
                (config::Sharing::ViewOnly, _) => Sharing::ViewOnly,
                (config::Sharing::Exclusive, OnConnect::Refuse) => {
                    Sharing::Exclusive(Second::Refuse)
                }
                (config::Sharing::Exclusive, OnConnect::TakeOver) => {
                    Sharing::Exclusive(Second::TakeOver)
                }
            },
            secure_channels: spice
                .tls
                .as_ref()
                .map_or_else(SecureChannels::default, |tls| (&tls.channels).into()),
            console: spice
                .console
                .as_deref()
                .map(Console::open)
                .transpose()
                .map_err(|error| Failure::of(Exit::Config, &error).context("spice.console"))?,
            origins: spice.origins.clone(),
            clipboard: spice.clipboard,
            file_transfer: spice.file_transfer,
        };
        let observer = Arc::new(Sessions::new(events, metrics, &self.changes.notices));
        let sources = self.displays.iter();
        let devices = Devices {
            displays: sources
                .map(|qxl| qxl.clone() as Arc<dyn DisplaySource>)
                .collect(),
            inputs: self.input.clone(),
            agent: self.agent.clone(),
            ..Devices::default()
        };
        Ok(Some(Server::new(config, pipes.add_to(devices), observer)))
    }

    /// Tells a person where the display is and how to leave.
    pub(super) fn greet(&self, terminal: bool) {
        let mut out = std::io::stderr().lock();
        // Whoever closed standard error does not want to know.
        for listen in self.plain_viewers() {
            let _ = writeln!(out, "Viewer:  {}", vv::viewer_line(listen));
        }
        for listen in &self.addresses.secure {
            let certificate = self.certificate.as_ref();
            let ca = certificate.and_then(|certificate| certificate.files().ca.as_deref());
            let subject = certificate.map_or("", |certificate| certificate.identity().subject());
            let _ = writeln!(
                out,
                "Viewer:  {}",
                vv::secure_viewer_line(listen, ca, subject)
            );
        }
        if self.browsers {
            let secure = self.addresses.secure.iter().map(|listen| ("https", listen));
            let plain = self.plain_viewers().map(|listen| ("http", listen));
            for url in secure
                .chain(plain)
                .filter_map(|(scheme, at)| vv::url(scheme, at))
            {
                let _ = writeln!(out, "Browser: {url}");
            }
        }
        if terminal {
            let _ = writeln!(out, "Leave:   Ctrl-]");
        }
    }

    /// Where a viewer may connect that does not speak TLS.
    fn plain_viewers(&self) -> impl Iterator<Item = &Listen> {
        let certificate = self.certificate.as_ref();
        let all = certificate.is_some_and(|c| c.files().channels == Channels::All);
        let useful = move |listen: &&Listen| !all || matches!(listen, Listen::Unix(_));
        self.addresses.plain.iter().filter(useful)
    }

    /// Shows new connections what the certificate's files hold now.
    ///
    /// # Errors
    /// There is no certificate, or one of its files is not what it should be.
    pub(super) fn reload_certificate(&mut self) -> Result<TlsInfo, ApiError> {
        let certificate = self.certificate.as_mut().ok_or_else(|| {
            ApiError::new(
                ErrorCode::NoTls,
                "the machine's viewers are not served by TLS",
            )
            .hint("give its config `spice.tls`; `caraway tls init` prints one")
        })?;
        certificate.reload()?;
        self.tls().ok_or_else(no_display)
    }

    fn tls(&self) -> Option<TlsInfo> {
        let listeners = self.addresses.secure.iter().map(ToString::to_string);
        Some(TlsInfo {
            listeners: listeners.collect(),
            ..self.certificate.as_ref()?.info()
        })
    }

    /// Writes a connection file for viewers.
    pub(super) fn write_vv(&self, path: &Path) -> Result<(), Failure> {
        let viewer = self.viewer().map_err(|error| {
            Failure::new(
                Exit::Usage,
                format!("--vv {}: {}", path.display(), error.message),
            )
        })?;
        std::fs::write(path, vv::file(&viewer)).map_err(|error| {
            Failure::of(Exit::Resource, &error).context(format!("can't write {}", path.display()))
        })
    }

    pub(super) fn viewer(&self) -> Result<Viewer, ApiError> {
        if self.addresses.plain.is_empty() && self.certificate.is_none() {
            return Err(
                ApiError::new(ErrorCode::NoDisplay, "the machine has no SPICE server")
                    .hint("give its config `spice` with `listen`"),
            );
        }
        Ok(Viewer {
            title: self.name.clone(),
            listeners: self.addresses.plain.clone(),
            tls: self.secure_viewer(),
            password: self.password.clone(),
        })
    }

    fn secure_viewer(&self) -> Option<SecureViewer> {
        let certificate = self.certificate.as_ref()?;
        let identity = certificate.identity();
        let mut listeners = self.addresses.secure.iter();
        let listen = listeners.find_map(|listen| match listen {
            Listen::Tcp(address) => Some(*address),
            Listen::Unix(_) => None,
        })?;
        Some(SecureViewer {
            listen,
            subject: identity.subject().to_owned(),
            ca: identity.ca().map(str::to_owned),
            channels: certificate.files().channels.clone(),
        })
    }

    pub(super) fn info(&self, server: Option<&Server>) -> Result<DisplayInfo, ApiError> {
        self.first()?;
        let heads = self.displays.iter().flat_map(|qxl| qxl.layout().heads);
        let heads = heads.map(|head| HeadInfo {
            id: head.id,
            x: head.area.left,
            y: head.area.top,
            width: head.area.width(),
            height: head.area.height(),
        });
        let sessions = server
            .map(|server| server.info().sessions)
            .unwrap_or_default();
        let absolute = caraway_spice::InputSink::absolute(&*self.input);
        Ok(DisplayInfo {
            listeners: self
                .addresses
                .plain
                .iter()
                .map(ToString::to_string)
                .collect(),
            tls: self.tls(),
            sessions: sessions.into_iter().map(Into::into).collect(),
            heads: heads.collect(),
            mouse_mode: if absolute { "client" } else { "server" }.to_owned(),
        })
    }

    /// The display that firmware and early boot are on.
    fn first(&self) -> Result<&Arc<Qxl>, ApiError> {
        self.displays.first().ok_or_else(no_display)
    }

    /// Every head that shows something: its display, and its place there.
    fn heads(&self) -> impl Iterator<Item = (&Arc<Qxl>, usize)> {
        let heads = |qxl: &Arc<Qxl>| 0..qxl.layout().heads.len();
        let displays = self.displays.iter();
        displays.flat_map(move |qxl| heads(qxl).map(move |head| (qxl, head)))
    }

    pub(super) fn screenshot(&self, head: u32) -> Result<Screenshot, ApiError> {
        self.first()?;
        let heads = self.heads().count();
        if heads == 0 {
            return Err(ApiError::new(
                ErrorCode::NoPicture,
                "the guest shows nothing now",
            ));
        }
        let place = self.heads().nth(head as usize);
        let shot = place.and_then(|(qxl, head)| qxl.screenshot(head));
        let shot = shot.ok_or_else(|| {
            let message = format!("there is no head {head}; the guest shows {heads}");
            ApiError::new(ErrorCode::NotFound, message).path("head")
        })?;
        let (width, height) = (shot.size.width, shot.size.height);
        Ok(Screenshot {
            width,
            height,
            pixels: shot.pixels,
        })
    }

    pub(super) fn stamp(&self) -> Result<u64, ApiError> {
        self.first()?;
        // In a VGA mode only looking tells what changed.
        let generations = self.displays.iter().map(|qxl| qxl.layout().generation);
        let generation: u64 = generations.sum();
        Ok(self.changes.count.load(Ordering::Relaxed) ^ generation << 48)
    }

    pub(super) fn text(&self) -> Result<TextScreen, ApiError> {
        let text = self.first()?.text().ok_or_else(|| {
            ApiError::new(ErrorCode::NotTextMode, "the display is not in text mode")
                .hint("`display.screenshot` gives its pixels")
        })?;
        Ok(TextScreen {
            columns: text.columns,
            rows: text.rows,
        })
    }

    /// What the guest shows has another size.
    pub(super) fn mode_event(&self) -> Option<Event> {
        let size = self.displays.first()?.layout().primary.unwrap_or_default();
        Some(Event::DisplayMode {
            width: size.width,
            height: size.height,
        })
    }

    /// Writes what every head shows: the first one to `path`, all of them to `artifacts`.
    ///
    /// # Errors
    /// A file can't be written.
    pub(super) fn write_pictures(
        &self,
        path: Option<&Path>,
        artifacts: &Artifacts,
    ) -> Result<(), Failure> {
        for (head, (qxl, place)) in self.heads().enumerate() {
            let wanted = path.filter(|_| head == 0).map(Path::to_owned);
            let paths = wanted.into_iter().chain(artifacts.screenshot(head));
            let Some(shot) = qxl.screenshot(place) else {
                continue;
            };
            for path in paths {
                let shot = Screenshot {
                    width: shot.size.width,
                    height: shot.size.height,
                    pixels: shot.pixels.clone(),
                };
                crate::picture::write_png(&path, &shot).map_err(|error| {
                    Failure::of(Exit::Resource, &error)
                        .context(format!("can't write {}", path.display()))
                })?;
            }
        }
        Ok(())
    }
}

/// Notes who comes and goes.
struct Sessions {
    events: Arc<EventLog>,
    metrics: Arc<Metrics>,
    connected: crate::metrics::Value,
    sessions: crate::metrics::Value,
    notices: Arc<Notices>,
}

impl Sessions {
    fn new(events: &Arc<EventLog>, metrics: &Arc<Metrics>, notices: &Arc<Notices>) -> Self {
        let total = metrics.counter("spice_sessions_total", "Viewers that connected.", &[]);
        let now = metrics.gauge("spice_sessions", "Viewers that are connected.", &[]);
        Self {
            events: Arc::clone(events),
            metrics: Arc::clone(metrics),
            connected: total,
            sessions: now,
            notices: Arc::clone(notices),
        }
    }
}

impl SessionObserver for Sessions {
    fn event(&self, event: SessionEvent) {
        match event {
            SessionEvent::Connected {
                session,
                peer,
                ticket,
            } => {
                self.connected.increment();
                self.sessions.add(1);
                self.events.emit(Event::SpiceConnected {
                    session,
                    peer,
                    ticket,
                });
            }
            SessionEvent::Disconnected {
                session,
                peer,
                reason,
            } => {
                self.sessions.subtract(1);
                let reason = reason.to_string();
                self.events.emit(Event::SpiceDisconnected {
                    session,
                    peer,
                    reason,
                });
                if self.sessions.get() == 0 {
                    self.notices.post(Notice::NoViewers);
                }
            }
            SessionEvent::Refused {
                peer,
                code,
                reason,
                ticket,
            } => {
                let help = "Connections that were not let in.";
                let refused = self
                    .metrics
                    .counter("spice_refused_total", help, &[("code", code)]);
                refused.increment();
                self.events.emit(Event::SpiceRefused {
                    peer,
                    code: code.to_owned(),
                    reason,
                    ticket,
                });
            }
            _ => {}
        }
    }
}
/// Has the guest's drawing on its first display written to a file.
///
/// # Errors
/// There is no display, or the file can't be written.
pub(super) fn record(path: &Path, displays: &[Arc<Qxl>]) -> Result<(), Failure> {
    let option = format!("--record-display {}", path.display());
    let Some(qxl) = displays.first() else {
        let failure = Failure::new(Exit::Usage, format!("{option}: the machine has no display"));
        return Err(failure.hint("add \"display\": { \"device\": \"qxl\" }"));
    };
    let file = File::create(path);
    file.and_then(|file| qxl.record(Box::new(BufWriter::new(file))))
        .map_err(|error| Failure::of(Exit::Resource, &error).context(option))
}
