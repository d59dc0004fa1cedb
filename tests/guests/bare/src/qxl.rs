//! The QXL device: a small driver, and a test that draws one deterministic picture and looks at it.

use core::sync::atomic::{Ordering, fence};

use crate::cpu::{out8, read, wait_until, write};
use crate::ensure;
use crate::failure::{Outcome, Why, why};
use crate::pci::{Bar, Function};
use crate::say;
use crate::start_info::StartInfo;

const VENDOR: u16 = 0x1b36;
const DEVICE: u16 = 0x0100;

/// The test's picture.
const WIDTH: u32 = 640;
const HEIGHT: u32 = 480;

/// I/O ports, from BAR 3's start.
pub mod port {
    pub const NOTIFY_CMD: u16 = 0;
    pub const UPDATE_AREA: u16 = 2;
    pub const NOTIFY_OOM: u16 = 4;
    pub const RESET: u16 = 5;
    pub const SET_MODE: u16 = 6;
    pub const MEMSLOT_ADD: u16 = 8;
    pub const CREATE_PRIMARY: u16 = 12;
    pub const DESTROY_SURFACE: u16 = 14;
    pub const FLUSH_RELEASE: u16 = 23;
    pub const MONITORS_CONFIG: u16 = 24;
}

/// Offsets in QXLRom.
mod rom {
    pub const MAGIC: u64 = 0x00;
    pub const MODES_OFFSET: u64 = 0x18;
    pub const PAGES_OFFSET: u64 = 0x20;
    pub const RAM_HEADER_OFFSET: u64 = 0x2c;
    pub const SLOTS_START: u64 = 0x40;
}

/// Offsets in QXLRam.
mod ram {
    pub const MAGIC: u64 = 0x0000;
    pub const INT_PENDING: u64 = 0x0004;
    pub const CMD_RING: u64 = 0x100c;
    pub const CURSOR_RING: u64 = 0x1220;
    pub const RELEASE_RING: u64 = 0x1434;
    pub const UPDATE_RECT: u64 = 0x1488;
    pub const UPDATE_SURFACE: u64 = 0x1498;
    pub const MEM_SLOT: u64 = 0x149c;
    pub const CREATE_SURFACE: u64 = 0x14ac;
    pub const MONITORS_CONFIG: u64 = 0x14dc;
}

/// Commands that a ring has room for.
const RING_ITEMS: u32 = 32;

const INTERRUPT_IO_CMD: u32 = 4;
const INTERRUPT_ERROR: u32 = 8;

pub const COMMAND_DRAW: u32 = 1;
pub const COMMAND_CURSOR: u32 = 3;
pub const COMMAND_SURFACE: u32 = 5;
const DRAW_FILL: u8 = 1;
const DRAW_COPY: u8 = 3;
const DRAW_COPY_BITS: u8 = 4;
const PUT: u16 = 8;
const EFFECT_OPAQUE: u8 = 1;
const FORMAT_32: u8 = 8;
const SURFACE_32: u32 = 32;

/// Where a drawable has its fields.
struct Layout {
    effect: u64,
    kind: u64,
    bbox: u64,
    /// The three surfaces that it depends on, if there is more than one.
    surfaces: Option<u64>,
    /// What depends on its type.
    body: u64,
}

/// `QXLDrawable`.
const NATIVE: Layout = Layout {
    effect: 12,
    kind: 13,
    bbox: 31,
    surfaces: Some(63),
    body: 123,
};

/// `QXLCompatDrawable`.
const COMPAT: Layout = Layout {
    effect: 8,
    kind: 9,
    bbox: 28,
    surfaces: None,
    body: 60,
};

/// Pixels of the primary surface; right and bottom are outside.
#[derive(Clone, Copy)]
pub struct Rect {
    left: u32,
    top: u32,
    right: u32,
    bottom: u32,
}

/// A rectangle by its corner and size.
pub const fn rect(left: u32, top: u32, width: u32, height: u32) -> Rect {
    Rect {
        left,
        top,
        right: left + width,
        bottom: top + height,
    }
}

/// Where a command for [`Qxl::put`] and its image are built, in BAR 0.
#[derive(Clone, Copy)]
pub struct Slot(u64);

/// What lies in a slot: the drawable, then its image, then the image's pixels.
const SLOT_IMAGE: u64 = 192;
const SLOT_DATA: u64 = SLOT_IMAGE + 48;
const SLOT_PIXELS: u64 = SLOT_DATA + 20;

