//! Disks that come and go while the machine runs.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use std::fs;

use caraway_tests::api::Answer;
use caraway_tests::vm::{Vm, bare_config, merge};
use caraway_tests::wait::wait_for;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

fn disk() -> NamedTempFile {
    let disk = NamedTempFile::new().unwrap();
    disk.as_file().set_len(1 << 20).unwrap();
    disk
}

fn said(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

/// The events of devices so far, each with its id.
fn events(vm: &Vm) -> Vec<(String, String)> {
    let log = String::from_utf8(vm.api().get("events?since=0&replay_only=true")).unwrap();
    let records = log.lines().map(|line| serde_json::from_str(line).unwrap());
    let told = records.filter_map(|record: Value| {
        let event = record["event"].as_str()?.to_owned();
        let is_ours = event.starts_with("device.");
        is_ours.then(|| (event, record["id"].as_str().unwrap_or_default().to_owned()))
    });
    told.collect()
}

/// Waits for the event of the disk "more" for the time number `round`.
fn wait_for_event(vm: &Vm, event: &str, round: usize) {
    let is_it = |(name, id): &&(String, String)| (name.as_str(), id.as_str()) == (event, "more");
    wait_for(event, || {
        let times = events(vm).iter().filter(is_it).count();
        (times == round).then_some(())
    });
}

fn wait_for_serial(vm: &Vm, text: &str, round: usize) {
    wait_for(text, || {
        (vm.serial().matches(text).count() == round).then_some(())
    });
}

#[test]
fn a_disk_comes_to_a_running_guest_and_goes_when_it_lets_it() {
    let disk = disk();
    let vm = Vm::start(&merge(
        bare_config("test=hotplug,hotplug,hotplug hold"),
        json!({ "hotplug": { "slots": 1 } }),
    ));
    let body = json!({ "id": "more", "path": disk.path(), "format": "raw" }).to_string();

    for round in 1..=3 {
        wait_for_serial(&vm, "slot waits", round);
        vm.api().put("disk.add", &body);
        let second = vm.api().ask("PUT", "disk.add", &body).unwrap();
        wait_for_event(&vm, "device.accepted", round);
        wait_for_serial(&vm, "slot runs", round);
        let listed = vm.api().json("vm.info")["devices"].to_string();
        let metrics = String::from_utf8(vm.api().get("metrics")).unwrap();
        vm.api().put("disk.remove", r#"{ "id": "more" }"#);
        wait_for_event(&vm, "device.removed", round);

        assert_eq!(second.status, 409, "{}", said(&second));
        assert!(listed.contains("00:1e.0/00.0"), "{listed}");
        let series = "disk_writes_total{disk=\"more\"}";
        assert!(metrics.contains(series), "{metrics}");
    }
    wait_for_serial(&vm, "ok hotplug\r\n", 3);
    let written = fs::read(disk.path()).unwrap();
    assert!(written.iter().any(|byte| *byte != 0), "nothing was written");
}

#[test]
fn a_machine_without_slots_says_how_to_have_some() {
    let disk = disk();
    let vm = Vm::start(&bare_config("test=nothing hold"));
    wait_for("the API", || vm.api().ask("GET", "vm.info", "").ok());

    let body = json!({ "path": disk.path(), "format": "raw" }).to_string();
    let answer = vm.api().ask("PUT", "disk.add", &body).unwrap();

    assert_eq!(answer.status, 409);
    assert!(said(&answer).contains("hotplug"), "{}", said(&answer));
}

#[test]
fn disks_that_make_no_sense_are_refused_and_change_nothing() {
    let own = disk();
    let path = own.path().to_str().unwrap();
    let disks = json!({ "disks": [{ "id": "root", "path": path, "format": "raw" }] });
    let vm = Vm::start(&merge(
        merge(bare_config("test=nothing hold"), disks),
        json!({ "hotplug": {} }),
    ));
    wait_for("the API", || vm.api().ask("GET", "vm.info", "").ok());
    let before = vm.api().json("vm.info")["devices"].clone();
    let other = disk();
    let other = other.path().to_str().unwrap();

    for (body, status, about) in [
        (json!({ "path": "/nowhere.img" }), 400, "path"),
        (json!({ "path": other, "id": "root" }), 400, "root"),
        (
            json!({ "path": other, "address": "00:05.0" }),
            400,
            "address",
        ),
        (json!({ "path": other, "colour": "red" }), 400, "colour"),
        // Somebody has it already: the machine itself.
        (json!({ "path": path, "format": "raw" }), 409, "in use"),
    ] {
        let answer = vm.api().ask("PUT", "disk.add", &body.to_string()).unwrap();
        assert_eq!(answer.status, status, "{body}: {}", said(&answer));
        assert!(said(&answer).contains(about), "{body}: {}", said(&answer));
    }
    for (id, status) in [("root", 409), ("nobody", 404)] {
        let body = json!({ "id": id }).to_string();
        let answer = vm.api().ask("PUT", "disk.remove", &body).unwrap();
        assert_eq!(answer.status, status, "{id}: {}", said(&answer));
    }

    assert_eq!(vm.api().json("vm.info")["devices"], before);
}
