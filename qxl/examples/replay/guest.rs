//! The driver's side of the device: its memory, and what it does with it.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use caraway_devices::pci::PciFunction;
use caraway_devices::{Clock, InterruptLine, RealClock};
use caraway_qxl::{BarRegion, Qxl, QxlConfig, QxlError};
use rustix::mm::{MapFlags, ProtFlags, mmap};
use vm_memory::{MmapRegion, VolatileMemory, VolatileSlice};

/// Where the firmware would have placed the BARs.
const RAM_BASE: u64 = 0x8000_0000;
const BAR_RAM: u8 = 0;
const BAR_PORTS: u8 = 3;

const PORT_NOTIFY_CMD: u64 = 0;
const PORT_RESET: u64 = 5;
const PORT_MEMSLOT_ADD: u64 = 8;
const PORT_CREATE_PRIMARY: u64 = 12;
const PORT_DESTROY_PRIMARY: u64 = 13;
const PORT_DESTROY_SURFACES: u64 = 15;

/// The header at the end of BAR 0, and what is in it.
const HEADER_LEN: u64 = 8192;
const COMMAND_RING: u64 = 0x100c;
const CURSOR_RING: u64 = 0x1220;
const MEM_SLOT: u64 = 0x149c;
const CREATE_SURFACE: u64 = 0x14ac;
/// Entries of the command and the cursor ring.
const RING_LEN: u32 = 32;
/// The memory slot of BAR 0, and where an address has it: in its top byte.
const RAM_SLOT_NUMBER: u8 = 1;
const RAM_SLOT: u64 = (RAM_SLOT_NUMBER as u64) << 56;
/// `QXL_CMD_CURSOR`.
const CURSOR: u32 = 3;

const RAM: u64 = 1 << 30;
const VGAMEM: u64 = 64 << 20;
/// Where in BAR 0 a part of the recording's file is seen.
const WINDOW: u64 = 512 << 20;
const WINDOW_LEN: u64 = RAM - WINDOW - HEADER_LEN;
const PAGE: u64 = 4096;

/// The guest has no memory of this size left.
#[derive(Debug, thiserror::Error)]
#[error("{0} bytes are more than this replay has memory for")]
pub struct OutOfMemory(usize);

struct NoLine;

impl InterruptLine for NoLine {
    fn set(&self, _level: bool) {}
}

/// A guest with a driver that polls.
pub struct Guest {
    qxl: Arc<Qxl>,
    /// BAR 0.
    ram: Arc<MmapRegion>,
    /// Where the next structure goes; commands are done when they are pushed, so each finds all
    /// memory free.
    next: u64,
    /// Which part of the recording's file is in the window, …
    mapped: Range<u64>,
    /// … and whether the next command has something there.
    is_window_used: bool,
    has_primary: bool,
    /// How long the device took for each command.
    times: Vec<Duration>,
}

impl Guest {
    /// A guest that has just loaded its driver.
    ///
    /// # Errors
    /// The host has no memory for the device.
    pub fn new() -> Result<Self, QxlError> {
        let config = QxlConfig {
            ram: RAM,
            vgamem: VGAMEM,
            ..QxlConfig::default()
        };
        let clock: Arc<dyn Clock> = RealClock::new();
        let qxl = Qxl::new(config, Arc::new(NoLine), clock)?;
        {
            let mut space = qxl.config().lock();
            space.write(0x10, &(RAM_BASE as u32).to_le_bytes());
            space.write(0x04, &[7, 0]);
        }
        let mut regions = qxl.regions().into_iter();
        let ram = regions.find(|region| region.bar == BAR_RAM);
        let BarRegion { region: ram, .. } = ram.expect("every QXL device has one");
        let guest = Self {
            qxl,
            ram,
            next: VGAMEM,
            mapped: 0..0,
            is_window_used: false,
            has_primary: false,
            times: Vec::new(),
        };
        guest.out(PORT_RESET, 0);
        let (start, end) = (RAM_BASE, RAM_BASE + RAM - HEADER_LEN);
        guest.write_header(MEM_SLOT, &start.to_le_bytes());
        guest.write_header(MEM_SLOT + 8, &end.to_le_bytes());
        guest.out(PORT_MEMSLOT_ADD, RAM_SLOT_NUMBER);
        Ok(guest)
    }

    /// The device.
    pub fn qxl(&self) -> &Arc<Qxl> {
        &self.qxl
    }

    /// How long the device took for a command: in the middle, and at most.
    pub fn times(&mut self) -> Option<(Duration, Duration)> {
        self.times.sort_unstable();
        let middle = self.times.get(self.times.len() / 2)?;
        Some((*middle, *self.times.last()?))
    }

    fn out(&self, port: u64, value: u8) {
        self.qxl.bar_write(BAR_PORTS, port, &[value]);
    }

    fn write_header(&self, at: u64, bytes: &[u8]) {
        self.qxl.bar_write(BAR_RAM, RAM - HEADER_LEN + at, bytes);
    }

