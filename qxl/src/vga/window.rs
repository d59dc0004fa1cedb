//! The window at 0xa0000: how an access finds its planes.

use super::Vga;

/// Bytes of the window: 0xa0000 to 0xbffff.
pub(crate) const WINDOW_LEN: u64 = 0x2_0000;
/// Bytes of planar memory: four planes of 64 KiB.
const PLANAR: u64 = 0x4_0000;

/// Sequencer 4: addresses choose the plane by their low two bits.
const CHAIN4: u8 = 8;
/// Graphics 5: addresses choose the plane by their low bit.
const ODD_EVEN: u8 = 0x10;
/// Graphics 5: reads compare with a colour.
const READ_COMPARE: u8 = 8;

/// All bits of those planes of which `planes` has a bit.
const fn spread(planes: u8) -> u32 {
    let mut bits = 0;
    let mut plane = 0;
    while plane < 4 {
        if planes & 1 << plane != 0 {
            bits |= 0xff << (8 * plane);
        }
        plane += 1;
    }
    bits
}

/// The same byte in every plane.
const fn replicate(value: u8) -> u32 {
    value as u32 * 0x01_01_01_01
}

/// How the window looks at memory now.
enum Access {
    /// Byte by byte.
    Linear(u64),
    /// Two planes in turn: the byte, and its plane.
    OddEven(u64, u8),
    /// All planes at once: the place of their four bytes.
    Planar(u64),
}

impl Vga {
    /// Where `offset` in the window leads to; `None` outside of the part that is mapped.
    fn access(&self, offset: u64) -> Option<Access> {
        if self.vbe.is_enabled() {
            let is_planar = self.vbe.mode().is_some_and(|mode| mode.bpp == 4);
            let offset = (offset < 0x1_0000).then(|| offset + self.vbe.bank())?;
            return Some(if is_planar {
                Access::Planar(offset * 4)
            } else {
                Access::Linear(offset)
            });
        }
        let offset = match self.registers.graphics(6) >> 2 & 3 {
            0 => Some(offset),
            1 => Some(offset).filter(|offset| *offset < 0x1_0000),
            2 => offset.checked_sub(0x1_0000).filter(|o| *o < 0x8000),
            _ => offset.checked_sub(0x1_8000),
        }?;
        Some(if self.registers.sequencer(4) & CHAIN4 != 0 {
            Access::Linear(offset)
        } else if self.registers.graphics(5) & ODD_EVEN != 0 {
            let plane = self.registers.graphics(4) & 2 | (offset & 1) as u8;
            Access::OddEven((offset & !1) << 1 & (PLANAR - 1) | u64::from(plane), plane)
        } else {
            Access::Planar((offset * 4) & (PLANAR - 1))
        })
    }

    /// A guest's read of one byte of the window.
    pub(crate) fn read_window(&mut self, offset: u64) -> u8 {
        match self.access(offset) {
            None => 0xff,
            Some(Access::Linear(at) | Access::OddEven(at, _)) => self.memory.byte(at),
            Some(Access::Planar(at)) => {
                self.latch = u32::from_le_bytes(self.memory.get(at).unwrap_or_default());
                if self.registers.graphics(5) & READ_COMPARE == 0 {
                    let plane = self.registers.graphics(4) & 3;
                    (self.latch >> (8 * plane)) as u8
                } else {
                    let color = spread(self.registers.graphics(2));
                    let cared_for = spread(self.registers.graphics(7));
                    let [a, b, c, d] = ((self.latch ^ color) & cared_for).to_le_bytes();
                    !(a | b | c | d)
                }
            }
        }
    }

    /// A guest's write of one byte of the window.
    pub(crate) fn write_window(&mut self, offset: u64, value: u8) {
        let planes = self.registers.sequencer(2);
        match self.access(offset) {
            None => {}
            Some(Access::Linear(at)) => {
                let enabled = self.vbe.is_enabled() || planes & 1 << (at & 3) != 0;
                self.put_byte(at, value, enabled);
            }
            Some(Access::OddEven(at, plane)) => {
                self.put_byte(at, value, planes & 1 << plane != 0);
            }
            Some(Access::Planar(at)) => {
                let old = u32::from_le_bytes(self.memory.get(at).unwrap_or_default());
                let mask = spread(planes);
                let new = old & !mask | self.written(value) & mask;
                let _ = self.memory.put(at, &new.to_le_bytes());
            }
        }
    }

    fn put_byte(&self, at: u64, value: u8, enabled: bool) {
        if enabled {
            // Writes that leave the memory are lost, as on real hardware.
            let _ = self.memory.write(at, &[value]);
        }
    }

