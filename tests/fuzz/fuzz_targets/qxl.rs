//! The QXL device under a driver of no good will: commands of every kind as a driver writes them, in
//! which any pointer, length, count, clip or chunk may be another, and ports, rings and slots as well.
//!
//! Checked: a command is taken off its ring whatever is in it, a sound fill is on the screen, memory
//! is bounded, and after a reset the device draws as if nothing had been.

#![no_main]

use std::cell::Cell;
use std::sync::Arc;

use caraway_devices::pci::PciFunction;
use caraway_devices::{FakeClock, FakeLine, Lifecycle};
use caraway_fuzz::Dice;
use caraway_fuzz::memory::Gauge;
use caraway_qxl::{Qxl, QxlConfig};
use caraway_spice::{ClientCapabilities, DisplaySource, HeadRequest, Rect};
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static GAUGE: Gauge = Gauge::new();

/// Bytes of our side, beside the BARs: canvases of the surfaces that fit the guest's memory.
const MOST_MEMORY: usize = 64 << 20;

const RAM: u64 = 4 << 20;
const VRAM: u64 = 1 << 20;
const RAM_BASE: u64 = 0xe000_0000;
const VRAM_BASE: u64 = 0xf000_0000;
/// `QXLRam` is in the last 8 KiB.
const HEADER: u64 = RAM - 8192;
/// Where commands are, after the frame buffer.
const HEAP: u64 = VGAMEM;
/// Room for a compatibility mode of 640 x 480.
const VGAMEM: u64 = 2 << 20;
/// The memory slot of BAR 0, as the top byte of an address.
const SLOT: u64 = 1 << 56;
const WIDTH: u32 = 64;
const HEIGHT: u32 = 48;

/// Offsets in `QXLRam`.
mod ram {
    pub const INT_MASK: u64 = 8;
    pub const COMMANDS: u64 = 0x100c;
    pub const CURSORS: u64 = 0x1220;
    pub const RELEASES: u64 = 0x1434;
    pub const UPDATE_AREA: u64 = 0x1488;
    pub const SLOT: u64 = 0x149c;
    pub const SURFACE: u64 = 0x14ac;
    pub const MONITORS: u64 = 0x14dc;
}

/// I/O ports.
mod port {
    pub const NOTIFY: u64 = 0;
    pub const RESET: u64 = 5;
    pub const SET_MODE: u64 = 6;
    pub const MEMSLOT_ADD: u64 = 8;
    pub const CREATE_PRIMARY: u64 = 12;
    /// There are no more.
    pub const END: usize = 25;
}

const DRAW: u32 = 1;
const UPDATE: u32 = 2;
const CURSOR: u32 = 3;
const SURFACE: u32 = 5;

/// A part of a drawable's body (`qxl_dev.h`).
#[derive(Clone, Copy)]
enum Part {
    Image,
    /// One that may be absent.
    Maybe,
    Area,
    Brush,
    Mask,
    Point,
    Path,
    Style,
    Text,
    Transform,
    Rop,
    /// So many bytes of anything, mostly small.
    Bytes(usize),
}

use Part::{Area, Brush, Bytes, Image, Mask, Maybe, Path, Point, Rop, Style, Text, Transform};

/// The bodies by draw type: nothing, fill, opaque, copy, copy bits, blend, blackness, whiteness,
/// inversion, ternary, stroke, text, transparent, alpha blend, composite.
const BODIES: [&[Part]; 15] = [
    &[],
    &[Brush, Rop, Mask],
    &[Image, Area, Brush, Rop, Bytes(1), Mask],
    &[Image, Area, Rop, Bytes(1), Mask],
    &[Point],
    &[Image, Area, Rop, Bytes(1), Mask],
    &[Mask],
    &[Mask],
    &[Mask],
    &[Image, Area, Brush, Bytes(1), Bytes(1), Mask],
    &[Path, Style, Brush, Bytes(2), Bytes(2)],
    &[Text, Area, Brush, Brush, Rop, Rop],
    &[Image, Area, Bytes(4), Bytes(4)],
    &[Bytes(2), Bytes(1), Image, Area],
    &[
        Bytes(2),
        Bytes(2),
        Image,
        Transform,
        Maybe,
        Transform,
        Point,
        Point,
    ],
];

