//! Palettes: pixels of few colours as indices, and the tables of colours that a client keeps.
//!
//! # The format
//!
//! Beside an image of the form `SPICE_IMAGE_TYPE_LZ_PLT` there is the number of a palette that the client keeps, or
//! a palette: a number to keep it by (64 bits), how many colours it has (16 bits), and the colours, 32-bit xRGB.
//! A row of the image has so many bits a pixel, the leftmost pixel in the highest bits of a byte, and
//! ends with a whole byte.
//!
//! Text and windows draw with the same colours again and again. So a new palette has those of the last one,
//! too, if there is room for both, and soon is not new any more.

use super::Pixels;

/// Palettes that one client is to keep. The reference server has its clients keep 128.
const MOST: usize = 16;
/// Places where a palette's colours are looked up: four for each.
const PLACES_BITS: u32 = 10;

/// How many bits an index has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    One,
    Four,
    Eight,
}

impl Depth {
    pub(super) fn bits(self) -> u32 {
        match self {
            Self::One => 1,
            Self::Four => 4,
            Self::Eight => 8,
        }
    }

    /// The least for so many colours, of which there are at most 256.
    fn of(colours: usize) -> Self {
        match colours {
            0..=2 => Self::One,
            3..=16 => Self::Four,
            _ => Self::Eight,
        }
    }
}

/// Pixels as indices.
#[derive(Debug)]
pub(super) struct Indices {
    pub(super) depth: Depth,
    /// Bytes in a row.
    pub(super) stride: u32,
    /// The bytes of all rows: a number each, as codecs compare them by the same means as pixels.
    pub(super) bytes: Vec<u32>,
}

/// The colours of an indexed image, on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Palette {
    /// Those that the client keeps by this number.
    Kept(u64),
    /// New ones.
    New {
        /// The number to keep them by.
        id: u64,
        /// Each 0x00RRGGBB, at most 256.
        colours: Vec<u32>,
        /// A palette that the client has no more use for.
        forgets: Option<u64>,
    },
}

impl Palette {
    /// Bytes that it takes on the wire.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Kept(_) => 8,
            // Where it is, its number, how many colours, and these.
            Self::New { colours, .. } => 4 + 8 + 2 + colours.len() * 4,
        }
    }
}

/// Colours in the order of their indices.
#[derive(Debug, Clone)]
struct Colours {
    list: Vec<u32>,
    /// Indices by what is made of a colour, or behind the indices of others that made the same.
    places: Vec<Option<u8>>,
}

impl Colours {
    /// Those of these pixels, unless they are too many.
    fn of(pixels: &Pixels) -> Option<Self> {
        let mut colours = Self {
            list: Vec::new(),
            places: vec![None; 1 << PLACES_BITS],
        };
        let mut last = None;
        for &pixel in &pixels.data {
            if last != Some(pixel) {
                colours.add(pixel)?;
                last = Some(pixel);
            }
        }
        Some(colours)
    }

    /// Where the index of a colour is, or would be.
    fn place(&self, colour: u32) -> usize {
        const ODD: u32 = 0x9e37_79b1;
        let mut place = (colour.wrapping_mul(ODD) >> (u32::BITS - PLACES_BITS)) as usize;
        while let Some(index) = self.places[place]
            && self.list[usize::from(index)] != colour
        {
            place = (place + 1) % self.places.len();
        }
        place
    }

    fn index(&self, colour: u32) -> Option<u8> {
        self.places[self.place(colour)]
    }

    /// Has this colour, too; `None` if there is no index left.
    fn add(&mut self, colour: u32) -> Option<()> {
        let place = self.place(colour);
        if self.places[place].is_none() {
            self.places[place] = Some(u8::try_from(self.list.len()).ok()?);
            self.list.push(colour);
        }
        Some(())
    }

    fn depth(&self) -> Depth {
        Depth::of(self.list.len())
    }

    fn contain(&self, others: &Self) -> bool {
        (others.list.iter()).all(|&colour| self.index(colour).is_some())
    }

    /// These and others; `None` if their indices would be longer.
    fn with(&self, others: &Self) -> Option<Self> {
        let mut both = self.clone();
        for &colour in &others.list {
            both.add(colour)?;
        }
        (both.depth() == self.depth()).then_some(both)
    }

    /// Pixels of these colours only.
    fn indices(&self, pixels: &Pixels) -> Option<Indices> {
        let depth = self.depth();
        let bits = depth.bits();
        let stride = pixels.width.checked_mul(bits)?.div_ceil(8);
        let in_byte = (8 / bits) as usize;
        let mut bytes = Vec::with_capacity(stride as usize * pixels.height as usize);
        for row in pixels.data.chunks(pixels.width as usize) {
            for pixels in row.chunks(in_byte) {
                let mut byte = 0;
                for &pixel in pixels {
                    byte = byte << bits | u32::from(self.index(pixel)?);
                }
                bytes.push(byte << (bits * (in_byte - pixels.len()) as u32));
            }
        }
        Some(Indices {
            depth,
            stride,
            bytes,
        })
    }
}

/// A palette that an image was given.
#[derive(Debug)]
enum Choice {
    /// One of those that are kept, by its place among them.
    Kept(usize),
    New(Colours),
}

/// The palettes of one client.
#[derive(Debug, Default)]
pub(super) struct Palettes {
    /// Those that it keeps, with their numbers; what was used last is at the end.
    kept: Vec<(u64, Colours)>,
    /// The number of the newest; no client keeps one by the number 0.
    last: u64,
    /// For the last image.
    unsent: Option<Choice>,
}