/// A device in native mode, or in a compatibility mode.
pub struct Qxl {
    width: u32,
    height: u32,
    layout: &'static Layout,
    ports: u16,
    rom: u64,
    /// BAR 0.
    memory: u64,
    /// BAR 1.
    surfaces: Bar,
    /// QXLRam.
    ram: u64,
    slot: u64,
    /// The next free byte for commands, in BAR 0.
    free: u64,
    /// Commands given to the device so far; each has its address as its release id.
    given: u64,
}

impl Qxl {
    /// Finds the device and resets it; its surface will have this size.
    pub fn open(width: u32, height: u32) -> Result<Self, Why> {
        Self::open_nth(0, width, height)
    }

    /// As [`Qxl::open`], the device with so many others before it.
    fn open_nth(before: usize, width: u32, height: u32) -> Result<Self, Why> {
        let function = Function::find_nth(VENDOR, DEVICE, before)
            .ok_or_else(|| why(format_args!("no QXL device {before}")))?;
        let bar = |index| {
            function
                .bar(index)
                .ok_or_else(|| why(format_args!("BAR {index} is not there")))
        };
        let (memory, surfaces) = (bar(0)?.start, bar(1)?);
        let (rom, ports) = (bar(2)?.start, bar(3)?.start as u16);
        let magic: u32 = read(rom + rom::MAGIC);
        ensure!(
            magic == u32::from_le_bytes(*b"QXRO"),
            "the ROM's magic is {magic:#x}"
        );
        out8(ports + port::RESET, 0);
        let header = u64::from(read::<u32>(rom + rom::RAM_HEADER_OFFSET));
        let ram = memory + header;
        let magic: u32 = read(ram + ram::MAGIC);
        ensure!(
            magic == u32::from_le_bytes(*b"QXRA"),
            "the RAM's magic is {magic:#x}"
        );
        let slot: u8 = read(rom + rom::SLOTS_START);
        let free = memory + u64::from(read::<u32>(rom + rom::PAGES_OFFSET));
        let qxl = Self {
            width,
            height,
            layout: &NATIVE,
            ports,
            rom,
            memory,
            surfaces,
            ram,
            slot: u64::from(slot),
            free,
            given: 0,
        };
        qxl.add_slot(slot, memory, ram);
        Ok(qxl)
    }

    fn add_slot(&self, slot: u8, start: u64, end: u64) {
        write(self.ram + ram::MEM_SLOT, start);
        write(self.ram + ram::MEM_SLOT + 8, end);
        self.out(port::MEMSLOT_ADD, slot);
    }

    /// Makes all of BAR 1 the slot after that of BAR 0, as drivers do that have surfaces.
    pub fn add_surfaces_slot(&self) {
        let Bar { start, size, .. } = self.surfaces;
        self.add_slot(self.slot as u8 + 1, start, start + size);
    }

    /// Where BAR 0 or BAR 1 begins.
    pub fn bar(&self, index: u64) -> u64 {
        match index {
            0 => self.memory,
            _ => self.surfaces.start,
        }
    }

    /// What the device calls an address in BAR 0. Drivers of the compatibility modes knew no slots.
    pub fn address(&self, at: u64) -> u64 {
        match self.is_compatible() {
            true => at,
            false => self.slot << 56 | (at - self.memory),
        }
    }

    fn is_compatible(&self) -> bool {
        self.layout.surfaces.is_none()
    }

    /// Enters the compatibility mode of its size with so many bits a pixel, with a surface and nothing on it.
    fn set_mode(&mut self, bits: u32) -> Outcome {
        const MODE_SIZE: u64 = 32;
        let modes = self.rom + u64::from(read::<u32>(self.rom + rom::MODES_OFFSET));
        let is_wanted = |place: &u32| {
            let mode = modes + 4 + MODE_SIZE * u64::from(*place);
            // Width, height, bits and orientation.
            let fields = [4, 8, 12, 28].map(|at| read::<u32>(mode + at));
            fields == [self.width, self.height, bits, 0]
        };
        let place = (0..read::<u32>(modes)).find(is_wanted);
        let place = place.ok_or_else(|| why(format_args!("no mode of {bits} bits")))?;
        self.out(port::SET_MODE, place as u8);
        self.layout = &COMPAT;
        self.given = 0;
        Ok(())
    }

