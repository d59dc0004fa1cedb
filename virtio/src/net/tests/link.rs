//! Cables that are pulled, hosts that go, and machines that pause.

use super::*;

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
