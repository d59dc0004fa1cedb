//! The link stage, with clients that do it right and clients that do not.

#![allow(clippy::panic, reason = "a test says no by a panic")]

mod common;

use std::collections::BTreeSet;

use caraway_spice::{Auth, Config, Password, SessionEvent, Size};
use common::{CURSOR, DISPLAY, Fixture, INPUTS, Link, MAIN, word};

const SMALL: Size = Size {
    width: 64,
    height: 48,
};

fn open() -> Fixture {
    Fixture::new(Config::default(), SMALL)
}

fn locked() -> Fixture {
    let auth = Auth::Password(Password::new("secret").expect("it is short"));
    Fixture::new(
        Config {
            auth,
            ..Config::default()
        },
        SMALL,
    )
}

/// What is sent instead of a reply that lets a client in.
fn assert_refused(fixture: &Fixture, bytes: &[u8], code: u32) {
    let mut raw = fixture.connect();
    raw.write(bytes);
    let reply = raw.read_reply();
    assert_eq!(reply.len(), 16 + 178);
    assert_eq!(word(&reply, 16), code);
    assert!(reply[20..].iter().all(|&byte| byte == 0));
    assert!(raw.is_closed());
    fixture
        .notes
        .wait_event(|event| matches!(event, SessionEvent::Refused { .. }));
}

fn changed(at: usize, value: u32) -> Vec<u8> {
    let mut bytes = Link::default().bytes();
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    bytes
}

#[test]
fn another_protocol_is_told_so() {
    assert_refused(&open(), b"SSH-2.0-OpenSSH_9.2\r\n", 2);
}

#[test]
fn another_major_version_is_told_so() {
    assert_refused(&open(), &changed(4, 3), 4);
}

#[test]
fn another_minor_version_is_welcome() {
    let fixture = open();
    let mut raw = fixture.connect();
    raw.write(&changed(8, 9));
    assert_eq!(word(&raw.read_reply(), 16), 0);
}

#[test]
fn link_messages_of_impossible_sizes_are_refused() {
    for size in [0, 17, 4097, u32::MAX] {
        assert_refused(&open(), &changed(12, size)[..16], 3);
    }
}

#[test]
fn capabilities_outside_of_the_message_are_refused() {
    for (at, value) in [(22, 1000), (26, u32::MAX), (30, u32::MAX)] {
        assert_refused(&open(), &changed(at, value), 3);
    }
}

#[test]
fn the_reply_has_a_key_and_what_proxies_insist_on() {
    let fixture = open();
    for (channel, caps) in [
        (MAIN, Some(0xf)),
        (DISPLAY, Some(4178)),
        (INPUTS, Some(1)),
        (CURSOR, None),
    ] {
        let mut raw = fixture.connect();
        raw.write(
            &Link {
                channel,
                ..Link::default()
            }
            .bytes(),
        );
        let reply = raw.read_reply();
        assert_eq!(
            (word(&reply, 4), word(&reply, 8), word(&reply, 16)),
            (2, 2, 0)
        );
        assert_eq!((word(&reply, 182), word(&reply, 190)), (1, 178));
        assert_eq!(word(&reply, 194) & 0b1011, 0b1011);
        let words: Vec<u32> = reply[198..].chunks(4).map(|bytes| word(bytes, 0)).collect();
        assert_eq!(words, caps.into_iter().collect::<Vec<u32>>());
    }
}

/// A connection that has its reply, and the key in it.
fn replied(fixture: &Fixture) -> (Vec<u8>, common::Raw) {
    let mut raw = fixture.connect();
    raw.write(&Link::default().bytes());
    let reply = raw.read_reply();
    (reply[20..182].to_vec(), raw)
}

#[test]
fn links_at_the_same_time_have_different_keys() {
    let fixture = locked();
    let links = [(); 4].map(|()| replied(&fixture));
    let keys: BTreeSet<_> = links.iter().map(|(key, _)| key).collect();
    assert_eq!(keys.len(), links.len());
}

#[test]
fn links_have_fresh_keys_while_there_are_some() {
    let fixture = locked();
    let mut keys = BTreeSet::new();
    common::wait_for("ten keys", || {
        keys.insert(replied(&fixture).0);
        (keys.len() == 10).then_some(())
    });
}

#[test]
fn a_flood_of_links_that_prove_nothing_is_served() {
    for fixture in [open(), locked()] {
        for _ in 0..300 {
            replied(&fixture);
        }
    }
}

