//! A guest that means harm: what it does to its display, nobody else notices.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use std::time::{Duration, Instant};

use caraway_tests::client::Ryll;
use caraway_tests::process::resident_kib;
use caraway_tests::vm::{Vm, bare_config, merge};
use caraway_tests::wait::wait_for;
use serde_json::json;

/// The guest's RAM, the device's BARs, as much again for surfaces off screen, and the program itself
/// with what it holds for a viewer.
const MOST_KIB: u64 = (128 + 128 + 128 + 64) << 10;
/// An answer of the API on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(5);
/// How long the guest goes on: more when it is not a test among others.
const SECONDS: &str = "CARAWAY_HOSTILE_SECONDS";

#[test]
fn commands_that_change_while_they_are_read_harm_nobody() {
    let seconds: u64 = std::env::var(SECONDS).map_or(5, |text| text.parse().unwrap());
    let config = json!({
        "cpus": 2,
        "display": { "device": "qxl" },
        "spice": { "listen": ["127.0.0.1:0"], "auth": "none" },
    });
    let timeout = format!("{}s", seconds + 60);
    let config = merge(
        // What is asked of the machine and the viewer is asked before its end.
        bare_config(&format!("test=hostile seconds={}", seconds + 4)),
        config,
    );

    let mut vm = Vm::start_with(&config, &["--timeout", &timeout]);
    wait_for("the API", || vm.api().ask("GET", "vm.info", "").ok());
    let mut ryll = Ryll::connect(vm.spice());
    let (mut slowest, mut most, mut answers) = (Duration::ZERO, 0, 0);
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        let asked = Instant::now();
        vm.api().get("vm.info");
        answers += 1;
        slowest = slowest.max(asked.elapsed());
        most = most.max(resident_kib(vm.pid()).unwrap());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(ryll.is_connected());
    drop(ryll);
    let code = vm.wait();

    let serial = vm.serial();
    println!("{serial}\nslowest of {answers} answers {slowest:?}, {most} KiB at most");
    assert_eq!(code, 0, "{serial}{}", vm.stderr());
    assert!(serial.contains("ok hostile"), "{serial}");
    assert!(!vm.stderr().contains("panicked"), "{}", vm.stderr());
    assert!(answers > 0 && slowest < AT_ONCE, "{slowest:?} of {answers}");
    assert!((1..MOST_KIB).contains(&most), "{most} KiB");
}
