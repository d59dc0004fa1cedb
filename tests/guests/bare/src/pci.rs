//! PCI: both ways into configuration space, sizing and placing BARs, capabilities.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::cpu::{in32, out32, read, write};
use crate::ensure;
use crate::failure::Outcome;
use crate::say;
use crate::start_info::StartInfo;

const CONFIG_ADDRESS: u16 = 0xcf8;
const CONFIG_DATA: u16 = 0xcfc;
/// Of the q35 host bridge: where ECAM is, and bit 0 whether it is.
const PCIEXBAR: u16 = 0x60;
const ECAM_DEFAULT: u32 = 0xb000_0000;

const COMMAND: u16 = 0x04;
const COMMAND_IO: u32 = 1;
const COMMAND_MEMORY: u32 = 2;
const COMMAND_BUS_MASTER: u32 = 4;
const STATUS_CAPABILITIES: u32 = 1 << 20;
const BAR0: u16 = 0x10;
const CAPABILITIES: u16 = 0x34;
/// Of a bridge.
pub const BUS_NUMBERS: u16 = 0x18;

/// Where BARs go that no firmware placed.
static NEXT_MEMORY: AtomicU32 = AtomicU32::new(0xc000_0000);
static NEXT_PORT: AtomicU32 = AtomicU32::new(0xc000);
/// The same behind ports, all of which pass on [`BEHIND`].
static NEXT_BEHIND: AtomicU32 = AtomicU32::new(BEHIND.start);
/// Memory that ports pass on.
pub const BEHIND: core::ops::Range<u32> = 0xd000_0000..0xd100_0000;

/// A function on bus 0, or the first of a bus that is behind a port there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Function {
    bus: u8,
    device: u8,
    function: u8,
}

/// What a BAR decodes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Bar {
    /// The first address or port.
    pub start: u64,
    /// Bytes or ports.
    pub size: u64,
    /// Ports, not memory.
    pub io: bool,
    wide: bool,
}

impl Function {
    /// The first function of a device.
    const fn first(bus: u8, device: u8) -> Self {
        Self {
            bus,
            device,
            function: 0,
        }
    }

    fn all() -> impl Iterator<Item = Self> {
        (0..32)
            .map(|device| Self::first(0, device))
            .flat_map(|first| {
                let functions = if first.is_multifunction() { 8 } else { 1 };
                (0..functions).flat_map(move |function| {
                    let here = Self { function, ..first };
                    [Some(here), here.behind()].into_iter().flatten()
                })
            })
    }

    /// What is behind it, if it is a bridge that was set up.
    pub fn behind(self) -> Option<Self> {
        let is_bridge = self.is_there() && self.config(0x0c) >> 16 & 0x7f == 1;
        let bus = (self.config(BUS_NUMBERS) >> 8) as u8;
        (is_bridge && bus != 0).then_some(Self::first(bus, 0))
    }

    fn is_multifunction(self) -> bool {
        self.is_there() && self.config(0x0c) & 1 << 23 != 0
    }

    /// Whether anything answers there.
    pub fn is_there(self) -> bool {
        self.config(0) & 0xffff != 0xffff
    }

    /// The first function with these ids.
    pub fn find(vendor: u16, device: u16) -> Option<Self> {
        Self::find_nth(vendor, device, 0)
    }

    /// The function with these ids before which there are so many others.
    pub fn find_nth(vendor: u16, device: u16, before: usize) -> Option<Self> {
        let ids = u32::from(device) << 16 | u32::from(vendor);
        let mut all = Self::all().filter(|function| function.config(0) == ids);
        all.nth(before)
    }

    fn select(self, register: u16) {
        let bus = u32::from(self.bus) << 16;
        let slot = bus | u32::from(self.device) << 11 | u32::from(self.function) << 8;
        out32(CONFIG_ADDRESS, 1 << 31 | slot | u32::from(register & 0xfc));
    }

    /// A register of configuration space, through the ports.
    pub fn config(self, register: u16) -> u32 {
        self.select(register);
        in32(CONFIG_DATA)
    }

    /// Writes one, through the ports.
    pub fn set_config(self, register: u16, value: u32) {
        self.select(register);
        out32(CONFIG_DATA, value);
    }

    fn ecam(self, base: u64, register: u16) -> u64 {
        let bus = u64::from(self.bus) << 20;
        let place = bus | u64::from(self.device) << 15 | u64::from(self.function) << 12;
        base + place + u64::from(register)
    }

