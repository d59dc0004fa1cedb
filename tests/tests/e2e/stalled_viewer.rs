//! What a viewer that stops reading costs the guest and the other viewers.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use std::process::Command;
use std::time::{Duration, Instant};

use caraway_tests::client::Ryll;
use caraway_tests::latency::{KeyToDraw, PYTHON};
use caraway_tests::process::resident_kib;
use caraway_tests::vm::{Vm, busy_config};

/// What noise of the machine that tests may add to a key's time.
const ALLOWED: Duration = Duration::from_millis(100);

/// What one viewer sees of a busy guest, and what the guest gets done meanwhile.
struct Watched {
    seen: KeyToDraw,
    /// Stripes of noise a second.
    drawn: f64,
}

fn watch(vm: &Vm) -> Watched {
    let drawn = || {
        let serial = vm.serial();
        let mut counts = serial.lines().filter_map(|line| line.strip_prefix("drew "));
        let last = counts.next_back().and_then(|count| count.parse().ok());
        last.unwrap_or(0.0)
    };
    let (start, before): (_, f64) = (Instant::now(), drawn());
    let seen = KeyToDraw::measure(Command::new(PYTHON), vm.spice(), 12);
    let drawn = (drawn() - before) / start.elapsed().as_secs_f64();
    Watched { seen, drawn }
}

/// 20 s: two viewers in turn, each of which settles first.
#[test]
fn a_viewer_that_stops_reading_costs_neither_the_guest_nor_another_viewer_anything() {
    /// Far more than its socket and its damage take, far less than what is drawn meanwhile.
    const MOST_KIB: u64 = 16 << 10;
    let vm = Vm::start(&busy_config("fps=10", "127.0.0.1:0"));
    vm.wait_for_serial("drew ");
    let alone = watch(&vm);
    let before = resident_kib(vm.pid()).unwrap();
    let stalled = Ryll::connect(vm.spice());

    stalled.stop();
    let beside = watch(&vm);

    let grown = resident_kib(vm.pid()).unwrap().saturating_sub(before);
    println!(
        "alone: {}, {:.0} stripes a second\nbeside a stalled one: {}, {:.0} stripes a second, {grown} KiB more",
        alone.seen, alone.drawn, beside.seen, beside.drawn
    );
    assert!(grown < MOST_KIB, "{grown} KiB");
    assert!(beside.drawn > alone.drawn / 2.0, "the guest is held up");
    let bound = alone.seen.quantile(0.5) * 2 + ALLOWED;
    assert!(beside.seen.quantile(0.5) <= bound, "{}", beside.seen);
}
