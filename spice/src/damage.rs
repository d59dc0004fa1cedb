//! Which pixels a client does not have yet, and which of them it should get next.

mod deferred;
mod lossy;

use std::collections::VecDeque;
use std::time::Duration;

use deferred::Deferred;
use tokio::time::Instant;

use crate::geometry::{Point, Rect, Size};
use crate::tiles::{Cells, Side, Tiles};

/// Damage on a surface, kept in square tiles: of each the smallest rectangle that holds what is new
/// in it. However much is drawn, this takes [`Tiles::MAX_TILES`] tiles of memory at most; it may
/// cover more pixels than were drawn, never fewer.
///
/// The next piece is where the *least was sent of late*. Each tile owes the bytes that were sent for
/// it, halved every second, and the tile that owes the least comes first. So an echo of a key, a
/// moving window, a line that scrolls in go ahead of a film that plays beside them, and tiles that
/// all want more than the link has share it evenly, in turns. None starves: what a waiting tile owes
/// goes towards nothing, what others pay does not. What is sent all the time rests longer between two times.
///
/// What the source copied from one place to another is copied by the client too, as long as it has
/// most of the pixels: copies wait in a line of their own, at most [`MAX_MOVES`], which goes ahead of
/// all pieces. Damage goes along: what of a copy's source the client does not have yet, or may have
/// already because it is being read, is damage at the copy's target. A copy of what the client mostly does
/// not have waits until it has ([`Deferred`]).
///
/// Where there is a film, damage waits to be taken as a whole picture. Nothing of the client's copy of
/// it is exact, so all of it is damage once it is no film any more, and wherever it is copied to.
///
/// A still may be sent as a lossy image where exact pixels would take long; those follow later ([`lossy`]).
///
/// Costs: adding a rectangle touches the tiles that it covers; taking a piece looks at all tiles
/// once (510 of them at 1920 × 1080), and at those of the piece again; neither allocates.
#[derive(Debug)]
pub(crate) struct Damage {
    tiles: Tiles<Tile>,
    /// Tiles with damage.
    damaged: usize,
    /// Copies that the client has to make before it gets the next piece.
    moves: VecDeque<Move>,
    /// Copies that it can make later.
    deferred: Deferred,
    /// What was taken last: its pixels are read some time until it is sent or the next is taken.
    reading: Rect,
    /// Where the client shows approximations, pictures of a film, which are sent apart from all else.
    films: Vec<Rect>,
    /// Debts are told as they were then: later ones are scaled up instead of earlier ones down.
    epoch: Instant,
    /// When exact pixels are due where the client shows lossy images.
    refine_at: Option<Instant>,
    /// What was taken last may be sent as a lossy image.
    haste: bool,
    /// Bytes that a pixel of the last pieces took when they were sent exactly: what one is taken to need before
    /// any of its tile was sent.
    usual_density: f32,
    /// When the first of what came since something was taken last may go.
    news: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Tile {
    /// Empty if nothing is new.
    damage: Rect,
    /// What the client shows a lossy image of.
    lossy: Rect,
    /// All that is damaged was shown as a lossy image, and is sent exactly when there is nothing else.
    refines: bool,
    /// Bytes sent for it, as of the epoch.
    debt: f64,
    /// How often it was sent, in the same way.
    sendings: f64,
    /// Bytes that a pixel of it took when it was sent exactly, if it ever was, …
    density: Option<f32>,
    /// … and when it was sent in haste, as a lossy image or not.
    hasty_density: f32,
    /// Not to be sent before, so that a source which draws a thousand times a second does not make
    /// a thousand messages.
    rests_until: Instant,
    /// From here on it may go along with a neighbour: halfway. So tiles that change together are sent together
    /// again, however they came to be sent at different times.
    joins_from: Instant,
}

/// Tiles whose damage is sent as one piece.
struct Block {
    cells: Cells,
    piece: Rect,
    /// Pixels of the piece that are damaged.
    damaged: u64,
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
    /// These pixels, of which the client has a lossy image, exactly.
    Refinement(Rect),
    /// What is damaged was sent a moment ago, and can be sent again then.
    At(Instant),
    /// Nothing is damaged.
    Nothing,
}

/// After so long, half of what was sent for a tile is forgotten.
const HALF_LIFE: Duration = Duration::from_secs(1);
/// Between two times that the same tile is sent: screens show 60 pictures a second, …
const REST: Duration = Duration::from_millis(16);
/// … and between two of a tile that was sent so often of late, or in so many bytes: what changes all the time
/// is shown 30 times a second. What a user does changes other tiles each time, or less often.
const OFTEN: f64 = 4.0;
const MUCH: f64 = 4096.0;
const LONG_REST: Duration = Duration::from_millis(32);
/// Bytes that an exact pixel is taken to need before anything was sent, and at most before any of its tile was.
const DENSITY: f32 = 1.0;
/// The same in haste: who expects too much of it learns that at once, who expects too little never does.
const HASTY_DENSITY: f32 = 0.25;
/// Of a piece, at most one pixel in so many is not damaged: pixels that the client has cost little, and
/// fewer messages cost less.
const WASTE: u64 = 4;
/// Bytes that a tile may owe and still go with one that owes nothing.
const LITTLE: f64 = 4096.0;
/// Pixels of a piece at most: 1 MiB as they are.
const MAX_PIXELS: u64 = 256 * 1024;
/// Copies that wait at most; what is copied beyond them is damage.
const MAX_MOVES: usize = 64;

impl Damage {
    /// A surface of this size without damage.
    pub(crate) fn new(size: Size, now: Instant) -> Self {
        let tile = Tile {
            damage: Rect::default(),
            lossy: Rect::default(),
            refines: false,
            debt: 0.0,
            sendings: 0.0,
            density: None,
            hasty_density: HASTY_DENSITY,
            rests_until: now,
            joins_from: now,
        };
        Self {
            tiles: Tiles::new(size, tile),
            damaged: 0,
            moves: VecDeque::new(),
            deferred: Deferred::default(),
            reading: Rect::default(),
            films: Vec::new(),
            epoch: now,
            refine_at: None,
            haste: false,
            usual_density: DENSITY,
            news: None,
        }
    }

