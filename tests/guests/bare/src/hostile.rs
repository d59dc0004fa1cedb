//! A driver of no good will: one processor gives the QXL device commands of every kind and writes any
//! port, while another rewrites those commands, what they point to and the rings, at any moment.
//!
//! Whatever the device makes of it, after a reset it draws as if nothing had been.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::busy::{next, ticks_of_a_second};
use crate::cpu::{self, wait_until, write};
use crate::ensure;
use crate::failure::Outcome;
use crate::interrupts;
use crate::qxl::{COMMAND_CURSOR, COMMAND_DRAW, COMMAND_SURFACE, Qxl, port};
use crate::say;
use crate::start_info::StartInfo;

const WIDTH: u32 = 320;
const HEIGHT: u32 = 200;

/// The memory that commands and all of their parts are in.
const HEAP: u64 = 64 << 10;
/// Side of the images.
const SIDE: u32 = 32;
/// The header's start, by which the driver knows the device; it looks at that while this goes on.
const MAGIC: u64 = 8;
/// Ports from here on do not exist.
const PORTS: u64 = 25;

/// What is rewritten: the heap, the header, and the device's address of the heap. Nothing is while the
/// heap is 0.
static HEAP_START: AtomicU64 = AtomicU64::new(0);
static HEAP_ADDRESS: AtomicU64 = AtomicU64::new(0);
static HEADER: AtomicU64 = AtomicU64::new(0);
static HEADER_LEN: AtomicU64 = AtomicU64::new(0);
/// The second processor has stopped.
static STOPPED: AtomicBool = AtomicBool::new(false);

/// A part of a drawable's body (`qxl_dev.h`).
#[derive(Clone, Copy)]
enum Part {
    Image,
    Area,
    Brush,
    Mask,
    Point,
    Path,
    Text,
    Transform,
    Byte(u8),
    Half(u16),
    Word(u32),
    None,
}

use Part::{Area, Brush, Byte, Half, Image, Mask, None, Path, Point, Text, Transform, Word};

/// The bodies by draw type.
const BODIES: [&[Part]; 15] = [
    &[],
    &[Brush, Half(8), Mask],
    &[Image, Area, Brush, Half(8), Byte(0), Mask],
    &[Image, Area, Half(8), Byte(0), Mask],
    &[Point],
    &[Image, Area, Half(0x40), Byte(1), Mask],
    &[Mask],
    &[Mask],
    &[Mask],
    &[Image, Area, Brush, Byte(0x5a), Byte(0), Mask],
    &[
        Path,
        Byte(0),
        Half(0),
        Byte(0),
        Word(0),
        Word(0),
        None,
        Brush,
        Half(8),
        Half(8),
    ],
    &[Text, Area, Brush, Brush, Half(8), Half(8)],
    &[Image, Area, Word(0x7f_7f7f), Word(0x7f_7f7f)],
    &[Half(0), Byte(0x80), Image, Area],
    &[
        Word(0x0103),
        Image,
        Transform,
        Image,
        Transform,
        Word(0),
        Word(0),
    ],
];

/// Commands that are put together anew again and again.
struct Heap<'a> {
    qxl: &'a Qxl,
    start: u64,
    at: u64,
}