    /// What the graphics controller makes of a byte that the CPU writes, in all planes.
    fn written(&self, value: u8) -> u32 {
        let graphics = |index| self.registers.graphics(index);
        let rotated = value.rotate_right(u32::from(graphics(3) & 7));
        let (value, bit_mask) = match graphics(5) & 3 {
            0 => {
                let set = spread(graphics(1));
                let value = replicate(rotated) & !set | spread(graphics(0)) & set;
                (value, graphics(8))
            }
            1 => return self.latch,
            2 => (spread(value), graphics(8)),
            _ => (spread(graphics(0)), graphics(8) & rotated),
        };
        let value = match graphics(3) >> 3 & 3 {
            0 => value,
            1 => value & self.latch,
            2 => value | self.latch,
            _ => value ^ self.latch,
        };
        let bits = replicate(bit_mask);
        value & bits | self.latch & !bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;

    fn vga(settings: &[(u16, u8, u8)]) -> Vga {
        let mut vga = Vga::new(Memory::new("test", 1 << 20).unwrap(), 1 << 20);
        set(&mut vga, settings);
        vga
    }

    fn set(vga: &mut Vga, settings: &[(u16, u8, u8)]) {
        for &(port, index, value) in settings {
            vga.write_port(port, index);
            vga.write_port(port + 1, value);
        }
    }

    /// Graphics at 0xa0000, all planes, all bits.
    const PLAIN: &[(u16, u8, u8)] = &[
        (0x3c4, 2, 0xf),
        (0x3c4, 4, 6),
        (0x3ce, 6, 5),
        (0x3ce, 8, 0xff),
    ];

    fn planes(vga: &Vga, at: u64) -> [u8; 4] {
        vga.memory.get(at * 4).unwrap()
    }

    #[test]
    fn write_mode_0_puts_the_byte_in_the_enabled_planes() {
        let mut vga = vga(PLAIN);
        set(&mut vga, &[(0x3c4, 2, 0b0101)]);

        vga.write_window(3, 0xa5);

        assert_eq!(planes(&vga, 3), [0xa5, 0, 0xa5, 0]);
    }

    #[test]
    fn set_reset_and_bit_mask_keep_the_latched_bits() {
        let mut vga = vga(PLAIN);
        vga.write_window(0, 0xff);
        set(
            &mut vga,
            &[(0x3ce, 0, 0b0001), (0x3ce, 1, 0xf), (0x3ce, 8, 0x0f)],
        );

        vga.read_window(0);
        vga.write_window(0, 0x55);

        assert_eq!(planes(&vga, 0), [0xff, 0xf0, 0xf0, 0xf0]);
    }

    #[test]
    fn write_mode_1_copies_the_latch() {
        let mut vga = vga(PLAIN);
        vga.memory.write(0, &[1, 2, 3, 4]).unwrap();
        set(&mut vga, &[(0x3ce, 5, 1)]);

        vga.read_window(0);
        vga.write_window(9, 0);

        assert_eq!(planes(&vga, 9), [1, 2, 3, 4]);
    }

    #[test]
    fn write_mode_2_spreads_a_colour() {
        let mut vga = vga(PLAIN);
        set(&mut vga, &[(0x3ce, 5, 2), (0x3ce, 8, 0x80)]);

        vga.read_window(0);
        vga.write_window(0, 0b0110);

        assert_eq!(planes(&vga, 0), [0, 0x80, 0x80, 0]);
    }

    #[test]
    fn write_mode_3_masks_the_set_reset_colour() {
        let mut vga = vga(PLAIN);
        set(
            &mut vga,
            &[(0x3ce, 5, 3), (0x3ce, 0, 0b1000), (0x3ce, 8, 0xf0)],
        );

        vga.read_window(0);
        vga.write_window(0, 0x3c);

        assert_eq!(planes(&vga, 0), [0, 0, 0, 0x30]);
    }

    #[test]
    fn xor_meets_the_latch() {
        let mut vga = vga(PLAIN);
        vga.write_window(0, 0x0f);
        set(&mut vga, &[(0x3ce, 3, 3 << 3)]);

        vga.read_window(0);
        vga.write_window(0, 0xff);

        assert_eq!(planes(&vga, 0), [0xf0; 4]);
    }

    #[test]
    fn read_mode_1_compares_with_a_colour() {
        let mut vga = vga(PLAIN);
        vga.memory.write(0, &[0xf0, 0, 0xff, 0]).unwrap();
        set(
            &mut vga,
            &[(0x3ce, 5, 8), (0x3ce, 2, 0b0101), (0x3ce, 7, 0xf)],
        );

        let value = vga.read_window(0);

        assert_eq!(value, 0xf0);
    }

    #[test]
    fn text_cells_go_to_planes_0_and_1_in_turn() {
        let text = [(0x3c4, 2, 3), (0x3ce, 5, 0x10), (0x3ce, 6, 0x0e)];
        let mut vga = vga(&text);

        vga.write_window(0x1_8002, b'A');
        vga.write_window(0x1_8003, 0x07);
        vga.write_window(0, b'B');

        assert_eq!(planes(&vga, 1), [b'A', 7, 0, 0]);
        assert_eq!(vga.read_window(0x1_8003), 7);
        assert_eq!(vga.read_window(0), 0xff);
    }

    #[test]
    fn chained_memory_is_linear() {
        let mut vga = vga(PLAIN);
        set(&mut vga, &[(0x3c4, 4, 0xe)]);

        vga.write_window(0xabcd, 7);

        assert_eq!(vga.memory.byte(0xabcd), 7);
        assert_eq!(vga.read_window(0xabcd), 7);
    }

    #[test]
    fn the_bank_moves_the_window() {
        let mut vga = vga(&[]);
        for (index, value) in [(1, 640), (2, 400), (3, 8), (4, 0x81), (5, 2)] {
            vga.write_vbe(0, index);
            vga.write_vbe(1, value);
        }

        vga.write_window(5, 9);

        assert_eq!(vga.memory.byte(0x2_0005), 9);
    }
}