    fn word(&self, at: u64) -> u32 {
        let mut bytes = [0; 4];
        self.qxl
            .bar_read(BAR_RAM, RAM - HEADER_LEN + at, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    /// Finds room for a structure, until the next command is done; its `QXLPHYSICAL`.
    ///
    /// # Errors
    /// There is none.
    pub fn reserve(&mut self, len: usize) -> Result<u64, OutOfMemory> {
        let room = (WINDOW - self.next) as usize;
        if len > room {
            return Err(OutOfMemory(len));
        }
        let end = self.next + (len as u64).next_multiple_of(16);
        let address = RAM_SLOT | self.next;
        self.next = end;
        Ok(address)
    }

    /// The memory at an address that [`reserve`](Self::reserve) gave, or after it.
    ///
    /// # Errors
    /// It ends before.
    pub fn memory(&self, address: u64, len: usize) -> Result<VolatileSlice<'_>, OutOfMemory> {
        let at = (address & !RAM_SLOT) as usize;
        self.ram.get_slice(at, len).map_err(|_| OutOfMemory(len))
    }

    /// Has the part `wanted` of a file in memory until the next command is done; its `QXLPHYSICAL`. What is
    /// written there stays out of the file, which must not shrink. `None` if something else is in its way.
    ///
    /// # Errors
    /// The system's, and [`io::ErrorKind::UnexpectedEof`] if the file ends before.
    pub fn map(&mut self, file: &File, wanted: Range<u64>) -> io::Result<Option<u64>> {
        let has_it = |part: &Range<u64>| part.start <= wanted.start && wanted.end <= part.end;
        if !has_it(&self.mapped) {
            if self.is_window_used {
                return Ok(None);
            }
            let start = wanted.start / PAGE * PAGE;
            let part = start..file.metadata()?.len().min(start + WINDOW_LEN);
            if !has_it(&part) {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.move_window(file, part)?;
        }
        self.is_window_used = true;
        let at = WINDOW + wanted.start - self.mapped.start;
        Ok(Some(RAM_SLOT | at))
    }

    fn move_window(&mut self, file: &File, part: Range<u64>) -> io::Result<()> {
        let len = (part.end - part.start) as usize;
        let window = self.ram.get_slice(WINDOW as usize, len);
        let window = window.map_err(io::Error::other)?.ptr_guard_mut();
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
        // SAFETY: what is replaced are pages of the region, from the start of one on, and the last of them
        // has nothing else. Of a region's memory there are no references; it is only copied to and from.
        unsafe { mmap(window.as_ptr().cast(), len, access, flags, file, part.start)? };
        self.mapped = part;
        Ok(())
    }

    /// Writes at an address that [`reserve`](Self::reserve) gave, or after it.
    pub fn write(&self, address: u64, bytes: &[u8]) {
        self.qxl.bar_write(BAR_RAM, address & !RAM_SLOT, bytes);
    }

    /// Puts bytes somewhere, until the next command is done; their `QXLPHYSICAL`.
    ///
    /// # Errors
    /// There is no room.
    pub fn put(&mut self, bytes: &[u8]) -> Result<u64, OutOfMemory> {
        let address = self.reserve(bytes.len())?;
        self.write(address, bytes);
        Ok(address)
    }

    /// Makes a primary surface of these `QXLSurfaceCreate` words (width to type), with the pixels at `data`.
    pub fn create_primary(&mut self, words: [u32; 8], data: u64) {
        let mut surface: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        surface.extend(data.to_le_bytes());
        self.write_header(CREATE_SURFACE, &surface);
        self.out(PORT_CREATE_PRIMARY, 0);
        self.has_primary = true;
        self.qxl.process();
        self.free_all();
    }

    /// The primary surface is gone.
    pub fn destroy_primary(&mut self) {
        if std::mem::take(&mut self.has_primary) {
            self.out(PORT_DESTROY_PRIMARY, 0);
            self.qxl.process();
        }
    }

    /// All surfaces are gone.
    pub fn destroy_surfaces(&mut self) {
        self.has_primary = false;
        self.out(PORT_DESTROY_SURFACES, 0);
        self.qxl.process();
    }

    /// Has the command at `address` done, and all memory free again.
    pub fn run(&mut self, kind: u32, address: u64) {
        let ring = if kind == CURSOR {
            CURSOR_RING
        } else {
            COMMAND_RING
        };
        let producer = self.word(ring + 4);
        let mut item = address.to_le_bytes().to_vec();
        item.extend(u64::from(kind).to_le_bytes());
        self.write_header(ring + 20 + u64::from(producer % RING_LEN) * 16, &item);
        self.write_header(ring + 4, &producer.wrapping_add(1).to_le_bytes());
        let begin = Instant::now();
        self.out(PORT_NOTIFY_CMD, 0);
        self.qxl.process();
        self.times.push(begin.elapsed());
        // Commands have no id, so none comes back; all are done.
        self.free_all();
    }

    fn free_all(&mut self) {
        self.next = VGAMEM;
        self.is_window_used = false;
    }
}
