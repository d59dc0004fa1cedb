//! Photographs that a client keeps, and where they come again.
//!
//! LZ and GLZ find by themselves what of a text was there before; QUIC never does. So the client is asked to
//! keep images of photographs (`SPICE_IMAGE_FLAGS_CACHE_ME`), and what of them comes again, as behind a
//! window that was closed or on a page that is scrolled back, is drawn from there: 75 bytes, and nothing to
//! encode. New pixels are cut in other places than those before, so any rectangle of an image may come again at
//! any place.
//!
//! The server has a copy of what the client keeps. In it, every [`RUN`]-th run of [`RUN`] pixels of every
//! [`ROWS`]-th row is an anchor. Of new pixels one block of that size has a run that is an anchor, if they are
//! known; from there on both are compared, to the right and left, up and down.

use std::collections::{BTreeMap, HashMap};

use super::Pixels;
use crate::geometry::{Point, Rect, Size};

/// Pixels of an anchor, and columns from one to the next.
const RUN: usize = 16;
/// Rows from one to the next.
const ROWS: usize = 8;
/// Pixels that are worth to be kept, or to be drawn from what is kept.
const LEAST: usize = 256;
/// Pixels that are kept for one client at most: 16 MiB.
const MOST: usize = 4 << 20;
/// Rectangles that one piece is drawn from at most: a slow link had the images in small pieces.
const MOST_KNOWN: usize = 64;
/// Rectangles of what is not known that these leave at most: four around each, of which one was there before.
pub(crate) const MOST_UNKNOWN: usize = 3 * MOST_KNOWN + 1;
/// Where in a rectangle is looked for an anchor, in quarters of its width and height.
const LOOKS: [(usize, usize); 5] = [(2, 2), (1, 1), (3, 1), (1, 3), (3, 3)];

/// A part of new pixels that the client has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    /// Where in the new pixels.
    pub(crate) part: Rect,
    /// The image that it is in, …
    pub(crate) image: u64,
    /// … the image's size, …
    pub(crate) size: Size,
    /// … and where in the image.
    pub(crate) source: Rect,
}

/// What a client keeps.
#[derive(Debug, Default)]
pub(super) struct Cache {
    /// Pixels that the client has room for.
    most: usize,
    /// Pixels of all images.
    kept: usize,
    images: HashMap<u64, Kept>,
    /// Images and places in them, by what is there. The newest wins.
    anchors: HashMap<u64, (u64, usize, usize)>,
    /// Images by when they were kept or found last.
    by_use: BTreeMap<u64, u64>,
    /// Counts these.
    uses: u64,
}

#[derive(Debug)]
struct Kept {
    pixels: Pixels,
    last_use: u64,
}

