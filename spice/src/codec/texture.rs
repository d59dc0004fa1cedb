//! What kind of picture pixels are, as far as it matters for the choice of a codec.

use std::ops::Range;

use super::Pixels;
use crate::geometry::Rect;

/// Rows and columns between two samples: enough to judge, and a hundredth of the work of encoding.
const GRID: usize = 11;
/// The same where less than a whole piece is judged.
const FINE_GRID: usize = 4;
/// A difference in one channel above which two neighbours are two things: text and its ground.
const CONTRAST: u8 = 60;
/// Hundredths that a pair of neighbours which differ a little scores, and that all score on average at most.
const GRADUAL: i64 = -25;
const ENOUGH: i64 = -3;
/// Pixels across and down a block, of which parts are made.
const BLOCK: usize = 32;
/// Pixels of a part that is worth an image of its own, and of what is left then.
const LEAST_PART: u64 = 4096;
const LEAST_REST: u64 = 1024;

/// Whether neighbours differ mostly a little, as in photographs and gradients, so that predicting a
/// pixel from its neighbours pays more than looking for repetitions.
pub(crate) fn is_gradual(pixels: &Pixels) -> bool {
    let (columns, rows) = (0..pixels.width as usize, 0..pixels.height as usize);
    are_gradual(pixels, columns, rows, GRID)
}

/// Parts of a piece that are worth images of their own, as each takes another codec: of a page with a
/// photograph the page around it, and the photograph as the last one. Mostly all is one part. From each part
/// on, those that are left make a rectangle.
pub(crate) fn parts(pixels: &Pixels) -> Vec<Rect> {
    let whole = Rect::of_size(pixels.size());
    let Some(photograph) = photograph(pixels, whole) else {
        return vec![whole];
    };
    let page = whole.around(photograph).into_iter();
    let page = page.filter(|part| !part.is_empty());
    page.chain([photograph]).collect()
}

/// The photograph in a piece of which the rest is none, to the pixel.
fn photograph(pixels: &Pixels, whole: Rect) -> Option<Rect> {
    let found = grown(pixels, whole, Blocks::of(pixels).largest()?);
    let rest = whole.pixels() - found.pixels();
    let least_rest = LEAST_REST.max(found.pixels() / 8);
    (found.pixels() >= LEAST_PART && rest >= least_rest).then_some(found)
}

/// Whether neighbours in these columns and rows differ mostly a little, by samples so far apart.
fn are_gradual(pixels: &Pixels, columns: Range<usize>, rows: Range<usize>, step: usize) -> bool {
    let width = pixels.width as usize;
    // Hundredths: equal neighbours speak for repetitions, and contrasts still more.
    let mut score = 0i64;
    let mut pairs = 0i64;
    let across = 2 * columns.clone().step_by(step).len() as i64;
    let mut left = rows.clone().step_by(step).len() as i64 * across;
    for y in rows.step_by(step) {
        let row = pixels.data.get(y * width..).unwrap_or_default();
        let Some((row, below)) = row
            .split_at_checked(width)
            .filter(|(_, below)| !below.is_empty())
        else {
            break;
        };
        for x in columns.clone().step_by(step) {
            let (Some(&right), Some(&below)) = (row.get(x + 1), below.get(x)) else {
                break;
            };
            for neighbour in [right, below] {
                pairs += 1;
                score += match difference(row[x], neighbour) {
                    0 => 50,
                    1..=CONTRAST => GRADUAL,
                    _ => 100,
                };
            }
        }
        left -= across;
        // Whatever the others are.
        if score + left * GRADUAL >= ENOUGH * (pairs + left) {
            return false;
        }
    }
    score < ENOUGH * pairs
}

/// The largest difference of a channel.
fn difference(a: u32, b: u32) -> u8 {
    let (a, b) = (a.to_le_bytes(), b.to_le_bytes());
    std::iter::zip(a, b)
        .map(|(a, b)| a.abs_diff(b))
        .max()
        .unwrap_or(0)
}

/// Which blocks of a piece are gradual.
struct Blocks {
    columns: usize,
    gradual: Vec<bool>,
}

impl Blocks {
    fn of(pixels: &Pixels) -> Self {
        let (width, height) = (pixels.width as usize, pixels.height as usize);
        let starts = |end: usize| (0..end).step_by(BLOCK);
        let block = |y: usize, x: usize| {
            let (columns, rows) = (x..(x + BLOCK).min(width), y..(y + BLOCK).min(height));
            are_gradual(pixels, columns, rows, FINE_GRID)
        };
        Self {
            columns: width.div_ceil(BLOCK),
            gradual: starts(height)
                .flat_map(|y| starts(width).map(move |x| (y, x)))
                .map(|(y, x)| block(y, x))
                .collect(),
        }
    }

    /// Around the most gradual blocks that hang together, in pixels; `None` if they fill less than three
    /// quarters of that.
    fn largest(mut self) -> Option<Rect> {
        let (mut most, mut around) = (0, Rect::default());
        let mut front = Vec::new();
        for start in 0..self.gradual.len() {
            let (mut count, mut area) = (0, Rect::default());
            self.visit(start, &mut front);
            while let Some(index) = front.pop() {
                count += 1;
                area = area.union(self.area(index));
                let column = index % self.columns;
                if column > 0 {
                    self.visit(index - 1, &mut front);
                }
                if column + 1 < self.columns {
                    self.visit(index + 1, &mut front);
                }
                self.visit(index + self.columns, &mut front);
                if let Some(above) = index.checked_sub(self.columns) {
                    self.visit(above, &mut front);
                }
            }
            if count > most {
                (most, around) = (count, area);
            }
        }
        let filled = most * (BLOCK * BLOCK) as u64;
        (most > 0 && filled * 4 >= around.pixels() * 3).then_some(around)
    }

