//! How pixels become bytes on the wire: one file per image form.
//!
//! To add a form: a file with its encoder and the description of its bits, a variant of [`Codec`],
//! and an arm in [`Encoder::encode`].

mod bitmap;
mod cache;
mod contest;
mod deflate;
mod dictionary;
mod glz;
mod jpeg;
mod lz;
mod lz4;
mod palette;
mod quic;
pub mod quic_model;
mod repeats;
mod texture;

use cache::Cache;
use contest::Contest;
use deflate::Deflate;
pub use dictionary::Dictionary;
use dictionary::{Access, Lease};
pub use palette::Palette;
use palette::Palettes;
use repeats::Table;
use zerocopy::IntoBytes;

use crate::geometry::{Rect, Size};

pub(crate) use cache::{Known, MOST_UNKNOWN};
pub(crate) use jpeg::Jpeg;
pub(crate) use texture::{is_gradual, parts};

/// How images are compressed (spice-protocol `enums.h`, `SpiceImageCompression`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Codec {
    /// GLZ, or LZ for clients that keep no dictionary; for photographs and gradients QUIC, unless GLZ
    /// makes them shorter, and JPEG before it on links that are slow for them.
    #[default]
    Auto,
    /// The same without GLZ.
    AutoLz,
    /// As they are.
    Raw,
    /// LZ, which every client decodes.
    Lz,
    /// LZ, with a palette where there are at most 256 colours; only for clients that ask for LZ: of the others some
    /// do not decode it.
    LzPalette,
    /// GLZ, through zlib where that is shorter; LZ for clients that keep no dictionary.
    Glz,
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
        if count.checked_mul(4) != Some(bytes.len() as u64) {
            return None;
        }
        let copy = |pixels: &mut [u8]| {
            pixels.copy_from_slice(bytes);
            true
        };
        Self::in_memory(Vec::new(), width, height, copy)
    }

    /// The same of what `read` writes, in memory that was used before; `None` if it says `false`.
    fn in_memory(
        mut data: Vec<u32>,
        width: u32,
        height: u32,
        read: impl FnOnce(&mut [u8]) -> bool,
    ) -> Option<Self> {
        let count = u64::from(width) * u64::from(height);
        if count == 0 || count > MAX_PIXELS {
            return None;
        }
        let count = usize::try_from(count).ok()?;
        if data.capacity() < count {
            data = vec![0; count];
        }
        data.resize(count, 0);
        if !read(data.as_mut_bytes()) {
            return None;
        }
        for pixel in &mut data {
            *pixel = u32::from_le(*pixel) & 0x00ff_ffff;
        }
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

    /// Both.
    pub(crate) fn size(&self) -> Size {
        Size {
            width: self.width,
            height: self.height,
        }
    }

    /// The colour (0x00RRGGBB) that all pixels have, if there is one.
    #[must_use]
    pub fn solid(&self) -> Option<u32> {
        let (&first, rest) = self.data.split_first()?;
        rest.iter().all(|&pixel| pixel == first).then_some(first)
    }

    fn row(&self, y: usize) -> &[u32] {
        let width = self.width as usize;
        &self.data[y * width..][..width]
    }

    /// An image of this size.
    fn image(&self, kind: ImageKind, data: Vec<u8>) -> Image {
        Image {
            kind,
            width: self.width,
            height: self.height,
            unpacked: None,
            palette: None,
            keep: false,
            data,
        }
    }

    /// Writes the rows of `part`, which is all there, without gaps.
    pub(crate) fn copy_part(&self, part: Rect, bytes: &mut [u8]) {
        let (stride, width) = (self.width as usize, part.width() as usize);
        let rows = self.data.chunks_exact(stride).skip(part.top as usize);
        for (to, row) in bytes.chunks_exact_mut(width * 4).zip(rows) {
            to.copy_from_slice(row[part.left as usize..][..width].as_bytes());
        }
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
    /// LZ, indices of a palette.
    LzPalette = 100,
    /// LZ, 32-bit RGB.
    LzRgb = 101,
    /// GLZ, 32-bit RGB.
    GlzRgb = 102,
    /// GLZ, 32-bit RGB, in a zlib stream.
    ZlibGlzRgb = 107,
    /// JPEG, which is not exact.
    Jpeg = 105,
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
    /// Of [`ImageKind::ZlibGlzRgb`], the bytes of what is in the zlib stream.
    pub unpacked: Option<u32>,
    /// Of [`ImageKind::LzPalette`], the colours.
    pub palette: Option<Palette>,
    /// Whether the client is to keep it.
    pub keep: bool,
    /// The form's own bytes, without the lengths that some forms put before them.
    pub data: Vec<u8>,
}

impl Image {
    /// Whether the wire has the length of `data` before it.
    #[must_use]
    pub fn has_length(&self) -> bool {
        self.kind != ImageKind::Bitmap
    }

    /// Bytes of its form and its colours.
    fn len(&self) -> usize {
        self.data.len() + self.palette.as_ref().map_or(0, Palette::len)
    }
}

/// What one display channel encodes its images with. Keeps its tables from image to image.
///
/// ```
/// use caraway_spice::codec::{Codec, Encoder, ImageKind, Pixels};
///
/// let mut encoder = Encoder::default();
/// let pixels = Pixels::new(64, 64, &[7; 64 * 64 * 4]).ok_or("wrong size")?;
/// let image = encoder.encode(Codec::Lz, pixels);
/// assert_eq!(image.kind, ImageKind::LzRgb);
/// assert!(image.data.len() < 200);
/// encoder.sent(); // later ones may refer to it
/// # Ok::<(), &str>(())
/// ```
#[derive(Debug, Default)]
pub struct Encoder {
    table: Table,
    deflate: Deflate,
    access: Option<Access>,
    contest: Contest,
    /// Memory for pixels, what was used last at the end.
    spares: Vec<Vec<u32>>,
    /// The last image, if it is to enter the dictionary.
    unsent: Option<Lease>,
    palettes: Palettes,
    cache: Cache,
    /// The last image, if the client is to keep it.
    unkept: Option<Pixels>,
}

impl Encoder {
    /// An encoder for a client that keeps the last `window` pixels of its images in `dictionary`,
    /// which it calls `id` (`SPICE_MSGC_DISPLAY_INIT`).
    #[must_use]
    pub fn with_dictionary(dictionary: &Dictionary, id: u8, window: usize) -> Self {
        Self {
            access: Some(Access::new(dictionary, id, window)),
            ..Self::default()
        }
    }

    /// The same, if the client also keeps images of so many pixels together.
    pub(crate) fn with_cache(self, pixels: usize) -> Self {
        Self {
            cache: Cache::new(pixels),
            ..self
        }
    }

    /// Whether the client keeps any image.
    pub(crate) fn knows_any(&self) -> bool {
        !self.cache.is_empty()
    }

    /// What of a part of new pixels the client keeps, and what not.
    pub(crate) fn known(&mut self, pixels: &Pixels, part: Rect) -> (Vec<Known>, Vec<Rect>) {
        self.cache.find(pixels, part)
    }

    /// Pixels in the memory of the image before: what `read` writes, rows of `width * 4` bytes. `None` if
    /// it says that it could not, or if these are no pixels, or more than a surface has. The last image,
    /// unless it is [`sent`](Self::sent), never will be.
    #[must_use]
    pub fn pixels(
        &mut self,
        width: u32,
        height: u32,
        read: impl FnOnce(&mut [u8]) -> bool,
    ) -> Option<Pixels> {
        self.forget_last();
        let spare = self.spares.pop().unwrap_or_default();
        Pixels::in_memory(spare, width, height, read)
    }

    /// Takes back the memory of pixels that are not encoded.
    pub fn recycle(&mut self, pixels: Pixels) {
        if self.spares.len() < SPARES {
            let mut spare = pixels.data;
            // A whole screen is rare, and need not be kept room for.
            spare.truncate(SPARE);
            spare.shrink_to(SPARE);
            self.spares.push(spare);
        }
    }

    /// The image of these pixels: in the form asked for, or raw if that is not longer. The last image,
    /// unless it is [`sent`](Self::sent), never will be.
    #[must_use]
    pub fn encode(&mut self, codec: Codec, pixels: Pixels) -> Image {
        self.forget_last();
        let is_ours = matches!(codec, Codec::Auto | Codec::AutoLz);
        let is_gradual = is_ours && is_gradual(&pixels);
        let image = match codec {
            Codec::Raw => None,
            Codec::Auto if is_gradual => self.gradual(&pixels),
            Codec::AutoLz if is_gradual => quic(&pixels, usize::MAX),
            Codec::Auto | Codec::Glz => match self.lease(&pixels) {
                Some(lease) => Some(self.glz(&pixels, lease)),
                None => Some(self.lz(&pixels)),
            },
            Codec::AutoLz | Codec::Lz => Some(self.lz(&pixels)),
            Codec::LzPalette => Some(self.lz_palette(&pixels)),
            Codec::Lz4 => Some(pixels.image(ImageKind::Lz4, lz4::encode(&pixels))),
            Codec::Quic => quic(&pixels, usize::MAX),
        };
        let mut image = image
            .filter(|image| image.len() < bitmap::encoded_len(&pixels))
            .unwrap_or_else(|| {
                self.unsent = None;
                self.palettes.forget_last();
                pixels.image(ImageKind::Bitmap, bitmap::encode(&pixels))
            });
        let count = pixels.data.len();
        // What GLZ makes little of, it repeats by itself.
        image.keep = is_gradual && image.data.len() * 4 > count && self.cache.takes(count);
        if image.keep {
            self.unkept = Some(pixels);
        } else {
            self.recycle(pixels);
        }
        image
    }

    fn forget_last(&mut self) {
        self.unsent = None;
        self.palettes.forget_last();
        if let Some(pixels) = self.unkept.take() {
            self.recycle(pixels);
        }
    }

    /// A lossy image of a photograph or gradient; `None` of anything else, or if it would be no shorter than
    /// exact ones mostly are.
    pub(crate) fn encode_lossy(&mut self, pixels: &Pixels) -> Option<Image> {
        self.forget_last();
        let worthwhile = pixels.data.len() >= LOSSY_PIXELS && is_gradual(pixels);
        let jpeg = Jpeg::new(pixels.size(), LOSSY_QUALITY).filter(|_| worthwhile)?;
        let data = jpeg.whole(pixels.data.as_bytes())?;
        (data.len() <= pixels.data.len()).then(|| pixels.image(ImageKind::Jpeg, data))
    }

    /// The dictionary, if there is one for such an image.
    fn lease(&self, pixels: &Pixels) -> Option<Lease> {
        self.access.as_ref()?.lease(pixels.data.len())
    }

    fn lz(&mut self, pixels: &Pixels) -> Image {
        pixels.image(ImageKind::LzRgb, lz::encode(pixels, &mut self.table))
    }

    fn lz_palette(&mut self, pixels: &Pixels) -> Image {
        let Some((indices, palette)) = self.palettes.index(pixels) else {
            return self.lz(pixels);
        };
        let data = lz::encode_indices(pixels, &indices, &mut self.table);
        Image {
            palette: Some(palette),
            ..pixels.image(ImageKind::LzPalette, data)
        }
    }

    fn glz(&mut self, pixels: &Pixels, mut lease: Lease) -> Image {
        let stream = glz::encode(pixels, &mut lease);
        self.packed(pixels, stream, lease)
    }

    /// A photograph or gradient: GLZ or QUIC, whoever is likely to be shorter.
    fn gradual(&mut self, pixels: &Pixels) -> Option<Image> {
        let count = pixels.data.len();
        let enters = self.access.is_some() && self.contest.enter(count);
        let mut rival = None;
        if enters && let Some(mut lease) = self.lease(pixels) {
            let stream = glz::encode(pixels, &mut lease);
            if self.contest.wins(stream.len(), count) {
                return Some(self.packed(pixels, stream, lease));
            }
            rival = Some((stream, lease));
        }
        let most = rival
            .as_ref()
            .map_or(usize::MAX, |(stream, _)| stream.len());
        let image = quic(pixels, most);
        let bytes = image.as_ref().map_or(most, |image| image.data.len());
        self.contest.learn(bytes, count);
        match (image, rival) {
            (None, Some((stream, lease))) => Some(self.packed(pixels, stream, lease)),
            (image, _) => image,
        }
    }

    /// A GLZ stream, in a zlib stream if that is shorter. What copies made little shorter is no text: zlib
    /// would only take time.
    fn packed(&mut self, pixels: &Pixels, stream: Vec<u8>, lease: Lease) -> Image {
        self.unsent = Some(lease);
        let pays = stream.len() >= TINY && stream.len() <= pixels.data.len() * 2;
        let zlib = pays.then(|| self.deflate.shorten(&stream)).flatten();
        match zlib {
            Some(zlib) => Image {
                unpacked: u32::try_from(stream.len()).ok(),
                ..pixels.image(ImageKind::ZlibGlzRgb, zlib)
            },
            None => pixels.image(ImageKind::GlzRgb, stream),
        }
    }

    /// The image that was encoded last is on its way to the client.
    pub fn sent(&mut self) {
        self.palettes.sent();
        if let Some(lease) = self.unsent.take() {
            lease.sent();
        }
    }

    /// The client will keep the image that was encoded last by this number, if it is to be [kept](Image::keep).
    /// What it has to forget before.
    pub(crate) fn keep(&mut self, image: u64) -> Vec<u64> {
        let Some(pixels) = self.unkept.take() else {
            return Vec::new();
        };
        let forgets = self.cache.keep(image, &pixels);
        self.recycle(pixels);
        forgets
    }
}

/// Pixels of an image at most: a surface of 16384×16384.
const MAX_PIXELS: u64 = 1 << 28;
/// Pixels whose memory is kept: those of the largest piece, …
const SPARE: usize = 256 * 1024;
/// … and of a part of it.
const SPARES: usize = 2;
/// Pixels of a lossy image at least: the tables of a JPEG picture alone have some 600 bytes.
const LOSSY_PIXELS: usize = 2048;
/// Quality of lossy images, from 1 to 100: at first sight nothing is missing.
const LOSSY_QUALITY: u8 = 85;
/// Bytes of a GLZ stream that are too few to gain anything.
const TINY: usize = 96;

/// A QUIC image; `None` if it has more than `most` bytes.
fn quic(pixels: &Pixels, most: usize) -> Option<Image> {
    let data = quic::encode(pixels, most)?;
    Some(pixels.image(ImageKind::Quic, data))
}

#[cfg(test)]
mod tests;
