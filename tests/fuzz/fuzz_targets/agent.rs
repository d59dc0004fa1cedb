//! The agent's stream from both ends: a guest's agent, and two clients who talk to it.
//!
//! Checked: what the guest is sent is whole chunks of whole messages, whatever clients send; no more
//! is taken from anybody than there is room for; memory is bounded; an agent that comes anew is
//! listened to; nothing of the clients is left.

#![no_main]

use std::time::Duration;

use caraway_fuzz::Dice;
use caraway_fuzz::client::{BUFFER, Channel, PATIENCE};
use caraway_fuzz::memory::Gauge;
use caraway_fuzz::messages::{AUTH_SPICE, Link, MAIN, MINI_HEADER, frame, message};
use caraway_fuzz::server::{Rig, run};
use caraway_spice::{Config, fuzzing};
use libfuzzer_sys::fuzz_target;
use tokio::time::timeout;

#[global_allocator]
static GAUGE: Gauge = Gauge::new();

/// Bytes that a guest's agent and two clients may take.
const MOST_MEMORY: usize = 4 << 20;

/// `VD_AGENT_*`: types of messages, each with how many words its body begins with.
const KINDS: [(u32, usize); 16] = [
    (1, 3),  // MOUSE_STATE
    (2, 7),  // MONITORS_CONFIG
    (3, 2),  // REPLY
    (4, 2),  // CLIPBOARD
    (5, 2),  // DISPLAY_CONFIG
    (6, 2),  // ANNOUNCE_CAPABILITIES
    (7, 3),  // CLIPBOARD_GRAB
    (8, 2),  // CLIPBOARD_REQUEST
    (9, 1),  // CLIPBOARD_RELEASE
    (10, 1), // FILE_XFER_START
    (11, 2), // FILE_XFER_STATUS
    (12, 3), // FILE_XFER_DATA
    (13, 0), // CLIENT_DISCONNECTED
    (14, 1), // MAX_CLIPBOARD
    (15, 4), // AUDIO_VOLUME_SYNC
    (16, 3), // GRAPHICS_DEVICE_INFO
];
/// `VD_AGENT_MAX_DATA_SIZE`.
const MOST_DATA: usize = 2048;
const AGENT_START: u16 = 106;
const AGENT_DATA: u16 = 107;
const AGENT_TOKEN: u16 = 108;

fuzz_target!(|bytes: &[u8]| {
    let peak = GAUGE.peak_of(|| run(both_ends(Dice::new(bytes))));
    assert!(peak <= MOST_MEMORY, "{peak} bytes at a time");
});

async fn both_ends(mut dice: Dice<'_>) {
    let rig = Rig::new(Config::default());
    let mut guest = Guest::default();
    guest.open(&rig);
    let (mut first, first_served) = open(&rig);
    let (mut second, second_served) = open(&rig);
    let talk = async {
        first.hear(Duration::from_millis(1)).await;
        second.hear(Duration::from_millis(1)).await;
        for client in [&mut first, &mut second] {
            let tokens = 10u32.to_le_bytes();
            client
                .say(&[&AGENT_START.to_le_bytes()[..], &4u32.to_le_bytes(), &tokens].concat())
                .await;
        }
        while !dice.is_over() {
            match dice.byte() {
                ..0x70 => guest.say(&mut dice, &rig),
                0x70..0x78 => guest.close(&rig),
                0x78..0x80 => guest.open(&rig),
                0x80..0x90 => guest.hear(&rig),
                0x90..0xe0 => say(&mut dice, &mut first).await,
                _ => say(&mut dice, &mut second).await,
            }
        }
    };
    let served = async { tokio::join!(first_served, second_served) };
    let mut served = std::pin::pin!(served);
    let early = tokio::select! {
        _ = &mut served => true,
        () = talk => false,
    };
    drop((first, second));
    if !early {
        let ended = timeout(PATIENCE, served).await;
        assert!(ended.is_ok(), "a main channel outlives its client");
    }
    rig.assert_clean();
    // Whatever its predecessor did.
    guest.close(&rig);
    guest.open(&rig);
    assert!(
        rig.agent.is_usable(),
        "an agent that came anew is not listened to"
    );
    let announcement = packet(6, &[0, 0, 0, 0, 0xff, 0, 0, 0]);
    let chunk = chunk(1, &announcement);
    assert_eq!(rig.agent.write(&chunk), chunk.len(), "and not read");
}

/// A client's main channel, and the server's side of it.
fn open(rig: &Rig) -> (Channel, impl Future<Output = bool> + use<>) {
    let link = Link {
        session: 0,
        kind: MAIN,
        id: 0,
        common: vec![AUTH_SPICE | MINI_HEADER],
        // Name and UUID, tokens at connect.
        channel: vec![0xf],
    };
    let (ours, theirs) = tokio::io::duplex(BUFFER);
    let server = rig.server.clone();
    let served = async move { fuzzing::channel(server, &link.body(&[]), theirs).await };
    (Channel::new(ours, true), served)
}

