//! What carries SPICE: TLS, WebSocket and both, with clients that do it right and clients that do
//! not.

#![allow(clippy::panic, reason = "a test says no by a panic")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use caraway_spice::tls::{Identity, SecureChannels, Tls, TlsFault};
use caraway_spice::{ChannelKind, Config, Console, Security, SessionEvent, Size};
use common::{Canvas, DISPLAY, Fixture, INPUTS, Link, MAIN, Raw, tcp, word};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::Error as WsError;
use tokio_tungstenite::tungstenite::http::{HeaderValue, Response};
use tokio_tungstenite::tungstenite::protocol::{Message, WebSocket};
use tokio_tungstenite::tungstenite::{HandshakeError, client};

const SMALL: Size = Size {
    width: 64,
    height: 48,
};

/// A CA of the test's own.
struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "test CA");
        let key = KeyPair::generate().expect("keys can be made");
        Self(CertifiedIssuer::self_signed(params, key).expect("it can sign"))
    }

    /// Files of a certificate for 127.0.0.1, with this common name.
    fn issue(&self, folder: &Path, name: &str) {
        let mut params =
            CertificateParams::new(["127.0.0.1".to_owned()]).expect("it is an address");
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CountryName, "US");
        params
            .distinguished_name
            .push(DnType::OrganizationName, "T, Inc.");
        params.distinguished_name.push(DnType::CommonName, name);
        self.write(folder, params);
    }

    fn write(&self, folder: &Path, params: CertificateParams) {
        let key = KeyPair::generate().expect("keys can be made");
        let certificate = params.signed_by(&key, &self.0).expect("it can sign");
        let write = |name: &str, text: String| {
            std::fs::write(folder.join(name), text).expect("the folder is writable");
        };
        write("cert.pem", certificate.pem());
        write("key.pem", key.serialize_pem());
        write("ca.pem", self.0.pem());
    }

    fn client(&self, versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        let der = CertificateDer::from(self.0.der().to_vec());
        roots.add(der).expect("it is a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("the versions are supported")
            .with_root_certificates(roots)
            .with_no_client_auth()
    }

    fn connect(&self, address: &str) -> StreamOwned<ClientConnection, TcpStream> {
        shake_hands(self.client(rustls::ALL_VERSIONS), address)
    }
}

fn shake_hands(config: ClientConfig, address: &str) -> StreamOwned<ClientConnection, TcpStream> {
    let name = ServerName::try_from("127.0.0.1").expect("it is a name");
    let connection = ClientConnection::new(Arc::new(config), name).expect("the config is good");
    StreamOwned::new(connection, tcp(address))
}

fn load(folder: &Path) -> Result<Identity, caraway_spice::tls::TlsError> {
    let file = |name: &str| folder.join(name);
    Identity::load(&file("cert.pem"), &file("key.pem"), Some(&file("ca.pem")))
}

/// A server with TLS, whose certificate is in a folder.
struct Secured {
    ca: Ca,
    folder: TempDir,
    tls: Arc<Tls>,
    fixture: Fixture,
}

impl Secured {
    fn new(config: Config) -> Self {
        let (ca, folder) = (Ca::new(), tempfile::tempdir().expect("there is a folder"));
        ca.issue(folder.path(), "first");
        let tls = Tls::new(&load(folder.path()).expect("the files are good"));
        let fixture = Fixture::secured(config, SMALL, &tls);
        Self {
            ca,
            folder,
            tls,
            fixture,
        }
    }

    fn with_channels(secure_channels: SecureChannels) -> Self {
        Self::new(Config {
            secure_channels,
            ..Config::default()
        })
    }

    fn connect(&self) -> StreamOwned<ClientConnection, TcpStream> {
        self.ca.connect(&self.fixture.secure_address)
    }

    fn raw(&self) -> Raw {
        Raw(Box::new(self.connect()))
    }

    fn refusal(&self) -> String {
        refusal(&self.fixture)
    }
}

