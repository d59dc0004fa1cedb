//! The driver's side of the device, for tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub(crate) use caraway_canvas_model::{Bytes, Form, Heap};
use caraway_devices::pci::PciFunction;
use caraway_devices::{FakeClock, FakeLine};
use caraway_spice::{DisplayObserver, DisplaySource, Rect, Update};
use parking_lot::Mutex;

use crate::{Qxl, QxlConfig};

pub(crate) const RAM_BASE: u64 = 0xe000_0000;
pub(crate) const VRAM_BASE: u64 = 0xf000_0000;
const HEADER: u64 = 8192;

pub(crate) const PORT_NOTIFY_CMD: u64 = 0;
pub(crate) const PORT_UPDATE_AREA: u64 = 2;
pub(crate) const PORT_UPDATE_IRQ: u64 = 3;
pub(crate) const PORT_NOTIFY_OOM: u64 = 4;
pub(crate) const PORT_RESET: u64 = 5;
pub(crate) const PORT_MEMSLOT_ADD: u64 = 8;
pub(crate) const PORT_CREATE_PRIMARY: u64 = 12;
pub(crate) const PORT_DESTROY_PRIMARY: u64 = 13;
pub(crate) const PORT_UPDATE_AREA_ASYNC: u64 = 16;
pub(crate) const PORT_MEMSLOT_ADD_ASYNC: u64 = 17;
pub(crate) const PORT_CREATE_PRIMARY_ASYNC: u64 = 18;
pub(crate) const PORT_MONITORS_CONFIG_ASYNC: u64 = 24;

pub(crate) const INT_DISPLAY: u32 = 1;
pub(crate) const INT_IO_CMD: u32 = 4;
pub(crate) const INT_ERROR: u32 = 8;
pub(crate) const INT_CLIENT_MONITORS: u32 = 32;

pub(crate) const CMD_DRAW: u32 = 1;
pub(crate) const CMD_CURSOR: u32 = 3;
pub(crate) const CMD_SURFACE: u32 = 5;

const RELEASE_RING: u64 = 0x1434;

/// Where structures of tests begin: after the frame buffer.
const HEAP: u64 = 1 << 20;

/// A rectangle from its sides.
pub(crate) fn rect(left: i32, top: i32, right: i32, bottom: i32) -> Rect {
    Rect {
        left,
        top,
        right,
        bottom,
    }
}

/// A guest with a small device.
pub(crate) struct Guest {
    pub(crate) qxl: Arc<Qxl>,
    pub(crate) line: Arc<FakeLine>,
    pub(crate) clock: Arc<FakeClock>,
    next: AtomicUsize,
}

impl Guest {
    /// A guest whose firmware has placed the BARs and whose driver has done nothing yet.
    pub(crate) fn new() -> Self {
        Self::with(QxlConfig {
            ram: 8 << 20,
            vram: 4 << 20,
            vgamem: 1 << 20,
            ..QxlConfig::default()
        })
    }

    pub(crate) fn with(config: QxlConfig) -> Self {
        let (line, clock) = (FakeLine::new(), FakeClock::new(0));
        let qxl = Qxl::new(config, line.clone(), clock.clone()).unwrap();
        let guest = Self {
            qxl,
            line,
            clock,
            next: AtomicUsize::new(0),
        };
        guest.place_bars();
        guest
    }

    pub(crate) fn place_bars(&self) {
        let mut space = self.qxl.config().lock();
        space.write(0x10, &(RAM_BASE as u32).to_le_bytes());
        space.write(0x14, &(VRAM_BASE as u32).to_le_bytes());
        space.write(0x04, &[7, 0]);
    }

    pub(crate) fn out(&self, port: u64, value: u8) {
        self.qxl.bar_write(3, port, &[value]);
    }

    fn header(&self) -> u64 {
        self.ram_len() - HEADER
    }

    fn ram_len(&self) -> u64 {
        self.qxl.bar_memory(0).unwrap().region.size() as u64
    }

    pub(crate) fn write(&self, bar: u8, at: u64, bytes: &[u8]) {
        self.qxl.bar_write(bar, at, bytes);
    }

    pub(crate) fn read(&self, bar: u8, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.qxl.bar_read(bar, at, &mut bytes);
        bytes
    }

    pub(crate) fn write_header(&self, at: u64, bytes: &[u8]) {
        self.write(0, self.header() + at, bytes);
    }

    pub(crate) fn word(&self, at: u64) -> u32 {
        let bytes = self.read(0, self.header() + at, 4);
        u32::from_le_bytes(bytes.try_into().unwrap())
    }

    pub(crate) fn set_word(&self, at: u64, value: u32) {
        self.write_header(at, &value.to_le_bytes());
    }

    /// As an interrupt handler does: the pending bits, which are then none.
    pub(crate) fn take_interrupts(&self) -> u32 {
        let pending = self.word(4);
        self.set_word(4, 0);
        self.out(PORT_UPDATE_IRQ, 0);
        pending
    }

    /// The bytes at an address in slot 1.
    pub(crate) fn get(&self, address: u64, len: usize) -> Vec<u8> {
        self.read(0, address & 0xffff_ffff, len)
    }

    pub(crate) fn describe_slot(&self, start: u64, end: u64) {
        let range = Bytes::default().u64(start).u64(end);
        self.write_header(0x149c, &range.0);
    }

    pub(crate) fn describe_primary(&self, width: u32, height: u32, stride: i32, flags: u32) {
        let surface = Bytes::default()
            .u32(width)
            .u32(height)
            .u32(stride as u32)
            .u32(32)
            .zeros(8)
            .u32(flags)
            .u32(0)
            .u64(1 << 56);
        self.write_header(0x14ac, &surface.0);
    }