/// A client says something, mostly to the agent.
async fn say(dice: &mut Dice<'_>, client: &mut Channel) {
    match dice.byte() {
        ..0xc0 => {
            let packet = any_packet(dice);
            let piece = 1 + dice.mostly(MOST_DATA as u64 - 1) as usize % (2 * MOST_DATA);
            for piece in packet.chunks(piece) {
                let bytes = frame(dice, true, AGENT_DATA, piece);
                client.say(&bytes).await;
            }
        }
        0xc0..0xe0 => {
            let tokens = (dice.field() as u32).to_le_bytes();
            let bytes = frame(dice, true, AGENT_TOKEN, &tokens);
            client.say(&bytes).await;
        }
        0xe0..0xf0 => client.hear(Duration::from_millis(dice.byte().into())).await,
        _ => {
            let (kind, body) = message(dice, MAIN);
            let bytes = frame(dice, true, kind, &body);
            client.say(&bytes).await;
        }
    }
}

/// A `VDAgentMessage`.
fn packet(kind: u32, body: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    for word in [1, kind, 0, 0, body.len() as u32] {
        packet.extend(word.to_le_bytes());
    }
    packet.extend(body);
    packet
}

/// One that is mostly sound, of any length up to several hundred KiB.
fn any_packet(dice: &mut Dice<'_>) -> Vec<u8> {
    let (kind, words) = dice.pick(&KINDS);
    let mut body = Vec::new();
    for _ in 0..words {
        body.extend((dice.field() as u32).to_le_bytes());
    }
    body.extend(dice.bytes(100).repeat(dice.pick(&[1, 1, 1, 1, 30, 1000])));
    let mut packet = packet(kind, &body);
    if dice.rarely() {
        let size = dice.mostly(body.len() as u64) as u32;
        packet[16..20].copy_from_slice(&size.to_le_bytes());
    }
    if dice.rarely() {
        let at = dice.up_to(packet.len() - 1);
        packet[at] = dice.byte();
    }
    packet
}

/// A `VDIChunkHeader` and what it is of.
fn chunk(port: u32, bytes: &[u8]) -> Vec<u8> {
    [
        &port.to_le_bytes()[..],
        &(bytes.len() as u32).to_le_bytes(),
        bytes,
    ]
    .concat()
}

/// The guest's end.
#[derive(Default)]
struct Guest {
    /// What came and is no whole chunk yet.
    chunks: Vec<u8>,
    /// What came in chunks of each port and is no whole message yet.
    messages: [Vec<u8>; 2],
}

impl Guest {
    fn open(&mut self, rig: &Rig) {
        *self = Self::default();
        rig.agent.open();
    }

    fn close(&mut self, rig: &Rig) {
        rig.agent.close();
        *self = Self::default();
    }

    fn say(&mut self, dice: &mut Dice<'_>, rig: &Rig) {
        let packet = any_packet(dice);
        let piece = 1 + dice.mostly(packet.len() as u64) as usize % (1 << 20);
        for piece in packet.chunks(piece) {
            let port = dice.mostly(1) as u32;
            let mut bytes = chunk(port, piece);
            if dice.rarely() {
                let at = dice.up_to(bytes.len() - 1);
                bytes[at] = dice.byte();
            }
            let taken = rig.agent.write(&bytes);
            assert!(taken <= bytes.len());
            if taken < bytes.len() {
                // What is not taken now is offered again, once.
                self.hear(rig);
                rig.agent.write(&bytes[taken..]);
            }
        }
    }

    /// Takes all that is there for the guest.
    fn hear(&mut self, rig: &Rig) {
        let mut buffer = [0; 4096];
        loop {
            let count = rig.agent.read(&mut buffer);
            if count == 0 {
                break;
            }
            self.chunks.extend(&buffer[..count]);
        }
        let mut at = 0;
        while let Some(header) = self.chunks.get(at..at + 8) {
            let word = |at: usize| {
                u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
            };
            let (port, size) = (word(0), word(4) as usize);
            assert!(matches!(port, 1 | 2), "a chunk for port {port}");
            assert!(size <= MOST_DATA, "a chunk of {size} bytes");
            let Some(bytes) = self.chunks.get(at + 8..at + 8 + size) else {
                break;
            };
            self.messages[port as usize - 1].extend(bytes);
            at += 8 + size;
        }
        self.chunks.drain(..at);
        for stream in &mut self.messages {
            let mut at = 0;
            while let Some(header) = stream.get(at..at + 20) {
                let word = |at: usize| {
                    u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
                };
                assert_eq!(word(0), 1, "the agent's protocol");
                let size = word(16) as usize;
                assert!(size <= (100 << 20) + 64, "a message of {size} bytes");
                if stream.len() < at + 20 + size {
                    break;
                }
                at += 20 + size;
            }
            stream.drain(..at);
        }
    }
}
