//! All connections: who a packet is for, whose turn it is, and who has waited too long.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;

use caraway_devices::Nanos;

use super::connection::{Connection, Fate};
use super::host::{ConnectionId, Host, HostStream, Readiness};
use super::packet::{HOST_CID, Header, Op, STREAM};
use super::{ConnectError, connection};

/// Connections at a time, those that are done but for their last bytes among them.
pub(super) const MOST: usize = 2048;
/// Answers to what is no connection that may wait.
const MOST_RESETS: usize = 256;
/// Ports of the host's that its own connections come from: far above what people choose.
const FIRST_PORT: u32 = 1 << 30;

/// What there was since the device was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VsockCounts {
    /// Connections that are there now.
    pub connections: u64,
    /// Connections that the guest asked for and got.
    pub from_guest: u64,
    /// Connections that the host asked for.
    pub from_host: u64,
    /// Connections that the guest asked for and did not get.
    pub refused: u64,
    /// Bytes from the guest.
    pub bytes_out: u64,
    /// Bytes to the guest.
    pub bytes_in: u64,
}

/// A port of the host's and one of the guest's.
type Ports = (u32, u32);

pub(super) struct Switch {
    cid: u64,
    host: Box<dyn Host>,
    connections: HashMap<ConnectionId, Connection>,
    /// Those that the guest knows.
    by_ports: HashMap<Ports, ConnectionId>,
    /// Those that may have something to say, each once.
    waiting: VecDeque<ConnectionId>,
    resets: VecDeque<Header>,
    deadlines: BTreeSet<(Nanos, ConnectionId)>,
    next_id: u64,
    next_port: u32,
    counts: VsockCounts,
}

