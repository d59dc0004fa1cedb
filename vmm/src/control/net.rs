//! The `net` thread: SPICE sockets and the API, on one tokio runtime that only a machine with
//! either of them has.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use caraway_spice::tls::Tls;
use caraway_spice::{AddressError, Listener, Server};
use tokio::sync::oneshot;

use super::pipes::Pipes;
use crate::api::{self, Api};
use crate::command::ControlHandle;
use crate::config::MachineSpec;
use crate::config::endpoint::Listen;
use crate::events::EventLog;
use crate::exit::{Exit, Failure};
use crate::metrics::Metrics;

/// How long viewers have to take their farewell.
const FAREWELL: Duration = Duration::from_millis(300);
/// Threads that encode large pieces of the screen, made when there are some: on the smallest machine one
/// client does not wait for another, and on a large one viewers leave the guests their processors.
const ENCODERS: std::ops::RangeInclusive<usize> = 2..=4;

/// Sockets that are bound and not served yet.
pub(super) struct Listeners {
    spice: Vec<Listener>,
    pipes: Pipes,
    api: Option<api::Listener>,
}

impl Listeners {
    /// Binds every socket that the config and the command line name.
    ///
    /// # Errors
    /// One is in use or can't be made; those bound before are gone again.
    pub(super) fn bind(
        spec: &MachineSpec,
        api: Option<&Path>,
        tls: Option<&Arc<Tls>>,
    ) -> Result<Self, Failure> {
        let plain = spec.spice.iter().flat_map(|spice| &spice.listen);
        let secure = spec.spice.iter().filter_map(|spice| spice.tls.as_ref());
        let secure = secure
            .flat_map(|tls| &tls.listen)
            .zip(tls.into_iter().cycle());
        let plain = plain
            .enumerate()
            .map(|(index, listen)| bind("listen", index, listen));
        let secure = secure.enumerate().map(|(index, (listen, tls))| {
            bind("tls.listen", index, listen).map(|listener| listener.secured(tls.clone()))
        });
        let spice = plain.chain(secure).collect::<Result<_, _>>()?;
        let bind_api = |path: &Path| {
            api::Listener::bind(path).map_err(|error| {
                Failure::of(Exit::Resource, &error).context(format!("--api {}", path.display()))
            })
        };
        Ok(Self {
            spice,
            pipes: Pipes::bind(spec)?,
            api: api.map(bind_api).transpose()?,
        })
    }

    /// What goes from viewers to other sockets.
    pub(super) fn pipes(&self) -> &Pipes {
        &self.pipes
    }

    /// Where viewers may connect, with real ports.
    pub(super) fn viewer_addresses(&self) -> Addresses {
        let real = |secure: bool| {
            let listeners = self.spice.iter().filter(move |l| l.is_secured() == secure);
            listeners.filter_map(|l| l.address().to_string().parse().ok())
        };
        Addresses {
            plain: real(false).collect(),
            secure: real(true).collect(),
        }
    }
}

/// Where viewers may connect.
pub(super) struct Addresses {
    pub(super) plain: Vec<Listen>,
    /// By TLS.
    pub(super) secure: Vec<Listen>,
}

fn bind(key: &str, index: usize, listen: &Listen) -> Result<Listener, Failure> {
    let at = format!("spice.{key}[{index}]: {listen}");
    let address = listen.to_string().parse();
    let address = address
        .map_err(|error: AddressError| Failure::of(Exit::Config, &error).context(at.clone()))?;
    Listener::bind(&address).map_err(|error| Failure::of(Exit::Resource, &error).context(at))
}

/// The running thread; ends with it.
pub(super) struct Net {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Net {
    /// Serves `listeners`, if there are any.
    ///
    /// # Errors
    /// The system has no thread or descriptor to give.
    pub(super) fn start(
        listeners: Listeners,
        server: Option<Arc<Server>>,
        control: &ControlHandle,
        events: &Arc<EventLog>,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, Failure> {
        if listeners.spice.is_empty() && listeners.api.is_none() {
            return Ok(Self {
                stop: None,
                thread: None,
            });
        }
        let failed = |error: std::io::Error| {
            Failure::of(Exit::Internal, &error).context("the net thread can't be started")
        };
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .thread_name("encode")
            .max_blocking_threads(processors.clamp(*ENCODERS.start(), *ENCODERS.end()))
            .enable_all()
            .build()
            .map_err(failed)?;
        let (stop, stopped) = oneshot::channel();
        let (control, events) = (control.clone(), Arc::clone(events));
        let metrics = Arc::clone(metrics);
        let serve = async move {
            if let Some(server) = &server {
                for listener in listeners.spice {
                    let served = Arc::clone(server).serve(listener);
                    tokio::spawn(async move {
                        if let Err(error) = served.await {
                            tracing::error!(%error, "a SPICE listener failed");
                        }
                    });
                }
            }
            for joint in listeners.pipes.into_joints() {
                tokio::spawn(async move {
                    if let Err(error) = joint.serve().await {
                        tracing::error!(%error, "a pipe's socket failed");
                    }
                });
            }
            let api = listeners.api.map(|listener| {
                let (end, ended) = oneshot::channel::<()>();
                let ended = async move { drop(ended.await) };
                let api = Api::new(control, events, metrics);
                (end, tokio::spawn(api::serve(listener, api, ended)))
            });
            // An error means that the sender is gone, which says the same.
            let _ = stopped.await;
            if let Some(server) = &server {
                server.shutdown();
                // Whoever does not take the farewell goes without.
                let _ = tokio::time::timeout(FAREWELL, server.closed()).await;
            }
            if let Some((end, serving)) = api {
                drop(end);
                // Answers and last events that nobody takes are dropped.
                let _ = tokio::time::timeout(FAREWELL, serving).await;
            }
        };
        let thread = std::thread::Builder::new()
            .name("net".to_owned())
            .spawn(move || runtime.block_on(serve))
            .map_err(failed)?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
