//! The configuration space of one function (PCI Local Bus 3.0 chapter 6, PCIe 7.5).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::state::StateError;

/// Bytes of configuration space that the enhanced mechanism reaches (PCIe 7.2.2).
const SPACE: usize = 4096;
/// Where the first capability goes: after the type 0 header.
const FIRST_CAPABILITY: usize = 0x40;
/// The conventional part ends here.
const CONVENTIONAL: usize = 0x100;

/// Index under which [`Bar`] names the expansion ROM.
const ROM_INDEX: u8 = 6;
/// Expansion ROM register: it decodes.
const ROM_ENABLE: u32 = 1 << 0;

const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const CACHE_LINE: usize = 0x0c;
const HEADER_TYPE: usize = 0x0e;
const BAR0: usize = 0x10;
const ROM_BAR: usize = 0x30;
const CAPABILITIES: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3c;
const INTERRUPT_PIN: usize = 0x3d;

// Of a bridge (PCI-to-PCI Bridge 1.2, 3.2).
const BUS_NUMBERS: usize = 0x18;
const MEMORY_WINDOW: usize = 0x20;
const PREFETCHABLE_WINDOW: usize = 0x24;
const PREFETCHABLE_UPPER: usize = 0x28;
const BRIDGE_CONTROL: usize = 0x3e;

/// Command register: the function answers I/O accesses.
const COMMAND_IO: u16 = 1 << 0;
/// Command register: the function answers memory accesses.
const COMMAND_MEMORY: u16 = 1 << 1;
/// Command register: the function may read and write guest memory and send messages.
const COMMAND_MASTER: u16 = 1 << 2;
/// Command register: INTx is silenced.
const COMMAND_INTX_DISABLE: u16 = 1 << 10;
/// What of the command register the guest may write: the above, parity and SERR enable.
const COMMAND_WRITABLE: u16 = 0x0547;
/// Status register: there is a capability list.
const STATUS_CAPABILITIES: u16 = 1 << 4;

/// Identification registers of a function.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ids {
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Subsystem vendor id.
    pub subsystem_vendor: u16,
    /// Subsystem id.
    pub subsystem: u16,
    /// Base class, subclass, programming interface in bits 23:16, 15:8, 7:0.
    pub class: u32,
    /// Revision id.
    pub revision: u8,
}

/// What a BAR decodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BarKind {
    /// I/O ports.
    Io,
    /// Memory below 4 GiB, not prefetchable.
    Mem32,
    /// Memory anywhere, prefetchable; takes the next BAR register too.
    Mem64,
}

impl BarKind {
    /// The bits of the register that say what it is.
    const fn flags(self) -> u32 {
        match self {
            Self::Io => 0b01,
            Self::Mem32 => 0b0000,
            Self::Mem64 => 0b1100,
        }
    }

    /// The command register's bit that switches it on.
    const fn enable(self) -> u16 {
        match self {
            Self::Io => COMMAND_IO,
            Self::Mem32 | Self::Mem64 => COMMAND_MEMORY,
        }
    }
}

/// A BAR as the guest has set it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bar {
    /// Register number, 0 to 5; 6 is the expansion ROM.
    pub index: u8,
    /// What it decodes.
    pub kind: BarKind,
    /// Size in bytes, a power of two.
    pub size: u64,
    /// Where it decodes; `None` while the command register disables it.
    pub base: Option<u64>,
}

/// A capability of the list at 0x34.
#[derive(Debug, Clone)]
pub struct Capability {
    /// Capability id (PCI 3.0 appendix H).
    pub id: u8,
    /// Its registers from offset 2 on.
    pub body: Vec<u8>,
    /// Which bits of `body` the guest may write; missing ones are read-only.
    pub writable: Vec<u8>,
}

/// The 4,096 bytes of a function's configuration space, with what the guest may write.
pub struct ConfigSpace {
    bytes: Box<[u8; SPACE]>,
    writable: Box<[u8; SPACE]>,
    initial: Box<[u8; SPACE]>,
    /// The bits of bytes that the guest clears by writing ones.
    cleared: BTreeMap<usize, u8>,
    bars: Vec<(u8, BarKind, u64)>,
    next_capability: usize,
    last_capability: Option<usize>,
}

/// What a snapshot keeps of a configuration space: every byte of it that the guest can write.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConfigState {
    /// Offset and value of each writable byte, in order.
    writable: Vec<(u16, u8)>,
}

impl ConfigState {
    /// An offset in it that is outside of every configuration space.
    pub(super) fn bad_offset(&self) -> Option<u16> {
        let mut offsets = self.writable.iter().map(|(at, _)| *at);
        offsets.find(|at| usize::from(*at) >= SPACE)
    }
}

