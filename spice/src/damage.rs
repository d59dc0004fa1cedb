//! Which pixels a client does not have yet, and which of them it should get next.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::geometry::{Point, Rect, Size};

/// Damage on a surface, kept in square tiles: of each the smallest rectangle that holds what is new
/// in it. However much is drawn, this takes [`Damage::MAX_TILES`] tiles of memory at most; it may
/// cover more pixels than were drawn, never fewer.
///
/// The next piece is where the *least was sent of late*. Each tile owes the bytes that were sent for
/// it, halved every second, and the tile that owes the least comes first. So an echo of a key, a
/// moving window, a line that scrolls in go ahead of a film that plays beside them, and tiles that
/// all want more than the link has share it evenly, in turns. None starves: what a waiting tile owes
/// goes towards nothing, what others pay does not.
///
/// What the source copied from one place to another is copied by the client too, as long as it has
/// most of the pixels: copies wait in a line of their own, at most [`MAX_MOVES`], which goes ahead of
/// all pieces. Damage goes along: what of a copy's source the client does not have yet, or may have
/// already because it is being read, is damage at the copy's target.
///
/// Costs: adding a rectangle touches the tiles that it covers; taking a piece looks at all tiles
/// once (510 of them at 1920 × 1080); neither allocates.
#[derive(Debug)]
pub(crate) struct Damage {
    bounds: Rect,
    side: u32,
    columns: usize,
    tiles: Vec<Tile>,
    /// Tiles with damage.
    damaged: usize,
    /// Copies that the client has to make before it gets the next piece.
    moves: VecDeque<Move>,
    /// What was taken last: its pixels are read some time until it is sent or the next is taken.
    reading: Rect,
    /// Debts are told as they were then: later ones are scaled up instead of earlier ones down.
    epoch: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Tile {
    /// Empty if nothing is new.
    damage: Rect,
    /// Bytes sent for it, as of the epoch.
    debt: f64,
    /// Bytes that a pixel of it took when it was sent last.
    density: f32,
    /// Not to be sent before, so that a source which draws a thousand times a second does not make
    /// a thousand messages.
    rests_until: Instant,
}

/// Pixels that were copied from one place to another, which may overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Move {
    /// The source's top left corner.
    pub(crate) from: Point,
    /// The target; the source has the same size.
    pub(crate) to: Rect,
}

impl Move {
    fn source(self) -> Rect {
        self.to.shifted(Point {
            x: self.from.x.saturating_sub(self.to.left),
            y: self.from.y.saturating_sub(self.to.top),
        })
    }

    /// Where pixels of the source go.
    fn carried(self, rect: Rect) -> Rect {
        let distance = Point {
            x: self.to.left.saturating_sub(self.from.x),
            y: self.to.top.saturating_sub(self.from.y),
        };
        rect.intersection(self.source()).shifted(distance)
    }
}

/// What is to be sent next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// The client copies pixels that it has.
    Copy(Move),
    /// These pixels, which are not damaged any more.
    Piece(Rect),
    /// What is damaged was sent a moment ago, and can be sent again then.
    At(Instant),
    /// Nothing is damaged.
    Nothing,
}

/// After so long, half of what was sent for a tile is forgotten.
const HALF_LIFE: Duration = Duration::from_secs(1);
/// Between two times that the same tile is sent.
const REST: Duration = Duration::from_millis(8);
/// Bytes that a pixel is taken to need before any of its tile was sent.
const DENSITY: f32 = 1.0;
/// Pixels of a piece at most: 512 KiB as they are.
const MAX_PIXELS: u64 = 128 * 1024;
/// Copies that wait at most; what is copied beyond them is damage.
const MAX_MOVES: usize = 64;

impl Damage {
    /// Tiles at most; on a surface that would have more, tiles are larger.
    pub(crate) const MAX_TILES: usize = 4096;
    /// Pixels of a tile's side, if that does not make too many.
    const SIDE: u32 = 64;

    /// A surface of this size without damage.
    pub(crate) fn new(size: Size, now: Instant) -> Self {
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
        let tile = Tile {
            damage: Rect::default(),
            debt: 0.0,
            density: DENSITY,
            rests_until: now,
        };
        Self {
            bounds,
            side,
            columns,
            tiles: vec![tile; tiles],
            damaged: 0,
            moves: VecDeque::new(),
            reading: Rect::default(),
            epoch: now,
        }
    }

