//! Network cards, as the bare guest drives them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use std::time::Duration;

use caraway_tests::netns::{GUEST, Netns};
use caraway_tests::process::{Process, run};
use caraway_tests::vm::{Vm, bare_config, caraway, merge};
use caraway_tests::wait::{PATIENCE, wait_for};
use serde_json::{Value, json};

const ECHO: (&str, u16) = (GUEST, 7);
/// Within this, what is not to come does not come.
const A_WHILE: Duration = Duration::from_millis(500);

/// Runs the bare guest's test inside of a namespace, until it is ready for frames.
fn start(netns: &Netns, cmdline: &str, nets: Value) -> Vm {
    let config = merge(bare_config(cmdline), json!({ "nets": nets }));
    let vm = Vm::start_by(netns.command(caraway()), &config, &[]);
    vm.wait_for_serial("net ready\r\n");
    wait_for("the API", || vm.api().ask("GET", "vm.info", "").ok());
    vm
}

/// Tells the guest to end, which it does well.
#[track_caller]
fn quit(netns: &Netns, mut vm: Vm) -> String {
    // The answer to this may be lost with the machine.
    netns.echo(ECHO, A_WHILE, &[0]);
    let code = vm.wait();
    assert_eq!(code, 0, "{}{}", vm.serial(), vm.stderr());
    vm.serial()
}