impl Heap<'_> {
    /// Room for a structure, and the device's address of it.
    fn take(&mut self, size: u64) -> (u64, u64) {
        if self.at + size > self.start + HEAP {
            self.at = self.start;
        }
        let here = self.at;
        self.at += size.next_multiple_of(8);
        (here, self.qxl.address(here))
    }

    /// Words in a row; the device's address of the first.
    fn words(&mut self, words: &[u32]) -> u64 {
        let (at, address) = self.take(4 * words.len() as u64);
        for (index, word) in (0..).zip(words) {
            write(at + 4 * index, *word);
        }
        address
    }

    /// A chunk of so many bytes, and one more behind it.
    fn chunks(&mut self, bytes: u32) -> u64 {
        let (second, address) = self.take(20 + u64::from(bytes / 2));
        write(second, bytes / 2);
        write(second + 12, 0_u64);
        let (first, start) = self.take(20 + u64::from(bytes / 2));
        write(first, bytes / 2);
        write(first + 12, address);
        start
    }

    /// A bitmap with its data in chunks, or a mask.
    fn image(&mut self, format: u8, bits: u32) -> u64 {
        let stride = SIDE * bits / 8;
        let data = self.chunks(stride * SIDE);
        let palette = if bits <= 8 { self.words(&[0; 16]) } else { 0 };
        let (at, address) = self.take(48);
        write(at + 8, 0_u16);
        write(at + 10, SIDE);
        write(at + 14, SIDE);
        write(at + 18, format);
        write(at + 19, 4_u8);
        for (offset, value) in [(20, SIDE), (24, SIDE), (28, stride)] {
            write(at + offset, value);
        }
        write(at + 32, palette);
        write(at + 40, data);
        address
    }

    /// Writes a part of a body; where the next one goes.
    fn part(&mut self, at: u64, part: Part, random: u64) -> u64 {
        let formats = [(8, 32), (9, 32), (7, 24), (6, 16), (5, 8), (3, 4), (1, 1)];
        let (format, bits) = formats[random as usize % formats.len()];
        let pointer = match part {
            Image => self.image(format, bits),
            // A path of one segment of four points; a string of one glyph; no rotation.
            Path => self.words(&[48, 40, 0, 0, 0, 0, 1, 4, 16, 16, 640, 320, 32, 999]),
            Text => self.words(&[28, 1 | 1 << 16, 28, 0, 0, 0, 0, 4, 9, 0, 0, 8 | 8 << 16, 0]),
            Transform => self.words(&[0x1_0000, 0, 0, 0, 0x1_0000, 0, 0, 0, 0x1_0000]),
            _ => 0,
        };
        match part {
            Image | Path | Text | Transform | None => write(at, pointer),
            Area => {
                for (index, side) in (0..).zip([0, 0, SIDE, SIDE]) {
                    write(at + 4 * index, side);
                }
            }
            Brush if random & 0x100 == 0 => {
                write(at, 1_u32);
                write(at + 4, random as u32);
            }
            Brush => {
                write(at, 2_u32);
                write(at + 4, self.image(format, bits));
            }
            Mask => {
                write(at, 0_u8);
                let pointer = if random & 0x200 == 0 {
                    0
                } else {
                    self.image(1, 1)
                };
                write(at + 9, pointer);
            }
            Point => write(at, random & 0x3f_0000_003f),
            Byte(value) => write(at, value),
            Half(value) => write(at, value),
            Word(value) => write(at, value),
        }
        at + match part {
            Image | Path | Text | Transform | None | Point => 8,
            Area => 16,
            Brush => 20,
            Mask => 17,
            Byte(_) => 1,
            Half(_) => 2,
            Word(_) => 4,
        }
    }

    /// A drawable of this type on any of a few surfaces.
    fn drawable(&mut self, kind: u8, random: u64) -> u64 {
        let clip = self.words(&[2, 32, 0, 0, 0, 0, 0, 0, 20, 20, 9, 9, 150, 300]);
        let (at, address) = self.take(192);
        for offset in (0..192).step_by(8) {
            write(at + offset, 0_u64);
        }
        write(at, at);
        write(at + 8, (random >> 20) as u32 & 3);
        write(at + 12, 1_u8);
        write(at + 13, kind);
        let (top, left) = ((random >> 24) as u32 & 127, (random >> 32) as u32 & 255);
        for (index, side) in (0..).zip([top, left, top + SIDE, left + SIDE]) {
            write(at + 31 + 4 * index, side);
        }
        if random & 0x400 != 0 {
            write(at + 47, 1_u32);
            write(at + 51, clip);
        }
        for index in 0..3 {
            write(at + 63 + 4 * index, -1_i32);
        }
        let mut body = at + 123;
        for part in BODIES[usize::from(kind) % BODIES.len()] {
            body = self.part(body, *part, random);
        }
        address
    }

    /// Makes or destroys an off-screen surface.
    fn surface(&mut self, random: u64) -> u64 {
        let (at, address) = self.take(48);
        write(at, at);
        write(at + 8, 1 + (random as u32 & 3));
        write(at + 12, u8::from(random & 0x70 == 0));
        write(at + 13, 0_u32);
        for (index, field) in (0..).zip([32, SIDE * 2, SIDE, SIDE * 8]) {
            write(at + 17 + 4 * index, field);
        }
        write(at + 33, self.qxl.address(self.start));
        address
    }

    fn cursor(&mut self, random: u64) -> u64 {
        let shape = self.words(&[0; 300]);
        let cursor = self.start + (shape - self.qxl.address(self.start));
        write(cursor + 8, (random % 7) as u16);
        for (offset, value) in [(10, 16_u16), (12, 16), (14, 1), (16, 1)] {
            write(cursor + offset, value);
        }
        write(cursor + 18, 1100_u32);
        write(cursor + 22, 1100_u32);
        let (at, address) = self.take(152);
        write(at, at);
        write(at + 8, (random >> 8) as u8 & 3);
        write(at + 9, 0x0010_0020_u32);
        write(at + 13, 1_u8);
        write(at + 14, shape);
        address
    }
}

