//! The machine as the bare guest finds it, on `/dev/kvm`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use std::fs;

use caraway_tests::client::{Ryll, glib_watch, spicy_screenshot};
use caraway_tests::picture::Picture;
use caraway_tests::vm::Vm;
use caraway_tests::wait::wait_for;
use serde_json::json;

/// Runs the bare guest's tests of these names, which must all be ok; what COM1 said.
fn bare(tests: &str, more: serde_json::Value) -> String {
    let mut vm = Vm::bare(&format!("test={tests}"), more);
    let code = vm.wait();
    let serial = vm.serial();
    assert_eq!(code, 0, "{serial}{}", vm.stderr());
    for test in tests.split(',') {
        assert!(serial.contains(&format!("ok {test}\r\n")), "{serial}");
    }
    serial
}

#[test]
fn a_small_guest_has_the_memory_that_its_map_says() {
    let serial = bare("memory", json!({}));

    assert_eq!(kib(&serial) >> 10, 127);
}

#[test]
fn a_guest_of_6_gib_sees_it_all() {
    let serial = bare("memory", json!({ "memory": "6G" }));

    // All but what the first mebibyte keeps for the firmware's things.
    assert_eq!(kib(&serial) >> 10, 6 * 1024 - 1);
    assert!(serial.contains("memory 0x100000000.."), "{serial}");
}

fn kib(serial: &str) -> u64 {
    let line = serial
        .lines()
        .find_map(|line| line.strip_prefix("memory total "))
        .expect("a total");
    line.trim_end_matches(" KiB").parse().expect("a number")
}

#[test]
fn configuration_space_reads_the_same_both_ways_and_bars_can_be_moved() {
    let disk = tempfile::NamedTempFile::new().unwrap();
    disk.as_file().set_len(1 << 20).unwrap();

    let serial = bare(
        "pci",
        json!({
            "display": { "device": "qxl" },
            "spice": { "listen": ["127.0.0.1:0"] },
            "disks": [{ "path": disk.path(), "format": "raw", "address": "00:09.0" }],
        }),
    );

    for line in [
        "00:00.0 8086:29c0",
        "00:1f.0 8086:2918",
        "1b36:0100",
        "00:09.0 1af4:1042",
    ] {
        assert!(serial.contains(line), "{line} is not in\n{serial}");
    }
}

#[test]
fn addresses_that_nobody_decodes_read_as_ones_and_harm_nobody() {
    bare("unmapped,nothing", json!({}));
}

#[test]
fn a_second_processor_starts() {
    bare("smp", json!({ "cpus": 2 }));
}

#[test]
fn an_interrupt_to_oneself_arrives() {
    bare("ipi", json!({}));
}

#[test]
fn a_disk_keeps_what_is_written() {
    let disk = tempfile::NamedTempFile::new().unwrap();
    disk.as_file().set_len(1 << 20).unwrap();

    let serial = bare(
        "blk,blk-msix",
        json!({ "disks": [{ "path": disk.path(), "format": "raw" }] }),
    );

    assert!(serial.contains("blk sectors 2048\r\n"), "{serial}");
    // The guest's pattern, at the start of sectors 0 to 3.
    let content = fs::read(disk.path()).unwrap();
    assert_eq!([0, 512, 1024, 1536].map(|at| content[at]), [0, 29, 58, 91]);
}

#[test]
fn a_readonly_disk_keeps_what_it_had() {
    let disk = tempfile::NamedTempFile::new().unwrap();
    disk.as_file().set_len(1 << 20).unwrap();
    let mut vm = Vm::bare(
        "test=blk",
        json!({ "disks": [{ "path": disk.path(), "format": "raw", "readonly": true }] }),
    );

    let code = vm.wait();

    assert_eq!(code, 1, "{}", vm.serial());
    assert!(
        vm.serial().contains("not ok blk: type 1"),
        "{}",
        vm.serial()
    );
    assert!(fs::read(disk.path()).unwrap().iter().all(|&byte| byte == 0));
}

#[test]
fn a_qxl_drivers_picture_is_the_same_everywhere() {
    compare_pictures("qxl");
}

#[test]
fn a_picture_in_a_compatibility_mode_is_the_same_everywhere() {
    compare_pictures("qxl-compatible");
}

/// Has clients show what the guest draws in this test.
fn compare_pictures(test: &str) {
    let vm = Vm::bare(
        &format!("test={test} hold"),
        json!({ "display": { "device": "qxl" }, "spice": { "listen": ["127.0.0.1:0"] } }),
    );
    vm.wait_for_serial(&format!("ok {test}\r\n"));
    let server = vm.spice();

    let ours = vm.screenshot();
    let spicy = spicy_screenshot(server);
    let mut ryll = Ryll::connect(server);
    wait_for("the picture in ryll", || {
        (ryll.screenshot() == ours).then_some(())
    });

    assert_eq!((ours.width, ours.height), (640, 480));
    assert_eq!(ours.pixel(0, 0), [0x20, 0x40, 0x60]);
    assert_eq!(ours.pixel(132, 64), [100, 64, 100 ^ 32]);
    spicy.assert_same(&ours, "spicy-screenshot");
    assert_eq!(ryll.gaps(), [] as [std::path::PathBuf; 0]);
}

