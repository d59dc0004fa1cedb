//! Tickets, and how sessions share a display, with a client that does as it is told.

#![allow(clippy::panic, reason = "a test says no by a panic")]

mod common;

use std::num::NonZeroU32;
use std::thread;
use std::time::Duration;

use caraway_spice::{
    Auth, ChannelKind, Config, Ending, Lapse, NewTicket, Password, Permissions, Second,
    SessionEvent, Sharing, Size, TicketError,
};
use common::{Channel, DISPLAY, Fixture, INPUTS, Link, MAIN, wait_for, word};

const SMALL: Size = Size {
    width: 64,
    height: 48,
};

fn fixture(config: Config) -> Fixture {
    Fixture::new(config, SMALL)
}

fn shared_by(sharing: Sharing) -> Fixture {
    fixture(Config {
        sharing,
        ..Config::default()
    })
}

/// A server with the password `first` and this ticket.
fn with(ticket: NewTicket) -> Fixture {
    let auth = Auth::Password(password("first"));
    let fixture = fixture(Config {
        auth,
        ..Config::default()
    });
    let added = fixture.server.add_ticket(ticket);
    added.expect("nothing is in its way");
    fixture
}

fn password(text: &str) -> Password {
    Password::new(text).expect("it is short")
}

fn named(id: &str) -> NewTicket {
    NewTicket {
        id: Some(id.to_owned()),
        ..NewTicket::new(password(id))
    }
}

fn link(fixture: &Fixture, channel: u8, connection: u32, password: &str) -> Result<Channel, u32> {
    fixture.connect().link(&Link {
        channel,
        connection,
        password,
        ..Link::default()
    })
}

/// A session: its main channel and its id.
fn session(fixture: &Fixture, password: &str) -> (Channel, u32) {
    let mut main = link(fixture, MAIN, 0, password).expect("the ticket is good");
    let init = main.wait(103);
    (main, word(&init, 0))
}

/// Waits for a refusal with this code, and says for which ticket.
fn refused(fixture: &Fixture, wanted: &str) -> Option<String> {
    let event = fixture
        .notes
        .wait_event(|event| matches!(event, SessionEvent::Refused { code, .. } if *code == wanted));
    match event {
        SessionEvent::Refused { ticket, .. } => ticket,
        other => panic!("{other:?}"),
    }
}

/// What the client is told before the end.
fn notice(main: &mut Channel) -> String {
    let body = main.wait(7);
    let length = word(&body, 20) as usize;
    let text = &body[24..24 + length];
    String::from_utf8(text.to_vec()).expect("it is text")
}

#[test]
fn a_second_ticket_does_not_revoke_the_first() {
    let fixture = with(named("second"));
    session(&fixture, "first");
    session(&fixture, "second");
}

#[test]
fn a_ticket_of_one_use_opens_one_session_with_all_its_channels() {
    let fixture = with(NewTicket {
        uses: NonZeroU32::new(1),
        ..named("once")
    });

    let (_main, id) = session(&fixture, "once");

    assert!(link(&fixture, INPUTS, id, "once").is_ok());
    assert_eq!(link(&fixture, MAIN, 0, "once").err(), Some(7));
    assert_eq!(refused(&fixture, "used-ticket").as_deref(), Some("once"));
    assert!(link(&fixture, DISPLAY, id, "once").is_ok());
}

#[test]
fn two_clients_at_once_get_one_session_from_a_ticket_of_one_use() {
    let fixture = with(NewTicket {
        uses: NonZeroU32::new(1),
        ..named("once")
    });
    let opened = thread::scope(|scope| {
        let tries = [(); 6].map(|()| scope.spawn(|| link(&fixture, MAIN, 0, "once")));
        tries.map(|one| one.join().expect("no panic"))
    });
    assert_eq!(opened.iter().filter(|link| link.is_ok()).count(), 1);
}

