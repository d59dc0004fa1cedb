//! Who may look, for how long and what for, with clients that others wrote.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use caraway_tests::client::{Ryll, glib_key, try_glib_key, try_spicy_screenshot};
use caraway_tests::process::run;
use caraway_tests::vm::{Vm, caraway, colours_config, merge};
use caraway_tests::wait::wait_for;
use serde_json::{Value, json};

const ENTER: u8 = 0x1c;

/// The colours guest, with this more in its config's `spice`.
fn colours(more: Value) -> Vm {
    let spice = merge(json!({ "listen": ["127.0.0.1:0"] }), more);
    Vm::start(&merge(colours_config(), json!({ "spice": spice })))
}

/// Waits until the guest takes keys.
fn wait_for_guest(vm: &Vm) {
    vm.wait_for_text("press any key");
}

/// The colours guest, whose viewers need this ticket.
fn with_ticket(ticket: Value) -> Vm {
    let vm = colours(json!({ "auth": "ticket" }));
    add(&vm, ticket);
    vm
}

fn add(vm: &Vm, ticket: Value) -> Value {
    let answer = vm
        .api()
        .ask("PUT", "display.ticket.add", &ticket.to_string());
    let answer = answer.unwrap();
    let said = String::from_utf8_lossy(&answer.body);
    assert_eq!(answer.status, 200, "{said}");
    serde_json::from_str(&said).unwrap()
}

fn looks(vm: &Vm, password: &str) -> bool {
    try_spicy_screenshot(vm.spice(), Some(password)).is_ok()
}

fn sessions(vm: &Vm) -> Vec<Value> {
    let list = vm.api().json("display.session.list");
    list["sessions"].as_array().unwrap().clone()
}

/// The last event that is so, once there is one.
fn event_that(vm: &Vm, is_it: impl Fn(&Value) -> bool) -> Value {
    wait_for("an event", || {
        let answer = vm.api().get("events?since=0&replay_only=true");
        let lines = String::from_utf8(answer).unwrap();
        let read = |line| serde_json::from_str::<Value>(line).unwrap();
        lines.lines().map(read).rfind(|event| is_it(event))
    })
}

/// The last event of this name, once there is one.
fn event(vm: &Vm, name: &str) -> Value {
    event_that(vm, |event| event["event"] == name)
}

#[test]
fn a_ticket_that_was_made_here_opens_a_viewer_by_its_file() {
    let vm = colours(json!({ "auth": "ticket" }));
    let added = add(
        &vm,
        json!({ "label": "Ada", "expires_in": "60s", "uses": 1 }),
    );

    let mut ryll = Ryll::open(added["vv"].as_str().unwrap());

    assert!(ryll.is_connected());
    let session = &sessions(&vm)[0];
    assert_eq!(
        (&session["ticket"], &session["label"]),
        (&json!("ticket-1"), &json!("Ada"))
    );
    assert!(
        session["channels"][0]["bytes_out"].as_u64() > Some(0),
        "{session}"
    );
    assert_eq!(event(&vm, "spice.connected")["ticket"], "ticket-1");
    let secret = added["secret"].as_str().unwrap();
    let told = vm.stderr() + &vm.api().events(Duration::from_secs(1)).unwrap();
    let listed = vm.api().json("display.ticket.list").to_string();
    assert!(!told.contains(secret) && !listed.contains(secret));
}

#[test]
fn a_ticket_of_one_use_is_refused_the_second_time() {
    let vm = with_ticket(json!({ "id": "once", "secret": "once", "uses": 1 }));

    assert!(looks(&vm, "once"));
    assert!(!looks(&vm, "once"));

    let refused = event(&vm, "spice.refused");
    assert_eq!(
        (&refused["code"], &refused["ticket"]),
        (&json!("used-ticket"), &json!("once"))
    );
}

#[test]
fn an_expired_ticket_is_refused() {
    let vm = with_ticket(json!({ "secret": "brief", "expires_in": "1ms" }));

    assert!(!looks(&vm, "brief"));

    assert_eq!(event(&vm, "spice.refused")["code"], "expired-ticket");
}

