//! How pixels are coded.

use serde::{Deserialize, Serialize};

/// How a surface's pixels are coded (`SpiceSurfaceFmt`, spice-protocol `enums.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PixelFormat {
    A1,
    A8,
    Rgb555,
    Rgb565,
    Xrgb,
    Argb,
}

/// All of a pixel's bits of alpha.
pub(crate) const OPAQUE: u32 = 0xff00_0000;

impl PixelFormat {
    /// The format that the protocol gives this number.
    pub(crate) const fn of(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::A1,
            8 => Self::A8,
            16 => Self::Rgb555,
            80 => Self::Rgb565,
            32 => Self::Xrgb,
            96 => Self::Argb,
            _ => return None,
        })
    }

    /// The number that the protocol gives it.
    pub(crate) const fn number(self) -> u32 {
        match self {
            Self::A1 => 1,
            Self::A8 => 8,
            Self::Rgb555 => 16,
            Self::Rgb565 => 80,
            Self::Xrgb => 32,
            Self::Argb => 96,
        }
    }

    /// Bits from pixel to pixel.
    pub(crate) const fn bits(self) -> u32 {
        match self {
            Self::A1 => 1,
            Self::A8 => 8,
            Self::Rgb555 | Self::Rgb565 => 16,
            Self::Xrgb | Self::Argb => 32,
        }
    }

    /// The bits that a pixel has.
    pub(crate) const fn mask(self) -> u32 {
        u32::MAX >> (32 - self.bits())
    }

    /// The bits that mean something: those that none looks at take part in raster operations, but
    /// a change of them is no news.
    pub(crate) const fn visible(self) -> u32 {
        match self {
            Self::Xrgb => 0x00ff_ffff,
            Self::Rgb555 => 0x7fff,
            _ => self.mask(),
        }
    }

    /// A pixel as 8 bits each of alpha (premultiplied), red, green and blue.
    pub(crate) const fn to_argb(self, pixel: u32) -> u32 {
        match self {
            Self::A1 if pixel & 1 == 0 => 0,
            Self::A1 => OPAQUE,
            Self::A8 => pixel << 24,
            Self::Rgb555 => OPAQUE | from_555(pixel as u16),
            Self::Rgb565 => OPAQUE | from_565(pixel as u16),
            Self::Xrgb => OPAQUE | pixel,
            Self::Argb => pixel,
        }
    }

    /// The pixel for 8 bits each of alpha, red, green and blue; colours lose their lowest bits.
    pub(crate) const fn of_argb(self, argb: u32) -> u32 {
        match self {
            Self::A1 => argb >> 31,
            Self::A8 => argb >> 24,
            Self::Rgb555 => to_555(argb) as u32,
            Self::Rgb565 => to_565(argb) as u32,
            Self::Xrgb => argb & 0x00ff_ffff,
            Self::Argb => argb,
        }
    }

    /// Turns pixels of this format into such of format `to`. Formats that differ only in whether
    /// their top byte means something share their bits.
    pub(crate) fn convert(self, to: Self, row: &mut [u32]) {
        if self.bits() == 32 && to.bits() == 32 || self == to {
            return;
        }
        for pixel in row {
            *pixel = to.of_argb(self.to_argb(*pixel));
        }
    }
}

/// The 32-bit pixel of a 15-bit one: 5 bits each, blue lowest.
pub(crate) const fn from_555(pixel: u16) -> u32 {
    let pixel = pixel as u32;
    rgb(five(pixel >> 10), five(pixel >> 5), five(pixel))
}

/// The 32-bit pixel of a 16-bit one: 5 bits of red, 6 of green, 5 of blue, blue lowest.
pub(crate) const fn from_565(pixel: u16) -> u32 {
    let pixel = pixel as u32;
    let green = pixel >> 5 & 63;
    rgb(five(pixel >> 11), green << 2 | green >> 4, five(pixel))
}

/// The 15-bit pixel below a 32-bit one.
const fn to_555(pixel: u32) -> u16 {
    (pixel >> 9 & 31 << 10 | pixel >> 6 & 31 << 5 | pixel >> 3 & 31) as u16
}

/// The 16-bit pixel below a 32-bit one.
const fn to_565(pixel: u32) -> u16 {
    (pixel >> 8 & 31 << 11 | pixel >> 5 & 63 << 5 | pixel >> 3 & 31) as u16
}

/// The 8 bits of a colour whose lowest 5 are given.
const fn five(color: u32) -> u32 {
    let color = color & 31;
    color << 3 | color >> 2
}

/// The pixel of 8 bits of each colour.
pub(crate) const fn rgb(red: u32, green: u32, blue: u32) -> u32 {
    red << 16 | green << 8 | blue
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_of_fewer_bits_survive_the_round_trip() {
        for pixel in 0..=u16::MAX {
            assert_eq!(to_565(from_565(pixel)), pixel);
            assert_eq!(to_555(from_555(pixel)), pixel & 0x7fff);
        }
        assert_eq!(from_565(0xffff), 0xff_ffff);
        assert_eq!(from_555(0x7c00), 0xff_0000);
    }

    #[test]
    fn formats_with_the_same_bits_share_them() {
        let mut row = [0x1234_5678];

        PixelFormat::Xrgb.convert(PixelFormat::Argb, &mut row);

        assert_eq!(row, [0x1234_5678]);
    }
}
