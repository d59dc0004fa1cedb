//! One connection: what both ends may still send, and the bytes that wait for the host.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::Shutdown;

use caraway_devices::Nanos;

use super::host::{HostStream, Readiness};
use super::packet::{Header, Op, shutdown};

/// Bytes that the guest may send before the host has taken them.
pub(super) const BUFFER: u32 = 32 << 10;

/// How long whoever is asked for a connection may think about it, as in Linux.
const REQUEST_TIMEOUT: Nanos = 2_000_000_000;
/// How long a guest may take to say goodbye, as in Linux.
const CLOSE_TIMEOUT: Nanos = 8_000_000_000;

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The host wants it; the guest is to be asked.
    Asking,
    /// The guest was asked.
    Asked,
    /// The guest wanted it and has it; it is to be told.
    Accepting,
    /// Both have it.
    Open,
    /// The guest is done with it. What it sent is still on its way to the host.
    Draining,
}

/// What is to become of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It goes on.
    Stays,
    /// The guest knows of it no more, or is told now by a reset: `reset`. It is kept only while it
    /// has bytes for the host.
    Ends {
        /// Whether the guest is to be told.
        reset: bool,
    },
}

/// What a connection has to say to the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Saying {
    pub(super) op: Op,
    pub(super) flags: u32,
    /// Bytes of data.
    pub(super) len: usize,
}

impl Saying {
    const fn plain(op: Op) -> Self {
        Self {
            op,
            flags: 0,
            len: 0,
        }
    }
}

pub(super) struct Connection {
    pub(super) host_port: u32,
    pub(super) guest_port: u32,
    /// It waits for its turn to say something.
    pub(super) is_waiting: bool,
    /// When it ends, if nothing happens before.
    pub(super) deadline: Option<Nanos>,
    stream: Box<dyn HostStream>,
    phase: Phase,
    readable: bool,
    writable: bool,
    hung_up: bool,
    /// What the guest will not do any more, by [`shutdown`].
    guest_ended: u32,
    /// What the host will not do any more, and what of it the guest was told.
    host_ended: u32,
    told_ended: u32,
    /// What of `guest_ended` the stream knows.
    stream_ended: u32,
    /// Bytes to the guest; its room and how much it took of it.
    sent: u32,
    guest_room: u32,
    guest_taken: u32,
    asked_for_credit: bool,
    /// Bytes that the host has not taken yet, at most [`BUFFER`].
    backlog: VecDeque<u8>,
    /// Bytes that the host took, and how many of them the guest knows of.
    taken: u32,
    told_taken: u32,
    credit_due: bool,
}

impl Connection {
    fn new(stream: Box<dyn HostStream>, host_port: u32, guest_port: u32, phase: Phase) -> Self {
        Self {
            host_port,
            guest_port,
            is_waiting: false,
            deadline: None,
            stream,
            phase,
            // Whoever watches the stream may have begun before there was a connection to tell.
            readable: true,
            writable: true,
            hung_up: false,
            guest_ended: 0,
            host_ended: 0,
            told_ended: 0,
            stream_ended: 0,
            sent: 0,
            guest_room: 0,
            guest_taken: 0,
            asked_for_credit: false,
            backlog: VecDeque::new(),
            taken: 0,
            told_taken: 0,
            credit_due: false,
        }
    }

    /// One that the host wants.
    pub(super) fn asked_by_host(
        stream: Box<dyn HostStream>,
        host_port: u32,
        guest_port: u32,
        now: Nanos,
    ) -> Self {
        let mut connection = Self::new(stream, host_port, guest_port, Phase::Asking);
        connection.deadline = Some(now.saturating_add(REQUEST_TIMEOUT));
        connection
    }

    /// One that the guest wants by `request`, and gets.
    pub(super) fn asked_by_guest(stream: Box<dyn HostStream>, request: &Header) -> Self {
        let (host, guest) = (request.dst_port, request.src_port);
        let mut connection = Self::new(stream, host, guest, Phase::Accepting);
        connection.hear_credit(request);
        connection
    }

