//! A picture of a film as JPEG (ITU-T T.81), a band of rows at a time.
//!
//! Each band is encoded for itself and ends in a restart marker, at which decoders begin anew. So a
//! picture can be encoded in steps between which others are served, or by several threads, and
//! still is one JPEG picture that every decoder takes.

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

/// A picture on its way through the encoder.
#[derive(Debug)]
pub(crate) struct Frame {
    size: Size,
    quality: u8,
    /// Bands that are done.
    bands: usize,
    bytes: Vec<u8>,
}

/// Whether there is more to encode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    More,
    Done,
    /// There is no such picture: it has no pixels, more than JPEG allows, or not as many as it says.
    Impossible,
}

impl Frame {
    /// A picture of this size, none of which is encoded yet; quality from 1 to 100.
    pub(crate) fn new(size: Size, quality: u8) -> Self {
        Self {
            size,
            quality,
            bands: 0,
            bytes: Vec::new(),
        }
    }

    /// Encodes the next band of `pixels`: rows without gaps of blue, green, red and a byte that means
    /// nothing. They must be the same at each step.
    pub(crate) fn step(&mut self, pixels: &[u8]) -> Progress {
        let (width, height) = (self.size.width as usize, self.size.height as usize);
        let rows = band_rows(width);
        let start = self.bands * rows;
        if start >= height {
            return if self.bytes.is_empty() {
                Progress::Impossible
            } else {
                Progress::Done
            };
        }
        let rows_here = rows.min(height - start);
        let row = width * 4;
        let band = pixels.get(start * row..(start + rows_here) * row);
        let units = width.div_ceil(UNIT) * rows.div_ceil(UNIT);
        let encoded = band.and_then(|band| encode(band, width, self.quality, units));
        if encoded.is_none_or(|encoded| self.append(&encoded).is_none()) {
            return Progress::Impossible;
        }
        self.bands += 1;
        if start + rows_here < height {
            return Progress::More;
        }
        self.bytes.extend(END_OF_IMAGE);
        Progress::Done
    }

    /// The JPEG picture, once all is done.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.bytes
    }

    /// Appends a band that was encoded as a picture of its own.
    fn append(&mut self, band: &[u8]) -> Option<()> {
        let (header, scan) = split(band)?;
        if self.bands == 0 {
            let start = self.bytes.len();
            self.bytes.extend(header);
            let height = u16::try_from(self.size.height).ok()?.to_be_bytes();
            let at = start + segment(header, START_OF_FRAME)?;
            // Marker, length, bits per sample, height.
            self.bytes.get_mut(at + 5..at + 7)?.copy_from_slice(&height);
        } else {
            let number = u8::try_from((self.bands - 1) % 8).ok()?;
            self.bytes.extend([MARKER, RESTART + number]);
        }
        self.bytes.extend(scan);
        Some(())
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
        let mut frame = Frame::new(size, 90);
        let mut steps = 1;
        while frame.step(pixels) == Progress::More {
            steps += 1;
        }
        (frame.finish(), steps)
    }

    #[test]
    fn bands_make_one_picture_that_an_independent_decoder_takes() {
        for (width, height) in [(1, 1), (17, 33), (640, 360), (1920, 1080), (3000, 70)] {
            let size = Size { width, height };
            let pixels = film_picture(size);

            let (jpeg, steps) = encoded(size, &pixels);

            let mut decoder = jpeg_decoder::Decoder::new(&*jpeg);
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
            assert_eq!(steps > 1, width * height > 200_000, "{width}x{height}");
        }
    }

    #[test]
    fn a_picture_that_is_not_there_is_refused() {
        for (width, height, bytes) in [(0, 5, 0), (5, 0, 0), (4, 4, 63), (70_000, 1, 280_000)] {
            let mut frame = Frame::new(Size { width, height }, 80);
            assert_eq!(frame.step(&vec![0; bytes]), Progress::Impossible);
        }
    }
}