impl ConfigSpace {
    /// A type 0 header with these ids, no BAR and no capability.
    #[must_use]
    pub fn new(ids: Ids) -> Self {
        let zeros = || Box::new([0; SPACE]);
        let mut space = Self {
            bytes: zeros(),
            writable: zeros(),
            initial: zeros(),
            cleared: BTreeMap::new(),
            bars: Vec::new(),
            next_capability: FIRST_CAPABILITY,
            last_capability: None,
        };
        space.set(0x00, &ids.vendor.to_le_bytes());
        space.set(0x02, &ids.device.to_le_bytes());
        space.set(0x08, &[ids.revision]);
        space.set(0x09, &ids.class.to_le_bytes()[..3]);
        space.set(0x2c, &ids.subsystem_vendor.to_le_bytes());
        space.set(0x2e, &ids.subsystem.to_le_bytes());
        space.allow(COMMAND, &COMMAND_WRITABLE.to_le_bytes());
        space.allow(CACHE_LINE, &[0xff]);
        space.allow(INTERRUPT_LINE, &[0xff]);
        space
    }

    /// A type 1 header with these ids but those of the subsystem, and no capability: a bridge that
    /// passes memory on, at 64-bit addresses where it is prefetchable, and no I/O ports.
    #[must_use]
    pub fn bridge(ids: Ids) -> Self {
        let mut space = Self::new(Ids {
            subsystem_vendor: 0,
            subsystem: 0,
            ..ids
        });
        space.set(HEADER_TYPE, &[0x01]);
        space.allow(BUS_NUMBERS, &[0xff; 3]);
        let window = 0xfff0_fff0_u32.to_le_bytes();
        space.allow(MEMORY_WINDOW, &window);
        space.allow(PREFETCHABLE_WINDOW, &window);
        space.set(PREFETCHABLE_WINDOW, &0x0001_0001_u32.to_le_bytes());
        space.allow(PREFETCHABLE_UPPER, &[0xff; 8]);
        space.allow(BRIDGE_CONTROL, &[0x03]);
        space
    }

    /// Marks the function as one of several of its device (header type bit 7).
    #[must_use]
    pub fn multifunction(mut self) -> Self {
        let kind = self.bytes[HEADER_TYPE];
        self.set(HEADER_TYPE, &[kind | 0x80]);
        self
    }

    /// Adds BAR `index` of `size` bytes. A wrong size or index is a mistake of the device's
    /// author: the BAR is then left out.
    #[must_use]
    pub fn with_bar(mut self, index: u8, kind: BarKind, size: u64) -> Self {
        let registers = if kind == BarKind::Mem64 { 2 } else { 1 };
        let fits = size.is_power_of_two() && size >= 4 && usize::from(index) + registers <= 6;
        debug_assert!(fits, "BAR {index} of {size:#x} bytes");
        if !fits {
            return self;
        }
        let at = BAR0 + 4 * usize::from(index);
        let mask = !(size - 1);
        self.set(at, &kind.flags().to_le_bytes());
        let fixed = if kind == BarKind::Io { 0x3 } else { 0xf };
        self.allow(at, &((mask as u32) & !fixed).to_le_bytes());
        if kind == BarKind::Mem64 {
            self.allow(at + 4, &((mask >> 32) as u32).to_le_bytes());
        }
        self.bars.push((index, kind, size));
        self
    }

    /// Adds the expansion ROM register for a ROM of `size` bytes, a power of two of at least 2 KiB;
    /// it becomes BAR 6, of kind [`BarKind::Mem32`]. Another size is a mistake of the device's
    /// author: the ROM is then left out.
    #[must_use]
    pub fn with_rom(mut self, size: u64) -> Self {
        let mask = u32::try_from(size).map_or(0, |size| !(size.wrapping_sub(1)));
        let fits = size.is_power_of_two() && size >= 0x800 && mask != 0;
        debug_assert!(fits, "ROM of {size:#x} bytes");
        if fits {
            self.allow(ROM_BAR, &(mask | ROM_ENABLE).to_le_bytes());
            self.bars.push((ROM_INDEX, BarKind::Mem32, size));
        }
        self
    }

    /// Wires the function to INTx pin `pin`: 1 for A to 4 for D.
    #[must_use]
    pub fn with_interrupt_pin(mut self, pin: u8) -> Self {
        self.set(INTERRUPT_PIN, &[pin]);
        self
    }

    /// Adds a capability to the list and says at which offset its id is, or `None` if the
    /// conventional space has no room for it.
    pub fn add_capability(&mut self, capability: &Capability) -> Option<u16> {
        let at = self.next_capability;
        let end = at + 2 + capability.body.len();
        if end > CONVENTIONAL {
            return None;
        }
        let here = u8::try_from(at).ok()?;
        self.set(at, &[capability.id, 0]);
        self.set(at + 2, &capability.body);
        let count = capability.writable.len().min(capability.body.len());
        self.allow(at + 2, &capability.writable[..count]);
        match self.last_capability {
            Some(last) => self.set(last + 1, &[here]),
            None => {
                self.set(CAPABILITIES, &[here]);
                let status = self.u16_at(STATUS) | STATUS_CAPABILITIES;
                self.set(STATUS, &status.to_le_bytes());
            }
        }
        self.last_capability = Some(at);
        self.next_capability = end.next_multiple_of(4);
        Some(u16::from(here))
    }