fuzz_target!(|bytes: &[u8]| {
    let peak = GAUGE.peak_of(|| drive(Dice::new(bytes)));
    assert!(peak <= MOST_MEMORY, "{peak} bytes at a time");
});

fn drive(mut dice: Dice<'_>) {
    let guest = Guest::new();
    guest.set_up();
    while !dice.is_over() {
        guest.act(&mut dice);
    }
    guest.place_bars();
    guest.set_up();
    guest.fill_and_look(0x0012_3456);
}

/// Structures in the order in which they are put together, which know where they will be.
struct Heap {
    bytes: Vec<u8>,
    /// Written as the first drivers did.
    compat: bool,
}

impl Heap {
    fn new(compat: bool) -> Self {
        let bytes = Vec::new();
        Self { bytes, compat }
    }

    /// The address of what is so many bytes behind the start.
    fn address(&self, at: usize) -> u64 {
        let base = if self.compat { RAM_BASE } else { SLOT };
        base + HEAP + at as u64
    }

    /// Adds bytes; their address.
    fn put(&mut self, bytes: &[u8]) -> u64 {
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        let at = self.address(self.bytes.len());
        self.bytes.extend(bytes);
        at
    }

    /// `data` in a chain of chunks of so many bytes.
    fn chunks(&mut self, data: &[u8], size: usize) -> u64 {
        data.chunks(size).rev().fold(0, |next, piece| {
            let head = [
                &le(&[piece.len() as u32, 0, 0])[..],
                &next.to_le_bytes()[..],
            ]
            .concat();
            self.put(&[&head, piece].concat())
        })
    }

    /// An image of this size, or of a surface's.
    fn image(&mut self, dice: &mut Dice<'_>, width: u32, height: u32) -> u64 {
        if dice.rarely() {
            let mut image = vec![0; 8];
            image.extend([104, 0]);
            image.extend(le(&[width, height, dice.up_to(3) as u32]));
            return self.put(&image);
        }
        if dice.rarely() {
            // What the command names of the surface itself.
            return 0;
        }
        if dice.rarely() {
            return self.packed(dice, width, height);
        }
        self.bitmap(dice, width, height)
    }

    /// An image of this size in QUIC: whatever follows the header means some picture.
    fn packed(&mut self, dice: &mut Dice<'_>, width: u32, height: u32) -> u64 {
        let kind = dice.pick(&[2, 3, 4, 5]);
        let mut stream = le(&[0x4349_5551, 0, kind, width, height]);
        for _ in 0..=dice.up_to(8) {
            let bits: Vec<u8> = (0..=dice.up_to(7)).map(|_| dice.byte()).collect();
            stream.extend(bits.repeat(1 + dice.up_to(100)));
        }
        let mut head = vec![0; 8];
        head.extend([1, dice.byte() & 2]);
        head.extend(le(&[width, height, stream.len() as u32]));
        let first = stream.len().min(1 + dice.up_to(100));
        let rest = self.chunks(&stream[first..], 1 + dice.up_to(400));
        head.extend(le(&[first as u32, 0, 0]));
        head.extend(rest.to_le_bytes());
        self.put(&[&head, &stream[..first]].concat())
    }

    /// A bitmap of this size.
    fn bitmap(&mut self, dice: &mut Dice<'_>, width: u32, height: u32) -> u64 {
        // `SPICE_BITMAP_FMT_*` and bits a pixel.
        let (format, bits) = dice.pick(&[
            (8u8, 32u32),
            (9, 32),
            (7, 24),
            (6, 16),
            (5, 8),
            (10, 8),
            (3, 4),
            (4, 4),
            (1, 1),
            (2, 1),
        ]);
        let stride = (width * bits).div_ceil(8).next_multiple_of(4);
        let data = [dice.byte()].repeat((stride * height) as usize);
        let palette = if bits <= 8 {
            let mut palette = vec![0; 8];
            palette.extend(256u16.to_le_bytes());
            palette.extend((0..256u32).flat_map(|n| (n * 0x0001_0203).to_le_bytes()));
            self.put(&palette)
        } else {
            0
        };
        let direct = dice.flip();
        let data = if direct {
            self.put(&data)
        } else {
            self.chunks(&data, 1 + dice.up_to(400))
        };
        let mut image = vec![0; 10];
        image.extend(le(&[width, height]));
        image.extend([format, u8::from(direct) | if dice.flip() { 4 } else { 0 }]);
        image.extend(le(&[width, height, stride]));
        image.extend(palette.to_le_bytes());
        image.extend(data.to_le_bytes());
        self.put(&image)
    }