#[test]
fn a_revoked_ticket_is_refused_and_the_other_is_not() {
    let vm = with_ticket(json!({ "id": "one", "secret": "one" }));
    add(&vm, json!({ "id": "two", "secret": "two" }));
    assert!(looks(&vm, "one") && looks(&vm, "two"));

    vm.api().put("display.ticket.revoke", r#"{ "id": "one" }"#);

    assert!(!looks(&vm, "one") && looks(&vm, "two"));
    assert_eq!(event(&vm, "spice.refused")["code"], "revoked-ticket");
}

#[test]
fn a_wrong_secret_is_refused() {
    let vm = with_ticket(json!({ "secret": "right" }));

    assert!(!looks(&vm, "wrong"));

    assert_eq!(event(&vm, "spice.refused")["code"], "wrong-ticket");
    let metrics = String::from_utf8(vm.api().get("metrics")).unwrap();
    assert!(
        metrics.contains("caraway_spice_refused_total{code=\"wrong-ticket\"}"),
        "{metrics}"
    );
}

#[test]
fn channels_that_open_after_the_end_of_their_ticket_are_those_of_a_live_session() {
    let vm = colours(json!({ "auth": "ticket" }));
    wait_for_guest(&vm);
    add(
        &vm,
        json!({ "id": "brief", "secret": "brief", "expires_in": "4s" }),
    );

    let pressed = try_glib_key(vm.spice(), ENTER, "brief", Duration::from_secs(6));

    assert_eq!(pressed, Ok(()));
    vm.wait_for_serial("colour 1 green\r\n");
    assert_eq!(
        vm.api().json("display.ticket.list")["tickets"][0]["state"],
        "expired"
    );
}

#[test]
fn whoever_may_only_look_types_nothing() {
    let permissions = json!({ "input": false });
    let vm = with_ticket(json!({ "secret": "look", "permissions": permissions }));
    add(&vm, json!({ "secret": "type" }));
    wait_for_guest(&vm);

    assert_eq!(
        try_glib_key(vm.spice(), ENTER, "look", Duration::ZERO),
        Ok(())
    );
    assert_eq!(
        try_glib_key(vm.spice(), ENTER, "type", Duration::ZERO),
        Ok(())
    );

    vm.wait_for_serial("colour 1 green\r\n");
    assert!(!vm.serial().contains("colour 2"), "{}", vm.serial());
}

#[test]
fn a_channel_that_a_ticket_does_not_allow_is_not_there() {
    let permissions = json!({ "channels": ["display", "cursor"] });
    let vm = with_ticket(json!({ "secret": "look", "permissions": permissions }));

    assert!(looks(&vm, "look"));
    assert!(try_glib_key(vm.spice(), ENTER, "look", Duration::ZERO).is_err());
}

#[test]
fn a_terminated_viewer_is_gone_and_the_reason_is_known() {
    let vm = colours(json!({}));
    let _ryll = Ryll::connect(vm.spice());
    let id = sessions(&vm)[0]["id"].clone();
    let body = json!({ "session": id, "reason": "the lesson is over" }).to_string();

    vm.api().put("display.session.terminate", &body);

    assert_eq!(
        event(&vm, "spice.disconnected")["reason"],
        "the session was ended: the lesson is over"
    );
    assert_eq!(sessions(&vm), Vec::<Value>::new());
    let again = vm.api().ask("PUT", "display.session.terminate", &body);
    assert_eq!(again.unwrap().status, 404);
}

#[test]
fn a_display_for_one_refuses_the_second() {
    let vm = colours(json!({ "sharing": "exclusive" }));
    let mut ryll = Ryll::connect(vm.spice());

    assert!(!looks(&vm, ""));

    assert_eq!(event(&vm, "spice.refused")["code"], "occupied");
    assert!(ryll.is_connected());
}

#[test]
fn a_display_for_one_is_taken_over_by_the_second() {
    let vm = colours(json!({ "sharing": "exclusive", "on_connect": "take-over" }));
    let _ryll = Ryll::connect(vm.spice());
    let first = sessions(&vm)[0]["id"].clone();

    assert!(looks(&vm, ""));

    let ended = event_that(&vm, |event| {
        event["event"] == "spice.disconnected" && event["session"] == first
    });
    assert_eq!(ended["reason"], "somebody else took over");
}

#[test]
fn a_machine_for_its_viewers_ends_with_the_last_of_them() {
    let mut vm = colours(json!({ "on_disconnect": "end" }));
    let first = Ryll::connect(vm.spice());
    let second = Ryll::connect(vm.spice());

    drop(first);
    event_that(&vm, |event| event["event"] == "spice.disconnected");
    assert_eq!(vm.api().json("vm.info")["state"], "running");
    drop(second);

    assert_eq!(vm.wait(), 0);
}

#[test]
fn of_an_audience_the_first_has_the_keyboard() {
    let vm = colours(json!({ "sharing": "view-only" }));
    wait_for_guest(&vm);
    let mut first = Ryll::connect(vm.spice());
    vm.wait_for_keyboards(1);

    glib_key(vm.spice(), ENTER);
    first.press(ENTER);

    vm.wait_for_serial("colour 1 green\r\n");
    assert!(!vm.serial().contains("colour 2"), "{}", vm.serial());
}

#[test]
fn a_machine_that_asks_nobody_says_how_to_have_tickets() {
    let vm = colours(json!({}));

    let answer = vm.api().ask("PUT", "display.ticket.add", "{}").unwrap();

    assert_eq!(answer.status, 409);
    let error: Value = serde_json::from_slice(&answer.body).unwrap();
    assert!(
        error["hint"]
            .as_str()
            .unwrap()
            .contains("\"auth\": \"ticket\""),
        "{error}"
    );
}

#[test]
fn the_shell_hands_out_a_connection_file_for_one_user_only() {
    let vm = colours(json!({ "auth": "ticket" }));
    let file = vm.folder().join("ada.vv");
    let mut command = Command::new(caraway());
    command
        .arg("ctl")
        .arg(vm.folder().join("api"))
        .args(["display.ticket.add", "--label", "Ada", "--view-only", "-o"])
        .arg(&file);

    let output = run(&mut command, Duration::from_secs(20));

    assert!(output.status.success(), "{output:?}");
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let connection = std::fs::read_to_string(&file).unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    let password = connection
        .lines()
        .find_map(|line| line.strip_prefix("password="));
    assert!(!told.contains(password.unwrap()), "{told}");
    let mut ryll = Ryll::open(&connection);
    assert_eq!(sessions(&vm)[0]["permissions"]["input"], false);
    assert!(ryll.is_connected());
}