    /// A surface of this size without damage, all of which is being read.
    pub(crate) fn of_read(size: Size, now: Instant) -> Self {
        let new = Self::new(size, now);
        Self {
            reading: new.tiles.bounds(),
            ..new
        }
    }

    /// The pixels of `rect` are new.
    pub(crate) fn add(&mut self, rect: Rect) {
        self.deferred.changed(rect);
        self.put_back(rect);
    }

    /// The client does not have the pixels of `rect`.
    pub(crate) fn put_back(&mut self, rect: Rect) {
        for index in self.tiles.touched(rect) {
            let part = rect.intersection(self.tiles.area(index));
            if let Some(tile) = self.tiles.get_mut(index) {
                self.damaged += usize::from(tile.damage.is_empty());
                tile.damage = tile.damage.union(part);
                tile.refines = false;
                let due = tile.rests_until;
                self.news = Some(self.news.map_or(due, |news| news.min(due)));
            }
        }
    }

    /// When the first of what came since something was taken last may go.
    pub(crate) fn news(&self) -> Option<Instant> {
        self.news
    }

    /// The source copied pixels.
    pub(crate) fn copied(&mut self, copy: Move) {
        let possible = [copy.to, copy.source()].map(|rect| self.tiles.bounds().contains(rect));
        if copy.to.is_empty() || possible.contains(&false) {
            self.add(copy.to);
        } else if !self.carry(copy) {
            self.add(copy.to);
            let is_film = |film: &Rect| !film.intersection(copy.source()).is_empty();
            if !self.films.iter().any(is_film) {
                self.deferred.add(copy);
            }
        }
    }

    /// Has the client copy, and damage go along; `false` if that does not pay.
    fn carry(&mut self, copy: Move) -> bool {
        let stale = self.tiles.touched(copy.source());
        let stale = stale.filter_map(|index| Some(self.tiles.get(index)?.damage));
        let approximate = self.films.iter().copied().chain([self.reading]);
        let stale: Vec<Rect> = (stale.chain(approximate))
            .map(|rect| copy.carried(rect))
            .filter(|rect| !rect.is_empty())
            .collect();
        let missing: u64 = stale.iter().copied().map(Rect::pixels).sum();
        if self.moves.len() >= MAX_MOVES || missing > copy.to.pixels() / 2 {
            return false;
        }
        self.deferred.changed(copy.to);
        self.clear_for_copy(copy);
        for rect in stale {
            self.put_back(rect);
        }
        self.moves.push_back(copy);
        // At once.
        self.news = Some(self.epoch);
        true
    }