    /// Sets bytes from the device's side, past what the guest may write; what a reset goes back to.
    pub fn set(&mut self, offset: usize, bytes: &[u8]) {
        self.put(offset, bytes);
        self.put_at_reset(offset, bytes);
    }

    /// Changes bytes from the device's side; a reset undoes it.
    pub fn put(&mut self, offset: usize, bytes: &[u8]) {
        if let Some(target) = self.bytes.get_mut(offset..offset + bytes.len()) {
            target.copy_from_slice(bytes);
        }
    }

    /// Changes what a reset goes back to, and nothing before it.
    pub fn put_at_reset(&mut self, offset: usize, bytes: &[u8]) {
        if let Some(target) = self.initial.get_mut(offset..offset + bytes.len()) {
            target.copy_from_slice(bytes);
        }
    }

    /// Lets the guest clear the bits of `mask` at `offset` by writing ones.
    pub fn clear_on_write(&mut self, offset: usize, mask: &[u8]) {
        let bits = (offset..SPACE).zip(mask.iter().copied());
        self.cleared.extend(bits.filter(|(_, mask)| *mask != 0));
    }

    /// Lets the guest write the bits of `mask` at `offset`.
    pub fn allow(&mut self, offset: usize, mask: &[u8]) {
        if let Some(target) = self.writable.get_mut(offset..offset + mask.len()) {
            target.copy_from_slice(mask);
        }
    }

    /// A guest's read; outside of the space all ones.
    pub fn read(&self, offset: u16, data: &mut [u8]) {
        data.fill(0xff);
        let from = usize::from(offset);
        if let Some(source) = self.bytes.get(from..from + data.len()) {
            data.copy_from_slice(source);
        }
    }

    /// A guest's write: of each byte the writable bits, outside of the space nothing.
    pub fn write(&mut self, offset: u16, data: &[u8]) {
        for (at, &byte) in (usize::from(offset)..SPACE).zip(data) {
            let mask = self.writable[at];
            self.bytes[at] = (self.bytes[at] & !mask) | (byte & mask);
            if let Some(mask) = self.cleared.get(&at) {
                self.bytes[at] &= !(byte & mask);
            }
        }
    }

    /// The bits of byte `at` that the guest can change.
    fn changeable(&self, at: usize) -> u8 {
        let writable = self.writable.get(at).copied().unwrap_or_default();
        writable | self.cleared.get(&at).copied().unwrap_or_default()
    }

    /// The BARs, with where they decode now.
    #[must_use]
    pub fn bars(&self) -> Vec<Bar> {
        let of = |&(index, kind, size)| Bar {
            index,
            kind,
            size,
            base: self.base(index, kind),
        };
        self.bars.iter().map(of).collect()
    }

    fn base(&self, index: u8, kind: BarKind) -> Option<u64> {
        if self.command() & kind.enable() == 0 {
            return None;
        }
        if index == ROM_INDEX {
            let register = self.u32_at(ROM_BAR);
            return (register & ROM_ENABLE != 0).then_some(u64::from(register & !0x7ff));
        }
        let at = BAR0 + 4 * usize::from(index);
        let low = u64::from(self.u32_at(at));
        Some(match kind {
            BarKind::Io => low & !0x3 & 0xffff,
            BarKind::Mem32 => low & !0xf,
            BarKind::Mem64 => (low & !0xf) | u64::from(self.u32_at(at + 4)) << 32,
        })
    }

    /// The command register.
    #[must_use]
    pub fn command(&self) -> u16 {
        self.u16_at(COMMAND)
    }

    /// Whether the guest lets the function read and write its memory.
    #[must_use]
    pub fn is_bus_master(&self) -> bool {
        self.command() & COMMAND_MASTER != 0
    }

    /// Whether the guest lets the function answer memory accesses.
    #[must_use]
    pub fn is_memory_enabled(&self) -> bool {
        self.command() & COMMAND_MEMORY != 0
    }

    /// Whether the guest silenced INTx.
    #[must_use]
    pub fn is_intx_disabled(&self) -> bool {
        self.command() & COMMAND_INTX_DISABLE != 0
    }

    /// Offset of the expansion ROM register, for devices that have one.
    #[must_use]
    pub const fn rom_register() -> usize {
        ROM_BAR
    }

