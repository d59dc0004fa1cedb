//! Finding what a drawing only moved.
//!
//! Drivers send a scrolled text or a dragged window as new pixels, though most of them were on the
//! surface before, at another place. Here a drawing is compared with the surface before it is drawn;
//! if much is different, distinctive runs of the new pixels are looked for among the old ones. If
//! many are found the same distance away, that rectangle is copied on the surface, clients are told
//! to copy it too, and what the copy does not explain is drawn as ever. So a wrong guess costs some
//! pixels and makes none wrong.
//!
//! Rows of the surface are looked at [`STEP`] apart only, for runs from as many consecutive rows of
//! the drawing: whatever the distance, one of them meets a row that is looked at.

use caraway_spice::{Point, Rect};

use super::memory::KEPT;
use super::{Canvas, Region, difference};

/// Different pixels that are worth a search: a square of 64.
const LEAST_CHANGE: usize = 64 * 64;
/// Found pixels, not counting plain ones, that are worth a copy however little is drawn.
const LEAST_GAIN: u64 = 1024;
/// Pixels of a run that is looked for.
const RUN: usize = 24;
/// Changes of colour in a run that make it distinctive.
const LEAST_EDGES: u32 = 4;
/// Runs of a row from which the most distinctive is taken.
const TRIES: usize = 48;
/// Rows from one that is looked at to the next.
const STEP: usize = 8;
/// Places of the drawing from which runs are taken.
const PLACES: usize = 12;
/// A run that is found at more places says nothing, and is not looked for any longer.
const RARE: usize = 8;
/// Distances that are tried.
const TRIED: usize = 4;
/// Pixels that are compared at once when a distance is tried.
const PIECE: usize = 32;
/// Searches in vain before there is a pause, which is longer after each, and drawings that it takes at most.
const PATIENCE: u32 = 2;
const LONGEST_PAUSE: u32 = 7;

/// What a drawing makes different.
#[derive(Default)]
pub(super) struct Draft {
    /// At most one for each row of each rectangle.
    spans: Vec<Span>,
    /// Of the spans, and what is between them: at least as many as the surface has, of which those from `end` on
    /// mean nothing. What no drawing has needed yet is no memory either.
    pixels: Vec<u32>,
    end: usize,
    /// Different pixels.
    changed: usize,
    /// What a copy's target is to hold.
    target: Vec<u32>,
    vain: Vain,
}

/// Where moves were looked for in vain, one drawing after the other, as in a film. There only some drawings are
/// looked at, until one of them has a move; the others are put on the surface as they come.
#[derive(Default)]
struct Vain {
    area: Rect,
    /// Searches.
    times: u32,
    /// Drawings that are not looked at before the next one is.
    pause: u32,
}

impl Vain {
    fn searched(&mut self, region: &Region, found: bool) {
        let area = region.bounds().unwrap_or_default();
        if found || area != self.area {
            *self = Self {
                area,
                ..Self::default()
            };
        }
        if !found {
            self.times = self.times.saturating_add(1);
            self.pause = self.times.saturating_sub(PATIENCE).min(LONGEST_PAUSE);
        }
    }
}

/// Consecutive pixels of a row.
struct Span {
    x: u32,
    y: u32,
    start: usize,
    len: usize,
}

impl Span {
    fn area(&self) -> Rect {
        Rect {
            left: self.x as i32,
            top: self.y as i32,
            right: (self.x + self.len as u32) as i32,
            bottom: self.y as i32 + 1,
        }
    }
}

/// A distance to the right and down, and how much of a drawing it explains.
struct Explanation {
    distance: (i64, i64),
    gain: u64,
    to: Rect,
}

/// A run of pixels of the drawing.
struct Run<'a> {
    hash: u32,
    x: u32,
    y: u32,
    pixels: &'a [u32],
}

