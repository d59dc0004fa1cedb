//! The VM generation id, as the bare guest finds it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use caraway_tests::vm::Vm;
use caraway_tests::wait::wait_for;
use serde_json::json;

/// What the guest read, in the order of its memory.
fn ids(vm: &Vm) -> Vec<String> {
    let serial = vm.serial();
    // The last line may still be on its way.
    let lines = serial.split_inclusive('\n');
    let ids = lines.filter_map(|line| line.strip_suffix("\r\n")?.strip_prefix("vmgenid "));
    ids.map(String::from).collect()
}

#[test]
fn a_guest_reads_the_id_and_is_told_of_another_one() {
    let vm = Vm::bare(
        "test=vmgenid changes=1 hold",
        json!({ "vmgenid": "00112233-4455-6677-8899-aabbccddeeff" }),
    );
    vm.wait_for_serial("vmgenid ");

    let answer = vm.api().ask("PUT", "vm.generation.renew", "").unwrap();
    vm.wait_for_serial("ok vmgenid\r\n");

    let answer: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    let renewed: String = answer["generation"].as_str().unwrap().replace('-', "");
    let seen = ids(&vm);
    // The first three fields are numbers, least significant byte first.
    assert_eq!(seen[0], "33221100554477668899aabbccddeeff");
    assert_eq!(seen[1][16..], renewed[16..]);
    assert_eq!(vm.api().json("vm.info")["generation"], answer["generation"]);
}

#[test]
fn every_start_has_another_id_and_a_reset_keeps_it() {
    let start = || {
        let vm = Vm::bare("test=vmgenid hold", json!({}));
        vm.wait_for_serial("ok vmgenid\r\n");
        vm
    };
    let (one, other) = (start(), start());

    one.api().put("vm.reset", "");
    wait_for("the id after the reset", || {
        (ids(&one).len() == 2).then_some(())
    });

    let seen = ids(&one);
    assert_eq!(seen[0], seen[1]);
    assert_ne!(seen[0], ids(&other)[0]);
}
