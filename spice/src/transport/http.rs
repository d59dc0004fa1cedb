//! HTTP on the SPICE port: the browser console's files, and the way to a WebSocket.

use std::convert::Infallible;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::Security;
use super::console::{Console, ENTRY};
use super::origin::{self, Origin};
use super::websocket::WebSocket;
use crate::link::Refusal;
use crate::wire::BoxedStream;

/// For a request's head to come, also while the connection is kept.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// For all requests of a connection; a browser that wants more makes another.
const SITE_TIME: Duration = Duration::from_secs(60);
/// Bytes of a request's head at most.
const MAX_HEAD: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;
/// Where websockify has its WebSocket, and clients look for it.
const WEBSOCKET_PATH: &str = "/websockify";
/// The subprotocol that websockify's clients ask for.
const SUBPROTOCOL: &str = "binary";

/// What a browser that does not speak TLS is told where it is needed.
pub(super) const WANTS_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    Content-Type: text/plain; charset=utf-8\r\nContent-Length: 47\r\nConnection: close\r\n\r\n\
    This port speaks TLS only: open it with https.\n";

/// What a server has for browsers.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Site<'a> {
    /// The machine's name.
    pub(crate) title: &'a str,
    pub(crate) console: Option<&'a Console>,
    /// Whose pages may connect, apart from our own host's.
    pub(crate) origins: &'a [Origin],
    /// Where `https` is served, if plain connections are no good for a console.
    pub(crate) secure_port: Option<u16>,
}

type Answer = Response<Full<Bytes>>;

/// What came of the requests.
#[derive(Default)]
enum Outcome {
    /// Files.
    #[default]
    Served,
    Upgrade(OnUpgrade),
    Foreign(String),
}

/// Answers a browser's requests until it leaves (`None`) or has its WebSocket.
pub(super) async fn serve(
    stream: BoxedStream,
    security: Security,
    site: Site<'_>,
) -> Result<Option<BoxedStream>, Refusal> {
    let outcome = Mutex::new(Outcome::default());
    let visit = Visit { site, security };
    let service = service_fn(|mut request| {
        let (visit, outcome) = (&visit, &outcome);
        async move {
            let (answer, came) = visit.answer(&mut request).await;
            *outcome.lock() = came;
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let ended = timeout(SITE_TIME, connection).await;
    match (outcome.into_inner(), ended) {
        (Outcome::Foreign(origin), _) => Err(Refusal::ForeignPage { origin }),
        (Outcome::Upgrade(upgrade), Ok(Ok(()))) => {
            let stream = upgrade.await.map_err(|_| Refusal::Vanished)?;
            Ok(Some(Box::new(WebSocket::new(TokioIo::new(stream)).await)))
        }
        (_, Ok(Err(error))) if error.is_parse() => Err(Refusal::BadHttp {
            reason: error.to_string(),
        }),
        // Browsers leave kept connections as they like.
        _ => Ok(None),
    }
}

/// A browser's connection.
struct Visit<'a> {
    site: Site<'a>,
    security: Security,
}

impl Visit<'_> {
    async fn answer(&self, request: &mut Request<Incoming>) -> (Answer, Outcome) {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let answer = text(
                StatusCode::METHOD_NOT_ALLOWED,
                "Only GET and HEAD are here.\n",
            );
            let allow = [(header::ALLOW, "GET, HEAD".to_owned())];
            return (with(answer, allow), Outcome::Served);
        }
        let path = request.uri().path();
        if path == WEBSOCKET_PATH {
            return self.web_socket(request);
        }
        let answer = match (self.site.console, path) {
            (None, _) => page(StatusCode::NOT_FOUND, NO_CONSOLE),
            (Some(_), "/") => self.way_in(request),
            (Some(console), path) => file(console, path).await,
        };
        (answer, Outcome::Served)
    }

    /// Leads to the console, and the console to where the browser found us.
    fn way_in(&self, request: &Request<Incoming>) -> Answer {
        let Some((host, port)) = self.authority(request.headers()) else {
            let missing = "The request names no host that it is for.\n";
            return text(StatusCode::BAD_REQUEST, missing);
        };
        let target = match self.site.secure_port {
            Some(port) if self.security == Security::Plain => {
                let brackets = host.contains(':');
                let host = if brackets { format!("[{host}]") } else { host };
                format!("https://{host}:{port}/")
            }
            _ => {
                let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
                let brackets = host.contains(':');
                let host = if brackets { format!("[{host}]") } else { host };
                // The console puts the title into its page as it is.
                let plain = |c: &char| c.is_alphanumeric() || " -_.".contains(*c);
                let title: String = self.site.title.chars().filter(plain).collect();
                let (host, title) = (encode(&host), encode(&title));
                let more = request.uri().query().map(|query| format!("&{query}"));
                let more = more.unwrap_or_default();
                format!("/{ENTRY}?host={host}&port={port}&title={title}{more}")
            }
        };
        let answer = text(
            StatusCode::TEMPORARY_REDIRECT,
            "The console is elsewhere.\n",
        );
        with(answer, [(header::LOCATION, target)])
    }

    /// Host (without brackets) and port, as the browser calls us.
    fn authority(&self, headers: &HeaderMap) -> Option<(String, u16)> {
        let named = headers.get(header::HOST)?.to_str().ok()?;
        let host = origin::host_name(named);
        let plain = |c: char| c.is_ascii_alphanumeric() || "-.:".contains(c);
        if host.is_empty() || !host.chars().all(plain) {
            return None;
        }
        let after = named
            .rsplit_once(':')
            .filter(|(_, port)| !port.contains(']'));
        let port = match after {
            Some((_, port)) => port.parse().ok()?,
            None if self.security == Security::Tls => 443,
            None => 80,
        };
        Some((host.to_owned(), port))
    }

    fn web_socket(&self, request: &mut Request<Incoming>) -> (Answer, Outcome) {
        let headers = request.headers();
        let host = headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok());
        if let Some(from) = headers.get(header::ORIGIN) {
            let from = String::from_utf8_lossy(from.as_bytes());
            if !origin::may_connect(&from, host.unwrap_or_default(), self.site.origins) {
                let from: String = from.chars().take(MAX_ORIGIN).collect();
                let answer = text(StatusCode::FORBIDDEN, FOREIGN);
                return (answer, Outcome::Foreign(from));
            }
        }
        if let Some(answer) = objection(request) {
            return (answer, Outcome::Served);
        }
        let answer = switch(headers);
        (answer, Outcome::Upgrade(hyper::upgrade::on(request)))
    }
}

