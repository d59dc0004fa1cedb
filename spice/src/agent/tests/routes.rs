//! What each message means, and to whom.

use super::*;
use crate::input::{Buttons, PointerEvent};

#[test]
fn a_client_hears_what_the_agent_can_do() {
    let mut world = World::with_agent();

    world.enter(A, ALL, &SPICE_GTK);

    let heard = (kind::ANNOUNCE_CAPABILITIES, announce(&VDAGENTD, false));
    assert_eq!(world.client_got(A), [heard]);
}

#[test]
fn only_the_first_client_is_a_new_client_to_the_agent() {
    let mut world = World::with_agent();
    let client = |caps: &[u32]| {
        let all = [caps, &[6, 16, 17]].concat();
        announce(&all, false)
    };
    assert!(world.board.join(A, ALL, true, world.now));
    world.board.start(A, u32::MAX, world.now);
    world.client(A, kind::ANNOUNCE_CAPABILITIES, &announce(&PLAIN, true));
    let first = world.agent_got();
    assert!(world.board.join(B, ALL, true, world.now));
    world.board.start(B, u32::MAX, world.now);
    world.client(B, kind::ANNOUNCE_CAPABILITIES, &announce(&[1, 5], true));
    let second = world.agent_got();

    let mut asking = client(&PLAIN);
    asking[0] = 1;
    assert_eq!(first, [(kind::ANNOUNCE_CAPABILITIES, asking)]);
    let together = client(&[1, 3, 5]);
    assert_eq!(second, [(kind::ANNOUNCE_CAPABILITIES, together)]);
}

#[test]
fn the_last_client_s_leave_is_told_by_the_server() {
    let mut world = World::with_client(A, ALL);
    world.enter(B, ALL, &PLAIN);

    world.board.leave(A, world.now);
    let one_left = world.agent_got_on(Port::Server);
    world.board.leave(B, world.now);
    let none_left = world.agent_got_on(Port::Server);

    assert_eq!(one_left, []);
    assert_eq!(none_left, [(kind::CLIENT_DISCONNECTED, Vec::new())]);
}

#[test]
fn a_forbidden_file_is_refused_at_once() {
    let grants = Grants {
        file_transfer: false,
        ..ALL
    };
    let mut world = World::with_client(A, grants);

    world.client(A, kind::FILE_XFER_START, &words(&[5, 0]));

    assert_eq!(world.agent_got(), []);
    assert_eq!(
        world.client_got(A),
        [(kind::FILE_XFER_STATUS, words(&[5, 7]))]
    );
}

#[test]
fn files_of_two_clients_with_one_number_are_kept_apart() {
    let mut world = World::with_client(A, ALL);
    world.enter(B, ALL, &SPICE_GTK);
    world.client_got(B);

    world.client(A, kind::FILE_XFER_START, &words(&[1, 0xaa]));
    world.client(B, kind::FILE_XFER_START, &words(&[1, 0xbb]));
    world.client(B, kind::FILE_XFER_DATA, &words(&[1, 4, 0, 0x1234]));
    let numbers = world.agent_got();
    world.agent(kind::FILE_XFER_STATUS, &words(&[1, 3]));

    assert_eq!(
        numbers,
        [
            (kind::FILE_XFER_START, words(&[0, 0xaa])),
            (kind::FILE_XFER_START, words(&[1, 0xbb])),
            (kind::FILE_XFER_DATA, words(&[1, 4, 0, 0x1234])),
        ]
    );
    assert_eq!(world.client_got(A), []);
    assert_eq!(
        world.client_got(B),
        [(kind::FILE_XFER_STATUS, words(&[1, 3]))]
    );
}

#[test]
fn the_files_of_a_client_that_leaves_are_cancelled() {
    let mut world = World::with_client(A, ALL);
    world.client(A, kind::FILE_XFER_START, &words(&[3, 0]));
    world.agent_got();

    world.board.leave(A, world.now);

    assert_eq!(
        world.agent_got(),
        [(kind::FILE_XFER_STATUS, words(&[0, 1]))]
    );
}

