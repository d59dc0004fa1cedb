//! Where something was drawn on a surface that began black.

use caraway_spice::Rect;

/// Of each row the pixels from the first to the last that was drawn. All others are still zeros.
pub(super) struct Drawn {
    rows: Vec<Extent>,
}

/// Consecutive pixels of a row; none if the left end is not left of the right one.
#[derive(Clone, Copy)]
struct Extent {
    left: u32,
    right: u32,
}

impl Extent {
    const NONE: Self = Self {
        left: u32::MAX,
        right: 0,
    };
}

impl Drawn {
    /// Nothing, on a surface of so many rows.
    pub(super) fn nothing(height: u32) -> Self {
        Self {
            rows: vec![Extent::NONE; height as usize],
        }
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.rows.iter().all(|row| row.left >= row.right)
    }

    /// The `width` pixels of row `y` from `x` were drawn.
    pub(super) fn add(&mut self, x: u32, y: u32, width: u32) {
        if let Some(row) = self.rows.get_mut(y as usize) {
            row.left = row.left.min(x);
            row.right = row.right.max(x.saturating_add(width));
        }
    }

    /// Whether any of the `width` pixels of row `y` from `x` may have been.
    pub(super) fn touches(&self, x: u32, y: u32, width: u32) -> bool {
        let row = self.rows.get(y as usize);
        row.is_some_and(|row| x < row.right && x.saturating_add(width) > row.left)
    }

    /// The parts of rows that were: their x, y and width.
    pub(super) fn parts(&self) -> impl Iterator<Item = (u32, u32, u32)> {
        let rows = (0..).zip(&self.rows);
        let rows = rows.filter(|(_, row)| row.left < row.right);
        rows.map(|(y, row)| (row.left, y, row.right - row.left))
    }

    /// What is around all of it.
    pub(super) fn bounds(&self) -> Rect {
        let rects = self.parts().map(|(x, y, width)| Rect {
            left: x as i32,
            top: y as i32,
            right: (x + width) as i32,
            bottom: y as i32 + 1,
        });
        rects.reduce(Rect::union).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_has_its_own_part() {
        let mut drawn = Drawn::nothing(4);
        assert!(drawn.is_nothing());
        assert_eq!(drawn.bounds(), Rect::default());

        drawn.add(10, 1, 5);
        drawn.add(30, 1, 1);
        drawn.add(2, 3, 3);
        drawn.add(0, 4, 9);

        let parts: Vec<_> = drawn.parts().collect();
        assert_eq!(parts, [(10, 1, 21), (2, 3, 3)]);
        let bounds = Rect {
            left: 2,
            top: 1,
            right: 31,
            bottom: 4,
        };
        assert_eq!(drawn.bounds(), bounds);
        let touched = [(9, 1, 2), (9, 1, 1), (31, 1, 9), (20, 1, 1), (4, 2, 9)];
        let touched = touched.map(|(x, y, width)| drawn.touches(x, y, width));
        assert_eq!(touched, [true, false, false, true, false]);
        assert!(!drawn.is_nothing());
    }
}
