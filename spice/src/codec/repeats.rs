//! Finds what pixels repeat, for the codecs that write copies of earlier pixels (LZ and GLZ).
//!
//! Pictures of windows and text are made of *runs*: neighbours of one colour. What repeats in them are
//! sequences of runs, a row of a glyph or of a frame, while the length of the ground before and after
//! differs. So only the start of a run is looked up and remembered, by the colours of three runs
//! and the lengths of the first two; the runs between are written as copies from one pixel back. This
//! makes a tenth of the look-ups of a search at every pixel, and finds longer copies with them. In a
//! photograph each pixel is a run, and this is then the common search by three pixels.

mod table;

pub(super) use table::Table;

/// How much is done for a place …
const USUAL: Effort = Effort {
    looks: 8,
    enough: 24,
};
/// … and for one of an image that had fewer looks than it has [`EARNED`]. In a film that pays: the picture that
/// repeats was a while ago, and the longer a copy, the fewer searches.
const LARGE: Effort = Effort {
    looks: 64,
    enough: 64,
};
/// Pixels that earn a look. So a simple image gets the best copies, and any other takes hardly longer.
const EARNED: usize = 8;
/// After `1 << this` vain searches in a row, every second run is looked up, and so on.
const SKIP_SHIFT: u32 = 7;
/// Of the pixels of a copy, the runs at the start of each block of so many are remembered, …
const BLOCK: usize = 512;
/// … so many of them: what is inside of a copy can be found at its source, too.
const KEPT: usize = 8;
/// Distances of the last copies, which are tried first: what moved as a whole was cut by little.
const RECENT: usize = 2;
/// Bits of one pixel that is written as its colour.
pub(super) const COLOUR_BITS: usize = 25;

/// How much is done to find the best copy of those that there are.
struct Effort {
    /// Sightings that are looked at: more are hardly ever better where three pixels say little of what follows, as in
    /// a gradient, and most are in memory that no cache has.
    looks: usize,
    /// They are compared until they had so many pixels in common together: in a text the first is mostly as good
    /// as any.
    enough: usize,
}

/// Writes one form of the stream.
pub(super) trait Form {
    /// Bits of one pixel that is written as it is.
    const LITERAL_BITS: usize;

    /// The farthest place that a copy may come from.
    fn reach(&self) -> usize;
    /// Whether it may come from there at all.
    fn knows(&self, at: usize, distance: usize) -> bool;
    /// Bits of a copy, `None` if the form has no word for it.
    fn cost(&self, at: usize, distance: usize, length: usize) -> Option<usize>;
    /// Writes pixels as they are; there may be none.
    fn literals(&mut self, pixels: &[u32]);
    /// Writes that the `length` pixels from `at` on are those from `distance` before.
    fn copy(&mut self, at: usize, distance: usize, length: usize);
}

/// The starts of this run and of the next three.
#[derive(Debug)]
struct Runs([usize; 4]);

impl Runs {
    fn new(pixels: &[u32], start: usize) -> Self {
        let mut runs = Self([start; 4]);
        for _ in 1..4 {
            runs.advance(pixels);
        }
        runs
    }

    fn start(&self) -> usize {
        self.0[0]
    }

    fn length(&self) -> usize {
        self.0[1] - self.0[0]
    }

    fn advance(&mut self, pixels: &[u32]) {
        let last = self.0[3];
        let rest = &pixels[last.min(pixels.len())..];
        let same = rest.get(1..).map_or(0, |after| 1 + common(rest, after));
        self.0 = [self.0[1], self.0[2], last, last + same];
    }

    /// Goes on at the first run that starts there or later, if this is before it.
    fn leap(&mut self, pixels: &[u32], place: usize) {
        if self.start() >= place {
            return;
        }
        *self = Self::new(pixels, place);
        if pixels.get(place) == pixels.get(place - 1) {
            self.advance(pixels);
        }
    }

