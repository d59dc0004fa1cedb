//! Pixels, and drawing on them.
//!
//! Whatever is drawn is compared with what is there: only pixels that are really different count as
//! damage, so a guest that copies its whole screen again costs nobody anything.

mod blend;
mod brush;
mod composite;
mod damage;
mod draw;
mod drawn;
mod format;
mod mask;
mod memory;
mod moves;
mod pixels;
mod region;
mod rop;
mod sampler;
mod stroke;
mod text;

pub(crate) use brush::Brush;
pub(crate) use composite::{Composite, Operand, Operator};
pub(crate) use draw::{AlphaBlend, Draw, Form, Source};
pub(crate) use format::{OPAQUE, PixelFormat, from_555, from_565, rgb};
pub(crate) use mask::Mask;
pub(crate) use memory::Memory;
pub(crate) use pixels::{Pixels, Snapshot};
pub(crate) use region::Region;
pub(crate) use rop::{Rop, Rop3};
pub(crate) use sampler::{Filter, Repeat, Transform};
pub(crate) use stroke::{Dashes, Line, Stroke};
pub(crate) use text::{Glyph, Text};

use caraway_spice::{Rect, Size, Update};
use damage::{Damage, TILE_WIDTH};
use drawn::Drawn;
use moves::Draft;

use crate::command::MAX_SIDE;

/// A surface's pixels, a word each, coded as the guest codes them.
pub(crate) struct Canvas {
    format: PixelFormat,
    size: Size,
    /// Row by row, and perhaps some zeros that no row needs.
    pixels: Vec<u32>,
    /// Outside of this all of them are still zeros, which take no memory as long as nobody looks.
    drawn: Drawn,
    damage: Damage,
    scratch: Vec<u32>,
    /// If somebody is told of moved pixels.
    draft: Option<Box<Draft>>,
}

impl Canvas {
    /// A black surface. The caller bounds its size.
    pub(crate) fn new(format: PixelFormat, size: Size) -> Self {
        Self::in_memory(format, size, Memory::default(), false)
    }

    /// A black surface that is seen: what a drawing on it only moves is noted as a copy. Whoever draws then looks
    /// at [`has_copies`](Self::has_copies) before others may read the surface. It takes the memory of the one
    /// before if that was as large.
    pub(crate) fn on_screen(format: PixelFormat, size: Size, memory: Memory) -> Self {
        Self::in_memory(format, size, memory, true)
    }

    fn in_memory(format: PixelFormat, size: Size, memory: Memory, finds_moves: bool) -> Self {
        let count = size.width as usize * size.height as usize;
        let (pixels, draft) = memory.into_parts(count);
        Self {
            format,
            size,
            pixels,
            drawn: Drawn::nothing(size.height),
            damage: Damage::new(size),
            scratch: Vec::new(),
            draft: finds_moves.then(|| Box::new(Draft::in_memory(draft))),
        }
    }

    /// Puts the first picture on a black surface, which `read` writes row by row from the top, until it says
    /// `false`: all of each row.
    pub(crate) fn load(&mut self, mut read: impl FnMut(u32, &mut [u32]) -> bool) {
        let mut row = vec![0; self.size.width as usize];
        for y in 0..self.size.height {
            if !read(y, &mut row) {
                break;
            }
            // What is black is not put, and needs no memory.
            self.put_row_over(0, y, &row, |_, new| any_bits(new));
        }
        self.damage = Damage::new(self.size);
    }

    pub(crate) fn format(&self) -> PixelFormat {
        self.format
    }

    pub(crate) fn size(&self) -> Size {
        self.size
    }

    /// The part of the surface outside of which nothing was ever drawn that is not black, and transparent if that
    /// can be told.
    pub(crate) fn drawn(&self) -> Rect {
        self.drawn.bounds()
    }

    pub(crate) fn area(&self) -> Rect {
        Rect::of_size(self.size)
    }

    /// The `width` pixels of row `y` from `x`; `None` if they are not all on the surface.
    pub(crate) fn row(&self, x: u32, y: u32, width: u32) -> Option<&[u32]> {
        let range = self.range(x, y, width)?;
        let black = BLACK.get(..width as usize);
        match black.filter(|_| !self.drawn.touches(x, y, width)) {
            None => self.pixels.get(range),
            black => black,
        }
    }

    fn range(&self, x: u32, y: u32, width: u32) -> Option<std::ops::Range<usize>> {
        if y >= self.size.height || x.checked_add(width)? > self.size.width {
            return None;
        }
        let start = y as usize * self.size.width as usize + x as usize;
        Some(start..start + width as usize)
    }

    /// Those of the `width` pixels of row `y` from `x` that are on the surface, and how many of them are
    /// to its left.
    fn part_of_row(&self, x: i64, y: i64, width: usize) -> (usize, &[u32]) {
        let whole = u32::try_from(y).ok();
        let whole = whole.and_then(|y| self.row(0, y, self.size.width));
        let before = usize::try_from(-x).unwrap_or(0).min(width);
        let start = usize::try_from(x).unwrap_or(0);
        let part = whole.and_then(|row| row.get(start..(start + width - before).min(row.len())));
        (before, part.unwrap_or_default())
    }