#[test]
fn the_password_opens_and_others_do_not() {
    let fixture = locked();
    let try_with = |password| {
        fixture
            .connect()
            .link(&Link {
                password,
                ..Link::default()
            })
            .err()
    };
    assert_eq!(try_with("secret"), None);
    for wrong in ["", "secre", "secrets", "Secret"] {
        assert_eq!(try_with(wrong), Some(7), "{wrong:?}");
    }
    let refused = fixture
        .notes
        .wait_event(|event| matches!(event, SessionEvent::Refused { .. }));
    assert!(
        matches!(refused, SessionEvent::Refused { code, .. } if code == "wrong-ticket"),
        "{refused:?}"
    );
}

#[test]
fn every_channel_needs_the_password() {
    let fixture = locked();
    let main = Link {
        password: "secret",
        ..Link::default()
    };
    let mut main = fixture
        .connect()
        .link(&main)
        .expect("the password is right");
    let connection = word(&main.wait(103), 0);
    let with = |password| {
        let link = Link {
            channel: DISPLAY,
            connection,
            password,
            ..Link::default()
        };
        fixture.connect().link(&link).err()
    };
    assert_eq!(with("wrong"), Some(7));
    assert_eq!(with("secret"), None);
}

#[test]
fn a_ticket_that_is_noise_is_a_wrong_password() {
    let fixture = locked();
    let mut raw = fixture.connect();
    raw.write(&Link::default().bytes());
    raw.read_reply();
    raw.write(&1u32.to_le_bytes());
    raw.write(&[0x55; 128]);
    assert_eq!(raw.read(4), 7u32.to_le_bytes());
}

#[test]
fn without_a_password_any_ticket_will_do() {
    let fixture = open();
    let mut raw = fixture.connect();
    raw.write(&Link::default().bytes());
    raw.read_reply();
    raw.write(&1u32.to_le_bytes());
    raw.write(&[0x55; 128]);
    assert_eq!(raw.read(4), [0; 4]);
}

#[test]
fn another_authentication_is_refused() {
    let fixture = open();
    let mut raw = fixture.connect();
    raw.write(&Link::default().bytes());
    raw.read_reply();
    raw.write(&2u32.to_le_bytes());
    assert_eq!(raw.read(4), 1u32.to_le_bytes());
}

#[test]
fn unknown_sessions_and_channels_are_told_apart() {
    let fixture = open();
    let (_main, session) = fixture.main();
    let code = |channel, id, connection| {
        let link = Link {
            channel,
            id,
            connection,
            ..Link::default()
        };
        fixture.connect().link(&link).err()
    };
    assert_eq!(code(DISPLAY, 0, session.wrapping_add(1)), Some(8));
    assert_eq!(code(DISPLAY, 0, 0), Some(8));
    assert_eq!(code(MAIN, 0, session), Some(8));
    assert_eq!(code(DISPLAY, 1, session), Some(9));
    assert_eq!(code(5, 0, session), Some(9));
    assert_eq!(code(0, 0, session), Some(9));
    assert_eq!(code(DISPLAY, 0, session), None);
}

#[test]
fn sessions_are_limited() {
    let fixture = Fixture::new(
        Config {
            max_sessions: 1,
            ..Config::default()
        },
        SMALL,
    );
    let _main = fixture.main();
    assert_eq!(fixture.link(MAIN, 0).err(), Some(1));
}

#[test]
fn clients_of_the_old_kind_are_served() {
    // Neither a choice of authentication nor the mini header.
    let fixture = open();
    let mut main = fixture
        .connect()
        .link(&Link {
            common: &[],
            ..Link::default()
        })
        .expect("the server lets us in");
    let session = word(&main.wait(103), 0);
    main.send(104, &[]);
    assert_eq!(word(&main.wait(104), 0), 3);
    let link = Link {
        channel: DISPLAY,
        connection: session,
        common: &[0, 0],
        ..Link::default()
    };
    let mut display = fixture.connect().link(&link).expect("the session is there");
    display.send(101, &[0; 14]);
    common::Canvas::default().catch_up(&mut display, &fixture.screen);
}

#[test]
fn clients_that_leave_in_the_middle_of_the_link_are_noted() {
    let fixture = open();
    for length in [1, 15, 16, 20, 33] {
        fixture.connect().write(&Link::default().bytes()[..length]);
    }
    common::wait_for("five refusals", || {
        (fixture.notes.events.lock().len() == 5).then_some(())
    });
    let (_main, _) = fixture.main();
}
