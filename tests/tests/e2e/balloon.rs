//! The memory balloon, as the bare guest drives it, and what the host gets back.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use caraway_tests::usage::Usage;
use caraway_tests::vm::Vm;
use caraway_tests::wait::wait_for;
use serde_json::json;

/// A guest of 256 MiB that has used so many of them.
fn used(test: &str, mib: u32, balloon: serde_json::Value) -> Vm {
    let config = json!({ "memory": "256M", "balloon": balloon });
    let vm = Vm::bare(&format!("test={test} mib={mib} hold"), config);
    vm.wait_for_serial(&format!("balloon touched {mib} MiB"));
    vm
}

/// MiB that the machine holds, without the program's own.
fn resident(vm: &Vm) -> f64 {
    let usage = Usage::of(vm.pid());
    (usage.resident - usage.mapped) as f64 / 1024.0
}

fn set_target(vm: &Vm, target: &str) {
    let body = json!({ "target": target }).to_string();
    vm.api().put("balloon.set", &body);
}

#[track_caller]
fn assert_within_5_percent(found: f64, wanted: f64) {
    let error = (found - wanted).abs() / wanted;
    assert!(error <= 0.05, "{found} MiB, not {wanted}");
}

#[test]
fn the_host_gets_what_the_balloon_takes_and_the_guest_gets_it_back() {
    let vm = used("balloon changes=2", 200, json!({ "deflate_on_oom": true }));
    let before = resident(&vm);

    set_target(&vm, "96M");
    vm.wait_for_serial("balloon holds 160 MiB");
    let small = resident(&vm);
    let info = vm.api().json("balloon.info");
    set_target(&vm, "256M");
    vm.wait_for_serial("ok balloon\r\n");

    println!(
        "resident: {before:.0} MiB, then {small:.0}, then {:.0}",
        resident(&vm)
    );
    assert_within_5_percent(before - small, 160.0);
    assert_within_5_percent(resident(&vm), before);
    assert_eq!(info["active"], true);
    assert_eq!(info["actual"], 96 << 20);
    assert_eq!(info["returned_by_balloon"], 160 << 20);
}

#[test]
fn the_host_gets_what_the_guest_does_not_use() {
    let report = json!({ "free_page_reporting": true });
    let vm = used("balloon-report", 200, report);

    vm.wait_for_serial("ok balloon-report\r\n");

    let info = vm.api().json("balloon.info");
    assert_eq!(info["returned_unused"], 200 << 20);
    // All but what the program itself needs, which is far below what the guest had used.
    let left = resident(&vm);
    println!("resident: {left:.0} MiB");
    assert!(left < 100.0, "{left} MiB are left");
}

#[test]
fn the_guest_is_asked_for_its_statistics_again_and_again() {
    let vm = used("balloon", 16, json!({ "stats_interval": "50ms" }));

    // It counts how often it was asked, and calls that its free memory.
    wait_for("statistics", || {
        let info = vm.api().json("balloon.info");
        (info["stats"]["free"].as_u64()? >= 3).then_some(())
    });

    let metrics = String::from_utf8(vm.api().get("metrics")).unwrap();
    assert!(
        metrics.contains("caraway_guest_memory_bytes{kind=\"free\"}"),
        "{metrics}"
    );
}

#[test]
fn a_target_that_can_not_be_is_refused() {
    let vm = used("balloon", 16, json!({}));

    let refused = |target: &str| {
        let body = json!({ "target": target }).to_string();
        let answer = vm.api().ask("PUT", "balloon.set", &body).unwrap();
        let error: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        (answer.status, error["path"].clone())
    };

    assert_eq!(refused("257M"), (400, json!("target")));
    assert_eq!(refused("1M"), (400, json!("target")));
}