    /// Puts pixels on row `y` from `x`, noting those that are different. Nothing happens if they
    /// do not all fit.
    pub(crate) fn put_row(&mut self, x: u32, y: u32, row: &[u32]) {
        if self.drawn.touches(x, y, row.len() as u32) {
            self.put_row_over(x, y, row, difference);
        } else {
            // What is there are zeros, which nobody has to look at.
            self.put_row_over(x, y, row, |_, new| any_bits(new));
        }
    }

    /// The same, if `differing` knows from what is there and what is new in which bits they differ.
    fn put_row_over(
        &mut self,
        x: u32,
        y: u32,
        row: &[u32],
        differing: impl Fn(&[u32], &[u32]) -> u32,
    ) {
        let Ok(width) = u32::try_from(row.len()) else {
            return;
        };
        let Some(range) = self.range(x, y, width) else {
            return;
        };
        let Some(mut there) = self.pixels.get_mut(range) else {
            return;
        };
        let (mut x, mut row) = (x, row);
        let mut changed = None;
        // One piece per tile, so that a difference is known by tile.
        while !row.is_empty() {
            let piece = ((TILE_WIDTH - x % TILE_WIDTH) as usize).min(row.len());
            let (new, rest) = row.split_at(piece);
            let (old, others) = there.split_at_mut(piece);
            let differing = differing(old, new);
            if differing != 0 {
                let start = changed.map_or(x, |(start, _)| start);
                changed = Some((start, x + piece as u32));
                if differing & self.format.visible() != 0 {
                    self.damage.mark(x, y);
                }
                old.copy_from_slice(new);
            }
            (row, there) = (rest, others);
            x += piece as u32;
        }
        if let Some((left, right)) = changed {
            self.drawn.add(left, y, right - left);
        }
    }

    /// Draws on every pixel of `region` that is on the surface: `source` fills a row of new pixels
    /// that starts at the x and y it is given, and says `false` to end the drawing.
    pub(crate) fn paint(
        &mut self,
        region: &Region,
        source: impl FnMut(u32, u32, &mut [u32]) -> bool,
    ) {
        self.paint_from(region, None, source);
    }

    /// The same with pixels that may be on the surface already, so far to the left and up.
    pub(crate) fn paint_from(
        &mut self,
        region: &Region,
        distance: Option<(i64, i64)>,
        mut source: impl FnMut(u32, u32, &mut [u32]) -> bool,
    ) {
        // On a blank surface there is nothing that could be moved.
        let blank = self.drawn.is_nothing();
        let region = region.clipped(self.area());
        let looks = |draft: &mut Box<Draft>| distance.is_some() || draft.looks_at(&region);
        if !blank && let Some(draft) = self.draft.take_if(looks) {
            self.paint_moved(draft, &region, distance, source);
            return;
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        region.visit(|rect| {
            // On the surface no coordinate is negative.
            let (left, width) = (rect.left as u32, rect.width());
            scratch.resize(width as usize, 0);
            for y in rect.top..rect.bottom {
                let y = y as u32;
                if !source(left, y, &mut scratch) {
                    return false;
                }
                self.put_row(left, y, &scratch);
            }
            true
        });
        self.scratch = scratch;
    }

    /// Like [`paint`](Self::paint), but the row has what is there already.
    pub(crate) fn modify(
        &mut self,
        region: &Region,
        mut change: impl FnMut(u32, u32, &mut [u32]) -> bool,
    ) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let mask = self.format.mask();
        region.clipped(self.area()).visit(|rect| {
            let (left, width) = (rect.left as u32, rect.width());
            for y in rect.top..rect.bottom {
                let y = y as u32;
                scratch.clear();
                scratch.extend_from_slice(self.row(left, y, width).unwrap_or_default());
                if !change(left, y, &mut scratch) {
                    return false;
                }
                if mask != u32::MAX {
                    scratch.iter_mut().for_each(|pixel| *pixel &= mask);
                }
                self.put_row(left, y, &scratch);
            }
            true
        });
        self.scratch = scratch;
    }

    /// Fills `region` with one colour, coded as the surface's pixels are.
    pub(crate) fn fill(&mut self, region: &Region, color: u32) {
        let color = color & self.format.mask();
        self.paint(region, |_, _, row| {
            row.fill(color);
            true
        });
    }

    /// A copy of the part of `area` that is on the surface, and where its top left corner is.
    pub(crate) fn copy(&self, area: Rect) -> (Self, u32, u32) {
        let area = area.intersection(self.area());
        let size = Size {
            width: area.width(),
            height: area.height(),
        };
        let (left, top) = (area.left.max(0) as u32, area.top.max(0) as u32);
        let mut copy = Self::new(self.format, size);
        let rows = copy.pixels.chunks_exact_mut(size.width.max(1) as usize);
        for (y, row) in (0..).zip(rows) {
            let drawn = self.drawn.touches(left, top + y, size.width);
            if let Some(there) = self.row(left, top + y, size.width).filter(|_| drawn) {
                row.copy_from_slice(there);
                copy.drawn.add(0, y, size.width);
            }
        }
        (copy, left, top)
    }

