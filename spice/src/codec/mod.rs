//! How pixels become bytes on the wire: one file per image form.
//!
//! To add a form: a file with its encoder and the description of its bits, a variant of [`Codec`],
//! and an arm in [`Encoding::step`].

mod bitmap;
mod contest;
mod deflate;
mod dictionary;
mod glz;
mod lz;
mod lz4;
mod quic;
mod repeats;
mod texture;

use contest::Contest;
use deflate::Deflate;
pub use dictionary::Dictionary;
use dictionary::{Access, Lease};
use repeats::Table;
use zerocopy::IntoBytes;

pub(crate) use texture::is_gradual;

/// How images are compressed (spice-protocol `enums.h`, `SpiceImageCompression`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Codec {
    /// GLZ, or LZ for clients that keep no dictionary; for photographs and gradients QUIC, unless GLZ
    /// makes them shorter.
    #[default]
    Auto,
    /// The same without GLZ.
    AutoLz,
    /// As they are.
    Raw,
    /// LZ, which every client decodes.
    Lz,
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
        data.resize(usize::try_from(count).ok()?, 0);
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
    /// GLZ, 32-bit RGB.
    GlzRgb = 102,
    /// GLZ, 32-bit RGB, in a zlib stream.
    ZlibGlzRgb = 107,
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
    /// The form's own bytes, without the lengths that some forms put before them.
    pub data: Vec<u8>,
}

impl Image {
    /// Whether the wire has the length of `data` before it.
    #[must_use]
    pub fn has_length(&self) -> bool {
        self.kind != ImageKind::Bitmap
    }
}

/// What one display channel encodes its images with. Keeps its tables from image to image.
///
/// ```
/// use caraway_spice::codec::{Codec, Encoder, ImageKind, Pixels};
///
/// let mut encoder = Encoder::default();
/// let pixels = Pixels::new(64, 64, &[7; 64 * 64 * 4]).ok_or("wrong size")?;
/// let mut encoding = encoder.begin(Codec::Lz, pixels);
/// while encoding.step() {} // a server serves others here
/// let image = encoding.finish();
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
    /// Memory for pixels.
    spare: Vec<u32>,
    /// The last image, if it is to enter the dictionary.
    unsent: Option<Lease>,
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
        self.unsent = None;
        Pixels::in_memory(std::mem::take(&mut self.spare), width, height, read)
    }

    /// Takes back the memory of pixels that are not encoded.
    pub fn recycle(&mut self, pixels: Pixels) {
        self.spare = pixels.data;
        // A whole screen is rare, and need not be kept room for.
        self.spare.truncate(SPARE);
        self.spare.shrink_to(SPARE);
    }

    /// Starts to encode. The last image, unless it is [`sent`](Self::sent), never will be.
    #[must_use]
    pub fn begin(&mut self, codec: Codec, pixels: Pixels) -> Encoding<'_> {
        self.unsent = None;
        let gradual = matches!(codec, Codec::Auto | Codec::AutoLz) && texture::is_gradual(&pixels);
        let may_refer = match codec {
            Codec::Auto => !gradual || self.contest.enter(pixels.data.len()),
            Codec::Glz => true,
            _ => false,
        };
        let lease = match &self.access {
            Some(access) if may_refer => access.lease(pixels.data.len()),
            _ => None,
        };
        let state = match (codec, lease) {
            (Codec::Raw, _) => State::Raw,
            (Codec::Lz4, _) => State::Lz4(None),
            (_, Some(lease)) => State::Glz(glz::Encoder::new(&pixels, lease)),
            (Codec::Quic, None) => State::quic(&pixels, None),
            (_, None) if gradual => State::quic(&pixels, None),
            (_, None) => State::Lz(lz::Encoder::new(&pixels, &mut self.table)),
        };
        Encoding {
            encoder: self,
            pixels,
            state,
            gradual,
        }
    }

    /// The image that was finished last is on its way to the client.
    pub fn sent(&mut self) {
        if let Some(lease) = self.unsent.take() {
            lease.sent();
        }
    }
}

/// An image on its way through an [`Encoder`], a step at a time.
pub struct Encoding<'a> {
    encoder: &'a mut Encoder,
    pixels: Pixels,
    state: State,
    /// QUIC may be better.
    gradual: bool,
}

enum State {
    Raw,
    Lz(lz::Encoder),
    Glz(glz::Encoder),
    /// A finished GLZ stream, and how much of it went into the zlib stream.
    ZlibGlz {
        glz: Vec<u8>,
        lease: Lease,
        deflated: usize,
    },
    Lz4(Option<Vec<u8>>),
    Quic {
        encoder: Box<quic::Encoder>,
        /// A finished GLZ stream, which is sent if this one becomes longer.
        rival: Option<(Vec<u8>, Lease)>,
    },
}

