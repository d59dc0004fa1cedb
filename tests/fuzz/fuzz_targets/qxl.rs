//! The QXL device under a driver of no good will: commands as a driver writes them, in which any
//! pointer, length, count, clip or chunk may be another.
//!
//! Checked: a command is taken off its ring whatever is in it, a sound fill is on the screen, memory
//! is bounded, and after a reset the device draws as if nothing had been.

#![no_main]

use std::sync::Arc;

use caraway_devices::pci::PciFunction;
use caraway_devices::{FakeClock, FakeLine};
use caraway_fuzz::Dice;
use caraway_fuzz::memory::Gauge;
use caraway_qxl::{Qxl, QxlConfig};
use caraway_spice::{DisplaySource, Rect};
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
const HEAP: u64 = 1 << 20;
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
    pub const SLOT: u64 = 0x149c;
    pub const SURFACE: u64 = 0x14ac;
}

/// I/O ports.
mod port {
    pub const NOTIFY: u64 = 0;
    pub const RESET: u64 = 5;
    pub const MEMSLOT_ADD: u64 = 8;
    pub const CREATE_PRIMARY: u64 = 12;
}

const DRAW: u32 = 1;
const CURSOR: u32 = 3;
const SURFACE: u32 = 5;

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
struct Heap(Vec<u8>);

impl Heap {
    /// Adds bytes; their address.
    fn put(&mut self, bytes: &[u8]) -> u64 {
        self.0.resize(self.0.len().next_multiple_of(8), 0);
        let at = SLOT | (HEAP + self.0.len() as u64);
        self.0.extend(bytes);
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

    /// A bitmap of this size.
    fn image(&mut self, dice: &mut Dice<'_>, width: u32, height: u32) -> u64 {
        // `SPICE_BITMAP_FMT_*` and bits a pixel.
        let (format, bits) = dice.pick(&[
            (8u8, 32u32),
            (9, 32),
            (7, 24),
            (6, 16),
            (5, 8),
            (3, 4),
            (1, 1),
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
        let mut drawable = vec![0; 8];
        drawable.extend(le(&[if dice.rarely() { 1 } else { 0 }]));
        drawable.extend([1, kind, 0]);
        drawable.extend([0; 16]);
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

    /// Some command: its kind and its address.
    fn command(&mut self, dice: &mut Dice<'_>) -> (u32, u64) {
        let (width, height) = (1 + dice.up_to(40) as u32, 1 + dice.up_to(30) as u32);
        let (left, top) = (dice.up_to(20) as u32, dice.up_to(20) as u32);
        // Top, left, bottom, right.
        let area = [top, left, top + height, left + width];
        match dice.up_to(4) {
            0 => (DRAW, {
                let colour = fill(dice.number() as u32);
                self.drawable(dice, 1, area, &colour)
            }),
            1 => {
                let image = self.image(dice, width, height);
                let mut body = image.to_le_bytes().to_vec();
                body.extend(le(&[0, 0, height, width]));
                body.extend([8, 0, 0]);
                (DRAW, self.drawable(dice, 3, area, &body))
            }
            2 => {
                let from = le(&[dice.up_to(30) as u32, dice.up_to(20) as u32]);
                (DRAW, self.drawable(dice, 4, area, &from))
            }
            3 => {
                // A new surface in BAR 1.
                let mut surface = vec![0; 8];
                surface.extend(le(&[1]));
                surface.push(u8::from(dice.rarely()));
                surface.extend(le(&[0, 32, width, height, width * 4]));
                surface.extend((2u64 << 56).to_le_bytes());
                (SURFACE, self.put(&surface))
            }
            _ => {
                let mut shape = 1u64.to_le_bytes().to_vec();
                for side in [0u16, 16, 16, 0, 0] {
                    shape.extend(side.to_le_bytes());
                }
                shape.extend(le(&[1024, 1024, 0, 0, 0, 0]));
                shape.truncate(22);
                shape.extend(le(&[1024, 0, 0, 0, 0]));
                shape.extend([0x55; 1024]);
                let shape = self.put(&shape);
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
        let at = dice.up_to(self.0.len() - 1);
        let value = match dice.byte() {
            ..0x60 => SLOT | (HEAP + dice.up_to(self.0.len()) as u64),
            _ => dice.field(),
        };
        let width = dice.pick(&[1, 2, 4, 8]).min(self.0.len() - at);
        self.0[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
    }
}

fn le(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A solid brush, and to put it.
fn fill(colour: u32) -> Vec<u8> {
    [&le(&[1, colour, 0, 0, 0])[..], &[8, 0]].concat()
}

struct Guest {
    qxl: Arc<Qxl>,
}

impl Guest {
    fn new() -> Self {
        let config = QxlConfig {
            ram: RAM,
            vram: VRAM,
            vgamem: 1 << 20,
            surfaces: 16,
            ..QxlConfig::default()
        };
        let qxl = Qxl::new(config, FakeLine::new(), FakeClock::new(0)).expect("sizes are possible");
        let guest = Self { qxl };
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
        let mut heap = Heap(Vec::new());
        let (kind, command) = heap.command(dice);
        let damaged = dice.flip();
        if damaged {
            for _ in 0..=dice.up_to(3) {
                heap.damage(dice);
            }
        }
        self.qxl.bar_write(0, HEAP, &heap.0);
        let kind = dice.mostly(kind.into()) as u32;
        let command = dice.mostly(command);
        self.run(kind, command);
        // All that was given back is taken, so that there is room.
        let produced = self.word(ram::RELEASES + 4);
        self.set(ram::RELEASES + 12, &produced.to_le_bytes());
    }

    /// Writes to what is not a command: ports, registers, rings.
    fn meddle(&self, dice: &mut Dice<'_>) {
        match dice.up_to(4) {
            0 => self.out(dice.up_to(31) as u64, dice.up_to(8) as u8),
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
        let mut heap = Heap(Vec::new());
        let drawable = heap.drawable(&mut Dice::new(&[]), 1, [0, 0, HEIGHT, WIDTH], &fill(colour));
        self.qxl.bar_write(0, HEAP, &heap.0);
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