    /// A driver that is ready to draw on a primary surface of this size at the start of slot 1.
    pub(crate) fn native(width: u32, height: u32) -> Self {
        let guest = Self::new();
        guest.go_native(width, height);
        guest
    }

    pub(crate) fn go_native(&self, width: u32, height: u32) {
        self.out(PORT_RESET, 0);
        self.set_word(8, 0x27);
        self.describe_slot(RAM_BASE, RAM_BASE + self.header());
        self.out(PORT_MEMSLOT_ADD, 1);
        self.describe_slot(VRAM_BASE, VRAM_BASE + (4 << 20));
        self.out(PORT_MEMSLOT_ADD, 2);
        self.describe_primary(width, height, width as i32 * 4, 0);
        self.out(PORT_CREATE_PRIMARY, 0);
        self.qxl.process();
    }

    fn push_on(&self, ring: u64, kind: u32, address: u64) {
        let producer = self.word(ring + 4);
        let item = Bytes::default().u64(address).u32(kind).u32(0);
        self.write_header(ring + 20 + u64::from(producer % 32) * 16, &item.0);
        self.set_word(ring + 4, producer.wrapping_add(1));
    }

    /// Puts a command on the ring it belongs to.
    pub(crate) fn push(&self, kind: u32, address: u64) {
        let ring = if kind == CMD_CURSOR { 0x1220 } else { 0x100c };
        self.push_on(ring, kind, address);
    }

    /// Puts a command on its ring, and has it done.
    pub(crate) fn run(&self, kind: u32, address: u64) {
        self.push(kind, address);
        self.out(PORT_NOTIFY_CMD, 0);
        self.qxl.process();
    }

    /// Every id that was given back, in order, with the lists followed.
    pub(crate) fn take_releases(&self, address_of: impl Fn(u64) -> u64) -> Vec<u64> {
        let mut ids = Vec::new();
        while self.word(RELEASE_RING + 12) != self.word(RELEASE_RING + 4) {
            let consumer = self.word(RELEASE_RING + 12);
            let at = RELEASE_RING + 20 + u64::from(consumer % 8) * 8;
            let item = self.read(0, self.header() + at, 8);
            let mut id = u64::from_le_bytes(item.try_into().unwrap());
            while id != 0 {
                ids.push(id);
                let next = self.get(address_of(id), 8);
                id = u64::from_le_bytes(next.try_into().unwrap());
            }
            self.set_word(RELEASE_RING + 12, consumer.wrapping_add(1));
        }
        ids
    }

    /// The body of a copy from `area` of `image`.
    pub(crate) fn copy_body(image: u64, area: Rect) -> Bytes {
        Bytes::default()
            .u64(image)
            .rect(area)
            .u16(8)
            .u8(0)
            .zeros(17)
    }

    /// The body of a fill with one colour.
    pub(crate) fn fill_body(color: u32) -> Bytes {
        Bytes::default()
            .u32(1)
            .u32(color)
            .zeros(12)
            .u16(8)
            .zeros(17)
    }

    /// Fills `area` of a surface.
    pub(crate) fn fill(&self, surface: u32, area: Rect, color: u32) {
        let drawable = self.drawable(1, surface, area, &[], Self::fill_body(color));
        self.run(CMD_DRAW, drawable);
    }

    /// The pixels of `area` of the screen, without their top byte.
    pub(crate) fn pixels(&self, area: Rect) -> Vec<u32> {
        let mut bytes = vec![0; (area.width() * area.height() * 4) as usize];
        let generation = self.qxl.layout().generation;
        assert!(self.qxl.read(generation, area, &mut bytes), "{area:?}");
        let pixels = bytes.as_chunks().0.iter();
        pixels
            .map(|pixel| u32::from_le_bytes(*pixel) & 0x00ff_ffff)
            .collect()
    }

    /// The pixel at a place of the screen.
    pub(crate) fn pixel(&self, x: i32, y: i32) -> u32 {
        self.pixels(rect(x, y, x + 1, y + 1))[0]
    }
}

impl Heap for Guest {
    fn put(&self, bytes: &[u8]) -> u64 {
        let len = bytes.len().next_multiple_of(16);
        let at = HEAP + self.next.fetch_add(len, Ordering::Relaxed) as u64;
        assert!(at + (len as u64) < self.header(), "the test's heap is full");
        self.write(0, at, bytes);
        1 << 56 | at
    }

    fn patch(&self, address: u64, bytes: &[u8]) {
        self.write(0, address & 0xffff_ffff, bytes);
    }
}

/// An observer that remembers.
#[derive(Default)]
pub(crate) struct Watcher {
    pub(crate) updates: Mutex<Vec<Rect>>,
    pub(crate) layouts: AtomicUsize,
    pub(crate) cursors: AtomicUsize,
}

impl Watcher {
    /// One that watches `qxl`.
    pub(crate) fn of(qxl: &Qxl) -> Arc<Self> {
        let watcher = Arc::new(Self::default());
        let weak: std::sync::Weak<Self> = Arc::downgrade(&watcher);
        qxl.observe(weak);
        watcher
    }
}

impl DisplayObserver for Watcher {
    fn updated(&self, updates: &[Update]) {
        let rects = updates.iter().filter_map(|update| match update {
            Update::Pixels(rect) | Update::Copy { to: rect, .. } => Some(*rect),
            _ => None,
        });
        self.updates.lock().extend(rects);
    }

    fn layout_changed(&self) {
        self.layouts.fetch_add(1, Ordering::Relaxed);
    }

    fn cursor_changed(&self) {
        self.cursors.fetch_add(1, Ordering::Relaxed);
    }
}
