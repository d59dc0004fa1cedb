//! Where films are on a display: found by how often pixels change, and nothing else.

use std::time::Duration;

use tokio::time::Instant;

use crate::geometry::{Rect, Size};
use crate::tiles::Tiles;

/// A part of a display that shows moving pictures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Film {
    /// The same for as long as it is the same film.
    pub(crate) id: u32,
    pub(crate) area: Rect,
    /// Whether it moves now; else it pauses.
    pub(crate) moving: bool,
    /// When its pixels changed last.
    pub(crate) changed: Instant,
    /// Pictures a second.
    pub(crate) rate: f64,
    /// Pixels a second that are new.
    pub(crate) churn: f64,
}

/// The history of a display's changes, kept in tiles: of each, for how long it has been changing
/// without a pause and how often. Tiles that change as often as a film does are hot, and a rectangle
/// that hot tiles fill is a film. Cursors that blink, clocks, and lines of text that come now and then
/// never are; text that scrolls without end may be, and who streams has to look at the pixels.
///
/// Costs: an update touches the tiles that it covers; a look goes over all tiles once and is made at
/// most every [`LOOK`]. Only a new film allocates.
#[derive(Debug)]
pub(crate) struct Motion {
    tiles: Tiles<Heat>,
    films: Vec<Known>,
    last_id: u32,
    looked_at: Instant,
}

/// Changes of a tile since its last pause.
#[derive(Debug, Clone, Copy)]
struct Heat {
    began: Instant,
    last: Instant,
    pictures: u32,
    /// What of the tile pictures cover, by the last [`WINDOW`] of them.
    span: Rect,
    /// What the picture covers that is being drawn.
    part: Rect,
    window: Window,
}

/// What some pictures in a row cover of a tile.
#[derive(Debug, Clone, Copy, Default)]
struct Window {
    pictures: u32,
    covered: Rect,
    /// Pictures that cover more than those before, and what they cover.
    outliers: u32,
    outside: Rect,
}

#[derive(Debug, Clone)]
struct Known {
    film: Film,
    /// When it moved last.
    moved: Instant,
    /// What is hot of it was less since then.
    smaller_since: Option<Instant>,
}

/// A tile that does not change for so long pauses.
const STILL: Duration = Duration::from_millis(250);
/// Changes closer together make one picture, drawn in pieces.
const PICTURE: Duration = Duration::from_millis(8);
/// A tile is hot that has made so many pictures in so long a time at least, at this rate.
const PICTURES: u32 = 12;
const WARMING: Duration = Duration::from_millis(500);
const LEAST_RATE: f64 = 7.5;
/// Pictures from which a film's borders follow, and how many of them must cover more for it to grow: a
/// subtitle or a bar over its edge is not part of it.
const WINDOW: u32 = 12;
const OUTLIERS: u32 = 4;
/// A film that paused goes on with so many pictures of a part of its tiles, of which this is the least
/// share: one in eight.
const RESUMING: u32 = 3;
const SHARE: usize = 8;
/// Older pictures count half.
const MEMORY: Duration = Duration::from_secs(4);
/// Between two looks for films.
const LOOK: Duration = Duration::from_millis(100);
/// What is not hot any more stays part of a film for so long.
const SHRINK: Duration = Duration::from_secs(2);
/// A film that pauses is known for so long.
const FORGET: Duration = Duration::from_secs(60);
/// The smallest film, and how many there may be.
const LEAST_WIDTH: u32 = 64;
const LEAST_HEIGHT: u32 = 48;
const LEAST_PIXELS: u64 = 96 * 96;
const MAX_FILMS: usize = 8;
/// The longest side that a JPEG picture may have, and then some.
const MAX_SIDE: u32 = 16_384;

impl Heat {
    fn rate(&self) -> f64 {
        let elapsed = self.last.saturating_duration_since(self.began);
        f64::from(self.pictures.saturating_sub(1)) / elapsed.as_secs_f64().max(0.001)
    }

    fn changes(&self, now: Instant) -> bool {
        self.pictures > 0 && now.saturating_duration_since(self.last) <= STILL
    }

    fn is_hot(&self, now: Instant) -> bool {
        self.changes(now)
            && self.pictures >= PICTURES
            && self.last.saturating_duration_since(self.began) >= WARMING
            && self.rate() >= LEAST_RATE
    }