#[test]
fn every_qxl_command_is_given_back() {
    let serial = bare(
        "qxl",
        json!({ "display": {}, "spice": { "listen": ["127.0.0.1:0"] } }),
    );

    assert!(serial.contains("qxl released 44 of 44\r\n"), "{serial}");
}

/// A machine whose guest waits for `events` groups of events of its one virtio input device.
fn with_input(device: &str, events: u32) -> Vm {
    let vm = Vm::bare(
        &format!("test=input events={events}"),
        json!({ "inputs": [{ "device": device }] }),
    );
    vm.wait_for_serial("input ready\r\n");
    vm
}

#[test]
fn a_key_reaches_a_virtio_keyboard() {
    let mut vm = with_input("keyboard", 2);

    vm.api().put("input.keys", r#"{ "keys": ["a"] }"#);

    assert_eq!(vm.wait(), 0, "{}", vm.serial());
    // EV_KEY, KEY_A, pressed and released, with EV_SYN after each.
    let events = "event 1 30 1\r\nevent 0 0 0\r\nevent 1 30 0\r\nevent 0 0 0\r\n";
    assert!(vm.serial().contains(events), "{}", vm.serial());
}

#[test]
fn the_pointers_place_on_the_screen_reaches_a_virtio_tablet() {
    // The QXL test leaves a screen of 640 × 480; the tablet counts to 32767 on both axes.
    let mut vm = Vm::bare(
        "test=qxl,input events=1",
        json!({
            "display": {},
            "spice": { "listen": ["127.0.0.1:0"] },
            "inputs": [{ "device": "tablet" }],
        }),
    );
    vm.wait_for_serial("input ready\r\n");

    vm.api().put("input.pointer", r#"{ "x": 320, "y": 120 }"#);

    assert_eq!(vm.wait(), 0, "{}", vm.serial());
    let place = |axis: &str| -> i32 {
        let serial = vm.serial();
        let event = serial.lines().find_map(|line| line.strip_prefix(axis));
        event
            .unwrap_or_else(|| panic!("no {axis:?} in {serial}"))
            .parse()
            .unwrap()
    };
    assert!((place("event 3 0 ") - 16384).abs() < 64, "{}", vm.serial());
    assert!((place("event 3 1 ") - 8192).abs() < 64, "{}", vm.serial());
}

#[test]
fn four_heads_of_the_guest_are_four_monitors_of_a_viewer() {
    let vm = Vm::bare(
        "test=heads hold",
        json!({
            "display": { "device": "qxl", "heads": 4 },
            "spice": { "listen": ["127.0.0.1:0"], "auth": "none" },
        }),
    );
    vm.wait_for_serial("ok heads");

    let (seen, picture) = glib_watch(vm.spice(), 0);

    let head = |id: u32| json!([id, 160 * id, 0, 160, 480]);
    assert_eq!(
        seen["monitors"],
        json!([head(0), head(1), head(2), head(3)])
    );
    for id in 0..4 {
        let level = id as u8 + 1;
        let colour = [0x30 * level, 0x10 * level, 0x20 * level];
        assert_eq!(picture.pixel(160 * id, 0), colour);
        let answer = vm.api().get(&format!("display.screenshot?head={id}"));
        let shot = Picture::from_png(&answer);
        assert_eq!((shot.width, shot.height), (160, 480));
        assert_eq!(shot.pixel(0, 0), colour);
    }
}

#[test]
fn two_displays_are_two_channels_of_a_viewer() {
    let vm = Vm::bare(
        "test=displays hold",
        json!({
            "displays": [{ "device": "qxl" }, { "device": "qxl" }],
            "spice": { "listen": ["127.0.0.1:0"], "auth": "none" },
        }),
    );
    vm.wait_for_serial("ok displays");

    for (channel, size, colour) in [
        (0, (640, 480), [0x30, 0x10, 0x20]),
        (1, (320, 240), [0x60, 0x20, 0x40]),
    ] {
        let (_, picture) = glib_watch(vm.spice(), channel);
        let answer = vm.api().get(&format!("display.screenshot?head={channel}"));
        let shot = Picture::from_png(&answer);
        assert_eq!((picture.width, picture.height), size);
        assert_eq!(picture.pixel(0, 0), colour);
        picture.assert_same(&shot, "the viewer's picture");
    }
}