/// Characters of a foreign origin that are logged.
const MAX_ORIGIN: usize = 200;

const FOREIGN: &str = "This server takes connections from pages of its own host only. The machine's \
                       config can allow others: \"spice\": { \"origins\": [\"https://…\"] }\n";

/// Whether one of a field's comma-separated words is `wanted`.
fn lists(headers: &HeaderMap, name: HeaderName, wanted: &str) -> bool {
    let all = headers.get_all(name).into_iter();
    all.filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|word| word.trim().eq_ignore_ascii_case(wanted))
}

/// What a request for a WebSocket lacks (RFC 6455, 4.2.1).
fn objection(request: &Request<Incoming>) -> Option<Answer> {
    let headers = request.headers();
    let upgrades = request.method() == Method::GET
        && lists(headers, header::CONNECTION, "upgrade")
        && lists(headers, header::UPGRADE, "websocket");
    if !upgrades {
        let answer = text(StatusCode::UPGRADE_REQUIRED, "A WebSocket is here.\n");
        return Some(with(answer, [(header::UPGRADE, "websocket".to_owned())]));
    }
    if !lists(headers, header::SEC_WEBSOCKET_VERSION, "13") {
        let only = "Version 13 of WebSocket is here.\n";
        let version = [(header::SEC_WEBSOCKET_VERSION, "13".to_owned())];
        return Some(with(text(StatusCode::UPGRADE_REQUIRED, only), version));
    }
    if !headers.contains_key(header::SEC_WEBSOCKET_KEY) {
        let missing = "Sec-WebSocket-Key is missing.\n";
        return Some(text(StatusCode::BAD_REQUEST, missing));
    }
    let wanted = headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL);
    if wanted && !lists(headers, header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL) {
        let only = "Of the subprotocols only \"binary\" is here.\n";
        return Some(text(StatusCode::BAD_REQUEST, only));
    }
    None
}

/// The answer that makes a connection a WebSocket (RFC 6455, 4.2.2).
fn switch(headers: &HeaderMap) -> Answer {
    let key = headers.get(header::SEC_WEBSOCKET_KEY);
    let key = key.map(HeaderValue::as_bytes).unwrap_or_default();
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let protocol = headers
        .contains_key(header::SEC_WEBSOCKET_PROTOCOL)
        .then(|| (header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL.to_owned()));
    let fields = [
        (header::CONNECTION, "Upgrade".to_owned()),
        (header::UPGRADE, "websocket".to_owned()),
        (header::SEC_WEBSOCKET_ACCEPT, derive_accept_key(key)),
    ];
    with(answer, fields.into_iter().chain(protocol))
}

async fn file(console: &Console, path: &str) -> Answer {
    let name = percent_decode_str(path.trim_start_matches('/')).decode_utf8();
    let found = match name {
        Ok(name) => console.read(&name).await,
        Err(_) => None,
    };
    match found {
        Some(file) => body(StatusCode::OK, file.content_type, file.bytes),
        None => page(StatusCode::NOT_FOUND, NO_FILE),
    }
}

const NO_CONSOLE: &str = "<h1>No console here</h1><p>This is a SPICE server. Viewers such as \
    remote-viewer can connect to this port, and so can web pages, by a WebSocket at \
    <code>/websockify</code>.</p><p>To have a console for browsers here, install one (on Debian: \
    <code>apt install spice-html5</code>) and name its folder in the machine's config: \
    <code>\"spice\": { \"console\": \"/usr/share/spice-html5\" }</code></p>";

const NO_FILE: &str = "<h1>No such file</h1><p>The console is at <a href=\"/\">the start</a>.</p>";

fn page(status: StatusCode, content: &str) -> Answer {
    let page = format!("<!doctype html><title>Caraway</title>{content}\n");
    body(status, "text/html; charset=utf-8", page.into_bytes())
}

fn text(status: StatusCode, text: &str) -> Answer {
    body(
        status,
        "text/plain; charset=utf-8",
        text.as_bytes().to_vec(),
    )
}

fn body(status: StatusCode, content_type: &'static str, bytes: Vec<u8>) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(bytes)));
    *answer.status_mut() = status;
    let fields = [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-cache"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "SAMEORIGIN"),
        // The address of a console may have a password in it.
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in fields {
        answer
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    answer
}

/// `answer` with more fields; one whose value HTTP can't carry is left out.
fn with(mut answer: Answer, fields: impl IntoIterator<Item = (HeaderName, String)>) -> Answer {
    for (name, value) in fields {
        if let Ok(value) = HeaderValue::try_from(value) {
            answer.headers_mut().insert(name, value);
        }
    }
    answer
}