    /// Room and progress, which every packet tells.
    pub(super) fn hear_credit(&mut self, header: &Header) {
        self.guest_room = header.buf_alloc;
        self.guest_taken = header.fwd_cnt;
        if self.credit() > 0 {
            self.asked_for_credit = false;
        }
    }

    /// Bytes that the guest has room for; none if it contradicts itself.
    fn credit(&self) -> u32 {
        let under_way = self.sent.wrapping_sub(self.guest_taken);
        self.guest_room.saturating_sub(under_way)
    }

    /// The guest took the connection.
    pub(super) fn hear_response(&mut self) -> Fate {
        if self.phase != Phase::Asked || self.stream.accepted(self.host_port).is_err() {
            return Fate::Ends { reset: true };
        }
        self.phase = Phase::Open;
        self.deadline = None;
        Fate::Stays
    }

    /// The guest sent `data`.
    pub(super) fn hear_data(&mut self, data: &[u8]) -> Fate {
        let open = matches!(self.phase, Phase::Accepting | Phase::Open);
        let room = BUFFER as usize - self.backlog.len();
        if !open || self.guest_ended & shutdown::SEND != 0 || data.len() > room {
            return Fate::Ends { reset: true };
        }
        let mut rest = data;
        while self.backlog.is_empty() && !rest.is_empty() {
            let written = self.write_some(rest);
            if written == 0 {
                break;
            }
            rest = &rest[written..];
        }
        self.backlog.extend(rest);
        self.note_progress();
        Fate::Stays
    }

    /// The guest will receive or send no more.
    pub(super) fn hear_shutdown(&mut self, flags: u32) -> Fate {
        if !matches!(self.phase, Phase::Accepting | Phase::Open) {
            return Fate::Ends { reset: true };
        }
        self.guest_ended |= flags & shutdown::BOTH;
        self.settle();
        match self.guest_ended {
            shutdown::BOTH => Fate::Ends { reset: true },
            _ => Fate::Stays,
        }
    }

    /// The guest asks how much room there is.
    pub(super) fn hear_credit_request(&mut self) {
        self.credit_due = true;
    }

    /// What the stream can do now.
    pub(super) fn hear_host(&mut self, ready: Readiness) {
        self.readable |= ready.readable || ready.hung_up;
        self.writable |= ready.writable;
        self.hung_up |= ready.hung_up;
        if self.hung_up && self.host_ended & shutdown::SEND != 0 {
            self.end_of_host();
        }
        self.flush();
    }

    /// The guest knows of the connection no more. Whether it has to be kept for what the host has
    /// not taken yet: only what a guest ended properly arrives.
    pub(super) fn drain(&mut self) -> bool {
        let proper = self.guest_ended & shutdown::SEND != 0;
        self.phase = Phase::Draining;
        self.deadline = None;
        proper && !self.is_drained()
    }

    /// A connection that is kept for its bytes has none left.
    pub(super) fn is_drained(&self) -> bool {
        self.phase == Phase::Draining && (self.backlog.is_empty() || self.hung_up)
    }

    /// What it has to say next; data goes to the start of `buffer`.
    pub(super) fn say(&mut self, buffer: &mut [u8], now: Nanos) -> Option<Saying> {
        let saying = self.next(buffer)?;
        self.told_taken = self.taken;
        self.credit_due = false;
        if saying.op == Op::Shutdown && saying.flags == shutdown::BOTH {
            self.deadline = Some(now.saturating_add(CLOSE_TIMEOUT));
        }
        Some(saying)
    }