    /// Makes the primary surface, at the start of BAR 0.
    pub fn create_primary(&self) {
        let (width, height) = (self.width, self.height);
        let fields = [width, height, width * 4, SURFACE_32, 0, 0, 0, 0];
        for (index, field) in (0..).zip(fields) {
            write(self.ram + ram::CREATE_SURFACE + 4 * index, field);
        }
        write(
            self.ram + ram::CREATE_SURFACE + 32,
            self.address(self.memory),
        );
        out8(self.ports + port::CREATE_PRIMARY, 0);
    }

    /// One monitor, which shows all of it.
    pub fn set_monitors(&mut self) -> Outcome {
        self.set_heads(1)
    }

    /// Monitors side by side, which show parts of one width.
    fn set_heads(&mut self, count: u32) -> Outcome {
        let config = self.allocate(4 + 28 * u64::from(count));
        write(config, count as u16);
        write(config + 2, count as u16);
        let width = self.width / count;
        for id in 0..count {
            let fields = [id, 0, width, self.height, id * width, 0, 0];
            for (index, field) in (0..).zip(fields) {
                write(config + 4 + 28 * u64::from(id) + 4 * index, field);
            }
        }
        write(self.ram + ram::MONITORS_CONFIG, self.address(config));
        write(self.ram + ram::INT_PENDING, 0_u32);
        out8(self.ports + port::MONITORS_CONFIG, 0);
        let pending = self.ram + ram::INT_PENDING;
        let done = wait_until(|| read::<u32>(pending) & INTERRUPT_IO_CMD != 0);
        ensure!(done, "the monitors config is never taken");
        Ok(())
    }

    /// Zeroed memory in the command pages; it is never given back, the picture is small.
    pub fn allocate(&mut self, size: u64) -> u64 {
        let start = self.free;
        self.free += size.next_multiple_of(8);
        for at in (start..self.free).step_by(8) {
            write(at, 0_u64);
        }
        start
    }

    /// Puts a command into one of the rings.
    fn push(&mut self, ring: u64, kind: u32, command: u64) -> Outcome {
        let command = self.address(command);
        let taken = wait_until(|| self.offer(ring, kind, command));
        ensure!(taken, "the ring stays full");
        Ok(())
    }

    /// Puts a command, by the device's address of it, into a ring; `false` if there is no room.
    fn offer(&self, ring: u64, kind: u32, command: u64) -> bool {
        let ring = self.ram + ring;
        let items: u32 = read(ring);
        let produced: u32 = read(ring + 4);
        if items != RING_ITEMS || produced.wrapping_sub(read(ring + 12)) >= items {
            return false;
        }
        let item = ring + 20 + 16 * u64::from(produced % items);
        write(item, command);
        write(item + 8, kind);
        fence(Ordering::SeqCst);
        let produced = produced.wrapping_add(1);
        write(ring + 4, produced);
        fence(Ordering::SeqCst);
        if read::<u32>(ring + 8) == produced {
            self.out(port::NOTIFY_CMD, 0);
        }
        true
    }

    /// As [`Qxl::offer`], into the ring that is for this kind.
    pub fn offer_any(&self, kind: u32, command: u64) -> bool {
        let ring = match kind {
            COMMAND_CURSOR => ram::CURSOR_RING,
            _ => ram::CMD_RING,
        };
        self.offer(ring, kind, command)
    }

    /// Writes a port.
    pub fn out(&self, port: u16, value: u8) {
        out8(self.ports + port, value);
    }

    /// Where QXLRam is, and how large.
    pub fn header(&self) -> (u64, u64) {
        (self.ram, ram::MONITORS_CONFIG + 8)
    }

    /// Whether the device has found something impossible.
    pub fn has_failed(&self) -> bool {
        read::<u32>(self.ram + ram::INT_PENDING) & INTERRUPT_ERROR != 0
    }

    /// Takes everything that the device gave back, without a look at it.
    pub fn forget_releases(&self) {
        let ring = self.ram + ram::RELEASE_RING;
        write(ring + 12, read::<u32>(ring + 4));
    }

    /// Fills the whole surface and looks whether the device did.
    pub fn check(&mut self, colour: u32) -> Outcome {
        self.fill(rect(0, 0, self.width, self.height), colour)?;
        let found = self.pixel(self.width / 2, self.height / 2);
        ensure!(found == colour, "a fill makes {found:#x} of {colour:#x}");
        Ok(())
    }