    /// Takes what comes next: a copy, or the next piece, which is as many tiles around the one that owes
    /// the least as make about one rectangle, owe little too and are likely to need no more than `budget`
    /// bytes on the wire; at least one row of one tile. What was taken before is sent or refused by now. In
    /// haste, a piece may be sent as a lossy image.
    pub(crate) fn take(&mut self, now: Instant, budget: usize, haste: bool) -> Next {
        self.reading = Rect::default();
        self.haste = haste;
        self.news = None;
        if let Some(copy) = self.moves.pop_front() {
            return Next::Copy(copy);
        }
        let mut deferred = std::mem::take(&mut self.deferred);
        let ready = deferred.take(|source| !self.touches(source));
        self.deferred = deferred;
        if let Some(copy) = ready {
            self.clear_for_copy(copy);
            return Next::Copy(copy);
        }
        let next = self.take_piece(now, budget);
        if let Next::Piece(piece) | Next::Refinement(piece) = next {
            self.reading = piece;
            self.forget_lossy(piece);
        }
        next
    }

    fn take_piece(&mut self, now: Instant, budget: usize) -> Next {
        let next = self.take_damaged(now, budget);
        if next != Next::Nothing {
            return next;
        }
        match self.refine(now) {
            Some(due) => Next::At(due),
            None => self.take_damaged(now, budget),
        }
    }

    fn take_damaged(&mut self, now: Instant, budget: usize) -> Next {
        if self.damaged == 0 {
            return Next::Nothing;
        }
        let waits = |tile: &Tile| {
            let is_film = |film: &Rect| film.contains(tile.damage);
            !tile.damage.is_empty()
                && !self.films.iter().any(is_film)
                && !self.deferred.hold(tile.damage)
        };
        let least = (self.tiles.iter().enumerate())
            .filter(|(_, tile)| tile.rests_until <= now && waits(tile))
            .min_by(|(_, a), (_, b)| {
                let refines = a.refines.cmp(&b.refines);
                refines.then(a.debt.total_cmp(&b.debt))
            });
        let Some((start, tile)) = least else {
            let damaged = self.tiles.iter().filter(|tile| waits(tile));
            let earliest = damaged.map(|tile| tile.rests_until).min();
            return earliest.map_or(Next::Nothing, Next::At);
        };
        let refines = tile.refines;
        let piece = if refines {
            Next::Refinement
        } else {
            Next::Piece
        };
        let mut budget = Budget::new(budget);
        if !budget.pay(self.likely_bytes(tile), tile.damage.pixels()) {
            return self.cut(start, budget).map_or(Next::Nothing, piece);
        }
        let mut block = Block {
            cells: self.tiles.cell(start),
            piece: tile.damage,
            damaged: tile.damage.pixels(),
        };
        // What owes much more has its turn later, unless it takes no time: an echo of a key does not wait for
        // the film beside it.
        let most = (2.0 * tile.debt).max(LITTLE * self.half_lives(now).exp2());
        let joins = |tile: &Tile, cheap: bool| {
            tile.joins_from <= now
                && waits(tile)
                && tile.refines == refines
                && (cheap || tile.debt <= most)
        };
        // Along the rows first.
        while (Side::ALL.into_iter()).any(|side| self.grow(&mut block, side, &mut budget, &joins)) {
        }
        for index in self.tiles.within(&block.cells) {
            if let Some(tile) = self.tiles.get_mut(index) {
                self.damaged -= usize::from(!tile.damage.is_empty());
                tile.damage = Rect::default();
            }
        }
        piece(block.piece)
    }

