//! A browser on the SPICE port: requests, the way to a WebSocket, and the frames in it.
//!
//! Checked: whatever a request asks for, no file outside of the console's folder is served; a page of
//! a foreign site never gets a WebSocket; a sound one does, and its link is answered through it; the
//! server's own frames are sound; memory is bounded and nothing of the browser is left.

#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use caraway_fuzz::Dice;
use caraway_fuzz::client::{BUFFER, PATIENCE};
use caraway_fuzz::memory::Gauge;
use caraway_fuzz::messages::{AUTH_SELECTION, AUTH_SPICE, Link, MAIN, MINI_HEADER};
use caraway_fuzz::server::{Rig, run};
use caraway_spice::{Config, Console, fuzzing};
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::timeout;

#[global_allocator]
static GAUGE: Gauge = Gauge::new();

/// Bytes that a browser may take: the console's file, a message, both directions' buffers.
const MOST_MEMORY: usize = 4 << 20;
/// For all that a browser may drag out: requests, the link stage, a silent viewer.
const LONGEST: Duration = Duration::from_secs(300);
/// What is in a file beside the console's folder.
const SECRET: &[u8] = b"only for its owner";

static KEY: LazyLock<fuzzing::FixedKey> =
    LazyLock::new(|| fuzzing::FixedKey::generate().expect("the system has random numbers"));
static CONSOLE: LazyLock<Console> = LazyLock::new(|| console().expect("a folder can be made"));

fuzz_target!(
    init: {
        LazyLock::force(&KEY);
        LazyLock::force(&CONSOLE);
    },
    |bytes: &[u8]| {
        let peak = GAUGE.peak_of(|| run(visit(Dice::new(bytes))));
        assert!(peak <= MOST_MEMORY, "{peak} bytes at a time");
    }
);

/// A console with links that lead out of it, and a secret beside it.
fn console() -> std::io::Result<Console> {
    let outside = PathBuf::from(format!("/tmp/caraway-fuzz-{}", std::process::id()));
    let inside = outside.join("console");
    fs::create_dir_all(inside.join("sub"))?;
    fs::write(outside.join("secret"), SECRET)?;
    fs::write(inside.join(".hidden"), SECRET)?;
    fs::write(inside.join("spice_auto.html"), "<html>")?;
    fs::write(inside.join("sub/a.js"), "1")?;
    std::os::unix::fs::symlink("../secret", inside.join("out"))?;
    Console::open(&inside).map_err(std::io::Error::other)
}

async fn visit(mut dice: Dice<'_>) {
    let rig = Rig::new(Config {
        console: Some(CONSOLE.clone()),
        ..Config::default()
    });
    fuzzing::use_key(&rig.server, &KEY);
    let (ours, theirs) = tokio::io::duplex(BUFFER);
    let served = timeout(LONGEST, fuzzing::connection(rig.server.clone(), theirs));
    let browse = async {
        let mut browser = Browser::new(ours);
        let mut is_first = true;
        while dice.rarely() {
            let asked = request(&mut dice, false);
            browser.ask(&asked).await;
            is_first = false;
        }
        let asked = request(&mut dice, true);
        browser.ask(&asked).await;
        if browser.status() == Some(101) {
            assert!(
                !asked.is_foreign,
                "a foreign page has a WebSocket: {}",
                String::from_utf8_lossy(&asked.bytes)
            );
            talk(&mut dice, &mut browser, asked.is_sound && is_first).await;
        } else {
            assert!(
                // After a bad request a connection may be closed.
                !(asked.is_sound && is_first),
                "a sound page was refused: {:?}",
                browser.heard
            );
        }
    };
    let (served, ()) = tokio::join!(served, browse);
    assert!(served.is_ok(), "the connection outlives its browser");
    rig.assert_clean();
}

/// A browser's end of a connection.
struct Browser {
    stream: DuplexStream,
    /// What came since the last request.
    heard: Vec<u8>,
}

/// A request, and what should come of it.
struct Asked {
    bytes: Vec<u8>,
    /// It asks for a WebSocket as it should.
    is_sound: bool,
    /// It is from a page of another site.
    is_foreign: bool,
}

impl Browser {
    fn new(stream: DuplexStream) -> Self {
        Self {
            stream,
            heard: Vec::new(),
        }
    }

