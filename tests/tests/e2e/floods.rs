//! Many clients, and clients that mean no good: the guest's tick does not miss, a viewer that was
//! there before goes on, and what they took is given back.
//!
//! `CARAWAY_SOAK=1` (`make soak`) makes each flood last a minute and prints what was measured.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use caraway_tests::client::{Ryll, spicy_screenshot};
use caraway_tests::flood::{self, Channel, Crowd, DISPLAY, INPUTS, MAIN, churn, hello, message};
use caraway_tests::pulse::{self, Ticks};
use caraway_tests::usage::Usage;
use caraway_tests::vm::{Vm, bare_config, merge};
use caraway_tests::wait::{PATIENCE, poll};
use serde_json::json;

/// What the guest may lose, once it has caught up: a tick at either end of what was looked at.
const MISSED: f64 = 2.0;
/// Between two ticks at most, on a machine that is full of other work: what the host's scheduler
/// makes of it, as the server's threads never make a guest wait.
const LONGEST_GAP: Duration = Duration::from_millis(1000);
/// How long the guest's ticks are looked at before a flood.
const CALM: Duration = Duration::from_secs(2);
/// KiB that the allocator may keep once all are gone.
const KEPT: u64 = 16 << 10;

/// How long a flood lasts.
fn time() -> Duration {
    Duration::from_secs(if is_soak() { 60 } else { 4 })
}

fn is_soak() -> bool {
    std::env::var_os("CARAWAY_SOAK").is_some()
}

/// A guest that ticks, on a screen that always changes.
fn start() -> Vm {
    let more = json!({
        "display": { "device": "qxl" },
        "spice": { "listen": ["127.0.0.1:0"], "auth": "none" },
    });
    let timeout = if is_soak() { "300s" } else { "120s" };
    let config = merge(bare_config("test=tick busy"), more);
    let vm = Vm::start_with(&config, &["--timeout", timeout]);
    vm.wait_for_serial("tick ");
    vm
}

/// Has `flood` come over a machine which ryll watches, and holds the machine to its promises.
#[track_caller]
fn survive(name: &str, flood: impl FnOnce(&Vm)) {
    let vm = start();
    let hertz = pulse::frequency(Duration::from_millis(200));
    let mut bystander = Ryll::connect(vm.spice());
    // Whatever is made when it is first needed is there now.
    Crowd::connect(vm.spice(), 2).leave();
    let before = settled(&vm, None);
    let start = pulse::steady(&vm, CALM, hertz);

    flood(&vm);

    let after = settled(&vm, Some(before));
    let ticks = Ticks::since(&vm, start, hertz);
    println!("{name}: {ticks}; {before:?} before, {after:?} after");
    // Those that came due while the host had no time for the guest are made up for.
    let caught_up = poll(PATIENCE, || {
        (Ticks::since(&vm, start, hertz).missed() < MISSED).then_some(())
    });
    assert!(caught_up.is_some(), "{ticks}");
    assert!(ticks.longest < LONGEST_GAP, "{ticks}");
    assert!(
        bystander.is_connected(),
        "the bystander's session has ended"
    );
    let _ = spicy_screenshot(vm.spice());
}

/// What the program holds once that does not change any more, or is what it was before.
#[track_caller]
fn settled(vm: &Vm, before: Option<Usage>) -> Usage {
    let look = || {
        thread::sleep(Duration::from_millis(200));
        Usage::of(vm.pid())
    };
    let Some(before) = before else {
        let mut last = look();
        return poll(PATIENCE, || {
            let now = look();
            let same = (now.files, now.threads) == (last.files, last.threads);
            last = now;
            same.then_some(now)
        })
        .expect("the machine comes to rest");
    };
    let mut last = before;
    let back = poll(PATIENCE, || {
        last = look();
        let same = (last.files, last.threads) == (before.files, before.threads);
        (same && last.resident <= before.resident + KEPT).then_some(last)
    });
    back.unwrap_or_else(|| panic!("{before:?} before, {last:?} after"))
}

#[test]
fn fifty_viewers_of_a_busy_screen() {
    survive("50 viewers", |vm| {
        let crowd = Crowd::connect(vm.spice(), 50);
        thread::sleep(time());
        let bytes = crowd.bytes();

        assert_eq!(crowd.leave(), 0, "connections were ended");
        println!("{} MB reached them", bytes / 1_000_000);
        assert!(
            bytes > 50 * 1_000_000,
            "they saw next to nothing: {bytes} bytes"
        );
    });
}

#[test]
fn two_hundred_connects_and_disconnects_a_second() {
    survive("churn", |vm| {
        let churn = churn(vm.spice(), 200, time());

        println!("{churn:?}");
        assert_eq!(churn.refused, 0, "{churn:?}");
    });
}

#[test]
fn clients_that_stop_reading() {
    survive("no reading", |vm| {
        let sessions: Vec<_> = (0..20)
            .map(|_| flood::session(vm.spice()).unwrap())
            .collect();
        thread::sleep(time());
        drop(sessions);
    });
}

#[test]
fn clients_that_send_a_byte_a_second() {
    survive("a byte a second", |vm| {
        let hello = hello(MAIN, 0);
        let mut streams: Vec<_> = (0..100)
            .map(|_| TcpStream::connect(vm.spice()).unwrap())
            .collect();
        for byte in hello.chunks(1).take(time().as_secs() as usize) {
            for stream in &mut streams {
                // The server may have lost patience.
                let _ = std::io::Write::write_all(stream, byte);
            }
            thread::sleep(Duration::from_secs(1));
        }
    });
}

#[test]
fn clients_that_lie_about_lengths() {
    survive("lies", |vm| {
        let end = std::time::Instant::now() + time();
        while std::time::Instant::now() < end {
            for size in [1, 4095, 4096, 64 << 10, 1 << 20, u32::MAX] {
                for kind in [MAIN, INPUTS, DISPLAY] {
                    let session = flood::session(vm.spice()).unwrap();
                    let mut session = session.into_iter();
                    let channel = session.find(|channel| channel.kind() == kind);
                    // A violation ends the session while this is on its way.
                    let _ = channel.unwrap().say(&message(101, size, b"short"));
                }
                let mut stream = TcpStream::connect(vm.spice()).unwrap();
                let mut hello = hello(MAIN, 0);
                hello[12..16].copy_from_slice(&size.to_le_bytes());
                let _ = std::io::Write::write_all(&mut stream, &hello);
            }
        }
    });
}

#[test]
fn clients_that_are_half_closed() {
    survive("half closed", |vm| {
        let sessions: Vec<_> = (0..20)
            .map(|_| flood::session(vm.spice()).unwrap())
            .collect();
        sessions.iter().flatten().for_each(Channel::close_half);
        let silent: Vec<_> = (0..100)
            .map(|_| TcpStream::connect(vm.spice()).unwrap())
            .collect();
        thread::sleep(time());
        drop((sessions, silent));
    });
}
