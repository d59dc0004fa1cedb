//! What is seen of bitmaps, surfaces, brushes and masks at a place.

use std::collections::BTreeMap;

use caraway_spice::Rect;

use super::color::{Coded, Color, NOTHING, code, depth};
use crate::random::{Bitmap, Brush, Mask, Operand, Picture, Source};

/// A surface's pixels, coded as the protocol's format is.
#[derive(Debug, Clone)]
pub(super) struct Sheet {
    pub(super) format: u32,
    pub(super) width: i64,
    pub(super) height: i64,
    pub(super) pixels: Vec<u32>,
}

impl Sheet {
    pub(super) fn at(&self, x: i64, y: i64) -> Option<Coded> {
        let inside = (0..self.width).contains(&x) && (0..self.height).contains(&y);
        inside.then(|| Coded {
            bits: self.pixels[(y * self.width + x) as usize],
            format: self.format,
        })
    }
}

/// What one command sees of the surfaces: how they were before it.
pub(super) struct View<'a> {
    pub(super) sheets: &'a BTreeMap<u32, Sheet>,
    /// The format of the surface that is drawn on.
    pub(super) format: u32,
}

impl View<'_> {
    pub(super) fn size(&self, picture: &Picture) -> (i64, i64) {
        match picture {
            Picture::Bitmap(bitmap) => (bitmap.width.into(), bitmap.height.into()),
            Picture::Surface(id) => (self.sheets[id].width, self.sheets[id].height),
        }
    }

    /// A pixel, coded as it is drawn.
    pub(super) fn local(&self, picture: &Picture, x: i64, y: i64) -> Option<Coded> {
        let bitmap = match picture {
            Picture::Surface(id) => return self.sheets[id].at(x, y),
            Picture::Bitmap(bitmap) => bitmap,
        };
        let number = stored(bitmap, x, y)?;
        if depth(self.format) == 32 {
            let (bits, format) = match bitmap.format {
                1..=5 => (bitmap.palette[number as usize], 32),
                6 => (
                    0xff00_0000
                        | Coded {
                            bits: number,
                            format: 16,
                        }
                        .bits_for(32),
                    32,
                ),
                10 => (number << 24, 32),
                9 => (number, 96),
                _ => (number, 32),
            };
            let high = if bitmap.high_bits && format == 32 {
                0xff00_0000
            } else {
                0
            };
            return Some(Coded {
                bits: bits | high,
                format,
            });
        }
        let format = match bitmap.format {
            1..=5 => {
                let mask = u32::MAX >> (32 - depth(self.format));
                return Some(Coded {
                    bits: bitmap.palette[number as usize] & mask,
                    format: self.format,
                });
            }
            6 => 16,
            9 => 96,
            10 => 8,
            _ => 32,
        };
        let coded = Coded {
            bits: number,
            format,
        };
        Some(Coded {
            bits: coded.bits_for(self.format),
            format: self.format,
        })
    }

    /// A pixel's own colour, not coded as the surface's first.
    pub(super) fn original(
        &self,
        picture: &Picture,
        x: i64,
        y: i64,
        surface_alpha: bool,
    ) -> Option<Color> {
        match picture {
            Picture::Surface(id) => {
                let mut coded = self.sheets[id].at(x, y)?;
                if coded.format == 32 && surface_alpha {
                    coded.format = 96;
                }
                Some(coded.color())
            }
            Picture::Bitmap(bitmap) => {
                let number = stored(bitmap, x, y)?;
                let (bits, format) = match bitmap.format {
                    1..=5 => (bitmap.palette[number as usize], self.format),
                    6 => (number, 16),
                    7 | 8 => (number, 32),
                    9 => (number, 96),
                    _ => (number, 8),
                };
                Some(Coded { bits, format }.color())
            }
        }
    }

    pub(super) fn brush(&self, brush: &Brush, x: i64, y: i64) -> u32 {
        match brush {
            Brush::None => 0,
            Brush::Solid(color) => *color,
            Brush::Pattern(picture, left, top) => {
                let (width, height) = self.size(picture);
                let x = (x - i64::from(*left)).rem_euclid(width);
                let y = (y - i64::from(*top)).rem_euclid(height);
                self.local(picture, x, y).unwrap().bits_for(self.format)
            }
        }
    }

    pub(super) fn masked(&self, mask: Option<&Mask>, area: Rect, x: i64, y: i64) -> bool {
        let Some(mask) = mask else {
            return true;
        };
        let x = x - i64::from(area.left) + i64::from(mask.x);
        let y = y - i64::from(area.top) + i64::from(mask.y);
        let bit = match &mask.picture {
            Picture::Bitmap(bitmap) => stored(bitmap, x, y),
            Picture::Surface(id) => self.sheets[id].at(x, y).map(|coded| coded.bits),
        };
        bit.is_some_and(|bit| (bit == 1) != mask.inverted)
    }

    /// The pixel of a source that is drawn at a place; `None` where it has none.
    pub(super) fn source(
        &self,
        source: &Source,
        nearest: bool,
        area: Rect,
        x: i64,
        y: i64,
    ) -> Option<u32> {
        let (dx, dy) = (x - i64::from(area.left), y - i64::from(area.top));
        let from = source.area;
        if (from.width(), from.height()) == (area.width(), area.height()) {
            let (x, y) = (dx + i64::from(from.left), dy + i64::from(from.top));
            let coded = self.local(&source.picture, x, y)?;
            return Some(coded.bits_for(self.format));
        }
        let color = |x: i64, y: i64| {
            let coded = self.local(&source.picture, x, y);
            coded.map_or(NOTHING, Coded::color)
        };
        let place = scaled_place(from, area, dx, dy);
        let color = if nearest {
            color(
                (place.0 - 1).div_euclid(65536),
                (place.1 - 1).div_euclid(65536),
            )
        } else {
            interpolated(place, color)
        };
        Some(code(color, self.format))
    }

    pub(super) fn operand(&self, operand: &Operand, opaque: bool, dx: i64, dy: i64) -> Color {
        let (width, height) = self.size(&operand.picture);
        let (x, y) = (dx + i64::from(operand.x), dy + i64::from(operand.y));
        let rows = operand.transform.unwrap_or([[65536, 0, 0], [0, 65536, 0]]);
        // In 1/131072 of a pixel the middle of a pixel is whole.
        let along = |[a, b, c]: [i32; 3]| {
            let exact = i64::from(a) * (2 * x + 1) + i64::from(b) * (2 * y + 1);
            (exact + 1).div_euclid(2) + i64::from(c)
        };
        let place = (along(rows[0]), along(rows[1]));
        let repeated = |at: i64, len: i64| match operand.repeat {
            0 => at,
            1 => at.rem_euclid(len),
            2 => at.max(0).min(len - 1),
            _ => {
                let at = at.rem_euclid(2 * len);
                at.min(2 * len - 1 - at)
            }
        };
        let color = |x: i64, y: i64| {
            let (x, y) = (repeated(x, width), repeated(y, height));
            let mut coded = match self.local(&operand.picture, x, y) {
                Some(coded) => coded,
                None => return NOTHING,
            };
            if opaque && coded.format == 96 {
                coded.format = 32;
            }
            coded.color()
        };
        if operand.bilinear {
            interpolated(place, color)
        } else {
            color(
                (place.0 - 1).div_euclid(65536),
                (place.1 - 1).div_euclid(65536),
            )
        }
    }
}