    fn next(&mut self, buffer: &mut [u8]) -> Option<Saying> {
        match self.phase {
            Phase::Asking => {
                self.phase = Phase::Asked;
                return Some(Saying::plain(Op::Request));
            }
            Phase::Accepting => {
                self.phase = Phase::Open;
                return Some(Saying::plain(Op::Response));
            }
            Phase::Asked | Phase::Draining => return None,
            Phase::Open => {}
        }
        if let Some(saying) = self.next_data(buffer) {
            return Some(saying);
        }
        if self.told_ended != self.host_ended {
            self.told_ended = self.host_ended;
            return Some(Saying {
                flags: self.host_ended,
                ..Saying::plain(Op::Shutdown)
            });
        }
        self.credit_due.then_some(Saying::plain(Op::CreditUpdate))
    }

    fn next_data(&mut self, buffer: &mut [u8]) -> Option<Saying> {
        let ended = (self.host_ended & shutdown::SEND | self.guest_ended & shutdown::RECEIVE) != 0;
        if !self.readable || ended {
            return None;
        }
        let most = buffer.len().min(self.credit() as usize);
        if most == 0 {
            let asked = std::mem::replace(&mut self.asked_for_credit, true);
            return (!asked).then_some(Saying::plain(Op::CreditRequest));
        }
        match patiently(|| self.stream.read(&mut buffer[..most])) {
            Ok(0) => self.end_of_host(),
            Ok(len) => {
                let len = len.min(most);
                self.sent = self.sent.wrapping_add(len as u32);
                return Some(Saying {
                    len,
                    ..Saying::plain(Op::Rw)
                });
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
            Err(_) => {
                self.hung_up = true;
                self.end_of_host();
            }
        }
        None
    }

    /// The host will send no more; nor will it take anything if it is gone.
    fn end_of_host(&mut self) {
        self.host_ended |= match self.hung_up {
            true => shutdown::BOTH,
            false => shutdown::SEND,
        };
    }

    /// Writes what waits for the host, as far as that goes.
    fn flush(&mut self) {
        let mut backlog = std::mem::take(&mut self.backlog);
        while !backlog.is_empty() {
            let written = self.write_some(backlog.as_slices().0);
            if written == 0 {
                break;
            }
            backlog.drain(..written);
        }
        // Most connections are idle most of the time: one without bytes has no memory for them.
        if !backlog.is_empty() {
            self.backlog = backlog;
        }
        self.note_progress();
    }

    /// Writes some of `bytes`; how many, 0 if the host takes none for now. A host that takes none
    /// any more loses them.
    fn write_some(&mut self, bytes: &[u8]) -> usize {
        let lost = self.host_ended & shutdown::RECEIVE != 0;
        let written = match lost {
            true => Ok(bytes.len()),
            false if !self.writable => Ok(0),
            false => patiently(|| self.stream.write(bytes)),
        };
        let written = match written {
            Ok(written) => written.min(bytes.len()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.writable = false;
                0
            }
            Err(_) => {
                self.host_ended |= shutdown::RECEIVE;
                bytes.len()
            }
        };
        self.taken = self.taken.wrapping_add(written as u32);
        written
    }

    fn note_progress(&mut self) {
        self.credit_due |= self.taken.wrapping_sub(self.told_taken) >= BUFFER / 2;
        self.settle();
    }

    /// Tells the stream what the guest has ended: sending, once everything is there.
    fn settle(&mut self) {
        let later = match self.backlog.is_empty() {
            true => 0,
            false => shutdown::SEND,
        };
        let news = self.guest_ended & !self.stream_ended & !later;
        self.stream_ended |= news;
        if news & shutdown::SEND != 0 {
            self.stream.shutdown(Shutdown::Write);
        }
        if news & shutdown::RECEIVE != 0 {
            self.stream.shutdown(Shutdown::Read);
        }
    }

    /// Bytes that the host took, for the header of what is said.
    pub(super) fn taken(&self) -> u32 {
        self.taken
    }
}

/// Again, as long as a signal gets in between.
fn patiently(mut act: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match act() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}
