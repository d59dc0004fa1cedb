//! Clients by the dozen, and clients that mean no good: just enough of the protocol to load a server.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::SockRef;

/// Channels, by their numbers on the wire.
pub const MAIN: u8 = 1;
#[allow(missing_docs, reason = "see MAIN")]
pub const DISPLAY: u8 = 2;
#[allow(missing_docs, reason = "see MAIN")]
pub const INPUTS: u8 = 3;
#[allow(missing_docs, reason = "see MAIN")]
pub const CURSOR: u8 = 4;

const TIMEOUT: Duration = Duration::from_secs(20);
const MAIN_INIT: u16 = 103;
const DISPLAY_INIT: u16 = 101;
const SET_ACK: u16 = 3;
const PING: u16 = 4;
const ACK_SYNC: u16 = 1;
const ACK: u16 = 2;
const PONG: u16 = 3;

/// Header and link message of a channel, with the short message header.
pub fn hello(channel: u8, session: u32) -> Vec<u8> {
    const COMMON: u32 = 0b1011;
    let mut bytes = b"REDQ".to_vec();
    for word in [2, 2, 22, session] {
        bytes.extend(u32::to_le_bytes(word));
    }
    bytes.extend([channel, 0]);
    for word in [1, 0, 18, COMMON] {
        bytes.extend(u32::to_le_bytes(word));
    }
    bytes
}

/// A message as it is framed.
pub fn message(kind: u16, size: u32, body: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &size.to_le_bytes(), body].concat()
}

/// Why a connection did not become a channel.
#[derive(Debug)]
pub enum LinkError {
    /// The socket failed, or ended.
    Socket(std::io::Error),
    /// The server said so: `SPICE_LINK_ERR_*`.
    Refused(u32),
}

impl From<std::io::Error> for LinkError {
    fn from(error: std::io::Error) -> Self {
        Self::Socket(error)
    }
}

/// A connection of one channel.
#[derive(Debug)]
pub struct Channel {
    stream: TcpStream,
    kind: u8,
    pending: Vec<u8>,
}

impl Channel {
    /// Connects and goes through the link stage of a server without a password.
    ///
    /// # Errors
    /// What the socket says, or that the server refuses.
    pub fn link(server: SocketAddr, kind: u8, session: u32) -> Result<Self, LinkError> {
        // A ticket that says nothing.
        Self::link_with(server, kind, &hello(kind, session), &[0; 128])
    }

    /// Connects and goes through the link stage with this hello and this ticket.
    ///
    /// # Errors
    /// What the socket says, or that the server refuses.
    pub fn link_with(
        server: SocketAddr,
        kind: u8,
        hello: &[u8],
        ticket: &[u8],
    ) -> Result<Self, LinkError> {
        const A_TICKET: u32 = 1;
        let proof = [&A_TICKET.to_le_bytes(), ticket].concat();
        Self::link_as(server, kind, hello, &proof)
    }

