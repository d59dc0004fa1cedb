//! Ports, shared folders and USB redirection, with a scripted client.

#![allow(clippy::panic, reason = "a test says no by a panic")]

mod common;

use std::sync::Arc;

use caraway_spice::{
    Config, Devices, Ending, Framebuffer, Pipe, PipeEvent, Port, SessionEvent, Size,
};
use common::{Channel, Fixture, Link, PORT, USBREDIR, WEBDAV, wait_for, word};

const DATA: u16 = 101;
const COMPRESSED: u16 = 102;
const INIT: u16 = 201;
const EVENT: u16 = 202;
const CHANNELS_LIST: u16 = 104;
const WITH_LZ4: &[u32] = &[1];

fn fixture(devices: Devices) -> Fixture {
    let screen = Framebuffer::new(Size {
        width: 64,
        height: 48,
    });
    Fixture::with_devices(Config::default(), screen, devices)
}

/// A server with one port that is called `console`.
fn with_port() -> (Fixture, Arc<Pipe>) {
    let pipe = Pipe::new();
    let port = Port {
        name: "console".into(),
        pipe: pipe.clone(),
    };
    let devices = Devices {
        ports: vec![port],
        ..Devices::default()
    };
    (fixture(devices), pipe)
}

fn with_slot() -> (Fixture, Arc<Pipe>) {
    let slot = Pipe::new();
    let devices = Devices {
        usb_slots: vec![slot.clone()],
        ..Devices::default()
    };
    (fixture(devices), slot)
}

fn join(fixture: &Fixture, channel: u8, connection: u32, channel_caps: &[u32]) -> Channel {
    let link = Link {
        channel,
        connection,
        channel_caps,
        ..Link::default()
    };
    fixture.connect().link(&link).expect("the session is there")
}

fn next(pipe: &Pipe) -> PipeEvent {
    wait_for("something from the client", || pipe.take())
}

/// What the machine gets until there are `count` bytes.
fn bytes(pipe: &Pipe, count: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < count {
        match next(pipe) {
            PipeEvent::Bytes(bytes) => all.extend(bytes),
            other => panic!("{other:?}"),
        }
    }
    all
}

fn listed(main: &mut Channel) -> Vec<(u8, u8)> {
    let list = main.wait(CHANNELS_LIST);
    let channels: Vec<_> = list[4..].chunks(2).map(|pair| (pair[0], pair[1])).collect();
    assert_eq!(word(&list, 0) as usize, channels.len());
    channels
}

/// Bytes that are never the same twice in a row, so that a loss shows.
fn counted(count: u32) -> Vec<u8> {
    (0..count).map(|n| (n ^ n >> 8 ^ n >> 16) as u8).collect()
}

#[test]
fn a_port_tells_its_name_and_its_opening() {
    let (fixture, pipe) = with_port();
    let (_main, session) = fixture.main();
    let mut port = join(&fixture, PORT, session, &[]);
    assert_eq!(
        port.next(),
        (INIT, b"\x08\0\0\0\x09\0\0\0\0console\0".to_vec())
    );
    pipe.open();
    assert_eq!(port.next(), (EVENT, vec![0]));
    pipe.close();
    assert_eq!(port.next(), (EVENT, vec![1]));
}

#[test]
fn bytes_and_breaks_go_both_ways() {
    let (fixture, pipe) = with_port();
    pipe.open();
    let (_main, session) = fixture.main();
    let mut port = join(&fixture, PORT, session, &[]);
    port.send(DATA, b"to the guest");
    port.send(201, &[2]);
    assert_eq!(next(&pipe), PipeEvent::Joined);
    assert_eq!(next(&pipe), PipeEvent::Bytes(b"to the guest".to_vec()));
    assert_eq!(next(&pipe), PipeEvent::Break);
    pipe.send(b"to the client");
    pipe.send_break();
    assert_eq!(port.wait(DATA), b"to the client");
    assert_eq!(port.next(), (EVENT, vec![2]));
}

#[test]
fn clients_with_lz4_get_and_send_compressed_bytes() {
    let (fixture, pipe) = with_port();
    pipe.open();
    let (_main, session) = fixture.main();
    let mut port = join(&fixture, PORT, session, WITH_LZ4);
    assert_eq!(next(&pipe), PipeEvent::Joined);

    let text = b"the same again, ".repeat(300);
    pipe.send(&text);
    let packed = port.wait(COMPRESSED);
    assert_eq!((packed[0], word(&packed, 1) as usize), (1, text.len()));
    assert!(packed.len() < text.len() / 10);
    let plain = lz4_flex::block::decompress(&packed[5..], text.len());
    assert_eq!(plain.ok().as_deref(), Some(text.as_slice()));

    port.send(COMPRESSED, &packed);
    assert!(bytes(&pipe, text.len()) == text);
}