pub(super) fn stored(bitmap: &Bitmap, x: i64, y: i64) -> Option<u32> {
    let (width, height) = (i64::from(bitmap.width), i64::from(bitmap.height));
    let inside = (0..width).contains(&x) && (0..height).contains(&y);
    inside.then(|| bitmap.numbers[(y * width + x) as usize])
}

/// Where the middle of a pixel of a scaled picture comes from, in 1/65536 of a pixel.
pub(super) fn scaled_place(from: Rect, to: Rect, dx: i64, dy: i64) -> (i64, i64) {
    let along = |at: i64, from: u32, to: u32, start: i32| {
        let scale = i64::from(from) * 65536 / i64::from(to);
        scale * at + (scale + 1) / 2 + i64::from(start) * 65536
    };
    (
        along(dx, from.width(), to.width(), from.left),
        along(dy, from.height(), to.height(), from.top),
    )
}

pub(super) fn interpolated(place: (i64, i64), color: impl Fn(i64, i64) -> Color) -> Color {
    let (x, y) = (place.0 - 32768, place.1 - 32768);
    let (left, top) = (x.div_euclid(65536), y.div_euclid(65536));
    let right = (x.rem_euclid(65536) / 512) as u32;
    let down = (y.rem_euclid(65536) / 512) as u32;
    let corners = [
        (color(left, top), (128 - right) * (128 - down)),
        (color(left + 1, top), right * (128 - down)),
        (color(left, top + 1), (128 - right) * down),
        (color(left + 1, top + 1), right * down),
    ];
    std::array::from_fn(|i| corners.iter().map(|(c, weight)| c[i] * weight).sum::<u32>() / 16384)
}
