//! How pixels become bytes on the wire: one file per image form.
//!
//! To add a form: a file with its encoder and the description of its bits, a variant of [`Codec`],
//! and an arm in [`Encoding::step`].

mod bitmap;
mod lz;
mod lz4;
mod quic;
mod texture;

/// How images are compressed (spice-protocol `enums.h`, `SpiceImageCompression`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Codec {
    /// QUIC for photographs and gradients, LZ for everything else.
    #[default]
    Auto,
    /// As they are.
    Raw,
    /// LZ, which every client decodes.
    Lz,
    /// LZ4; only for clients with that capability.
    Lz4,
    /// QUIC, which every client decodes; for photographs and gradients.
    Quic,
}

/// Pixels to encode: 32-bit xRGB, blue in the lowest byte, rows from top to bottom without gaps.
///
/// The unused byte is always 0, so that equal colours are equal numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pixels {
    width: u32,
    height: u32,
    data: Vec<u32>,
}

impl Pixels {
    /// Takes `bytes` as rows of `width * 4` bytes. `None` if their number is not that of `height`
    /// such rows, or if there is no pixel at all.
    #[must_use]
    pub fn new(width: u32, height: u32, bytes: &[u8]) -> Option<Self> {
        let count = u64::from(width) * u64::from(height);
        if count == 0 || count.checked_mul(4) != Some(bytes.len() as u64) {
            return None;
        }
        let data = bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|&pixel| u32::from_le_bytes(pixel) & 0x00ff_ffff)
            .collect();
        Some(Self {
            width,
            height,
            data,
        })
    }

    /// Pixels in a row.
    #[must_use]
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows.
    #[must_use]
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The colour (0x00RRGGBB) that all pixels have, if there is one.
    #[must_use]
    pub fn solid(&self) -> Option<u32> {
        let (&first, rest) = self.data.split_first()?;
        rest.iter().all(|&pixel| pixel == first).then_some(first)
    }

    fn to_bytes(&self) -> Vec<u8> {
        self.data
            .iter()
            .flat_map(|pixel| pixel.to_le_bytes())
            .collect()
    }
}

/// The form of an encoded image (spice-protocol `enums.h`, `SpiceImageType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ImageKind {
    /// Raw rows behind a small header.
    Bitmap = 0,
    /// QUIC, 32-bit RGB.
    Quic = 1,
    /// LZ, 32-bit RGB.
    LzRgb = 101,
    /// LZ4.
    Lz4 = 109,
}

/// An encoded image: what follows an image descriptor on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its form.
    pub kind: ImageKind,
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// The form's own bytes, without the length that some forms put before them.
    pub data: Vec<u8>,
}

impl Image {
    /// Whether the wire has the length of `data` before it.
    #[must_use]
    pub fn has_length(&self) -> bool {
        self.kind != ImageKind::Bitmap
    }
}

/// An image on its way through an encoder, a step at a time.
///
/// ```
/// use caraway_spice::codec::{Codec, Encoding, ImageKind, Pixels};
///
/// let pixels = Pixels::new(64, 64, &[7; 64 * 64 * 4]).ok_or("wrong size")?;
/// let mut encoding = Encoding::new(Codec::Lz, pixels);
/// while encoding.step() {} // a server serves others here
/// let image = encoding.finish();
/// assert_eq!(image.kind, ImageKind::LzRgb);
/// assert!(image.data.len() < 200);
/// # Ok::<(), &str>(())
/// ```
pub struct Encoding {
    pixels: Pixels,
    state: State,
}

enum State {
    Raw,
    Lz(lz::Encoder),
    Lz4(Option<Vec<u8>>),
    Quic(Box<quic::Encoder>),
}

/// Pixels encoded in a step: well under a millisecond.
const STEP: usize = 64 * 1024;

