//! Frames from the driver to the network.

use super::*;

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
