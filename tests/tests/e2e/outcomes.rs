//! How a run ends: its exit code, and nothing left behind.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use std::fs;
use std::process::Command;
use std::time::Duration;

use caraway_tests::process::run;
use caraway_tests::vm::{Vm, bare_config, caraway, merge};
use caraway_tests::wait::wait_for;
use caraway_tests::{guest, vm};
use serde_json::json;

#[test]
fn the_guests_value_is_the_exit_code() {
    let mut vm = Vm::start_with(
        &json!({ "memory": "128M", "boot": { "kernel": guest::EXIT }, "debug_exit": 0x501 }),
        &[],
    );

    assert_eq!(vm.wait(), 0, "{}", vm.stderr());
}

#[test]
fn a_failed_guest_is_a_failed_run() {
    let mut vm = Vm::bare("test=no-such-test", json!({}));

    assert_eq!(vm.wait(), 1, "{}", vm.stderr());
    assert!(
        vm.serial()
            .contains("not ok no-such-test: no such test\r\n")
    );
}

#[test]
fn a_triple_fault_is_112_when_a_reset_means_exit() {
    let mut vm = Vm::bare("test=triple", json!({ "on": { "reset": "exit" } }));

    assert_eq!(vm.wait(), 112, "{}", vm.stderr());
}

#[test]
fn a_triple_fault_ends_the_guest_with_112_by_default() {
    let mut vm = Vm::bare("test=triple", json!({}));

    assert_eq!(vm.wait(), 112, "{}", vm.stderr());
    assert!(vm.stderr().contains("triple fault"), "{}", vm.stderr());
}

#[test]
fn a_guest_that_waits_runs_into_its_timeout() {
    let mut vm = Vm::start_with(&bare_config("hold"), &["--timeout", "1s"]);

    assert_eq!(vm.wait(), 124, "{}", vm.stderr());
}

#[test]
fn expected_text_on_serial_is_success_at_once() {
    let mut vm = Vm::start_with(&bare_config("hold"), &["--expect-serial", "^ok noth.ng"]);

    assert_eq!(vm.wait(), 0, "{}", vm.stderr());
}

#[test]
fn a_guest_that_ends_without_the_expected_text_is_1() {
    let mut vm = Vm::start_with(
        &bare_config("test=nothing"),
        &["--expect-serial", "never said"],
    );

    assert_eq!(vm.wait(), 1, "{}", vm.stderr());
}

#[test]
fn forbidden_text_on_serial_is_113() {
    let mut vm = Vm::start_with(&bare_config("test=bad hold"), &["--fail-serial", "not ok"]);

    assert_eq!(vm.wait(), 113, "{}", vm.stderr());
}

#[test]
fn a_terminated_run_leaves_no_socket() {
    let config = merge(
        bare_config("hold"),
        json!({ "display": {}, "spice": { "listen": ["unix:screen.spice"] } }),
    );
    let mut vm = Vm::start(&config);
    wait_for("the viewer's socket", || {
        vm.folder().join("screen.spice").exists().then_some(())
    });

    let kill = Command::new("kill")
        .arg(vm.pid().to_string())
        .status()
        .unwrap();
    let code = vm.wait();

    assert!(kill.success());
    assert_eq!(code, 143, "{}", vm.stderr());
    let mut left: Vec<_> = fs::read_dir(vm.folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["serial", "stderr", "stdout", "vm.json"]);
}

#[test]
fn events_tell_of_the_start() {
    let vm = Vm::start(&bare_config("hold"));

    let events = vm.api().events(Duration::from_millis(500)).unwrap();

    assert!(events.contains(r#""event":"vm.started""#), "{events}");
    assert!(events.contains(r#""seq":1"#), "{events}");
}

#[test]
fn the_terminal_is_as_it_was_after_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("vm.json");
    fs::write(&config, vm::bare_config("hold").to_string()).unwrap();
    let inner = format!(
        "stty -g; {} run --timeout 1s {}; echo code $?; stty -g",
        caraway().display(),
        config.display()
    );

    let output = run(
        Command::new("script").args(["-qec", &inner, "/dev/null"]),
        Duration::from_secs(30),
    );

    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let states: Vec<_> = text
        .lines()
        .filter(|line| line.matches(':').count() > 30)
        .collect();
    assert!(text.contains("code 124"), "{text}");
    assert_eq!(states.len(), 2, "{text}");
    assert_eq!(states[0], states[1]);
}