#[test]
fn replies_go_to_who_asked() {
    let mut world = World::with_client(A, ALL);
    world.enter(B, ALL, &SPICE_GTK);
    world.client_got(B);
    let config = words(&[1, 0, 600, 800, 32, 0, 0]);
    world.client(B, kind::MONITORS_CONFIG, &config);
    assert_eq!(world.agent_got(), [(kind::MONITORS_CONFIG, config)]);

    world.agent(kind::REPLY, &words(&[kind::MONITORS_CONFIG, 1]));

    assert_eq!(world.client_got(A), []);
    let reply = (kind::REPLY, words(&[kind::MONITORS_CONFIG, 1]));
    assert_eq!(world.client_got(B), [reply]);
}

#[test]
fn a_display_that_takes_a_request_spares_the_agent() {
    let mut world = World::with_client(A, ALL);
    let (tell, told) = std::sync::mpsc::channel();
    world.board.heads = Some(Box::new(move |heads| tell.send(heads.to_vec()).is_ok()));

    // Height before width, and no places.
    let config = words(&[2, 0, 600, 800, 32, 0, 0, 500, 700, 32, 0, 0]);
    world.client(A, kind::MONITORS_CONFIG, &config);

    let heads = told.try_recv().expect("it was asked");
    let sizes: Vec<_> = heads.iter().map(|h| (h.width, h.height, h.x)).collect();
    assert_eq!(sizes, [(800, 600, 0), (700, 500, 800)]);
    assert_eq!(world.agent_got(), []);
}

#[test]
fn the_agent_hears_of_monitors_in_pixels_only() {
    let mut world = World::with_client(A, ALL);
    // Positions and sizes in millimetres, which follow the monitors: 16 bits each.
    let (monitor, millimetres) = ([600, 800, 32, 0, 0], 150 << 16 | 200);
    let with_sizes = words(&[&[1, 0b11], &monitor[..], &[millimetres]].concat());

    world.client(A, kind::MONITORS_CONFIG, &with_sizes);

    let plain = words(&[&[1, 0b01], &monitor[..]].concat());
    assert_eq!(world.agent_got(), [(kind::MONITORS_CONFIG, plain)]);
}

#[test]
fn whoever_only_looks_asks_for_nothing() {
    let mut world = World::with_client(
        A,
        Grants {
            control: false,
            ..ALL
        },
    );

    world.client(
        A,
        kind::MONITORS_CONFIG,
        &words(&[1, 0, 600, 800, 32, 0, 0]),
    );
    world.client(A, kind::DISPLAY_CONFIG, &words(&[0, 0]));

    assert_eq!(world.agent_got(), []);
}

#[test]
fn messages_of_tomorrow_pass() {
    let mut world = World::with_client(A, ALL);
    let long: Vec<u8> = vec![7; 200_000];

    world.client(A, 99, b"up");
    let bytes = chunk(1, Outgoing::new(98, &long).bytes());
    let (mut rest, mut down) = (bytes.as_slice(), Vec::new());
    while !rest.is_empty() {
        rest = &rest[world.board.hear_guest(rest, world.now)..];
        for event in world.events(A) {
            if let ToClient::Data(data) = event {
                down.extend(data);
            }
        }
    }

    assert_eq!(world.agent_got(), [(99, b"up".to_vec())]);
    assert_eq!(messages(&down), [(98, long)]);
}

#[test]
fn the_pointer_is_the_server_s_to_move() {
    let mut world = World::with_client(A, ALL);
    world.client(A, kind::MOUSE_STATE, &[0; 13]);

    world.board.point(
        PointerEvent::Position {
            x: 10,
            y: 20,
            display: 1,
        },
        world.now,
    );
    let left = Buttons {
        left: true,
        ..Buttons::default()
    };
    world.board.point(PointerEvent::Buttons(left), world.now);

    let state = |buttons| [words(&[10, 20, buttons]), vec![1]].concat();
    assert_eq!(
        world.agent_got_on(Port::Server),
        [(kind::MOUSE_STATE, state(0)), (kind::MOUSE_STATE, state(2))]
    );
    assert_eq!(world.agent_got(), []);
}
