//! Sessions in a file that a guest plays without knowing what they mean.
//!
//! Everything is words of eight bytes, little-endian. First [`MAGIC`], the heap's address, the number
//! of sessions, that of surfaces, and for each surface: its number, BAR, offset there, bytes from row to row, bytes of a
//! row, pixels across and down, then a row's [`Surface::visible`] bytes, filled up to whole words. Each
//! session then has its seed, the bytes of its heap, the number of its steps; the heap,
//! filled up to whole words; and the steps, four words each: a command has its
//! `QXLCommand.type` and its address; a check has 0, the surface's place in the list, the hash of
//! what it must have ([`hash`]) and the number of the draw command before it.

use std::cell::RefCell;
use std::ops::RangeInclusive;

use crate::{COMMANDS, Command, Heap, SURFACES, Session};

/// The heap's address: in slot 1, after a frame buffer of the usual size.
const HEAP: u64 = 1 << 56 | 16 << 20;

/// "CANVAS 1".
const MAGIC: u64 = u64::from_le_bytes(*b"CANVAS 1");
const CHECK: u64 = 0;

/// Sessions to play, and how the last of them ends.
#[derive(Debug)]
pub struct Stream {
    /// The file.
    pub bytes: Vec<u8>,
    /// The primary surface after the last session, as [`Session::expected`] gives it.
    pub screen: Vec<u8>,
    /// Draw commands in all sessions.
    pub commands: usize,
}

impl Stream {
    /// The sessions of these seeds. Most commands are checked at once; some only after those that
    /// follow, so that the ring has several.
    #[must_use]
    pub fn of(seeds: RangeInclusive<u64>) -> Self {
        let mut file = Words::default();
        file.word(MAGIC);
        file.word(HEAP);
        file.word(seeds.clone().count() as u64);
        file.word(SURFACES.len() as u64);
        for surface in SURFACES {
            let words = [surface.id, surface.bar().into(), surface.offset()];
            let sizes = [surface.stride(), surface.row_len()];
            let pixels = [surface.width, surface.height];
            let words = words.iter().chain(&sizes).chain(&pixels);
            words.for_each(|word| file.word(u64::from(*word)));
            let mask: Vec<u8> = (0..surface.row_len())
                .map(|at| surface.visible(at))
                .collect();
            file.fill(&mask);
        }
        let mut screen = Vec::new();
        let mut commands = 0;
        for seed in seeds {
            screen = play(seed, &mut file);
            commands += COMMANDS;
        }
        Self {
            bytes: file.0,
            screen,
            commands,
        }
    }
}

/// Writes one session down; its screen at the end.
fn play(seed: u64, file: &mut Words) -> Vec<u8> {
    let heap = Image::default();
    let mut session = Session::new(seed);
    let mut steps = Words::default();
    for command in session.begin(&heap) {
        steps.command(command);
    }
    for number in 0..COMMANDS {
        let (command, surface) = session.draw(&heap);
        steps.command(command);
        if !(seed + number as u64).is_multiple_of(4) {
            steps.check(&session, surface.id, number);
        }
    }
    for surface in SURFACES {
        steps.check(&session, surface.id, COMMANDS - 1);
    }
    let heap = heap.0.into_inner();
    file.word(seed);
    file.word(heap.len() as u64);
    file.word(steps.0.len() as u64 / 32);
    file.fill(&heap);
    file.fill(&steps.0);
    session.expected(SURFACES[0])
}

/// FNV-1a of 64 bits.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[derive(Default)]
struct Words(Vec<u8>);

impl Words {
    fn word(&mut self, word: u64) {
        self.0.extend(word.to_le_bytes());
    }

    fn fill(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
        self.0.resize(self.0.len().next_multiple_of(8), 0);
    }

    fn command(&mut self, command: Command) {
        let words = [u64::from(command.kind), command.address, 0, 0];
        words.iter().for_each(|word| self.word(*word));
    }

    fn check(&mut self, session: &Session, surface: u32, number: usize) {
        let hash = hash(&session.expected(SURFACES[surface as usize]));
        let words = [CHECK, surface.into(), hash, number as u64];
        words.iter().for_each(|word| self.word(*word));
    }
}

/// The bytes of a heap.
#[derive(Default)]
struct Image(RefCell<Vec<u8>>);

impl Heap for Image {
    fn put(&self, bytes: &[u8]) -> u64 {
        let mut image = self.0.borrow_mut();
        let at = image.len().next_multiple_of(16);
        image.resize(at, 0);
        image.extend(bytes);
        HEAP + at as u64
    }

    fn patch(&self, address: u64, bytes: &[u8]) {
        let at = (address - HEAP) as usize;
        self.0.borrow_mut()[at..at + bytes.len()].copy_from_slice(bytes);
    }
}
