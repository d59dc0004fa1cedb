//! The images that a client keeps for GLZ, as this server remembers them.
//!
//! A session has one dictionary for all of its display channels: they share the sequence of ids. But
//! nothing orders what they send, so an image refers to images of its own channel only, and one
//! channel at a time encodes with the dictionary; while one does, others go without.

use std::collections::{HashMap, VecDeque};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use parking_lot::Mutex;

use super::repeats::Table;

/// Between two images: no colour, so no copy goes on over it.
const BOUNDARY: u32 = 1 << 24;
/// Pixels that are remembered for a session at most, 4 bytes each: a screen of 2560×1600.
const MAX_PIXELS: usize = 4 << 20;
/// A dictionary that is full forgets one part in so many at once.
const PART: usize = 4;
/// Images that are remembered at most.
const MAX_IMAGES: usize = 1 << 16;

/// Images that were sent, and the one that is being encoded.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// All images, each with a [`BOUNDARY`] before it.
    pub(super) pixels: Vec<u32>,
    pub(super) table: Table,
    pub(super) images: Images,
    limit: usize,
}

/// Where each image is.
#[derive(Debug, Default)]
pub(super) struct Images {
    /// The ids of the newest of those that were sent by their fingerprints.
    known: HashMap<u64, u64>,
    /// Those that were sent, with ids up to the next.
    sent: VecDeque<Image>,
    /// The one that is being encoded.
    current: Image,
    next_id: u64,
    /// Several channels have sent some.
    are_shared: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Image {
    start: usize,
    owner: u64,
    fingerprint: u64,
}

/// A pixel that the client has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// How many ids older its image is.
    pub(super) image: usize,
    /// Its index there; in the image that is being encoded, the distance less one.
    pub(super) pixel: usize,
}

impl Images {
    /// Whether only one channel has ever sent any.
    pub(super) fn are_all_ours(&self) -> bool {
        !self.are_shared
    }

    /// How many pixels before the one that is being encoded is an image that seems to be the same.
    fn repeated(&self) -> Option<usize> {
        let id = self.known.get(&self.current.fingerprint)?;
        let newer = usize::try_from(self.next_id.checked_sub(*id)?).ok()?;
        let image = self.sent.get(self.sent.len().checked_sub(newer)?)?;
        self.current.start.checked_sub(image.start)
    }

    /// The pixel `distance` before `at`, if its channel has sent it.
    pub(super) fn find(&self, at: usize, distance: usize) -> Option<Place> {
        let source = at.checked_sub(distance)?;
        if source >= self.current.start {
            return Some(Place {
                image: 0,
                pixel: distance.checked_sub(1)?,
            });
        }
        let after = self.sent.partition_point(|image| image.start <= source);
        let image = self.sent.get(after.checked_sub(1)?)?;
        (image.owner == self.current.owner).then_some(Place {
            image: self.sent.len() - after + 1,
            pixel: source - image.start,
        })
    }
}

/// A number that images with the same pixels have in common, and others hardly ever.
fn fingerprint(pixels: &[u32]) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |state: u64, two: u64| (state ^ two).wrapping_mul(ODD).rotate_left(29);
    // Four at a time: none waits for the one before.
    let (blocks, rest) = pixels.as_chunks::<8>();
    let mut lanes = [pixels.len() as u64; 4];
    for block in blocks {
        for (lane, two) in lanes.iter_mut().zip(block.as_chunks::<2>().0) {
            *lane = mix(*lane, u64::from(two[0]) | u64::from(two[1]) << 32);
        }
    }
    let rest = rest.iter().map(|&pixel| u64::from(pixel));
    lanes.into_iter().chain(rest).fold(0, mix)
}

impl Contents {
    /// Takes up an image of which nothing is sent yet. If it seems to repeat one that was, how many pixels
    /// before.
    pub(super) fn begin(&mut self, pixels: &[u32]) -> Option<usize> {
        if self.pixels.capacity() == 0 {
            // All at once: what grows is copied each time.
            self.pixels.reserve_exact(self.limit);
            self.table.restart(self.limit);
        }
        self.make_room(pixels.len() + 1);
        self.pixels.push(BOUNDARY);
        self.images.current.start = self.pixels.len();
        self.images.current.fingerprint = fingerprint(pixels);
        self.pixels.extend_from_slice(pixels);
        self.images.repeated()
    }

    /// The image is on its way: later ones may refer to it.
    fn commit(&mut self) {
        let images = &mut self.images;
        images.sent.push_back(images.current);
        images
            .known
            .insert(images.current.fingerprint, images.next_id);
        images.next_id += 1;
        images.current.start = self.pixels.len() + 1;
        self.table.commit();
    }

