//! A server on a thread of its own, and a SPICE client that does what a test tells it to, right or
//! wrong. Written from the protocol's documents and not with the server's own code.

#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "each test file uses its part"
)]

mod canvas;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

pub use canvas::Canvas;
use caraway_spice::tls::Tls;
use caraway_spice::{
    Config, Devices, DisplaySource, Framebuffer, InputSink, Key, ListenAddress, Listener, Locks,
    PointerEvent, Rect, Server, SessionEvent, SessionObserver, Size,
};
use parking_lot::Mutex;
use rsa::pkcs8::DecodePublicKey;
use rsa::{Oaep, RsaPublicKey};

pub const MAIN: u8 = 1;
pub const DISPLAY: u8 = 2;
pub const INPUTS: u8 = 3;
pub const CURSOR: u8 = 4;
pub const PLAYBACK: u8 = 5;
pub const RECORD: u8 = 6;
pub const USBREDIR: u8 = 9;
pub const PORT: u8 = 10;
pub const WEBDAV: u8 = 11;

/// `SPICE_MSG_DISPLAY_MARK`, `DRAW_FILL` and `DRAW_COPY`.
pub const MARK: u16 = 102;
pub const FILL: u16 = 302;
pub const COPY: u16 = 304;

/// Long enough for a busy machine, short enough for a person who waits for a broken test.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Notes what reaches it.
#[derive(Default)]
pub struct Notes {
    pub input: Mutex<Vec<String>>,
    pub events: Mutex<Vec<SessionEvent>>,
    pub absolute: Mutex<bool>,
    pub lamps: Mutex<Locks>,
}

impl InputSink for Notes {
    fn key(&self, key: Key, down: bool) {
        let sign = if down { '+' } else { '-' };
        self.input.lock().push(format!("{sign}{:x}", key.code));
    }
    fn pointer(&self, event: PointerEvent) {
        self.input.lock().push(format!("{event:?}"));
    }
    fn locks(&self) -> Locks {
        *self.lamps.lock()
    }
    fn absolute(&self) -> bool {
        *self.absolute.lock()
    }
}

impl SessionObserver for Notes {
    fn event(&self, event: SessionEvent) {
        self.events.lock().push(event);
    }
}

impl Notes {
    /// Waits for an event.
    pub fn wait_event(&self, wanted: impl Fn(&SessionEvent) -> bool) -> SessionEvent {
        wait_for("an event", || {
            self.events
                .lock()
                .iter()
                .find(|event| wanted(event))
                .cloned()
        })
    }
}

/// Waits until `what` is there.
pub fn wait_for<T>(name: &str, mut what: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = what() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "{name} did not come");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A connection on which nothing waits for ever.
pub fn tcp(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the server listens");
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("the option exists");
    stream
        .set_write_timeout(Some(PATIENCE))
        .expect("the option exists");
    stream.set_nodelay(true).expect("the option exists");
    stream
}

/// A server, mostly of one screen, on a thread that drives its runtime.
pub struct Fixture {
    pub server: Arc<Server>,
    pub screen: Arc<Framebuffer>,
    pub notes: Arc<Notes>,
    pub address: String,
    /// Where it speaks TLS, if it does.
    pub secure_address: String,
    thread: Option<thread::JoinHandle<()>>,
}

impl Fixture {
    pub fn new(config: Config, size: Size) -> Self {
        let screen = Framebuffer::new(size);
        Self::with_sources(config, screen.clone(), vec![screen])
    }

    /// A server that speaks TLS on a port of its own.
    pub fn secured(config: Config, size: Size, tls: &Arc<Tls>) -> Self {
        let screen = Framebuffer::new(size);
        let devices = Devices {
            displays: vec![screen.clone()],
            ..Devices::default()
        };
        Self::with_listeners(config, screen, devices, Some(tls))
    }

    pub fn with_sources(
        config: Config,
        screen: Arc<Framebuffer>,
        sources: Vec<Arc<dyn DisplaySource>>,
    ) -> Self {
        let devices = Devices {
            displays: sources,
            ..Devices::default()
        };
        Self::with_devices(config, screen, devices)
    }

