//! Bochs VBE: the "dispi" registers by which firmware sets linear modes.

use serde::{Deserialize, Serialize};

const ID: usize = 0;
const XRES: usize = 1;
const YRES: usize = 2;
const BPP: usize = 3;
const ENABLE: usize = 4;
const BANK: usize = 5;
const VIRT_WIDTH: usize = 6;
const VIRT_HEIGHT: usize = 7;
const X_OFFSET: usize = 8;
const Y_OFFSET: usize = 9;
const VIDEO_MEMORY_64K: usize = 10;
const COUNT: usize = 11;

/// Versions of the interface: a guest writes one and sees whether it sticks.
const ID_FIRST: u16 = 0xb0c0;
const ID_LAST: u16 = 0xb0c5;

const ENABLED: u16 = 0x01;
const GET_CAPABILITIES: u16 = 0x02;
const DAC_8BIT: u16 = 0x20;
const NO_CLEAR: u16 = 0x80;

const MAX_XRES: u16 = 16000;
const MAX_YRES: u16 = 12000;
const MAX_BPP: u16 = 32;

/// A linear mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinearMode {
    /// Pixels across.
    pub(crate) width: u32,
    /// Pixels down.
    pub(crate) height: u32,
    /// Bits per pixel: 4, 8, 15, 16, 24 or 32.
    pub(crate) bpp: u16,
    /// Where the picture begins in the frame buffer.
    pub(crate) start: u64,
    /// Bytes from row to row.
    pub(crate) stride: u64,
}

/// The registers.
pub(super) struct Vbe {
    index: u16,
    registers: [u16; COUNT],
    /// Bytes of frame buffer.
    size: u64,
}

/// What a snapshot keeps of [`Vbe`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VbeState {
    index: u16,
    registers: Vec<u16>,
}

impl Vbe {
    pub(super) fn new(size: u64) -> Self {
        let mut vbe = Self {
            index: 0,
            registers: [0; COUNT],
            size,
        };
        vbe.reset();
        vbe
    }

    pub(super) fn reset(&mut self) {
        self.index = 0;
        self.registers = [0; COUNT];
        self.registers[ID] = ID_LAST;
    }

    pub(super) const fn index(&self) -> u16 {
        self.index
    }

    pub(super) const fn select(&mut self, index: u16) {
        self.index = index;
    }

    pub(super) fn read(&self) -> u16 {
        let index = usize::from(self.index);
        let asks_limits = self.registers[ENABLE] & GET_CAPABILITIES != 0;
        match index {
            XRES if asks_limits => MAX_XRES,
            YRES if asks_limits => MAX_YRES,
            BPP if asks_limits => MAX_BPP,
            VIRT_HEIGHT => (self.size / self.stride().max(1)).min(0xffff) as u16,
            VIDEO_MEMORY_64K => (self.size >> 16) as u16,
            _ => self.registers.get(index).copied().unwrap_or(0),
        }
    }

    /// Takes a write of the selected register. `Some` is how many bytes of the frame buffer the
    /// guest wants cleared.
    pub(super) fn write(&mut self, value: u16) -> Option<u64> {
        let index = usize::from(self.index);
        match index {
            ID if (ID_FIRST..=ID_LAST).contains(&value) => self.registers[ID] = value,
            XRES | YRES | BPP | VIRT_WIDTH | X_OFFSET | Y_OFFSET => {
                self.registers[index] = value;
                if self.is_enabled() {
                    self.fit();
                }
            }
            BANK => self.registers[BANK] = value & ((self.size >> 16) as u16).wrapping_sub(1),
            ENABLE => return self.enable(value),
            _ => {}
        }
        None
    }

    fn enable(&mut self, value: u16) -> Option<u64> {
        let was = self.is_enabled();
        self.registers[ENABLE] = value;
        if !self.is_enabled() {
            self.registers[BANK] = 0;
            return None;
        }
        if was {
            return None;
        }
        for register in [VIRT_WIDTH, X_OFFSET, Y_OFFSET] {
            self.registers[register] = 0;
        }
        self.fit();
        (value & NO_CLEAR == 0).then(|| self.stride() * u64::from(self.registers[YRES]))
    }

    /// Brings the mode's registers to values that the frame buffer has room for.
    fn fit(&mut self) {
        let r = &mut self.registers;
        if ![4, 8, 15, 16, 24, 32].contains(&r[BPP]) {
            r[BPP] = 8;
        }
        r[XRES] = (r[XRES] & !7).clamp(8, MAX_XRES);
        r[VIRT_WIDTH] = (r[VIRT_WIDTH] & !7).clamp(r[XRES], MAX_XRES);
        let stride = self.stride().max(1);
        let rows = (self.size / stride).min(MAX_YRES.into()) as u16;
        let r = &mut self.registers;
        r[YRES] = r[YRES].clamp(1, rows.max(1));
        r[X_OFFSET] = r[X_OFFSET].min(r[VIRT_WIDTH] - r[XRES]);
        r[Y_OFFSET] = r[Y_OFFSET].min(rows.saturating_sub(r[YRES]));
    }