impl Canvas {
    /// Like [`paint`](Self::paint), but what was only moved is told as a copy. All of `region` is on the surface.
    pub(super) fn paint_moved(
        &mut self,
        mut draft: Box<Draft>,
        region: &Region,
        distance: Option<(i64, i64)>,
        mut source: impl FnMut(u32, u32, &mut [u32]) -> bool,
    ) {
        draft.clear(self.pixels.len());
        region.visit(|rect| {
            let (left, width) = (rect.left as u32, rect.width());
            for y in rect.top as u32..rect.bottom as u32 {
                if !source(left, y, draft.next_row(width as usize)) {
                    return false;
                }
                draft.note(left, y, self.row(left, y, width).unwrap_or_default());
            }
            true
        });
        let found = match distance {
            Some(distance) => Some(draft.explain(self, distance)),
            None => draft.find(self),
        };
        let found = found.filter(|found| draft.is_much(found));
        if distance.is_none() && draft.changed >= LEAST_CHANGE {
            draft.vain.searched(region, found.is_some());
        }
        if let Some(found) = found {
            self.move_pixels(&mut draft, &found);
        }
        for span in &draft.spans {
            self.put_row(span.x, span.y, draft.of(span));
        }
        self.draft = Some(draft);
    }

    /// Copies pixels on the surface, and puts what the drawing has otherwise at the copy's target.
    fn move_pixels(&mut self, draft: &mut Draft, found: &Explanation) {
        let (to, (dx, dy)) = (found.to, found.distance);
        let (left, top, width) = (to.left as u32, to.top as u32, to.width());
        let mut target = std::mem::take(&mut draft.target);
        for y in top..to.bottom as u32 {
            target.extend(self.row(left, y, width).unwrap_or_default());
        }
        for span in &draft.spans {
            let start = span.x.max(left);
            let end = (span.x + span.len as u32).min(to.right as u32);
            if span.y < top || start >= end {
                continue;
            }
            let new = &draft.of(span)[(start - span.x) as usize..(end - span.x) as usize];
            let at = (span.y - top) as usize * width as usize + (start - left) as usize;
            if let Some(place) = target.get_mut(at..at + new.len()) {
                place.copy_from_slice(new);
            }
        }
        // The rectangle's pieces that were found are all on the surface, and so is it.
        let from = Point {
            x: (i64::from(to.left) - dx) as i32,
            y: (i64::from(to.top) - dy) as i32,
        };
        let mut copy_row = |row: u32| {
            let source = self.range(from.x as u32, from.y as u32 + row, width);
            let place = self.range(left, top + row, width);
            if let Some((source, place)) = source.zip(place) {
                self.pixels.copy_within(source, place.start);
            }
        };
        // A row must be read before it is written.
        if dy > 0 {
            (0..to.height()).rev().for_each(&mut copy_row);
        } else {
            (0..to.height()).for_each(&mut copy_row);
        }
        for row in 0..to.height() {
            self.drawn.add(left, top + row, width);
        }
        self.damage.copied(from, to);
        for (y, row) in (top..).zip(target.chunks_exact(width as usize)) {
            self.put_row(left, y, row);
        }
        draft.target = target;
    }
}

impl Draft {
    /// One whose pixels are kept where those of another were.
    pub(super) fn in_memory(pixels: Vec<u32>) -> Self {
        Self {
            pixels,
            ..Self::default()
        }
    }

    pub(super) fn into_memory(self) -> Vec<u32> {
        self.pixels
    }

    /// Whether moves are looked for in a drawing.
    pub(super) fn looks_at(&mut self, region: &Region) -> bool {
        let area = region.bounds().unwrap_or_default();
        if area.pixels() < LEAST_CHANGE as u64 {
            return false;
        }
        let pauses = self.vain.area == area && self.vain.pause > 0;
        self.vain.pause -= u32::from(pauses);
        !pauses
    }

    /// Makes it one of a drawing on a surface of so many pixels.
    fn clear(&mut self, surface: usize) {
        if self.pixels.len() < surface || self.end > KEPT {
            self.pixels = vec![0; surface];
        }
        self.spans.clear();
        (self.end, self.changed) = (0, 0);
        self.target.clear();
        self.target.shrink_to(KEPT);
    }

    /// Where a row of new pixels is put before it is noted.
    fn next_row(&mut self, width: usize) -> &mut [u32] {
        &mut self.pixels[self.end..self.end + width]
    }