    /// A command of this size that knows its release id.
    fn command(&mut self, size: u64) -> u64 {
        self.given += 1;
        let command = self.allocate(size);
        write(command, command);
        command
    }

    fn drawable(&mut self, kind: u8, area: Rect) -> u64 {
        let drawable = self.command(192);
        self.write_drawable(drawable, kind, area);
        drawable
    }

    fn write_drawable(&self, drawable: u64, kind: u8, area: Rect) {
        write(drawable + self.layout.effect, EFFECT_OPAQUE);
        write(drawable + self.layout.kind, kind);
        write_rect(drawable + self.layout.bbox, area);
        if let Some(surfaces) = self.layout.surfaces {
            for index in 0..3 {
                write(drawable + surfaces + 4 * index, -1_i32);
            }
        }
    }

    fn write_fill(&self, drawable: u64, colour: u32) {
        let body = drawable + self.layout.body;
        write(body, 1_u32); // a solid brush
        write(body + 4, colour);
        write(body + 20, PUT);
    }

    fn fill(&mut self, area: Rect, colour: u32) -> Outcome {
        let drawable = self.drawable(DRAW_FILL, area);
        self.write_fill(drawable, colour);
        self.push(ram::CMD_RING, COMMAND_DRAW, drawable)
    }

    fn copy_bits(&mut self, area: Rect, from: (u32, u32)) -> Outcome {
        let drawable = self.drawable(DRAW_COPY_BITS, area);
        write(drawable + self.layout.body, from.0);
        write(drawable + self.layout.body + 4, from.1);
        self.push(ram::CMD_RING, COMMAND_DRAW, drawable)
    }

    /// Draws a bitmap of `area`'s size, each pixel by its place in it.
    fn copy(&mut self, area: Rect, pixel: impl Fn(u32, u32) -> u32) -> Outcome {
        let (width, height) = (area.right - area.left, area.bottom - area.top);
        let size = u64::from(width * height * 4);
        let data = self.allocate(20 + size);
        write(data, size as u32);
        for y in 0..height {
            for x in 0..width {
                write(data + 20 + u64::from((y * width + x) * 4), pixel(x, y));
            }
        }
        let image = self.allocate(48);
        let drawable = self.drawable(DRAW_COPY, area);
        self.write_copy(drawable, image, data, (width, height));
        self.push(ram::CMD_RING, COMMAND_DRAW, drawable)
    }

    /// Fields of a drawable that copies a bitmap of this size.
    fn write_copy(&self, drawable: u64, image: u64, data: u64, (width, height): (u32, u32)) {
        write(image, self.given << 32);
        write(image + 10, width);
        write(image + 14, height);
        write(image + 18, FORMAT_32);
        write(image + 19, 4_u8); // top down
        write(image + 20, width);
        write(image + 24, height);
        write(image + 28, width * 4);
        write(image + 40, self.address(data));
        let body = drawable + self.layout.body;
        write(body, self.address(image));
        write_rect(body + 8, rect(0, 0, width, height));
        write(body + 24, PUT);
    }

    /// A slot for commands with images of at most so many pixels.
    pub fn slot(&mut self, pixels: u32) -> Slot {
        Slot(self.allocate(SLOT_PIXELS + u64::from(pixels) * 4))
    }

    /// Makes `area` one colour; the slot is the device's until [`Qxl::collect`] names it.
    pub fn put_fill(&mut self, slot: Slot, area: Rect, colour: u32) -> Outcome {
        self.begin(slot);
        self.write_drawable(slot.0, DRAW_FILL, area);
        self.write_fill(slot.0, colour);
        self.push(ram::CMD_RING, COMMAND_DRAW, slot.0)
    }

    /// Draws pixels, two at a time from `pixels`, on `area`, whose width is even; the slot is the
    /// device's until [`Qxl::collect`] names it.
    pub fn put(&mut self, slot: Slot, area: Rect, mut pixels: impl FnMut() -> u64) -> Outcome {
        self.begin(slot);
        let (width, height) = (area.right - area.left, area.bottom - area.top);
        let bytes = u64::from(width * height * 4);
        write(slot.0 + SLOT_DATA, bytes as u32);
        for at in (0..bytes).step_by(8) {
            write(slot.0 + SLOT_PIXELS + at, pixels());
        }
        self.write_drawable(slot.0, DRAW_COPY, area);
        self.write_copy(
            slot.0,
            slot.0 + SLOT_IMAGE,
            slot.0 + SLOT_DATA,
            (width, height),
        );
        self.push(ram::CMD_RING, COMMAND_DRAW, slot.0)
    }