    /// A drawable; the first structure is at the start of what it names.
    fn drawable(&mut self, dice: &mut Dice<'_>, kind: u8, area: [u32; 4], body: &[u8]) -> u64 {
        let clip = if dice.rarely() {
            let rects: Vec<u32> = (0..8).map(|n| n * 3).collect();
            let list = [&le(&[2, 32]), &[0; 16][..], &le(&rects)].concat();
            self.put(&list)
        } else {
            0
        };
        let itself = le(&[2, 3, 12, 23].map(|side| side + dice.up_to(3) as u32));
        if self.compat {
            let mut drawable = vec![0; 8];
            drawable.extend([1, kind, u8::from(dice.rarely()), 0]);
            drawable.extend(itself);
            drawable.extend(le(&area));
            drawable.extend(le(&[u32::from(clip != 0)]));
            drawable.extend(clip.to_le_bytes());
            drawable.extend([0; 4]);
            drawable.extend(body);
            drawable.resize(128, 0);
            return self.put(&drawable);
        }
        let mut drawable = vec![0; 8];
        drawable.extend(le(&[if dice.rarely() {
            1 + dice.up_to(2) as u32
        } else {
            0
        }]));
        drawable.extend([1, kind, u8::from(dice.rarely())]);
        drawable.extend(itself);
        drawable.extend(le(&area));
        drawable.extend(le(&[u32::from(clip != 0)]));
        drawable.extend(clip.to_le_bytes());
        drawable.extend([0; 4]);
        drawable.extend([0xff; 12]);
        drawable.extend([0; 48]);
        drawable.extend(body);
        drawable.resize(191, 0);
        self.put(&drawable)
    }

    /// A chunk of `data` behind a head.
    fn inline(&mut self, head: &[u8], data: &[u8]) -> u64 {
        let chunk = le(&[data.len() as u32, 0, 0, 0, 0]);
        self.put(&[head, &chunk, data].concat())
    }

