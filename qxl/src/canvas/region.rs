//! Sets of pixels.

use caraway_spice::Rect;

/// A set of pixels as rectangles that do not overlap, so that drawing on each of them touches each
/// pixel once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Region(Vec<Rect>);

impl Region {
    /// The pixels that are in any of `rects`.
    ///
    /// Takes time in the order of the square of their number, which the caller bounds.
    pub(crate) fn union(mut rects: Vec<Rect>) -> Self {
        rects.retain(|rect| !rect.is_empty());
        if rects.len() <= 1 {
            return Self(rects);
        }
        let mut edges: Vec<i32> = rects.iter().flat_map(|r| [r.top, r.bottom]).collect();
        edges.sort_unstable();
        edges.dedup();
        rects.sort_unstable_by_key(|rect| rect.left);
        let mut bands = Vec::new();
        for (&top, &bottom) in edges.iter().zip(edges.iter().skip(1)) {
            let mut open: Option<Rect> = None;
            for rect in rects.iter().filter(|r| r.top <= top && r.bottom >= bottom) {
                match &mut open {
                    Some(span) if rect.left <= span.right => {
                        span.right = span.right.max(rect.right)
                    }
                    _ => bands.extend(open.replace(Rect {
                        top,
                        bottom,
                        ..*rect
                    })),
                }
            }
            bands.extend(open);
        }
        Self(bands)
    }

    pub(crate) fn rects(&self) -> &[Rect] {
        &self.0
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

            for (x, y) in (0..20).flat_map(|x| (0..20).map(move |y| (x, y))) {
                let expected = usize::from(rects.iter().any(|r| contains(r, x, y)));
                let count = region.rects().iter().filter(|r| contains(r, x, y)).count();
                prop_assert_eq!(count, expected, "at {},{}", x, y);
            }
        }
    }
}
