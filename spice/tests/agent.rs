//! The guest's agent on the wire: what a client gets on its main channel, and what the guest's end
//! of the port does.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

mod common;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use caraway_spice::{Agent, Config, Devices, Framebuffer, Size};

use common::{Channel, Fixture, INPUTS, Link, MAIN, wait_for, word};

const CONNECTED: u16 = 107;
const DISCONNECTED: u16 = 108;
const DATA: u16 = 109;
const TOKEN: u16 = 110;
const CONNECTED_TOKENS: u16 = 115;
const C_START: u16 = 106;
const C_DATA: u16 = 107;
const ANNOUNCE: u32 = 6;
/// Pointer, monitors, clipboard by demand, selections.
const CAPS: u32 = 0b110_0011;

fn fixture() -> (Fixture, Arc<Agent>) {
    let agent = Agent::new();
    let screen = Framebuffer::new(Size {
        width: 64,
        height: 64,
    });
    let devices = Devices {
        displays: vec![screen.clone()],
        agent: Some(agent.clone()),
        ..Devices::default()
    };
    let fixture = Fixture::with_devices(Config::default(), screen, devices);
    (fixture, agent)
}

/// A main channel of a client that counts its tokens anew with each agent, and its `INIT`.
fn client(fixture: &Fixture) -> (Channel, Vec<u8>) {
    let link = Link {
        channel: MAIN,
        channel_caps: &[0b1111],
        ..Link::default()
    };
    let mut main = fixture.connect().link(&link).unwrap();
    let init = main.wait(103);
    (main, init)
}

fn message(kind: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in [1, kind, 0, 0, body.len() as u32] {
        bytes.extend(field.to_le_bytes());
    }
    bytes.extend(body);
    bytes
}

fn from_guest(kind: u32, body: &[u8]) -> Vec<u8> {
    let message = message(kind, body);
    let mut bytes = 1_u32.to_le_bytes().to_vec();
    bytes.extend((message.len() as u32).to_le_bytes());
    bytes.extend(message);
    bytes
}

fn announcement(request: u32) -> Vec<u8> {
    [request.to_le_bytes(), CAPS.to_le_bytes()].concat()
}

/// Reads the guest's end until a chunk's message is of this kind.
fn wait_at_guest(agent: &Agent, kind: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    wait_for("a message for the agent", || {
        let mut buffer = [0; 4096];
        let count = agent.read(&mut buffer);
        bytes.extend_from_slice(&buffer[..count]);
        let mut rest = bytes.as_slice();
        while rest.len() >= 8 {
            let size = word(rest, 4) as usize;
            let chunk = rest.get(8..8 + size)?;
            if word(chunk, 4) == kind {
                return Some(chunk[20..].to_vec());
            }
            rest = &rest[8 + size..];
        }
        None
    })
}

#[test]
fn a_client_is_told_at_once_whether_there_is_an_agent() {
    let (fixture, agent) = fixture();
    let (_without, init) = client(&fixture);
    assert_eq!((word(&init, 16), word(&init, 20)), (0, 10));
    agent.open();

    let (_with, init) = client(&fixture);

    assert_eq!((word(&init, 16), word(&init, 20)), (1, 10));
}

#[test]
fn a_client_hears_of_an_agent_that_comes_and_goes() {
    let (fixture, agent) = fixture();
    let (mut main, _) = client(&fixture);
    let (mut old, _) = fixture.main();

    agent.open();
    assert_eq!(main.wait(CONNECTED_TOKENS), 10_u32.to_le_bytes());
    assert_eq!(old.wait(CONNECTED), []);
    agent.close();

    assert_eq!(main.wait(DISCONNECTED), 0_u32.to_le_bytes());
    assert_eq!(old.wait(DISCONNECTED), 0_u32.to_le_bytes());
}

#[test]
fn messages_reach_the_other_end() {
    let (fixture, agent) = fixture();
    agent.open();
    agent.write(&from_guest(ANNOUNCE, &announcement(1)));
    let (mut main, _) = client(&fixture);
    main.send(C_START, &u32::MAX.to_le_bytes());
    main.send(C_DATA, &message(ANNOUNCE, &announcement(1)));

    let answer = main.wait(DATA);
    let asked = wait_at_guest(&agent, ANNOUNCE);

    assert_eq!(word(&answer, 4), ANNOUNCE);
    assert_eq!(answer[20..], announcement(0));
    assert_eq!(word(&asked, 0), 1);
}

