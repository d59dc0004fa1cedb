//! What makes the pictures of one stream whose codec refers to pictures before.
//!
//! JPEG pictures need none: each is encoded for itself, by several threads at once.

use caraway_video::{Error, I420, Settings};
use tokio::time::Instant;

use crate::geometry::Size;

/// An encoder of one stream, for one client.
pub(crate) struct Encoder {
    encoder: Box<dyn caraway_video::Encoder>,
    planes: I420,
    /// Bits a second that it was told.
    bits: u32,
    opened: Instant,
    needs_key: bool,
}

/// A change of the bit rate that is not worth telling the encoder.
const SLIGHT: f64 = 0.1;

impl Encoder {
    /// For pictures of this size, so many a second.
    ///
    /// # Errors
    /// If there is no such encoder here.
    pub(crate) fn open(
        codec: caraway_video::Codec,
        size: Size,
        rate: f64,
        bits: u32,
    ) -> Result<Self, Error> {
        let Size { width, height } = size;
        let refused = Error::Size {
            codec,
            width,
            height,
        };
        let planes = I420::new(width, height).ok_or(refused)?;
        let settings = Settings {
            width,
            height,
            rate,
            bits,
        };
        Ok(Self {
            encoder: caraway_video::open(codec, settings)?,
            planes,
            bits,
            opened: Instant::now(),
            needs_key: true,
        })
    }

    /// Encodes the pixels of the next picture, rows without gaps of blue, green, red and a byte that means
    /// nothing; so many bits a second from here on. `None` if there are not as many pixels.
    ///
    /// # Errors
    /// If the library refuses; the next picture will be a key picture.
    pub(crate) fn encode(&mut self, pixels: &[u8], bits: u32) -> Result<Option<Vec<u8>>, Error> {
        let change = f64::from(bits) / f64::from(self.bits.max(1)) - 1.0;
        if change.abs() > SLIGHT {
            self.encoder.set_bits(bits)?;
            self.bits = bits;
        }
        if !self.planes.fill(pixels) {
            return Ok(None);
        }
        let wants_key = std::mem::replace(&mut self.needs_key, true);
        let encoded = self
            .encoder
            .encode(&self.planes, self.opened.elapsed(), wants_key)?;
        self.needs_key = false;
        Ok(Some(encoded.bytes))
    }

    /// The last picture is not sent, so no other may refer to it.
    pub(crate) fn lost(&mut self) {
        self.needs_key = true;
    }
}

#[cfg(all(test, any(feature = "vp8", feature = "h264")))]
mod tests {
    use caraway_video::Codec;

    use super::*;

    const SIZE: Size = Size {
        width: 64,
        height: 48,
    };

    /// Whether a picture stands for itself (RFC 6386, 9.1; ITU-T H.264, 7.3.1: it begins with parameters).
    fn is_key(codec: Codec, picture: &[u8]) -> bool {
        match codec {
            Codec::Vp8 => picture[0] & 1 == 0,
            Codec::H264 => picture[4] & 0x1f == 7,
        }
    }

    #[test]
    fn a_picture_that_is_not_sent_makes_the_next_a_key() {
        for codec in [Codec::Vp8, Codec::H264] {
            if !codec.is_built_in() {
                continue;
            }
            let mut encoder = Encoder::open(codec, SIZE, 30.0, 500_000).expect("it can");
            let mut next = |shade, bits| {
                let pixels = [shade; 64 * 48 * 4];
                let picture = encoder.encode(&pixels, bits).expect("it can");
                if shade == 30 {
                    encoder.lost();
                }
                is_key(codec, &picture.expect("there are as many pixels"))
            };
            let pictures = [
                (10, 500_000),
                (20, 500_000),
                (30, 300_000),
                (40, 300_000),
                (50, 900_000),
            ];
            let keys = pictures.map(|(shade, bits)| next(shade, bits));
            assert_eq!(keys, [true, false, false, true, false], "{codec}");
        }
    }

    #[test]
    fn too_few_pixels_make_no_picture() {
        for codec in [Codec::Vp8, Codec::H264] {
            if let Ok(mut encoder) = Encoder::open(codec, SIZE, 30.0, 500_000) {
                let picture = encoder.encode(&[0; 64 * 48 * 4 - 1], 500_000);
                assert_eq!(picture, Ok(None));
            }
        }
    }
}
