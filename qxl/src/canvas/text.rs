//! Writing: letters of one, four or eight bits a pixel.

use caraway_spice::{Point, Rect};

use super::blend::{over, times};
use super::{Brush, Canvas, OPAQUE, PixelFormat, Pixels, Region};

/// Letters, and what is behind them (`SpiceText`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text<I> {
    pub(crate) glyphs: Vec<Glyph>,
    pub(crate) brush: Brush<I>,
    /// What is filled first, and with what.
    pub(crate) back: Option<(Rect, Brush<I>)>,
}

/// A letter: how much of each pixel it covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Glyph {
    pub(crate) area: Rect,
    /// Bits a pixel: 1, 4 or 8; the leftmost pixel is in the highest bits.
    pub(crate) bits: u8,
    /// The first row is the topmost, and not the lowest.
    pub(crate) top_down: bool,
    /// Rows of whole bytes.
    pub(crate) data: Vec<u8>,
}

impl Glyph {
    /// Bytes of a row of `width` pixels.
    pub(crate) const fn row_len(width: u32, bits: u8) -> usize {
        (width as usize * bits as usize).div_ceil(8)
    }

    /// How much (of 255) it covers of the pixel at `x` and `y`, which is in its area.
    fn coverage(&self, x: i32, y: i32) -> u8 {
        let (x, y) = ((x - self.area.left) as usize, (y - self.area.top) as usize);
        let row = if self.top_down {
            y
        } else {
            self.area.height() as usize - 1 - y
        };
        let start = row * Self::row_len(self.area.width(), self.bits);
        let byte = |at: usize| self.data.get(start + at).copied().unwrap_or(0);
        match self.bits {
            1 if byte(x / 8) >> (7 - x % 8) & 1 == 0 => 0,
            1 => 255,
            4 if x % 2 == 0 => byte(x / 2) & 0xf0,
            4 => byte(x / 2) << 4,
            _ => byte(x),
        }
    }
}

impl<I> Text<I> {
    /// The same with other images; `None` if one is missing.
    pub(super) fn resolve<P>(self, mut picture: impl FnMut(I) -> Option<P>) -> Option<Text<P>> {
        Some(Text {
            glyphs: self.glyphs,
            brush: self.brush.resolve(&mut picture)?,
            back: match self.back {
                Some((area, brush)) => Some((area, brush.resolve(picture)?)),
                None => None,
            },
        })
    }
}

impl<P: Pixels> Brush<P> {
    /// Fills `row`, which starts at `x` and `y`, with pixels of alpha, red, green and blue, and
    /// patterns from `corner` on; `false` if they can't be read.
    fn read_argb(
        &mut self,
        format: PixelFormat,
        corner: Point,
        (x, y): (u32, u32),
        row: &mut [u32],
    ) -> bool {
        match self {
            Self::None => row.fill(0),
            Self::Solid(color) if format.bits() == 16 => row.fill(format.to_argb(*color)),
            Self::Solid(color) => row.fill(OPAQUE | *color),
            Self::Pattern { image, origin } => {
                let origin = Point {
                    x: origin.x.saturating_add(corner.x),
                    y: origin.y.saturating_add(corner.y),
                };
                let from = image.format();
                let read = image.tile(from, origin, (x, y), row);
                row.iter_mut()
                    .for_each(|pixel| *pixel = from.to_argb(*pixel));
                return read;
            }
        }
        true
    }
}

/// How much of the pixels of an area letters cover.
struct Coverage {
    area: Rect,
    pixels: Vec<u8>,
}

impl Coverage {
    /// What `glyphs` cover of `area`, which is bounded by a surface.
    fn of(glyphs: &[Glyph], area: Rect) -> Self {
        let width = area.width() as usize;
        let mut pixels = vec![0_u8; width * area.height() as usize];
        for glyph in glyphs {
            let part = glyph.area.intersection(area);
            if part.is_empty() {
                continue;
            }
            for y in part.top..part.bottom {
                let row = (y - area.top) as usize * width;
                let (left, right) = (part.left - area.left, part.right - area.left);
                let row = pixels.get_mut(row + left as usize..row + right as usize);
                for (x, pixel) in (part.left..).zip(row.unwrap_or_default()) {
                    *pixel = glyph.coverage(x, y).max(*pixel);
                }
            }
        }
        Self { area, pixels }
    }

    fn at(&self, x: i32, y: i32) -> u8 {
        let Rect {
            left,
            top,
            right,
            bottom,
        } = self.area;
        if !(left..right).contains(&x) || !(top..bottom).contains(&y) {
            return 0;
        }
        let at = (y - top) as usize * self.area.width() as usize + (x - left) as usize;
        self.pixels.get(at).copied().unwrap_or(0)
    }
}

impl Canvas {
    pub(super) fn text<P: Pixels>(&mut self, region: &Region, text: Text<P>) {
        let Text {
            glyphs,
            mut brush,
            mut back,
        } = text;
        let format = self.format();
        let letters = glyphs.iter().map(|glyph| glyph.area);
        let letters = letters.reduce(Rect::union).unwrap_or_default();
        let corner = Point {
            x: letters.left,
            y: letters.top,
        };
        let region = region.clipped(self.area());
        let mut touched = region.clipped(letters);
        let coverage = Coverage::of(&glyphs, touched.bounds().unwrap_or_default());
        if let Some((area, _)) = &back {
            touched = touched.or(&region.clipped(*area));
        }
        let (mut behind, mut inks) = (Vec::new(), Vec::new());
        self.modify(&touched, |x, y, row| {
            if let Some((area, brush)) = &mut back {
                behind.resize(row.len(), 0);
                if !brush.read(format, x, y, &mut behind) {
                    return false;
                }
                let rows = area.top..area.bottom;
                for ((x, pixel), behind) in (x as i32..).zip(row.iter_mut()).zip(&behind) {
                    if (area.left..area.right).contains(&x) && rows.contains(&(y as i32)) {
                        *pixel = *behind;
                    }
                }
            }
            inks.resize(row.len(), 0);
            let read = brush.read_argb(format, corner, (x, y), &mut inks);
            for ((x, pixel), ink) in (x as i32..).zip(row.iter_mut()).zip(&inks) {
                let ink = times(*ink, coverage.at(x, y as i32).into());
                if ink != 0 {
                    *pixel = format.of_argb(over(ink, format.to_argb(*pixel)));
                }
            }
            read
        });
    }
}