    fn change(&mut self, part: Rect, now: Instant) {
        if !self.changes(now) {
            *self = Self {
                began: now,
                last: now,
                pictures: 1,
                span: part,
                part,
                window: Window::default(),
            };
            return;
        }
        if now.saturating_duration_since(self.last) < PICTURE {
            self.part = self.part.union(part);
            return;
        }
        self.end_picture();
        self.part = part;
        self.pictures = self.pictures.saturating_add(1);
        self.last = now;
        let elapsed = now.saturating_duration_since(self.began);
        if elapsed > MEMORY {
            self.began += elapsed / 2;
            self.pictures /= 2;
        }
    }

    /// What the last picture covers is known.
    fn end_picture(&mut self) {
        let window = &mut self.window;
        window.pictures += 1;
        if self.span.contains(self.part) {
            window.covered = window.covered.union(self.part);
        } else {
            window.outliers += 1;
            window.outside = window.outside.union(self.part);
        }
        let is_first = self.pictures < WINDOW;
        if is_first || window.outliers >= OUTLIERS {
            self.span = self.span.union(window.outside);
        }
        if window.pictures >= WINDOW {
            if !is_first && window.outliers < OUTLIERS {
                self.span = window.covered;
            }
            *window = Window::default();
        }
    }
}

impl Motion {
    /// A display of this size, nothing of which ever changed.
    pub(crate) fn new(size: Size, now: Instant) -> Self {
        let heat = Heat {
            began: now,
            last: now,
            pictures: 0,
            span: Rect::default(),
            part: Rect::default(),
            window: Window::default(),
        };
        Self {
            tiles: Tiles::new(size, heat),
            films: Vec::new(),
            last_id: 0,
            looked_at: now,
        }
    }

    /// Another surface, maybe of another size, on which nothing ever changed.
    pub(crate) fn restart(&mut self, size: Size, now: Instant) {
        // Films never have a number again.
        let last_id = self.last_id;
        *self = Self {
            last_id,
            ..Self::new(size, now)
        };
    }

    /// Pixels changed.
    pub(crate) fn updated(&mut self, rect: Rect, now: Instant) {
        for index in self.tiles.touched(rect) {
            let part = rect.intersection(self.tiles.area(index));
            if let Some(heat) = self.tiles.get_mut(index) {
                heat.change(part, now);
            }
        }
    }

    /// The films of now; no two of them meet.
    pub(crate) fn films(&mut self, now: Instant) -> Vec<Film> {
        if now.saturating_duration_since(self.looked_at) >= LOOK {
            self.looked_at = now;
            self.look(now);
        }
        for Known { film, moved, .. } in &mut self.films {
            follow(film, &self.tiles, now);
            if film.moving {
                *moved = now;
            }
        }
        self.films
            .retain(|known| now.saturating_duration_since(known.moved) < FORGET);
        self.films.iter().map(|known| known.film).collect()
    }

    /// Looks for new films, and for new borders of those that are known.
    fn look(&mut self, now: Instant) {
        for hot in self.hot_rectangles(now) {
            let same = |known: &Known| is_same(known.film.area, hot);
            match self.films.iter().position(same) {
                Some(index) => self.reshape(index, hot, now),
                None => self.add(hot, now),
            }
        }
    }

    /// The borders of a film may be others now.
    fn reshape(&mut self, index: usize, hot: Rect, now: Instant) {
        let Some(known) = self.films.get_mut(index) else {
            return;
        };
        let area = known.film.area;
        if hot == area {
            known.smaller_since = None;
        } else if area.contains(hot) {
            let since = *known.smaller_since.get_or_insert(now);
            if now.saturating_duration_since(since) >= SHRINK {
                known.film.area = hot;
                known.smaller_since = None;
            }
        } else {
            let grown = area.union(hot);
            known.film.area = grown;
            let id = known.film.id;
            self.films.retain(|other| {
                other.film.id == id || other.film.area.intersection(grown).is_empty()
            });
        }
    }

    fn add(&mut self, area: Rect, now: Instant) {
        // What was there before is not there any more: it moved, or something else covers it.
        self.films
            .retain(|known| known.film.area.intersection(area).is_empty());
        if self.films.len() < MAX_FILMS {
            self.last_id = self.last_id.wrapping_add(1);
            self.films.push(Known {
                film: Film {
                    id: self.last_id,
                    area,
                    moving: true,
                    changed: now,
                    rate: 0.0,
                    churn: 0.0,
                },
                moved: now,
                smaller_since: None,
            });
        }
    }

