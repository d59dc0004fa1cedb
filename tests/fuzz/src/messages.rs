//! What clients send on each channel (`spice.proto`), as tables.

use crate::Dice;

/// Every channel's number on the wire, whether or not the server has it.
pub const MAIN: u8 = 1;
#[expect(missing_docs, reason = "see MAIN")]
pub const DISPLAY: u8 = 2;
#[expect(missing_docs, reason = "see MAIN")]
pub const INPUTS: u8 = 3;
#[expect(missing_docs, reason = "see MAIN")]
pub const CURSOR: u8 = 4;
#[expect(missing_docs, reason = "see MAIN")]
pub const PLAYBACK: u8 = 5;
#[expect(missing_docs, reason = "see MAIN")]
pub const RECORD: u8 = 6;
#[expect(missing_docs, reason = "see MAIN")]
pub const USBREDIR: u8 = 9;
#[expect(missing_docs, reason = "see MAIN")]
pub const PORT: u8 = 10;
#[expect(missing_docs, reason = "see MAIN")]
pub const WEBDAV: u8 = 11;

/// A message: its type, its integers' widths in bytes, and how many bytes of anything may follow.
struct Shape(u16, &'static [u8], usize);

const COMMON: &[Shape] = &[
    Shape(1, &[4], 0),    // ACK_SYNC
    Shape(2, &[], 0),     // ACK
    Shape(3, &[4, 8], 0), // PONG
    Shape(4, &[], 0),     // MIGRATE_FLUSH_MARK
    Shape(5, &[], 64),    // MIGRATE_DATA
    Shape(6, &[8, 4], 0), // DISCONNECTING
];

const OF_MAIN: &[Shape] = &[
    Shape(101, &[8], 0),             // CLIENT_INFO
    Shape(102, &[], 0),              // MIGRATE_CONNECTED
    Shape(103, &[], 0),              // MIGRATE_CONNECT_ERROR
    Shape(104, &[], 0),              // ATTACH_CHANNELS
    Shape(105, &[2], 0),             // MOUSE_MODE_REQUEST
    Shape(106, &[4], 0),             // AGENT_START
    Shape(107, &[4, 4, 8, 4], 2048), // AGENT_DATA, the head of a VDAgentMessage in it
    Shape(108, &[4], 0),             // AGENT_TOKEN
    Shape(109, &[], 0),              // MIGRATE_END
    Shape(110, &[4], 0),             // MIGRATE_DST_DO_SEAMLESS
    Shape(111, &[], 0),              // MIGRATE_CONNECTED_SEAMLESS
    Shape(112, &[4], 0),             // QUALITY_INDICATOR
];

const OF_DISPLAY: &[Shape] = &[
    Shape(101, &[1, 8, 1, 4], 0),          // INIT
    Shape(102, &[4, 4, 4, 4, 4, 4, 4], 0), // STREAM_REPORT
    Shape(103, &[1], 0),                   // PREFERRED_COMPRESSION
    Shape(104, &[4], 0),                   // GL_DRAW_DONE
    Shape(105, &[1], 16),                  // PREFERRED_VIDEO_CODEC_TYPE
];

const OF_INPUTS: &[Shape] = &[
    Shape(101, &[4], 0),          // KEY_DOWN
    Shape(102, &[4], 0),          // KEY_UP
    Shape(103, &[2], 0),          // KEY_MODIFIERS
    Shape(104, &[], 32),          // KEY_SCANCODE
    Shape(111, &[4, 4, 2], 0),    // MOUSE_MOTION
    Shape(112, &[4, 4, 2, 1], 0), // MOUSE_POSITION
    Shape(113, &[1, 2], 0),       // MOUSE_PRESS
    Shape(114, &[1, 2], 0),       // MOUSE_RELEASE
];

const OF_RECORD: &[Shape] = &[
    Shape(101, &[4], 2048), // DATA
    Shape(102, &[4, 2], 0), // MODE
    Shape(103, &[4], 0),    // START_MARK
];

const OF_PIPE: &[Shape] = &[
    Shape(101, &[], 4096),     // SPICEVMC_DATA
    Shape(102, &[1, 4], 1024), // SPICEVMC_COMPRESSED_DATA
    Shape(201, &[1], 0),       // PORT_EVENT
];

fn shapes(channel: u8) -> &'static [Shape] {
    match channel {
        MAIN => OF_MAIN,
        DISPLAY => OF_DISPLAY,
        INPUTS => OF_INPUTS,
        RECORD => OF_RECORD,
        USBREDIR | PORT | WEBDAV => OF_PIPE,
        _ => COMMON,
    }
}

/// A message's type and body: mostly one that belongs on `channel` and is well formed.
pub fn message(dice: &mut Dice<'_>, channel: u8) -> (u16, Vec<u8>) {
    let table = match dice.byte() {
        ..0xc0 => shapes(channel),
        0xc0..0xf0 => COMMON,
        _ => shapes(dice.byte() % 12),
    };
    let Shape(kind, widths, tail) = &table[dice.up_to(table.len() - 1)];
    let mut body = Vec::new();
    for &width in *widths {
        body.extend(&dice.field().to_le_bytes()[..width.into()]);
    }
    body.extend(dice.bytes(*tail));
    if dice.rarely() {
        body.truncate(dice.up_to(body.len()));
    }
    if dice.rarely() {
        body.extend(dice.bytes(64));
    }
    (dice.mostly((*kind).into()) as u16, body)
}

/// The message as the link agreed to frame it; rarely with a size that is not its body's.
pub fn frame(dice: &mut Dice<'_>, mini: bool, kind: u16, body: &[u8]) -> Vec<u8> {
    let size = dice.mostly(body.len() as u64) as u32;
    let mut frame = Vec::new();
    if !mini {
        frame.extend(dice.field().to_le_bytes());
    }
    frame.extend(kind.to_le_bytes());
    frame.extend(size.to_le_bytes());
    if !mini {
        frame.extend((dice.mostly(0) as u32).to_le_bytes());
    }
    frame.extend(body);
    frame
}

/// The body of a `SpiceLinkMess`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The session to join; 0 makes one.
    pub session: u32,
    /// The channel's kind.
    pub kind: u8,
    /// Which one of that kind.
    pub id: u8,
    /// Common capabilities.
    pub common: Vec<u32>,
    /// The channel's capabilities.
    pub channel: Vec<u32>,
}

/// `SPICE_COMMON_CAP_*`, as masks.
pub const AUTH_SELECTION: u32 = 1;
#[expect(missing_docs, reason = "see AUTH_SELECTION")]
pub const AUTH_SPICE: u32 = 2;
#[expect(missing_docs, reason = "see AUTH_SELECTION")]
pub const MINI_HEADER: u32 = 8;

impl Link {
    /// The message with its capabilities `gap` bytes behind the fixed part.
    pub fn body(&self, gap: &[u8]) -> Vec<u8> {
        let mut body = self.session.to_le_bytes().to_vec();
        body.extend([self.kind, self.id]);
        let offset = 18 + gap.len() as u32;
        for word in [self.common.len() as u32, self.channel.len() as u32, offset] {
            body.extend(word.to_le_bytes());
        }
        body.extend(gap);
        let words = self.common.iter().chain(&self.channel);
        body.extend(words.flat_map(|word| word.to_le_bytes()));
        body
    }
}