#[test]
fn an_expired_ticket_opens_nothing_but_the_channels_of_its_session() {
    let fixture = with(NewTicket {
        lifetime: Some(Duration::from_secs(2)),
        ..named("brief")
    });
    let (_main, id) = session(&fixture, "brief");
    wait_for("its end", || {
        let tickets = fixture.server.tickets().expect("there are some");
        (tickets[1].lapse == Some(Lapse::Expired)).then_some(())
    });

    assert_eq!(link(&fixture, MAIN, 0, "brief").err(), Some(7));
    assert_eq!(
        refused(&fixture, "expired-ticket").as_deref(),
        Some("brief")
    );
    assert!(link(&fixture, INPUTS, id, "brief").is_ok());
}

#[test]
fn a_revoked_ticket_leaves_its_sessions_or_takes_them() {
    let fixture = with(named("guest"));
    let (mut main, id) = session(&fixture, "guest");

    assert_eq!(fixture.server.revoke_ticket("guest", false), Ok(1));
    assert_eq!(link(&fixture, MAIN, 0, "guest").err(), Some(7));
    assert_eq!(
        refused(&fixture, "revoked-ticket").as_deref(),
        Some("guest")
    );
    assert!(link(&fixture, INPUTS, id, "guest").is_ok());

    assert_eq!(fixture.server.revoke_ticket("guest", true), Ok(1));
    assert_eq!(notice(&mut main), "the session's ticket was revoked");
    assert!(main.is_ended());
    session(&fixture, "first");
}

#[test]
fn a_session_is_joined_with_its_own_ticket_only() {
    let fixture = with(named("guest"));
    let (_main, id) = session(&fixture, "first");

    assert_eq!(link(&fixture, INPUTS, id, "guest").err(), Some(7));
    assert!(link(&fixture, INPUTS, id, "first").is_ok());
}

#[test]
fn a_server_without_tickets_lets_nobody_in_until_one_is_added() {
    let fixture = fixture(Config {
        auth: Auth::Tickets,
        ..Config::default()
    });
    assert_eq!(link(&fixture, MAIN, 0, "").err(), Some(7));

    let added = fixture.server.add_ticket(named("guest"));

    assert_eq!(added.map(|info| info.id), Ok("guest".to_owned()));
    session(&fixture, "guest");
}

#[test]
fn a_server_that_asks_nobody_takes_no_ticket() {
    let fixture = fixture(Config::default());
    let added = fixture.server.add_ticket(named("guest"));
    assert_eq!(added.err(), Some(TicketError::NotAsked));
}

#[test]
fn whoever_may_only_look_types_nothing() {
    let fixture = with(NewTicket {
        permissions: Permissions::VIEW_ONLY,
        ..named("audience")
    });
    let (mut main, id) = session(&fixture, "audience");
    let mut inputs = link(&fixture, INPUTS, id, "audience").expect("it is offered");
    inputs.wait(101);
    inputs.send(101, &[0x1e, 0, 0, 0]);
    inputs.send(113, &[1, 1, 0]);
    // Motions are acknowledged, so that the client does not wait for it.
    for _ in 0..4 {
        inputs.send(111, &[1, 0, 0, 0, 1, 0, 0, 0, 0, 0]);
    }
    inputs.wait(111);
    drop(inputs);
    main.send(104, &[]);
    main.wait(104);

    assert_eq!(*fixture.notes.input.lock(), Vec::<String>::new());
}

#[test]
fn channels_that_a_ticket_does_not_allow_are_neither_offered_nor_opened() {
    let fixture = with(NewTicket {
        permissions: Permissions {
            channels: Some([ChannelKind::Display].into()),
            ..Permissions::ALL
        },
        ..named("screen")
    });
    let (mut main, id) = session(&fixture, "screen");

    main.send(104, &[]);

    let list = main.wait(104);
    assert_eq!((word(&list, 0), &list[4..]), (1, [DISPLAY, 0].as_slice()));
    assert_eq!(link(&fixture, INPUTS, id, "screen").err(), Some(9));
    assert_eq!(refused(&fixture, "not-permitted"), None);
    assert!(link(&fixture, DISPLAY, id, "screen").is_ok());
}