impl Palettes {
    /// Pixels as indices, and of which palette; `None` if there are too many colours. The client has the palette
    /// once it is [`sent`](Self::sent).
    pub(super) fn index(&mut self, pixels: &Pixels) -> Option<(Indices, Palette)> {
        let mut colours = Colours::of(pixels)?;
        let of_depth = |(_, (_, kept)): &(usize, &(u64, Colours))| kept.depth() == colours.depth();
        let mut alike = self.kept.iter().enumerate().rev().filter(of_depth);
        if let Some((place, (id, kept))) =
            alike.clone().find(|(_, (_, kept))| kept.contain(&colours))
        {
            let indices = kept.indices(pixels)?;
            self.unsent = Some(Choice::Kept(place));
            return Some((indices, Palette::Kept(*id)));
        }
        if let Some(both) = alike.next().and_then(|(_, (_, last))| last.with(&colours)) {
            colours = both;
        }
        let indices = colours.indices(pixels)?;
        let least_used = self.kept.first().filter(|_| self.kept.len() >= MOST);
        let palette = Palette::New {
            id: self.last + 1,
            colours: colours.list.clone(),
            forgets: least_used.map(|(id, _)| *id),
        };
        self.unsent = Some(Choice::New(colours));
        Some((indices, palette))
    }

    /// The last image never will be sent.
    pub(super) fn forget_last(&mut self) {
        self.unsent = None;
    }

    /// The last image is on its way to the client, and its palette too, if that is new.
    pub(super) fn sent(&mut self) {
        match self.unsent.take() {
            Some(Choice::Kept(place)) => self.kept[place..].rotate_left(1),
            Some(Choice::New(colours)) => {
                if self.kept.len() >= MOST {
                    self.kept.remove(0);
                }
                self.last += 1;
                self.kept.push((self.last, colours));
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pixels(colours: &[u32]) -> Pixels {
        let bytes: Vec<u8> = colours
            .iter()
            .flat_map(|colour| colour.to_le_bytes())
            .collect();
        Pixels::new(colours.len() as u32, 1, &bytes).expect("the size is right")
    }

    fn many(colours: std::ops::Range<u32>) -> Pixels {
        let colours: Vec<u32> = colours.collect();
        pixels(&colours)
    }

    /// As sent: its palette, and its bytes.
    fn send(palettes: &mut Palettes, pixels: &Pixels) -> Option<(Palette, Vec<u32>)> {
        let (indices, palette) = palettes.index(pixels)?;
        palettes.sent();
        Some((palette, indices.bytes))
    }

    #[test]
    fn the_leftmost_pixel_is_in_the_highest_bits() {
        let two = [7, 9, 9, 7, 7, 7, 7, 7, 9];
        let three = [7, 9, 5];
        let seventeen: Vec<u32> = (100..117).collect();
        let mut palettes = Palettes::default();
        let mut bytes = |colours: &[u32]| send(&mut palettes, &pixels(colours)).map(|sent| sent.1);

        assert_eq!(bytes(&two), Some(vec![0b0110_0000, 0b1000_0000]));
        assert_eq!(bytes(&three), Some(vec![0x01, 0x20]));
        assert_eq!(bytes(&seventeen), Some((0..17).collect()));
    }

    #[test]
    fn more_than_256_colours_have_no_palette() {
        let mut palettes = Palettes::default();
        assert!(palettes.index(&many(0..256)).is_some());
        assert!(palettes.index(&many(0..257)).is_none());
    }

    #[test]
    fn a_palette_that_was_sent_is_used_again_and_grows() {
        let mut palettes = Palettes::default();
        let new = |id, colours: std::ops::Range<u32>| Palette::New {
            id,
            colours: colours.collect(),
            forgets: None,
        };
        let mut palette = |pixels| send(&mut palettes, &pixels).map(|sent| sent.0);

        assert_eq!(palette(many(0..100)), Some(new(1, 0..100)));
        assert_eq!(palette(many(50..90)), Some(Palette::Kept(1)));
        assert_eq!(palette(many(90..200)), Some(new(2, 0..200)));
        assert_eq!(palette(many(0..200)), Some(Palette::Kept(2)));
        // Both together would be too many.
        assert_eq!(palette(many(200..300)), Some(new(3, 200..300)));
        assert_eq!(palette(many(0..100)), Some(Palette::Kept(2)));
    }

    #[test]
    fn a_palette_that_was_not_sent_is_new_again() {
        let mut palettes = Palettes::default();
        let first = palettes.index(&many(0..30)).map(|(_, palette)| palette);
        palettes.forget_last();
        palettes.sent();
        assert_eq!(
            palettes.index(&many(0..30)).map(|(_, palette)| palette),
            first
        );
    }

    #[test]
    fn the_client_forgets_what_was_used_least_of_late() {
        let mut palettes = Palettes::default();
        let some = |number: u32| many(number * 256..number * 256 + 256);
        let mut palette = |number| send(&mut palettes, &some(number)).map(|sent| sent.0);
        for number in 0..MOST as u32 {
            let sent = palette(number);
            assert!(
                matches!(sent, Some(Palette::New { forgets: None, .. })),
                "{sent:?}"
            );
        }
        assert_eq!(palette(0), Some(Palette::Kept(1)));

        let sent = palette(MOST as u32);

        assert!(
            matches!(
                sent,
                Some(Palette::New {
                    forgets: Some(2),
                    ..
                })
            ),
            "{sent:?}"
        );
        assert_eq!(palette(0), Some(Palette::Kept(1)));
        assert!(matches!(
            palette(1),
            Some(Palette::New {
                forgets: Some(3),
                ..
            })
        ));
    }
}
