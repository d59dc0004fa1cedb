//! Pixels, and drawing on them.
//!
//! Whatever is drawn is compared with what is there: only pixels that are really different count as
//! damage, so a guest that copies its whole screen again costs nobody anything.

mod color;
mod damage;
mod moves;
mod region;
mod rop;

pub(crate) use color::{from_555, from_565, rgb, to_555, to_565};
pub(crate) use region::Region;
pub(crate) use rop::Rop;

use caraway_spice::{Rect, Size, Update};
use damage::{Damage, TILE_WIDTH};
use moves::Draft;

/// A surface's pixels: 32 bits each, blue lowest, alpha (or nothing) highest.
#[derive(Default)]
pub(crate) struct Canvas {
    size: Size,
    pixels: Vec<u32>,
    damage: Damage,
    scratch: Vec<u32>,
    /// If somebody is told of moved pixels.
    draft: Option<Box<Draft>>,
}

impl Canvas {
    /// A black surface. The caller bounds its size.
    pub(crate) fn new(size: Size) -> Self {
        let count = size.width as usize * size.height as usize;
        Self {
            size,
            pixels: vec![0; count],
            damage: Damage::new(size),
            scratch: Vec::new(),
            draft: None,
        }
    }

    /// From here on, what a drawing only moves is noted as a copy. Whoever draws then looks at
    /// [`has_copies`](Self::has_copies) before others may read the surface.
    pub(crate) fn find_moves(&mut self) {
        self.draft = Some(Box::default());
    }

    pub(crate) fn size(&self) -> Size {
        self.size
    }

    pub(crate) fn area(&self) -> Rect {
        Rect::of_size(self.size)
    }

    /// The `width` pixels of row `y` from `x`; `None` if they are not all on the surface.
    pub(crate) fn row(&self, x: u32, y: u32, width: u32) -> Option<&[u32]> {
        let range = self.range(x, y, width)?;
        self.pixels.get(range)
    }

    fn range(&self, x: u32, y: u32, width: u32) -> Option<std::ops::Range<usize>> {
        if y >= self.size.height || x.checked_add(width)? > self.size.width {
            return None;
        }
        let start = y as usize * self.size.width as usize + x as usize;
        Some(start..start + width as usize)
    }

    /// Puts pixels on row `y` from `x`, noting those that are different. Nothing happens if they
    /// do not all fit.
    pub(crate) fn put_row(&mut self, x: u32, y: u32, row: &[u32]) {
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
        // One piece per tile, so that a difference is known by tile.
        while !row.is_empty() {
            let piece = ((TILE_WIDTH - x % TILE_WIDTH) as usize).min(row.len());
            let (new, rest) = row.split_at(piece);
            let (old, others) = there.split_at_mut(piece);
            if new != &*old {
                old.copy_from_slice(new);
                self.damage.mark(x, y);
            }
            (row, there) = (rest, others);
            x += piece as u32;
        }
    }

    /// Draws on every pixel of `region` that is on the surface: `source` fills a row of new pixels
    /// that starts at the x and y it is given, and says `false` to end the drawing.
    pub(crate) fn paint(
        &mut self,
        region: &Region,
        rop: Rop,
        mut source: impl FnMut(u32, u32, &mut [u32]) -> bool,
    ) {
        if rop == Rop::PUT
            && let Some(draft) = self.draft.take()
        {
            self.paint_moved(draft, region, source);
            return;
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        region.clipped(self.area()).visit(|rect| {
            // On the surface no coordinate is negative.
            let (left, width) = (rect.left as u32, rect.width());
            scratch.resize(width as usize, 0);
            for y in rect.top..rect.bottom {
                let y = y as u32;
                if !source(left, y, &mut scratch) {
                    return false;
                }
                if rop != Rop::PUT {
                    let there = self.row(left, y, width).unwrap_or_default();
                    rop.combine(&mut scratch, there);
                }
                self.put_row(left, y, &scratch);
            }
            true
        });
        self.scratch = scratch;
    }

    /// Fills `region` with one colour.
    pub(crate) fn fill(&mut self, region: &Region, rop: Rop, color: u32) {
        self.paint(region, rop, |_, _, row| {
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
        let mut copy = Self::new(size);
        let (left, top) = (area.left.max(0) as u32, area.top.max(0) as u32);
        for y in 0..size.height {
            if let Some(row) = self.row(left, top + y, size.width) {
                copy.put_row(0, y, row);
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
        Canvas::new(Size { width, height })
    }

    #[test]
    fn the_same_pixels_again_are_no_damage() {
        let mut canvas = canvas(100, 100);
        canvas.fill(&rect(10, 10, 20, 20).into(), Rop::PUT, 7);
        canvas.take_damage();

        canvas.fill(&rect(10, 10, 20, 20).into(), Rop::PUT, 7);

        assert_eq!(canvas.take_damage(), []);
    }

    #[test]
    fn damage_covers_what_changed_and_little_more() {
        let mut canvas = canvas(640, 480);

        canvas.fill(&rect(40, 40, 50, 42).into(), Rop::PUT, 7);

        assert_eq!(canvas.take_damage(), [Update::Pixels(rect(32, 32, 64, 48))]);
    }

    #[test]
    fn drawing_past_the_edges_draws_what_is_on_the_surface() {
        let mut canvas = canvas(4, 2);

        canvas.fill(&rect(-5, 1, 2, 9).into(), Rop::PUT, 7);

        assert_eq!(canvas.row(0, 0, 4), Some(&[0, 0, 0, 0][..]));
        assert_eq!(canvas.row(0, 1, 4), Some(&[7, 7, 0, 0][..]));
    }

    #[test]
    fn rows_that_do_not_fit_are_not_put() {
        let mut canvas = canvas(4, 2);

        canvas.put_row(2, 0, &[1, 2, 3]);
        canvas.put_row(0, 2, &[1]);

        assert_eq!(canvas.take_damage(), []);
        assert_eq!(canvas.row(0, 2, 1), None);
    }
}
