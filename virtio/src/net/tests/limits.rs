//! Limits of bytes and packets.

use super::*;

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