fn metric(vm: &Vm, name: &str) -> u64 {
    let text = String::from_utf8(vm.api().get("metrics")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let line = line.unwrap_or_else(|| panic!("no {name} in {text}"));
    line.trim().parse().unwrap()
}

fn info(vm: &Vm) -> Value {
    let answer: Value = serde_json::from_slice(&vm.api().get("net.info")).unwrap();
    answer["nets"][0].clone()
}

/// What was told of the link of `lan` since the start.
fn links(vm: &Vm) -> Vec<bool> {
    let events = String::from_utf8(vm.api().get("events?since=0&replay_only=true")).unwrap();
    let events = events
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let links = events.filter(|event| event["event"] == "net.link" && event["id"] == "lan");
    links.map(|event| event["up"].as_bool().unwrap()).collect()
}

#[test]
fn frames_pass_a_tap_both_ways_whatever_their_length() {
    let netns = Netns::with_tap("");
    let nets = json!([{ "id": "lan", "tap": "tap0", "mac": "52:54:00:12:34:56" }]);
    let vm = start(&netns, "test=net", nets);

    let came = netns.echo(ECHO, PATIENCE, &[1, 200, 230, 1400, 1472]);

    assert_eq!(came, [1, 200, 230, 1400, 1472].map(Some));
    let neighbour = netns.shell("ip neigh show dev tap0");
    assert!(neighbour.contains("52:54:00:12:34:56"), "{neighbour}");
    for direction in ["receive", "transmit"] {
        let count = |name: &str| {
            let labels = format!("{{net=\"lan\",direction=\"{direction}\"}}");
            metric(&vm, &format!("caraway_net_{name}_total{labels}"))
        };
        assert!((6..100).contains(&count("packets")), "{direction}");
        assert!((3500..50_000).contains(&count("bytes")), "{direction}");
    }
    let serial = quit(&netns, vm);
    assert!(serial.contains("net answered"), "{serial}");
}

#[test]
fn a_card_without_an_address_gets_the_same_one_each_time() {
    let netns = Netns::with_tap("");
    let config = merge(
        bare_config("test=nothing hold"),
        json!({ "nets": [{ "tap": "tap0" }] }),
    );
    let start = || {
        let config = merge(
            config.clone(),
            json!({ "uuid": "6ba7b810-9dad-11d1-80b4-00c04fd430c8" }),
        );
        let vm = Vm::start_by(netns.command(caraway()), &config, &[]);
        wait_for("the API", || vm.api().ask("GET", "net.info", "").ok());
        info(&vm)["mac"].as_str().unwrap().to_owned()
    };

    let (first, second) = (start(), start());

    assert_eq!(first, second);
    let first_byte = u8::from_str_radix(&first[..2], 16).unwrap();
    assert_eq!(first_byte & 3, 2, "{first} is not locally administered");
}

#[test]
fn a_cable_can_be_pulled_and_put_in_again() {
    let netns = Netns::with_tap("");
    let vm = start(&netns, "test=net", json!([{ "id": "lan", "tap": "tap0" }]));
    assert_eq!(netns.echo(ECHO, PATIENCE, &[10]), [Some(10)]);

    vm.api().put("net.link", r#"{ "id": "lan", "up": false }"#);
    let while_out = netns.echo(ECHO, A_WHILE, &[20]);
    let carrier = netns.shell("ip link show tap0");
    vm.api().put("net.link", r#"{ "id": "lan", "up": true }"#);
    let after = netns.echo(ECHO, PATIENCE, &[30]);

    assert_eq!((while_out, after), (vec![None], vec![Some(30)]));
    assert!(carrier.contains("NO-CARRIER"), "{carrier}");
    assert_eq!(links(&vm), [false, true]);
    quit(&netns, vm);
}

#[test]
fn limits_hold_from_the_moment_they_are_set() {
    let netns = Netns::with_tap("");
    let vm = start(&netns, "test=net", json!([{ "id": "lan", "tap": "tap0" }]));
    assert_eq!(netns.echo(ECHO, PATIENCE, &[10]), [Some(10)]);

    // One frame, and then none for minutes; what waits is there when the limit goes.
    let limit = json!({ "id": "lan", "transmit": { "packets": { "rate": 1, "burst": 1 } } });
    vm.api().put("net.limit", &limit.to_string());
    let limited = netns.echo(ECHO, A_WHILE, &[20, 21, 22, 23]);
    let shown = info(&vm)["transmit"]["limits"].clone();
    vm.api()
        .put("net.limit", r#"{ "id": "lan", "transmit": {} }"#);
    let after = netns.echo(ECHO, PATIENCE, &[30]);

    let passed = limited.iter().flatten().count();
    assert!(passed <= 3, "{limited:?}");
    assert_eq!(shown, json!({ "packets": { "rate": "1", "burst": "1" } }));
    assert_eq!(after, [Some(30)]);
    quit(&netns, vm);
}

#[test]
fn a_paused_machine_neither_hears_nor_answers() {
    let netns = Netns::with_tap("");
    let vm = start(&netns, "test=net", json!([{ "tap": "tap0" }]));
    assert_eq!(netns.echo(ECHO, PATIENCE, &[10]), [Some(10)]);

    vm.api().put("vm.pause", "");
    let before = info(&vm)["receive"]["packets"].clone();
    let paused = netns.echo(ECHO, A_WHILE, &[20]);
    let after = info(&vm)["receive"]["packets"].clone();
    vm.api().put("vm.resume", "");

    assert_eq!(paused, [None]);
    assert_eq!(before, after);
    assert_eq!(netns.echo(ECHO, PATIENCE, &[30]), [Some(30)]);
    quit(&netns, vm);
}

#[test]
fn a_tap_of_several_queues_serves_a_driver_of_one() {
    let netns = Netns::with_tap("multi_queue");
    let vm = start(&netns, "test=net", json!([{ "tap": "tap0", "queues": 4 }]));

    let sizes: Vec<usize> = (1..20).collect();
    let came = netns.echo(ECHO, PATIENCE, &sizes);

    assert_eq!(came, sizes.into_iter().map(Some).collect::<Vec<_>>());
    quit(&netns, vm);
}

#[test]
fn an_open_tap_can_be_handed_over() {
    let netns = Netns::with_tap("");
    let config = merge(
        bare_config("test=net"),
        json!({ "nets": [{ "tap": { "fd": 9 } }] }),
    );

    let vm = Vm::start_by(netns.command_with_tap(caraway()), &config, &[]);
    vm.wait_for_serial("net ready\r\n");

    assert_eq!(netns.echo(ECHO, PATIENCE, &[100]), [Some(100)]);
    quit(&netns, vm);
}

#[test]
fn a_driver_of_no_good_will_harms_nobody() {
    let netns = Netns::with_tap("");
    let seconds = std::env::var("CARAWAY_HOSTILE_SECONDS").unwrap_or_else(|_| "1".to_owned());
    let patience: u64 = seconds.parse().unwrap();
    let cmdline = format!("test=net-hostile seconds={seconds}");
    let config = merge(
        bare_config(&cmdline),
        json!({ "nets": [{ "tap": "tap0" }] }),
    );
    let timeout = format!("{}s", patience + 60);

    let vm = Vm::start_by(netns.command(caraway()), &config, &["--timeout", &timeout]);
    std::thread::sleep(Duration::from_secs(patience));
    vm.wait_for_serial("net ready\r\n");

    assert_eq!(netns.echo(ECHO, PATIENCE, &[1000]), [Some(1000)]);
    assert!(!vm.stderr().contains("panicked"), "{}", vm.stderr());
    println!("{}", quit(&netns, vm));
}

/// Runs what can't work; its exit code and what it says.
fn refused(netns: &Netns, before: &str, nets: Value) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let config = merge(bare_config("hold"), json!({ "nets": nets }));
    let path = folder.path().join("vm.json");
    std::fs::write(&path, config.to_string()).unwrap();
    let mut command = netns.command("sh");
    let script = format!("{before} {} run vm.json --api api", caraway().display());
    command.args(["-c", &script]).current_dir(folder.path());
    let output = run(&mut command, Duration::from_secs(20));
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 1, "something is left behind");
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), message)
}