    fn key(&self, pixels: &[u32]) -> u64 {
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        let colour = |index: usize| u64::from(pixels.get(self.0[index]).copied().unwrap_or(!0));
        let length = |index: usize| (self.0[index + 1] - self.0[index]).min(255) as u64;
        let first = (colour(0) | colour(1) << 32).wrapping_mul(ODD);
        let second = first ^ (colour(2) | length(0) << 32 | length(1) << 48);
        (second ^ second >> 29).wrapping_mul(ODD)
    }
}

#[derive(Debug, Clone, Copy)]
struct Copy {
    distance: usize,
    length: usize,
    /// Bits that it saves.
    gain: usize,
}

impl Copy {
    fn new<F: Form>(form: &F, at: usize, distance: usize, length: usize) -> Option<Self> {
        let cost = form.cost(at, distance, length)?;
        let gain = (length * F::LITERAL_BITS).checked_sub(cost)?;
        (gain > 0).then_some(Self {
            distance,
            length,
            gain,
        })
    }
}

/// The best copy of those that were looked at.
#[derive(Debug, Default)]
struct Best {
    copy: Option<Copy>,
    /// Pixels that those had in common with this place, together.
    compared: usize,
}

impl Best {
    fn length(&self) -> usize {
        self.copy.map_or(0, |copy| copy.length)
    }

    fn compare(&mut self, pixels: &[u32], form: &impl Form, here: usize, distance: usize) {
        let (there, longest) = (here - distance, self.length());
        // One that is longer has this pixel in common, too.
        let (Some(a), Some(b)) = (pixels.get(there + longest), pixels.get(here + longest)) else {
            return;
        };
        if a != b || !form.knows(here, distance) {
            return;
        }
        let length = common(&pixels[there..], &pixels[here..]);
        self.compared += length;
        if length > longest {
            let copy = Copy::new(form, here, distance, length);
            if copy.map(|copy| copy.gain) > self.copy.map(|best| best.gain) {
                self.copy = copy;
            }
        }
    }
}

/// Writes an image: the pixels from `start` to the end, which may be the same as `distance` before.
pub(super) fn write(
    pixels: &[u32],
    start: usize,
    distance: Option<usize>,
    table: &mut Table,
    form: &mut impl Form,
) {
    table.extend(pixels.len());
    let mut walk = Walk::new(pixels, start, distance);
    while walk.at < pixels.len() {
        walk.catch_up(pixels, table);
        let rest_of_run = walk.runs.start() - walk.at;
        if rest_of_run > 0 {
            walk.put(pixels, form, Copy::new(form, walk.at, 1, rest_of_run));
            walk.at = walk.runs.start();
        } else {
            walk.put_run(pixels, table, form);
        }
    }
    form.literals(&pixels[walk.literals..]);
}

/// How far writing an image has come.
#[derive(Debug)]
struct Walk {
    /// Where the image begins.
    start: usize,
    /// Sightings that were looked at.
    looks: usize,
    runs: Runs,
    /// The next pixel to look at.
    at: usize,
    /// The first pixel that is not written yet.
    literals: usize,
    /// Searches that found nothing since one found something.
    vain: usize,
    /// Distances of copies, the newest first; 0 is none.
    recent: [usize; RECENT],
}

impl Walk {
    fn new(pixels: &[u32], start: usize, distance: Option<usize>) -> Self {
        let mut recent = [0; RECENT];
        recent[0] = distance.unwrap_or(0);
        Self {
            start,
            looks: 0,
            runs: Runs::new(pixels, start),
            at: start,
            literals: start,
            vain: 0,
            recent,
        }
    }

    /// Remembers the runs that were passed, of long copies a part.
    fn catch_up(&mut self, pixels: &[u32], table: &mut Table) {
        let mut kept = 0;
        let mut block_end = self.runs.start() + BLOCK;
        while self.runs.start() < self.at {
            table.insert(self.runs.start(), self.runs.key(pixels));
            self.runs.advance(pixels);
            kept += 1;
            if kept >= KEPT {
                self.runs.leap(pixels, block_end.min(self.at));
                kept = 0;
                block_end += BLOCK;
            }
        }
    }