    /// The 16-bit register at `offset`; 0 outside of the space.
    #[must_use]
    pub fn u16_at(&self, offset: usize) -> u16 {
        self.array_at(offset).map_or(0, u16::from_le_bytes)
    }

    /// The 32-bit register at `offset`; 0 outside of the space.
    #[must_use]
    pub fn u32_at(&self, offset: usize) -> u32 {
        self.array_at(offset).map_or(0, u32::from_le_bytes)
    }

    fn array_at<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.bytes.get(offset..)?.first_chunk().copied()
    }

    /// As after power-on.
    pub fn reset(&mut self) {
        *self.bytes = *self.initial;
    }

    /// What a snapshot keeps.
    #[must_use]
    pub fn save(&self) -> ConfigState {
        let bytes = self.bytes.iter().enumerate();
        let writable = bytes
            .filter(|(at, _)| self.changeable(*at) != 0)
            .map(|(at, byte)| (at as u16, *byte));
        ConfigState {
            writable: writable.collect(),
        }
    }

    /// Takes a saved state on: its writable bits only, whatever it claims.
    ///
    /// # Errors
    /// [`StateError::Invalid`] if it names an offset outside of the space.
    pub fn restore(&mut self, state: &ConfigState) -> Result<(), StateError> {
        if let Some(offset) = state.bad_offset() {
            let what = format!("configuration space offset {offset:#x} is over 0xfff");
            return Err(StateError::Invalid {
                kind: "pci-config",
                what,
            });
        }
        self.reset();
        for &(offset, byte) in &state.writable {
            let at = usize::from(offset);
            let mask = self.changeable(at);
            self.bytes[at] = (self.bytes[at] & !mask) | (byte & mask);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> ConfigSpace {
        ConfigSpace::new(Ids {
            vendor: 0x1b36,
            device: 0x0100,
            ..Ids::default()
        })
        .with_bar(0, BarKind::Mem32, 1 << 20)
        .with_bar(2, BarKind::Io, 32)
        .with_bar(4, BarKind::Mem64, 1 << 33)
    }

    fn read32(space: &ConfigSpace, offset: u16) -> u32 {
        let mut data = [0; 4];
        space.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    #[test]
    fn a_sizing_probe_shows_size_and_kind() {
        let mut space = space();
        for bar in [0x10, 0x18, 0x20, 0x24] {
            space.write(bar, &[0xff; 4]);
        }

        assert_eq!(read32(&space, 0x10), 0xfff0_0000);
        assert_eq!(read32(&space, 0x18), 0xffff_ffe1);
        assert_eq!(read32(&space, 0x20), 0x0000_000c);
        assert_eq!(read32(&space, 0x24), 0xffff_fffe);
    }

    #[test]
    fn bars_decode_once_the_command_register_says_so() {
        let mut space = space();
        space.write(0x18, &0xc040_u32.to_le_bytes());
        let before: Vec<_> = space.bars().iter().map(|bar| bar.base).collect();

        space.write(0x04, &[1, 0]);

        assert_eq!(before, [None, None, None]);
        assert_eq!(space.bars()[1].base, Some(0xc040));
        assert_eq!(space.bars()[0].base, None);
    }

    #[test]
    fn the_rom_decodes_by_its_own_enable_bit_too() {
        let mut space = ConfigSpace::new(Ids::default()).with_rom(0x1_0000);
        space.write(0x04, &[2, 0]);
        space.write(0x30, &0xfeb0_0000_u32.to_le_bytes());
        let before = space.bars()[0].base;

        space.write(0x30, &0xfeb0_0001_u32.to_le_bytes());

        assert_eq!(before, None);
        assert_eq!(space.bars()[0].base, Some(0xfeb0_0000));
        assert_eq!(space.bars()[0].index, 6);
    }

    #[test]
    fn ids_are_read_only() {
        let mut space = space();

        space.write(0, &[0; 4]);

        assert_eq!(read32(&space, 0), 0x0100_1b36);
    }

    #[test]
    fn capabilities_are_linked_in_order() {
        let mut space = space();
        let vendor = Capability {
            id: 9,
            body: vec![7; 3],
            writable: vec![],
        };

        let first = space.add_capability(&vendor).unwrap();
        let second = space.add_capability(&vendor).unwrap();

        assert_eq!(read32(&space, 0x34) & 0xff, u32::from(first));
        assert_eq!(read32(&space, first) >> 8 & 0xff, u32::from(second));
        assert_eq!(read32(&space, second) >> 8 & 0xff, 0);
    }

    #[test]
    fn saved_state_survives_the_round_trip() {
        let mut used = space();
        used.write(0x04, &[7, 4]);
        used.write(0x24, &[0xfe, 1, 0, 0]);
        let mut other = space();

        other.restore(&used.save()).unwrap();

        assert_eq!(other.bytes, used.bytes);
    }
}
