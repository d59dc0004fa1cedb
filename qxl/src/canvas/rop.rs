//! Raster operations: how new pixels meet those that are there, bit by bit.

/// A raster operation on a source and what is there, as its truth table: bit `2 * s + d` is the
/// result where the source has bit `s` and the surface has bit `d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rop(u8);

/// A raster operation on a brush, a source and what is there, as its truth table: bit
/// `4 * b + 2 * s + d` (`ROP3` of GDI's ternary raster operations).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rop3(pub(crate) u8);

// `SpiceRopd`, spice-protocol `enums.h`.
const INVERS_SRC: u16 = 1;
const INVERS_BRUSH: u16 = 1 << 1;
const INVERS_DEST: u16 = 1 << 2;
const OP_PUT: u16 = 1 << 3;
const OP_OR: u16 = 1 << 4;
const OP_AND: u16 = 1 << 5;
const OP_XOR: u16 = 1 << 6;
const OP_BLACKNESS: u16 = 1 << 7;
const OP_WHITENESS: u16 = 1 << 8;
const OP_INVERS: u16 = 1 << 9;
const INVERS_RES: u16 = 1 << 10;

/// The tables of the operands themselves, and of their inversion.
const SOURCE: u8 = 0b1100;
const DEST: u8 = 0b1010;
const ALL: u8 = 0b1111;

impl Rop {
    /// The new pixels replace the old ones.
    pub(crate) const PUT: Self = Self(SOURCE);
    /// The old pixels are inverted.
    pub(crate) const INVERS: Self = Self(DEST ^ ALL);

    /// The operation on an image that the guest asks for by `bits`.
    pub(crate) const fn of_image(bits: u16) -> Self {
        Self::of(bits, INVERS_SRC, INVERS_DEST)
    }

    /// The operation on a brush that the guest asks for by `bits`.
    pub(crate) const fn of_brush(bits: u16) -> Self {
        Self::of(bits, INVERS_BRUSH, INVERS_DEST)
    }

    /// The operation on a brush, with an image in the place of what is there.
    pub(crate) const fn of_brush_on_image(bits: u16) -> Self {
        Self::of(bits, INVERS_BRUSH, INVERS_SRC)
    }

    /// Of several operations the first counts; of none, it is to put.
    const fn of(bits: u16, invers_source: u16, invers_dest: u16) -> Self {
        const fn inverted(table: u8, yes: bool) -> u8 {
            if yes { table ^ ALL } else { table }
        }
        let source = inverted(SOURCE, bits & invers_source != 0);
        let dest = inverted(DEST, bits & invers_dest != 0);
        let result = bits & INVERS_RES != 0;
        Self(if bits & OP_PUT != 0 {
            inverted(source, result)
        } else if bits & OP_OR != 0 {
            inverted(source | dest, result)
        } else if bits & OP_AND != 0 {
            inverted(source & dest, result)
        } else if bits & OP_XOR != 0 {
            inverted(source ^ dest, result)
        } else if bits & OP_BLACKNESS != 0 {
            0
        } else if bits & OP_WHITENESS != 0 {
            ALL
        } else if bits & OP_INVERS != 0 {
            Self::INVERS.0
        } else {
            SOURCE
        })
    }

    /// Makes `dest` what is there after drawing `source` on it, pixel by pixel.
    pub(crate) fn combine(self, dest: &mut [u32], source: &[u32]) {
        if self == Self::PUT {
            let len = dest.len().min(source.len());
            dest[..len].copy_from_slice(&source[..len]);
            return;
        }
        let table = Table::of(self.0);
        for (dest, source) in dest.iter_mut().zip(source) {
            *dest = table.pixel(*source, *dest);
        }
    }

    /// What is there after drawing one pixel on another.
    pub(crate) fn pixel(self, source: u32, dest: u32) -> u32 {
        Table::of(self.0).pixel(source, dest)
    }
}

impl Rop3 {
    /// Makes `dest` what is there after drawing `source` with `brush` on it, pixel by pixel.
    pub(crate) fn combine(self, dest: &mut [u32], source: &[u32], brush: &[u32]) {
        let (without, with) = (Table::of(self.0), Table::of(self.0 >> 4));
        for ((dest, source), brush) in dest.iter_mut().zip(source).zip(brush) {
            let (s, d) = (*source, *dest);
            *dest = brush & with.pixel(s, d) | !brush & without.pixel(s, d);
        }
    }
}

/// A truth table of two operands, each of its bits over the whole width of a pixel.
#[derive(Clone, Copy)]
struct Table([u32; 4]);

impl Table {
    fn of(table: u8) -> Self {
        Self(std::array::from_fn(|bit| {
            if table >> bit & 1 == 0 { 0 } else { u32::MAX }
        }))
    }

    fn pixel(self, s: u32, d: u32) -> u32 {
        let [neither, dest, source, both] = self.0;
        !s & !d & neither | !s & d & dest | s & !d & source | s & d & both
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_combine_as_named() {
        let (s, d) = (0x00_12_34_56, 0xff_f0_f0_f0);
        let cases = [
            (OP_PUT, s),
            (OP_PUT | INVERS_SRC, !s),
            (OP_PUT | INVERS_RES, !s),
            (OP_XOR, s ^ d),
            (OP_AND | INVERS_DEST, s & !d),
            (OP_OR, s | d),
            (OP_OR | INVERS_RES, !(s | d)),
            (OP_BLACKNESS | INVERS_RES, 0),
            (OP_WHITENESS, u32::MAX),
            (OP_INVERS, !d),
            (0, s),
        ];

        for (bits, expected) in cases {
            assert_eq!(Rop::of_image(bits).pixel(s, d), expected, "{bits:#x}");
        }
        assert_eq!(Rop::of_brush(OP_PUT | INVERS_BRUSH).pixel(s, d), !s);
        assert_eq!(Rop::of_brush(OP_PUT | INVERS_SRC).pixel(s, d), s);
        let on_image = Rop::of_brush_on_image(OP_AND | INVERS_SRC);
        assert_eq!(on_image.pixel(s, d), s & !d);
    }

    #[test]
    fn ternary_operations_are_numbered_by_their_truth_table() {
        for code in 0..=u8::MAX {
            let mut dest = [0xaa];

            Rop3(code).combine(&mut dest, &[0xcc], &[0xf0]);

            assert_eq!(dest[0] & 0xff, u32::from(code));
        }
    }
}