    /// Takes the next row, which goes to row `y` from `x` on, if it is not what is there.
    fn note(&mut self, x: u32, y: u32, old: &[u32]) {
        let new = &self.pixels[self.end..self.end + old.len()];
        // Most rows of most drawings are, and a whole row is compared fastest.
        if old == new {
            return;
        }
        let (old_pieces, old_rest) = old.as_chunks::<PIECE>();
        let (new_pieces, new_rest) = new.as_chunks::<PIECE>();
        let mut pieces = std::iter::zip(old_pieces, new_pieces);
        let first = pieces.position(|(old, new)| difference(old, new) != 0);
        let last = pieces.rposition(|(old, new)| difference(old, new) != 0);
        let rest = old_rest != new_rest;
        let whole = new_pieces.len();
        let Some(first) = first.or(rest.then_some(whole)) else {
            return;
        };
        let start = first * PIECE;
        let end = match last {
            _ if rest => new.len(),
            Some(last) => (first + 2 + last) * PIECE,
            None => start + PIECE,
        };
        self.spans.push(Span {
            x: x + start as u32,
            y,
            start: self.end + start,
            len: end - start,
        });
        self.changed += end - start;
        self.end += end;
    }

    fn of(&self, span: &Span) -> &[u32] {
        &self.pixels[span.start..span.start + span.len]
    }

    /// The copy on `canvas` that explains most of the drawing.
    fn find(&self, canvas: &Canvas) -> Option<Explanation> {
        if self.changed < LEAST_CHANGE {
            return None;
        }
        let runs = self.runs();
        let mut distances = self.distances(canvas, &runs);
        distances.sort_unstable_by_key(|&(_, votes)| std::cmp::Reverse(votes));
        // A few rows tell the right distance from the others, and mostly that there is none.
        let tried = distances.iter().take(TRIED);
        let samples = tried.map(|&(distance, _)| self.explain_some(canvas, distance, STEP));
        let best = samples.max_by_key(|sample| sample.gain)?;
        (best.gain * 2 * STEP as u64 >= self.least_gain())
            .then(|| self.explain(canvas, best.distance))
    }

    /// Whether this explains enough of the drawing.
    fn is_much(&self, explanation: &Explanation) -> bool {
        explanation.gain >= self.least_gain()
    }

    /// Found pixels, not counting plain ones, that are enough of the drawing.
    fn least_gain(&self) -> u64 {
        LEAST_GAIN.max(self.changed as u64 / 16)
    }

