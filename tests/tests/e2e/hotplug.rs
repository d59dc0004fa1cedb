//! Disks and network cards that come and go while the machine runs.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use std::fs;
use std::time::Duration;

use caraway_tests::api::Answer;
use caraway_tests::netns::{GUEST, Netns};
use caraway_tests::vm::{Vm, bare_config, caraway, merge};
use caraway_tests::wait::{PATIENCE, wait_for};
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

/// Waits for the event of the device "more" for the time number `round`.
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

const ECHO: (&str, u16) = (GUEST, 7);
/// Within this, what is not to come does not come.
const A_WHILE: Duration = Duration::from_millis(500);

/// A machine with slots in a namespace.
fn start(netns: &Netns, cmdline: &str, slots: u8) -> Vm {
    let config = merge(
        bare_config(cmdline),
        json!({ "hotplug": { "slots": slots } }),
    );
    let vm = Vm::start_by(netns.command(caraway()), &config, &[]);
    wait_for("the API", || vm.api().ask("GET", "vm.info", "").ok());
    vm
}

fn card_metrics(vm: &Vm) -> usize {
    let metrics = String::from_utf8(vm.api().get("metrics")).unwrap();
    metrics.matches("{net=\"more\",").count()
}

/// Adds the card `net` with the id "more", has it echo a datagram, also after a pause, and removes it.
fn use_card(vm: &Vm, netns: &Netns, net: &Value, to: (&str, u16), round: usize) {
    wait_for_serial(vm, "slot waits", round);
    let body = merge(net.clone(), json!({ "id": "more" })).to_string();
    vm.api().put("net.add", &body);
    wait_for_event(vm, "device.accepted", round);
    wait_for_serial(vm, "net ready", round);
    let echoed = netns.echo(to, PATIENCE, &[100, 1400]);
    vm.api().put("vm.pause", "");
    let paused = netns.echo(to, A_WHILE, &[20]);
    vm.api().put("vm.resume", "");
    let again = netns.echo(to, PATIENCE, &[300]);
    let metrics = card_metrics(vm);
    netns.echo(to, A_WHILE, &[0]);
    wait_for_serial(vm, "slot runs", round);
    vm.api().put("net.remove", r#"{ "id": "more" }"#);
    wait_for_event(vm, "device.removed", round);

    assert_eq!(echoed, [Some(100), Some(1400)], "{}", vm.stderr());
    assert_eq!((paused, again), (vec![None], vec![Some(300)]));
    assert_eq!((metrics, card_metrics(vm)), (6, 0));
}

#[test]
fn a_card_on_a_tap_comes_to_a_running_guest_and_goes_when_it_lets_it() {
    let netns = Netns::with_tap("");
    let vm = start(&netns, "test=hotplug-net,hotplug-net hold", 1);
    let net = json!({ "tap": "tap0" });

    for round in 1..=2 {
        use_card(&vm, &netns, &net, ECHO, round);
        // The tap is nobody's again.
        let carrier = netns.shell("ip link show tap0");
        assert!(carrier.contains("NO-CARRIER"), "{carrier}");
    }

    wait_for_serial(&vm, "ok hotplug-net\r\n", 2);
    assert_eq!(vm.api().json("net.info"), json!({ "nets": [] }));
}

#[test]
fn a_card_that_needs_no_rights_comes_and_takes_its_passt_along() {
    let netns = Netns::new(&format!(
        "ip link add up0 type veth peer name up1; ip addr add {GUEST}/24 dev up0; \
         ip link set up1 up; ip link set up0 up; ip route add default via 10.9.0.254"
    ));
    let vm = start(&netns, "test=hotplug-net,hotplug-net hold", 1);
    let forward = json!({ "protocol": "udp", "host": "127.0.0.1:7007", "guest": 7 });
    let net = json!({ "user": { "forwards": [forward], "host_access": true } });

    for round in 1..=2 {
        use_card(&vm, &netns, &net, ("127.0.0.1", 7007), round);
        wait_for("the end of passt", || {
            let listeners = netns.shell("ss -Hlun sport = :7007");
            listeners.is_empty().then_some(())
        });
    }
}

#[test]
fn an_open_tap_that_was_left_for_later_is_taken_once() {
    let netns = Netns::with_tap("");
    let config = merge(
        bare_config("test=hotplug-net,hotplug-net hold"),
        json!({ "hotplug": { "slots": 1 } }),
    );
    let vm = Vm::start_by(netns.command_with_tap(caraway()), &config, &[]);
    let net = json!({ "tap": { "fd": 9 } });

    use_card(&vm, &netns, &net, ECHO, 1);
    let again = vm.api().ask("PUT", "net.add", &net.to_string()).unwrap();

    assert_eq!(again.status, 409, "{}", said(&again));
    assert!(said(&again).contains("descriptor 9"), "{}", said(&again));
}

#[test]
fn cards_that_make_no_sense_are_refused_and_change_nothing() {
    // Another user's, and root without its rights.
    let netns = Netns::new(
        "ip tuntap add tap0 mode tap multi_queue user 0; ip tuntap add tap1 mode tap user 0; \
         ip tuntap add tap2 mode tap user 1234",
    );
    let own = json!({ "nets": [{ "id": "lan", "tap": "tap0" }], "hotplug": { "slots": 1 } });
    let config = merge(bare_config("test=nothing hold"), own);
    let mut command = netns.command("setpriv");
    command.args(["--bounding-set=-all", "--inh-caps=-all"]);
    command.arg(caraway());
    let vm = Vm::start_by(command, &config, &[]);
    wait_for("the API", || vm.api().ask("GET", "vm.info", "").ok());
    let before = vm.api().json("vm.info")["devices"].clone();

    for (body, status, words) in [
        (json!({}), 400, &["joined to nothing"][..]),
        (
            json!({ "tap": "tap0" }),
            400,
            &["tap tap0 is already that of lan", "\"path\":\"tap\""],
        ),
        (json!({ "tap": "tap1", "id": "lan" }), 400, &["id", "lan"]),
        (
            json!({ "tap": "tap1", "address": "00:05.0" }),
            400,
            &["address"],
        ),
        (
            json!({ "tap": "tap7" }),
            409,
            &[
                "there is no network interface",
                "tap7",
                "ip tuntap add tap7",
                "\"path\":\"tap\"",
            ],
        ),
        (
            json!({ "tap": "tap2" }),
            409,
            &["no right to the tap", "tap2", "ip tuntap add tap2"],
        ),
        (json!({ "tap": { "fd": 5 } }), 409, &["descriptor 5"]),
        (
            json!({ "passt": "unix:passt.sock" }),
            409,
            &["passt.sock", "passt --socket", "\"path\":\"passt\""],
        ),
        (
            json!({ "user": {} }),
            409,
            &["passt refuses", "\"path\":\"user\""],
        ),
    ] {
        let answer = vm.api().ask("PUT", "net.add", &body.to_string()).unwrap();
        assert_eq!(answer.status, status, "{body}: {}", said(&answer));
        for word in words {
            assert!(said(&answer).contains(word), "{word}: {}", said(&answer));
        }
    }
    for (id, status) in [("lan", 409), ("nobody", 404)] {
        let body = json!({ "id": id }).to_string();
        let answer = vm.api().ask("PUT", "net.remove", &body).unwrap();
        assert_eq!(answer.status, status, "{id}: {}", said(&answer));
    }

    assert_eq!(vm.api().json("vm.info")["devices"], before);
    // Nor is the slot kept for any of them.
    vm.api().put("net.add", r#"{ "tap": "tap1" }"#);
    let full = vm.api().ask("PUT", "net.add", r#"{ "user": {} }"#).unwrap();
    assert_eq!(full.status, 409);
    assert!(
        said(&full).contains("no slot of 1 is free"),
        "{}",
        said(&full)
    );
}

#[test]
fn a_guest_that_does_not_answer_is_told_of() {
    let netns = Netns::with_tap("");
    let vm = start(&netns, "test=nothing hold", 1);

    vm.api()
        .put("net.add", r#"{ "tap": "tap0", "id": "more" }"#);
    vm.api().put("net.remove", r#"{ "id": "more" }"#);
    wait_for_event(&vm, "device.unanswered", 1);

    let log = String::from_utf8(vm.api().get("events?since=0&replay_only=true")).unwrap();
    assert!(log.contains(r#""asked":"remove""#), "{log}");
    assert_eq!(vm.api().json("net.info")["nets"][0]["id"], "more");
}