    /// Takes the line of tiles at one side of a block into it, if some of them are damaged, none should
    /// wait, `budget` has enough, and little in the piece is not damaged. So a window is cut the same way
    /// each time, whichever of its tiles owes the least, and repeats what was sent.
    fn grow(
        &self,
        block: &mut Block,
        side: Side,
        budget: &mut Budget,
        joins: &impl Fn(&Tile, bool) -> bool,
    ) -> bool {
        let Some(line) = self.tiles.beside_cells(&block.cells, side) else {
            return false;
        };
        let mut grown = Block {
            cells: block.cells.union(&line),
            ..*block
        };
        let likely = |index| Some(self.likely_bytes(self.tiles.get(index)?));
        let bytes: f32 = self.tiles.within(&line).filter_map(likely).sum();
        let cheap = budget.is_little(bytes);
        for index in self.tiles.within(&line) {
            let Some(tile) = self.tiles.get(index) else {
                return false;
            };
            if tile.damage.is_empty() {
                continue;
            }
            if !joins(tile, cheap) {
                return false;
            }
            grown.piece = grown.piece.union(tile.damage);
            grown.damaged += tile.damage.pixels();
        }
        let pixels = grown.piece.pixels();
        let waste = pixels - grown.damaged;
        let pays = grown.damaged > block.damaged && waste <= pixels / WASTE;
        let takes = pays && budget.pay(bytes, pixels - block.piece.pixels());
        if takes {
            *block = grown;
        }
        takes
    }

    /// From here on these are films, which go as pictures.
    pub(crate) fn set_films(&mut self, films: Vec<Rect>) {
        for film in &films {
            // Its pixels are never sent as they are.
            self.deferred
                .forget(|copy| !film.intersection(copy.source()).is_empty());
        }
        let before = std::mem::replace(&mut self.films, films);
        for film in before {
            if !self.films.contains(&film) {
                self.add(film);
            }
        }
    }

    /// Takes all damage of one of the films, which are these from here on, for a picture that is read next.
    /// `false`, and nothing taken, while there are copies: the client must make them before it gets
    /// pixels that are newer.
    pub(crate) fn begin_picture(&mut self, films: Vec<Rect>, film: Rect) -> bool {
        if self.has_copies() {
            return false;
        }
        self.set_films(films);
        self.clear(film);
        true
    }

    /// The client has the pixels of `rect`, or gets them in another way.
    fn clear(&mut self, rect: Rect) {
        for index in self.tiles.touched(rect) {
            let Some(tile) = self.tiles.get_mut(index) else {
                continue;
            };
            tile.lossy = tile.lossy.without(rect);
            if !tile.damage.intersection(rect).is_empty() {
                tile.damage = tile.damage.without(rect);
                self.damaged -= usize::from(tile.damage.is_empty());
            }
        }
    }

    /// Whether there are copies to be made.
    pub(crate) fn has_copies(&self) -> bool {
        !self.moves.is_empty()
    }

    /// Whether anything of `area` is damaged.
    pub(crate) fn touches(&self, area: Rect) -> bool {
        let damage = (self.tiles.touched(area)).filter_map(|index| self.tiles.get(index));
        let mut common = damage.map(|tile| tile.damage.intersection(area));
        common.any(|common| !common.is_empty())
    }

    /// Bytes that a pixel of `area` is likely to take when it is sent exactly, on average.
    pub(crate) fn density(&self, area: Rect) -> f64 {
        let bytes: f64 = (self.tiles.touched(area))
            .filter_map(|index| {
                let pixels = self.tiles.area(index).intersection(area).pixels();
                let density = self.exact_density(self.tiles.get(index)?);
                Some(f64::from(density) * pixels as f64)
            })
            .sum();
        bytes / area.pixels().max(1) as f64
    }

    fn exact_density(&self, tile: &Tile) -> f32 {
        tile.density.unwrap_or(self.usual_density)
    }

    /// Bytes that a pixel of a tile's damage is likely to take.
    fn likely_density(&self, tile: &Tile) -> f32 {
        match self.haste && !tile.refines {
            true => tile.hasty_density,
            false => self.exact_density(tile),
        }
    }

    /// Bytes that a tile's damage is likely to take.
    fn likely_bytes(&self, tile: &Tile) -> f32 {
        tile.damage.pixels() as f32 * self.likely_density(tile)
    }