    /// Writes at least the run that begins here: as a copy of something larger, or as its first
    /// pixel and copies of that.
    fn put_run(&mut self, pixels: &[u32], table: &mut Table, form: &mut impl Form) {
        let here = self.at;
        let found = self.search(pixels, table, form);
        let run = self.runs.length();
        let repeat = Copy::new(form, here + 1, 1, run - 1);
        let repeat_gain = repeat.map_or(0, |repeat| repeat.gain);
        self.runs.advance(pixels);
        let found = found.filter(|copy| copy.length > run || copy.gain >= repeat_gain);
        if found.is_some() {
            self.vain = 0;
            self.put(pixels, form, found);
            return;
        }
        self.at += 1;
        self.put(pixels, form, repeat);
        self.at = self.runs.start();
        if repeat.is_none() {
            self.vain += 1;
            self.skip(pixels);
        }
    }

    /// The best copy for what begins with these runs, which are remembered.
    fn search(&mut self, pixels: &[u32], table: &mut Table, form: &impl Form) -> Option<Copy> {
        let here = self.runs.start();
        let key = self.runs.key(pixels);
        table.insert(here, key);
        let mut best = Best::default();
        for distance in self.recent {
            if distance > 0 && distance <= form.reach().min(here) {
                best.compare(pixels, form, here, distance);
            }
        }
        let has_earned = self.looks < (here - self.start) / EARNED;
        let effort = if has_earned { LARGE } else { USUAL };
        let mut seen = table.seen(key).take(effort.looks);
        while best.compared <= effort.enough
            && let Some(seen) = seen.next()
        {
            self.looks += 1;
            let Some(there) = seen else { continue };
            let distance = here - there;
            // The others are farther still.
            if distance > form.reach() {
                break;
            }
            best.compare(pixels, form, here, distance);
        }
        best.copy
    }

    /// Leaves out what is likely to repeat nothing either.
    fn skip(&mut self, pixels: &[u32]) {
        for _ in 0..self.vain >> SKIP_SHIFT {
            if self.runs.length() > 1 {
                break;
            }
            self.runs.advance(pixels);
        }
        self.at = self.runs.start();
    }

    /// Writes a copy, if there is one.
    fn put(&mut self, pixels: &[u32], form: &mut impl Form, copy: Option<Copy>) {
        if let Some(Copy {
            distance, length, ..
        }) = copy
        {
            form.literals(&pixels[self.literals..self.at]);
            form.copy(self.at, distance, length);
            if distance > 1 && self.recent[0] != distance {
                self.recent = [distance, self.recent[0]];
            }
            self.at += length;
            self.literals = self.at;
        }
    }
}

/// How many pixels both begin with.
fn common(a: &[u32], b: &[u32]) -> usize {
    let blocks = std::iter::zip(a.as_chunks::<8>().0, b.as_chunks::<8>().0);
    let equal = blocks.take_while(|(a, b)| a == b).count() * 8;
    let rest = std::iter::zip(&a[equal..], &b[equal..]);
    equal + rest.take_while(|(a, b)| a == b).count()
}

/// The first three bits of a copy in LZ and GLZ: its length, if that is short.
pub(super) fn length_bits(length: usize) -> u8 {
    (length.min(7) << 5) as u8
}

/// Writes what [`length_bits`] leaves: bytes that are summed up to the first that is not 255.
pub(super) fn put_length(out: &mut Vec<u8>, length: usize) {
    if let Some(mut rest) = length.checked_sub(7) {
        while rest >= 255 {
            out.push(255);
            rest -= 255;
        }
        out.push(rest as u8);
    }
}

/// Bits that [`put_length`] writes.
pub(super) fn length_cost(length: usize) -> usize {
    length.checked_sub(7).map_or(0, |rest| 8 + rest / 255 * 8)
}

/// Pixels that one operation can carry as they are.
pub(super) const MAX_LITERALS: usize = 32;

/// Writes pixels as they are, the same way in LZ and GLZ.
pub(super) fn put_literals(out: &mut Vec<u8>, pixels: &[u32]) {
    for run in pixels.chunks(MAX_LITERALS) {
        out.push((run.len() - 1) as u8);
        for pixel in run {
            let [blue, green, red, _] = pixel.to_le_bytes();
            out.extend_from_slice(&[blue, green, red]);
        }
    }
}