#[track_caller]
fn assert_says((code, message): (Option<i32>, String), words: &[&str]) {
    assert_eq!(code, Some(71), "{message}");
    for word in words {
        assert!(message.contains(word), "{word:?} is not in:\n{message}");
    }
    assert!(!message.contains("panicked"), "{message}");
}

#[test]
fn a_tap_that_is_not_there_is_not_made() {
    let netns = Netns::new("");

    let refusal = refused(&netns, "", json!([{ "tap": "tap7" }]));

    assert_says(refusal, &["nets[0].tap", "tap7", "ip tuntap add tap7"]);
    assert!(!netns.shell("ip link").contains("tap7"));
}

#[test]
fn an_interface_that_is_no_tap() {
    let refusal = refused(&Netns::new(""), "", json!([{ "tap": "lo" }]));

    assert_says(refusal, &["nets[0].tap", "\"lo\" is no tap"]);
}

#[test]
fn a_tap_without_the_right_to_it() {
    // Another user's, and root without its rights.
    let netns = Netns::with_tap("user 1234");
    let powerless = "exec setpriv --bounding-set=-all --inh-caps=-all";

    let refusal = refused(&netns, powerless, json!([{ "tap": "tap0" }]));

    assert_says(
        refusal,
        &["nets[0].tap", "no right", "tap0", "ip tuntap add"],
    );
}

#[test]
fn a_tap_that_another_machine_uses() {
    let netns = Netns::with_tap("");
    let vm = start(&netns, "test=net", json!([{ "tap": "tap0" }]));

    let refusal = refused(&netns, "", json!([{ "tap": "tap0" }]));

    assert_says(refusal, &["nets[0].tap", "tap0", "another program"]);
    quit(&netns, vm);
}

#[test]
fn several_queues_of_a_tap_that_has_one() {
    let netns = Netns::with_tap("");

    let refusal = refused(&netns, "", json!([{ "tap": "tap0", "queues": 2 }]));

    assert_says(refusal, &["nets[0].tap", "tap0", "multi_queue"]);
}

#[test]
fn a_descriptor_that_is_no_tap() {
    let netns = Netns::new("");

    let refusal = refused(&netns, "exec 9</dev/null;", json!([{ "tap": { "fd": 9 } }]));

    assert_says(refusal, &["nets[0].tap", "descriptor 9"]);
}

/// A namespace whose way out leads nowhere; a guest behind passt gets its address.
fn with_uplink() -> Netns {
    Netns::new(&format!(
        "ip link add up0 type veth peer name up1; ip addr add {GUEST}/24 dev up0; \
         ip link set up1 up; ip link set up0 up; ip route add default via 10.9.0.254"
    ))
}

/// What is sent to this port of the host comes to the guest's.
const FORWARDED: (&str, u16) = ("127.0.0.1", 7007);

fn user_net() -> Value {
    let forward = json!({ "protocol": "udp", "host": "127.0.0.1:7007", "guest": 7 });
    json!([{ "id": "lan", "user": { "forwards": [forward], "host_access": true } }])
}

