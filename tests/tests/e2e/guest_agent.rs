//! `agent.command` against the real QEMU guest agent. It runs beside the machine, and reaches its port
//! through the bare guest, which hands every byte on.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use caraway_tests::process::Process;
use caraway_tests::vm::Vm;
use caraway_tests::wait::wait_for;
use serde_json::{Value, json};

/// A machine whose guest relays between the agent's port and `relay.sock`.
fn relay() -> Vm {
    let channels = json!([
        { "name": "org.qemu.guest_agent.0", "to": "guest-agent" },
        { "name": "org.example.relay.0", "to": "unix:relay.sock" },
    ]);
    let vm = Vm::bare("test=relay", json!({ "channels": channels }));
    vm.wait_for_serial("relay ready");
    vm
}

/// Debian's `qemu-ga`, joined to the relay; it ends with this value.
struct Agent {
    _process: Process,
}

impl Agent {
    fn start(vm: &Vm) -> Self {
        let socket = vm.folder().join("qga.sock");
        let mut command = Command::new("qemu-ga");
        command
            .args(["--method", "unix-listen", "--path"])
            .arg(&socket)
            .arg("--statedir")
            .arg(vm.folder())
            .arg("--pidfile")
            .arg(vm.folder().join("qga.pid"))
            // Nothing that would change the host.
            .args([
                "--block-rpcs",
                "guest-shutdown,guest-exec,guest-fsfreeze-freeze",
            ])
            .stdin(Stdio::null());
        let process = Process::start(&mut command);
        let agent = wait_for("the agent", || UnixStream::connect(&socket).ok());
        let path = vm.folder().join("relay.sock");
        let relay = wait_for("the relay", || UnixStream::connect(&path).ok());
        for (mut from, mut to) in [
            (agent.try_clone().unwrap(), relay.try_clone().unwrap()),
            (relay, agent),
        ] {
            // Ends with the sockets.
            std::thread::spawn(move || std::io::copy(&mut from, &mut to));
        }
        Self { _process: process }
    }
}

/// Status and body of the answer.
fn ask(vm: &Vm, body: Value) -> (u16, Value) {
    let answer = vm
        .api()
        .ask("PUT", "agent.command", &body.to_string())
        .unwrap();
    (answer.status, serde_json::from_slice(&answer.body).unwrap())
}

#[test]
fn the_real_agent_carries_commands_out() {
    let vm = relay();
    let _agent = Agent::start(&vm);

    let ping = ask(&vm, json!({ "execute": "guest-ping" }));
    let (status, time) = ask(&vm, json!({ "execute": "guest-get-time" }));
    let unknown = ask(&vm, json!({ "execute": "guest-make-tea" }));
    let (_, info) = ask(&vm, json!({ "execute": "guest-info", "timeout": "20s" }));

    assert_eq!(ping, (200, json!({ "return": {} })));
    assert_eq!(status, 200);
    assert!(time["return"].as_u64().unwrap() > 1_700_000_000_000_000_000);
    assert_eq!(
        (unknown.0, &unknown.1["code"]),
        (502, &json!("agent-refused"))
    );
    let commands = info["return"]["supported_commands"].as_array().unwrap();
    assert!(commands.len() > 20, "{info}");
}

#[test]
fn an_answer_that_comes_too_late_is_nobody_s() {
    let vm = relay();
    let path = vm.folder().join("relay.sock");
    let mut late = wait_for("the relay", || UnixStream::connect(&path).ok());
    let command = json!({ "execute": "guest-ping", "timeout": "300ms" });

    let (status, error) = ask(&vm, command.clone());
    assert_eq!((status, &error["code"]), (504, &json!("timeout")));
    // What the first command was answered, by an agent that takes its time; then the real one comes.
    late.write_all(b"{\"return\": {\"late\": true}}\n").unwrap();
    let mut heard = [0; 16];
    assert!(late.read(&mut heard).unwrap() > 0);
    assert_eq!(heard[0], 0xff);
    drop(late);
    let _agent = Agent::start(&vm);

    let answer = wait_for("an answer", || {
        let (status, answer) = ask(&vm, command.clone());
        (status == 200).then_some(answer)
    });
    assert_eq!(answer, json!({ "return": {} }));
}

#[test]
fn a_guest_without_an_agent_is_an_error_at_once() {
    let channels = json!([{ "name": "org.qemu.guest_agent.0", "to": "guest-agent" }]);
    let vm = Vm::bare("test=nothing hold", json!({ "channels": channels }));
    vm.wait_for_serial("ok nothing");

    let (status, error) = ask(&vm, json!({ "execute": "guest-ping" }));

    assert_eq!((status, &error["code"]), (409, &json!("no-agent")));
}