/// For `seconds` (5), then looks whether a reset helps.
pub fn test(info: &StartInfo) -> Outcome {
    let end = cpu::ticks() + info.number("seconds", 5) * ticks_of_a_second();
    let (mut random, mut given, mut resets) = (info.number("seed", 1) | 1 << 40, 0_u64, 0_u64);
    let mut qxl = open()?;
    let start = qxl.allocate(HEAP);
    // The second processor begins as soon as it is awake.
    publish(&qxl, start);
    interrupts::test_smp(info)?;
    while cpu::ticks() < end {
        let start = qxl.allocate(HEAP);
        publish(&qxl, start);
        let mut heap = Heap {
            qxl: &qxl,
            start,
            at: start,
        };
        while !qxl.has_failed() && cpu::ticks() < end {
            let dice = next(&mut random);
            let (kind, command) = match dice % 24 {
                20 => (COMMAND_SURFACE, heap.surface(dice >> 8)),
                21 | 22 => (COMMAND_CURSOR, heap.cursor(dice >> 8)),
                23 => {
                    qxl.out(((dice >> 8) % PORTS) as u16, (dice >> 16) as u8 & 7);
                    continue;
                }
                any => (COMMAND_DRAW, heap.drawable((any % 15) as u8, dice >> 8)),
            };
            // A full ring is one that has been rewritten, or one that will have room.
            given += u64::from(qxl.offer_any(kind, command));
            qxl.out(port::NOTIFY_CMD, 0);
            qxl.forget_releases();
        }
        qxl = open()?;
        resets += 1;
    }
    HEAP_START.store(0, Ordering::SeqCst);
    let stopped = wait_until(|| STOPPED.load(Ordering::SeqCst));
    ensure!(stopped, "the second processor does not stop");
    let mut qxl = open()?;
    qxl.check(0x12_3456)?;
    say!("hostile gave {given} commands and reset {resets} times");
    ensure!(given > 0, "no command was ever given");
    Ok(())
}

fn open() -> Result<Qxl, crate::failure::Why> {
    let qxl = Qxl::open(WIDTH, HEIGHT)?;
    qxl.create_primary();
    Ok(qxl)
}

/// Says what the second processor is to rewrite.
fn publish(qxl: &Qxl, start: u64) {
    let (header, length) = qxl.header();
    HEADER.store(header, Ordering::SeqCst);
    HEADER_LEN.store(length, Ordering::SeqCst);
    HEAP_ADDRESS.store(qxl.address(start), Ordering::SeqCst);
    HEAP_START.store(start, Ordering::SeqCst);
}

/// The second processor's part: returns once nothing is to be rewritten any more.
pub fn rewrite() {
    const EDGES: [u64; 8] = [
        0,
        1,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        1 << 63,
        u64::MAX,
        0xffff,
    ];
    let mut random = 0x9e37_79b9_7f4a_7c15;
    loop {
        let heap = HEAP_START.load(Ordering::SeqCst);
        if heap == 0 {
            break;
        }
        let dice = next(&mut random);
        let value = match dice & 3 {
            0 => HEAP_ADDRESS.load(Ordering::Relaxed) + (dice >> 2) % HEAP,
            1 => EDGES[(dice >> 2) as usize % EDGES.len()],
            2 => (dice >> 2) & 63,
            _ => next(&mut random),
        };
        // The header less often: what is wrong there ends everything at once.
        let at = if dice >> 48 < 4 {
            let length = HEADER_LEN.load(Ordering::Relaxed) - MAGIC;
            HEADER.load(Ordering::Relaxed) + MAGIC + (dice >> 20) % length
        } else {
            heap + (dice >> 20) % HEAP
        };
        match dice >> 62 {
            0 => write(at, value as u8),
            1 | 2 => write(at & !3, value as u32),
            _ => write(at & !7, value),
        }
    }
    STOPPED.store(true, Ordering::SeqCst);
}
