//! Clients that ask for what is not there or speak badly get the protocol's own answer, the log says
//! why, and nobody else notices.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use caraway_tests::client::spicy_screenshot;
use caraway_tests::flood::{Channel, LinkError, MAIN, hello, session};
use caraway_tests::vm::{Vm, colours_config, merge};
use caraway_tests::wait::wait_for;
use serde_json::{Value, json};

/// `SPICE_LINK_ERR_*`.
const INVALID_MAGIC: u32 = 2;
const INVALID_DATA: u32 = 3;
const VERSION_MISMATCH: u32 = 4;
const PERMISSION_DENIED: u32 = 7;
const BAD_CONNECTION_ID: u32 = 8;
const CHANNEL_NOT_AVAILABLE: u32 = 9;

const TICKET: [u8; 128] = [0; 128];

/// A machine whose SPICE server has these keys in its config too.
fn start(more: Value) -> Vm {
    let spice = json!({ "listen": ["127.0.0.1:0"], "auth": "none" });
    Vm::start(&merge(
        colours_config(),
        json!({ "spice": merge(spice, more) }),
    ))
}

/// Links with a hello changed at `at`; the server's error code.
#[track_caller]
fn refusal(vm: &Vm, at: usize, bytes: &[u8], ticket: &[u8]) -> u32 {
    let mut hello = hello(MAIN, 0);
    hello[at..at + bytes.len()].copy_from_slice(bytes);
    match Channel::link_with(vm.spice(), MAIN, &hello, ticket) {
        Err(LinkError::Refused(code)) => code,
        other => panic!("{other:?}"),
    }
}

/// Waits for a refusal in the machine's events that says `words`.
fn wait_for_reason(vm: &Vm, words: &str) {
    wait_for(&format!("an event that says {words:?}"), || {
        let events = vm
            .api()
            .events(std::time::Duration::from_millis(300))
            .ok()?;
        events.contains(words).then_some(())
    });
}

#[test]
fn a_wrong_magic_version_or_length() {
    let vm = start(json!({}));

    assert_eq!(refusal(&vm, 0, b"RED!", &TICKET), INVALID_MAGIC);
    assert_eq!(refusal(&vm, 4, &[3], &TICKET), VERSION_MISMATCH);
    assert_eq!(refusal(&vm, 12, &[17], &TICKET), INVALID_DATA);
    assert_eq!(refusal(&vm, 12, &[0, 0, 1], &TICKET), INVALID_DATA);

    wait_for_reason(&vm, "it speaks SPICE 3.2");
    spicy_screenshot(vm.spice());
}

#[test]
fn a_channel_that_is_not_there() {
    let vm = start(json!({}));

    assert_eq!(refusal(&vm, 20, &[200], &TICKET), CHANNEL_NOT_AVAILABLE);
    assert_eq!(refusal(&vm, 20, &[2, 9], &TICKET), CHANNEL_NOT_AVAILABLE);

    wait_for_reason(&vm, "no channel of type 200");
    spicy_screenshot(vm.spice());
}

#[test]
fn a_session_that_is_not_there() {
    let vm = start(json!({}));

    assert_eq!(
        refusal(&vm, 16, &[1, 2, 3, 4, 2], &TICKET),
        BAD_CONNECTION_ID
    );

    wait_for_reason(&vm, "no session 0x4030201");
}

#[test]
fn capabilities_that_nobody_knows_are_no_reason_to_refuse() {
    let vm = start(json!({}));
    let mut hello = hello(MAIN, 0);
    hello[34..38].copy_from_slice(&(0xffff_fff0_u32 | 0b1011).to_le_bytes());

    let link = Channel::link_with(vm.spice(), MAIN, &hello, &TICKET);

    assert!(link.is_ok(), "{link:?}");
}

#[test]
fn more_capabilities_than_there_are_words() {
    let vm = start(json!({}));

    assert_eq!(refusal(&vm, 22, &[2], &TICKET), INVALID_DATA);
    assert_eq!(refusal(&vm, 26, &[0xff; 4], &TICKET), INVALID_DATA);
}

#[test]
fn a_ticket_for_a_key_of_another_size() {
    let vm = start(json!({ "auth": "password", "password": "secret" }));

    // As for 2048 bits, of which the protocol has no notion: half of it is no ticket.
    assert_eq!(refusal(&vm, 0, b"REDQ", &[0x5a; 256]), PERMISSION_DENIED);

    wait_for_reason(&vm, "wrong");
}

#[test]
fn a_way_to_authenticate_that_is_not_there() {
    let vm = start(json!({}));
    const SASL: [u8; 4] = [2, 0, 0, 0];

    let refusal = Channel::link_as(vm.spice(), MAIN, &hello(MAIN, 0), &SASL);

    assert!(matches!(refusal, Err(LinkError::Refused(1))), "{refusal:?}");
    wait_for_reason(&vm, "authentication 2");
}

#[test]
fn a_session_outlives_what_others_do_wrong() {
    let vm = start(json!({}));
    let mut mine = session(vm.spice()).unwrap();

    refusal(&vm, 20, &[200], &TICKET);
    let mut bad = session(vm.spice()).unwrap();
    bad[2].say(&[101, 0, 0xff, 0xff, 0xff, 0xff]).unwrap();

    wait_for("the end of the bad session", || {
        (!bad[0].is_open()).then_some(())
    });
    assert!(mine.iter_mut().all(Channel::is_open));
}