    /// Makes a slot a command without fields, but for its release id.
    fn begin(&mut self, slot: Slot) {
        self.given += 1;
        for at in (slot.0..slot.0 + SLOT_DATA).step_by(8) {
            write(at, 0_u64);
        }
        write(slot.0, slot.0);
    }

    /// A 16 × 16 cursor, a red square with a clear middle, at a place.
    fn set_cursor(&mut self, x: i16, y: i16) -> Outcome {
        const SIDE: u32 = 16;
        let cursor = self.allocate(42 + u64::from(SIDE * SIDE * 4));
        write(cursor, 1_u64);
        write(cursor + 8, 0_u16); // with alpha
        write(cursor + 10, SIDE as u16);
        write(cursor + 12, SIDE as u16);
        write(cursor + 18, SIDE * SIDE * 4);
        write(cursor + 22, SIDE * SIDE * 4);
        for pixel in 0..SIDE * SIDE {
            let clear = (4..12).contains(&(pixel % SIDE)) && (4..12).contains(&(pixel / SIDE));
            let colour: u32 = if clear { 0 } else { 0xffff_0000 };
            write(cursor + 42 + u64::from(pixel * 4), colour);
        }
        let command = self.command(152);
        write(command + 9, x);
        write(command + 11, y);
        write(command + 13, 1_u8);
        write(command + 14, self.address(cursor));
        self.push(ram::CURSOR_RING, COMMAND_CURSOR, command)
    }

    /// Puts a command that others have written into its ring, by the device's address of it.
    pub fn give(&mut self, kind: u32, command: u64) -> Outcome {
        let at = self.memory + (command & ((1 << 48) - 1));
        write(at, at);
        self.given += 1;
        let taken = wait_until(|| self.offer_any(kind, command));
        ensure!(taken, "the ring stays full");
        Ok(())
    }

    /// Has the device draw up to here, and write all of a surface of this size to memory.
    pub fn update(&self, surface: u32, width: u32, height: u32) {
        write_rect(self.ram + ram::UPDATE_RECT, rect(0, 0, width, height));
        write(self.ram + ram::UPDATE_SURFACE, surface);
        self.out(port::UPDATE_AREA, 0);
    }

    /// Reads a pixel of the primary surface, whose lowest row is the first in the compatibility modes.
    fn pixel(&self, x: u32, y: u32) -> u32 {
        self.update(0, self.width, self.height);
        let y = match self.is_compatible() {
            true => self.height - 1 - y,
            false => y,
        };
        read::<u32>(self.memory + u64::from((y * self.width + x) * 4)) & 0xff_ffff
    }

    /// Takes what the device gave back, telling `take` of each command; how many that is. A ring
    /// entry is a chain: each command's first word, its id before, is now the id of the next.
    pub fn collect(&self, mut take: impl FnMut(Slot)) -> Result<u64, Why> {
        let ring = self.ram + ram::RELEASE_RING;
        let mut count = 0;
        while read::<u32>(ring + 12) != read::<u32>(ring + 4) {
            let consumed: u32 = read(ring + 12);
            let items: u32 = read(ring);
            let mut id: u64 = read(ring + 20 + 8 * u64::from(consumed % items));
            while id != 0 {
                count += 1;
                let ours = (self.memory..self.free).contains(&id) && count <= self.given;
                ensure!(ours, "{id:#x} is given back, which was not taken");
                let next = read(id);
                take(Slot(id));
                id = next;
            }
            let next = consumed.wrapping_add(1);
            write(ring + 12, next);
            if read::<u32>(ring + 16) == next {
                out8(self.ports + port::NOTIFY_CMD, 0);
            }
        }
        Ok(count)
    }

    /// Destroys a surface off screen, with which the command that made it comes back.
    pub fn destroy_surface(&self, surface: u8) {
        out8(self.ports + port::DESTROY_SURFACE, surface);
    }

