//! Colours, how surfaces code them, and what raster operations make of them.

/// Alpha, red, green and blue of a pixel; 0 to 255 each, premultiplied.
pub(super) type Color = [u32; 4];

pub(super) const NOTHING: Color = [0; 4];

/// A pixel as it is coded, with the format that it is coded in.
#[derive(Clone, Copy)]
pub(super) struct Coded {
    pub(super) bits: u32,
    pub(super) format: u32,
}

pub(super) fn depth(format: u32) -> u32 {
    match format {
        80 => 16,
        96 => 32,
        other => other,
    }
}

pub(super) fn widen(value: u32, bits: u32) -> u32 {
    let value = value & ((1 << bits) - 1);
    value << (8 - bits) | value >> (2 * bits - 8)
}

impl Coded {
    pub(super) fn color(self) -> Color {
        let p = self.bits;
        match self.format {
            1 => [255 * (p & 1), 0, 0, 0],
            8 => [p & 255, 0, 0, 0],
            16 => [255, widen(p >> 10, 5), widen(p >> 5, 5), widen(p, 5)],
            80 => [255, widen(p >> 11, 5), widen(p >> 5, 6), widen(p, 5)],
            32 => [255, p >> 16 & 255, p >> 8 & 255, p & 255],
            _ => [p >> 24, p >> 16 & 255, p >> 8 & 255, p & 255],
        }
    }

    /// The bits for a surface of another format.
    pub(super) fn bits_for(self, format: u32) -> u32 {
        if self.format == format || depth(self.format) == 32 && depth(format) == 32 {
            self.bits
        } else {
            code(self.color(), format)
        }
    }
}

pub(super) fn code([a, r, g, b]: Color, format: u32) -> u32 {
    match format {
        1 => a / 128,
        8 => a,
        16 => (r / 8) * 1024 + (g / 8) * 32 + b / 8,
        80 => (r / 8) * 2048 + (g / 4) * 32 + b / 8,
        32 => r * 65536 + g * 256 + b,
        _ => a * 0x100_0000 + r * 65536 + g * 256 + b,
    }
}

/// A product of fractions of 255, rounded.
pub(super) fn product(a: u32, b: u32) -> u32 {
    (a * b + 127) / 255
}

pub(super) fn over(top: Color, bottom: Color) -> Color {
    std::array::from_fn(|i| (top[i] + product(bottom[i], 255 - top[0])).min(255))
}

/// A raster operation of the protocol on single words.
pub(super) fn combine(
    rop: u16,
    source: u32,
    dest: u32,
    invert_source: u16,
    invert_dest: u16,
) -> u32 {
    let s = if rop & invert_source != 0 {
        !source
    } else {
        source
    };
    let d = if rop & invert_dest != 0 { !dest } else { dest };
    let result = |value: u32| if rop & 1024 != 0 { !value } else { value };
    match rop & 0x3f8 {
        8 => result(s),
        16 => result(s | d),
        32 => result(s & d),
        64 => result(s ^ d),
        128 => 0,
        256 => u32::MAX,
        512 => !dest,
        _ => source,
    }
}
