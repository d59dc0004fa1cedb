//! A SPICE server in the test itself, with a scripted agent for a guest's.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use caraway_spice::{Agent, Config, Devices, Framebuffer, ListenAddress, Listener, Server, Size};

use crate::wait::wait_for;

/// `VD_AGENT_*` of `vd_agent.h`.
mod kind {
    pub const MONITORS_CONFIG: u32 = 2;
    pub const REPLY: u32 = 3;
    pub const CLIPBOARD: u32 = 4;
    pub const ANNOUNCE: u32 = 6;
    pub const GRAB: u32 = 7;
    pub const REQUEST: u32 = 8;
    pub const RELEASE: u32 = 9;
    pub const FILE_START: u32 = 10;
    pub const FILE_STATUS: u32 = 11;
    pub const FILE_DATA: u32 = 12;
}

/// What spice-vdagentd 0.22 announces.
const CAPABILITIES: [u32; 12] = [0, 1, 2, 5, 6, 7, 8, 10, 11, 15, 16, 17];
const TEXT: u32 = 1;

/// What the agent got from clients.
#[derive(Debug, Default)]
struct Seen {
    /// Clients' texts.
    texts: Vec<String>,
    /// Names and contents of files.
    files: Vec<(u32, String, Vec<u8>)>,
    /// Width and height of the first monitor of each request.
    monitors: Vec<(u32, u32)>,
    /// How often a client let go of its clipboard.
    releases: usize,
}

/// The guest's side: one clipboard, files that are kept, requests that are noted.
struct Script {
    agent: Arc<Agent>,
    seen: Arc<Mutex<Seen>>,
    /// The text that the guest has copied.
    text: Arc<Mutex<String>>,
    input: Vec<u8>,
    serial: u32,
}