    /// Asks for everything back, as a driver short of memory does, and counts.
    pub fn collect_all(&self) -> Result<u64, Why> {
        let mut count = self.collect(|_| ())?;
        let mut wrong = Ok(());
        wait_until(|| {
            if count < self.given {
                self.ask_back();
                match self.collect(|_| ()) {
                    Ok(more) => count += more,
                    Err(why) => wrong = Err(why),
                }
            }
            count >= self.given || wrong.is_err()
        });
        wrong.map(|()| count)
    }

    /// Asks for commands back before the device would give them by itself.
    pub fn ask_back(&self) {
        out8(self.ports + port::NOTIFY_OOM, 0);
        out8(self.ports + port::FLUSH_RELEASE, 0);
    }
}

/// `top, left, bottom, right`, as QXL has it.
fn write_rect(at: u64, rect: Rect) {
    for (index, side) in (0..).zip([rect.top, rect.left, rect.bottom, rect.right]) {
        write(at + 4 * index, side);
    }
}

/// Shows `heads` (4) monitors, each in a colour of its own.
pub fn test_heads(info: &StartInfo) -> Outcome {
    let heads = info.number("heads", 4) as u32;
    let mut qxl = Qxl::open(WIDTH, HEIGHT)?;
    qxl.create_primary();
    qxl.set_heads(heads)?;
    let width = WIDTH / heads;
    for id in 0..heads {
        qxl.fill(rect(id * width, 0, width, HEIGHT), 0x30_1020 * (id + 1))?;
    }
    let last = qxl.pixel(WIDTH - 1, HEIGHT - 1);
    ensure!(last == 0x30_1020 * heads, "the last head shows {last:#x}");
    Ok(())
}

/// Shows a colour on each of `devices` (2) displays, the second one smaller than the first.
pub fn test_devices(info: &StartInfo) -> Outcome {
    for before in 0..info.number("devices", 2) as u32 {
        let (width, height) = (WIDTH >> before, HEIGHT >> before);
        let mut qxl = Qxl::open_nth(before as usize, width, height)?;
        qxl.create_primary();
        qxl.set_monitors()?;
        qxl.check(0x30_1020 * (before + 1))?;
    }
    Ok(())
}

/// Draws the picture in native mode; says how many commands were given back.
pub fn test(_: &StartInfo) -> Outcome {
    let mut qxl = Qxl::open(WIDTH, HEIGHT)?;
    qxl.create_primary();
    qxl.set_monitors()?;
    draw_picture(&mut qxl)
}

/// Draws the picture in a compatibility mode, after a fill in one of 16 bits, whose colours have five bits each.
pub fn test_compatible(_: &StartInfo) -> Outcome {
    let mut qxl = Qxl::open(WIDTH, HEIGHT)?;
    qxl.set_mode(16)?;
    qxl.fill(rect(0, 0, WIDTH, HEIGHT), 0x10 << 10 | 0x1f << 5)?;
    let found = qxl.pixel(9, 9);
    ensure!(found == 0x84_ff00, "a fill of 16 bits makes {found:#x}");
    qxl.set_mode(32)?;
    draw_picture(&mut qxl)
}

/// Draws the picture and reads pixels of it back.
fn draw_picture(qxl: &mut Qxl) -> Outcome {
    qxl.fill(rect(0, 0, WIDTH, HEIGHT), 0x20_4060)?;
    qxl.copy(rect(32, 32, 256, 128), |x, y| {
        x << 16 | y << 9 | (x ^ y) & 0xff
    })?;
    qxl.copy_bits(rect(320, 32, 256, 128), (32, 32))?;
    for step in 0..40 {
        qxl.fill(
            rect(32 + 14 * step, 200, 10, 200),
            0x06_0000 * step + 0x00_f0_10,
        )?;
    }
    qxl.set_cursor(300, 300)?;
    for (x, y, wanted) in [
        (0, 0, 0x20_4060),
        (32, 32, 0),
        (132, 64, 100 << 16 | 32 << 9 | 100 ^ 32),
        (420, 64, 100 << 16 | 32 << 9 | 100 ^ 32),
        (32, 399, 0x00_f010),
        (32 + 14 * 39, 200, 0x06_0000 * 39 + 0x00_f010),
    ] {
        let found = qxl.pixel(x, y);
        ensure!(
            found == wanted,
            "pixel {x},{y} is {found:#08x}, not {wanted:#08x}"
        );
    }
    let released = qxl.collect_all()?;
    say!("qxl released {released} of {}", qxl.given);
    ensure!(released > 0, "no command is ever given back");
    Ok(())
}
