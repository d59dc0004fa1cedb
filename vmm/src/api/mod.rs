//! The HTTP API on a Unix socket: every verb under `/api/v1/`.

mod access;
mod agent;
mod balloon;
mod disk;
mod display;
mod error;
mod extract;
mod input;
mod nets;
mod openapi;
mod stream;
mod vm;

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::Uri;
use axum::routing::{get, put};

use crate::command::{ApiError, ControlHandle, ErrorCode};
use crate::events::EventLog;
use crate::metrics::Metrics;

pub use crate::socket::SocketFile as Listener;
pub use display::Waited;
pub use input::{Button, KeysRequest, PointerRequest, TextRequest};
pub use openapi::openapi_json;

/// The path that every verb is under.
pub const ROOT: &str = "/api/v1/";

/// The most bytes that a request's body may have.
const BODY: usize = 64 << 10;

/// Every verb with its method.
pub const VERBS: [(&str, &str); 38] = [
    ("GET", "vm.info"),
    ("PUT", "vm.pause"),
    ("PUT", "vm.resume"),
    ("PUT", "vm.reset"),
    ("PUT", "vm.power-button"),
    ("PUT", "vm.generation.renew"),
    ("PUT", "vm.shutdown"),
    ("GET", "display.info"),
    ("GET", "display.screenshot"),
    ("GET", "display.text"),
    ("GET", "display.wait"),
    ("GET", "display.vv"),
    ("PUT", "display.ticket.add"),
    ("GET", "display.ticket.list"),
    ("PUT", "display.ticket.revoke"),
    ("GET", "display.session.list"),
    ("PUT", "display.session.terminate"),
    ("PUT", "display.tls.reload"),
    ("GET", "net.info"),
    ("PUT", "net.add"),
    ("PUT", "net.remove"),
    ("PUT", "net.link"),
    ("PUT", "net.limit"),
    ("PUT", "input.keys"),
    ("PUT", "input.text"),
    ("PUT", "input.pointer"),
    ("GET", "disk.list"),
    ("PUT", "disk.add"),
    ("PUT", "disk.remove"),
    ("PUT", "disk.resize"),
    ("PUT", "disk.limit"),
    ("GET", "balloon.info"),
    ("PUT", "balloon.set"),
    ("PUT", "agent.command"),
    ("GET", "events"),
    ("GET", "metrics"),
    ("GET", "openapi.json"),
    ("GET", "config.schema.json"),
];

/// The path of a verb.
macro_rules! verb {
    ($name:literal) => {
        concat!("/api/v1/", $name)
    };
}

/// What the API needs of the machine.
#[derive(Clone)]
pub struct Api {
    /// Takes the commands.
    pub control: ControlHandle,
    /// What happened.
    pub events: Arc<EventLog>,
    /// The machine's numbers.
    pub metrics: Arc<Metrics>,
    typing: Arc<tokio::sync::Mutex<()>>,
}

impl Api {
    /// An API for the machine behind `control`.
    #[must_use]
    pub fn new(control: ControlHandle, events: Arc<EventLog>, metrics: Arc<Metrics>) -> Self {
        Self {
            control,
            events,
            metrics,
            typing: Arc::default(),
        }
    }

    fn router(self) -> Router {
        Router::new()
            .route(verb!("vm.info"), get(vm::info))
            .route(verb!("vm.pause"), put(vm::pause))
            .route(verb!("vm.resume"), put(vm::resume))
            .route(verb!("vm.reset"), put(vm::reset))
            .route(verb!("vm.power-button"), put(vm::power_button))
            .route(verb!("vm.generation.renew"), put(vm::renew_generation))
            .route(verb!("vm.shutdown"), put(vm::shutdown))
            .route(verb!("display.info"), get(display::info))
            .route(verb!("display.screenshot"), get(display::screenshot))
            .route(verb!("display.text"), get(display::text))
            .route(verb!("display.wait"), get(display::wait))
            .route(verb!("display.vv"), get(display::vv))
            .route(verb!("display.ticket.add"), put(access::add))
            .route(verb!("display.ticket.list"), get(access::tickets))
            .route(verb!("display.ticket.revoke"), put(access::revoke))
            .route(verb!("display.session.list"), get(access::sessions))
            .route(verb!("display.session.terminate"), put(access::terminate))
            .route(verb!("display.tls.reload"), put(display::tls_reload))
            .route(verb!("disk.list"), get(disk::list))
            .route(verb!("disk.add"), put(disk::add))
            .route(verb!("disk.remove"), put(disk::remove))
            .route(verb!("disk.resize"), put(disk::resize))
            .route(verb!("disk.limit"), put(disk::limit))
            .route(verb!("net.info"), get(nets::info))
            .route(verb!("net.add"), put(nets::add))
            .route(verb!("net.remove"), put(nets::remove))
            .route(verb!("net.link"), put(nets::link))
            .route(verb!("net.limit"), put(nets::limit))
            .route(verb!("input.keys"), put(input::keys))
            .route(verb!("input.text"), put(input::text))
            .route(verb!("input.pointer"), put(input::pointer))
            .route(verb!("balloon.info"), get(balloon::info))
            .route(verb!("balloon.set"), put(balloon::set))
            .route(verb!("agent.command"), put(agent::command))
            .route(verb!("events"), get(stream::events))
            .route(verb!("metrics"), get(stream::metrics))
            .route(verb!("openapi.json"), get(openapi::serve))
            .route(verb!("config.schema.json"), get(openapi::serve_schema))
            .fallback(unknown)
            .method_not_allowed_fallback(wrong_method)
            .layer(DefaultBodyLimit::max(BODY))
            .with_state(self)
    }
}

/// Serves the API on `listener` until `end` is ready; then the requests that are under way get
/// their answers. Wants a tokio runtime with time and I/O. The socket's file goes with this.
pub async fn serve(listener: Listener, api: Api, end: impl Future<Output = ()> + Send + 'static) {
    let served = async {
        let listener = tokio::net::UnixListener::from_std(listener.listener()?)?;
        axum::serve(listener, api.router())
            .with_graceful_shutdown(end)
            .await
    };
    if let Err(error) = served.await {
        tracing::error!(%error, "the API failed");
    }
}

async fn unknown(uri: Uri) -> ApiError {
    let path = uri.path();
    let error = ApiError::new(ErrorCode::NotFound, format!("there is no {path}"));
    let verb = path
        .strip_prefix(ROOT)
        .unwrap_or(path.trim_start_matches('/'));
    let near = VERBS
        .iter()
        .map(|(_, name)| (strsim::damerau_levenshtein(verb, name), name))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, name)| *distance <= name.len() / 2);
    match near {
        Some((_, name)) => error.hint(format!("did you mean {ROOT}{name}?")),
        None => error.hint(format!("{ROOT}openapi.json lists every verb")),
    }
}

async fn wrong_method(uri: Uri) -> ApiError {
    let path = uri.path();
    let method = VERBS
        .iter()
        .find(|(_, name)| path.strip_prefix(ROOT) == Some(name))
        .map_or("another method", |(method, _)| method);
    ApiError::new(
        ErrorCode::MethodNotAllowed,
        format!("{path} does not take this method"),
    )
    .hint(format!("use {method}"))
}
