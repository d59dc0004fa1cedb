//! Sessions and their channels, with a scripted client.

#![allow(clippy::panic, reason = "a test says no by a panic")]

mod common;

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use caraway_spice::{
    Config, CursorImage, CursorKind, DisplaySource, Ending, Framebuffer, Head, Locks, MouseMode,
    Point, Rect, SessionEvent, Size,
};
use common::{CURSOR, Canvas, DISPLAY, Fixture, INPUTS, Link, MAIN, wait_for, word};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const SMALL: Size = Size {
    width: 64,
    height: 48,
};

fn fixture() -> Fixture {
    Fixture::new(Config::default(), SMALL)
}

fn ending_of(fixture: &Fixture, id: u32) -> Ending {
    let gone = |event: &SessionEvent| matches!(event, SessionEvent::Disconnected { session, .. } if *session == id);
    match fixture.notes.wait_event(gone) {
        SessionEvent::Disconnected { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

// --- the main channel

#[test]
fn channels_are_listed_when_asked_for() {
    let fixture = fixture();
    let (mut main, _) = fixture.main();
    main.send(101, &[0; 8]);
    main.send(104, &[]);
    let list = main.wait(104);
    assert_eq!(word(&list, 0), 3);
    let mut channels: Vec<_> = list[4..].chunks(2).map(|pair| (pair[0], pair[1])).collect();
    channels.sort_unstable();
    assert_eq!(channels, [(DISPLAY, 0), (INPUTS, 0), (CURSOR, 0)]);
}

#[test]
fn name_and_uuid_are_told() {
    let config = Config {
        name: "desk".into(),
        uuid: Some([7; 16]),
        ..Config::default()
    };
    let fixture = Fixture::new(config, SMALL);
    let (mut main, _) = fixture.main();
    assert_eq!(main.wait(113), b"\x05\0\0\0desk\0");
    assert_eq!(main.wait(114), [7; 16]);
}

#[test]
fn a_ping_that_is_answered_is_a_round_trip() {
    let fixture = fixture();
    let (mut main, _) = fixture.main();
    let ping = main.wait(4);
    main.send(3, &ping[..12]);
    wait_for("a round trip", || {
        fixture.server.info().sessions[0].round_trip_us
    });
}

#[test]
fn the_mouse_mode_follows_the_guest_and_the_client() {
    let fixture = fixture();
    let mut main = fixture.link(MAIN, 0).expect("the server lets us in");
    let init = main.wait(103);
    assert_eq!((word(&init, 8), word(&init, 12)), (1, 1));

    *fixture.notes.absolute.lock() = true;
    fixture.server.refresh_mouse_mode();
    assert_eq!(main.wait(105), [3, 0, 2, 0]);

    main.send(105, &[1, 0]);
    assert_eq!(main.wait(105), [3, 0, 1, 0]);
    assert_eq!(
        fixture.server.info().sessions[0].mouse_mode,
        MouseMode::Server
    );
}

#[test]
fn whatever_else_a_client_may_send_is_ignored() {
    let fixture = fixture();
    let (mut main, _) = fixture.main();
    // Migration, agent, quality and numbers that nobody knows.
    for kind in [4, 5, 102, 103, 106, 107, 108, 109, 111, 112, 2000] {
        main.send(kind, &[1; 40]);
    }
    main.send(104, &[]);
    main.wait(104);
}

#[test]
fn a_client_that_comes_from_a_migration_is_told_to_start_anew() {
    let fixture = fixture();
    let (mut main, _) = fixture.main();
    main.send(110, &[2, 0, 0, 0]);
    assert_eq!(main.wait(118), []);
    main.send(104, &[]);
    main.wait(104);
}

#[test]
fn the_server_says_goodbye() {
    let fixture = fixture();
    let (mut main, id) = fixture.main();
    fixture.server.shutdown();
    main.wait(6);
    assert!(main.is_ended());
    assert_eq!(ending_of(&fixture, id), Ending::Shutdown);
}

#[test]
fn the_end_of_the_main_channel_ends_the_others() {
    let fixture = fixture();
    let (main, mut display) = fixture.viewer();
    drop(main);
    assert!(display.is_ended());
    assert!(wait_for("the end", || Some(
        fixture.server.info().sessions.is_empty()
    )));
}

#[test]
fn a_channel_that_is_opened_again_replaces_the_old_one() {
    let fixture = fixture();
    let (_main, session) = fixture.main();
    let mut old = fixture.link(INPUTS, session).expect("the session is there");
    old.wait(101);
    let mut new = fixture.link(INPUTS, session).expect("the session is there");
    new.wait(101);
    assert!(old.is_ended());
    assert_eq!(fixture.server.info().sessions[0].channels.len(), 2);
}

// --- the display channel

#[test]
fn a_new_client_gets_the_whole_screen_as_one_image_before_the_mark() {
    let fixture = fixture();
    fixture.paint(Rect::of_size(SMALL), 1);
    let (_main, mut display) = fixture.viewer();
    let kinds: Vec<u16> = (0..6).map(|_| display.next().0).collect();
    assert_eq!(kinds, [3, 108, 314, 304, 317, 102]);
}

#[test]
fn every_client_shows_what_the_screen_shows() {
    let size = Size {
        width: 700,
        height: 500,
    };
    let fixture = Fixture::new(Config::default(), size);
    let (_main, mut display) = fixture.viewer();
    let (_other_main, mut other) = fixture.viewer();
    // Raw images for the other one.
    other.send(103, &[1]);
    let (mut canvas, mut other_canvas) = (Canvas::default(), Canvas::default());
    for step in 0..60u32 {
        let left = (step * 131 % 650) as i32;
        let top = (step * 71 % 450) as i32;
        let (right, bottom) = (left + 10 + step as i32 * 3, top + 40);
        fixture.paint(
            Rect {
                left,
                top,
                right,
                bottom,
            },
            step,
        );
        let moved = Rect {
            left: 20,
            top: 30 + step as i32 % 2 * 40,
            right: 500,
            bottom: 400,
        };
        assert!(fixture.screen.copy(Point { x: 37, y: 50 }, moved));
        if step % 20 == 10 {
            let size = Size {
                width: 600 + step,
                height: 480 + step,
            };
            fixture.screen.set_size(size);
        }
        if step % 7 == 0 {
            canvas.catch_up(&mut display, &fixture.screen);
        }
    }
    canvas.catch_up(&mut display, &fixture.screen);
    other_canvas.catch_up(&mut other, &fixture.screen);
}

#[test]
fn what_a_client_has_is_moved_and_not_sent_again() {
    let fixture = fixture();
    fixture.paint(Rect::of_size(SMALL), 1);
    let (_main, mut display) = fixture.viewer();
    let mut canvas = Canvas::default();
    canvas.catch_up(&mut display, &fixture.screen);
    let to = Rect {
        top: 9,
        ..Rect::of_size(SMALL)
    };

    assert!(fixture.screen.copy(Point::default(), to));

    assert_eq!(canvas.follow(&mut display), 104);
    assert!(canvas.equals(&fixture.screen));
}

#[test]
fn a_screen_too_large_for_one_message_comes_in_pieces() {
    let size = Size {
        width: 1400,
        height: 1200,
    };
    let fixture = Fixture::new(Config::default(), size);
    fixture.screen.draw(Rect::of_size(size), |x, y| {
        (x * 7919 + y * 104_729).wrapping_mul(2_654_435_761) >> 7
    });
    let (_main, mut display) = fixture.viewer();
    let mut canvas = Canvas::default();
    canvas.catch_up(&mut display, &fixture.screen);
}

#[test]
fn few_new_pixels_on_a_large_screen_take_few_bytes() {
    let size = Size {
        width: 3840,
        height: 2160,
    };
    let fixture = Fixture::new(Config::default(), size);
    fixture.screen.fill(Rect::of_size(size), 0x0020_4060);
    let (_main, mut display) = fixture.viewer();
    let fill = display.wait(common::FILL);
    let area = [4, 8, 12, 16].map(|at| common::word(&fill, at));
    assert_eq!(area, [0, 0, size.height, size.width]);
    display.wait(common::MARK);

    let spot = Rect {
        left: 2000,
        top: 1000,
        right: 2016,
        bottom: 1016,
    };
    fixture.paint(spot, 7);

    // Nothing else is on its way: what comes is the spot.
    let (kind, body) = display.next();
    assert_eq!(kind, common::COPY);
    assert!(body.len() < 4096, "{} bytes", body.len());
}

#[test]
fn lz4_is_for_clients_that_have_it() {
    let fixture = fixture();
    let (_main, session) = fixture.main();
    let link = Link {
        channel: DISPLAY,
        connection: session,
        channel_caps: &[1 << 5],
        ..Link::default()
    };
    let mut display = fixture.connect().link(&link).expect("the session is there");
    display.send(103, &[7]);
    display.send(101, &[0; 14]);
    Canvas::default().catch_up(&mut display, &fixture.screen);
    fixture.screen.draw(Rect::of_size(SMALL), |x, _| x);
    let copy = display.wait(304);
    assert_eq!(copy[57 + 8], 109);
}

#[test]
fn monitors_are_told_when_they_change() {
    let fixture = fixture();
    let (_main, mut display) = fixture.viewer();
    let mut canvas = Canvas::default();
    canvas.catch_up(&mut display, &fixture.screen);
    assert_eq!(canvas.monitors, Some(1));

    let area = |left, right| Rect {
        left,
        top: 0,
        right,
        bottom: 48,
    };
    let heads = [
        Head {
            id: 0,
            area: area(0, 32),
        },
        Head {
            id: 1,
            area: area(32, 64),
        },
    ];
    fixture.screen.set_heads(&heads);

    while canvas.monitors != Some(2) {
        canvas.follow(&mut display);
    }
}

#[test]
fn a_screen_that_goes_is_taken_away() {
    let fixture = fixture();
    let (_main, mut display) = fixture.viewer();
    let mut canvas = Canvas::default();
    canvas.catch_up(&mut display, &fixture.screen);
    fixture.screen.set_size(Size {
        width: 0,
        height: 0,
    });
    assert_eq!(canvas.follow(&mut display), 315);
    fixture.screen.set_size(SMALL);
    canvas.catch_up(&mut display, &fixture.screen);
}

#[test]
fn a_client_that_does_not_initialise_its_display_holds_up_nobody() {
    let fixture = fixture();
    let (mut main, session) = fixture.main();
    let _display = fixture
        .link(DISPLAY, session)
        .expect("the session is there");
    main.send(104, &[]);
    main.wait(104);
    let (_other, mut display) = fixture.viewer();
    Canvas::default().catch_up(&mut display, &fixture.screen);
}

#[test]
fn a_client_that_does_not_read_delays_nobody_and_catches_up() {
    let size = Size {
        width: 640,
        height: 480,
    };
    let fixture = Fixture::new(Config::default(), size);
    let (_slow_main, mut slow) = fixture.viewer();
    let (_main, mut display) = fixture.viewer();
    let mut canvas = Canvas::default();
    canvas.catch_up(&mut display, &fixture.screen);

    // Some 15 MB of noise, of which the slow client reads nothing.
    let start = Instant::now();
    for step in 0..12 {
        fixture.screen.draw(Rect::of_size(size), |x, y| {
            (x * 7919 + y * 104_729 + step).wrapping_mul(2_654_435_761) >> 7
        });
        canvas.catch_up(&mut display, &fixture.screen);
    }
    assert!(start.elapsed() < Duration::from_secs(60));

    let sessions = fixture.server.info().sessions;
    let sent = |index: usize| {
        let channels = &sessions[index].channels;
        channels
            .iter()
            .map(|channel| channel.bytes_out)
            .sum::<u64>()
    };
    let (least, most) = (sent(0).min(sent(1)), sent(0).max(sent(1)));
    assert!(most > 5 * least, "{least} and {most}");
    // It never got old pixels by the dozen: what it gets now leads straight to the screen of now.
    let mut late = Canvas::default();
    late.catch_up(&mut slow, &fixture.screen);
}

#[test]
fn each_display_has_a_channel_of_its_own() {
    let first = Framebuffer::new(SMALL);
    let second = Framebuffer::new(Size {
        width: 20,
        height: 10,
    });
    let sources: Vec<Arc<dyn DisplaySource>> = vec![first.clone(), second.clone()];
    let fixture = Fixture::with_sources(Config::default(), first.clone(), sources);
    second.fill(Rect::of_size(SMALL), 0x12_3456);
    let (mut main, connection) = fixture.main();
    main.send(104, &[]);
    assert_eq!(word(&main.wait(104), 0), 5);
    for (id, screen) in [(0, first), (1, second)] {
        let link = Link {
            channel: DISPLAY,
            id,
            connection,
            ..Link::default()
        };
        let mut display = fixture.connect().link(&link).expect("the session is there");
        display.send(101, &[0; 14]);
        Canvas::default().catch_up(&mut display, &screen);
    }
}

// --- inputs and cursor

#[test]
fn keys_reach_the_guest_and_are_released_when_the_client_vanishes() {
    let fixture = fixture();
    let (main, session) = fixture.main();
    let mut inputs = fixture.link(INPUTS, session).expect("the session is there");
    inputs.wait(101);
    inputs.send(101, &[0x1e, 0, 0, 0]);
    inputs.send(104, &[0x1f, 0x9f]);
    inputs.send(101, &[0xe0, 0x48, 0, 0]);
    inputs.send(102, &[0x9e, 0, 0, 0]);
    let input = || fixture.notes.input.lock().clone();
    wait_for("five keys", || (input().len() == 5).then_some(()));
    assert_eq!(input(), ["+1e", "+1f", "-1f", "+48", "-1e"]);

    // In the middle of a message.
    let torn = inputs.frame(101, 4, &[0x20]);
    inputs.raw.write(&torn);
    drop((main, inputs));
    wait_for("the release", || (input().len() == 6).then_some(()));
    assert_eq!(input()[5], "-48");
}

#[test]
fn every_fourth_motion_is_acknowledged() {
    let fixture = fixture();
    let (_main, session) = fixture.main();
    let mut inputs = fixture.link(INPUTS, session).expect("the session is there");
    inputs.wait(101);
    for _ in 0..9 {
        inputs.send(111, &[1, 0, 0, 0, 2, 0, 0, 0, 0, 0]);
    }
    inputs.wait(111);
    inputs.wait(111);
    assert_eq!(fixture.notes.input.lock()[0], "Motion { dx: 1, dy: 2 }");
}

#[test]
fn places_are_for_guests_with_an_absolute_pointer() {
    let fixture = fixture();
    let (_main, session) = fixture.main();
    let mut inputs = fixture.link(INPUTS, session).expect("the session is there");
    let place = [5, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0];
    for absolute in [false, true] {
        *fixture.notes.absolute.lock() = absolute;
        for _ in 0..4 {
            inputs.send(112, &place);
        }
        inputs.wait(111);
    }
    let expected = "Position { x: 5, y: 6, display: 0 }";
    assert_eq!(*fixture.notes.input.lock(), [expected; 4]);
}

#[test]
fn lamps_are_told() {
    let fixture = fixture();
    let (_main, session) = fixture.main();
    let mut inputs = fixture.link(INPUTS, session).expect("the session is there");
    assert_eq!(inputs.wait(101), [0, 0]);
    *fixture.notes.lamps.lock() = Locks {
        scroll: false,
        num: true,
        caps: true,
    };
    fixture.server.refresh_locks();
    assert_eq!(inputs.wait(102), [6, 0]);
}

#[test]
fn the_cursor_comes_moves_and_goes() {
    let fixture = fixture();
    let (_main, session) = fixture.main();
    let mut cursor = fixture.link(CURSOR, session).expect("the session is there");
    // Nothing at (0, 0), no trail, invisible, no shape.
    assert_eq!(cursor.next(), (101, vec![0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]));

    let data = vec![3; 2 * 2 * 4];
    let kind = CursorKind::Alpha;
    let image = CursorImage {
        kind,
        width: 2,
        height: 2,
        hot_x: 1,
        hot_y: 0,
        data,
    };
    fixture.screen.set_cursor(Some(image));
    let (kind, set) = cursor.next();
    assert_eq!((kind, set.len()), (103, 5 + 2 + 17 + 16));

    fixture.screen.move_cursor(Point { x: 7, y: -1 });
    assert_eq!(cursor.next(), (104, vec![7, 0, 255, 255]));
    fixture.screen.show_cursor(false);
    assert_eq!(cursor.next(), (105, vec![]));
}

// --- clients that break the protocol

#[test]
fn a_message_over_the_limit_ends_that_client_only() {
    let fixture = fixture();
    let (mut good, _) = fixture.main();
    for (channel, limit) in [
        (MAIN, 65_536),
        (INPUTS, 4096),
        (CURSOR, 4096),
        (DISPLAY, 4096),
    ] {
        let (mut main, session) = fixture.main();
        if channel == MAIN {
            let frame = main.frame(107, limit + 1, &[]);
            main.raw.write(&frame);
        } else {
            let mut victim = fixture
                .link(channel, session)
                .expect("the session is there");
            let frame = victim.frame(107, limit + 1, &[]);
            victim.raw.write(&frame);
        }
        assert!(main.is_ended());
        let oversized = Ending::Oversized {
            kind: 107,
            size: limit + 1,
            limit,
        };
        assert_eq!(ending_of(&fixture, session), oversized);
    }
    good.send(104, &[]);
    good.wait(104);
}

#[test]
fn a_message_that_is_too_short_ends_that_client_only() {
    let fixture = fixture();
    let (mut good, _) = fixture.main();
    let kinds = [
        (INPUTS, 101),
        (INPUTS, 103),
        (INPUTS, 112),
        (DISPLAY, 101),
        (DISPLAY, 103),
    ];
    for (channel, kind) in kinds {
        let (mut main, session) = fixture.main();
        let mut victim = fixture
            .link(channel, session)
            .expect("the session is there");
        victim.send(kind, &[]);
        assert!(victim.is_ended() && main.is_ended());
        assert!(matches!(
            ending_of(&fixture, session),
            Ending::Malformed { .. }
        ));
    }
    good.send(104, &[]);
    good.wait(104);
}

#[test]
fn clients_that_vanish_anywhere_leave_nothing_behind() {
    let fixture = fixture();
    for length in 0..8 {
        let (main, mut display) = fixture.viewer();
        let frame = display.frame(102, 32, &[9; 32]);
        display.raw.write(&frame[..length]);
        drop((main, display));
    }
    wait_for("the end of all sessions", || {
        fixture.server.info().sessions.is_empty().then_some(())
    });
    // One is the fixture's, two are its thread's; a channel that lived on would hold one more.
    wait_for("the end of all channels", || {
        (Arc::strong_count(&fixture.server) <= 3).then_some(())
    });
    let (_main, mut display) = fixture.viewer();
    Canvas::default().catch_up(&mut display, &fixture.screen);
}

#[test]
fn clients_that_babble_harm_nobody() {
    let fixture = fixture();
    let (_good, mut display) = fixture.viewer();
    let mut canvas = Canvas::default();
    canvas.catch_up(&mut display, &fixture.screen);
    let mut rng = StdRng::seed_from_u64(0x5133);
    for round in 0..40u8 {
        let channel = [MAIN, DISPLAY, INPUTS, CURSOR][usize::from(round % 4)];
        let (main, session) = fixture.main();
        let mut victim = if channel == MAIN {
            main
        } else {
            fixture
                .link(channel, session)
                .expect("the session is there")
        };
        let mut noise = Vec::new();
        for _ in 0..50 {
            let kind = rng.gen_range(1..120);
            let mut body = vec![0; rng.gen_range(0..40)];
            rng.fill(body.as_mut_slice());
            noise.extend(victim.frame(kind, body.len() as u32, &body));
        }
        noise.extend((0..rng.gen_range(0..60)).map(|_| rng.r#gen::<u8>()));
        // The server may well hang up in the middle of it.
        let _ = victim.raw.0.write_all(&noise);
    }
    fixture.paint(Rect::of_size(SMALL), 3);
    canvas.catch_up(&mut display, &fixture.screen);
}
