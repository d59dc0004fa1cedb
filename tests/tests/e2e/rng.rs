//! The virtio source of random numbers, as the bare guest drives it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use std::time::{Duration, Instant};

use caraway_tests::vm::Vm;
use serde_json::{Value, json};

/// The first eight of the bytes that the guest got.
fn first_bytes(config: &Value) -> String {
    let mut vm = Vm::bare("test=rng", json!({ "rng": config }));
    assert_eq!(vm.wait(), 0, "{}{}", vm.serial(), vm.stderr());
    let serial = vm.serial();
    let line = serial.lines().find_map(|line| line.strip_prefix("rng "));
    line.expect("the guest says its bytes").to_owned()
}

#[test]
fn two_runs_of_a_machine_get_different_bytes() {
    let config = json!({ "source": "/dev/urandom" });

    assert_ne!(first_bytes(&config), first_bytes(&config));
}

#[test]
fn a_limit_makes_the_guest_wait() {
    let start = Instant::now();
    let vm = Vm::bare(
        "test=rng bytes=2048 hold",
        json!({ "rng": { "limit": { "rate": "2K", "burst": "1K" } } }),
    );
    vm.wait_for_serial("ok rng\r\n");
    let elapsed = start.elapsed();

    // Half of it at once, the rest at 2 KiB a second.
    assert!(elapsed >= Duration::from_millis(500), "{elapsed:?}");
    let metrics = String::from_utf8(vm.api().get("metrics")).unwrap();
    let number = |name: &str| -> u64 {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in {metrics}"))
            .parse()
            .unwrap()
    };
    assert_eq!(number("caraway_rng_bytes_total "), 2048);
    assert!(number("caraway_rng_limited_total ") > 0);
}