    /// A surface of this size without damage, all of which is being read.
    pub(crate) fn of_read(size: Size, now: Instant) -> Self {
        let new = Self::new(size, now);
        Self {
            reading: new.bounds,
            ..new
        }
    }

    /// Whether the client has everything.
    pub(crate) fn is_empty(&self) -> bool {
        self.damaged == 0 && self.moves.is_empty()
    }

    /// The pixels of `rect` are new.
    pub(crate) fn add(&mut self, rect: Rect) {
        for index in self.touched(rect) {
            let part = rect.intersection(self.area(index));
            if let Some(tile) = self.tiles.get_mut(index) {
                self.damaged += usize::from(tile.damage.is_empty());
                tile.damage = tile.damage.union(part);
            }
        }
    }

    /// The source copied pixels.
    pub(crate) fn copied(&mut self, copy: Move) {
        let possible = [copy.to, copy.source()].map(|rect| self.bounds.contains(rect));
        if copy.to.is_empty() || possible.contains(&false) || !self.carry(copy) {
            self.add(copy.to);
        }
    }

    /// Has the client copy, and damage go along; `false` if that does not pay.
    fn carry(&mut self, copy: Move) -> bool {
        let stale = self.touched(copy.source());
        let stale = stale.filter_map(|index| Some(self.tiles.get(index)?.damage));
        let stale: Vec<Rect> = (stale.chain([self.reading]))
            .map(|rect| copy.carried(rect))
            .filter(|rect| !rect.is_empty())
            .collect();
        let missing: u64 = stale.iter().copied().map(Rect::pixels).sum();
        if self.moves.len() >= MAX_MOVES || missing > copy.to.pixels() / 2 {
            return false;
        }
        for index in self.touched(copy.to) {
            if let Some(tile) = self.tiles.get_mut(index)
                && !tile.damage.is_empty()
            {
                tile.damage = tile.damage.without(copy.to);
                self.damaged -= usize::from(tile.damage.is_empty());
            }
        }
        for rect in stale {
            self.add(rect);
        }
        self.moves.push_back(copy);
        true
    }

    /// Takes what comes next: a copy, or the next piece, which is as many tiles as make one
    /// rectangle, owe little and are likely to need no more than `budget` bytes on the wire; at least
    /// one row of one tile. What was taken before is sent or refused by now.
    pub(crate) fn take(&mut self, now: Instant, budget: usize) -> Next {
        self.reading = Rect::default();
        if let Some(copy) = self.moves.pop_front() {
            return Next::Copy(copy);
        }
        let next = self.take_piece(now, budget);
        if let Next::Piece(piece) = next {
            self.reading = piece;
        }
        next
    }

    fn take_piece(&mut self, now: Instant, budget: usize) -> Next {
        if self.damaged == 0 {
            return Next::Nothing;
        }
        let rested = |tile: &Tile| !tile.damage.is_empty() && tile.rests_until <= now;
        let least = (self.tiles.iter().enumerate())
            .filter(|(_, tile)| rested(tile))
            .min_by(|(_, a), (_, b)| a.debt.total_cmp(&b.debt));
        let Some((start, tile)) = least else {
            let damaged = self.tiles.iter().filter(|tile| !tile.damage.is_empty());
            let earliest = damaged.map(|tile| tile.rests_until).min();
            return earliest.map_or(Next::Nothing, Next::At);
        };
        let mut budget = Budget::new(budget);
        if !budget.pay(tile) {
            return Next::Piece(self.cut(start, budget));
        }
        let (mut columns, mut rows) = (1, 1);
        let first = tile.damage;
        let mut piece = first;
        // To the right, as far as damage of the same rows goes on …
        while let Some(tile) = self.right_of(start, columns).filter(|tile| rested(tile)) {
            let damage = tile.damage;
            let goes_on = damage.left == piece.right
                && (damage.top, damage.bottom) == (first.top, first.bottom);
            if !goes_on || !budget.pay(tile) {
                break;
            }
            piece.right = damage.right;
            columns += 1;
        }
        // … and down, as far as whole rows of tiles do.
        loop {
            let below = start + rows * self.columns;
            let Some(row) = self.tiles.get(below..below + columns) else {
                break;
            };
            let top = row.first().map_or(Rect::default(), |tile| tile.damage);
            let goes_on = row.iter().all(|tile| {
                rested(tile) && (tile.damage.top, tile.damage.bottom) == (piece.bottom, top.bottom)
            }) && row
                .windows(2)
                .all(|two| two[0].damage.right == two[1].damage.left)
                && top.left == piece.left
                && row
                    .last()
                    .is_some_and(|tile| tile.damage.right == piece.right);
            if !goes_on || !row.iter().all(|tile| budget.pay(tile)) {
                break;
            }
            piece.bottom = top.bottom;
            rows += 1;
        }
        for row in 0..rows {
            let at = start + row * self.columns;
            for tile in &mut self.tiles[at..at + columns] {
                tile.damage = Rect::default();
            }
        }
        self.damaged -= columns * rows;
        Next::Piece(piece)
    }

