//! Byte pipes between a machine and its clients: ports, shared folders, USB redirection.
//!
//! A [`Pipe`] has two ends. The machine's end is opened and closed by whatever is there: a device of
//! the guest, or a socket that [`Pipe::relay`] joins to it. The clients' end belongs to one client at
//! a time: **the first one keeps it until it leaves; those that come later wait in line**, connected
//! but idle, and the next one gets its turn once the machine has taken note that the former left.
//!
//! Each direction holds 64 KiB and loses nothing: whoever reads slowly, the writer at the other end
//! waits, and nobody else does.

mod queue;

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

pub(crate) use queue::Item;
use queue::Queue;

/// What the machine learns from its end of a pipe, in the order in which it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PipeEvent {
    /// A client has its turn from here on.
    Joined,
    /// It sent these bytes, at least one.
    Bytes(Vec<u8>),
    /// It sent a break, as on a serial line.
    Break,
    /// It is gone.
    Left,
}

/// What a client learns beside bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PortEvent {
    /// The machine's end was opened.
    Opened,
    /// It was closed.
    Closed,
    /// It sent a break.
    Break,
}

/// What a client does beside sending bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClientMark {
    Joined,
    Break,
    Left,
}

/// A pipe of bytes between a machine and one client at a time. All methods may be called from any
/// thread, and none but the `async` ones waits.
#[derive(Debug)]
pub struct Pipe {
    state: Mutex<State>,
    /// Told of everything: whoever waits looks again.
    changes: watch::Sender<()>,
    /// Told when the machine's end is opened or closed.
    openings: OnceLock<watch::Sender<()>>,
}

#[derive(Debug, Default)]
struct State {
    open: bool,
    /// How often it was opened.
    openings: u64,
    next: u64,
    /// Clients in the order in which they came; the first has its turn if `joined`.
    line: VecDeque<u64>,
    joined: bool,
    to_machine: Queue<ClientMark>,
    to_client: Queue<PortEvent>,
}

impl State {
    /// Gives the first in line its turn, unless its predecessor is still to be noticed.
    fn settle(&mut self) {
        if self.open && !self.joined && !self.line.is_empty() && self.to_machine.is_empty() {
            self.joined = true;
            self.to_machine.mark(ClientMark::Joined);
            self.to_client.mark(PortEvent::Opened);
        }
    }

    fn has_turn(&self, client: u64) -> bool {
        self.joined && self.line.front() == Some(&client)
    }
}

impl Pipe {
    /// A pipe whose machine's end is closed.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            changes: watch::Sender::new(()),
            openings: OnceLock::new(),
        })
    }

    /// Changes the state, and tells everybody.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state.lock());
        self.changes.send_replace(());
        result
    }
}

/// The machine's end.
impl Pipe {
    /// Opens the machine's end: clients are told, and the first in line gets its turn.
    pub fn open(&self) {
        self.change(|state| {
            if !std::mem::replace(&mut state.open, true) {
                state.openings += 1;
                state.settle();
            }
        });
        self.tell_opening();
    }

    /// Closes the machine's end. What it sent before still reaches the client; what the client sent
    /// and nobody took is gone.
    pub fn close(&self) {
        self.change(|state| {
            if !std::mem::replace(&mut state.open, false) {
                return;
            }
            state.to_machine.clear();
            // A client that was not told of the opening need not know; so marks cannot pile up.
            if state.joined && !state.to_client.unmark(&PortEvent::Opened) {
                state.to_client.mark(PortEvent::Closed);
            }
            state.joined = false;
        });
        self.tell_opening();
    }

    fn tell_opening(&self) {
        if let Some(openings) = self.openings.get() {
            openings.send_replace(());
        }
    }

