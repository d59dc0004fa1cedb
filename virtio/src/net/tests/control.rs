//! What the driver asks for on the control queue.

use super::*;

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
