//! A surface cut into square tiles, each of which somebody knows something about.

use crate::geometry::{Rect, Size};

/// Something about each tile of a surface. However large the surface is, there are no more than
/// [`MAX_TILES`](Self::MAX_TILES) of them.
#[derive(Debug)]
pub(crate) struct Tiles<T> {
    bounds: Rect,
    side: u32,
    columns: usize,
    all: Vec<T>,
}

/// A rectangle of tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cells {
    /// The first, and the one after the last.
    columns: (usize, usize),
    rows: (usize, usize),
}

/// Of a block of tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    Right,
    Top,
    Bottom,
}

impl Side {
    pub(crate) const ALL: [Self; 4] = [Self::Left, Self::Right, Self::Top, Self::Bottom];
}

impl Cells {
    /// The smallest block that has both.
    pub(crate) fn union(&self, other: &Self) -> Self {
        let span = |a: (usize, usize), b: (usize, usize)| (a.0.min(b.0), a.1.max(b.1));
        Self {
            columns: span(self.columns, other.columns),
            rows: span(self.rows, other.rows),
        }
    }
}

impl<T> Tiles<T> {
    /// Tiles at most; on a surface that would have more, tiles are larger.
    pub(crate) const MAX_TILES: usize = 4096;
    /// Pixels of a tile's side, if that does not make too many.
    const SIDE: u32 = 64;

    /// Tiles of a surface of this size that are all alike.
    pub(crate) fn new(size: Size, tile: T) -> Self
    where
        T: Clone,
    {
        let bounds = Rect::of_size(size);
        let count = |side| {
            let [columns, rows] = [bounds.width(), bounds.height()].map(|n| n.div_ceil(side));
            (columns as usize, columns as usize * rows as usize)
        };
        let mut side = Self::SIDE;
        while count(side).1 > Self::MAX_TILES {
            side *= 2;
        }
        let (columns, tiles) = count(side);
        Self {
            bounds,
            side,
            columns,
            all: vec![tile; tiles],
        }
    }

    /// The surface.
    pub(crate) fn bounds(&self) -> Rect {
        self.bounds
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, T> {
        self.all.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> std::slice::IterMut<'_, T> {
        self.all.iter_mut()
    }

    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        self.all.get(index)
    }

    pub(crate) fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        self.all.get_mut(index)
    }

    /// One tile as a block.
    pub(crate) fn cell(&self, index: usize) -> Cells {
        let (row, column) = (index / self.columns, index % self.columns);
        Cells {
            columns: (column, column + 1),
            rows: (row, row + 1),
        }
    }

    /// The tiles of a block.
    pub(crate) fn within(&self, cells: &Cells) -> impl Iterator<Item = usize> + use<T> {
        let (width, columns, rows) = (self.columns, cells.columns, cells.rows);
        (rows.0..rows.1)
            .flat_map(move |row| (columns.0..columns.1).map(move |column| row * width + column))
    }

    /// The line of tiles at one side of a block, if it is not at the edge.
    pub(crate) fn beside_cells(&self, cells: &Cells, side: Side) -> Option<Cells> {
        let (Cells { columns, rows }, all_rows) = (*cells, self.all.len() / self.columns);
        let before = |(first, _): (usize, usize)| Some((first.checked_sub(1)?, first));
        let after = |(_, end), count| (end < count).then_some((end, end + 1));
        Some(match side {
            Side::Left => Cells {
                columns: before(columns)?,
                rows,
            },
            Side::Right => Cells {
                columns: after(columns, self.columns)?,
                rows,
            },
            Side::Top => Cells {
                columns,
                rows: before(rows)?,
            },
            Side::Bottom => Cells {
                columns,
                rows: after(rows, all_rows)?,
            },
        })
    }

    /// The tiles that have an edge in common with one.
    pub(crate) fn beside(&self, index: usize) -> impl Iterator<Item = usize> + use<T> {
        let column = index % self.columns;
        let (columns, count) = (self.columns, self.all.len());
        let left = (column > 0).then(|| index - 1);
        let right = (column + 1 < columns).then_some(index + 1);
        let above = index.checked_sub(columns);
        let below = Some(index + columns).filter(|&index| index < count);
        [left, right, above, below].into_iter().flatten()
    }

    /// The pixels of a tile.
    pub(crate) fn area(&self, index: usize) -> Rect {
        let side = self.side as usize;
        let edge = |n: usize| i32::try_from(n * side).unwrap_or(i32::MAX);
        let (column, row) = (index % self.columns, index / self.columns);
        Rect {
            left: edge(column),
            top: edge(row),
            right: edge(column + 1),
            bottom: edge(row + 1),
        }
        .intersection(self.bounds)
    }

    /// The tiles that `rect` touches.
    pub(crate) fn touched(&self, rect: Rect) -> impl Iterator<Item = usize> + use<T> {
        let rect = rect.intersection(self.bounds);
        let span = |from: i32, to: i32, side: u32| {
            let last = to.saturating_sub(1).max(0).unsigned_abs() / side;
            (from.max(0).unsigned_abs() / side) as usize..last as usize + 1
        };
        let (columns, is_empty) = (self.columns, rect.is_empty());
        let across = span(rect.left, rect.right, self.side);
        span(rect.top, rect.bottom, self.side)
            .filter(move |_| !is_empty)
            .flat_map(move |row| across.clone().map(move |column| row * columns + column))
    }
}