    /// A server of these devices, with one screen to play with. What clients type is noted.
    pub fn with_devices(config: Config, screen: Arc<Framebuffer>, devices: Devices) -> Self {
        Self::with_listeners(config, screen, devices, None)
    }

    fn with_listeners(
        config: Config,
        screen: Arc<Framebuffer>,
        devices: Devices,
        tls: Option<&Arc<Tls>>,
    ) -> Self {
        let notes = Arc::new(Notes::default());
        let devices = Devices {
            inputs: notes.clone(),
            ..devices
        };
        let server = Server::new(config, devices, notes.clone());
        let any: ListenAddress = "127.0.0.1:0".parse().expect("it is well formed");
        let bind = || Listener::bind(&any).expect("some port is free");
        let listener = bind();
        let address = listener.address().to_string();
        let secure = tls.map(|tls| bind().secured(tls.clone()));
        let secure_address = secure
            .as_ref()
            .map(|listener| listener.address().to_string());
        let served = server.clone();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime can be made");
            runtime.block_on(async {
                if let Some(secure) = secure {
                    tokio::spawn(served.clone().serve(secure));
                }
                served.clone().serve(listener).await.expect("it listens");
                served.closed().await;
            });
        });
        Self {
            server,
            screen,
            notes,
            address,
            secure_address: secure_address.unwrap_or_default(),
            thread: Some(thread),
        }
    }

    /// Draws on the whole area, another picture for every `seed`; parts compress and parts do not.
    pub fn paint(&self, area: Rect, seed: u32) {
        self.screen
            .draw(area, |x, y| match (x / 16 + y / 16 + seed) % 3 {
                0 => seed.wrapping_mul(0x01_0b17),
                1 => (x + seed) ^ (y << 8),
                _ => (x * 7919 + y * 104_729 + seed).wrapping_mul(2_654_435_761) >> 8,
            });
    }

    /// A client that says nothing yet.
    pub fn connect(&self) -> Raw {
        Raw(Box::new(tcp(&self.address)))
    }

    pub fn link(&self, channel: u8, connection: u32) -> Result<Channel, u32> {
        self.connect().link(&Link {
            channel,
            connection,
            ..Link::default()
        })
    }

    /// A client with its main channel, and the id of its session.
    pub fn main(&self) -> (Channel, u32) {
        let mut main = self.link(MAIN, 0).expect("the server lets us in");
        let init = main.wait(103);
        (main, word(&init, 0))
    }

    /// A client that looks: main and display channel.
    pub fn viewer(&self) -> (Channel, Channel) {
        let (main, session) = self.main();
        let mut display = self.link(DISPLAY, session).expect("the session is there");
        display.send(101, &[0; 14]);
        (main, display)
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.server.shutdown();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(
                ended.is_ok() || thread::panicking(),
                "the server's thread panicked"
            );
        }
    }
}

/// What a link message says.
pub struct Link<'a> {
    pub channel: u8,
    pub id: u8,
    pub connection: u32,
    pub password: &'a str,
    pub common: &'a [u32],
    pub channel_caps: &'a [u32],
}

impl Default for Link<'_> {
    fn default() -> Self {
        // Authentication is selected, mini header; on a display channel, monitors are understood.
        Self {
            channel: MAIN,
            id: 0,
            connection: 0,
            password: "",
            common: &[0b1011],
            channel_caps: &[0b10],
        }
    }
}

impl Link<'_> {
    pub fn bytes(&self) -> Vec<u8> {
        let mut body = self.connection.to_le_bytes().to_vec();
        body.extend([self.channel, self.id]);
        for count in [self.common.len() as u32, self.channel_caps.len() as u32, 18] {
            body.extend(count.to_le_bytes());
        }
        let words = self.common.iter().chain(self.channel_caps);
        body.extend(words.flat_map(|word| word.to_le_bytes()));
        let mut bytes = b"REDQ".to_vec();
        for field in [2, 2, body.len() as u32] {
            bytes.extend(u32::to_le_bytes(field));
        }
        bytes.extend(body);
        bytes
    }
}