    /// Distinctive runs from different places, in the order of their hashes, each hash once.
    fn runs(&self) -> Vec<Run<'_>> {
        let places = (self.spans.len() / STEP).min(PLACES);
        let last = self.spans.len().saturating_sub(STEP);
        let firsts = (0..places).map(|place| last * place / (places - 1).max(1));
        let spans = firsts.flat_map(|first| &self.spans[first..first + STEP]);
        let mut runs: Vec<Run<'_>> = spans.filter_map(|span| self.run(span)).collect();
        runs.sort_unstable_by_key(|run| run.hash);
        runs.dedup_by_key(|run| run.hash);
        runs
    }

    /// The most distinctive run of a row.
    fn run(&self, span: &Span) -> Option<Run<'_>> {
        let pixels = self.of(span);
        let step = (pixels.len() / TRIES).max(RUN / 4);
        let edges = |at: &usize| pixels[*at..].first_chunk().map_or(0, edges);
        let last = pixels.len().checked_sub(RUN)?;
        let at = (0..=last).step_by(step).max_by_key(edges)?;
        let run = &pixels[at..at + RUN];
        (edges(&at) >= LEAST_EDGES).then(|| Run {
            hash: hash(run),
            x: span.x + at as u32,
            y: span.y,
            pixels: run,
        })
    }

    /// How far away from its old place each rare run is found, and how often.
    fn distances(&self, canvas: &Canvas, runs: &[Run<'_>]) -> Vec<((i64, i64), usize)> {
        let mut finds: Vec<Vec<(i64, i64)>> = vec![Vec::new(); runs.len()];
        // A bit for each possible value of the hash's highest bits.
        let mut possible = [0_u64; 64];
        let bit = |hash: u32| ((hash >> 26) as usize, hash >> 20 & 63);
        for run in runs {
            let (word, bit) = bit(run.hash);
            possible[word] |= 1 << bit;
        }
        let bounds = self.spans.iter().map(Span::area);
        let bounds = bounds.reduce(Rect::union).unwrap_or_default();
        let left = bounds.left as u32;
        for y in (bounds.top as u32..bounds.bottom as u32).step_by(STEP) {
            let row = canvas.row(left, y, bounds.width()).unwrap_or_default();
            let Some(first) = row.get(..RUN) else { break };
            let mut rolling = hash(first);
            let mut next = row.iter().zip(&row[RUN..]);
            for x in left.. {
                let ((word, bit), start) = (bit(rolling), (x - left) as usize);
                if possible[word] >> bit & 1 == 1
                    && let Ok(found) = runs.binary_search_by_key(&rolling, |run| run.hash)
                    && row.get(start..start + RUN) == Some(runs[found].pixels)
                {
                    let apart = |new: u32, old: u32| i64::from(new) - i64::from(old);
                    finds[found].push((apart(runs[found].x, x), apart(runs[found].y, y)));
                    if finds[found].len() > RARE {
                        finds[found].clear();
                        possible[word] &= !(1 << bit);
                    }
                }
                let Some((out, new)) = next.next() else { break };
                rolling = roll(rolling, *out, *new);
            }
        }
        let mut distances: Vec<(i64, i64)> = finds.concat();
        distances.retain(|&distance| distance != (0, 0));
        distances.sort_unstable();
        let same = distances.chunk_by(|a, b| a == b);
        same.filter_map(|votes| Some((*votes.first()?, votes.len())))
            .collect()
    }

    /// What of the drawing was on `canvas` so far to the left and up. Plain pieces are found
    /// anywhere, and do not count.
    fn explain(&self, canvas: &Canvas, distance: (i64, i64)) -> Explanation {
        self.explain_some(canvas, distance, 1)
    }

    /// The same of one row in `step`.
    fn explain_some(&self, canvas: &Canvas, distance: (i64, i64), step: usize) -> Explanation {
        let (mut gain, mut to) = (0, Rect::default());
        for span in self.spans.iter().step_by(step) {
            let (before, old) = canvas.part_of_row(
                i64::from(span.x) - distance.0,
                i64::from(span.y) - distance.1,
                span.len,
            );
            // From the first piece on whose old place is all on the surface.
            let skipped = before.next_multiple_of(PIECE);
            let old = old.get(skipped - before..).unwrap_or_default();
            let new = self.of(span).get(skipped..).unwrap_or_default();
            let mut compare = |at: usize, old: &[u32], new: &[u32]| {
                if difference(old, new) == 0 && !is_plain(new) {
                    let left = span.x as usize + skipped + at;
                    gain += new.len() as u64;
                    to = to.union(Rect {
                        left: left as i32,
                        top: span.y as i32,
                        right: (left + new.len()) as i32,
                        bottom: span.y as i32 + 1,
                    });
                }
            };
            // Pieces of a length that is known are compared fastest.
            let (old_pieces, old_rest) = old.as_chunks::<PIECE>();
            let (new_pieces, new_rest) = new.as_chunks::<PIECE>();
            for (piece, (old, new)) in std::iter::zip(old_pieces, new_pieces).enumerate() {
                compare(piece * PIECE, old, new);
            }
            if old.len() == new.len() {
                compare(new_pieces.len() * PIECE, old_rest, new_rest);
            }
        }
        Explanation { distance, gain, to }
    }
}

/// Changes of colour.
fn edges(run: &[u32; RUN]) -> u32 {
    let pairs = std::iter::zip(run, &run[1..]);
    pairs.map(|(a, b)| u32::from(a != b)).sum()
}

/// Whether all of it has one colour.
fn is_plain(piece: &[u32]) -> bool {
    let first = piece.first().copied().unwrap_or_default();
    piece.iter().fold(0, |bits, pixel| bits | (pixel ^ first)) == 0
}

/// The factor of a polynomial hash (2³² divided by the golden ratio, odd).
const FACTOR: u32 = 0x9e37_79b1;

fn hash(run: &[u32]) -> u32 {
    let step = |hash: u32, &pixel: &u32| hash.wrapping_mul(FACTOR).wrapping_add(pixel);
    run.iter().fold(0, step)
}

/// The hash of a run that begins and ends a pixel later.
fn roll(hash: u32, out: u32, new: u32) -> u32 {
    const OLDEST: u32 = FACTOR.wrapping_pow(RUN as u32);
    hash.wrapping_mul(FACTOR)
        .wrapping_add(new)
        .wrapping_sub(out.wrapping_mul(OLDEST))
}

#[cfg(test)]
mod tests;
