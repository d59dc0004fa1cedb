//! JPEG (ITU-T T.81): pictures of films, and stills on links that are slow for them.
//!
//! A picture is encoded a band of rows at a time. Each band is encoded for itself and ends in a restart marker,
//! at which decoders begin anew. So several threads encode a picture at once, and it still is one that every
//! decoder takes.

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

use crate::geometry::Size;

/// Pixels of a band, about: some milliseconds at most.
const BAND: usize = 128 * 1024;
/// Rows and columns that are encoded together, as colours have half the resolution.
const UNIT: usize = 16;
/// Units between two restart markers at most.
const MAX_INTERVAL: usize = u16::MAX as usize;

const MARKER: u8 = 0xff;
const START_OF_FRAME: u8 = 0xc0;
const START_OF_SCAN: u8 = 0xda;
const RESTART: u8 = 0xd0;
const START_OF_IMAGE_LEN: usize = 2;
const END_OF_IMAGE: [u8; 2] = [0xff, 0xd9];

/// Columns and rows at most.
const MAX_SIDE: u32 = u16::MAX as u32;

/// What a picture is to become.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Jpeg {
    size: Size,
    quality: u8,
}

impl Jpeg {
    /// A picture of this size; quality from 1 to 100. `None` if it has no pixels, or more than JPEG allows.
    pub(crate) fn new(size: Size, quality: u8) -> Option<Self> {
        let sides = 1..=MAX_SIDE;
        let is_possible = sides.contains(&size.width) && sides.contains(&size.height);
        is_possible.then_some(Self { size, quality })
    }

    /// Bytes of its pixels: rows without gaps of blue, green, red and a byte that means nothing.
    pub(crate) fn bytes(&self) -> usize {
        self.size.width as usize * self.size.height as usize * 4
    }

    /// Bands that it is encoded in.
    pub(crate) fn bands(&self) -> usize {
        let rows = band_rows(self.size.width as usize);
        (self.size.height as usize).div_ceil(rows)
    }

    /// Encodes one band of `pixels`; `None` if there is none.
    pub(crate) fn encode(&self, band: usize, pixels: &[u8]) -> Option<Vec<u8>> {
        let width = self.size.width as usize;
        let rows = band_rows(width);
        let bytes = rows * width * 4;
        let end = self.bytes().min(bytes * (band + 1));
        let band = pixels.get(bytes * band..end)?;
        let units = width.div_ceil(UNIT) * rows.div_ceil(UNIT);
        encode(band, width, self.quality, units)
    }

    /// The JPEG picture of `pixels`, here and now; `None` if there are not as many.
    pub(crate) fn whole(&self, pixels: &[u8]) -> Option<Vec<u8>> {
        let bands = (0..self.bands()).map(|band| self.encode(band, pixels));
        self.join(&bands.collect::<Option<Vec<_>>>()?)
    }

    /// The JPEG picture of all its bands; `None` if there are not all of them.
    pub(crate) fn join(&self, bands: &[Vec<u8>]) -> Option<Vec<u8>> {
        let (first, others) = bands.split_first()?;
        if bands.len() != self.bands() {
            return None;
        }
        let mut picture = Vec::with_capacity(bands.iter().map(Vec::len).sum());
        let (header, scan) = split(first)?;
        picture.extend(header);
        // Marker, length, bits per sample, height.
        let height = segment(header, START_OF_FRAME)? + 5;
        let rows = u16::try_from(self.size.height).ok()?.to_be_bytes();
        picture.get_mut(height..height + 2)?.copy_from_slice(&rows);
        picture.extend(scan);
        for (number, band) in (0..8).cycle().zip(others) {
            let (_, scan) = split(band)?;
            picture.extend([MARKER, RESTART + number]);
            picture.extend(scan);
        }
        picture.extend(END_OF_IMAGE);
        Some(picture)
    }
}

