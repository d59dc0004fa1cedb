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
