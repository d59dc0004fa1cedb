//! A set of pixels that never needs more than a fixed amount of memory.

use crate::geometry::Rect;

/// The pixels that wait to be sent, as rectangles that never overlap.
///
/// However many rectangles are added, no more than [`Region::MAX_RECTS`] are kept: past that the
/// two whose union wastes the fewest pixels become one. A region may therefore cover more than was
/// added to it, never less.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Region {
    rects: Vec<Rect>,
}

/// Where the last piece was taken, so that a part that changes all the time starves no other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scan {
    top: i32,
    left: i32,
    bottom: i32,
}

impl Region {
    /// The largest number of rectangles kept.
    pub const MAX_RECTS: usize = 32;

    /// A region without pixels.
    #[must_use]
    pub const fn new() -> Self {
        Self { rects: Vec::new() }
    }

    /// Whether no pixel is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rects.is_empty()
    }

    /// The rectangles; none empty, no two overlapping, at most [`Region::MAX_RECTS`].
    #[must_use]
    pub fn rects(&self) -> &[Rect] {
        &self.rects
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        self.rects.clear();
    }

    /// Adds the pixels of `rect`.
    pub fn add(&mut self, rect: Rect) {
        if rect.is_empty() || self.rects.iter().any(|&kept| contains(kept, rect)) {
            return;
        }
        self.subtract(rect);
        self.rects.push(rect);
        self.bound();
    }

    /// Keeps only the pixels that are also in `rect`.
    pub fn clip(&mut self, rect: Rect) {
        for kept in &mut self.rects {
            *kept = kept.intersection(rect);
        }
        self.rects.retain(|kept| !kept.is_empty());
    }

    /// Removes and returns the next piece after `scan`, of at most `max_pixels` pixels but at least
    /// one row of at most `max_pixels` columns. Goes round from top to bottom, so that every pixel
    /// is taken in the end, whatever is added meanwhile.
    pub fn take(&mut self, scan: &mut Scan, max_pixels: u32) -> Option<Rect> {
        let max_pixels = max_pixels.max(1);
        let found = self
            .next_after(scan.top, scan.left)
            .or_else(|| self.next_after(scan.bottom, i32::MIN))
            .or_else(|| self.next_after(i32::MIN, i32::MIN));
        let (index, top) = found?;
        let rect = self.rects.swap_remove(index);

        let columns = rect.width().min(max_pixels).max(1);
        let rows = (max_pixels / columns).max(1);
        let piece = Rect {
            left: rect.left,
            top,
            right: rect.left.saturating_add_unsigned(columns),
            bottom: top.saturating_add_unsigned(rows).min(rect.bottom),
        };
        self.rects.extend(outside(rect, piece));
        self.bound();
        *scan = Scan {
            top: piece.top,
            left: piece.right,
            bottom: piece.bottom,
        };
        Some(piece)
    }

    /// Whether [`Region::take`] would start again from the top.
    #[must_use]
    pub fn is_passed(&self, scan: &Scan) -> bool {
        self.next_after(scan.top, scan.left).is_none()
            && self.next_after(scan.bottom, i32::MIN).is_none()
    }

    /// The rectangle with the first row at or below `top`, and on that row at or after `left`;
    /// with that row.
    fn next_after(&self, top: i32, left: i32) -> Option<(usize, i32)> {
        self.rects
            .iter()
            .enumerate()
            .filter(|(_, rect)| rect.bottom > top)
            .map(|(index, rect)| (rect.top.max(top), rect.left, index))
            .filter(|&(row, column, _)| row > top || column >= left)
            .min()
            .map(|(row, _, index)| (index, row))
    }

    fn subtract(&mut self, hole: Rect) {
        if self.rects.iter().all(|&kept| !meets(kept, hole)) {
            return;
        }
        let before = std::mem::take(&mut self.rects);
        self.rects
            .extend(before.into_iter().flat_map(|rect| outside(rect, hole)));
    }

    /// Unites the cheapest pairs until few enough rectangles are left. Every round removes at
    /// least one, so it ends.
    fn bound(&mut self) {
        while self.rects.len() > Self::MAX_RECTS {
            let Some((first, second)) = self.cheapest_pair() else {
                return;
            };
            let mut united = self.rects.swap_remove(second);
            united = united.union(self.rects.swap_remove(first));
            // The union may cover others; those become part of it, and may make it larger again.
            while let Some(met) = self.rects.iter().position(|&rect| meets(rect, united)) {
                united = united.union(self.rects.swap_remove(met));
            }
            self.rects.push(united);
        }
    }

    /// The two (by index, ascending) whose union covers the fewest pixels that neither has.
    fn cheapest_pair(&self) -> Option<(usize, usize)> {
        let mut best: Option<(i128, usize, usize)> = None;
        for (second, &b) in self.rects.iter().enumerate() {
            for (first, &a) in self.rects.iter().enumerate().take(second) {
                let waste = area(a.union(b)) - area(a) - area(b);
                if best.is_none_or(|(least, ..)| waste < least) {
                    best = Some((waste, first, second));
                }
            }
        }
        best.map(|(_, first, second)| (first, second))
    }
}