    /// BAR `index`: sized, placed if nobody did, and switched on with bus mastering. `None` if it
    /// is not there.
    pub fn bar(self, index: u16) -> Option<Bar> {
        let register = BAR0 + 4 * index;
        let old = self.config(register);
        let command = self.config(COMMAND) & 0xffff;
        self.set_config(COMMAND, command & !(COMMAND_IO | COMMAND_MEMORY));
        self.set_config(register, !0);
        let sized = self.config(register);
        let io = sized & 1 != 0;
        let wide = !io && sized & 6 == 4;
        let mut bar = Bar {
            start: 0,
            size: 0,
            io,
            wide,
        };
        if io {
            bar.size = u64::from((sized & 0xfffc).wrapping_neg() & 0xffff);
            bar.start = u64::from(old & !3);
        } else {
            bar.size = u64::from((sized & !0xf).wrapping_neg());
            bar.start = u64::from(old & !0xf);
            if wide {
                bar.start |= u64::from(self.config(register + 4)) << 32;
            }
        }
        if bar.size == 0 {
            self.set_config(register, old);
            self.set_config(COMMAND, command);
            return None;
        }
        if bar.start == 0 {
            let next = match (io, self.bus) {
                (true, _) => &NEXT_PORT,
                (false, 0) => &NEXT_MEMORY,
                (false, _) => &NEXT_BEHIND,
            };
            bar.start = place(bar.size as u32, next);
        }
        self.set_config(register, bar.start as u32);
        if wide {
            self.set_config(register + 4, (bar.start >> 32) as u32);
        }
        let decode = if io { COMMAND_IO } else { COMMAND_MEMORY };
        self.set_config(COMMAND, command | decode | COMMAND_BUS_MASTER);
        Some(bar)
    }

    /// The offsets of the capabilities with this id.
    pub fn capabilities(self, id: u8) -> impl Iterator<Item = u16> {
        let listed = self.config(COMMAND) & STATUS_CAPABILITIES != 0;
        let mut next = if listed {
            self.config(CAPABILITIES) as u16 & 0xfc
        } else {
            0
        };
        let chain = core::iter::from_fn(move || {
            let here = (next != 0).then_some(next)?;
            next = (self.config(here) >> 8) as u16 & 0xfc;
            Some(here)
        });
        // No more than fit: a list that bites its tail ends too.
        chain
            .take(48)
            .filter(move |&offset| self.config(offset) as u8 == id)
    }
}

fn place(size: u32, next: &AtomicU32) -> u64 {
    let start = next.load(Ordering::Relaxed).next_multiple_of(size);
    next.store(start + size, Ordering::Relaxed);
    u64::from(start)
}

/// Where ECAM is, switched on if no firmware did it.
fn ecam_base() -> u64 {
    let bridge = Function::first(0, 0);
    if bridge.config(PCIEXBAR) & 1 == 0 {
        bridge.set_config(PCIEXBAR + 4, 0);
        bridge.set_config(PCIEXBAR, ECAM_DEFAULT | 1);
    }
    u64::from(bridge.config(PCIEXBAR) & 0xf000_0000)
}

/// Lists every function; both ways show the same; every BAR can be placed, moved and read back.
pub fn test(_: &StartInfo) -> Outcome {
    let ecam = ecam_base();
    say!("ecam {ecam:#x}");
    for function in Function::all().filter(|function| function.is_there()) {
        let ids = function.config(0);
        let class = function.config(8) >> 8;
        let (device, number) = (function.device, function.function);
        say!(
            "pci 00:{device:02x}.{number} {:04x}:{:04x} class {class:06x}",
            ids & 0xffff,
            ids >> 16
        );
        for register in (0..256).step_by(4) {
            let by_ports = function.config(register);
            let by_memory: u32 = read(function.ecam(ecam, register));
            ensure!(
                by_ports == by_memory,
                "00:{device:02x}.{number} register {register:#x}: ports {by_ports:#x}, ECAM {by_memory:#x}"
            );
        }
        bars(function)?;
    }
    let nobody: u32 = read(ecam + (31 << 20));
    ensure!(nobody == !0, "an empty bus answers {nobody:#x}");
    Ok(())
}

fn bars(function: Function) -> Outcome {
    let header = function.config(0x0c) >> 16 & 0x7f;
    let mut index = 0;
    while header == 0 && index < 6 {
        let Some(bar) = function.bar(index) else {
            index += 1;
            continue;
        };
        let kind = if bar.io { "ports" } else { "memory" };
        say!("  bar{index} {kind} {:#x} size {:#x}", bar.start, bar.size);
        let again = function.bar(index);
        ensure!(again == Some(bar), "BAR {index} does not keep its place");
        if !bar.io {
            moves(function, index, bar)?;
        }
        index += if bar.wide { 2 } else { 1 };
    }
    Ok(())
}

/// What a memory BAR decodes goes along when it is moved, and back.
fn moves(function: Function, index: u16, bar: Bar) -> Outcome {
    let register = BAR0 + 4 * index;
    let before: u32 = read(bar.start);
    let elsewhere = place(bar.size as u32, &NEXT_MEMORY);
    function.set_config(register, elsewhere as u32);
    let moved: u32 = read(elsewhere);
    function.set_config(register, bar.start as u32);
    let back: u32 = read(bar.start);
    ensure!(
        before == moved && before == back,
        "BAR {index} reads {before:#x}, moved {moved:#x}, back {back:#x}"
    );
    // Writable memory keeps what was written on the way.
    write(bar.start, before);
    Ok(())
}