    /// Counts `area` as changed, whatever is there.
    pub(crate) fn damage(&mut self, area: Rect) {
        self.damage.mark_area(area.intersection(self.area()));
    }

    /// Whether pixels were copied since the last call of [`take_damage`](Self::take_damage).
    pub(crate) fn has_copies(&self) -> bool {
        self.damage.has_copies()
    }

    /// What changed since the last call, in its order.
    pub(crate) fn take_damage(&mut self) -> Vec<Update> {
        self.damage.take()
    }
}

/// A row that nobody has drawn on.
static BLACK: [u32; MAX_SIDE as usize] = [0; MAX_SIDE as usize];

/// The bits in which pixels differ. Short runs of them are compared faster than a call of `memcmp` is made.
fn difference(old: &[u32], new: &[u32]) -> u32 {
    let pixels = std::iter::zip(old, new);
    pixels.fold(0, |bits, (old, new)| bits | (old ^ new))
}

/// The bits that are set in any pixel.
fn any_bits(pixels: &[u32]) -> u32 {
    pixels.iter().fold(0, |bits, pixel| bits | pixel)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rect(left: i32, top: i32, right: i32, bottom: i32) -> Rect {
        Rect {
            left,
            top,
            right,
            bottom,
        }
    }

    fn canvas(width: u32, height: u32) -> Canvas {
        Canvas::new(PixelFormat::Xrgb, Size { width, height })
    }

    #[test]
    fn the_same_pixels_again_are_no_damage() {
        let mut canvas = canvas(100, 100);
        canvas.fill(&rect(10, 10, 20, 20).into(), 7);
        canvas.take_damage();

        canvas.fill(&rect(10, 10, 20, 20).into(), 7);

        assert_eq!(canvas.take_damage(), []);
    }

    #[test]
    fn a_surface_is_black_but_for_what_was_drawn_on_it() {
        let mut canvas = canvas(100, 100);
        canvas.fill(&canvas.area().into(), 0);
        assert_eq!(canvas.drawn(), Rect::default());

        canvas.paint(&rect(0, 0, 50, 2).into(), |x, y, row| {
            row.copy_from_slice(&[0, x + y, 7].repeat(20)[..50]);
            true
        });

        assert_eq!(canvas.drawn(), rect(0, 0, 50, 2));
        assert_eq!(canvas.row(0, 1, 6), Some(&[0, 1, 7, 0, 1, 7][..]));
        assert_eq!(canvas.take_damage(), [Update::Pixels(rect(0, 0, 64, 16))]);
    }

    #[test]
    fn of_a_picture_only_what_is_not_black_counts_as_drawn() {
        let size = Size {
            width: 100,
            height: 10,
        };
        let mut picture = Canvas::new(PixelFormat::Xrgb, size);
        picture.load(|y, row| {
            row.fill(0);
            row[70] = u32::from(y == 4);
            true
        });

        assert_eq!(picture.drawn(), rect(64, 4, 96, 5));
        assert_eq!(picture.row(69, 4, 3), Some(&[0, 1, 0][..]));
        assert_eq!(picture.copy(picture.area()).0.take_damage(), []);
    }

    #[test]
    fn what_nobody_sees_is_no_damage() {
        let mut canvas = canvas(4, 2);

        canvas.fill(&canvas.area().into(), OPAQUE);

        assert_eq!(canvas.row(0, 0, 1), Some(&[OPAQUE][..]));
        assert_eq!(canvas.take_damage(), []);
    }

    #[test]
    fn damage_covers_what_changed_and_little_more() {
        let mut canvas = canvas(640, 480);

        canvas.fill(&rect(40, 40, 50, 42).into(), 7);

        assert_eq!(canvas.take_damage(), [Update::Pixels(rect(32, 32, 64, 48))]);
    }

    #[test]
    fn drawing_past_the_edges_draws_what_is_on_the_surface() {
        let mut canvas = canvas(4, 2);

        canvas.fill(&rect(-5, 1, 2, 9).into(), 7);

        assert_eq!(canvas.row(0, 0, 4), Some(&[0, 0, 0, 0][..]));
        assert_eq!(canvas.row(0, 1, 4), Some(&[7, 7, 0, 0][..]));
    }

    #[test]
    fn rows_that_do_not_fit_are_not_put() {
        let mut canvas = canvas(4, 2);

        canvas.put_row(2, 0, &[1, 2, 3]);
        canvas.put_row(0, 2, &[1]);
        canvas.put_row(u32::MAX, 0, &[1, 2]);
        canvas.put_row(0, i32::MAX as u32, &[1]);

        assert_eq!(canvas.take_damage(), []);
        assert_eq!(canvas.row(0, 2, 1), None);
    }
}