fn area(rect: Rect) -> i128 {
    i128::from(rect.width()) * i128::from(rect.height())
}

fn meets(a: Rect, b: Rect) -> bool {
    !a.intersection(b).is_empty()
}

fn contains(outer: Rect, inner: Rect) -> bool {
    outer.intersection(inner) == inner
}

/// The parts of `rect` that are not in `hole`: above, below, left and right of it.
fn outside(rect: Rect, hole: Rect) -> impl Iterator<Item = Rect> {
    let hole = rect.intersection(hole);
    let parts = if hole.is_empty() {
        [rect, Rect::default(), Rect::default(), Rect::default()]
    } else {
        [
            Rect {
                bottom: hole.top,
                ..rect
            },
            Rect {
                top: hole.bottom,
                ..rect
            },
            Rect {
                right: hole.left,
                top: hole.top,
                bottom: hole.bottom,
                ..rect
            },
            Rect {
                left: hole.right,
                top: hole.top,
                bottom: hole.bottom,
                ..rect
            },
        ]
    };
    parts.into_iter().filter(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIDE: i32 = 64;

    fn rect() -> impl Strategy<Value = Rect> {
        (0..SIDE, 0..SIDE, 0..SIDE, 0..SIDE).prop_map(|(left, top, right, bottom)| Rect {
            left,
            top,
            right,
            bottom,
        })
    }

    fn covers(rects: &[Rect], x: i32, y: i32) -> usize {
        rects
            .iter()
            .filter(|r| x >= r.left && x < r.right && y >= r.top && y < r.bottom)
            .count()
    }

    proptest! {
        #[test]
        fn every_added_pixel_is_in_exactly_one_rectangle(
            added in prop::collection::vec(rect(), 0..80)
        ) {
            let mut region = Region::new();
            for &rect in &added {
                region.add(rect);
            }
            prop_assert!(region.rects().len() <= Region::MAX_RECTS);
            for y in 0..SIDE {
                for x in 0..SIDE {
                    let found = covers(region.rects(), x, y);
                    prop_assert!(found <= 1);
                    prop_assert!(found == 1 || covers(&added, x, y) == 0);
                }
            }
        }

        #[test]
        fn taking_pieces_ends_and_covers_everything(
            added in prop::collection::vec(rect(), 1..20), max in 1u32..500
        ) {
            let mut region = Region::new();
            for &rect in &added {
                region.add(rect);
            }
            let (mut scan, mut pieces) = (Scan::default(), Vec::new());
            while let Some(piece) = region.take(&mut scan, max) {
                prop_assert!(!piece.is_empty());
                prop_assert!(piece.width() * piece.height() <= max.max(piece.width()));
                pieces.push(piece);
                prop_assert!(pieces.len() <= (SIDE * SIDE) as usize);
            }
            for y in 0..SIDE {
                for x in 0..SIDE {
                    prop_assert!(covers(&added, x, y) == 0 || covers(&pieces, x, y) >= 1);
                }
            }
        }

        #[test]
        fn any_rectangle_is_accepted(
            edges in prop::collection::vec(any::<(i32, i32, i32, i32)>(), 0..50), max in any::<u32>()
        ) {
            let mut region = Region::new();
            let mut scan = Scan::default();
            for (left, top, right, bottom) in edges {
                region.add(Rect { left, top, right, bottom });
                region.take(&mut scan, max);
            }
            prop_assert!(region.rects().len() <= Region::MAX_RECTS);
        }
    }

    #[test]
    fn a_part_that_is_always_new_does_not_starve_the_rest() {
        let whole = Rect {
            left: 0,
            top: 0,
            right: 10,
            bottom: 100,
        };
        let mut region = Region::new();
        let mut scan = Scan::default();
        let mut lowest = 0;

        for _ in 0..20 {
            region.add(whole);
            let piece = region.take(&mut scan, 100).expect("there is damage");
            lowest = lowest.max(piece.bottom);
        }

        assert_eq!(lowest, 100);
    }

    #[test]
    fn neighbours_on_the_same_rows_take_turns() {
        let left = Rect {
            left: 0,
            top: 0,
            right: 10,
            bottom: 10,
        };
        let right = Rect {
            left: 20,
            top: 0,
            right: 30,
            bottom: 10,
        };
        let mut region = Region::new();
        let mut scan = Scan::default();
        region.add(left);
        region.add(right);

        let first = region.take(&mut scan, 100);
        region.add(left);
        let second = region.take(&mut scan, 100);

        assert_eq!((first, second), (Some(left), Some(right)));
    }
}