    /// Rectangles that are mostly hot, each of tiles whose changes reach from one to the next.
    fn hot_rectangles(&self, now: Instant) -> Vec<Rect> {
        let mut found = Vec::new();
        let mut is_seen = vec![false; self.tiles.len()];
        let mut front = Vec::new();
        for start in 0..self.tiles.len() {
            let mut area = Rect::default();
            let mut covered = 0;
            self.visit(start, now, &mut is_seen, &mut front);
            while let Some((index, span)) = front.pop() {
                area = area.union(span);
                covered += span.pixels();
                for neighbour in self.tiles.beside(index) {
                    let reaches = |heat: &Heat| adjoins(span, heat.span);
                    if self.tiles.get(neighbour).is_some_and(reaches) {
                        self.visit(neighbour, now, &mut is_seen, &mut front);
                    }
                }
            }
            if is_film_sized(area) && covered * 2 >= area.pixels() {
                found.push(area);
            }
        }
        found
    }

    /// Puts a tile into the front if it is hot and was not there before.
    fn visit(
        &self,
        index: usize,
        now: Instant,
        is_seen: &mut [bool],
        front: &mut Vec<(usize, Rect)>,
    ) {
        let Some(heat) = self.tiles.get(index).filter(|heat| heat.is_hot(now)) else {
            return;
        };
        if is_seen
            .get_mut(index)
            .is_some_and(|seen| !std::mem::replace(seen, true))
        {
            front.push((index, heat.span));
        }
    }
}

/// Brings what is told of a film up to date.
fn follow(film: &mut Film, tiles: &Tiles<Heat>, now: Instant) {
    let heats = || tiles.touched(film.area).filter_map(|i| tiles.get(i));
    let count = |which: &dyn Fn(&Heat) -> bool| heats().filter(|heat| which(heat)).count();
    let all = count(&|_| true);
    // A picture more or less, or a thing that moves on a film that pauses, makes no difference.
    let enough = all.div_ceil(SHARE);
    film.moving = if film.moving {
        count(&|heat| heat.changes(now)) >= enough
    } else {
        count(&|heat| heat.changes(now) && heat.pictures >= RESUMING) >= enough
    };
    let changed = heats().map(|heat| heat.last).max();
    film.changed = changed.unwrap_or(film.changed);
    if film.moving {
        let moving = || heats().filter(|heat| heat.changes(now));
        film.rate = moving().map(Heat::rate).fold(0.0, f64::max);
        film.churn = moving()
            .map(|heat| heat.rate() * heat.span.intersection(film.area).pixels() as f64)
            .sum();
    }
}

impl Film {
    /// When it will have been still for so long that it pauses, if nothing changes.
    pub(crate) fn still_at(&self) -> Instant {
        // A moment later, as it changes for as long as this is not over.
        self.changed + STILL + Duration::from_millis(1)
    }
}

/// Whether two rectangles show the same film: they have most of the smaller one in common.
fn is_same(film: Rect, hot: Rect) -> bool {
    let common = film.intersection(hot).pixels();
    let moved = !film.contains(hot) && !hot.contains(film) && common * 10 < film.pixels() * 9;
    common * 2 >= film.pixels().min(hot.pixels()) && !moved
}

/// Whether two rectangles have a part of an edge in common.
fn adjoins(a: Rect, b: Rect) -> bool {
    let overlap = |from_a: i32, to_a: i32, from_b: i32, to_b: i32| from_a < to_b && from_b < to_a;
    let beside = a.right == b.left || b.right == a.left;
    let above = a.bottom == b.top || b.bottom == a.top;
    (beside && overlap(a.top, a.bottom, b.top, b.bottom))
        || (above && overlap(a.left, a.right, b.left, b.right))
}

fn is_film_sized(area: Rect) -> bool {
    let sides = [area.width(), area.height()];
    area.width() >= LEAST_WIDTH
        && area.height() >= LEAST_HEIGHT
        && area.pixels() >= LEAST_PIXELS
        && sides.iter().all(|&side| side <= MAX_SIDE)
}

#[cfg(test)]
mod tests;