impl Encoding {
    /// Starts to encode.
    #[must_use]
    pub fn new(codec: Codec, pixels: Pixels) -> Self {
        let state = match codec {
            Codec::Auto if texture::is_gradual(&pixels) => {
                State::Quic(Box::new(quic::Encoder::new(&pixels)))
            }
            Codec::Auto => State::Lz(lz::Encoder::new(&pixels)),
            Codec::Raw => State::Raw,
            Codec::Lz => State::Lz(lz::Encoder::new(&pixels)),
            Codec::Lz4 => State::Lz4(None),
            Codec::Quic => State::Quic(Box::new(quic::Encoder::new(&pixels))),
        };
        Self { pixels, state }
    }

    /// Encodes some more. `false` once all is done.
    pub fn step(&mut self) -> bool {
        match &mut self.state {
            State::Raw => false,
            State::Lz(encoder) => encoder.step(&self.pixels, STEP),
            State::Lz4(done) => {
                done.get_or_insert_with(|| lz4::encode(&self.pixels));
                false
            }
            State::Quic(encoder) => encoder.step(&self.pixels, STEP),
        }
    }

    /// The image: in the form asked for, or raw if that is not longer. Does what
    /// [`Encoding::step`] has left.
    #[must_use]
    pub fn finish(mut self) -> Image {
        while self.step() {}
        let (kind, data) = match self.state {
            State::Raw | State::Lz4(None) => (ImageKind::Bitmap, Vec::new()),
            State::Lz(encoder) => (ImageKind::LzRgb, encoder.finish()),
            State::Lz4(Some(data)) => (ImageKind::Lz4, data),
            State::Quic(encoder) => (ImageKind::Quic, encoder.finish()),
        };
        let (kind, data) =
            if kind == ImageKind::Bitmap || data.len() >= bitmap::encoded_len(&self.pixels) {
                (ImageKind::Bitmap, bitmap::encode(&self.pixels))
            } else {
                (kind, data)
            };
        Image {
            kind,
            width: self.pixels.width,
            height: self.pixels.height,
            data,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shakenfist_spice_compression as independent;

    use super::*;

    const ALL: [Codec; 5] = [Codec::Auto, Codec::Raw, Codec::Lz, Codec::Lz4, Codec::Quic];

    /// Decodes with decoders that are not ours; rows of RGBA.
    fn decode(image: &Image) -> Vec<u8> {
        match image.kind {
            ImageKind::Bitmap => image.data[18..]
                .chunks(4)
                .flat_map(|p| [p[2], p[1], p[0], 255])
                .collect(),
            ImageKind::Quic => {
                independent::quic::quic_decode(&image.data, image.width, image.height)
                    .expect("the stream is well formed")
            }
            ImageKind::LzRgb => {
                independent::lz::decompress_lz(&image.data)
                    .expect("the stream is well formed")
                    .pixels
            }
            ImageKind::Lz4 => {
                independent::lz4::decompress_spice_lz4(
                    &image.data,
                    image.width as usize,
                    image.height as usize,
                )
                .expect("the stream is well formed")
                .pixels
            }
        }
    }

    fn assert_exact(codec: Codec, width: u32, height: u32, bytes: &[u8]) -> Image {
        let pixels = Pixels::new(width, height, bytes).expect("the size is right");
        let image = Encoding::new(codec, pixels).finish();
        let expected: Vec<u8> = bytes
            .chunks(4)
            .flat_map(|p| [p[2], p[1], p[0], 255])
            .collect();
        let decoded: Vec<u8> = decode(&image)
            .chunks(4)
            .flat_map(|p| [p[0], p[1], p[2], 255])
            .collect();
        assert!(decoded == expected, "{codec:?} {width}x{height} differs");
        image
    }

    /// Bytes with runs and repeats at all distances, from a few numbers.
    fn patterned(width: u32, height: u32, period: u32, noise: u32) -> Vec<u8> {
        (0..width * height)
            .flat_map(|i| {
                let repeat = (i % period).wrapping_mul(0x0101_6b35);
                let odd = if noise != 0 && i % noise == 0 { i } else { 0 };
                repeat.wrapping_add(odd).to_le_bytes()
            })
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn independent_decoders_return_the_same_pixels(
            width in 1u32..200, height in 1u32..60, period in 1u32..5000, noise in 0u32..40
        ) {
            let bytes = patterned(width, height, period, noise);
            for codec in ALL {
                assert_exact(codec, width, height, &bytes);
            }
        }

        #[test]
        fn random_pixels_survive(
            bytes in prop::collection::vec(any::<u8>(), 4..2000), few in any::<bool>()
        ) {
            let mut bytes = bytes;
            bytes.truncate(bytes.len() / 4 * 4);
            if few {
                bytes.iter_mut().for_each(|byte| *byte &= 1);
            }
            let width = (bytes.len() / 4) as u32;
            for codec in ALL {
                assert_exact(codec, width, 1, &bytes);
            }
        }
    }

    #[test]
    fn matches_at_every_edge_of_the_distance_forms_are_exact() {
        for period in [
            1, 2, 8190, 8191, 8192, 8193, 65_535, 73_725, 73_726, 73_727, 73_728,
        ] {
            let bytes: Vec<u8> = (0..1024 * 160u32)
                .flat_map(|i| (i % period).wrapping_mul(2_654_435_761).to_le_bytes())
                .collect();
            assert_exact(Codec::Lz, 1024, 160, &bytes);
        }
    }

    #[test]
    fn matches_at_every_edge_of_the_length_form_are_exact() {
        for length in [1, 2, 6, 7, 8, 261, 262, 263, 516, 517, 518] {
            let bytes: Vec<u8> = (0..4096u32)
                .flat_map(|i| (i / length).wrapping_mul(2_654_435_761).to_le_bytes())
                .collect();
            assert_exact(Codec::Lz, 4096, 1, &bytes);
        }
    }

    /// Smooth with a little grain, as a photograph.
    fn photograph(width: u32, height: u32) -> Vec<u8> {
        (0..width * height)
            .flat_map(|i| {
                let (x, y) = (i % width, i / width);
                let grain = i.wrapping_mul(2_654_435_761) >> 30;
                [
                    (x + y + grain) as u8,
                    (x / 5 + grain) as u8,
                    (y * 2) as u8,
                    0,
                ]
            })
            .collect()
    }

    #[test]
    fn a_photograph_is_sent_as_quic_and_half_as_long_as_lz_makes_it() {
        for (width, height) in [(3, 500), (640, 100), (5000, 9)] {
            let bytes = photograph(width, height);
            let auto = assert_exact(Codec::Auto, width, height, &bytes);
            let lz = assert_exact(Codec::Lz, width, height, &bytes);
            assert_eq!(auto.kind, ImageKind::Quic);
            assert!(auto.data.len() * 2 < lz.data.len());
        }
    }

    #[test]
    fn noise_is_sent_raw() {
        let bytes: Vec<u8> = (0..64 * 64u32)
            .flat_map(|i| (i.wrapping_mul(2_654_435_761) >> 3).to_le_bytes())
            .collect();
        let image = assert_exact(Codec::Lz4, 64, 64, &bytes);
        assert_eq!(image.kind, ImageKind::Bitmap);
    }

    #[test]
    fn one_colour_is_seen_whatever_the_unused_byte_holds() {
        let pixels = Pixels::new(2, 1, &[1, 2, 3, 0, 1, 2, 3, 255]).expect("the size is right");
        assert_eq!(pixels.solid(), Some(0x0003_0201));
    }

    #[test]
    fn a_wrong_number_of_bytes_is_refused() {
        assert_eq!(Pixels::new(2, 2, &[0; 15]), None);
        assert_eq!(Pixels::new(0, 2, &[]), None);
        assert_eq!(Pixels::new(u32::MAX, u32::MAX, &[0; 4]), None);
    }
}