#[test]
fn a_network_of_no_rights_begins_and_ends_with_the_machine() {
    let netns = with_uplink();
    for _ in 0..2 {
        // The second one finds the port free again.
        let mut vm = start(&netns, "test=net", user_net());

        let came = netns.echo(FORWARDED, PATIENCE, &[1, 200, 1400]);

        assert_eq!(came, [1, 200, 1400].map(Some), "{}", vm.stderr());
        netns.echo(FORWARDED, A_WHILE, &[0]);
        assert_eq!(vm.wait(), 0, "{}{}", vm.serial(), vm.stderr());
        wait_for("the end of passt", || {
            netns
                .shell("ss -Hlun sport = :7007")
                .is_empty()
                .then_some(())
        });
    }
}

#[test]
fn a_network_of_no_rights_that_dies_is_replaced() {
    let netns = with_uplink();
    let vm = start(&netns, "test=net", user_net());
    let before = netns.echo(FORWARDED, PATIENCE, &[300]);

    netns.shell("kill -9 $(ss -Hlunp sport = :7007 | sed 's/.*pid=//;s/,.*//')");
    wait_for("the link", || (links(&vm) == [false, true]).then_some(()));
    let after = netns.echo(FORWARDED, PATIENCE, &[400]);

    assert_eq!(
        (before, after),
        (vec![Some(300)], vec![Some(400)]),
        "{}",
        vm.stderr()
    );
    assert_eq!(info(&vm)["up"], json!(true));
    netns.echo(FORWARDED, A_WHILE, &[0]);
}

#[test]
fn a_passt_that_runs_may_end_and_another_take_its_place() {
    let netns = with_uplink();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("passt");
    let passt = || {
        let mut command = netns.command("passt");
        command.args(["--foreground", "--quiet", "--runas", "0"]);
        command.args(["--udp-ports", "127.0.0.1/7007:7", "--socket"]);
        let passt = Process::start(command.arg(&socket));
        wait_for("the socket", || socket.exists().then_some(()));
        passt
    };
    let first = passt();
    let to = format!("unix:{}", socket.display());
    let vm = start(&netns, "test=net", json!([{ "id": "lan", "passt": to }]));

    let before = netns.echo(FORWARDED, PATIENCE, &[300]);
    drop(first);
    wait_for("the end", || (links(&vm) == [false]).then_some(()));
    let meanwhile = info(&vm)["up"].clone();
    std::fs::remove_file(&socket).unwrap();
    let _second = passt();
    wait_for("the link", || (links(&vm) == [false, true]).then_some(()));
    let after = netns.echo(FORWARDED, PATIENCE, &[400]);

    assert_eq!(
        (before, after),
        (vec![Some(300)], vec![Some(400)]),
        "{}",
        vm.stderr()
    );
    assert_eq!(
        (meanwhile, info(&vm)["up"].clone()),
        (json!(false), json!(true))
    );
}

#[test]
fn a_passt_that_is_not_there() {
    let refusal = refused(&Netns::new(""), "", json!([{ "passt": "unix:passt.sock" }]));

    assert_says(refusal, &["nets[0].passt", "passt.sock", "passt --socket"]);
}

#[test]
fn a_passt_that_is_not_installed() {
    let refusal = refused(
        &Netns::new(""),
        "PATH=/nowhere exec",
        json!([{ "user": {} }]),
    );

    assert_says(
        refusal,
        &["nets[0].user", "not installed", "apt install passt"],
    );
}

#[test]
fn a_host_without_a_network_has_none_for_its_user() {
    let refusal = refused(&Netns::new(""), "", json!([{ "user": {} }]));

    assert_says(refusal, &["nets[0].user", "passt refuses", "default route"]);
}

#[test]
fn a_port_of_the_host_that_is_taken() {
    let netns = with_uplink();
    let busy = "import socket, subprocess, sys; s = socket.create_server(('127.0.0.1', 2222)); \
                sys.exit(subprocess.call(sys.argv[1:]))";
    let forward = json!({ "host": "127.0.0.1:2222", "guest": 22 });
    let nets = json!([{ "user": { "forwards": [forward] } }]);

    let refusal = refused(&netns, &format!("python3 -c \"{busy}\""), nets);

    assert_says(
        refusal,
        &[
            "nets[0].user",
            "127.0.0.1/2222:22",
            "host ports that are free",
        ],
    );
}