    /// Whether the machine's end is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state.lock().open
    }

    /// Whether a client has its turn.
    #[must_use]
    pub fn has_client(&self) -> bool {
        self.state.lock().joined
    }

    /// Bytes that [`Pipe::send`] would take now: none while no client has its turn.
    #[must_use]
    pub fn room(&self) -> usize {
        let state = self.state.lock();
        if state.joined {
            state.to_client.room()
        } else {
            0
        }
    }

    /// Sends to the client as many of these bytes as there is room for, and says how many that were.
    pub fn send(&self, bytes: &[u8]) -> usize {
        let taken = {
            let mut state = self.state.lock();
            if state.joined {
                state.to_client.push(bytes)
            } else {
                0
            }
        };
        // Whoever waits for room must not wake itself by finding none.
        if taken > 0 {
            self.changes.send_replace(());
        }
        taken
    }

    /// Sends a break to the client. `false` if there is no room for it.
    pub fn send_break(&self) -> bool {
        let possible = {
            let mut state = self.state.lock();
            let possible = state.joined && state.to_client.room() > 0;
            if possible {
                state.to_client.mark(PortEvent::Break);
            }
            possible
        };
        if possible {
            self.changes.send_replace(());
        }
        possible
    }

    /// Takes what happened next at the clients' end.
    pub fn take(&self) -> Option<PipeEvent> {
        let item = {
            let mut state = self.state.lock();
            let item = state.to_machine.pop()?;
            state.settle();
            item
        };
        self.changes.send_replace(());
        Some(match item {
            Item::Bytes(bytes) => PipeEvent::Bytes(bytes),
            Item::Mark(ClientMark::Joined) => PipeEvent::Joined,
            Item::Mark(ClientMark::Break) => PipeEvent::Break,
            Item::Mark(ClientMark::Left) => PipeEvent::Left,
        })
    }

    /// Something about the pipe changes after each of these; see [`watch::Receiver::changed`]. For
    /// those who wait for [`Pipe::take`] or [`Pipe::room`].
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Waits for what happens next at the clients' end.
    pub async fn next(&self) -> PipeEvent {
        self.until(|| self.take()).await
    }

    /// Joins the machine's end to `stream` until one of them ends: the end is open meanwhile, bytes go
    /// both ways, and a break goes nowhere. With `one_client` it also ends as soon as a client has
    /// left, for protocols that begin anew with each client.
    ///
    /// # Errors
    ///
    /// What `stream` reports.
    pub async fn relay<S>(&self, stream: S, one_client: bool) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite,
    {
        /// Closes the machine's end however the relay ends.
        struct Opened<'a>(&'a Pipe);
        impl Drop for Opened<'_> {
            fn drop(&mut self) {
                self.0.close();
            }
        }
        self.open();
        let _opened = Opened(self);
        let (mut reader, mut writer) = tokio::io::split(stream);
        let to_stream = async {
            loop {
                match self.next().await {
                    PipeEvent::Bytes(bytes) => writer.write_all(&bytes).await?,
                    PipeEvent::Left if one_client => return writer.shutdown().await,
                    PipeEvent::Joined | PipeEvent::Break | PipeEvent::Left => {}
                }
            }
        };
        let to_client = async {
            let mut buffer = vec![0; 16 * 1024];
            loop {
                // Read before there is room, so that an end is noticed with no client there.
                let got = reader.read(&mut buffer).await?;
                if got == 0 {
                    return Ok(());
                }
                let mut sent = 0;
                while sent < got {
                    sent += self
                        .until(|| Some(self.send(&buffer[sent..got])).filter(|&count| count > 0))
                        .await;
                }
            }
        };
        tokio::select! {
            ended = to_stream => ended,
            ended = to_client => ended,
        }
    }

    /// Waits until `look` finds something.
    async fn until<T>(&self, mut look: impl FnMut() -> Option<T>) -> T {
        let mut changes = self.changes.subscribe();
        loop {
            changes.mark_unchanged();
            if let Some(found) = look() {
                return found;
            }
            // The sender is ours, so there is no other end to this than a change.
            let _ = changes.changed().await;
        }
    }
}

/// The clients' end.
impl Pipe {
    /// Has `openings` told whenever the machine's end is opened or closed. Only the first server that
    /// asks is told: a pipe is for one server.
    pub(crate) fn report_openings(&self, openings: watch::Sender<()>) {
        let _ = self.openings.set(openings);
    }

    /// How often the machine's end was opened; `None` while it is closed.
    pub(crate) fn opening(&self) -> Option<u64> {
        let state = self.state.lock();
        state.open.then_some(state.openings)
    }

    /// Puts a client at the end of the line.
    pub(crate) fn line_up(self: &Arc<Self>) -> Place {
        let number = self.change(|state| {
            state.next += 1;
            let number = state.next;
            state.line.push_back(number);
            state.settle();
            number
        });
        Place {
            pipe: self.clone(),
            number,
        }
    }
}

/// A client's place in the line for a pipe; it leaves when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    pipe: Arc<Pipe>,
    number: u64,
}

impl Place {
    /// Sends all of `bytes` to the machine. Waits for the turn and for room.
    pub(crate) async fn send(&self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = self.pipe.until(|| self.try_send(bytes)).await;
            bytes = &bytes[taken..];
        }
    }

    fn try_send(&self, bytes: &[u8]) -> Option<usize> {
        let taken = {
            let mut state = self.pipe.state.lock();
            if state.has_turn(self.number) {
                state.to_machine.push(bytes)
            } else {
                0
            }
        };
        (taken > 0).then(|| {
            self.pipe.changes.send_replace(());
            taken
        })
    }

    /// Sends a break to the machine. Waits for the turn and for room.
    pub(crate) async fn send_break(&self) {
        let mark = || {
            let mut state = self.pipe.state.lock();
            let possible = state.has_turn(self.number) && state.to_machine.room() > 0;
            possible.then(|| state.to_machine.mark(ClientMark::Break))
        };
        self.pipe.until(mark).await;
        self.pipe.changes.send_replace(());
    }

    /// Waits for what comes next from the machine. What the machine sent before it closed its end
    /// still comes.
    pub(crate) async fn next(&self) -> Item<PortEvent> {
        let take = || {
            let mut state = self.pipe.state.lock();
            let first = state.line.front() == Some(&self.number);
            if first { state.to_client.pop() } else { None }
        };
        let item = self.pipe.until(take).await;
        self.pipe.changes.send_replace(());
        item
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pipe.change(|state| {
            if state.line.front() == Some(&self.number) {
                state.to_client.clear();
            }
            if state.has_turn(self.number) {
                state.joined = false;
                state.to_machine.mark(ClientMark::Left);
            }
            state.line.retain(|&number| number != self.number);
            state.settle();
        });
    }
}

#[cfg(test)]
mod tests;