    /// What is not sent is not kept, and its id goes to another image.
    fn roll_back(&mut self) {
        let end = self.images.current.start.saturating_sub(1);
        self.pixels.truncate(end);
        self.table.roll_back();
    }

    /// The index of the first pixel of the image that is being encoded.
    pub(super) fn start(&self) -> usize {
        self.images.current.start
    }

    /// Its id.
    pub(super) fn id(&self) -> u64 {
        self.images.next_id
    }

    /// How many images before it may be referred to.
    pub(super) fn window(&self) -> u32 {
        u32::try_from(self.images.sent.len()).unwrap_or(u32::MAX)
    }

    /// Forgets the oldest images until there is room for so many pixels.
    fn make_room(&mut self, count: usize) {
        let full = self.pixels.len() + count > self.limit || self.images.sent.len() >= MAX_IMAGES;
        if !full {
            return;
        }
        let most = (self.limit - self.limit / PART).saturating_sub(count);
        let sent = &mut self.images.sent;
        let excess = self.pixels.len().saturating_sub(most);
        let most_images = MAX_IMAGES - MAX_IMAGES / PART;
        let forgotten = sent
            .partition_point(|image| image.start < excess)
            .max(sent.len().saturating_sub(most_images));
        let oldest = self.images.next_id - sent.len() as u64;
        for (image, id) in sent.drain(..forgotten).zip(oldest..) {
            if self.images.known.get(&image.fingerprint) == Some(&id) {
                self.images.known.remove(&image.fingerprint);
            }
        }
        let cut = sent
            .front()
            .map_or(self.pixels.len(), |image| image.start - 1);
        for image in sent {
            image.start -= cut;
        }
        self.pixels.drain(..cut);
        self.table.forget(cut);
    }
}

/// What one client keeps for GLZ, over all of its display channels; handles to it are clones. At first
/// empty, and then up to 20 MiB.
#[derive(Debug, Clone, Default)]
pub struct Dictionary(Arc<Mutex<Home>>);

#[derive(Debug, Default)]
struct Home {
    state: State,
    owners: u64,
}

#[derive(Debug, Default)]
enum State {
    /// No channel asked for one.
    #[default]
    New,
    /// Here, under the number that the client gave it.
    Here(u8, Box<Contents>),
    Lent(u8),
}

/// A channel's right to its session's dictionary.
#[derive(Debug)]
pub(super) struct Access {
    dictionary: Dictionary,
    /// The client's number for it.
    id: u8,
    owner: u64,
    limit: usize,
}

impl Access {
    /// For a client that keeps `window` pixels in the dictionary that it calls `id`.
    pub(super) fn new(dictionary: &Dictionary, id: u8, window: usize) -> Self {
        let mut home = dictionary.0.lock();
        home.owners += 1;
        Self {
            dictionary: dictionary.clone(),
            id,
            owner: home.owners,
            limit: window.min(MAX_PIXELS),
        }
    }

    /// The dictionary, if it is free, is the one that this channel may use, and an image of so many
    /// pixels leaves something of it.
    pub(super) fn lease(&self, pixels: usize) -> Option<Lease> {
        if pixels >= self.limit {
            return None;
        }
        let mut home = self.dictionary.0.lock();
        let mut contents = match std::mem::take(&mut home.state) {
            State::New => Box::new(Contents {
                limit: self.limit,
                ..Contents::default()
            }),
            State::Here(id, contents) if id == self.id && pixels < contents.limit => contents,
            other => {
                home.state = other;
                return None;
            }
        };
        home.state = State::Lent(self.id);
        let images = &mut contents.images;
        images.are_shared |= !images.sent.is_empty() && images.current.owner != self.owner;
        images.current.owner = self.owner;
        Some(Lease {
            dictionary: self.dictionary.clone(),
            contents,
        })
    }
}

/// The dictionary, with one image that is being encoded. It goes back when this is dropped: without
/// the image, unless that was sent.
#[derive(Debug)]
pub(super) struct Lease {
    dictionary: Dictionary,
    contents: Box<Contents>,
}

impl Lease {
    /// The image is on its way to the client.
    pub(super) fn sent(mut self) {
        self.contents.commit();
    }
}

impl Deref for Lease {
    type Target = Contents;

    fn deref(&self) -> &Contents {
        &self.contents
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Contents {
        &mut self.contents
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.contents.roll_back();
        let mut home = self.dictionary.0.lock();
        if let State::Lent(id) = home.state {
            home.state = State::Here(id, std::mem::take(&mut self.contents));
        }
    }
}