impl State {
    fn quic(pixels: &Pixels, rival: Option<(Vec<u8>, Lease)>) -> Self {
        Self::Quic {
            encoder: Box::new(quic::Encoder::new(pixels)),
            rival,
        }
    }
}

/// Pixels of an image at most: a surface of 16384×16384.
const MAX_PIXELS: u64 = 1 << 28;
/// Pixels whose memory is kept: those of the largest piece.
const SPARE: usize = 256 * 1024;
/// Pixels encoded in a step: well under a millisecond.
const STEP: usize = 32 * 1024;
/// Bytes of a GLZ stream that are too few to gain anything.
const TINY: usize = 96;

impl Encoding<'_> {
    /// Encodes some more. `false` once all is done.
    pub fn step(&mut self) -> bool {
        match &mut self.state {
            State::Raw => false,
            State::Lz(encoder) => encoder.step(&self.pixels, &mut self.encoder.table, STEP),
            State::Glz(encoder) => encoder.step(STEP) || self.after_glz(),
            State::ZlibGlz { glz, deflated, .. } => {
                let rest = &glz[*deflated..];
                if rest.is_empty() {
                    return false;
                }
                let now = rest.len().min(STEP);
                *deflated += now;
                self.encoder.deflate.step(&rest[..now], now == rest.len());
                *deflated < glz.len()
            }
            State::Lz4(done) => {
                done.get_or_insert_with(|| lz4::encode(&self.pixels));
                false
            }
            State::Quic { encoder, rival } => {
                let goes_on = encoder.step(&self.pixels, STEP);
                let length = encoder.length();
                match rival.take_if(|(glz, _)| glz.len() < length) {
                    Some((glz, lease)) => self.deflate(glz, lease),
                    None => goes_on,
                }
            }
        }
    }

    /// Goes on with a complete GLZ stream: sends it, or lets QUIC try to be shorter.
    fn after_glz(&mut self) -> bool {
        let State::Glz(encoder) = std::mem::replace(&mut self.state, State::Raw) else {
            return false;
        };
        let (glz, lease) = encoder.finish();
        let pixels = self.pixels.data.len();
        if self.gradual && !self.encoder.contest.wins(glz.len(), pixels) {
            self.state = State::quic(&self.pixels, Some((glz, lease)));
            return true;
        }
        self.deflate(glz, lease)
    }

    /// Puts a GLZ stream into a zlib stream, if that is likely to pay: what copies made little shorter is
    /// no text, and would only take time.
    fn deflate(&mut self, glz: Vec<u8>, lease: Lease) -> bool {
        let pixels = self.pixels.data.len();
        if let State::Quic { encoder, .. } = &self.state {
            // It would have been longer still.
            self.encoder.contest.learn(encoder.length(), pixels);
        }
        let pays = glz.len() >= TINY && glz.len() <= pixels * 2;
        self.encoder.deflate.begin();
        self.state = State::ZlibGlz {
            deflated: if pays { 0 } else { glz.len() },
            glz,
            lease,
        };
        pays
    }

    /// The image: in the form asked for, or raw if that is not longer. Does what
    /// [`Encoding::step`] has left.
    #[must_use]
    pub fn finish(mut self) -> Image {
        while self.step() {}
        let mut unpacked = None;
        let (kind, data) = match self.state {
            State::Raw | State::Glz(_) | State::Lz4(None) => (ImageKind::Bitmap, Vec::new()),
            State::Lz(encoder) => (ImageKind::LzRgb, encoder.finish()),
            State::ZlibGlz { glz, lease, .. } => {
                self.encoder.unsent = Some(lease);
                unpacked = u32::try_from(glz.len()).ok();
                match self.encoder.deflate.finish() {
                    Some(zlib) if zlib.len() < glz.len() => (ImageKind::ZlibGlzRgb, zlib),
                    _ => (ImageKind::GlzRgb, glz),
                }
            }
            State::Lz4(Some(data)) => (ImageKind::Lz4, data),
            State::Quic { encoder, .. } => (ImageKind::Quic, encoder.finish()),
        };
        if kind == ImageKind::Quic {
            self.encoder
                .contest
                .learn(data.len(), self.pixels.data.len());
        }
        let image = |kind, data| Image {
            kind,
            width: self.pixels.width,
            height: self.pixels.height,
            unpacked: unpacked.filter(|_| kind == ImageKind::ZlibGlzRgb),
            data,
        };
        let image = if kind == ImageKind::Bitmap || data.len() >= bitmap::encoded_len(&self.pixels)
        {
            self.encoder.unsent = None;
            image(ImageKind::Bitmap, bitmap::encode(&self.pixels))
        } else {
            image(kind, data)
        };
        self.encoder.recycle(self.pixels);
        image
    }
}

#[cfg(test)]
mod tests;