#[test]
fn who_guesses_is_locked_out_and_its_session_goes_on() {
    let fixture = with(named("guest"));
    let (_main, id) = session(&fixture, "guest");
    for _ in 0..10 {
        assert_eq!(link(&fixture, MAIN, 0, "wrong").err(), Some(7));
    }

    assert_eq!(link(&fixture, MAIN, 0, "guest").err(), Some(7));

    refused(&fixture, "locked-out");
    assert!(link(&fixture, INPUTS, id, "guest").is_ok());
}

#[test]
fn a_ticket_that_was_good_once_is_no_guess() {
    let fixture = with(named("guest"));
    fixture
        .server
        .revoke_ticket("guest", false)
        .expect("it is there");
    for _ in 0..20 {
        assert_eq!(link(&fixture, MAIN, 0, "guest").err(), Some(7));
    }
    session(&fixture, "first");
}

#[test]
fn a_terminated_client_is_told_why() {
    let fixture = fixture(Config::default());
    let (mut main, id) = session(&fixture, "");
    let mut inputs = link(&fixture, INPUTS, id, "").expect("the session is there");

    assert!(fixture.server.terminate(id, "the lesson is over"));

    assert_eq!(
        notice(&mut main),
        "the session was ended: the lesson is over"
    );
    assert!(main.is_ended() && inputs.is_ended());
    let gone = |event: &SessionEvent| matches!(event, SessionEvent::Disconnected { .. });
    match fixture.notes.wait_event(gone) {
        SessionEvent::Disconnected { reason, .. } => assert_eq!(
            reason,
            Ending::Terminated {
                reason: "the lesson is over".to_owned()
            }
        ),
        other => panic!("{other:?}"),
    }
    assert!(!fixture.server.terminate(id, "again"));
}

#[test]
fn a_session_says_who_it_is() {
    let fixture = with(NewTicket {
        label: "Ada".to_owned(),
        permissions: Permissions::VIEW_ONLY,
        ..named("guest")
    });
    let (_main, id) = session(&fixture, "guest");

    let sessions = fixture.server.info().sessions;

    assert_eq!(sessions.len(), 1);
    let session = &sessions[0];
    assert_eq!((session.id, session.label.as_str()), (id, "Ada"));
    assert_eq!(session.ticket.as_deref(), Some("guest"));
    assert_eq!(session.permissions, Permissions::VIEW_ONLY);
    assert!(session.since.elapsed().is_ok());
}

#[test]
fn a_display_for_one_refuses_the_second() {
    let fixture = shared_by(Sharing::Exclusive(Second::Refuse));
    let (main, _) = session(&fixture, "");

    assert_eq!(link(&fixture, MAIN, 0, "").err(), Some(1));
    refused(&fixture, "occupied");

    drop(main);
    wait_for("the first to be gone", || link(&fixture, MAIN, 0, "").ok());
}

#[test]
fn a_display_for_one_is_taken_over_by_the_second() {
    let fixture = shared_by(Sharing::Exclusive(Second::TakeOver));
    let (mut first, id) = session(&fixture, "");
    let mut inputs = link(&fixture, INPUTS, id, "").expect("the session is there");
    inputs.send(101, &[0x1e, 0, 0, 0]);
    wait_for("the key", || fixture.notes.input.lock().pop());

    let (_second, _) = session(&fixture, "");

    assert_eq!(notice(&mut first), "somebody else took over");
    assert!(first.is_ended());
    // What the first one held down is released.
    let released = wait_for("the key to be released", || {
        fixture.notes.input.lock().pop()
    });
    assert_eq!(released, "-1e");
}

#[test]
fn of_an_audience_the_first_has_the_input() {
    let fixture = shared_by(Sharing::ViewOnly);
    let may_type = |id: u32| {
        let sessions = fixture.server.info().sessions;
        let mut all = sessions.iter();
        all.find(|session| session.id == id)
            .map(|session| session.permissions.input)
    };
    let (first, one) = session(&fixture, "");
    let (_second, two) = session(&fixture, "");
    assert_eq!((may_type(one), may_type(two)), (Some(true), Some(false)));

    drop(first);
    wait_for("the first to be gone", || {
        may_type(one).is_none().then_some(())
    });

    let (_third, three) = session(&fixture, "");
    assert_eq!((may_type(two), may_type(three)), (Some(false), Some(true)));
}