#[test]
fn a_slow_machine_makes_its_client_wait_and_nobody_else() {
    let (fixture, pipe) = with_port();
    pipe.open();
    let (_main, session) = fixture.main();
    let port = join(&fixture, PORT, session, &[]);
    assert_eq!(next(&pipe), PipeEvent::Joined);
    let all = counted(24_000_000);
    let sender = std::thread::spawn({
        let all = all.clone();
        let mut port = port;
        move || {
            for chunk in all.chunks(50_000) {
                port.send(DATA, chunk);
            }
            port
        }
    });

    // Meanwhile, somebody else works undisturbed, and the sender is held up.
    let (mut other, _) = fixture.main();
    other.send(104, &[]);
    listed(&mut other);
    assert!(!sender.is_finished());

    assert!(bytes(&pipe, all.len()) == all);
    drop(sender.join());
}

#[test]
fn a_slow_client_makes_the_machine_wait_and_loses_nothing() {
    let (fixture, pipe) = with_port();
    pipe.open();
    let (_main, session) = fixture.main();
    let mut port = join(&fixture, PORT, session, &[]);
    assert_eq!(next(&pipe), PipeEvent::Joined);
    let all = counted(8_000_000);
    let mut sent = 0;
    wait_for("a full pipe", || {
        let now = pipe.send(&all[sent..]);
        sent += now;
        // Its socket drains the pipe for a while.
        std::thread::sleep(std::time::Duration::from_millis(5));
        (pipe.room() == 0 && now == 0).then_some(())
    });
    assert!(sent < all.len());

    let mut got = Vec::new();
    while got.len() < all.len() {
        sent += pipe.send(&all[sent..]);
        got.extend(port.wait(DATA));
    }
    assert!(got == all);
}

#[test]
fn the_first_client_keeps_a_port_and_the_next_has_it_afterwards() {
    let (fixture, pipe) = with_port();
    pipe.open();
    let (first_main, session) = fixture.main();
    let mut first = join(&fixture, PORT, session, &[]);
    assert_eq!(first.wait(EVENT), [0]);
    let (_main, session) = fixture.main();
    let mut second = join(&fixture, PORT, session, &[]);
    second.send(DATA, b"second");
    first.send(DATA, b"first");
    assert_eq!(next(&pipe), PipeEvent::Joined);
    assert_eq!(next(&pipe), PipeEvent::Bytes(b"first".to_vec()));
    assert_eq!(second.next().0, INIT);

    drop((first, first_main));
    assert_eq!(next(&pipe), PipeEvent::Left);
    assert_eq!(next(&pipe), PipeEvent::Joined);
    assert_eq!(next(&pipe), PipeEvent::Bytes(b"second".to_vec()));
    assert_eq!(second.next(), (EVENT, vec![0]));
}

#[test]
fn shared_folders_are_a_port_of_their_own_kind() {
    let pipe = Pipe::new();
    let fixture = fixture(Devices {
        webdav: Some(pipe.clone()),
        ..Devices::default()
    });
    pipe.open();
    let (_main, session) = fixture.main();
    let mut folders = join(&fixture, WEBDAV, session, &[]);
    let init = folders.wait(INIT);
    assert_eq!(&init[9..], b"org.spice-space.webdav.0\0");
    assert_eq!(folders.wait(EVENT), [0]);
    folders.send(DATA, b"x");
    assert_eq!(next(&pipe), PipeEvent::Joined);
    assert_eq!(next(&pipe), PipeEvent::Bytes(b"x".to_vec()));
}

#[test]
fn a_usb_slot_is_offered_once_something_is_behind_it() {
    let (fixture, slot) = with_slot();
    let (mut main, session) = fixture.main();
    let nothing = Link {
        channel: USBREDIR,
        connection: session,
        ..Link::default()
    };
    assert!(fixture.connect().link(&nothing).is_err());
    main.send(104, &[]);
    assert!(!listed(&mut main).contains(&(USBREDIR, 0)));

    slot.open();
    // Only the new one: clients would open the others a second time.
    assert_eq!(listed(&mut main), [(USBREDIR, 0)]);
    let mut usb = join(&fixture, USBREDIR, session, &[]);
    slot.send(b"hello");
    assert_eq!(next(&slot), PipeEvent::Joined);
    wait_for("room", || (slot.send(b"hello") > 0).then_some(()));
    assert_eq!(&usb.wait(DATA)[..5], b"hello");

    slot.close();
    assert!(usb.is_ended());
    slot.open();
    assert_eq!(listed(&mut main), [(USBREDIR, 0)]);
}

#[test]
fn bytes_that_do_not_decompress_end_that_client_only() {
    let (fixture, _pipe) = with_port();
    let (mut good, _) = fixture.main();
    let (mut main, session) = fixture.main();
    let mut port = join(&fixture, PORT, session, WITH_LZ4);
    port.send(COMPRESSED, &[1, 255, 255, 255, 255, 0]);
    assert!(main.is_ended());
    let gone = |event: &SessionEvent| matches!(event, SessionEvent::Disconnected { .. });
    match fixture.notes.wait_event(gone) {
        SessionEvent::Disconnected { reason, .. } => {
            assert!(matches!(
                reason,
                Ending::Malformed {
                    kind: COMPRESSED,
                    ..
                }
            ));
        }
        other => panic!("{other:?}"),
    }
    good.send(104, &[]);
    listed(&mut good);
}
