use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;

use caraway_devices::{FakeClock, FakeTimer, Lifecycle, Nanos, state_tests};
use proptest::prelude::*;

use super::packet::{Op, shutdown};
use super::switch::MOST;
use super::*;
use crate::testing::*;
use crate::transport::VirtioPci;

const CID: u32 = 3;
const SECOND: Nanos = 1_000_000_000;
/// Where the driver has its packets: those that it sends, and those that it wants filled.
const SENT: u64 = BUFFERS;
const WANTED: u64 = BUFFERS + 0x2_0000;
const ROOM: u32 = 4096;

/// What a test sees of a stream, and what it does at its other end.
#[derive(Default)]
struct End {
    to_guest: VecDeque<u8>,
    is_ended: bool,
    from_guest: Vec<u8>,
    room: usize,
    broken: bool,
    accepted: Option<u32>,
    shut: Vec<Shutdown>,
    is_dropped: bool,
}

#[derive(Clone, Default)]
struct Ends(Arc<Mutex<HashMap<ConnectionId, End>>>);

struct Stream(Ends, ConnectionId);

impl Stream {
    fn with<T>(&self, act: impl FnOnce(&mut End) -> T) -> T {
        act(self.0.0.lock().get_mut(&self.1).unwrap())
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.with(|end| match end.to_guest.is_empty() {
            true if end.is_ended => Ok(0),
            true => Err(ErrorKind::WouldBlock.into()),
            false => {
                let count = buffer.len().min(end.to_guest.len());
                buffer
                    .iter_mut()
                    .zip(end.to_guest.drain(..count))
                    .for_each(|(to, from)| *to = from);
                Ok(count)
            }
        })
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.with(|end| match bytes.len().min(end.room) {
            _ if end.broken => Err(ErrorKind::BrokenPipe.into()),
            0 => Err(ErrorKind::WouldBlock.into()),
            count => {
                end.room -= count;
                end.from_guest.extend(&bytes[..count]);
                Ok(count)
            }
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl HostStream for Stream {
    fn accepted(&mut self, port: u32) -> io::Result<()> {
        self.with(|end| end.accepted = Some(port));
        Ok(())
    }

    fn shutdown(&mut self, how: Shutdown) {
        self.with(|end| end.shut.push(how));
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.with(|end| end.is_dropped = true);
    }
}

impl Ends {
    fn open(&self, id: ConnectionId) -> Box<dyn HostStream> {
        let room = usize::MAX;
        self.0.lock().insert(
            id,
            End {
                room,
                ..End::default()
            },
        );
        Box::new(Stream(self.clone(), id))
    }
}

/// Somebody listens on every port but 13.
impl Host for Ends {
    fn connect(&mut self, port: u32, id: ConnectionId) -> io::Result<Box<dyn HostStream>> {
        match port {
            13 => Err(ErrorKind::ConnectionRefused.into()),
            _ => Ok(self.open(id)),
        }
    }
}

struct Guest {
    machine: Machine<Vsock>,
    ends: Ends,
    clock: Arc<FakeClock>,
    timer: Arc<FakeTimer>,
}

impl Guest {
    /// A guest without buffers for packets.
    fn deaf() -> Self {
        let (ends, clock, timer) = (Ends::default(), FakeClock::new(0), FakeTimer::new());
        let vsock = Vsock::new(CID, ends.clone(), clock.clone(), timer.clone());
        let machine = Machine::ready(vsock);
        Self {
            machine,
            ends,
            clock,
            timer,
        }
    }

    /// A guest with buffers for 16 packets.
    fn new() -> Self {
        let mut guest = Self::deaf();
        guest.want(16);
        guest
    }

    fn want(&mut self, count: u16) {
        for _ in 0..count {
            let slot = self.machine.queues[usize::from(RX)].next_avail % 16;
            let at = WANTED + u64::from(ROOM) * u64::from(slot);
            self.machine.submit(RX, &[writable(at, ROOM)]);
        }
        self.machine.notify(RX);
    }

    fn send(&mut self, header: Header, data: &[u8]) {
        self.machine.put(SENT, &header.to_bytes());
        self.machine.put(SENT + 0x100, data);
        let segments = [
            readable(SENT, Header::SIZE as u32),
            readable(SENT + 0x100, data.len().max(1) as u32),
        ];
        self.machine.submit(TX, &segments);
        self.machine.notify(TX);
        self.machine.used(TX);
    }

    /// A packet from `port` of the guest's to port 52 of the host's.
    fn say(&mut self, port: u32, op: Op, flags: u32, data: &[u8]) {
        let header = Header {
            src_port: port,
            dst_port: 52,
            op: op as u16,
            flags,
            len: data.len() as u32,
            ..header()
        };
        self.send(header, data);
    }

    /// The packets that came since the last call; their buffers are given back.
    fn heard(&mut self) -> Vec<(Header, Vec<u8>)> {
        let used = self.machine.used(RX);
        let packets = used.iter().map(|&(head, len)| {
            let at = WANTED + u64::from(ROOM) * u64::from(head % 16);
            let bytes: [u8; ROOM as usize] = self.machine.get(at);
            let header = Header::parse(bytes.first_chunk().unwrap());
            assert_eq!(len as usize, Header::SIZE + header.len as usize);
            (header, bytes[Header::SIZE..len as usize].to_vec())
        });
        let packets: Vec<_> = packets.collect();
        self.want(used.len() as u16);
        packets
    }

    /// What kinds of packets came, with flags.
    fn ops(&mut self) -> Vec<(Op, u32)> {
        let heard = self.heard().into_iter();
        heard
            .map(|(header, _)| (Op::parse(header.op).unwrap(), header.flags))
            .collect()
    }

    /// Everything that came as data.
    fn data(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let heard = self.heard();
            if heard.is_empty() {
                return all;
            }
            all.extend(heard.into_iter().flat_map(|(_, data)| data));
        }
    }

    /// A connection of the guest's port 1000, which is the first one.
    fn connect(&mut self) -> ConnectionId {
        self.say(1000, Op::Request, 0, b"");
        assert_eq!(self.ops(), [(Op::Response, 0)]);
        ConnectionId(1)
    }

    fn end<T>(&self, id: ConnectionId, act: impl FnOnce(&mut End) -> T) -> T {
        act(self.ends.0.lock().get_mut(&id).unwrap())
    }

    /// Says that a stream has become ready for everything, and has perhaps hung up.
    fn ready(&self, id: ConnectionId, hung_up: bool) {
        let ready = Readiness {
            readable: true,
            writable: true,
            hung_up,
        };
        self.machine.device().ready([(id, ready)]);
    }

    fn wait(&self, time: Nanos) {
        self.clock.advance(time);
        self.machine.device().expired();
    }
}

fn header() -> Header {
    Header {
        src_cid: CID.into(),
        dst_cid: HOST_CID,
        src_port: 1000,
        dst_port: 52,
        kind: 1,
        buf_alloc: 1 << 20,
        ..Header::default()
    }
}

fn fresh() -> VirtioPci<Vsock> {
    let (clock, timer) = (FakeClock::new(0), FakeTimer::new());
    let vsock = Vsock::new(CID, Ends::default(), clock, timer);
    Arc::into_inner(Machine::new(vsock).pci).unwrap()
}

state_tests!(state, fresh(), |pci: &mut VirtioPci<Vsock>| {
    let lost = true;
    pci.device().restore(VsockState { lost }).unwrap();
});

#[test]
fn the_driver_finds_its_context_id() {
    let guest = Guest::new();

    assert_eq!(guest.machine.read32(reg::DEVICE), CID);
    assert_eq!(guest.machine.read32(reg::DEVICE + 4), 0);
}

#[test]
fn bytes_pass_both_ways() {
    let mut guest = Guest::new();
    let id = guest.connect();

    guest.say(1000, Op::Rw, 0, b"hello");
    guest.end(id, |end| end.to_guest.extend(b"world"));
    guest.ready(id, false);

    assert_eq!(guest.end(id, |end| end.from_guest.clone()), b"hello");
    let (header, data) = guest.heard().pop().unwrap();
    assert_eq!((header.fwd_cnt, data.as_slice()), (5, &b"world"[..]));
    let counts = guest.machine.device().counts();
    assert_eq!((counts.bytes_out, counts.bytes_in), (5, 5));
}

#[test]
fn a_port_that_nobody_serves_is_refused() {
    let mut guest = Guest::new();
    let request = Header {
        op: Op::Request as u16,
        dst_port: 13,
        ..header()
    };

    guest.send(request, b"");

    let (reset, _) = guest.heard().pop().unwrap();
    assert_eq!((reset.op, reset.src_port), (Op::Rst as u16, 13));
    assert_eq!(guest.machine.device().counts().refused, 1);
}

#[test]
fn the_host_s_connection_is_there_once_the_guest_takes_it() {
    let mut guest = Guest::new();
    let ends = guest.ends.clone();
    let mut name = None;

    let make = |id| {
        name = Some(id);
        Ok(ends.open(id))
    };
    guest.machine.device().connect(22, make).unwrap();
    let (request, _) = guest.heard().pop().unwrap();
    assert_eq!((request.op, request.dst_port), (Op::Request as u16, 22));
    let response = Header {
        src_port: 22,
        dst_port: request.src_port,
        op: Op::Response as u16,
        ..header()
    };
    guest.send(response, b"");

    let accepted = guest.end(name.unwrap(), |end| end.accepted);
    assert_eq!(accepted, Some(request.src_port));
    assert_eq!(guest.timer.deadline(), None);
}

#[test]
fn a_guest_that_never_answers_loses_the_host_s_connection() {
    let mut guest = Guest::new();
    let ends = guest.ends.clone();
    let make = |id| Ok(ends.open(id));
    guest.machine.device().connect(22, make).unwrap();
    guest.heard();

    guest.wait(2 * SECOND);

    assert_eq!(guest.ops(), [(Op::Rst, 0)]);
    assert!(guest.end(ConnectionId(1), |end| end.is_dropped));
}

#[test]
fn a_machine_without_a_driver_takes_no_connection() {
    let guest = Guest::new();
    guest.machine.write8(reg::STATUS, 0);
    let ends = guest.ends.clone();

    let refused = guest.machine.device().connect(22, |id| Ok(ends.open(id)));

    assert!(matches!(refused, Err(ConnectError::NoDriver)));
}

#[test]
fn a_slow_host_loses_nothing_and_the_guest_learns_of_its_room() {
    let mut guest = Guest::new();
    let id = guest.connect();
    guest.end(id, |end| end.room = 3);
    let data: Vec<u8> = (0..20_000).map(|n| n as u8).collect();

    guest.say(1000, Op::Rw, 0, &data);
    assert_eq!(guest.ops(), []);
    guest.end(id, |end| end.room = usize::MAX);
    guest.ready(id, false);

    assert_eq!(guest.end(id, |end| end.from_guest.clone()), data);
    let (update, _) = guest.heard().pop().unwrap();
    assert_eq!(update.op, Op::CreditUpdate as u16);
    assert_eq!((update.buf_alloc, update.fwd_cnt), (32 << 10, 20_000));
}

#[test]
fn a_guest_that_sends_more_than_there_is_room_for_is_reset() {
    let mut guest = Guest::new();
    let id = guest.connect();
    guest.end(id, |end| end.room = 0);

    guest.say(1000, Op::Rw, 0, &[7; 32 << 10]);
    assert_eq!(guest.ops(), []);
    guest.say(1000, Op::Rw, 0, &[7]);

    assert_eq!(guest.ops(), [(Op::Rst, 0)]);
    assert!(guest.end(id, |end| end.is_dropped));
}

#[test]
fn the_guest_gets_no_more_than_it_has_room_for() {
    let mut guest = Guest::new();
    let room = |room, taken| Header {
        op: Op::CreditUpdate as u16,
        buf_alloc: room,
        fwd_cnt: taken,
        ..header()
    };
    let id = guest.connect();
    guest.send(room(100, 0), b"");
    guest.end(id, |end| end.to_guest.extend([1; 250]));

    guest.ready(id, false);
    let heard = guest.heard();
    assert_eq!(heard[0].1.len(), 100);
    assert_eq!(heard[1].0.op, Op::CreditRequest as u16);
    guest.send(room(100, 100), b"");
    assert_eq!(guest.data().len(), 100);
    guest.send(room(100, 200), b"");

    assert_eq!(guest.data().len(), 50);
}

#[test]
fn a_guest_that_took_more_than_it_got_gets_nothing() {
    let mut guest = Guest::new();
    let id = guest.connect();
    let lie = Header {
        op: Op::CreditUpdate as u16,
        fwd_cnt: 1,
        ..header()
    };
    guest.send(lie, b"");
    guest.end(id, |end| end.to_guest.extend([1; 250]));

    guest.ready(id, false);

    assert_eq!(guest.data(), b"");
}

#[test]
fn the_guest_may_ask_how_much_room_there_is() {
    let mut guest = Guest::new();
    guest.connect();

    guest.say(1000, Op::CreditRequest, 0, b"");

    assert_eq!(guest.ops(), [(Op::CreditUpdate, 0)]);
}

#[test]
fn a_host_that_ends_half_still_gets_bytes() {
    let mut guest = Guest::new();
    let id = guest.connect();
    guest.end(id, |end| {
        end.to_guest.extend(b"bye");
        end.is_ended = true;
    });

    guest.ready(id, false);
    let heard = guest.heard();
    guest.say(1000, Op::Rw, 0, b"still there");

    assert_eq!(heard[0].1, b"bye");
    assert_eq!(
        (heard[1].0.op, heard[1].0.flags),
        (Op::Shutdown as u16, shutdown::SEND)
    );
    assert_eq!(guest.end(id, |end| end.from_guest.clone()), b"still there");
}

#[test]
fn a_guest_that_ends_half_still_gets_bytes() {
    let mut guest = Guest::new();
    let id = guest.connect();

    guest.say(1000, Op::Shutdown, shutdown::SEND, b"");
    assert_eq!(guest.end(id, |end| end.shut.clone()), [Shutdown::Write]);
    guest.end(id, |end| end.to_guest.extend(b"answer"));
    guest.ready(id, false);

    assert_eq!(guest.data(), b"answer");
}

#[test]
fn a_guest_that_closes_is_free_at_once_and_its_bytes_arrive() {
    let mut guest = Guest::new();
    let id = guest.connect();
    guest.end(id, |end| end.room = 0);
    guest.say(1000, Op::Rw, 0, b"last words");

    guest.say(1000, Op::Shutdown, shutdown::BOTH, b"");
    assert_eq!(guest.ops(), [(Op::Rst, 0)]);
    assert!(!guest.end(id, |end| end.is_dropped));
    guest.end(id, |end| end.room = usize::MAX);
    guest.ready(id, false);

    let (bytes, dropped) = guest.end(id, |end| (end.from_guest.clone(), end.is_dropped));
    assert_eq!((bytes.as_slice(), dropped), (&b"last words"[..], true));
    assert_eq!(guest.machine.device().counts().connections, 0);
}

#[test]
fn a_host_that_is_gone_gives_the_guest_time_to_say_goodbye() {
    let mut guest = Guest::new();
    let id = guest.connect();
    guest.end(id, |end| {
        end.is_ended = true;
        end.broken = true;
    });

    guest.ready(id, true);
    assert_eq!(guest.ops(), [(Op::Shutdown, shutdown::BOTH)]);
    guest.wait(8 * SECOND);

    assert_eq!(guest.ops(), [(Op::Rst, 0)]);
    assert!(guest.end(id, |end| end.is_dropped));
}

#[test]
fn a_host_that_takes_nothing_any_more_is_no_reason_to_wait() {
    let mut guest = Guest::new();
    let id = guest.connect();
    guest.end(id, |end| end.broken = true);

    guest.say(1000, Op::Rw, 0, &[1; 1000]);

    assert_eq!(guest.ops(), [(Op::Shutdown, shutdown::RECEIVE)]);
}

#[test]
fn a_reset_of_the_guest_s_ends_a_connection() {
    let mut guest = Guest::new();
    let id = guest.connect();

    guest.say(1000, Op::Rst, 0, b"");

    assert!(guest.end(id, |end| end.is_dropped));
    assert_eq!(guest.ops(), []);
}

#[test]
fn packets_of_no_connection_are_answered_by_resets_but_for_resets() {
    let mut guest = Guest::new();

    for op in [
        Op::Rw,
        Op::Response,
        Op::Shutdown,
        Op::CreditUpdate,
        Op::Rst,
    ] {
        guest.say(7, op, 0, b"");
    }

    assert_eq!(guest.ops(), [(Op::Rst, 0); 4]);
}

#[test]
fn packets_that_are_none_are_passed_over() {
    let mut guest = Guest::new();
    let request = Header {
        op: Op::Request as u16,
        ..header()
    };

    guest.send(
        Header {
            src_cid: 4,
            ..request
        },
        b"",
    );
    guest.send(
        Header {
            dst_cid: 1,
            ..request
        },
        b"",
    );
    guest.send(
        Header {
            len: 5000,
            ..request
        },
        b"",
    );
    guest.machine.submit(TX, &[readable(SENT, 20)]);
    guest.machine.notify(TX);

    assert_eq!(guest.ops(), []);
    assert_eq!(guest.machine.used(TX).len(), 1);
}

#[test]
fn datagrams_are_refused() {
    let mut guest = Guest::new();
    let kind = 3;
    let op = Op::Request as u16;

    guest.send(
        Header {
            kind,
            op,
            ..header()
        },
        b"",
    );

    let (reset, _) = guest.heard().pop().unwrap();
    assert_eq!((reset.op, reset.kind), (Op::Rst as u16, kind));
}

#[test]
fn connections_take_turns() {
    let mut guest = Guest::new();
    for port in [1, 2] {
        guest.say(port, Op::Request, 0, b"");
    }
    guest.heard();
    let both = [ConnectionId(1), ConnectionId(2)];
    for id in both {
        guest.end(id, |end| end.to_guest.extend([0; 40_000]));
    }

    let readable = true;
    let ready = Readiness {
        readable,
        ..Readiness::default()
    };
    guest.machine.device().ready(both.map(|id| (id, ready)));

    let ports: Vec<u32> = guest.heard().iter().map(|(h, _)| h.dst_port).collect();
    assert_eq!(ports, [1, 2].repeat(8));
}

#[test]
fn a_guest_that_takes_no_answers_waits() {
    let mut guest = Guest::deaf();

    let mut sent = 0;
    for _ in 0..400 {
        guest.machine.put(
            SENT,
            &Header {
                op: Op::Rw as u16,
                ..header()
            }
            .to_bytes(),
        );
        guest
            .machine
            .submit(TX, &[readable(SENT, Header::SIZE as u32)]);
        guest.machine.notify(TX);
        let taken = guest.machine.used(TX).len();
        sent += taken;
        if taken == 0 {
            break;
        }
    }
    assert_eq!(sent, 256);

    guest.want(16);
    guest.machine.pci.process_queue(TX);

    assert_eq!(guest.ops(), [(Op::Rst, 0); 16]);
    assert_eq!(guest.machine.used(TX).len(), 1);
}

#[test]
fn there_are_only_so_many_connections() {
    let mut guest = Guest::new();
    for port in 0..MOST as u32 {
        guest.say(port, Op::Request, 0, b"");
        assert_eq!(guest.ops(), [(Op::Response, 0)], "{port}");
    }
    assert!(!guest.machine.device().has_room());

    guest.say(100_000, Op::Request, 0, b"");
    assert_eq!(guest.ops(), [(Op::Rst, 0)]);
    guest.say(5, Op::Rst, 0, b"");
    guest.say(100_000, Op::Request, 0, b"");

    assert_eq!(guest.ops(), [(Op::Response, 0)]);
}

#[test]
fn a_guest_that_comes_and_goes_unheard_leaves_nothing_behind() {
    let mut guest = Guest::deaf();

    for _ in 0..5000 {
        guest.say(1000, Op::Request, 0, b"");
        guest.say(1000, Op::Rst, 0, b"");
    }
    guest.want(16);

    assert_eq!(guest.ops(), []);
    assert_eq!(guest.machine.device().counts().connections, 0);
}

#[test]
fn a_restored_guest_is_told_that_its_connections_are_gone() {
    let mut guest = Guest::new();
    let id = guest.connect();
    guest.machine.submit(EVENT, &[writable(WANTED, 8)]);
    guest.machine.put(WANTED, &[0xff; 8]);

    let saved = Lifecycle::save(&*guest.machine.pci).unwrap();
    Lifecycle::restore(&*guest.machine.pci, &saved).unwrap();
    guest.machine.pci.process_queue(EVENT);

    assert!(guest.end(id, |end| end.is_dropped));
    assert_eq!(guest.machine.used(EVENT), [(0, 4)]);
    assert_eq!(guest.machine.get(WANTED), [0, 0, 0, 0, 0xff, 0xff]);
}

#[test]
fn a_restored_guest_without_connections_is_told_nothing() {
    let mut guest = Guest::new();
    guest.machine.submit(EVENT, &[writable(WANTED, 8)]);

    let saved = Lifecycle::save(&*guest.machine.pci).unwrap();
    Lifecycle::restore(&*guest.machine.pci, &saved).unwrap();
    guest.machine.pci.process_queue(EVENT);

    assert_eq!(guest.machine.used(EVENT), []);
}

#[test]
fn a_reset_of_the_device_ends_all_connections() {
    let mut guest = Guest::new();
    let id = guest.connect();

    guest.machine.write8(reg::STATUS, 0);

    assert!(guest.end(id, |end| end.is_dropped));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_hostile_driver_gets_nowhere(
        steps in prop::collection::vec(
            (0u16..10, 0u32..4, any::<(u32, u32, u32)>(), 0usize..5000, 0u8..8), 0..80,
        )
    ) {
        let mut guest = Guest::new();
        for (op, port, (flags, room, taken), length, what) in steps {
            let packet = Header {
                src_port: port,
                op,
                flags,
                len: length as u32,
                buf_alloc: room,
                fwd_cnt: taken,
                ..header()
            };
            guest.send(packet, &vec![7; length]);
            for (id, end) in guest.ends.0.lock().iter_mut() {
                end.room = length * usize::from(what);
                end.broken = what == 7 && id.0 % 2 == 0;
                end.is_ended = what == 6;
                end.to_guest.extend(std::iter::repeat_n(1, length));
            }
            let ids: Vec<_> = guest.ends.0.lock().keys().copied().collect();
            for id in ids {
                guest.ready(id, what == 5);
            }
            guest.wait(SECOND / 2);
            if what < 4 {
                guest.heard();
            }
            if guest.machine.read8(reg::STATUS) & 0x40 != 0 {
                guest.machine.probe(u64::MAX);
                guest.want(16);
            }
            prop_assert!(guest.machine.device().counts().connections <= 80);
        }
    }
}
