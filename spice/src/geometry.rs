//! Points, sizes and rectangles in pixels.

/// A position; x to the right, y down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Point {
    /// Pixels from the left.
    pub x: i32,
    /// Pixels from the top.
    pub y: i32,
}

/// A width and a height.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Size {
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
}

/// A rectangle; right and bottom are outside of it. Empty if they are not past left and top.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Rect {
    /// First column.
    pub left: i32,
    /// First row.
    pub top: i32,
    /// The column after the last.
    pub right: i32,
    /// The row after the last.
    pub bottom: i32,
}

impl Rect {
    /// The rectangle of `size` whose top left corner is `(0, 0)`; sizes over `i32::MAX` are cut.
    #[must_use]
    pub fn of_size(size: Size) -> Self {
        let cut = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
        Self {
            left: 0,
            top: 0,
            right: cut(size.width),
            bottom: cut(size.height),
        }
    }

    /// Its width and its height.
    pub(crate) fn size(self) -> Size {
        Size {
            width: self.width(),
            height: self.height(),
        }
    }

    /// The least rectangle around this one with an even width and an even height that is inside of `limits`; where
    /// they leave no room for that, the largest inside of this one.
    pub(crate) fn made_even(self, limits: Self) -> Self {
        let even = |low: i32, high: i32, least: i32, most: i32| match (high - low) % 2 {
            0 => (low, high),
            _ if high < most => (low, high + 1),
            _ if low > least => (low - 1, high),
            _ => (low, high - 1),
        };
        let (left, right) = even(self.left, self.right, limits.left, limits.right);
        let (top, bottom) = even(self.top, self.bottom, limits.top, limits.bottom);
        Self {
            left,
            top,
            right,
            bottom,
        }
    }

    /// This rectangle, so many pixels to the right and down. Nothing goes past the ends of `i32`.
    #[must_use]
    pub fn shifted(self, by: Point) -> Self {
        Self {
            left: self.left.saturating_add(by.x),
            top: self.top.saturating_add(by.y),
            right: self.right.saturating_add(by.x),
            bottom: self.bottom.saturating_add(by.y),
        }
    }

    /// A rectangle that covers what is in this one and not in `other`: the smallest one.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        let common = self.intersection(other);
        if common.is_empty() {
            return self;
        }
        let mut rest = self;
        let across = (common.left, common.right) == (self.left, self.right);
        let down = (common.top, common.bottom) == (self.top, self.bottom);
        match (across, down) {
            (true, true) => return Self::default(),
            (true, false) if common.top == self.top => rest.top = common.bottom,
            (true, false) if common.bottom == self.bottom => rest.bottom = common.top,
            (false, true) if common.left == self.left => rest.left = common.right,
            (false, true) if common.right == self.right => rest.right = common.left,
            _ => {}
        }
        rest
    }

    /// What is left of this rectangle around a `part` of it: above, below, to the left and to the right.
    #[must_use]
    pub fn around(self, part: Self) -> [Self; 4] {
        let beside = Self {
            top: part.top,
            bottom: part.bottom,
            ..self
        };
        [
            Self {
                bottom: part.top,
                ..self
            },
            Self {
                top: part.bottom,
                ..self
            },
            Self {
                right: part.left,
                ..beside
            },
            Self {
                left: part.right,
                ..beside
            },
        ]
    }

    /// Pixels in it.
    #[must_use]
    pub fn pixels(self) -> u64 {
        u64::from(self.width()) * u64::from(self.height())
    }

    /// Whether every pixel of `other` is in it.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        other.is_empty() || self.intersection(other) == other
    }

    /// Whether no pixel is in it.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.right <= self.left || self.bottom <= self.top
    }

    /// Columns; 0 if empty.
    #[must_use]
    pub fn width(self) -> u32 {
        i64::from(self.right)
            .saturating_sub(self.left.into())
            .clamp(0, u32::MAX.into()) as u32
    }

    /// Rows; 0 if empty.
    #[must_use]
    pub fn height(self) -> u32 {
        i64::from(self.bottom)
            .saturating_sub(self.top.into())
            .clamp(0, u32::MAX.into()) as u32
    }

    /// What both cover; empty if they do not meet.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self {
            left: self.left.max(other.left),
            top: self.top.max(other.top),
            right: self.right.min(other.right),
            bottom: self.bottom.min(other.bottom),
        }
    }

    /// The smallest rectangle that covers both; an empty one counts for nothing.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        if self.is_empty() {
            return other;
        }
        if other.is_empty() {
            return self;
        }
        Self {
            left: self.left.min(other.left),
            top: self.top.min(other.top),
            right: self.right.max(other.right),
            bottom: self.bottom.max(other.bottom),
        }
    }
}
