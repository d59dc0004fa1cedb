//! The header at the end of BAR 0 (`QXLRam`): registers that device and driver share.

use std::sync::atomic::{AtomicU32, Ordering};

use caraway_spice::Rect;
use zerocopy::FromZeros;
use zerocopy::little_endian::U64;

use super::memslots::GuestAddress;
use super::rings::{CommandRing, ReleaseRing};
use crate::command::wire::{SurfaceCreate, WireRect};
use crate::memory::Memory;

/// Bytes that the header takes at the end of BAR 0, whole pages.
pub(crate) const RAM_HEADER_LEN: u64 = 8192;
/// Bytes of it that are in use.
const USED: usize = 5348;

const MAGIC: &[u8; 4] = b"QXRA";
const INT_PENDING: u64 = 0x0004;
const INT_MASK: u64 = 0x0008;
const LOG: u64 = 0x000c;
const LOG_LEN: usize = 4096;
const COMMAND_RING: u64 = 0x100c;
const CURSOR_RING: u64 = 0x1220;
const RELEASE_RING: u64 = 0x1434;
const UPDATE_AREA: u64 = 0x1488;
const UPDATE_SURFACE: u64 = 0x1498;
const MEM_SLOT: u64 = 0x149c;
const CREATE_SURFACE: u64 = 0x14ac;
const MONITORS_CONFIG: u64 = 0x14dc;

/// The header, in place.
pub(crate) struct Ram {
    memory: Memory,
    base: u64,
    /// Stands in for a register that is not there, which can't happen: the header is in the BAR.
    nowhere: AtomicU32,
    pub(crate) commands: CommandRing,
    pub(crate) cursors: CommandRing,
    pub(crate) releases: ReleaseRing,
}

impl Ram {
    /// The header at the end of `memory`, as after a reset.
    pub(crate) fn new(memory: Memory) -> Self {
        let base = memory.len() - RAM_HEADER_LEN;
        let ram = Self {
            commands: CommandRing::new(memory.clone(), base + COMMAND_RING),
            cursors: CommandRing::new(memory.clone(), base + CURSOR_RING),
            releases: ReleaseRing::new(memory.clone(), base + RELEASE_RING),
            memory,
            base,
            nowhere: AtomicU32::new(0),
        };
        ram.reset();
        ram
    }

    /// Empty rings, no interrupt, nothing asked for.
    pub(crate) fn reset(&self) {
        // The header is inside of the BAR.
        let _ = self.memory.write(self.base, &[0; USED]);
        let _ = self.memory.write(self.base, MAGIC);
        self.commands.reset();
        self.cursors.reset();
        self.releases.reset();
    }

    fn word(&self, at: u64) -> &AtomicU32 {
        self.memory.atomic(self.base + at).unwrap_or(&self.nowhere)
    }

    /// Interrupts that the guest has not seen yet; both sides change it.
    pub(crate) fn int_pending(&self) -> &AtomicU32 {
        self.word(INT_PENDING)
    }

    /// Interrupts that the guest wants.
    pub(crate) fn int_mask(&self) -> u32 {
        self.word(INT_MASK).load(Ordering::SeqCst)
    }

    /// What the guest wants logged.
    pub(crate) fn log(&self) -> String {
        let mut bytes = [0; LOG_LEN];
        let _ = self.memory.read(self.base + LOG, &mut bytes);
        let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(text).trim_end().to_owned()
    }

    /// Which surface and which part of it the guest wants written back.
    pub(crate) fn update_area(&self) -> (u32, Rect) {
        let rect = self.memory.get::<WireRect>(self.base + UPDATE_AREA);
        let surface = self.word(UPDATE_SURFACE).load(Ordering::SeqCst);
        (surface, rect.map(Rect::from).unwrap_or_default())
    }

    /// First and last address of the memory slot that the guest wants.
    pub(crate) fn mem_slot(&self) -> (u64, u64) {
        let range = self.memory.get::<[U64; 2]>(self.base + MEM_SLOT);
        let [start, end] = range.unwrap_or_default();
        (start.get(), end.get())
    }

    /// The primary surface that the guest wants.
    pub(crate) fn create_surface(&self) -> SurfaceCreate {
        let wire = self.memory.get(self.base + CREATE_SURFACE);
        wire.unwrap_or_else(|_| SurfaceCreate::new_zeroed())
    }

    /// Where the guest describes its monitors.
    pub(crate) fn monitors_config(&self) -> GuestAddress {
        let address = self.memory.get::<U64>(self.base + MONITORS_CONFIG);
        GuestAddress(address.unwrap_or_default().get())
    }
}