    /// The body of a drawable of this type, for images of this size.
    fn body(&mut self, dice: &mut Dice<'_>, kind: usize, (width, height): (u32, u32)) -> Vec<u8> {
        let mut body = Vec::new();
        for part in BODIES[kind] {
            match *part {
                Image => body.extend(self.image(dice, width, height).to_le_bytes()),
                Maybe => {
                    let image = dice.flip().then(|| self.image(dice, width, height));
                    body.extend(image.unwrap_or(0).to_le_bytes());
                }
                Area => body.extend(le(&[0, 0, height, width])),
                Brush if dice.flip() => {
                    let image = self.image(dice, width, height);
                    body.extend(le(&[2]));
                    body.extend(image.to_le_bytes());
                    body.extend(le(&[dice.field() as u32, dice.field() as u32]));
                }
                Brush => body.extend(le(&[1, dice.number() as u32, 0, 0, 0])),
                Mask => {
                    let image = dice.rarely().then(|| self.bitmap(dice, width, height));
                    body.push(dice.byte() & 1);
                    body.extend(le(&[dice.field() as u32, dice.field() as u32]));
                    body.extend(image.unwrap_or(0).to_le_bytes());
                }
                Point => body.extend(le(&[dice.up_to(30) as u32, dice.up_to(20) as u32])),
                Path => {
                    // Segments of points in 28.4 fixed point.
                    let mut path = Vec::new();
                    for _ in 0..=dice.up_to(2) {
                        let count = dice.up_to(6);
                        path.extend(le(&[u32::from(dice.byte() & 31), count as u32]));
                        path.extend((0..2 * count).flat_map(|_| le(&[fixed(dice)])));
                    }
                    let path = self.inline(&le(&[path.len() as u32]), &path);
                    body.extend(path.to_le_bytes());
                }
                Style => {
                    let count = dice.up_to(4) as u8;
                    let style: Vec<u32> = (0..count).map(|_| fixed(dice)).collect();
                    let style = self.put(&le(&style));
                    body.extend([dice.byte() & 12, 0, 0, count]);
                    body.extend(le(&[fixed(dice), dice.field() as u32]));
                    body.extend(style.to_le_bytes());
                }
                Text => {
                    let bits = dice.pick(&[1, 4, 8]);
                    let count = dice.up_to(4);
                    let mut glyphs = Vec::new();
                    for _ in 0..count {
                        let (columns, rows) = (dice.up_to(12), dice.up_to(12));
                        glyphs.extend(le(&[dice.up_to(40) as u32, dice.up_to(40) as u32]));
                        glyphs.extend(le(&[0, dice.field() as u32]));
                        glyphs.extend((columns as u16).to_le_bytes());
                        glyphs.extend((rows as u16).to_le_bytes());
                        let size = (columns * bits).div_ceil(8) * rows;
                        glyphs.resize(glyphs.len() + size, dice.byte());
                    }
                    let mut head = le(&[glyphs.len() as u32]);
                    head.extend((count as u16).to_le_bytes());
                    head.extend([if bits == 8 { 4 } else { bits as u8 / 4 + 1 }, 0]);
                    let text = self.inline(&head, &glyphs);
                    body.extend(text.to_le_bytes());
                }
                Transform => {
                    let matrix = dice.rarely().then(|| {
                        let matrix: Vec<u32> =
                            (0..9).map(|_| (dice.field() as u32) << 12).collect();
                        self.put(&le(&matrix))
                    });
                    body.extend(matrix.unwrap_or(0).to_le_bytes());
                }
                Rop => body.extend([
                    dice.pick(&[8, 0x10, 0x20, 0x40, 0x41, 0x80]),
                    dice.byte() & 7,
                ]),
                // The flags of an alpha blend came later.
                Bytes(2) if kind == 13 && self.compat => {}
                Bytes(count) => body.extend(&dice.field().to_le_bytes()[..count]),
            }
        }
        body
    }

    /// Some command: its kind and its address.
    fn command(&mut self, dice: &mut Dice<'_>) -> (u32, u64) {
        let (width, height) = (1 + dice.up_to(40) as u32, 1 + dice.up_to(30) as u32);
        let (left, top) = (dice.up_to(20) as u32, dice.up_to(20) as u32);
        // Top, left, bottom, right.
        let area = [top, left, top + height, left + width];
        match dice.up_to(BODIES.len() + 2) {
            kind if kind < BODIES.len() => {
                let body = self.body(dice, kind, (width, height));
                (DRAW, self.drawable(dice, kind as u8, area, &body))
            }
            17 => {
                // Whose pixels are wanted back.
                let mut update = vec![0; 8];
                update.extend(le(&area));
                update.extend(le(&[dice.number() as u32, dice.up_to(3) as u32]));
                (UPDATE, self.put(&update))
            }
            15 => {
                // A surface in BAR 1 comes or goes.
                let mut surface = vec![0; 8];
                surface.extend(le(&[1 + dice.up_to(2) as u32]));
                surface.push(u8::from(dice.rarely()));
                let (format, bytes) =
                    dice.pick(&[(32, 4), (96, 4), (16, 2), (80, 2), (8, 1), (1, 1)]);
                let stride = (width * bytes).next_multiple_of(4);
                surface.extend(le(&[
                    u32::from(dice.byte() & 1),
                    format,
                    width,
                    height,
                    stride,
                ]));
                surface.extend((2u64 << 56).to_le_bytes());
                (SURFACE, self.put(&surface))
            }
            _ => {
                let side = dice.pick(&[16u16, 9, 1, 33]);
                let mut head = 1u64.to_le_bytes().to_vec();
                for number in [u16::from(dice.byte() % 8), side, side, 0, 0] {
                    head.extend(number.to_le_bytes());
                }
                head.extend(le(&[5600]));
                let data = [dice.byte()].repeat(5600);
                let shape = match dice.flip() {
                    true => self.inline(&head, &data),
                    false => {
                        let rest = self.chunks(&data[32..], 1 + dice.up_to(2000));
                        head.extend(le(&[32, 0, 0]));
                        head.extend(rest.to_le_bytes());
                        self.put(&[&head, &data[..32]].concat())
                    }
                };
                let mut command = vec![0; 8];
                command.push(dice.up_to(3) as u8);
                command.extend([5, 0, 6, 0, 1]);
                command.extend(shape.to_le_bytes());
                command.resize(152, 0);
                (CURSOR, self.put(&command))
            }
        }
    }