    /// Puts a block into the front if it is gradual and was not there before.
    fn visit(&mut self, index: usize, front: &mut Vec<usize>) {
        if self.gradual.get_mut(index).is_some_and(std::mem::take) {
            front.push(index);
        }
    }

    fn area(&self, index: usize) -> Rect {
        let edge = |n: usize| i32::try_from(n * BLOCK).unwrap_or(i32::MAX);
        let (column, row) = (index % self.columns, index / self.columns);
        Rect {
            left: edge(column),
            top: edge(row),
            right: edge(column + 1),
            bottom: edge(row + 1),
        }
    }
}

/// The part of the piece that begins with these blocks, and goes on as long as its lines are gradual, up to
/// the next blocks' ends.
fn grown(pixels: &Pixels, whole: Rect, blocks: Rect) -> Rect {
    let mut part = blocks.intersection(whole);
    // What a block is taken for does not say where in it a photograph ends.
    let mut step = |side: fn(&mut Rect) -> &mut i32, by: i32| {
        for _ in 1..BLOCK {
            let mut more = part;
            *side(&mut more) += by;
            let line = more.without(part);
            let span = |from: i32, to: i32| from as usize..to as usize;
            let (columns, rows) = (span(line.left, line.right), span(line.top, line.bottom));
            if !whole.contains(more) || !are_gradual(pixels, columns, rows, FINE_GRID) {
                break;
            }
            part = more;
        }
    };
    step(|rect| &mut rect.left, -1);
    step(|rect| &mut rect.right, 1);
    step(|rect| &mut rect.top, -1);
    step(|rect| &mut rect.bottom, 1);
    part
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(pixel: impl Fn(u32, u32) -> u32) -> Pixels {
        let bytes: Vec<u8> = (0..100 * 100)
            .flat_map(|i| pixel(i % 100, i / 100).to_le_bytes())
            .collect();
        Pixels::new(100, 100, &bytes).expect("the size is right")
    }

    #[test]
    fn a_gradient_is_gradual() {
        assert!(is_gradual(&picture(|x, y| x * 0x0202 + y * 0x0001_0000)));
    }

    #[test]
    fn flat_ground_with_letters_is_not() {
        assert!(!is_gradual(&picture(|x, y| if x % 7 < 2 && y % 9 < 6 {
            0x00ff_ffff
        } else {
            0
        })));
    }

    #[test]
    fn noise_is_not() {
        assert!(!is_gradual(&picture(|x, y| (x * 7919 + y * 104_729)
            .wrapping_mul(2_654_435_761)
            >> 8)));
    }

    /// A photograph of this size and place on paper with letters.
    fn page(photograph: Rect) -> Pixels {
        let pixel = |x: u32, y: u32| {
            let (inside_x, inside_y) = (x as i32 - photograph.left, y as i32 - photograph.top);
            let across = (0..photograph.width() as i32).contains(&inside_x);
            match across && (0..photograph.height() as i32).contains(&inside_y) {
                true => (x / 2) | (y / 2) << 8 | ((x * 31 + y * 17) % 29) << 16,
                false if x % 7 < 2 && y % 9 < 6 => 0,
                false => 0x00ff_ffff,
            }
        };
        let bytes: Vec<u8> = (0..300 * 200)
            .flat_map(|i| pixel(i % 300, i / 300).to_le_bytes())
            .collect();
        Pixels::new(300, 200, &bytes).expect("the size is right")
    }

    #[test]
    fn a_photograph_on_a_page_is_a_part_of_its_size() {
        let photograph = Rect {
            left: 45,
            top: 20,
            right: 228,
            bottom: 171,
        };

        let parts = parts(&page(photograph));

        let part = parts.last().expect("there is one");
        let off = [
            part.left - photograph.left,
            part.top - photograph.top,
            part.right - photograph.right,
            part.bottom - photograph.bottom,
        ];
        assert!(off.iter().all(|edge| edge.abs() <= 1), "{part:?}");
        let pixels: u64 = parts.iter().copied().map(Rect::pixels).sum();
        assert_eq!(pixels, 300 * 200);
        for left in 0..parts.len() {
            let pixels: u64 = parts[left..].iter().copied().map(Rect::pixels).sum();
            let around = parts[left..].iter().copied().reduce(Rect::union);
            assert_eq!(around.map(Rect::pixels), Some(pixels));
        }
    }

    #[test]
    fn a_page_and_a_photograph_alone_are_one_part() {
        let whole = Rect {
            left: 0,
            top: 0,
            right: 300,
            bottom: 200,
        };
        assert_eq!(parts(&page(Rect::default())), [whole]);
        assert_eq!(parts(&page(whole)), [whole]);
    }

    #[test]
    fn a_single_row_or_column_is_not() {
        for (width, height) in [(1, 50), (50, 1), (1, 1)] {
            let bytes = vec![7; (width * height * 4) as usize];
            assert!(!is_gradual(
                &Pixels::new(width, height, &bytes).expect("the size is right")
            ));
        }
    }
}