impl Cache {
    /// That of a client which has room for so many pixels.
    pub(super) fn new(pixels: usize) -> Self {
        Self {
            most: pixels.min(MOST),
            ..Self::default()
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    /// Whether an image of so many pixels is worth keeping, and can be kept.
    pub(super) fn takes(&self, pixels: usize) -> bool {
        (LEAST..=self.most).contains(&pixels)
    }

    /// Keeps a copy of an image, which takes no more memory than it needs, under a new number. The numbers of those
    /// that have to go first, as they were not used for longest.
    pub(super) fn keep(&mut self, image: u64, pixels: &Pixels) -> Vec<u64> {
        let mut gone = Vec::new();
        while self.kept + pixels.data.len() > self.most
            && let Some(oldest) = self.forget_oldest()
        {
            gone.push(oldest);
        }
        self.kept += pixels.data.len();
        for (x, y, key) in anchors(pixels) {
            self.anchors.insert(key, (image, x, y));
        }
        let kept = Kept {
            pixels: pixels.clone(),
            last_use: 0,
        };
        self.images.insert(image, kept);
        self.used(image);
        gone
    }

    fn used(&mut self, image: u64) {
        let Some(kept) = self.images.get_mut(&image) else {
            return;
        };
        self.uses += 1;
        self.by_use.remove(&kept.last_use);
        self.by_use.insert(self.uses, image);
        kept.last_use = self.uses;
    }

    fn forget_oldest(&mut self) -> Option<u64> {
        let (_, oldest) = self.by_use.pop_first()?;
        let kept = self.images.remove(&oldest)?;
        for (_, _, key) in anchors(&kept.pixels) {
            if self
                .anchors
                .get(&key)
                .is_some_and(|&(image, ..)| image == oldest)
            {
                self.anchors.remove(&key);
            }
        }
        self.kept -= kept.pixels.data.len();
        Some(oldest)
    }

    /// What of a part of new pixels is known, and what is not.
    pub(super) fn find(&mut self, pixels: &Pixels, part: Rect) -> (Vec<Known>, Vec<Rect>) {
        let (mut known, mut unknown) = (Vec::new(), Vec::new());
        let mut rest = vec![part];
        while let Some(part) = rest.pop() {
            let found = (known.len() < MOST_KNOWN).then(|| self.find_one(pixels, part));
            match found.flatten() {
                Some(found) => {
                    let around = part.around(found.part).into_iter();
                    rest.extend(around.filter(|part| !part.is_empty()));
                    known.push(found);
                }
                None => unknown.push(part),
            }
        }
        (known, unknown)
    }

    /// A rectangle of `part` that is known.
    fn find_one(&mut self, pixels: &Pixels, part: Rect) -> Option<Known> {
        let is_enough = |part: Rect| part.pixels() >= LEAST as u64;
        if !is_enough(part) {
            return None;
        }
        let looks = LOOKS.iter().map(|&(across, down)| {
            let at = |least: i32, size: u32, block: usize, quarters: usize| {
                least as usize + (size as usize).saturating_sub(block) * quarters / 4
            };
            (
                at(part.left, part.width(), 2 * RUN, across),
                at(part.top, part.height(), ROWS, down),
            )
        });
        let found = looks
            .filter_map(|place| self.look(pixels, part, place))
            .find(|known| is_enough(known.part))?;
        self.used(found.image);
        Some(found)
    }

    /// What is known around an anchor in the block at this place.
    fn look(&self, pixels: &Pixels, part: Rect, (left, top): (usize, usize)) -> Option<Known> {
        let bottom = (top + ROWS).min(part.bottom as usize);
        let right = (left + RUN).min((part.right as usize + 1).saturating_sub(RUN));
        let places = (top..bottom).flat_map(|y| (left..right).map(move |x| (x, y)));
        places
            .filter_map(|(x, y)| {
                let key = key(pixels.row(y).get(x..x + RUN)?)?;
                let &(image, from_x, from_y) = self.anchors.get(&key)?;
                let kept = &self.images.get(&image)?.pixels;
                let place = (x, y);
                let part = common(pixels, part, place, kept, (from_x, from_y))?;
                let by = Point {
                    x: from_x as i32 - x as i32,
                    y: from_y as i32 - y as i32,
                };
                Some(Known {
                    part,
                    image,
                    size: kept.size(),
                    source: part.shifted(by),
                })
            })
            .next()
    }
}

/// The rectangle around a place in `part` of new pixels that is the same around another in an image; `None` if
/// not even the pixels there are.
fn common(
    pixels: &Pixels,
    part: Rect,
    (x, y): (usize, usize),
    kept: &Pixels,
    (from_x, from_y): (usize, usize),
) -> Option<Rect> {
    let (left, right) = (part.left as usize, part.right as usize);
    // As far as both go.
    let before = (x - left).min(from_x);
    let after = (right - x).min(kept.width as usize - from_x);
    let new = &pixels.row(y)[x - before..x + after];
    let old = &kept.row(from_y)[from_x - before..from_x + after];
    let equal = |(a, b): &(&u32, &u32)| a == b;
    let after = std::iter::zip(&new[before..], &old[before..])
        .take_while(equal)
        .count();
    let back = std::iter::zip(new[..before].iter().rev(), old[..before].iter().rev())
        .take_while(equal)
        .count();
    if after == 0 {
        return None;
    }
    let (left, from_left, width) = (x - back, from_x - back, back + after);
    let same = |y: usize, from_y: usize| {
        pixels.row(y)[left..left + width] == kept.row(from_y)[from_left..from_left + width]
    };
    let up = (1..=(y - part.top as usize).min(from_y))
        .take_while(|&rows| same(y - rows, from_y - rows))
        .count();
    let down = (1..(part.bottom as usize - y).min(kept.height as usize - from_y))
        .take_while(|&rows| same(y + rows, from_y + rows))
        .count();
    Some(Rect {
        left: left as i32,
        top: (y - up) as i32,
        right: (left + width) as i32,
        bottom: (y + down + 1) as i32,
    })
}

/// Places and keys of the anchors of an image.
fn anchors(pixels: &Pixels) -> impl Iterator<Item = (usize, usize, u64)> {
    let rows = (0..pixels.height as usize).step_by(ROWS);
    rows.flat_map(|y| {
        let runs = pixels.row(y).chunks_exact(RUN).enumerate();
        runs.filter_map(move |(index, run)| Some((index * RUN, y, key(run)?)))
    })
}

/// What runs are told apart by; `None` of one of a single colour, of which there are many.
fn key(run: &[u32]) -> Option<u64> {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let is_flat = run.windows(2).all(|pair| pair[0] == pair[1]);
    let mix = |key: u64, &pixel: &u32| (key.rotate_left(5) ^ u64::from(pixel)).wrapping_mul(FACTOR);
    (!is_flat).then(|| run.iter().fold(0, mix))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a photograph without end looks like at a place.
    fn colour(x: u32, y: u32) -> u32 {
        let grain = (y * 65_537 + x).wrapping_mul(2_654_435_761) >> 30;
        let channels = [x / 2 + grain, y / 3 + grain, x + y, 0];
        u32::from_le_bytes(channels.map(|channel| channel as u8))
    }

    fn area(left: u32, top: u32, width: u32, height: u32) -> Rect {
        let [left, top, width, height] = [left, top, width, height].map(u32::cast_signed);
        Rect {
            left,
            top,
            right: left + width,
            bottom: top + height,
        }
    }

    fn picture(area: Rect, colour: impl Fn(u32, u32) -> u32) -> Pixels {
        let rows = area.top as u32..area.bottom as u32;
        let bytes: Vec<u8> = rows
            .flat_map(|y| (area.left as u32..area.right as u32).map(move |x| (x, y)))
            .flat_map(|(x, y)| colour(x, y).to_le_bytes())
            .collect();
        Pixels::new(area.width(), area.height(), &bytes).expect("the size is right")
    }

    fn whole(pixels: &Pixels) -> Rect {
        Rect::of_size(pixels.size())
    }

    #[test]
    fn a_part_of_an_image_is_found_at_another_place() {
        let mut cache = Cache::new(MOST);
        cache.keep(7, &picture(area(0, 0, 300, 200), colour));
        let new = picture(area(41, 53, 200, 100), colour);

        let (known, unknown) = cache.find(&new, whole(&new));

        let found = Known {
            part: whole(&new),
            image: 7,
            size: Size {
                width: 300,
                height: 200,
            },
            source: area(41, 53, 200, 100),
        };
        assert_eq!((known, unknown), (vec![found], vec![]));
    }

    #[test]
    fn what_two_images_show_together_is_found_in_both() {
        let mut cache = Cache::new(MOST);
        cache.keep(1, &picture(area(0, 0, 150, 200), colour));
        cache.keep(2, &picture(area(150, 0, 150, 200), colour));
        let new = picture(area(50, 20, 200, 150), colour);

        let (known, unknown) = cache.find(&new, whole(&new));

        let mut images: Vec<_> = known.iter().map(|known| known.image).collect();
        images.sort_unstable();
        assert_eq!((images, unknown), (vec![1, 2], vec![]));
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let mut cache = Cache::new(3000);
        let at = |x| picture(area(x, 0, 35, 40), colour);
        assert!(cache.keep(1, &at(0)).is_empty());
        assert!(cache.keep(2, &at(500)).is_empty());
        let (known, _) = cache.find(&at(0), area(0, 0, 35, 40));
        assert_eq!(known.len(), 1);

        assert_eq!(cache.keep(3, &at(1000)), [2]);

        let mut is_known = |x| !cache.find(&at(x), area(0, 0, 35, 40)).0.is_empty();
        assert_eq!([0, 500, 1000].map(&mut is_known), [true, false, true]);
        assert_eq!(cache.keep(4, &picture(area(0, 0, 70, 40), colour)), [1, 3]);
        assert!(cache.anchors.values().all(|&(image, ..)| image == 4));
    }

    #[test]
    fn what_is_kept_takes_no_more_memory_than_it_needs() {
        let mut cache = Cache::new(MOST);
        let mut pixels = picture(area(0, 0, 20, 20), colour);
        // As memory of a larger image has that is used again.
        pixels.data.reserve_exact(100_000);
        cache.keep(1, &pixels);
        assert!(cache.images[&1].pixels.data.capacity() < 1000);
    }

    #[test]
    fn only_what_fits_and_is_worth_it_is_taken() {
        let cache = Cache::new(5000);
        assert_eq!(
            [LEAST - 1, LEAST, 5000, 5001].map(|pixels| cache.takes(pixels)),
            [false, true, true, false]
        );
        assert!(!Cache::default().takes(LEAST));
    }

    proptest! {
        #[test]
        fn what_is_known_is_the_same_and_the_rest_is_not_forgotten(
            kept in prop::collection::vec((0u32..300, 0u32..300, 20u32..90, 20u32..90), 1..8),
            (x, y, width, height) in (0u32..300, 0u32..300, 1u32..150, 1u32..150),
            spots in prop::collection::vec((0u32..450, 0u32..450), 0..6),
            is_flat in any::<bool>(),
        ) {
            let stripes = |x: u32, y: u32| (x / 40 * 3 + y / 20) * 9;
            let colour = |x, y| if is_flat { stripes(x, y) } else { colour(x, y) };
            let mut cache = Cache::new(20_000);
            let mut images = HashMap::new();
            for (number, (x, y, width, height)) in (0..).zip(kept) {
                let image = picture(area(x, y, width, height), colour);
                if cache.takes(image.data.len()) {
                    images.insert(number, image.clone());
                    for gone in cache.keep(number, &image) {
                        prop_assert!(images.remove(&gone).is_some());
                    }
                }
            }
            let kept: usize = images.values().map(|image| image.data.len()).sum();
            prop_assert!(kept <= 20_000);
            let new = picture(area(x, y, width, height), |x, y| {
                if spots.contains(&(x, y)) { 1 } else { colour(x, y) }
            });

            let (known, unknown) = cache.find(&new, whole(&new));

            let mut covered = vec![0; new.data.len()];
            let parts = known.iter().map(|known| known.part).chain(unknown);
            for part in parts {
                for y in part.top..part.bottom {
                    let start = y as usize * width as usize;
                    for covered in &mut covered[start..][part.left as usize..part.right as usize] {
                        *covered += 1;
                    }
                }
            }
            prop_assert!(covered.iter().all(|&times| times == 1));
            for known in known {
                let image = &images[&known.image];
                prop_assert_eq!(image.size(), known.size);
                prop_assert!(whole(image).contains(known.source));
                let mut rows = [(&new, known.part), (image, known.source)].map(|(pixels, part)| {
                    let mut bytes = vec![0; part.pixels() as usize * 4];
                    pixels.copy_part(part, &mut bytes);
                    bytes
                });
                let [new, old] = &mut rows;
                prop_assert_eq!(new, old);
            }
        }
    }
}
