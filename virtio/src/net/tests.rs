use std::collections::VecDeque;
use std::io::ErrorKind;
use std::num::NonZeroU64;

use caraway_devices::{FakeClock, FakeTimer, Lifecycle, Rate, state_tests};
use proptest::prelude::*;
use vm_memory::VolatileSlice;

use super::*;
use crate::testing::*;
use crate::transport::VirtioPci;

/// Queues of a card with one pair.
const RX: u16 = 0;
const TX: u16 = 1;
const CONTROL: u16 = 2;

const MAC: Mac = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const SECOND: Nanos = 1_000_000_000;

/// A host's end that a test turns by hand.
#[derive(Default)]
struct Host {
    coming: VecDeque<(Header, Vec<u8>)>,
    sent: Vec<(Header, Vec<u8>)>,
    room: usize,
    fails: Option<ErrorKind>,
    guest: Offloads,
    used: bool,
    link: Vec<bool>,
    /// A part of the last frame has had no room.
    unfinished: bool,
}

impl Host {
    fn frames(&self) -> Vec<Vec<u8>> {
        self.sent.iter().map(|(_, frame)| frame.clone()).collect()
    }
}

struct End {
    host: Arc<Mutex<Host>>,
    offloads: Offloads,
}

impl Backend for End {
    fn offloads(&self) -> Offloads {
        self.offloads
    }
    fn set_offloads(&mut self, guest: Offloads) {
        self.host.lock().guest = guest;
    }
    fn set_used(&mut self, used: bool) {
        self.host.lock().used = used;
    }
    fn set_link(&mut self, up: bool) {
        self.host.lock().link.push(up);
    }
    fn flush(&mut self) -> io::Result<()> {
        let mut host = self.host.lock();
        if host.unfinished && host.room == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        host.unfinished = false;
        Ok(())
    }
    fn send(&mut self, header: Header, frame: &[VolatileSlice<'_>]) -> io::Result<()> {
        let mut host = self.host.lock();
        if let Some(kind) = host.fails {
            return Err(kind.into());
        }
        host.room = host.room.checked_sub(1).ok_or(ErrorKind::WouldBlock)?;
        host.sent.push((header, gather(frame)));
        Ok(())
    }
    fn receive(
        &mut self,
        room: &[VolatileSlice<'_>],
        spill: &mut [u8],
    ) -> io::Result<(Header, usize)> {
        let mut host = self.host.lock();
        if let Some(kind) = host.fails {
            return Err(kind.into());
        }
        let (header, frame) = host.coming.pop_front().ok_or(ErrorKind::WouldBlock)?;
        scatter(&frame, room, spill);
        Ok((header, frame.len()))
    }
}

/// A card with its host's ends, and time.
struct Bench {
    hosts: Vec<Arc<Mutex<Host>>>,
    clock: Arc<FakeClock>,
    timer: Arc<FakeTimer>,
    lost: Arc<Mutex<Vec<ErrorKind>>>,
}

fn bench_with(pairs: usize, offloads: Offloads, limits: [Limits; 2]) -> (Net, Bench) {
    let bench = Bench {
        hosts: (0..pairs).map(|_| Arc::default()).collect(),
        clock: FakeClock::new(0),
        timer: FakeTimer::new(),
        lost: Arc::default(),
    };
    let end = |host: &Arc<Mutex<Host>>| {
        host.lock().room = usize::MAX;
        let host = host.clone();
        Box::new(End { host, offloads }) as Box<dyn Backend>
    };
    let lost = bench.lost.clone();
    let [receive, transmit] = limits;
    let net = Net::new(NetConfig {
        mac: MAC,
        mtu: Some(1400),
        backends: bench.hosts.iter().map(end).collect(),
        receive,
        transmit,
        clock: bench.clock.clone(),
        timer: bench.timer.clone(),
        lost: Box::new(move |error| lost.lock().push(error.kind())),
    });
    (net, bench)
}

fn net(pairs: usize) -> Net {
    bench_with(pairs, Offloads::ALL, [Limits::default(); 2]).0
}

/// A card that a driver with these features has set up.
fn ready_for(wanted: u64) -> (Machine<Net>, Bench) {
    let (net, bench) = bench_with(1, Offloads::ALL, [Limits::default(); 2]);
    let mut machine = Machine::new(net);
    machine.probe(wanted);
    (machine, bench)
}

fn ready() -> (Machine<Net>, Bench) {
    ready_for(u64::MAX)
}

const NO_MERGING: u64 = !feature::MRG_RXBUF;

/// A frame to `target` of `length` bytes.
fn frame(target: Mac, length: usize) -> Vec<u8> {
    let rest = (6..length).map(|at| (at % 251) as u8);
    target.into_iter().chain(rest).collect()
}

fn comes(bench: &Bench, frame: Vec<u8>) {
    let frame = (Header::default(), frame);
    bench.hosts[0].lock().coming.push_back(frame);
}

/// Gives the device `count` buffers of `length` bytes each, one after the other.
fn give(machine: &mut Machine<Net>, count: u64, length: u32) {
    for _ in 0..count {
        let next = u64::from(machine.queues[0].next_avail);
        let at = BUFFERS + next * u64::from(length);
        machine.submit(RX, &[writable(at, length)]);
    }
    machine.notify(RX);
}

/// What the driver received: the number of buffers that each header tells, and the frame.
fn received(machine: &mut Machine<Net>, length: u32) -> Vec<(u16, Vec<u8>)> {
    let mut used = machine.used(RX).into_iter();
    let mut frames = Vec::new();
    while let Some((head, written)) = used.next() {
        let read = |head: u32, written: u32| {
            let mut bytes = vec![0; written as usize];
            let at = BUFFERS + u64::from(head * length);
            vm_memory::Bytes::read_slice(&machine.memory, &mut bytes, vm_memory::GuestAddress(at))
                .unwrap();
            bytes
        };
        let mut bytes = read(head, written);
        let count = u16::from_le_bytes([bytes[10], bytes[11]]);
        for _ in 1..count {
            let (head, written) = used.next().expect("the rest of a frame");
            bytes.extend(read(head, written));
        }
        frames.push((count, bytes[Header::SIZE..].to_vec()));
    }
    frames
}

/// Has the driver send a frame with this header, in pieces.
fn send(machine: &mut Machine<Net>, header: [u8; 12], frame: &[u8], pieces: usize) {
    let at = BUFFERS + 0x8_0000 + 0x800 * u64::from(machine.queues[1].next_avail % 64);
    machine.put(at, &[&header[..], frame].concat());
    let total = 12 + frame.len();
    let piece = total.div_ceil(pieces);
    let chain: Vec<_> = (0..total)
        .step_by(piece)
        .map(|start| readable(at + start as u64, piece.min(total - start) as u32))
        .collect();
    machine.submit(TX, &chain);
}

fn command(machine: &mut Machine<Net>, bytes: &[u8]) -> u8 {
    let at = BUFFERS + 0x10_0000;
    machine.put(at, bytes);
    machine.put(at + 0x1000, &[0xee]);
    let chain = [readable(at, bytes.len() as u32), writable(at + 0x1000, 1)];
    machine.submit(CONTROL, &chain);
    machine.notify(CONTROL);
    machine.used(CONTROL);
    machine.get::<1>(at + 0x1000)[0]
}

state_tests!(
    state,
    Arc::into_inner(Machine::new(net(2)).pci).unwrap(),
    |pci: &mut VirtioPci<Net>| {
        let net = pci.device();
        let mut state = net.save();
        state.mac = [2; 6];
        state.pairs = 2;
        state.offloads = Some(Offloads::NONE);
        state.filter.set_mode(0, false);
        net.restore(state).unwrap();
    }
);

#[test]
fn a_driver_reads_address_link_pairs_and_mtu() {
    let machine = Machine::ready(net(2));

    let space: Vec<u8> = (0..12).map(|at| machine.read8(reg::DEVICE + at)).collect();

    assert_eq!(space[..6], MAC);
    assert_eq!(space[6..], [1, 0, 2, 0, 0x78, 5]);
}

#[test]
fn a_host_that_can_do_nothing_offers_nothing() {
    let (net, _) = bench_with(1, Offloads::NONE, [Limits::default(); 2]);

    let offered = net.features();

    let all = features_of(Offloads::ALL, &feature::HOST) | feature::GUEST_OFFLOADS;
    assert_eq!(offered & (all | feature::CTRL_GUEST_OFFLOADS), 0);
}

#[test]
fn a_frame_goes_out_whatever_pieces_it_is_in() {
    let (mut machine, bench) = ready();
    let out = frame([0xff; 6], 100);

    for pieces in [1, 2, 5, 56] {
        send(&mut machine, [0; 12], &out, pieces);
    }
    machine.notify(TX);

    assert_eq!(bench.hosts[0].lock().frames(), vec![out; 4]);
    assert_eq!(machine.used(TX).len(), 4);
}

#[test]
fn a_driver_that_sent_rings_again_only_after_a_look_found_nothing() {
    let (mut machine, bench) = ready_for(!EVENT_IDX);
    let bell = machine.pci.queue_events()[usize::from(TX)]
        .try_clone()
        .unwrap();
    let need_not_ring = |machine: &Machine<Net>| machine.get(used_ring(TX)) == [1_u8, 0];

    send(&mut machine, [0; 12], &frame(MAC, 60), 1);
    machine.notify(TX);
    let after_a_frame = (need_not_ring(&machine), bell.read().is_ok());
    machine.submit(TX, &[readable(BUFFERS, 72)]);
    machine.pci.process_queue(TX);
    let after_another = (need_not_ring(&machine), bell.read().is_ok());
    machine.pci.process_queue(TX);
    let after_none = (need_not_ring(&machine), bell.read().is_ok());

    assert_eq!(bench.hosts[0].lock().frames().len(), 2);
    assert_eq!(after_a_frame, (true, true));
    assert_eq!(after_another, (true, true));
    assert_eq!(after_none, (false, false));
}

#[test]
fn an_indirect_frame_goes_out() {
    let (mut machine, bench) = ready();
    let (at, table) = (BUFFERS, BUFFERS + 0x1000);
    let out = frame([0xff; 6], 60);
    machine.put(at, &[&[0; 12][..], &out].concat());
    let desc = |address, len, flags, next| Desc {
        address,
        len,
        flags,
        next,
    };
    machine.write_table(table, &[desc(at, 12, NEXT, 1), desc(at + 12, 60, 0, 0)]);
    machine.write_desc(TX, 0, desc(table, 32, INDIRECT, 0));
    machine.make_available(TX, 0);

    machine.notify(TX);

    assert_eq!(bench.hosts[0].lock().frames(), [out]);
}

#[test]
fn the_work_that_a_frame_wants_is_passed_on() {
    let (mut machine, bench) = ready();
    let header = [1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0, 0, 0];

    send(&mut machine, header, &frame([2; 6], 200), 2);
    machine.notify(TX);

    let host = bench.hosts[0].lock();
    assert_eq!(host.sent[0].0, Header::from_bytes(&header));
}

#[test]
fn what_cannot_be_sent_is_counted_and_holds_up_nothing() {
    let (mut machine, bench) = ready_for(!(1 << 11));
    let good = frame([2; 6], 60);
    // Work that was not agreed on, a kind of segments that there is not, and less than a header.
    send(&mut machine, [1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &good, 1);
    send(&mut machine, [0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &good, 1);
    machine.submit(TX, &[readable(BUFFERS, 11)]);
    machine.submit(TX, &[writable(BUFFERS, 64)]);
    let too_long = (LONGEST as u32 + 13) / 2 + 1;
    machine.submit(
        TX,
        &[readable(BUFFERS, too_long), readable(BUFFERS, too_long)],
    );
    send(&mut machine, [0; 12], &good, 1);

    machine.notify(TX);

    assert_eq!(bench.hosts[0].lock().frames(), [good]);
    assert_eq!(machine.used(TX).len(), 6);
    let traffic = machine.device().counters().1.read();
    assert_eq!((traffic.packets, traffic.bytes, traffic.drops), (1, 60, 5));
}

#[test]
fn a_frame_that_the_host_refuses_is_done_with() {
    let (mut machine, bench) = ready();
    bench.hosts[0].lock().fails = Some(ErrorKind::InvalidInput);

    send(&mut machine, [0; 12], &frame([2; 6], 60), 1);
    machine.notify(TX);
    bench.hosts[0].lock().fails = None;
    send(&mut machine, [0; 12], &frame([2; 6], 61), 1);
    machine.notify(TX);

    assert_eq!(machine.used(TX).len(), 2);
    assert_eq!(bench.hosts[0].lock().sent.len(), 1);
    assert_eq!(machine.device().counters().1.read().drops, 1);
}

#[test]
fn frames_wait_for_a_host_that_has_no_room() {
    let (mut machine, bench) = ready();
    bench.hosts[0].lock().room = 1;
    for length in [60, 61, 62] {
        send(&mut machine, [0; 12], &frame([2; 6], length), 1);
    }

    machine.notify(TX);
    let before = machine.used(TX).len();
    bench.hosts[0].lock().room = 9;
    machine.device().serve_pair(0);

    assert_eq!((before, machine.used(TX).len()), (1, 2));
    let lengths: Vec<_> = bench.hosts[0]
        .lock()
        .frames()
        .iter()
        .map(Vec::len)
        .collect();
    assert_eq!(lengths, [60, 61, 62]);
    assert_eq!(machine.device().counters().1.read().drops, 0);
}

#[test]
fn a_frame_comes_in() {
    let (mut machine, bench) = ready();
    give(&mut machine, 4, 2048);
    comes(&bench, frame(MAC, 60));

    machine.device().serve_pair(0);

    assert_eq!(received(&mut machine, 2048), [(1, frame(MAC, 60))]);
}

#[test]
fn a_long_frame_takes_as_many_buffers_as_it_needs() {
    let (mut machine, bench) = ready();
    give(&mut machine, 20, 1024);
    comes(&bench, frame(MAC, 9000));
    comes(&bench, frame(MAC, 60));

    machine.device().serve_pair(0);

    let expected = [(9, frame(MAC, 9000)), (1, frame(MAC, 60))];
    assert_eq!(received(&mut machine, 1024), expected);
}

#[test]
fn frames_long_and_short_come_in_whole_whatever_came_before() {
    let (mut machine, bench) = ready();
    let lengths = [60_usize, 9000, 8000, 60].into_iter().chain([1000; 70]);
    for length in lengths.chain([7000, 1514, 60]) {
        let buffers = (length + 12).div_ceil(1024);
        give(&mut machine, buffers as u64, 1024);
        comes(&bench, frame(MAC, length));

        machine.device().serve_pair(0);

        let expected = [(buffers as u16, frame(MAC, length))];
        assert_eq!(received(&mut machine, 1024), expected);
    }
}

#[test]
fn a_frame_that_began_waits_for_the_buffers_of_its_rest() {
    let (mut machine, bench) = ready();
    give(&mut machine, 2, 1024);
    comes(&bench, frame(MAC, 4000));
    comes(&bench, frame(MAC, 70));

    machine.device().serve_pair(0);
    let before = received(&mut machine, 1024);
    give(&mut machine, 1, 1024);
    give(&mut machine, 2, 1024);

    assert_eq!(before, []);
    let expected = [(4, frame(MAC, 4000)), (1, frame(MAC, 70))];
    assert_eq!(received(&mut machine, 1024), expected);
    assert_eq!(machine.device().counters().0.read().drops, 0);
}

#[test]
fn a_frame_too_long_for_all_buffers_there_are_is_dropped() {
    let (mut machine, bench) = ready();
    give(&mut machine, 256, 16);
    comes(&bench, frame(MAC, 5000));
    comes(&bench, frame(MAC, 70));

    machine.device().serve_pair(0);

    let frames = received(&mut machine, 16);
    assert_eq!(frames, [(6, frame(MAC, 70))]);
    assert_eq!(machine.device().counters().0.read().drops, 1);
}

#[test]
fn frames_stay_with_the_host_while_the_driver_has_no_buffers() {
    let (mut machine, bench) = ready();
    comes(&bench, frame(MAC, 60));

    machine.device().serve_pair(0);
    let waiting = bench.hosts[0].lock().coming.len();
    give(&mut machine, 1, 2048);

    assert_eq!(waiting, 1);
    assert_eq!(received(&mut machine, 2048).len(), 1);
}

#[test]
fn without_merging_a_frame_has_one_chain() {
    let (mut machine, bench) = ready_for(NO_MERGING);
    for at in [0, 1] {
        let at = BUFFERS + 2048 * at;
        let chain = [
            writable(at, 12),
            writable(at + 12, 100),
            writable(at + 112, 1500),
        ];
        machine.submit(RX, &chain);
    }
    comes(&bench, frame(MAC, 1700));
    comes(&bench, frame(MAC, 900));

    machine.notify(RX);

    assert_eq!(machine.used(RX), [(0, 912)]);
    let mut bytes = [0; 912];
    bytes.copy_from_slice(&machine.get::<912>(BUFFERS));
    assert_eq!(bytes[..12], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    assert_eq!(bytes[12..], frame(MAC, 900));
    assert_eq!(machine.device().counters().0.read().drops, 1);
}

#[test]
fn a_receive_buffer_without_room_for_a_header_breaks_the_device() {
    let (mut machine, bench) = ready();
    comes(&bench, frame(MAC, 60));

    give(&mut machine, 1, 11);

    assert_eq!(machine.read8(reg::STATUS) & 0x40, 0x40);
}

#[test]
fn a_driver_that_counts_no_checksums_is_told_of_none() {
    let (mut machine, bench) = ready_for(!feature::GUEST[0]);
    give(&mut machine, 1, 2048);
    let checked = Header::from_bytes(&[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    bench.hosts[0]
        .lock()
        .coming
        .push_back((checked, frame(MAC, 60)));

    machine.device().serve_pair(0);

    machine.used(RX);
    assert_eq!(machine.get::<1>(BUFFERS), [0]);
}

#[test]
fn one_interrupt_does_for_all_buffers_of_a_frame() {
    let (mut machine, bench) = ready();
    machine.enable_msix();
    give(&mut machine, 8, 1024);
    // In the middle of what one frame takes.
    machine.set_used_event(RX, 1);
    comes(&bench, frame(MAC, 3000));

    machine.device().serve_pair(0);

    assert_eq!(machine.messages(1), 1);
}

#[test]
fn a_flood_is_served_in_turns() {
    let (mut machine, bench) = ready();
    for _ in 0..8 {
        give(&mut machine, 8, 0x4000);
    }
    for _ in 0..16 {
        comes(&bench, frame(MAC, 60_000));
    }

    machine.device().serve_pair(0);

    let served = 16 - bench.hosts[0].lock().coming.len();
    assert!((2..8).contains(&served), "{served}");
    let rung = machine.pci.queue_events()[0].read();
    assert!(rung.is_ok(), "who comes again?");
}

#[test]
fn the_filter_keeps_what_is_for_others_away() {
    let (mut machine, bench) = ready();
    assert_eq!(command(&mut machine, &[0, 0, 0]), 0);
    give(&mut machine, 4, 2048);
    for target in [[4; 6], MAC, [0xff; 6]] {
        comes(&bench, frame(target, 60));
    }

    machine.device().serve_pair(0);

    let frames: Vec<_> = received(&mut machine, 2048)
        .into_iter()
        .map(|f| f.1)
        .collect();
    assert_eq!(frames, [frame(MAC, 60), frame([0xff; 6], 60)]);
}

#[test]
fn the_driver_sets_another_address() {
    let (mut machine, _bench) = ready();

    let good = command(&mut machine, &[1, 1, 2, 4, 6, 8, 10, 12]);
    let group = command(&mut machine, &[1, 1, 3, 4, 6, 8, 10, 12]);

    assert_eq!((good, group), (0, 1));
    assert_eq!(machine.device().mac(), [2, 4, 6, 8, 10, 12]);
    machine.pci.reset();
    assert_eq!(machine.device().mac(), MAC);
}

#[test]
fn commands_that_make_no_sense_are_refused() {
    let (mut machine, _bench) = ready();
    for bytes in [
        &[0][..],
        &[0, 0],
        &[0, 0, 2],
        &[0, 6, 1],
        &[1, 0, 1],
        &[1, 1, 2],
        // One pair only: there is nothing to choose.
        &[4, 0, 1, 0],
        &[5, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        &[5, 0, 1],
        &[9, 9, 9],
    ] {
        assert_eq!(command(&mut machine, bytes), 1, "{bytes:?}");
    }
    assert_eq!(machine.read8(reg::STATUS), 0x0f);
}

#[test]
fn a_command_of_absurd_length_is_refused() {
    let (mut machine, _bench) = ready();
    let at = BUFFERS;
    let chain = [
        readable(at, 0x10_0000),
        readable(at, 0x10_0000),
        writable(at, 1),
    ];
    machine.submit(CONTROL, &chain);

    machine.notify(CONTROL);

    assert_eq!(machine.used(CONTROL), [(0, 1)]);
    assert_eq!(machine.get::<1>(at), [1]);
}

#[test]
fn the_host_learns_what_the_driver_takes() {
    let (mut machine, bench) = ready_for(!feature::GUEST[2]);
    let at_first = bench.hosts[0].lock().guest;

    let only_checksums = 1u64 << 1;
    let mut bytes = vec![5, 0];
    bytes.extend(only_checksums.to_le_bytes());
    assert_eq!(command(&mut machine, &bytes), 0);

    assert_eq!(
        at_first,
        Offloads {
            tso6: false,
            ..Offloads::ALL
        }
    );
    let checksum = true;
    assert_eq!(
        bench.hosts[0].lock().guest,
        Offloads {
            checksum,
            ..Offloads::NONE
        }
    );
    machine.pci.reset();
    assert_eq!(bench.hosts[0].lock().guest, Offloads::NONE);
}

#[test]
fn pairs_of_queues_are_used_when_the_driver_says_so() {
    let (net, bench) = bench_with(2, Offloads::ALL, [Limits::default(); 2]);
    let mut machine = Machine::ready(net);
    let used = || {
        bench
            .hosts
            .iter()
            .map(|h| h.lock().used)
            .collect::<Vec<_>>()
    };
    let at_first = used();

    let at = BUFFERS;
    machine.put(at, &[4, 0, 2, 0, 0xee]);
    machine.submit(4, &[readable(at, 4), writable(at + 4, 1)]);
    machine.notify(4);

    assert_eq!(machine.get::<1>(at + 4), [0]);
    assert_eq!((at_first, used()), (vec![true, false], vec![true, true]));
    machine.submit(2, &[writable(at, 2048)]);
    machine.notify(2);
    bench.hosts[1]
        .lock()
        .coming
        .push_back((Header::default(), frame(MAC, 80)));
    machine.device().serve_pair(1);
    assert_eq!(machine.used(2), [(0, 92)]);
}

#[test]
fn a_driver_of_one_pair_has_its_control_queue_third() {
    let (net, _bench) = bench_with(2, Offloads::ALL, [Limits::default(); 2]);
    let mut machine = Machine::new(net);
    machine.probe(!feature::MQ);

    assert_eq!(command(&mut machine, &[0, 0, 1]), 0);
}

#[test]
fn a_pulled_cable_is_told_and_carries_nothing() {
    let (mut machine, bench) = ready();
    give(&mut machine, 4, 2048);

    assert!(machine.device().set_link(false));
    assert!(!machine.device().set_link(false));
    comes(&bench, frame(MAC, 60));
    machine.device().serve_pair(0);
    send(&mut machine, [0; 12], &frame([2; 6], 60), 1);
    machine.notify(TX);

    assert_eq!(machine.read8(reg::DEVICE + 6), 0);
    assert_eq!((machine.used(RX).len(), machine.used(TX).len()), (0, 1));
    assert_eq!(bench.hosts[0].lock().sent.len(), 0);
    assert_eq!(bench.hosts[0].lock().link, [false]);
    machine.pci.reset();
    assert!(!machine.device().is_link_up(), "a reset puts no cable in");
    assert!(machine.device().set_link(true));
}

#[test]
fn frames_pass_again_once_the_cable_is_in() {
    let (mut machine, bench) = ready();
    give(&mut machine, 4, 2048);
    machine.device().set_link(false);
    comes(&bench, frame(MAC, 60));
    machine.device().serve_pair(0);
    machine.device().set_link(true);
    comes(&bench, frame(MAC, 61));

    machine.notify(RX);

    assert_eq!(received(&mut machine, 2048), [(1, frame(MAC, 61))]);
}

#[test]
fn a_host_that_is_gone_is_told_once_and_the_driver_sees_no_link() {
    let (mut machine, bench) = ready();
    give(&mut machine, 4, 2048);
    bench.hosts[0].lock().fails = Some(ErrorKind::ConnectionReset);

    machine.device().serve_pair(0);
    send(&mut machine, [0; 12], &frame([2; 6], 60), 1);
    machine.notify(TX);

    assert_eq!(*bench.lost.lock(), [ErrorKind::ConnectionReset]);
    assert_eq!(machine.read8(reg::DEVICE + 6), 0);
    assert_eq!(machine.used(TX).len(), 1);
}

#[test]
fn a_new_host_in_place_of_one_that_is_gone_brings_the_link_back() {
    let (mut machine, bench) = ready();
    give(&mut machine, 4, 2048);
    bench.hosts[0].lock().fails = Some(ErrorKind::ConnectionReset);
    machine.device().serve_pair(0);
    let fresh = Arc::<Mutex<Host>>::default();
    fresh.lock().room = usize::MAX;

    let host = fresh.clone();
    let offloads = Offloads::ALL;
    machine.device().rejoin(0, Box::new(End { host, offloads }));
    send(&mut machine, [0; 12], &frame([2; 6], 60), 1);
    machine.notify(TX);
    let coming = (Header::default(), frame(MAC, 61));
    fresh.lock().coming.push_back(coming);
    machine.device().serve_pair(0);

    assert_eq!(machine.read8(reg::DEVICE + 6), 1);
    assert_eq!(fresh.lock().frames(), [frame([2; 6], 60)]);
    assert_eq!(received(&mut machine, 2048), [(1, frame(MAC, 61))]);
    // The next end is told like the first one.
    fresh.lock().fails = Some(ErrorKind::ConnectionReset);
    machine.device().serve_pair(0);
    assert_eq!(bench.lost.lock().len(), 2);
}

#[test]
fn the_rest_of_a_frame_waits_for_room_alone() {
    let (machine, bench) = ready();
    bench.hosts[0].lock().room = 0;
    bench.hosts[0].lock().unfinished = true;

    machine.device().serve_pair(0);
    let before = bench.hosts[0].lock().unfinished;
    bench.hosts[0].lock().room = 9;
    // Without anything to send.
    machine.device().serve_pair(0);

    assert!(before && !bench.hosts[0].lock().unfinished);
}

#[test]
fn a_paused_card_moves_nothing() {
    let (mut machine, bench) = ready();
    give(&mut machine, 4, 2048);
    machine.device().pause();
    comes(&bench, frame(MAC, 60));
    machine.device().serve_pair(0);
    send(&mut machine, [0; 12], &frame([2; 6], 60), 1);
    machine.notify(TX);
    assert_eq!((machine.used(RX).len(), machine.used(TX).len()), (0, 0));

    machine.device().resume();
    machine.pci.process_queue(RX);
    machine.pci.process_queue(TX);

    assert_eq!((machine.used(RX).len(), machine.used(TX).len()), (1, 1));
}

fn rate(per_second: u64, burst: u64) -> Option<Rate> {
    Some(Rate {
        per_second: NonZeroU64::new(per_second).unwrap(),
        burst: NonZeroU64::new(burst).unwrap(),
    })
}

#[test]
fn packets_wait_for_their_limit_and_the_timer_brings_them() {
    let packets = rate(10, 3);
    let limit = Limits {
        packets,
        bytes: None,
    };
    let (net, bench) = bench_with(1, Offloads::ALL, [limit, limit]);
    let mut machine = Machine::ready(net);
    give(&mut machine, 8, 2048);
    for _ in 0..8 {
        send(&mut machine, [0; 12], &frame([2; 6], 60), 1);
        comes(&bench, frame(MAC, 60));
    }

    machine.notify(TX);
    machine.device().serve_pair(0);
    assert_eq!((machine.used(RX).len(), machine.used(TX).len()), (3, 3));
    assert_eq!(bench.timer.deadline(), Some(SECOND / 10));
    bench.clock.advance(SECOND / 5);
    machine.device().expired();

    assert_eq!((machine.used(RX).len(), machine.used(TX).len()), (2, 2));
    assert_eq!(bench.timer.deadline(), Some(SECOND * 3 / 10));
}

#[test]
fn bytes_keep_to_their_limit_in_the_long_run() {
    let limit = Limits {
        bytes: rate(10_000, 1000),
        packets: None,
    };
    let (net, bench) = bench_with(1, Offloads::ALL, [Limits::default(), limit]);
    let mut machine = Machine::ready(net);

    for _ in 0..100 {
        while machine.queues[1].next_avail - (bench.hosts[0].lock().sent.len() as u16) < 8 {
            send(&mut machine, [0; 12], &frame([2; 6], 700), 1);
        }
        machine.notify(TX);
        bench.clock.advance(SECOND / 10);
        machine.device().expired();
    }

    let bytes: usize = bench.hosts[0].lock().frames().iter().map(Vec::len).sum();
    // Ten seconds, the burst, and what one frame may be over.
    assert!((100_000..=101_700).contains(&bytes), "{bytes}");
}

#[test]
fn a_limit_that_is_lifted_lets_what_waits_pass() {
    let limit = Limits {
        packets: rate(1, 1),
        bytes: None,
    };
    let (net, _bench) = bench_with(1, Offloads::ALL, [Limits::default(), limit]);
    let mut machine = Machine::ready(net);
    for _ in 0..5 {
        send(&mut machine, [0; 12], &frame([2; 6], 60), 1);
    }
    machine.notify(TX);
    assert_eq!(machine.used(TX).len(), 1);

    machine
        .device()
        .set_limits(Limits::default(), Limits::default());
    machine.pci.process_queue(TX);

    assert_eq!(machine.used(TX).len(), 4);
}

#[test]
fn a_saved_card_goes_on_with_the_buffers_it_held() {
    let (mut machine, bench) = ready();
    give(&mut machine, 4, 2048);
    comes(&bench, frame(MAC, 60));
    machine.device().serve_pair(0);
    let saved = Lifecycle::save(&*machine.pci).unwrap();

    Lifecycle::restore(&*machine.pci, &saved).unwrap();
    comes(&bench, frame(MAC, 61));
    comes(&bench, frame(MAC, 62));
    machine.device().serve_pair(0);

    let lengths = received(&mut machine, 2048).into_iter().map(|f| f.1.len());
    assert_eq!(lengths.collect::<Vec<_>>(), [60, 61, 62]);
}

#[test]
fn a_queue_that_is_reset_alone_starts_anew() {
    let (mut machine, bench) = ready();
    give(&mut machine, 4, 2048);
    comes(&bench, frame(MAC, 60));
    machine.device().serve_pair(0);
    machine.write16(reg::QUEUE_SELECT, RX);
    machine.write16(reg::QUEUE_RESET, 1);
    comes(&bench, frame(MAC, 61));
    machine.device().serve_pair(0);

    machine.enable_queue(RX);
    give(&mut machine, 4, 2048);

    assert_eq!(received(&mut machine, 2048), [(1, frame(MAC, 61))]);
}

#[test]
fn a_state_of_more_pairs_than_there_are_is_refused() {
    let (machine, _bench) = ready();
    let mut state = machine.device().save();
    state.pairs = 2;

    assert!(machine.device().restore(state).is_err());
}

/// Something that happens to a card.
#[derive(Debug, Clone)]
enum Step {
    Give(u8, u32),
    Comes(usize),
    Send(u8, u8, usize, usize),
    Command(Vec<u8>),
    Room(usize),
    Link(bool),
    Reset,
    QueueReset(u16),
    SaveRestore,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..32u8, prop_oneof![Just(2048), 12..3000u32, 0..64u32]).prop_map(|(n, l)| Step::Give(n, l)),
        4 => prop_oneof![14..2000usize, 0..LONGEST].prop_map(Step::Comes),
        4 => (any::<u8>(), any::<u8>(), 0..1500usize, 1..9usize)
            .prop_map(|(f, g, l, p)| Step::Send(f, g, l, p)),
        1 => prop::collection::vec(0..6u8, 0..24).prop_map(Step::Command),
        1 => (0..40usize).prop_map(Step::Room),
        1 => any::<bool>().prop_map(Step::Link),
        1 => Just(Step::Reset),
        1 => (0..3u16).prop_map(Step::QueueReset),
        1 => Just(Step::SaveRestore),
    ]
}

proptest! {
    /// Whatever a driver and its network do in whatever order, each chain comes back once at most,
    /// and what is sent is what was to be sent.
    #[test]
    fn any_sequence_is_survived(steps in prop::collection::vec(step(), 1..60), merging: bool) {
        let wanted = if merging { u64::MAX } else { NO_MERGING };
        let (mut machine, bench) = ready_for(wanted);
        for step in steps {
            match step {
                Step::Give(count, length) => {
                    let free = 250 - (machine.queues[0].next_avail % 200);
                    for _ in 0..u16::from(count).min(free) {
                        machine.submit(RX, &[writable(BUFFERS, length)]);
                    }
                    machine.notify(RX);
                }
                Step::Comes(length) => {
                    comes(&bench, frame(MAC, length.max(6))[..length].to_vec());
                    machine.device().serve_pair(0);
                }
                Step::Send(flags, gso, length, pieces) => {
                    let mut header = [0; 12];
                    (header[0], header[1]) = (flags, gso & 0x87);
                    send(&mut machine, header, &frame([2; 6], length.max(6)), pieces);
                    machine.notify(TX);
                }
                Step::Command(bytes) => drop(command(&mut machine, &bytes)),
                Step::Room(room) => bench.hosts[0].lock().room = room,
                Step::Link(up) => drop(machine.device().set_link(up)),
                Step::Reset => machine.probe(wanted),
                Step::QueueReset(queue) => {
                    machine.write16(reg::QUEUE_SELECT, queue);
                    machine.write16(reg::QUEUE_RESET, 1);
                    machine.enable_queue(queue);
                }
                Step::SaveRestore => {
                    let saved = Lifecycle::save(&*machine.pci).unwrap();
                    Lifecycle::restore(&*machine.pci, &saved).unwrap();
                }
            }
            if machine.read8(reg::STATUS) & 0x40 != 0 {
                machine.probe(wanted);
            }
            let used = machine.used(RX).len() + machine.used(TX).len();
            prop_assert!(used <= 512);
        }
        // It still works.
        machine.device().set_link(true);
        machine.probe(wanted);
        bench.hosts[0].lock().room = 1;
        bench.hosts[0].lock().sent.clear();
        send(&mut machine, [0; 12], &frame([2; 6], 99), 1);
        machine.notify(TX);
        prop_assert_eq!(bench.hosts[0].lock().frames(), [frame([2; 6], 99)]);
    }
}
