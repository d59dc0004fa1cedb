//! Frames from the network to the driver.

use super::*;

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