    /// Connects and goes through the link stage with this hello and this choice of authentication
    /// with what belongs to it.
    ///
    /// # Errors
    /// What the socket says, or that the server refuses.
    pub fn link_as(
        server: SocketAddr,
        kind: u8,
        hello: &[u8],
        proof: &[u8],
    ) -> Result<Self, LinkError> {
        let mut stream = TcpStream::connect_timeout(&server, TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        stream.write_all(hello)?;
        let mut header = [0; 16];
        stream.read_exact(&mut header)?;
        let mut reply = vec![0; word(&header, 12) as usize];
        stream.read_exact(&mut reply)?;
        accepted(word(&reply, 0))?;
        stream.write_all(proof)?;
        let mut result = [0; 4];
        stream.read_exact(&mut result)?;
        accepted(word(&result, 0))?;
        Ok(Self {
            stream,
            kind,
            pending: Vec::new(),
        })
    }

    /// Which channel it is.
    pub fn kind(&self) -> u8 {
        self.kind
    }

    /// The next message.
    fn next(&mut self) -> std::io::Result<(u16, Vec<u8>)> {
        let mut header = [0; 6];
        self.stream.read_exact(&mut header)?;
        let mut body = vec![0; word(&header, 2) as usize];
        self.stream.read_exact(&mut body)?;
        Ok((u16::from_le_bytes([header[0], header[1]]), body))
    }

    /// Sends a message.
    ///
    /// # Errors
    /// What the socket says.
    pub fn send(&mut self, kind: u16, body: &[u8]) -> std::io::Result<()> {
        self.say(&message(kind, body.len() as u32, body))
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// What the socket says.
    pub fn say(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Whether the server has not closed it.
    ///
    /// # Panics
    /// If the socket has no such option.
    pub fn is_open(&mut self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let mut rest = [0; 4096];
        loop {
            match self.stream.read(&mut rest) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
    }

    /// Ends what it sends; the server still can.
    pub fn close_half(&self) {
        // A server that closed already is as well.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Closes without the usual goodbye of TCP.
    pub fn reset(self) {
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    /// Reads what is there, answers what wants an answer. How many bytes came; `None` at the end.
    fn serve(&mut self) -> Option<usize> {
        let mut bytes = [0; 64 * 1024];
        let count = match self.stream.read(&mut bytes) {
            Ok(0) => return None,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(_) => return None,
        };
        self.pending.extend(&bytes[..count]);
        let mut answers = Vec::new();
        let mut at = 0;
        while let Some(header) = self.pending.get(at..at + 6) {
            let kind = u16::from_le_bytes([header[0], header[1]]);
            let size = word(header, 2) as usize;
            let Some(body) = self.pending.get(at + 6..at + 6 + size) else {
                break;
            };
            match kind {
                SET_ACK => answers.extend(message(ACK_SYNC, 4, &body[..4])),
                PING => answers.extend(message(PONG, 12, &body[..12])),
                _ if self.kind == DISPLAY => answers.extend(message(ACK, 0, &[])),
                _ => {}
            }
            at += 6 + size;
        }
        self.pending.drain(..at);
        // Few bytes, and whoever answers reads: there is room.
        self.stream.write_all(&answers).ok().map(|()| count)
    }
}

fn accepted(code: u32) -> Result<(), LinkError> {
    match code {
        0 => Ok(()),
        code => Err(LinkError::Refused(code)),
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// A whole session, as a viewer opens it.
///
/// # Errors
/// What the socket says, or that the server refuses.
pub fn session(server: SocketAddr) -> Result<Vec<Channel>, LinkError> {
    let mut main = Channel::link(server, MAIN, 0)?;
    let id = loop {
        let (kind, body) = main.next()?;
        if kind == MAIN_INIT {
            break word(&body, 0);
        }
    };
    let mut display = Channel::link(server, DISPLAY, id)?;
    display.send(DISPLAY_INIT, &[0; 14])?;
    let inputs = Channel::link(server, INPUTS, id)?;
    let cursor = Channel::link(server, CURSOR, id)?;
    Ok(vec![main, display, inputs, cursor])
}

/// Clients that look, all in one thread.
#[derive(Debug)]
pub struct Crowd {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<usize>>,
    bytes: Arc<AtomicU64>,
}

impl Crowd {
    /// So many viewers of `server`.
    ///
    /// # Panics
    /// If the server does not let them all in.
    pub fn connect(server: SocketAddr, viewers: usize) -> Self {
        let mut channels = Vec::new();
        for _ in 0..viewers {
            channels.extend(session(server).unwrap());
        }
        let (stop, bytes) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let thread = {
            let (stop, bytes) = (Arc::clone(&stop), Arc::clone(&bytes));
            thread::spawn(move || attend(channels, &stop, &bytes))
        };
        Self {
            stop,
            thread: Some(thread),
            bytes,
        }
    }

    /// Bytes that came so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// All of them leave; how many connections the server had ended before.
    ///
    /// # Panics
    /// If a viewer met what it does not know.
    pub fn leave(mut self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

/// Serves all channels until told to stop; how many the server ended.
fn attend(mut channels: Vec<Channel>, stop: &AtomicBool, bytes: &AtomicU64) -> usize {
    let before = channels.len();
    for channel in &channels {
        channel.stream.set_nonblocking(true).unwrap();
    }
    while !stop.load(Ordering::Relaxed) {
        let mut polls: Vec<libc::pollfd> = channels
            .iter()
            .map(|channel| libc::pollfd {
                fd: channel.stream.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            })
            .collect();
        // SAFETY: `polls` has as many elements as is said, and lives through the call.
        unsafe { libc::poll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, 50) };
        let mut ready = polls.iter().map(|poll| poll.revents != 0);
        channels.retain_mut(|channel| {
            if ready.next() != Some(true) {
                return true;
            }
            let count = channel.serve();
            bytes.fetch_add(count.unwrap_or(0) as u64, Ordering::Relaxed);
            count.is_some()
        });
    }
    before - channels.len()
}

/// What came of a [`churn`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Churn {
    /// Connections that were made and left.
    pub made: u64,
    /// Those among them that the server did not let in.
    pub refused: u64,
    /// The longest that a client waited for its session to begin.
    pub longest: Duration,
}

/// Connects and leaves at this rate, each time at another point: after its hello, its session's
/// begin, with a goodbye and without.
pub fn churn(server: SocketAddr, per_second: u32, time: Duration) -> Churn {
    const THREADS: u32 = 8;
    let start = Instant::now();
    let threads: Vec<_> = (0..THREADS)
        .map(|number| {
            thread::spawn(move || {
                let mut result = Churn::default();
                let pace = Duration::from_secs(u64::from(THREADS)) / per_second;
                let mut due = start + pace * number / THREADS;
                while start.elapsed() < time {
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                    due += pace;
                    come_and_go(server, &mut result);
                }
                result
            })
        })
        .collect();
    threads.into_iter().fold(Churn::default(), |sum, thread| {
        let part = thread.join().unwrap();
        Churn {
            made: sum.made + part.made,
            refused: sum.refused + part.refused,
            longest: sum.longest.max(part.longest),
        }
    })
}

fn come_and_go(server: SocketAddr, result: &mut Churn) {
    result.made += 1;
    if result.made.is_multiple_of(4) {
        let Ok(mut stream) = TcpStream::connect_timeout(&server, TIMEOUT) else {
            result.refused += 1;
            return;
        };
        let hello = hello(MAIN, 0);
        // However far it gets.
        let _ = stream.write_all(&hello[..(result.made as usize * 7) % hello.len()]);
        return;
    }
    let asked = Instant::now();
    match Channel::link(server, MAIN, 0) {
        Ok(channel) if result.made.is_multiple_of(2) => channel.reset(),
        Ok(_) => {}
        Err(_) => result.refused += 1,
    }
    result.longest = result.longest.max(asked.elapsed());
}
