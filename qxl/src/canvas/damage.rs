//! Which tiles of a surface changed.

use caraway_spice::{Point, Rect, Size, Update};

/// Pixels across a tile.
pub(super) const TILE_WIDTH: u32 = 32;
/// Pixels down a tile.
const TILE_HEIGHT: u32 = 16;

/// A flag for each tile of a surface, and copies on it.
#[derive(Default)]
pub(super) struct Damage {
    /// Up to the last copy.
    news: Vec<Update>,
    size: Size,
    columns: usize,
    tiles: Vec<bool>,
    any: bool,
}

impl Damage {
    pub(super) fn new(size: Size) -> Self {
        let columns = size.width.div_ceil(TILE_WIDTH) as usize;
        let rows = size.height.div_ceil(TILE_HEIGHT) as usize;
        Self {
            news: Vec::new(),
            size,
            columns,
            tiles: vec![false; columns * rows],
            any: false,
        }
    }

    /// Marks the tile of one pixel.
    pub(super) fn mark(&mut self, x: u32, y: u32) {
        let at = (y / TILE_HEIGHT) as usize * self.columns + (x / TILE_WIDTH) as usize;
        if let Some(tile) = self.tiles.get_mut(at) {
            *tile = true;
            self.any = true;
        }
    }

    /// Marks every tile that `area` touches; `area` is on the surface.
    pub(super) fn mark_area(&mut self, area: Rect) {
        if area.is_empty() {
            return;
        }
        let last = |end: i32, step: u32| (end - 1) as u32 / step;
        for y in area.top as u32 / TILE_HEIGHT..=last(area.bottom, TILE_HEIGHT) {
            for x in area.left as u32 / TILE_WIDTH..=last(area.right, TILE_WIDTH) {
                self.mark(x * TILE_WIDTH, y * TILE_HEIGHT);
            }
        }
    }

    /// Notes that pixels were copied on the surface, after whatever is marked.
    pub(super) fn copied(&mut self, from: Point, to: Rect) {
        let before = self.rects();
        self.news.extend(before.into_iter().map(Update::Pixels));
        self.news.push(Update::Copy { from, to });
    }

    /// Whether there was a copy since the last call of [`take`](Self::take).
    pub(super) fn has_copies(&self) -> bool {
        !self.news.is_empty()
    }

    /// What happened since the last call, in its order.
    pub(super) fn take(&mut self) -> Vec<Update> {
        let mut news = std::mem::take(&mut self.news);
        news.extend(self.rects().into_iter().map(Update::Pixels));
        news
    }

    /// The marked tiles as rectangles that do not overlap, and none is marked any more. Runs that
    /// are the same in consecutive rows of tiles become one rectangle.
    fn rects(&mut self) -> Vec<Rect> {
        if !std::mem::take(&mut self.any) {
            return Vec::new();
        }
        let whole = Rect::of_size(self.size);
        let mut done: Vec<Rect> = Vec::new();
        let mut above: Vec<Rect> = Vec::new();
        for (row, tiles) in self.tiles.chunks_exact_mut(self.columns.max(1)).enumerate() {
            let mut here = Vec::new();
            let mut x = 0;
            for run in tiles.chunk_by(|a, b| a == b) {
                let end = x + run.len();
                if run.first() == Some(&true) {
                    let rect = Rect {
                        left: (x as u32 * TILE_WIDTH) as i32,
                        top: (row as u32 * TILE_HEIGHT) as i32,
                        right: (end as u32 * TILE_WIDTH) as i32,
                        bottom: ((row as u32 + 1) * TILE_HEIGHT) as i32,
                    };
                    here.push(rect.intersection(whole));
                }
                x = end;
            }
            tiles.fill(false);
            for rect in &mut here {
                let same = |r: &Rect| (r.left, r.right) == (rect.left, rect.right);
                if let Some(at) = above.iter().position(same) {
                    rect.top = above.swap_remove(at).top;
                }
            }
            done.append(&mut above);
            above = here;
        }
        done.append(&mut above);
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rectangles_cover_marked_tiles_once() {
        let mut damage = Damage::new(Size {
            width: 100,
            height: 40,
        });
        for (x, y) in [(0, 0), (33, 0), (0, 16), (40, 20), (99, 39)] {
            damage.mark(x, y);
        }

        let rects = damage.rects();

        let expected = [(0, 0, 64, 32), (96, 32, 100, 40)];
        let found: Vec<_> = rects
            .iter()
            .map(|r| (r.left, r.top, r.right, r.bottom))
            .collect();
        assert_eq!(found, expected);
        assert_eq!(damage.take(), []);
    }
}