/// Rows of a band: whole units, at least one, and no more than a restart interval counts.
fn band_rows(width: usize) -> usize {
    let across = width.div_ceil(UNIT).max(1);
    let down = (BAND / UNIT / UNIT / across).min(MAX_INTERVAL / across);
    down.max(1) * UNIT
}

/// A band as a picture of its own, with restarts after so many units.
fn encode(band: &[u8], width: usize, quality: u8, interval: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(band.len() / 16);
    let mut encoder = Encoder::new(&mut bytes, quality);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    encoder.set_restart_interval(u16::try_from(interval).ok()?);
    let height = u16::try_from(band.len() / 4 / width.max(1)).ok()?;
    let width = u16::try_from(width).ok()?;
    encoder
        .encode(band, width, height, ColorType::Bgra)
        .ok()
        .map(|()| bytes)
}

/// Everything up to the end of the scan's header, and the scan.
fn split(picture: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = segment(picture, START_OF_SCAN)?;
    let length = u16::from_be_bytes([*picture.get(at + 2)?, *picture.get(at + 3)?]);
    let (header, scan) = picture.split_at_checked(at + 2 + usize::from(length))?;
    Some((header, scan.strip_suffix(&END_OF_IMAGE)?))
}

/// Where a segment with this marker begins.
fn segment(picture: &[u8], marker: u8) -> Option<usize> {
    let mut at = START_OF_IMAGE_LEN;
    loop {
        let [first, kind, high, low] = picture.get(at..at + 4)?.try_into().ok()?;
        match (first, kind) {
            (MARKER, found) if found == marker => return Some(at),
            (MARKER, _) => at += 2 + usize::from(u16::from_be_bytes([high, low])),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn film_picture(size: Size) -> Vec<u8> {
        (0..size.width * size.height)
            .flat_map(|i| {
                let (x, y) = (i % size.width, i / size.width);
                [(x / 2) as u8, (y / 3) as u8, ((x + y) / 5) as u8, 7]
            })
            .collect()
    }

    fn encoded(size: Size, pixels: &[u8]) -> (Vec<u8>, usize) {
        let jpeg = Jpeg::new(size, 90).expect("it has pixels");
        let picture = jpeg.whole(pixels).expect("all pixels are there");
        (picture, jpeg.bands())
    }

    #[test]
    fn bands_make_one_picture_that_an_independent_decoder_takes() {
        for (width, height) in [(1, 1), (17, 33), (640, 360), (1920, 1080), (3000, 70)] {
            let size = Size { width, height };
            let pixels = film_picture(size);

            let (picture, bands) = encoded(size, &pixels);

            let mut decoder = jpeg_decoder::Decoder::new(&*picture);
            let decoded = decoder.decode().expect("it is a picture");
            let info = decoder.info().expect("it was decoded");
            assert_eq!((info.width.into(), info.height.into()), (width, height));
            let wrong = pixels
                .chunks(4)
                .zip(decoded.chunks(3))
                .flat_map(|(p, q)| {
                    [
                        p[2].abs_diff(q[0]),
                        p[1].abs_diff(q[1]),
                        p[0].abs_diff(q[2]),
                    ]
                })
                .filter(|&difference| difference > 40)
                .count();
            assert!(wrong * 100 <= pixels.len(), "{width}x{height}: {wrong}");
            assert_eq!(bands > 1, width * height > 200_000, "{width}x{height}");
        }
    }

    #[test]
    fn a_picture_that_can_not_be_is_refused() {
        for (width, height) in [(0, 5), (5, 0), (70_000, 1), (1, 70_000)] {
            assert!(Jpeg::new(Size { width, height }, 80).is_none());
        }
        let jpeg = Jpeg::new(
            Size {
                width: 4,
                height: 4,
            },
            80,
        )
        .expect("it has pixels");
        assert!(jpeg.encode(0, &[0; 63]).is_none());
        assert!(jpeg.encode(1, &[0; 64]).is_none());
        assert!(jpeg.join(&[]).is_none());
    }
}
