//! Lines and curves.

use caraway_spice::Point;
use zerocopy::FromBytes;

use super::wire::{self, FixedPoint};
use super::{Chunks, CommandError, MAX_SHAPES, some};
use crate::canvas::{Dashes, Line};
use crate::device::{GuestAddress, Slots};

// `SpicePathFlags`, spice-protocol `enums.h`.
const BEGIN: u32 = 1;
const END: u32 = 1 << 1;
const CLOSE: u32 = 1 << 3;
const BEZIER: u32 = 1 << 4;

// `SpiceLineFlags`.
const START_WITH_GAP: u8 = 1 << 2;
const STYLED: u8 = 1 << 3;

/// The most points that the lines of a path have once its curves are lines.
const MAX_POINTS: usize = 1 << 17;

/// How often a piece of a curve is halved at most.
const MAX_HALVINGS: usize = 40;

/// The lines of the `QXLPath` at `address`.
pub(super) fn lines(slots: &Slots, address: GuestAddress) -> Result<Vec<Line>, CommandError> {
    let chunks = address.plus(4);
    let data = Chunks::whole(slots, chunks, "bytes of a path", MAX_SHAPES)?;
    let mut path = Path::default();
    let mut rest = data.as_slice();
    while let Ok((segment, after)) = wire::PathSegment::read_from_prefix(rest) {
        let (flags, count) = (segment.flags.get(), segment.count.get());
        let Ok((points, after)) = <[FixedPoint]>::ref_from_prefix_with_elems(after, count as usize)
        else {
            let (found, expected) = (after.len() as u64, u64::from(count) * 8);
            return Err(CommandError::Short { found, expected });
        };
        path.segment(flags, points);
        CommandError::at_most("points of a path", path.points as u64, MAX_POINTS as u64)?;
        rest = after;
    }
    path.finish();
    Ok(path.lines)
}

/// The dashes that a stroke asks for, if it does.
pub(super) fn dashes(slots: &Slots, stroke: &wire::Stroke) -> Result<Option<Dashes>, CommandError> {
    let address = some(stroke.dash_lengths.get());
    let Some(address) = address.filter(|_| stroke.flags & STYLED != 0) else {
        return Ok(None);
    };
    let mut bytes = vec![0; usize::from(stroke.dashes) * 4];
    slots
        .resolve(address, bytes.len() as u64)?
        .read(0, &mut bytes)?;
    let lengths = bytes.as_chunks().0.iter();
    let mut lengths: Vec<u8> = lengths
        .map(|length| whole(i32::from_le_bytes(*length)) as u8)
        .collect();
    let mut start = 0;
    if stroke.flags & START_WITH_GAP != 0 && !lengths.is_empty() {
        // What comes first comes last, and all that comes before it is over.
        lengths.rotate_left(1);
        start = u32::from(lengths[0]);
    }
    let dashes = Dashes::new(lengths, start);
    dashes
        .map(Some)
        .ok_or(CommandError::Unsupported("dashes of no length"))
}

/// The pixel nearest to a fixed-point coordinate; in the middle between two, the lesser one.
const fn whole(fixed: i32) -> i32 {
    (fixed >> 4) + if fixed & 15 > 8 { 1 } else { 0 }
}

/// Lines that are being put together.
#[derive(Default)]
struct Path {
    lines: Vec<Line>,
    current: Line,
    points: usize,
}

impl Path {
    fn segment(&mut self, flags: u32, points: &[FixedPoint]) {
        let mut points = points.iter().map(|point| (point.x.get(), point.y.get()));
        if flags & BEGIN != 0 {
            self.finish();
            if let Some((x, y)) = points.next() {
                self.add(whole(x), whole(y));
            }
        }
        if flags & BEZIER != 0 {
            while let (Some(first), Some(second), Some(end)) =
                (points.next(), points.next(), points.next())
            {
                self.curve(first, second, end);
            }
        } else {
            points.for_each(|(x, y)| self.add(whole(x), whole(y)));
        }
        if flags & END != 0 {
            if let Some(first) = self.current.first().copied().filter(|_| flags & CLOSE != 0) {
                self.add(first.x, first.y);
            }
            self.finish();
        }
    }

    fn add(&mut self, x: i32, y: i32) {
        if self.points <= MAX_POINTS {
            self.points += 1;
            self.current.push(Point { x, y });
        }
    }

    fn finish(&mut self) {
        let line = std::mem::take(&mut self.current);
        if line.len() > 1 {
            self.lines.push(line);
        }
    }

    /// Adds a Bezier curve from where the line ends, halved until its pieces are as good as
    /// straight.
    fn curve(&mut self, first: (i32, i32), second: (i32, i32), end: (i32, i32)) {
        let Some(start) = self.current.last() else {
            return;
        };
        let wide = |(x, y): (i32, i32)| (i64::from(x), i64::from(y));
        let start = (i64::from(start.x) << 4, i64::from(start.y) << 4);
        let mut pieces = vec![[start, wide(first), wide(second), wide(end)]];
        while let Some(piece) = pieces.pop() {
            if self.points > MAX_POINTS {
                return;
            }
            if is_straight(piece) || pieces.len() > MAX_HALVINGS {
                let (x, y) = piece[3];
                self.add(whole(x as i32), whole(y as i32));
            } else {
                let (left, right) = halves(piece);
                pieces.push(right);
                pieces.push(left);
            }
        }
    }
}

/// A Bezier curve: where it starts, two points that it goes towards, and where it ends.
type Curve = [(i64, i64); 4];

/// Whether both points are less than half a pixel (squared) off the line from start to end.
fn is_straight([start, first, second, end]: Curve) -> bool {
    let minus = |a: (i64, i64), b: (i64, i64)| (a.0 - b.0, a.1 - b.1);
    let wide = |a: i64, b: i64| i128::from(a) * i128::from(b);
    let product = |a: (i64, i64), b: (i64, i64)| (wide(a.0, b.0) + wide(a.1, b.1)) >> 4;
    let base = minus(end, start);
    let length = product(base, base);
    let off = |side: (i64, i64), base: (i64, i64)| {
        let along = product(side, base);
        (product(side, side) * length - along * along) >> 3
    };
    let back = minus(start, end);
    let (first, second) = (
        off(minus(first, start), base),
        off(minus(second, end), back),
    );
    first < length && second < length
}

fn halves([start, first, second, end]: Curve) -> (Curve, Curve) {
    let middle = |a: (i64, i64), b: (i64, i64)| ((a.0 + b.0) / 2, (a.1 + b.1) / 2);
    let (a, b, c) = (
        middle(start, first),
        middle(first, second),
        middle(second, end),
    );
    let (ab, bc) = (middle(a, b), middle(b, c));
    let half = middle(ab, bc);
    ([start, a, ab, half], [half, bc, c, end])
}