    /// Says `bytes` for as long as the server takes them, and hears what comes.
    async fn say(&mut self, bytes: &[u8]) {
        let (mut read, mut write) = tokio::io::split(&mut self.stream);
        let hear = async {
            let mut piece = vec![0; 16 * 1024];
            while let Ok(count @ 1..) = read.read(&mut piece).await {
                self.heard.extend(&piece[..count]);
            }
        };
        let say = async {
            // What the server does not take any more, it does not have to.
            let _ = write.write_all(bytes).await;
            // Time passes once nobody has anything to do.
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        tokio::select! {
            () = hear => {}
            () = say => {}
        }
        let leaked = self.heard.windows(SECRET.len()).any(|part| part == SECRET);
        assert!(!leaked, "what is none of a browser's business");
    }

    async fn ask(&mut self, asked: &Asked) {
        self.heard.clear();
        self.say(&asked.bytes).await;
        // What begins with another letter is not taken for HTTP.
        let is_http = asked
            .bytes
            .first()
            .is_some_and(|first| b"CDGHOPT".contains(first));
        if is_http && !self.heard.is_empty() {
            assert!(self.status().is_some(), "no HTTP: {:?}", self.heard);
        }
    }

    /// The status of the answer to the last request.
    fn status(&self) -> Option<u16> {
        let line = self.heard.strip_prefix(b"HTTP/1.")?.get(2..5)?;
        std::str::from_utf8(line).ok()?.parse().ok()
    }
}

/// A request, for a WebSocket or for anything.
fn request(dice: &mut Dice<'_>, upgrade: bool) -> Asked {
    const PATHS: [&str; 14] = [
        "/",
        "/spice_auto.html",
        "/sub/a.js",
        "/../secret",
        "/sub/../../secret",
        "/%2e%2e/secret",
        "/..%2fsecret",
        "/out",
        "/.hidden",
        "/%2ehidden",
        "//secret",
        "/sub/%00",
        "/?host=a&port=1",
        "http://desk/sub/a.js",
    ];
    let path = if upgrade && !dice.rarely() {
        "/websockify"
    } else {
        dice.pick(&PATHS)
    };
    let method = if dice.rarely() {
        dice.pick(&["HEAD", "POST", "OPTIONS", "TRACE", "PUT", "DELETE"])
    } else {
        "GET"
    };
    let origin = if dice.rarely() {
        dice.pick(&[
            "http://evil.example",
            "null",
            "http://desk.evil.example",
            "http://desk@evil.example",
            "https://[desk]evil.example:5900",
        ])
    } else {
        "http://desk:5900"
    };
    let is_foreign = origin != "http://desk:5900";
    let mut headers = vec![
        ("Host", "desk:5900"),
        ("Origin", origin),
        ("Connection", "keep-alive, Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Protocol", "binary"),
    ];
    if !upgrade {
        headers.truncate(2);
    }
    let mut is_sound = upgrade && path == "/websockify" && method == "GET" && !is_foreign;
    if dice.rarely() {
        headers.remove(dice.up_to(headers.len() - 1));
        is_sound = false;
    }
    let mut bytes = format!("{method} {path} HTTP/1.1\r\n").into_bytes();
    for (name, value) in headers {
        bytes.extend(format!("{name}: {value}\r\n").into_bytes());
        if dice.rarely() {
            let more = dice.bytes(64).repeat(dice.pick(&[1, 1, 20, 400]));
            bytes.extend(more);
            bytes.extend(b"\r\n");
            is_sound = false;
        }
    }
    bytes.extend(b"\r\n");
    if dice.rarely() {
        let at = dice.up_to(bytes.len() - 1);
        bytes[at] = dice.byte();
        is_sound = false;
    }
    // Damage may have made the origin another, or added one.
    let is_foreign = is_foreign
        && !contains(&bytes, b"http://desk:5900")
        && contains(&bytes, format!("Origin: {origin}\r\n").as_bytes());
    Asked {
        bytes,
        is_sound,
        is_foreign,
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Frames with a link in them, and what else comes to mind.
async fn talk(dice: &mut Dice<'_>, browser: &mut Browser, mut is_sound: bool) {
    let link = Link {
        session: 0,
        kind: MAIN,
        id: 0,
        common: vec![AUTH_SELECTION | AUTH_SPICE | MINI_HEADER],
        channel: Vec::new(),
    };
    let body = link.body(&[]);
    let mut hello = b"REDQ".to_vec();
    for word in [2, 2, body.len() as u32] {
        hello.extend(word.to_le_bytes());
    }
    hello.extend(body);
    let mut ticket = vec![1, 0, 0, 0];
    ticket.resize(4 + 128, 0);

    for part in [hello, ticket] {
        let mut rest = part.as_slice();
        while !rest.is_empty() {
            let whole = !dice.rarely();
            let count = if whole {
                rest.len()
            } else {
                1 + dice.up_to(rest.len() - 1)
            };
            let (now, later) = rest.split_at(count);
            rest = later;
            is_sound &= frame(dice, browser, now).await;
        }
    }
    if is_sound {
        let carried = payload(&browser.heard);
        assert!(
            contains(&carried, b"REDQ"),
            "the link is not answered: {:?}",
            String::from_utf8_lossy(&browser.heard)
        );
    }
    while !dice.is_over() {
        let bytes = dice.bytes(200).repeat(dice.pick(&[1, 1, 1, 10, 1000]));
        frame(dice, browser, &bytes).await;
    }
    payload(&browser.heard);
    browser.say(&[]).await;
    let _ = timeout(PATIENCE, browser.stream.shutdown()).await;
}

const BINARY: u8 = 2;

/// Sends bytes as a binary frame, mostly; whether the frame was sound.
async fn frame(dice: &mut Dice<'_>, browser: &mut Browser, bytes: &[u8]) -> bool {
    let mut is_sound = true;
    if dice.rarely() {
        // A control frame in between is as good as none.
        let (opcode, payload) = (dice.pick(&[9, 10]), dice.bytes(125));
        browser
            .say(&encode(
                0x80 | opcode,
                payload,
                payload.len() as u64,
                true,
                0x0102_0304,
            ))
            .await;
    }
    let mut first = 0x80 | BINARY;
    if dice.rarely() {
        first = dice.byte();
        is_sound &= first == 0x80 | BINARY;
    }
    let masked = !dice.rarely();
    let length = dice.mostly(bytes.len() as u64);
    is_sound &= masked && length == bytes.len() as u64;
    let mask = dice.number() as u32;
    browser
        .say(&encode(first, bytes, length, masked, mask))
        .await;
    is_sound
}

fn encode(first: u8, payload: &[u8], length: u64, masked: bool, mask: u32) -> Vec<u8> {
    let mask_bit = if masked { 0x80 } else { 0 };
    let mut frame = vec![first];
    match length {
        0..126 => frame.push(mask_bit | length as u8),
        126..0x1_0000 => {
            frame.push(mask_bit | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        _ => {
            frame.push(mask_bit | 127);
            frame.extend(length.to_be_bytes());
        }
    }
    let mask = mask.to_be_bytes();
    if masked {
        frame.extend(mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b));
    } else {
        frame.extend(payload);
    }
    frame
}

/// What the server's frames carry, each of which must be as RFC 6455 has it.
fn payload(heard: &[u8]) -> Vec<u8> {
    let head = heard.windows(4).position(|four| four == b"\r\n\r\n");
    let mut rest = &heard[head.map_or(heard.len(), |at| at + 4)..];
    let mut carried = Vec::new();
    while let [first, second, more @ ..] = rest {
        let opcode = first & 0xf;
        assert_eq!(first & 0xf0, 0x80, "a frame in parts or with reserved bits");
        assert!(matches!(opcode, 2 | 8 | 9 | 10), "opcode {opcode}");
        assert_eq!(second & 0x80, 0, "a server's frame is masked");
        let (length, more) = match second & 0x7f {
            126 => match more.split_first_chunk() {
                Some((length, more)) => (usize::from(u16::from_be_bytes(*length)), more),
                None => break,
            },
            127 => match more.split_first_chunk() {
                Some((length, more)) => (u64::from_be_bytes(*length) as usize, more),
                None => break,
            },
            short => (usize::from(short), more),
        };
        let Some((now, later)) = more.split_at_checked(length) else {
            break;
        };
        if opcode == BINARY {
            carried.extend(now);
        }
        rest = later;
    }
    carried
}