    /// Makes something another.
    fn damage(&mut self, dice: &mut Dice<'_>) {
        let at = dice.up_to(self.bytes.len() - 1);
        let value = match dice.byte() {
            ..0x60 => self.address(dice.up_to(self.bytes.len())),
            _ => dice.field(),
        };
        let width = dice.pick(&[1, 2, 4, 8]).min(self.bytes.len() - at);
        self.bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
    }
}

fn le(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A number with four bits behind the point.
fn fixed(dice: &mut Dice<'_>) -> u32 {
    (dice.field() as u32) << 4
}

/// A solid brush, and to put it.
fn fill(colour: u32) -> Vec<u8> {
    [&le(&[1, colour, 0, 0, 0])[..], &[8, 0]].concat()
}

struct Guest {
    qxl: Arc<Qxl>,
    /// Whether it has set a compatibility mode.
    compat: Cell<bool>,
}

impl Guest {
    fn new() -> Self {
        let config = QxlConfig {
            ram: RAM,
            vram: VRAM,
            vgamem: VGAMEM,
            surfaces: 16,
            ..QxlConfig::default()
        };
        let qxl = Qxl::new(config, FakeLine::new(), FakeClock::new(0)).expect("sizes are possible");
        let compat = Cell::new(false);
        let guest = Self { qxl, compat };
        guest.place_bars();
        guest
    }

    fn place_bars(&self) {
        let mut space = self.qxl.config().lock();
        space.write(0x10, &(RAM_BASE as u32).to_le_bytes());
        space.write(0x14, &(VRAM_BASE as u32).to_le_bytes());
        space.write(0x04, &[7, 0]);
    }

    fn out(&self, port: u64, value: u8) {
        self.qxl.bar_write(3, port, &[value]);
    }

    fn set(&self, at: u64, bytes: &[u8]) {
        self.qxl.bar_write(0, HEADER + at, bytes);
    }

    fn word(&self, at: u64) -> u32 {
        let mut bytes = [0; 4];
        self.qxl.bar_read(0, HEADER + at, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    /// Resets and goes to a screen of a known size.
    fn set_up(&self) {
        self.compat.set(false);
        self.out(port::RESET, 0);
        self.set(ram::INT_MASK, &[0x27, 0, 0, 0]);
        let slots = [
            (1, RAM_BASE, RAM_BASE + HEADER),
            (2, VRAM_BASE, VRAM_BASE + VRAM),
        ];
        for (slot, start, end) in slots {
            self.set(
                ram::SLOT,
                &[start.to_le_bytes(), end.to_le_bytes()].concat(),
            );
            self.out(port::MEMSLOT_ADD, slot);
        }
        let mut surface = le(&[WIDTH, HEIGHT, WIDTH * 4, 32, 0, 0, 0, 0]);
        surface.extend(SLOT.to_le_bytes());
        self.set(ram::SURFACE, &surface);
        self.out(port::CREATE_PRIMARY, 0);
        self.qxl.process();
    }

    /// Puts a command on its ring and has it done.
    fn run(&self, kind: u32, command: u64) {
        let ring = if kind == CURSOR {
            ram::CURSORS
        } else {
            ram::COMMANDS
        };
        let produced = self.word(ring + 4);
        let mut item = command.to_le_bytes().to_vec();
        item.extend(le(&[kind, 0]));
        self.set(ring + 20 + u64::from(produced % 32) * 16, &item);
        self.set(ring + 4, &produced.wrapping_add(1).to_le_bytes());
        self.out(port::NOTIFY, 0);
        self.qxl.process();
    }

    fn act(&self, dice: &mut Dice<'_>) {
        if dice.rarely() {
            self.meddle(dice);
            return;
        }
        let mut heap = Heap::new(self.compat.get());
        let (kind, command) = heap.command(dice);
        let damaged = dice.flip();
        if damaged {
            for _ in 0..=dice.up_to(3) {
                heap.damage(dice);
            }
        }
        self.qxl.bar_write(0, HEAP, &heap.bytes);
        let kind = dice.mostly(kind.into()) as u32;
        let command = dice.mostly(command);
        self.run(kind, command);
        // All that was given back is taken, so that there is room.
        let produced = self.word(ram::RELEASES + 4);
        self.set(ram::RELEASES + 12, &produced.to_le_bytes());
    }

    /// Writes to what is not a command: ports, registers, rings.
    fn meddle(&self, dice: &mut Dice<'_>) {
        match dice.up_to(9) {
            0 => self.out(dice.up_to(port::END + 6) as u64, dice.up_to(8) as u8),
            1 => {
                let at = dice.up_to(0x14e4) as u64 & !3;
                self.set(at, &(dice.field() as u32).to_le_bytes());
            }
            2 => {
                let at = dice.up_to(0x50) as u64;
                let value = dice.field().to_le_bytes();
                self.set(ram::SLOT + at, &value);
                self.out(port::MEMSLOT_ADD, dice.up_to(8) as u8);
            }
            3 => {
                self.out(port::RESET, 0);
                self.set_up();
            }
            4 => {
                // Synchronous or not.
                let sides: Vec<u32> = (0..5).map(|_| dice.field() as u32).collect();
                self.set(ram::UPDATE_AREA, &le(&sides));
                self.out(dice.pick(&[2, 16, 22]), 0);
            }
            5 => {
                let mut heads = Heap::new(self.compat.get());
                let mut config = vec![dice.up_to(5) as u8, 0, 4, 0];
                config.extend((0..4 * 7).flat_map(|_| le(&[dice.field() as u32])));
                let config = dice.mostly(heads.put(&config));
                self.qxl.bar_write(0, HEAP, &heads.bytes);
                self.set(ram::MONITORS, &config.to_le_bytes());
                self.out(24, 0);
            }
            6 => {
                let wish = |dice: &mut Dice<'_>| HeadRequest {
                    width: dice.field() as u32,
                    height: dice.field() as u32,
                    x: dice.field() as i32,
                    y: dice.field() as i32,
                };
                let wishes: Vec<_> = (0..dice.up_to(70)).map(|_| wish(dice)).collect();
                self.qxl.request_heads(&wishes);
                self.qxl.clients_changed(ClientCapabilities {
                    present: dice.flip(),
                    bits: dice.number() as u32,
                });
            }
            8 => {
                // The first modes are those of 640 x 480.
                self.place_bars();
                self.out(port::RESET, 0);
                self.out(port::SET_MODE, dice.up_to(3) as u8);
                self.compat.set(true);
            }
            7 => {
                // A snapshot of whatever state it is in can be gone on from.
                let state = self.qxl.save().expect("any state can be saved");
                self.qxl
                    .restore(&state)
                    .expect("what was saved can be restored");
            }
            _ => {
                self.qxl.refresh();
                let _ = self.qxl.text();
                let _ = self.qxl.screenshot(0);
            }
        }
        self.qxl.process();
    }

    /// A sound fill of the whole screen is seen.
    fn fill_and_look(&self, colour: u32) {
        let mut heap = Heap::new(false);
        let drawable = heap.drawable(&mut Dice::new(&[]), 1, [0, 0, HEIGHT, WIDTH], &fill(colour));
        self.qxl.bar_write(0, HEAP, &heap.bytes);
        self.run(DRAW, drawable);

        let ring = ram::COMMANDS;
        assert_eq!(
            self.word(ring + 12),
            self.word(ring + 4),
            "a command is left"
        );
        let area = Rect {
            left: 3,
            top: 4,
            right: 4,
            bottom: 5,
        };
        let mut pixel = [0; 4];
        let read = self
            .qxl
            .read(self.qxl.layout().generation, area, &mut pixel);
        assert!(read, "the screen can't be read");
        assert_eq!(u32::from_le_bytes(pixel) & 0x00ff_ffff, colour);
    }
}
