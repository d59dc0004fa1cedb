//! Sets of pixels.

use caraway_spice::Rect;

/// A set of pixels: those that are in any of some rectangles, which may overlap.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Region {
    /// None is empty; the leftmost comes first.
    rects: Vec<Rect>,
}

impl Region {
    /// The pixels that are in any of `rects`.
    pub(crate) fn union(mut rects: Vec<Rect>) -> Self {
        rects.retain(|rect| !rect.is_empty());
        rects.sort_unstable_by_key(|rect| rect.left);
        Self { rects }
    }

    /// The pixels that are in `area` too.
    pub(crate) fn clipped(&self, area: Rect) -> Self {
        let rects = self.rects.iter().map(|rect| rect.intersection(area));
        Self::union(rects.collect())
    }

    /// The pixels that are in `other` or here.
    pub(crate) fn or(mut self, other: &Self) -> Self {
        self.rects.extend_from_slice(&other.rects);
        Self::union(self.rects)
    }

    /// The smallest rectangle that has all of its pixels; `None` if there are none.
    pub(crate) fn bounds(&self) -> Option<Rect> {
        self.rects.iter().copied().reduce(Rect::union)
    }

    /// Goes through the pixels by rectangles that do not overlap, from top to bottom, so that each
    /// pixel is met once; until `visit` says `false`.
    ///
    /// Takes time in the order of the square of the number of rectangles, which whoever makes a
    /// region bounds; but never more memory than they do.
    pub(crate) fn visit(&self, mut visit: impl FnMut(Rect) -> bool) {
        if let [only] = self.rects[..] {
            visit(only);
            return;
        }
        let sides = self.rects.iter().flat_map(|r| [r.top, r.bottom]);
        let mut edges: Vec<i32> = sides.collect();
        edges.sort_unstable();
        edges.dedup();
        // Between two edges every rectangle is either there in full height or not at all.
        for (&top, &bottom) in edges.iter().zip(edges.iter().skip(1)) {
            let is_there = |rect: &&Rect| rect.top <= top && rect.bottom >= bottom;
            let mut open: Option<Rect> = None;
            for rect in self.rects.iter().filter(is_there) {
                match &mut open {
                    Some(span) if rect.left <= span.right => {
                        span.right = span.right.max(rect.right);
                    }
                    _ => {
                        let next = Rect {
                            top,
                            bottom,
                            ..*rect
                        };
                        if open.replace(next).is_some_and(|done| !visit(done)) {
                            return;
                        }
                    }
                }
            }
            if open.is_some_and(|last| !visit(last)) {
                return;
            }
        }
    }
}

impl From<Rect> for Region {
    fn from(rect: Rect) -> Self {
        Self::union(vec![rect])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn contains(rect: &Rect, x: i32, y: i32) -> bool {
        (rect.left..rect.right).contains(&x) && (rect.top..rect.bottom).contains(&y)
    }

    proptest! {
        #[test]
        fn every_pixel_of_the_rectangles_is_in_one_band(
            sides in prop::collection::vec((0..12_i32, 0..12_i32, 0..8_i32, 0..8_i32), 0..8)
        ) {
            let rects: Vec<Rect> = sides
                .iter()
                .map(|&(left, top, w, h)| Rect { left, top, right: left + w, bottom: top + h })
                .collect();

            let region = Region::union(rects.clone());

            let mut bands = Vec::new();
            region.visit(|band| {
                bands.push(band);
                true
            });
            for (x, y) in (0..20).flat_map(|x| (0..20).map(move |y| (x, y))) {
                let expected = usize::from(rects.iter().any(|r| contains(r, x, y)));
                let count = bands.iter().filter(|r| contains(r, x, y)).count();
                prop_assert_eq!(count, expected, "at {},{}", x, y);
            }
        }
    }
}