impl Switch {
    pub(super) fn new(cid: u64, host: Box<dyn Host>) -> Self {
        Self {
            cid,
            host,
            connections: HashMap::new(),
            by_ports: HashMap::new(),
            waiting: VecDeque::new(),
            resets: VecDeque::new(),
            deadlines: BTreeSet::new(),
            next_id: 0,
            next_port: FIRST_PORT,
            counts: VsockCounts::default(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    pub(super) fn has_room(&self) -> bool {
        self.connections.len() < MOST
    }

    /// Whether answers may be made to another packet.
    pub(super) fn takes_more(&self) -> bool {
        self.resets.len() < MOST_RESETS
    }

    /// Whether [`next`](Self::next) may have a packet.
    pub(super) fn has_news(&self) -> bool {
        !self.resets.is_empty() || !self.waiting.is_empty()
    }

    pub(super) fn counts(&self) -> VsockCounts {
        VsockCounts {
            connections: self.connections.len() as u64,
            ..self.counts
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Nanos> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// All connections end without a word.
    pub(super) fn clear(&mut self) {
        self.connections.clear();
        self.by_ports.clear();
        self.waiting.clear();
        self.resets.clear();
        self.deadlines.clear();
    }

    pub(super) fn connect(
        &mut self,
        guest_port: u32,
        now: Nanos,
        make: impl FnOnce(ConnectionId) -> io::Result<Box<dyn HostStream>>,
    ) -> Result<(), ConnectError> {
        if !self.has_room() {
            return Err(ConnectError::Full(MOST));
        }
        let id = self.new_id();
        let stream = make(id)?;
        // There are more ports than connections.
        while self.by_ports.contains_key(&(self.next_port, guest_port)) {
            self.next_port = following(self.next_port);
        }
        let host_port = self.next_port;
        self.next_port = following(host_port);
        let connection = Connection::asked_by_host(stream, host_port, guest_port, now);
        self.counts.from_host += 1;
        self.add(id, connection);
        Ok(())
    }

    fn new_id(&mut self) -> ConnectionId {
        self.next_id += 1;
        ConnectionId(self.next_id)
    }

    fn add(&mut self, id: ConnectionId, connection: Connection) {
        let ports = (connection.host_port, connection.guest_port);
        self.by_ports.insert(ports, id);
        self.connections.insert(id, connection);
        self.change(id, |_| Fate::Stays);
    }

    /// Nothing is left of a connection that the guest knows of no more.
    fn remove(&mut self, id: ConnectionId) {
        if let Some(gone) = self.connections.remove(&id)
            && gone.is_waiting
        {
            self.waiting.retain(|other| *other != id);
        }
    }

    /// The stream of a connection can do something.
    pub(super) fn hear_host(&mut self, id: ConnectionId, ready: Readiness) {
        self.change(id, |connection| {
            connection.hear_host(ready);
            Fate::Stays
        });
        if self
            .connections
            .get(&id)
            .is_some_and(Connection::is_drained)
        {
            self.remove(id);
        }
    }

    /// Takes a packet of the guest's.
    pub(super) fn hear(&mut self, header: &Header, data: &[u8]) {
        // Nobody else can be meant, and nobody else can have sent it.
        if header.src_cid != self.cid || header.dst_cid != HOST_CID {
            return;
        }
        let op = Op::parse(header.op).filter(|_| header.kind == STREAM);
        let id = self.by_ports.get(&(header.dst_port, header.src_port));
        match (id.copied(), op) {
            (None, Some(Op::Request)) => self.accept(header),
            // No answer is due to an answer.
            (None, Some(Op::Rst)) => {}
            (None, _) => self.resets.push_back(header.reset()),
            (Some(id), op) => {
                let mut bytes = 0;
                self.change(id, |connection| {
                    connection.hear_credit(header);
                    match op {
                        Some(Op::Response) => connection.hear_response(),
                        Some(Op::Rw) => {
                            bytes = data.len() as u64;
                            connection.hear_data(data)
                        }
                        Some(Op::Shutdown) => connection.hear_shutdown(header.flags),
                        Some(Op::CreditUpdate) => Fate::Stays,
                        Some(Op::CreditRequest) => {
                            connection.hear_credit_request();
                            Fate::Stays
                        }
                        Some(Op::Rst) => Fate::Ends { reset: false },
                        Some(Op::Request) | None => Fate::Ends { reset: true },
                    }
                });
                self.counts.bytes_out += bytes;
            }
        }
    }

    fn accept(&mut self, request: &Header) {
        let id = self.new_id();
        let stream = match self.has_room() {
            true => self.host.connect(request.dst_port, id),
            false => Err(io::ErrorKind::QuotaExceeded.into()),
        };
        match stream {
            Ok(stream) => {
                self.counts.from_guest += 1;
                self.add(id, Connection::asked_by_guest(stream, request));
            }
            Err(error) => {
                tracing::debug!(port = request.dst_port, %error, "the guest is refused a connection");
                self.counts.refused += 1;
                self.resets.push_back(request.reset());
            }
        }
    }

    /// Changes a connection, and everything that follows from that.
    fn change(&mut self, id: ConnectionId, act: impl FnOnce(&mut Connection) -> Fate) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let before = connection.deadline;
        let fate = act(connection);
        let ends = match fate {
            Fate::Ends { reset } => {
                if reset {
                    let header = header_of(connection, self.cid, Op::Rst, 0, 0);
                    self.resets.push_back(header);
                }
                self.by_ports
                    .remove(&(connection.host_port, connection.guest_port));
                !connection.drain()
            }
            Fate::Stays => {
                if !std::mem::replace(&mut connection.is_waiting, true) {
                    self.waiting.push_back(id);
                }
                false
            }
        };
        let deadline = connection.deadline.filter(|_| !ends);
        self.set_deadline(id, before, deadline);
        if ends {
            self.remove(id);
        }
    }

    fn set_deadline(&mut self, id: ConnectionId, before: Option<Nanos>, now: Option<Nanos>) {
        if let Some(at) = before {
            self.deadlines.remove(&(at, id));
        }
        if let Some(at) = now {
            self.deadlines.insert((at, id));
        }
    }

    /// Ends the connections whose time is over, as far as the guest can be told.
    pub(super) fn expire(&mut self, now: Nanos) {
        while self.takes_more()
            && let Some((at, id)) = self.deadlines.first().copied()
            && at <= now
        {
            self.deadlines.pop_first();
            self.change(id, |_| Fate::Ends { reset: true });
        }
    }

    /// The next packet for the guest, its data at the start of `buffer`. Connections take turns.
    pub(super) fn next(&mut self, buffer: &mut [u8], now: Nanos) -> Option<Header> {
        if let Some(reset) = self.resets.pop_front() {
            return Some(reset);
        }
        while let Some(id) = self.waiting.pop_front() {
            let Some(connection) = self.connections.get_mut(&id) else {
                continue;
            };
            let before = connection.deadline;
            let Some(saying) = connection.say(buffer, now) else {
                connection.is_waiting = false;
                continue;
            };
            self.waiting.push_back(id);
            self.counts.bytes_in += saying.len as u64;
            let (op, flags, len) = (saying.op, saying.flags, saying.len as u32);
            let header = header_of(connection, self.cid, op, flags, len);
            let deadline = connection.deadline;
            self.set_deadline(id, before, deadline);
            return Some(header);
        }
        None
    }
}

/// The next of the host's ports.
fn following(port: u32) -> u32 {
    port.wrapping_add(1).max(FIRST_PORT)
}

fn header_of(connection: &Connection, cid: u64, op: Op, flags: u32, len: u32) -> Header {
    Header {
        src_cid: HOST_CID,
        dst_cid: cid,
        src_port: connection.host_port,
        dst_port: connection.guest_port,
        len,
        kind: STREAM,
        op: op as u16,
        flags,
        buf_alloc: connection::BUFFER,
        fwd_cnt: connection.taken(),
    }
}