/// What carries a connection.
pub trait Duplex: Read + Write + Send {}
impl<T: Read + Write + Send> Duplex for T {}

/// A connection that is not a channel yet.
pub struct Raw(pub Box<dyn Duplex>);

impl Raw {
    pub fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("the server takes it");
    }

    pub fn read(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.0.read_exact(&mut bytes).expect("the server sends it");
        bytes
    }

    /// Whether the server closes without another byte.
    pub fn is_closed(&mut self) -> bool {
        match self.0.read(&mut [0]) {
            Ok(count) => count == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }

    /// A whole reply of the server: header and what it announces.
    pub fn read_reply(&mut self) -> Vec<u8> {
        let mut reply = self.read(16);
        assert_eq!(&reply[..4], b"REDQ");
        let rest = self.read(word(&reply, 12) as usize);
        reply.extend(rest);
        reply
    }

    /// Goes through the link stage; the error is the server's code.
    pub fn link(mut self, link: &Link) -> Result<Channel, u32> {
        self.write(&link.bytes());
        let reply = self.read_reply();
        if word(&reply, 16) != 0 {
            return Err(word(&reply, 16));
        }
        if link.common.first().is_some_and(|caps| caps & 1 != 0) {
            self.write(&1u32.to_le_bytes());
        }
        self.write(&ticket(&reply[20..182], link.password));
        match word(&self.read(4), 0) {
            0 => {
                let mini = link.common.first().is_some_and(|caps| caps & 8 != 0);
                Ok(Channel {
                    raw: self,
                    mini,
                    serial: 0,
                })
            }
            code => Err(code),
        }
    }
}

/// A password as the key's owner wants it.
pub fn ticket(public_key: &[u8], password: &str) -> Vec<u8> {
    let key = RsaPublicKey::from_public_key_der(public_key).expect("it is a key");
    let text = [password.as_bytes(), b"\0"].concat();
    key.encrypt(&mut rand::thread_rng(), Oaep::new::<sha1::Sha1>(), &text)
        .expect("it fits")
}

/// The little-endian word at `at`.
pub fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// The same of eight bytes.
pub fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// A connection after its link stage.
pub struct Channel {
    pub raw: Raw,
    mini: bool,
    serial: u64,
}

impl Channel {
    pub fn send(&mut self, kind: u16, body: &[u8]) {
        self.raw.write(&self.frame(kind, body.len() as u32, body));
    }

    /// A frame whose header says `size`.
    pub fn frame(&self, kind: u16, size: u32, body: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        if !self.mini {
            frame.extend([7; 8]);
        }
        frame.extend(kind.to_le_bytes());
        frame.extend(size.to_le_bytes());
        if !self.mini {
            frame.extend([0; 4]);
        }
        frame.extend(body);
        frame
    }

    /// The next message.
    pub fn next(&mut self) -> (u16, Vec<u8>) {
        if !self.mini {
            self.serial += 1;
            let serial = self.raw.read(8);
            assert_eq!(serial, self.serial.to_le_bytes());
        }
        let header = self.raw.read(6);
        let kind = u16::from_le_bytes([header[0], header[1]]);
        if !self.mini {
            assert_eq!(self.raw.read(4), [0; 4]);
        }
        let size = word(&header, 2);
        assert!(size <= 4 << 20, "message {kind} of {size} bytes");
        (kind, self.raw.read(size as usize))
    }

    /// The next message of this type; others are passed over.
    pub fn wait(&mut self, wanted: u16) -> Vec<u8> {
        loop {
            let (kind, body) = self.next();
            if kind == wanted {
                return body;
            }
        }
    }

    /// Whether the server ends the connection, whatever it says before.
    pub fn is_ended(&mut self) -> bool {
        let mut rest = [0; 65536];
        loop {
            match self.raw.0.read(&mut rest) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() == ErrorKind::ConnectionReset,
            }
        }
    }
}