/// A server of one screen whose guest has an agent.
pub struct Desk {
    /// Where viewers connect.
    pub address: SocketAddr,
    agent: Arc<Agent>,
    server: Arc<Server>,
    seen: Arc<Mutex<Seen>>,
    text: Arc<Mutex<String>>,
    /// The guest is to offer its text.
    offer: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Desk {
    /// A server with this config and its agent.
    pub fn new(config: Config) -> Self {
        let agent = Agent::new();
        let screen = Framebuffer::new(Size {
            width: 320,
            height: 200,
        });
        let devices = Devices {
            displays: vec![screen],
            agent: Some(agent.clone()),
            ..Devices::default()
        };
        let server = Server::new(config, devices, Arc::new(()));
        let any: ListenAddress = "127.0.0.1:0".parse().unwrap();
        let listener = Listener::bind(&any).unwrap();
        let address = listener.address().to_string().parse().unwrap();
        let served = server.clone();
        let serving = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(served.clone().serve(listener)).unwrap();
            runtime.block_on(served.closed());
        });
        let (seen, text): (Arc<Mutex<Seen>>, Arc<Mutex<String>>) = Default::default();
        let (offer, stop): (Arc<AtomicBool>, Arc<AtomicBool>) = Default::default();
        let script = Script {
            agent: agent.clone(),
            seen: seen.clone(),
            text: text.clone(),
            input: Vec::new(),
            serial: 0,
        };
        let (offers, stops) = (offer.clone(), stop.clone());
        let acting = std::thread::spawn(move || script.act(&offers, &stops));
        Self {
            address,
            agent,
            server,
            seen,
            text,
            offer,
            stop,
            threads: vec![serving, acting],
        }
    }

    /// The agent goes, and comes again.
    pub fn restart_agent(&self) {
        self.agent.close();
        self.agent.open();
    }

    /// The guest copies `text`.
    pub fn copy(&self, text: &str) {
        text.clone_into(&mut self.text.lock().unwrap());
        self.offer.store(true, Ordering::Release);
    }

    /// Waits until the guest has pasted `text`.
    pub fn wait_for_text(&self, text: &str) {
        wait_for(&format!("{text:?} in the guest"), || {
            let seen = self.seen.lock().unwrap();
            seen.texts.iter().any(|found| found == text).then_some(())
        });
    }

    /// Waits until a file of this name is there whole, and gives its content.
    pub fn wait_for_file(&self, name: &str, size: usize) -> Vec<u8> {
        wait_for(&format!("the file {name} in the guest"), || {
            let seen = self.seen.lock().unwrap();
            let file = seen.files.iter().find(|(_, found, _)| found == name);
            let content = file.map(|(_, _, content)| content);
            content.filter(|content| content.len() == size).cloned()
        })
    }

    /// Waits until a client asked for a monitor of this size.
    pub fn wait_for_monitor(&self, size: (u32, u32)) {
        wait_for(&format!("a request for {size:?}"), || {
            let seen = self.seen.lock().unwrap();
            seen.monitors.contains(&size).then_some(())
        });
    }

    /// How many texts, files and releases the guest has got.
    pub fn counts(&self) -> (usize, usize, usize) {
        let seen = self.seen.lock().unwrap();
        (seen.texts.len(), seen.files.len(), seen.releases)
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.server.shutdown();
        for thread in self.threads.drain(..) {
            assert!(thread.join().is_ok() || std::thread::panicking());
        }
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

impl Script {
    fn act(mut self, offer: &AtomicBool, stop: &AtomicBool) {
        self.agent.open();
        self.announce(1);
        while !stop.load(Ordering::Acquire) {
            let mut buffer = [0; 8192];
            let count = self.agent.read(&mut buffer);
            self.input.extend_from_slice(&buffer[..count]);
            self.answer();
            if offer.swap(false, Ordering::AcqRel) {
                self.send(kind::GRAB, &words(&[0, self.serial, TEXT]));
                self.serial += 1;
            }
            if count == 0 {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }

    fn announce(&self, request: u32) {
        let bits = CAPABILITIES.iter().fold(0, |bits, bit| bits | 1 << bit);
        self.send(kind::ANNOUNCE, &words(&[request, bits]));
    }

    fn send(&self, kind: u32, body: &[u8]) {
        let message = [
            &words(&[1, 20 + body.len() as u32, 1, kind, 0, 0, body.len() as u32]),
            body,
        ]
        .concat();
        let mut rest = message.as_slice();
        wait_for("room for the agent", || {
            rest = &rest[self.agent.write(rest)..];
            rest.is_empty().then_some(())
        });
    }

    /// Answers each message that is there whole. The clients' port alone counts.
    fn answer(&mut self) {
        let (mut stream, mut rest) = (Vec::new(), self.input.as_slice());
        while rest.len() >= 8 && rest.len() >= 8 + word(rest, 4) as usize {
            let (chunk, after) = rest[8..].split_at(word(rest, 4) as usize);
            if word(rest, 0) == 1 {
                stream.push(chunk.to_vec());
            }
            rest = after;
        }
        let partial_chunk = rest.to_vec();
        let joined = stream.concat();
        let mut rest = joined.as_slice();
        let mut whole = Vec::new();
        while rest.len() >= 20 && rest.len() >= 20 + word(rest, 16) as usize {
            let (body, after) = rest[20..].split_at(word(rest, 16) as usize);
            whole.push((word(rest, 4), body.to_vec()));
            rest = after;
        }
        self.input = match rest.is_empty() {
            true => Vec::new(),
            // What is left of a message stands in a chunk of its own again.
            false => [&words(&[1, rest.len() as u32]), rest].concat(),
        };
        self.input.extend(partial_chunk);
        for (kind, body) in whole {
            self.react(kind, &body);
        }
    }

    fn react(&mut self, message: u32, body: &[u8]) {
        let mut seen = self.seen.lock().unwrap();
        let answer = match message {
            kind::ANNOUNCE if word(body, 0) != 0 => {
                self.serial = 0;
                drop(seen);
                self.announce(0);
                return;
            }
            kind::GRAB if word(body, 4) == self.serial => {
                self.serial += 1;
                Some((kind::REQUEST, words(&[0, TEXT])))
            }
            kind::REQUEST => {
                let text = self.text.lock().unwrap();
                let content = [&words(&[0, TEXT]), text.as_bytes()].concat();
                Some((kind::CLIPBOARD, content))
            }
            kind::CLIPBOARD => {
                let text = String::from_utf8_lossy(&body[8..]).into_owned();
                seen.texts.push(text);
                None
            }
            kind::RELEASE => {
                seen.releases += 1;
                None
            }
            kind::MONITORS_CONFIG => {
                seen.monitors.push((word(body, 12), word(body, 8)));
                Some((kind::REPLY, words(&[kind::MONITORS_CONFIG, 1])))
            }
            kind::FILE_START => {
                let about = String::from_utf8_lossy(&body[4..]).into_owned();
                let name = about.lines().find_map(|line| line.strip_prefix("name="));
                let name = name.unwrap_or("?").to_owned();
                seen.files.push((word(body, 0), name, Vec::new()));
                Some((kind::FILE_STATUS, words(&[word(body, 0), 0])))
            }
            kind::FILE_DATA => {
                let (number, size) = (word(body, 0), word(body, 4) as usize);
                let file = seen.files.iter_mut().rev().find(|file| file.0 == number);
                if let Some((_, _, content)) = file {
                    content.extend(&body[12..12 + size]);
                }
                None
            }
            _ => None,
        };
        drop(seen);
        if let Some((kind, body)) = answer {
            self.send(kind, &body);
        }
    }
}