    /// `bytes` were sent for the exact pixels of a piece.
    pub(crate) fn sent(&mut self, piece: Rect, bytes: usize, now: Instant) {
        self.learn(piece, bytes, true);
        self.charge(piece, bytes, now);
    }

    /// The client has all of `area` in one colour, which says nothing of what is drawn there.
    pub(crate) fn filled(&mut self, area: Rect, bytes: usize, now: Instant) {
        self.charge(area, bytes, now);
    }

    /// Has the tiles of a piece owe the bytes that were sent for it.
    fn charge(&mut self, piece: Rect, bytes: usize, now: Instant) {
        // Copies from here on are made after the client has it.
        self.reading = Rect::default();
        let elapsed = self.half_lives(now);
        if elapsed > 256.0 {
            for tile in self.tiles.iter_mut() {
                tile.debt *= (-elapsed).exp2();
                tile.sendings *= (-elapsed).exp2();
            }
            self.epoch = now;
        }
        let scale = self.half_lives(now).exp2();
        let pixels = piece.pixels().max(1) as f64;
        for index in self.tiles.touched(piece) {
            let part = piece.intersection(self.tiles.area(index)).pixels() as f64;
            if let Some(tile) = self.tiles.get_mut(index) {
                tile.debt += bytes as f64 * part / pixels * scale;
                tile.sendings += scale;
                let busy = tile.sendings > OFTEN * scale || tile.debt > MUCH * scale;
                let rest = if busy { LONG_REST } else { REST };
                tile.rests_until = now + rest;
                tile.joins_from = now + rest / 2;
            }
        }
    }

    /// A piece would take `bytes`, which is too much at once: it is not sent.
    pub(crate) fn refused(&mut self, piece: Rect, bytes: usize, is_exact: bool) {
        self.learn(piece, bytes, is_exact);
        self.put_back(piece);
    }

    /// A piece takes `bytes` on the wire, whether they are sent or not.
    fn learn(&mut self, piece: Rect, bytes: usize, is_exact: bool) {
        let density = bytes as f32 / piece.pixels().max(1) as f32;
        if is_exact {
            // A photograph says little of what is beside it.
            self.usual_density = (self.usual_density + density.min(DENSITY)) / 2.0;
        }
        for index in self.tiles.touched(piece) {
            if let Some(tile) = self.tiles.get_mut(index) {
                if is_exact {
                    tile.density = Some(density);
                }
                if self.haste {
                    tile.hasty_density = density;
                }
            }
        }
    }

    fn half_lives(&self, now: Instant) -> f64 {
        now.saturating_duration_since(self.epoch).as_secs_f64() / HALF_LIFE.as_secs_f64()
    }

    /// Takes as many rows off a tile's damage as `budget` has.
    fn cut(&mut self, index: usize, budget: Budget) -> Option<Rect> {
        let density = self.likely_density(self.tiles.get(index)?);
        let tile = self.tiles.get_mut(index)?;
        let row = tile.damage.width() as f32 * density;
        let rows = (budget.bytes / row.max(1.0)) as u32;
        let rows = rows.clamp(1, tile.damage.height());
        let middle = tile.damage.top.saturating_add_unsigned(rows);
        let piece = Rect {
            bottom: middle,
            ..tile.damage
        };
        tile.damage.top = middle;
        self.damaged -= usize::from(tile.damage.is_empty());
        Some(piece)
    }
}

/// What a piece may still take.
struct Budget {
    bytes: f32,
    /// Of these, what takes so little time that nobody notices.
    little: f32,
    pixels: u64,
}

impl Budget {
    fn new(bytes: usize) -> Self {
        Self {
            bytes: bytes as f32,
            little: bytes as f32 / 8.0,
            pixels: MAX_PIXELS,
        }
    }

    /// Whether so much more is still little.
    fn is_little(&self, bytes: f32) -> bool {
        bytes <= self.little
    }

    /// Pays, if there is enough.
    fn pay(&mut self, bytes: f32, pixels: u64) -> bool {
        let enough = bytes <= self.bytes && pixels <= self.pixels;
        if enough {
            self.bytes -= bytes;
            self.little -= bytes;
            self.pixels -= pixels;
        }
        enough
    }
}

#[cfg(test)]
mod tests;