fn refusal(fixture: &Fixture) -> String {
    match fixture
        .notes
        .wait_event(|event| matches!(event, SessionEvent::Refused { .. }))
    {
        SessionEvent::Refused { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

/// The reply that sends a client to TLS, to the byte.
fn need_secured() -> Vec<u8> {
    let mut reply = b"REDQ".to_vec();
    for field in [2u32, 2, 178, 5] {
        reply.extend(field.to_le_bytes());
    }
    reply.resize(16 + 178, 0);
    reply
}

// --- TLS

#[test]
fn a_session_runs_over_tls_and_says_so() {
    let secured = Secured::new(Config::default());
    let mut main = secured.raw().link(&Link::default()).expect("it lets us in");
    let connection = word(&main.wait(103), 0);
    let link = Link {
        channel: DISPLAY,
        connection,
        ..Link::default()
    };
    let mut display = secured.raw().link(&link).expect("the session is there");
    display.send(101, &[0; 14]);

    Canvas::default().catch_up(&mut display, &secured.fixture.screen);

    let info = secured.fixture.server.info();
    let all = &info.sessions[0].channels;
    assert!(all.iter().all(|c| c.security == Security::Tls), "{all:?}");
}

#[test]
fn clients_with_tls_1_2_only_are_served() {
    let secured = Secured::new(Config::default());
    let config = secured.ca.client(&[&rustls::version::TLS12]);

    let stream = shake_hands(config, &secured.fixture.secure_address);
    let linked = Raw(Box::new(stream)).link(&Link::default());

    assert!(linked.is_ok());
}

#[test]
fn a_plain_link_on_a_tls_port_is_sent_to_tls() {
    let secured = Secured::new(Config::default());
    let mut raw = Raw(Box::new(tcp(&secured.fixture.secure_address)));

    raw.write(&Link::default().bytes());

    assert_eq!(raw.read_reply(), need_secured());
    assert!(raw.is_closed());
    assert!(secured.refusal().contains("does not speak TLS"));
}

#[test]
fn a_secured_channel_is_not_to_be_had_plainly() {
    let secured = Secured::with_channels(SecureChannels::Only(vec![ChannelKind::Inputs]));
    let fixture = &secured.fixture;
    let (_main, connection) = fixture.main();
    let link = |channel| Link {
        channel,
        connection,
        ..Link::default()
    };

    assert!(fixture.connect().link(&link(DISPLAY)).is_ok());
    let mut plain = fixture.connect();
    plain.write(&link(INPUTS).bytes());
    assert_eq!(plain.read_reply(), need_secured());
    assert!(plain.is_closed());
    assert!(secured.refusal().contains("inputs channel without TLS"));
    assert!(secured.raw().link(&link(INPUTS)).is_ok());
}

#[test]
fn all_channels_can_be_secured() {
    let secured = Secured::with_channels(SecureChannels::All);
    for channel in [MAIN, DISPLAY] {
        assert_eq!(secured.fixture.link(channel, 0).err(), Some(5));
    }
    assert!(secured.raw().link(&Link::default()).is_ok());
}

#[test]
fn another_certificate_is_for_new_connections_and_old_ones_go_on() {
    let secured = Secured::new(Config::default());
    let shown = |stream: &StreamOwned<ClientConnection, TcpStream>| {
        let chain = stream
            .conn
            .peer_certificates()
            .expect("the handshake is done");
        chain[0].to_vec()
    };
    let complete = || {
        let mut stream = secured.connect();
        stream
            .conn
            .complete_io(&mut stream.sock)
            .expect("the handshake goes through");
        shown(&stream)
    };
    let first = complete();
    let mut main = secured.raw().link(&Link::default()).expect("it lets us in");
    main.wait(103);

    secured.ca.issue(secured.folder.path(), "second");
    secured
        .tls
        .replace(&load(secured.folder.path()).expect("the files are good"));

    assert_ne!(complete(), first);
    main.send(104, &[]);
    main.wait(104);
}

#[test]
fn a_client_that_does_not_trust_us_is_noted() {
    let secured = Secured::new(Config::default());

    let mut stream = Ca::new().connect(&secured.fixture.secure_address);
    let refused = stream.conn.complete_io(&mut stream.sock);

    assert!(refused.is_err());
    // The alert is written by the next attempt.
    let _ = stream.flush();
    assert!(
        secured.refusal().contains("TLS handshake failed"),
        "{}",
        secured.refusal()
    );
}

#[test]
fn a_broken_handshake_is_refused() {
    let secured = Secured::new(Config::default());
    let mut raw = Raw(Box::new(tcp(&secured.fixture.secure_address)));
    let mut noise = vec![22, 3, 1, 0x3f, 0xff];
    noise.extend((0..70_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8));

    let _ = raw.0.write_all(&noise);

    assert!(secured.refusal().contains("TLS handshake failed"));
    assert!(secured.raw().link(&Link::default()).is_ok());
}

#[test]
fn tls_on_a_plain_port_is_noted() {
    let secured = Secured::new(Config::default());

    let mut stream = secured.ca.connect(&secured.fixture.address);

    assert!(stream.conn.complete_io(&mut stream.sock).is_err());
    assert!(secured.refusal().contains("speaks TLS"));
}

// --- certificates

fn folder_with(change: impl FnOnce(&mut CertificateParams)) -> TempDir {
    let folder = tempfile::tempdir().expect("there is a folder");
    let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("it is an address");
    params.distinguished_name.push(DnType::CommonName, "x");
    change(&mut params);
    Ca::new().write(folder.path(), params);
    folder
}

fn fault(folder: &TempDir) -> (String, TlsFault) {
    let error = load(folder.path()).expect_err("something is wrong");
    (error.to_string(), error.fault)
}

#[test]
fn the_subject_is_in_the_form_of_viewers() {
    let folder = tempfile::tempdir().expect("there is a folder");
    Ca::new().issue(folder.path(), "hv");

    let identity = load(folder.path()).expect("the files are good");

    assert_eq!(identity.subject(), r"C=US,O=T\, Inc.,CN=hv");
    let ca = std::fs::read_to_string(folder.path().join("ca.pem")).expect("it is there");
    assert_eq!(
        identity.ca().map(|pem| pem.lines().collect::<String>()),
        Some(ca.lines().collect())
    );
}

#[test]
fn certificates_out_of_their_time_are_told() {
    let expired = folder_with(|params| params.not_after = rcgen::date_time_ymd(2020, 1, 2));
    let early = folder_with(|params| params.not_before = rcgen::date_time_ymd(2999, 1, 2));

    let (text, fault_then) = fault(&expired);
    assert!(matches!(fault_then, TlsFault::Expired { .. }));
    assert!(
        text.contains("cert.pem") && text.contains("2020-01-02"),
        "{text}"
    );
    let (text, fault_then) = fault(&early);
    assert!(matches!(fault_then, TlsFault::NotYetValid { .. }));
    assert!(text.contains("2999-01-02"), "{text}");
}

#[test]
fn a_key_of_another_certificate_is_told() {
    let (folder, other) = (folder_with(|_| ()), folder_with(|_| ()));
    std::fs::copy(other.path().join("key.pem"), folder.path().join("key.pem"))
        .expect("it is there");

    let (text, fault) = fault(&folder);

    assert!(matches!(fault, TlsFault::Mismatch(_)));
    assert!(
        text.contains("key.pem") && text.contains("cert.pem"),
        "{text}"
    );
}

#[test]
fn files_without_what_they_should_hold_are_told() {
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let cut = "-----BEGIN CERTIFICATE-----\nMIIB";
    let locked =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    for (name, content, words) in [
        ("cert.pem", "", "no certificate"),
        ("cert.pem", "hello", "no certificate"),
        ("cert.pem", cut, "no certificate"),
        ("cert.pem", broken, "broken certificate"),
        ("ca.pem", "hello", "CA file"),
        ("key.pem", "hello", "no private key"),
        ("key.pem", locked, "encrypted"),
    ] {
        let folder = folder_with(|_| ());
        std::fs::write(folder.path().join(name), content).expect("the folder is writable");
        let (text, _) = fault(&folder);
        assert!(text.contains(words) && text.contains(name), "{text}");
    }
}

#[test]
fn a_file_that_is_none_is_told() {
    let folder = folder_with(|_| ());
    std::fs::remove_file(folder.path().join("key.pem")).expect("it is there");
    assert!(matches!(fault(&folder).1, TlsFault::Unreadable(_)));
    std::fs::create_dir(folder.path().join("key.pem")).expect("the folder is writable");
    assert!(matches!(fault(&folder).1, TlsFault::NotAFile));
}

// --- WebSocket

/// A WebSocket as the stream of bytes that it carries.
struct Framed<S> {
    socket: WebSocket<S>,
    unread: Vec<u8>,
}

impl<S: Read + Write> Read for Framed<S> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.unread.is_empty() {
            match self.socket.read() {
                Ok(Message::Binary(bytes)) => self.unread = bytes.to_vec(),
                Ok(Message::Close(_)) | Err(WsError::ConnectionClosed) => return Ok(0),
                Ok(_) => {}
                Err(error) => return Err(std::io::Error::other(error)),
            }
        }
        let count = buffer.len().min(self.unread.len());
        buffer[..count].copy_from_slice(&self.unread[..count]);
        self.unread.drain(..count);
        Ok(count)
    }
}

impl<S: Read + Write> Write for Framed<S> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        // Odd pieces: frames mean nothing.
        let piece = &bytes[..bytes.len().min(5)];
        let sent = self.socket.send(Message::binary(piece.to_vec()));
        sent.map_err(std::io::Error::other)?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What the server said to a handshake.
type Answer = Response<Option<Vec<u8>>>;

fn upgrade<S: Read + Write>(
    stream: S,
    url: &str,
    fields: &[(&'static str, &'static str)],
) -> Result<(WebSocket<S>, Answer), u16> {
    let mut request = url.into_client_request().expect("the address is good");
    for (name, value) in fields {
        request
            .headers_mut()
            .insert(*name, HeaderValue::from_static(value));
    }
    match client(request, stream) {
        Ok(both) => Ok(both),
        Err(HandshakeError::Failure(WsError::Http(answer))) => Err(answer.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

const BINARY: (&str, &str) = ("Sec-WebSocket-Protocol", "binary");

fn web_socket(fixture: &Fixture) -> WebSocket<TcpStream> {
    let url = format!("ws://{}/websockify", fixture.address);
    let (socket, answer) =
        upgrade(tcp(&fixture.address), &url, &[BINARY]).expect("the server upgrades");
    assert_eq!(answer.headers()["Sec-WebSocket-Protocol"], "binary");
    socket
}

fn framed(fixture: &Fixture) -> Raw {
    let (socket, unread) = (web_socket(fixture), Vec::new());
    Raw(Box::new(Framed { socket, unread }))
}

#[test]
fn a_session_runs_in_a_websocket() {
    let fixture = Fixture::new(Config::default(), SMALL);
    let mut main = framed(&fixture)
        .link(&Link::default())
        .expect("it lets us in");
    let connection = word(&main.wait(103), 0);
    let link = Link {
        channel: DISPLAY,
        connection,
        ..Link::default()
    };
    let mut display = framed(&fixture).link(&link).expect("the session is there");
    display.send(101, &[0; 14]);

    Canvas::default().catch_up(&mut display, &fixture.screen);
}

#[test]
fn a_websocket_in_tls_is_as_secure_as_tls() {
    let secured = Secured::with_channels(SecureChannels::All);
    let url = format!("ws://{}/websockify", secured.fixture.secure_address);
    let (socket, _) = upgrade(secured.connect(), &url, &[BINARY]).expect("the server upgrades");
    let unread = Vec::new();

    let linked = Raw(Box::new(Framed { socket, unread })).link(&Link::default());

    assert!(linked.is_ok());
    let plain = framed(&secured.fixture).link(&Link::default());
    assert_eq!(plain.err(), Some(5));
}

#[test]
fn pings_are_answered() {
    let fixture = Fixture::new(Config::default(), SMALL);
    let mut socket = web_socket(&fixture);

    socket
        .send(Message::Ping(b"there?".to_vec().into()))
        .expect("it takes it");

    let answer = socket.read().expect("an answer comes");
    assert_eq!(answer, Message::Pong(b"there?".to_vec().into()));
}

#[test]
fn frames_that_spice_has_no_use_for_end_the_connection() {
    let text = Message::text("REDQ");
    let long = Message::binary(vec![b'R'; 129 * 1024]);
    for message in [text, long] {
        let fixture = Fixture::new(Config::default(), SMALL);
        let mut socket = web_socket(&fixture);
        let _ = socket.send(message);
        assert!(socket.read().is_err());
        refusal(&fixture);
    }
}

#[test]
fn a_refused_link_is_told_so_in_the_websocket() {
    let fixture = Fixture::new(Config::default(), SMALL);
    let mut raw = framed(&fixture);

    raw.write(b"not the magic of SPICE");

    assert_eq!(word(&raw.read_reply(), 16), 2);
    assert!(raw.is_closed());
}

#[test]
fn pages_from_elsewhere_are_kept_out_unless_they_are_named() {
    let origins = vec!["https://portal.example".parse().expect("it is an origin")];
    let config = Config {
        origins,
        ..Config::default()
    };
    let fixture = Fixture::new(config, SMALL);
    let url = format!("ws://{}/websockify", fixture.address);
    let from = |origin| upgrade(tcp(&fixture.address), &url, &[BINARY, ("Origin", origin)]);

    assert!(from("http://127.0.0.1:8000").is_ok());
    assert!(from("https://portal.example").is_ok());
    assert_eq!(from("https://evil.example").err(), Some(403));
    fixture.notes.wait_event(|event| {
        matches!(event, SessionEvent::Refused { reason, .. } if reason.contains("https://evil.example"))
    });
}

#[test]
fn other_subprotocols_are_refused() {
    let fixture = Fixture::new(Config::default(), SMALL);
    let url = format!("ws://{}/websockify", fixture.address);
    let with = |field| upgrade(tcp(&fixture.address), &url, field);

    assert!(with(&[]).is_ok());
    assert!(with(&[("Sec-WebSocket-Protocol", "base64, binary")]).is_ok());
    assert_eq!(
        with(&[("Sec-WebSocket-Protocol", "base64")]).err(),
        Some(400)
    );
    assert_eq!(with(&[("Sec-WebSocket-Version", "8")]).err(), Some(426));
}

// --- the console

/// Sends a request and reads all of the answer.
fn ask(address: &str, request: &str) -> String {
    let mut stream = tcp(address);
    stream
        .write_all(request.as_bytes())
        .expect("the server takes it");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(address: &str, path: &str) -> String {
    ask(
        address,
        &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"),
    )
}

fn console() -> (TempDir, Config) {
    let folder = tempfile::tempdir().expect("there is a folder");
    let write = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).expect("the folder is writable");
    };
    write("spice_auto.html", "<html>the console");
    write("main.js", "// a script");
    let config = Config {
        name: "desk <1>".into(),
        console: Some(Console::open(folder.path()).expect("it is a console")),
        ..Config::default()
    };
    (folder, config)
}

#[test]
fn the_start_leads_to_a_console_that_connects_back() {
    let (_folder, config) = console();
    let fixture = Fixture::new(config, SMALL);
    let port = fixture.address.rsplit(':').next().expect("there is a port");

    let answer = get(&fixture.address, "/?password=x");

    assert!(answer.starts_with("HTTP/1.1 307"), "{answer}");
    let place = format!(
        "location: /spice_auto.html?host=127%2E0%2E0%2E1&port={port}&title=desk%201&password=x\r\n"
    );
    assert!(answer.contains(&place), "{answer}");
}

#[test]
fn files_have_their_types() {
    let (_folder, config) = console();
    let fixture = Fixture::new(config, SMALL);

    let page = get(&fixture.address, "/spice_auto.html?host=x");
    let script = get(&fixture.address, "/main.js");

    assert!(
        page.contains("text/html") && page.ends_with("the console"),
        "{page}"
    );
    assert!(
        script.contains("text/javascript") && script.ends_with("// a script"),
        "{script}"
    );
    assert!(script.contains("nosniff"), "{script}");
}

#[test]
fn a_head_has_no_body() {
    let (_folder, config) = console();
    let fixture = Fixture::new(config, SMALL);

    let head = "HEAD /main.js HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answer = ask(&fixture.address, head);

    assert!(answer.contains("content-length: 11\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
}

#[test]
fn what_is_not_in_the_folder_is_not_found() {
    let (_folder, config) = console();
    let fixture = Fixture::new(config, SMALL);
    for path in [
        "/nothing",
        "/../etc/passwd",
        "/%2e%2e/etc/passwd",
        "//etc/passwd",
        "/%ff",
        "/%00",
    ] {
        let answer = get(&fixture.address, path);
        assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
    }
}

#[test]
fn without_a_console_the_way_to_one_is_told() {
    let fixture = Fixture::new(Config::default(), SMALL);

    let answer = get(&fixture.address, "/");

    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    assert!(
        answer.contains("spice-html5") && answer.contains("console"),
        "{answer}"
    );
}

#[test]
fn only_reading_is_allowed() {
    let (_folder, config) = console();
    let fixture = Fixture::new(config, SMALL);
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"] {
        let request = format!("{method} /main.js HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = ask(&fixture.address, &request);
        assert!(answer.starts_with("HTTP/1.1 405"), "{method}: {answer}");
    }
}

#[test]
fn long_heads_are_refused() {
    let fixture = Fixture::new(Config::default(), SMALL);
    let long = "x".repeat(20_000);

    let answer = ask(
        &fixture.address,
        &format!("GET / HTTP/1.1\r\nX: {long}\r\n\r\n"),
    );

    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    assert!(refusal(&fixture).contains("HTTP"));
}

#[test]
fn a_person_is_led_to_https_where_plain_connections_are_no_good() {
    let (_folder, config) = console();
    let secured = Secured::new(Config {
        secure_channels: SecureChannels::All,
        ..config
    });
    let secure = &secured.fixture.secure_address;

    common::wait_for("the way to https", || {
        let answer = get(&secured.fixture.address, "/");
        answer
            .contains(&format!("location: https://{secure}/\r\n"))
            .then_some(())
    });

    let mut stream = secured.connect();
    let request = format!("GET / HTTP/1.1\r\nHost: {secure}\r\nConnection: close\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .expect("the server takes it");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(String::from_utf8_lossy(&answer).contains("location: /spice_auto.html?"));
}

#[test]
fn http_on_a_tls_port_is_told_so() {
    let secured = Secured::new(Config::default());

    let answer = get(&secured.fixture.secure_address, "/");

    assert!(
        answer.starts_with("HTTP/1.1 400") && answer.contains("https"),
        "{answer}"
    );
}