    /// Bytes that `pixels` take.
    fn bytes(&self, pixels: u16) -> u64 {
        let pixels = u64::from(pixels);
        match self.registers[BPP] {
            4 => pixels / 2,
            8 => pixels,
            15 | 16 => pixels * 2,
            24 => pixels * 3,
            _ => pixels * 4,
        }
    }

    /// Bytes from row to row.
    fn stride(&self) -> u64 {
        self.bytes(self.registers[VIRT_WIDTH].max(self.registers[XRES]))
    }

    pub(super) const fn is_enabled(&self) -> bool {
        self.registers[ENABLE] & ENABLED != 0
    }

    pub(super) const fn is_dac_8bit(&self) -> bool {
        self.registers[ENABLE] & DAC_8BIT != 0
    }

    /// Where the window at 0xa0000 looks at the frame buffer.
    pub(super) fn bank(&self) -> u64 {
        u64::from(self.registers[BANK]) << 16
    }

    /// The mode, if one is set.
    pub(super) fn mode(&self) -> Option<LinearMode> {
        self.is_enabled().then(|| LinearMode {
            width: self.registers[XRES].into(),
            height: self.registers[YRES].into(),
            bpp: self.registers[BPP],
            start: u64::from(self.registers[Y_OFFSET]) * self.stride()
                + self.bytes(self.registers[X_OFFSET]),
            stride: self.stride(),
        })
    }

    pub(super) fn save(&self) -> VbeState {
        VbeState {
            index: self.index,
            registers: self.registers.to_vec(),
        }
    }

    pub(super) fn restore(&mut self, state: &VbeState) {
        self.reset();
        self.index = state.index;
        for (to, from) in self.registers.iter_mut().zip(&state.registers) {
            *to = *from;
        }
        self.registers[BANK] &= ((self.size >> 16) as u16).wrapping_sub(1);
        if self.is_enabled() {
            self.fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(vbe: &mut Vbe, index: usize, value: u16) -> Option<u64> {
        vbe.select(index as u16);
        vbe.write(value)
    }

    fn read(vbe: &mut Vbe, index: usize) -> u16 {
        vbe.select(index as u16);
        vbe.read()
    }

    #[test]
    fn known_versions_stick() {
        let mut vbe = Vbe::new(16 << 20);

        let read_back = [0xb0c0, 0xb0c5, 0xb0c6].map(|id| {
            write(&mut vbe, ID, id);
            read(&mut vbe, ID)
        });

        assert_eq!(read_back, [0xb0c0, 0xb0c5, 0xb0c5]);
    }

    #[test]
    fn a_mode_is_cleared_and_packed() {
        let mut vbe = Vbe::new(16 << 20);
        for (index, value) in [(XRES, 1024), (YRES, 768), (BPP, 32)] {
            write(&mut vbe, index, value);
        }

        let clear = write(&mut vbe, ENABLE, 0x41);

        assert_eq!(clear, Some(1024 * 768 * 4));
        let mode = LinearMode {
            width: 1024,
            height: 768,
            bpp: 32,
            start: 0,
            stride: 4096,
        };
        assert_eq!(vbe.mode(), Some(mode));
        assert_eq!(read(&mut vbe, VIRT_HEIGHT), 4096);
        assert_eq!(read(&mut vbe, VIDEO_MEMORY_64K), 256);
    }

    #[test]
    fn limits_are_told_when_asked_for() {
        let mut vbe = Vbe::new(16 << 20);
        write(&mut vbe, ENABLE, GET_CAPABILITIES);

        let limits = [XRES, YRES, BPP].map(|index| read(&mut vbe, index));

        assert_eq!(limits, [16000, 12000, 32]);
    }

    #[test]
    fn offsets_stay_inside_of_the_frame_buffer() {
        let mut vbe = Vbe::new(1 << 20);
        for (index, value) in [(XRES, 640), (YRES, 9999), (BPP, 32), (ENABLE, 0x81)] {
            write(&mut vbe, index, value);
        }
        write(&mut vbe, X_OFFSET, 5);
        write(&mut vbe, Y_OFFSET, 9999);

        let mode = vbe.mode().unwrap();

        assert_eq!((mode.start, mode.height), (0, 409));
    }
}