#[test]
fn no_more_is_sent_than_a_client_gave_tokens_for() {
    let (fixture, agent) = fixture();
    agent.open();
    let (mut main, _) = client(&fixture);
    main.send(C_START, &2_u32.to_le_bytes());
    main.send(C_DATA, &message(99, b"here"));
    wait_at_guest(&agent, 99);
    for _ in 0..5 {
        agent.write(&from_guest(98, b"x"));
    }

    main.wait(DATA);
    main.wait(DATA);
    // A goodbye is not preceded by a third.
    fixture.server.shutdown();

    loop {
        match main.next().0 {
            6 => break,
            kind => assert_ne!(kind, DATA),
        }
    }
}

#[test]
fn tokens_are_given_back_in_lots() {
    let (fixture, agent) = fixture();
    agent.open();
    let (mut main, _) = client(&fixture);
    main.send(C_START, &1_u32.to_le_bytes());
    for _ in 0..5 {
        main.send(C_DATA, &message(99, &[]));
    }

    assert_eq!(main.wait(TOKEN), 5_u32.to_le_bytes());
}

#[test]
fn a_client_that_speaks_another_protocol_loses_its_session() {
    let (fixture, agent) = fixture();
    agent.open();
    let (mut main, _) = client(&fixture);
    let (mut other, _) = client(&fixture);
    main.send(C_START, &1_u32.to_le_bytes());

    main.send(C_DATA, &[7; 20]);

    assert!(main.is_ended());
    other.send(C_START, &1_u32.to_le_bytes());
    other.send(C_DATA, &message(99, b"fine"));
    assert_eq!(wait_at_guest(&agent, 99), b"fine");
}

#[test]
fn an_agent_that_moves_the_pointer_makes_it_absolute() {
    let (fixture, agent) = fixture();
    let (mut main, init) = client(&fixture);
    assert_eq!(word(&init, 8), 1, "the server's mode only");
    let mut inputs = fixture.link(INPUTS, word(&init, 0)).unwrap();

    agent.open();
    agent.write(&from_guest(ANNOUNCE, &announcement(1)));
    assert_eq!(main.wait(105), [3, 0, 2, 0]);
    let position = [&[5, 0, 0, 0, 6, 0, 0, 0][..], &[0, 0, 0]].concat();
    inputs.send(112, &position);
    let state = wait_at_guest(&agent, 1);

    assert_eq!(state, [5, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(fixture.notes.input.lock().as_slice(), [] as [&str; 0]);
    agent.close();
    assert_eq!(main.wait(105), [1, 0, 1, 0]);
}

#[test]
fn a_socket_can_carry_the_guest_s_end() {
    let (fixture, agent) = fixture();
    let (mut guest, server) = UnixStream::pair().unwrap();
    server.set_nonblocking(true).unwrap();
    let carried = agent.clone();
    let carrying = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let stream = tokio::net::UnixStream::from_std(server).unwrap();
            carried.carry(stream).await
        })
    });
    let (mut main, _) = client(&fixture);
    if !agent.info().connected {
        main.wait(CONNECTED_TOKENS);
    }
    main.send(C_START, &u32::MAX.to_le_bytes());
    main.send(C_DATA, &message(99, b"down"));
    let mut down = [0; 32];
    guest.read_exact(&mut down).unwrap();
    let long = vec![3; 1 << 20];
    let bytes = from_guest(98, &long);
    // More than sockets hold: it goes as fast as the client reads.
    let writing = std::thread::spawn(move || guest.write_all(&bytes).map(|()| guest));

    let mut up = Vec::new();
    while up.len() < 20 + long.len() {
        up.extend(main.wait(DATA));
    }
    drop(writing.join().unwrap().unwrap());

    assert_eq!(&down[28..], b"down");
    assert_eq!(&up[20..], &long);
    assert!(carrying.join().unwrap().is_ok());
    main.wait(DISCONNECTED);
}
