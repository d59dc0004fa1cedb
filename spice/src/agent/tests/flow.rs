//! Who waits for whom, and what ends what.

use super::*;
use crate::agent::wire::AgentError;
use crate::input::PointerEvent;

#[test]
fn a_pointer_that_nobody_follows_is_where_it_is_in_the_end() {
    let mut world = World::with_client(A, ALL);
    for x in 0..100_000 {
        let place = PointerEvent::Position {
            x,
            y: 0,
            display: 0,
        };
        world.board.point(place, world.now);
    }

    let states = world.agent_got_on(Port::Server);

    let last = [words(&[99_999, 0, 0]), vec![0]].concat();
    assert_eq!(states.last(), Some(&(kind::MOUSE_STATE, last)));
    assert!(states.len() < 5_000, "{} states", states.len());
}

#[test]
fn an_agent_that_comes_again_is_told_of_in_order() {
    let mut world = World::with_client(A, ALL);
    world.agent(15, &[0; 8]);

    world.board.close();
    world.board.open();

    let told = [ToClient::Disconnected(0), ToClient::Connected];
    assert_eq!(world.events(A), told);
}

#[test]
fn half_a_message_is_not_finished_by_the_next_agent_s() {
    let mut world = World::with_client(A, ALL);
    let half = chunk(1, &Outgoing::new(99, &[0; 100]).bytes()[..50]);
    world.board.hear_guest(&half, world.now);
    world.client(A, 99, &[1; 10]);
    world.agent_got();
    let piece = Outgoing::new(99, &[2; 1000]).bytes()[..100].to_vec();
    world.board.hear_client(A, piece, world.now).unwrap_or(());

    world.board.close();
    world.board.open();
    world.events(A);
    world.board.start(A, u32::MAX, world.now);
    world.agent(98, b"new");
    world.client(A, 97, b"new");

    assert_eq!(world.client_got(A), [(98, b"new".to_vec())]);
    assert_eq!(world.agent_got(), [(97, b"new".to_vec())]);
}

#[test]
fn an_agent_that_breaks_the_protocol_is_gone_until_it_comes_again() {
    let mut world = World::with_client(A, ALL);

    world.board.hear_guest(&[9; 8], world.now);
    let events = world.events(A);
    world.agent(98, b"more");

    assert_eq!(events, [ToClient::Disconnected(1)]);
    assert!(!world.board.is_connected());
    world.board.open();
    assert_eq!(world.events(A), [ToClient::Connected]);
}

#[test]
fn a_client_that_breaks_the_protocol_fails_alone() {
    let mut world = World::with_client(A, ALL);
    world.enter(B, ALL, &SPICE_GTK);
    world.client_got(B);

    let failed = world.board.hear_client(A, vec![9; 40], world.now);
    world.client(B, 99, b"fine");

    assert_eq!(failed, Err(AgentError::Protocol(0x0909_0909)));
    assert_eq!(world.agent_got(), [(99, b"fine".to_vec())]);
}

#[test]
fn tokens_come_back_as_the_guest_reads() {
    let mut world = World::with_client(A, ALL);
    // Far more than the queues hold, by a client that has as many tokens as it was given.
    let stream: Vec<u8> = Outgoing::new(99, &[5; 400_000]).bytes().to_vec();
    let mut pieces = stream.chunks(MAX_DATA);
    let mut tokens = 10;
    let mut sent_unread = 0;
    while tokens > 0
        && let Some(piece) = pieces.next()
    {
        tokens -= 1;
        sent_unread += piece.len();
        let taken = world.board.hear_client(A, piece.to_vec(), world.now);
        assert_eq!(taken, Ok(()));
        for event in world.events(A) {
            if let ToClient::Tokens(count) = event {
                tokens += count;
            }
        }
    }
    assert!(
        sent_unread < 200_000,
        "{sent_unread} bytes that nobody read"
    );

    let mut seen = Vec::new();
    loop {
        seen.extend(
            world
                .agent_got_on(Port::Client)
                .into_iter()
                .map(|got| got.1.len()),
        );
        let mut progress = false;
        for event in world.events(A) {
            if let ToClient::Tokens(count) = event {
                for piece in pieces.by_ref().take(count as usize) {
                    progress = true;
                    let taken = world.board.hear_client(A, piece.to_vec(), world.now);
                    assert_eq!(taken, Ok(()));
                }
            }
        }
        if !progress {
            break;
        }
    }
    assert_eq!(seen.last(), Some(&400_000));
}

#[test]
fn a_client_that_ignores_its_tokens_is_refused() {
    let mut world = World::with_client(A, ALL);
    let flood = std::iter::repeat_with(|| Outgoing::new(99, &[0; 2000]).bytes().to_vec());

    let refused = flood
        .take(1000)
        .find_map(|piece| world.board.hear_client(A, piece, world.now).err());

    assert_eq!(refused, Some(AgentError::Tokens));
}

#[test]
fn whoever_takes_nothing_is_given_up_and_begins_anew() {
    let mut world = World::with_client(A, ALL);
    world.enter(B, ALL, &SPICE_GTK);
    world.client_got(B);
    let message = chunk(1, Outgoing::new(98, &[0; 4000]).bytes());
    let rest = loop {
        let taken = world.board.hear_guest(&message, world.now);
        // B takes what there is.
        world.client_got(B);
        if taken < message.len() {
            break &message[taken..];
        }
    };

    world.now += Duration::from_secs(11);
    world.board.tick(world.now);

    assert_eq!(world.board.hear_guest(rest, world.now), rest.len());
    let told = [ToClient::Disconnected(0), ToClient::Connected];
    assert_eq!(world.events(A), told);
    assert!(world.board.is_connected());
}

#[test]
fn a_message_that_its_client_never_ends_ends_all_the_same() {
    let mut world = World::with_client(A, ALL);
    world.enter(B, ALL, &SPICE_GTK);
    let long = Outgoing::new(99, &[5; 100_000]);
    for piece in long.bytes()[..80_000].chunks(MAX_DATA) {
        let taken = world.board.hear_client(A, piece.to_vec(), world.now);
        assert_eq!(taken, Ok(()));
        world.agent_got_on(Port::Client);
    }
    world.client(B, 97, b"waits");

    world.now += Duration::from_secs(11);
    world.board.tick(world.now);

    let kinds: Vec<_> = world
        .agent_got()
        .into_iter()
        .map(|(kind, body)| (kind, body.len()))
        .collect();
    assert!(kinds.starts_with(&[(99, 100_000)]), "{kinds:?}");
    assert!(kinds.contains(&(97, 5)), "{kinds:?}");
}