    /// `bytes` were sent for a piece.
    pub(crate) fn sent(&mut self, piece: Rect, bytes: usize, now: Instant) {
        // Copies from here on are made after the client has it.
        self.reading = Rect::default();
        self.learn(piece, bytes);
        let elapsed = self.half_lives(now);
        if elapsed > 256.0 {
            for tile in &mut self.tiles {
                tile.debt *= (-elapsed).exp2();
            }
            self.epoch = now;
        }
        let scale = self.half_lives(now).exp2();
        let pixels = piece.pixels().max(1) as f64;
        for index in self.touched(piece) {
            let part = piece.intersection(self.area(index)).pixels() as f64;
            if let Some(tile) = self.tiles.get_mut(index) {
                tile.debt += bytes as f64 * part / pixels * scale;
                tile.rests_until = now + REST;
            }
        }
    }

    /// A piece takes `bytes` on the wire, whether they are sent or not.
    pub(crate) fn learn(&mut self, piece: Rect, bytes: usize) {
        let density = bytes as f32 / piece.pixels().max(1) as f32;
        for index in self.touched(piece) {
            if let Some(tile) = self.tiles.get_mut(index) {
                tile.density = density;
            }
        }
    }

    fn half_lives(&self, now: Instant) -> f64 {
        now.saturating_duration_since(self.epoch).as_secs_f64() / HALF_LIFE.as_secs_f64()
    }

    /// Takes as many rows off a tile's damage as `budget` has.
    fn cut(&mut self, index: usize, budget: Budget) -> Rect {
        let tile = &mut self.tiles[index];
        let row = tile.damage.width() as f32 * tile.density;
        let rows = (budget.bytes / row.max(1.0)) as u32;
        let rows = rows.clamp(1, tile.damage.height());
        let middle = tile.damage.top.saturating_add_unsigned(rows);
        let piece = Rect {
            bottom: middle,
            ..tile.damage
        };
        tile.damage.top = middle;
        self.damaged -= usize::from(tile.damage.is_empty());
        piece
    }

    /// The tile `columns` to the right of `start`, in the same row.
    fn right_of(&self, start: usize, columns: usize) -> Option<&Tile> {
        let inside = start % self.columns + columns < self.columns;
        self.tiles.get(start + columns).filter(|_| inside)
    }

    /// The pixels of a tile.
    fn area(&self, index: usize) -> Rect {
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
    fn touched(&self, rect: Rect) -> impl Iterator<Item = usize> + use<> {
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

/// What a piece may still take.
struct Budget {
    bytes: f32,
    pixels: u64,
}

impl Budget {
    fn new(bytes: usize) -> Self {
        Self {
            bytes: bytes as f32,
            pixels: MAX_PIXELS,
        }
    }

    /// Pays for a tile's damage, if there is enough.
    fn pay(&mut self, tile: &Tile) -> bool {
        let pixels = tile.damage.pixels();
        let bytes = pixels as f32 * tile.density;
        let enough = bytes <= self.bytes && pixels <= self.pixels;
        if enough {
            self.bytes -= bytes;
            self.pixels -= pixels;
        }
        enough
    }
}

#[cfg(test)]
mod tests;
