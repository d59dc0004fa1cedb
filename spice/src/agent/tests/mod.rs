//! A scripted agent and scripted clients around a switchboard.

mod clipboard;
mod flow;
mod random;
mod routes;

use std::time::Duration;

use super::assembler::{Assembler, Piece};
use super::caps::Caps;
use super::client::ToClient;
use super::switchboard::Switchboard;
use super::wire::{MAX_DATA, Outgoing, Port, kind};
use super::{ClientId, Grants};

const ALL: Grants = Grants {
    clipboard: true,
    file_transfer: true,
    control: true,
};
const TEXT: u32 = 1;
const A: ClientId = 7;
const B: ClientId = 9;

/// What spice-vdagentd 0.22 and spice-gtk 0.42 announce.
const VDAGENTD: [u32; 12] = [0, 1, 2, 5, 6, 7, 8, 10, 11, 15, 16, 17];
const SPICE_GTK: [u32; 10] = [0, 1, 2, 4, 5, 6, 12, 14, 16, 17];
/// ryll's, which knows one clipboard and no numbers.
const PLAIN: [u32; 2] = [3, 5];

/// A message as somebody got it.
type Got = (u32, Vec<u8>);

/// A switchboard with its ends, and a clock.
#[derive(Default)]
struct World {
    board: Switchboard,
    now: Duration,
    guest: Vec<u8>,
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn announce(caps: &[u32], request: bool) -> Vec<u8> {
    Caps::default().with(caps).announcement(request)
}

fn chunk(port: u32, bytes: &[u8]) -> Vec<u8> {
    [&words(&[port, bytes.len() as u32]), bytes].concat()
}

fn messages(stream: &[u8]) -> Vec<Got> {
    let mut assembler = Assembler::default();
    let mut found: Vec<Got> = Vec::new();
    let mut stream = stream;
    while let Some(piece) = assembler
        .next(&mut stream)
        .expect("the server's are well formed")
    {
        match piece {
            Piece::Message { header, body, .. } => found.push((header.kind, body.to_vec())),
            Piece::Rest(more) => found.last_mut().expect("it began").1.extend(more),
        }
    }
    found
}

impl World {
    /// An agent as spice-vdagentd, which has announced itself.
    fn with_agent() -> Self {
        let mut world = Self::default();
        world.board.open();
        world.agent(kind::ANNOUNCE_CAPABILITIES, &announce(&VDAGENTD, true));
        world
    }

    /// The agent of [`World::with_agent`] and this client, which know each other.
    fn with_client(id: ClientId, grants: Grants) -> Self {
        let mut world = Self::with_agent();
        world.enter(id, grants, &SPICE_GTK);
        world.agent(kind::ANNOUNCE_CAPABILITIES, &announce(&VDAGENTD, false));
        world.client_got(id);
        world
    }

    fn enter(&mut self, id: ClientId, grants: Grants, caps: &[u32]) {
        assert!(self.board.join(id, grants, true, self.now));
        self.board.start(id, u32::MAX, self.now);
        self.client(id, kind::ANNOUNCE_CAPABILITIES, &announce(caps, true));
        self.agent_got();
    }

    /// The agent sends a message; all of it is taken.
    fn agent(&mut self, kind: u32, body: &[u8]) {
        let bytes = chunk(1, Outgoing::new(kind, body).bytes());
        assert_eq!(self.board.hear_guest(&bytes, self.now), bytes.len());
    }

    fn client(&mut self, id: ClientId, kind: u32, body: &[u8]) {
        for piece in Outgoing::new(kind, body).bytes().chunks(MAX_DATA) {
            self.board
                .hear_client(id, piece.to_vec(), self.now)
                .expect("it is well formed");
            self.guest_reads();
        }
    }

    fn guest_reads(&mut self) {
        let mut buffer = [0; 1000];
        loop {
            let count = self.board.feed_guest(&mut buffer, self.now);
            self.guest.extend(&buffer[..count]);
            if count == 0 {
                break;
            }
        }
    }

    /// What the agent has got since, by the port it came on.
    fn agent_got_on(&mut self, port: Port) -> Vec<Got> {
        self.guest_reads();
        let (mut stream, mut rest) = (Vec::new(), self.guest.as_slice());
        while let Some((head, after)) = rest.split_first_chunk::<8>() {
            let size = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
            assert!(size <= MAX_DATA);
            if u32::from(head[0]) == port as u32 {
                stream.extend(&after[..size]);
            }
            rest = &after[size..];
        }
        messages(&stream)
    }

    /// What the agent has got as from its client, since the last call.
    fn agent_got(&mut self) -> Vec<Got> {
        let got = self.agent_got_on(Port::Client);
        self.guest.clear();
        got
    }

    fn events(&mut self, id: ClientId) -> Vec<ToClient> {
        let mut events = Vec::new();
        while let Some(event) = self.board.next_for(id, self.now).expect("no failure") {
            events.push(event);
        }
        events
    }

    /// What a client has got since the last call.
    fn client_got(&mut self, id: ClientId) -> Vec<Got> {
        let data = self.events(id).into_iter().filter_map(|event| match event {
            ToClient::Data(data) => Some(data),
            _ => None,
        });
        messages(&data.collect::<Vec<_>>().concat())
    }

    fn agent_grabs(&mut self, serial: u32) {
        self.agent(kind::CLIPBOARD_GRAB, &words(&[0, serial, TEXT]));
    }

    fn client_grabs(&mut self, id: ClientId, serial: u32) {
        self.client(id, kind::CLIPBOARD_GRAB, &words(&[0, serial, TEXT]));
    }
}
