//! The API over a Unix socket, with a scripted control loop behind it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use std::path::PathBuf;
use std::process::{Command as Process, Output};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use caraway::api::{self, Api, Listener};
use caraway::client::{Client, ClientError};
use caraway::command::{
    ApiError, Command, DisplayInfo, ErrorCode, InputEvent, Screenshot, TextScreen, Viewer, VmInfo,
    VmState, control_channel,
};
use caraway::config::policy::OnResume;
use caraway::events::{Event, EventLog, Origin};
use caraway::exit::Exit;
use caraway::metrics::Metrics;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::oneshot;

/// What the control loop was asked.
#[derive(Default)]
struct Script {
    asked: Vec<&'static str>,
    input: Vec<InputEvent>,
    stamps: Vec<u64>,
}

/// A machine that is none.
struct Fake {
    folder: TempDir,
    events: Arc<EventLog>,
    script: Arc<Mutex<Script>>,
    end: Option<oneshot::Sender<()>>,
    net: Option<JoinHandle<()>>,
}

impl Fake {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let events = Arc::new(EventLog::default());
        let metrics = Arc::new(Metrics::default());
        metrics.counter("exits_total", "Exits.", &[]).add(3);
        let (control, mut receiver) = control_channel().unwrap();
        let script = Arc::new(Mutex::new(Script::default()));
        let (notes, log) = (Arc::clone(&script), Arc::clone(&events));
        std::thread::spawn(move || {
            loop {
                match receiver.try_next() {
                    Some(command) => answer(command, &mut notes.lock(), &log),
                    None => std::thread::sleep(Duration::from_millis(1)),
                }
            }
        });
        let listener = Listener::bind(&folder.path().join("api")).unwrap();
        let (end, ended) = oneshot::channel();
        let api = Api::new(control, Arc::clone(&events), metrics);
        let net = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
                .block_on(api::serve(listener, api, async move { drop(ended.await) }));
        });
        Self {
            folder,
            events,
            script,
            end: Some(end),
            net: Some(net),
        }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("api")
    }

    fn client(&self) -> Client {
        Client::connect(&self.socket()).unwrap()
    }

    fn bytes(&self, verb: &str) -> Vec<u8> {
        self.client()
            .ask("GET", verb, None)
            .unwrap()
            .bytes()
            .unwrap()
    }

    fn json(&self, verb: &str) -> Value {
        serde_json::from_slice(&self.bytes(verb)).unwrap()
    }

    fn put(&self, verb: &str, body: &Value) -> Result<(), ClientError> {
        self.client().ask("PUT", verb, Some(body)).map(drop)
    }

    fn refusal(&self, method: &str, verb: &str, body: Option<&Value>) -> ApiError {
        match self.client().ask(method, verb, body).err() {
            Some(ClientError::Refused(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    fn ctl(&self, arguments: &[&str]) -> Output {
        Process::new(env!("CARGO_BIN_EXE_caraway"))
            .arg("ctl")
            .arg(self.socket())
            .args(arguments)
            .output()
            .unwrap()
    }

    fn stop(&mut self) {
        drop(self.end.take());
        if let Some(net) = self.net.take() {
            net.join().unwrap();
        }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop();
    }
}

fn answer(command: Command, script: &mut Script, events: &EventLog) {
    let name = match command {
        Command::VmInfo(reply) => {
            let _ = reply.send(Ok(VmInfo {
                name: "desk".into(),
                uuid: "u".into(),
                version: "0".into(),
                pid: 1,
                state: VmState::Running,
                cpus: 2,
                memory: 1 << 30,
                generation: None,
                uptime_ms: 5,
                devices: Vec::new(),
            }));
            "info"
        }
        Command::Pause(reply) => {
            events.emit(Event::Paused);
            let _ = reply.send(Ok(()));
            "pause"
        }
        Command::Resume { clock, reply } => {
            let _ = reply.send(Ok(()));
            match clock {
                Some(OnResume::Continue) => "resume, continue",
                Some(OnResume::CatchUp) => "resume, catch up",
                None => "resume",
            }
        }
        Command::Reset(reply) => {
            events.emit(Event::Reset { by: Origin::Host });
            let _ = reply.send(Ok(()));
            "reset"
        }
        Command::PowerButton(reply) => {
            let refusal = ApiError::new(ErrorCode::WrongState, "the guest does not listen");
            let _ = reply.send(Err(refusal.hint("use vm.shutdown")));
            "power-button"
        }
        Command::Shutdown(reply) => {
            let _ = reply.send(Ok(()));
            "shutdown"
        }
        Command::DisplayInfo(reply) => {
            let _ = reply.send(Ok(DisplayInfo::default()));
            "display-info"
        }
        Command::Screenshot { head: 0, reply } => {
            let _ = reply.send(Ok(Screenshot {
                width: 1,
                height: 1,
                pixels: vec![1, 2, 3, 0],
            }));
            "screenshot"
        }
        Command::Screenshot { reply, .. } => {
            let _ = reply.send(Err(ApiError::new(ErrorCode::NotFound, "no such head")));
            "screenshot"
        }
        Command::DisplayStamp(reply) => {
            let stamp = if script.stamps.len() > 1 {
                script.stamps.remove(0)
            } else {
                99
            };
            let _ = reply.send(Ok(stamp));
            "stamp"
        }
        Command::DisplayText(reply) => {
            let _ = reply.send(Ok(TextScreen {
                columns: 80,
                rows: vec!["SeaBIOS".into(), String::new(), "Booting".into()],
            }));
            "text"
        }
        Command::Viewer { reply, .. } => {
            let _ = reply.send(Ok(Viewer {
                title: "desk".into(),
                listeners: vec!["127.0.0.1:5900".parse().unwrap()],
                tls: None,
                password: None,
            }));
            "viewer"
        }
        Command::Input { events, reply } => {
            script.input.extend(events);
            let _ = reply.send(Ok(()));
            "input"
        }
        _ => "other",
    };
    script.asked.push(name);
}

#[test]
fn info_is_json() {
    let fake = Fake::new();

    let info = fake.json("vm.info");

    assert_eq!(info["name"], "desk");
    assert_eq!(info["state"], "running");
}

#[test]
fn verbs_reach_the_control_loop() {
    let fake = Fake::new();

    for verb in ["vm.pause", "vm.resume", "vm.reset", "vm.shutdown"] {
        fake.put(verb, &Value::Null).unwrap();
    }

    assert_eq!(
        fake.script.lock().asked,
        ["pause", "resume", "reset", "shutdown"]
    );
}

#[test]
fn a_resume_may_say_what_becomes_of_the_guests_time() {
    let fake = Fake::new();

    fake.put("vm.resume?clock=continue", &Value::Null).unwrap();
    let told = fake.ctl(&["vm.resume", "--clock", "catch-up"]);
    let refusal = fake.refusal("PUT", "vm.resume?clock=backwards", None);

    assert!(told.status.success(), "{told:?}");
    let asked = ["resume, continue", "resume, catch up"];
    assert_eq!(fake.script.lock().asked, asked);
    assert_eq!(refusal.code, ErrorCode::BadRequest);
}

#[test]
fn a_refusal_carries_its_code_and_hint() {
    let error = Fake::new().refusal("PUT", "vm.power-button", None);

    assert_eq!(error.code, ErrorCode::WrongState);
    assert_eq!(error.hint.as_deref(), Some("use vm.shutdown"));
}

#[test]
fn an_unknown_verb_names_its_neighbour() {
    let error = Fake::new().refusal("GET", "vm.inf", None);

    assert_eq!(error.code, ErrorCode::NotFound);
    assert_eq!(error.hint.as_deref(), Some("did you mean /api/v1/vm.info?"));
}

#[test]
fn a_wrong_method_names_the_right_one() {
    let error = Fake::new().refusal("GET", "vm.pause", None);

    assert_eq!(error.code, ErrorCode::MethodNotAllowed);
    assert_eq!(error.hint.as_deref(), Some("use PUT"));
}

#[test]
fn a_wrong_body_is_refused_by_its_path() {
    let fake = Fake::new();
    for (verb, body, path) in [
        ("input.keys", json!({ "keys": ["a", 3] }), Some("keys[1]")),
        (
            "input.keys",
            json!({ "keys": ["a"], "hold": "long" }),
            Some("hold"),
        ),
        (
            "input.keys",
            json!({ "keys": ["a"], "hlod": "1s" }),
            Some("hlod"),
        ),
        ("input.keys", json!({ "keys": [] }), Some("keys")),
        ("input.text", json!({}), None),
        ("input.pointer", json!({}), None),
    ] {
        let error = fake.refusal("PUT", verb, Some(&body));
        assert_eq!(error.code, ErrorCode::BadRequest, "{body}");
        assert_eq!(error.path.as_deref(), path, "{body}");
    }
    assert!(fake.script.lock().input.is_empty());
}

#[test]
fn a_body_that_is_too_long_is_refused() {
    let body = json!({ "text": "x".repeat(100_000) });

    let error = Fake::new().refusal("PUT", "input.text", Some(&body));

    assert_eq!(error.code, ErrorCode::TooLarge);
}

#[test]
fn wrong_parameters_are_refused() {
    let fake = Fake::new();
    for verb in [
        "display.screenshot?head=x",
        "display.screenshot?haed=0",
        "display.wait?stable=5",
        "display.wait?timeout=1000m",
        "events?since=-1",
    ] {
        assert_eq!(
            fake.refusal("GET", verb, None).code,
            ErrorCode::BadRequest,
            "{verb}"
        );
    }
}

#[test]
fn a_screenshot_is_a_png() {
    let fake = Fake::new();

    let png = fake.bytes("display.screenshot?head=0");

    assert!(png.starts_with(b"\x89PNG"));
    assert_eq!(
        fake.refusal("GET", "display.screenshot?head=7", None).code,
        ErrorCode::NotFound
    );
}

#[test]
fn waiting_ends_when_the_picture_rests() {
    let fake = Fake::new();
    fake.script.lock().stamps = vec![1, 2, 3, 4];

    let waited = fake.json("display.wait?stable=40ms");

    assert_eq!(waited["stamp"], 99);
    assert!(waited["waited_ms"].as_u64().unwrap() >= 40);
}

#[test]
fn waiting_for_a_picture_that_never_rests_times_out() {
    let fake = Fake::new();
    fake.script.lock().stamps = (0..10_000).collect();

    let error = fake.refusal("GET", "display.wait?stable=100ms&timeout=200ms", None);

    assert_eq!(error.code, ErrorCode::Timeout);
}

#[test]
fn text_is_typed_key_by_key() {
    let fake = Fake::new();

    fake.put("input.text", &json!({ "text": "aB" })).unwrap();

    assert_eq!(fake.script.lock().input.len(), 2 + 4);
}

#[test]
fn a_connection_file_can_be_fetched() {
    let text = String::from_utf8(Fake::new().bytes("display.vv")).unwrap();

    assert!(
        text.starts_with("[virt-viewer]\ntype=spice\nhost=127.0.0.1\nport=5900\n"),
        "{text}"
    );
}

#[test]
fn metrics_are_prometheus_text() {
    let text = String::from_utf8(Fake::new().bytes("metrics")).unwrap();

    assert!(text.contains("caraway_exits_total 3\n"), "{text}");
}

#[test]
fn events_are_replayed_after_a_number() {
    let fake = Fake::new();
    fake.put("vm.pause", &Value::Null).unwrap();
    fake.put("vm.reset", &Value::Null).unwrap();

    let lines = String::from_utf8(fake.bytes("events?since=1&replay_only=true")).unwrap();

    let records: Vec<Value> = lines
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0]["seq"], 2);
    assert_eq!(records[0]["event"], "vm.reset");
    assert_eq!(records[0]["by"], "host");
}

#[test]
fn events_come_as_they_happen_until_the_machine_ends() {
    let fake = Fake::new();
    let mut client = fake.client();
    let mut stream = client.ask("GET", "events", None).unwrap();

    fake.events.emit(Event::Paused);
    let first = stream.part().unwrap().unwrap();
    fake.events.emit(Event::Shutdown {
        reason: Exit::Success.word().into(),
        code: 0,
    });
    let second = stream.part().unwrap().unwrap();

    assert!(String::from_utf8(first).unwrap().contains("vm.paused"));
    assert!(String::from_utf8(second).unwrap().contains("vm.shutdown"));
    assert_eq!(stream.part().unwrap(), None);
}

#[test]
fn the_socket_is_gone_when_the_server_is() {
    let mut fake = Fake::new();
    let socket = fake.socket();
    assert!(socket.exists());

    fake.stop();

    assert!(!socket.exists());
}

#[test]
fn ctl_prints_what_the_machine_says() {
    let fake = Fake::new();

    let info = fake.ctl(&["vm.info"]);
    let text = fake.ctl(&["display.text"]);

    let info: Value = serde_json::from_slice(&info.stdout).unwrap();
    assert_eq!(info["name"], "desk");
    assert_eq!(text.stdout, b"SeaBIOS\n\nBooting\n");
}

#[test]
fn ctl_writes_pictures() {
    let fake = Fake::new();
    let file = fake.folder.path().join("out.png");

    let output = fake.ctl(&[
        "display.screenshot",
        "--head",
        "0",
        "-o",
        file.to_str().unwrap(),
    ]);

    assert_eq!(output.status.code(), Some(0));
    assert!(std::fs::read(file).unwrap().starts_with(b"\x89PNG"));
}

#[test]
fn ctl_presses_chords_and_types() {
    let fake = Fake::new();

    let keys = fake.ctl(&["input.keys", "ctrl-alt-f2"]);
    let text = fake.ctl(&["input.text", "x"]);
    let pointer = fake.ctl(&["input.pointer", "--x", "1", "--y", "2", "--click", "left"]);

    for output in [keys, text, pointer] {
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    assert_eq!(fake.script.lock().input.len(), 6 + 2 + 3);
}

#[test]
fn ctl_ends_with_the_code_of_the_refusal() {
    let fake = Fake::new();

    let refused = fake.ctl(&["vm.power-button"]);
    let unknown = fake.ctl(&["input.keys", "hyper"]);

    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("use vm.shutdown"));
    assert_eq!(unknown.status.code(), Some(64));
}
