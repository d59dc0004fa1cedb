//! Raster operations: how new pixels meet those that are there.

/// A raster operation (`SpiceRopd`, spice-protocol `enums.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rop(u16);

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

/// White on a surface without alpha.
const WHITE: u32 = 0x00ff_ffff;

impl Rop {
    /// The new pixels replace the old ones.
    pub(crate) const PUT: Self = Self(OP_PUT);
    /// The old pixels are inverted.
    pub(crate) const INVERS: Self = Self(OP_INVERS);

    /// The operation on an image that the guest asks for by `bits`.
    pub(crate) const fn of_image(bits: u16) -> Self {
        Self(bits & !INVERS_BRUSH)
    }

    /// The operation on a brush that the guest asks for by `bits`: inverting it is inverting what
    /// is drawn.
    pub(crate) const fn of_brush(bits: u16) -> Self {
        let inverted = if bits & INVERS_BRUSH != 0 {
            INVERS_SRC
        } else {
            0
        };
        Self(bits & !(INVERS_BRUSH | INVERS_SRC) | inverted)
    }

    /// Makes `new` what the surface shows after drawing it over `old`, pixel by pixel.
    pub(crate) fn combine(self, new: &mut [u32], old: &[u32]) {
        for (new, &old) in new.iter_mut().zip(old) {
            *new = self.pixel(*new, old);
        }
    }

    fn pixel(self, source: u32, dest: u32) -> u32 {
        let has = |bit| self.0 & bit != 0;
        let invert = |value: u32, yes| if yes { value ^ WHITE } else { value };
        let (s, d) = (
            invert(source, has(INVERS_SRC)),
            invert(dest, has(INVERS_DEST)),
        );
        let result = match self.0 & !(INVERS_SRC | INVERS_DEST | INVERS_RES) {
            OP_OR => s | d,
            OP_AND => s & d,
            OP_XOR => s ^ d,
            OP_BLACKNESS => 0,
            OP_WHITENESS => WHITE,
            OP_INVERS => dest ^ WHITE,
            _ => s,
        };
        invert(result, has(INVERS_RES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_combine_as_named() {
        let (s, d) = (0x00_12_34_56, 0x00_f0_f0_f0);
        let cases = [
            (OP_PUT, s),
            (OP_PUT | INVERS_SRC, s ^ WHITE),
            (OP_PUT | INVERS_RES, s ^ WHITE),
            (OP_XOR, s ^ d),
            (OP_AND | INVERS_DEST, s & (d ^ WHITE)),
            (OP_OR, s | d),
            (OP_BLACKNESS, 0),
            (OP_WHITENESS, WHITE),
            (OP_INVERS, d ^ WHITE),
        ];

        for (bits, expected) in cases {
            assert_eq!(Rop::of_image(bits).pixel(s, d), expected, "{bits:#x}");
        }
        assert_eq!(Rop::of_brush(OP_PUT | INVERS_BRUSH).pixel(s, d), s ^ WHITE);
    }
}
