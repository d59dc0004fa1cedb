//! Video encoders for films that are watched as they are made: VP8 (RFC 6386) and H.264 (ITU-T H.264).
//!
//! Both are written in C and built in only if the cargo features `vp8` and `h264` ask for it; without them
//! this crate has none and [`open`] says so. What is `unsafe` about them stays behind [`Encoder`].
//!
//! An encoder describes a picture by those before it. So each picture that it made has to reach the
//! decoder, in order; if one does not, the next must be a key picture, which stands for itself. Pictures
//! come out one for one and at once: nothing looks ahead, and none is left out to save bits. Each encoder
//! works on the thread that calls it and starts none.

#[cfg(feature = "h264")]
mod h264;
mod i420;
#[cfg(test)]
mod tests;
#[cfg(feature = "vp8")]
mod vp8;

use std::fmt;
use std::time::Duration;

pub use i420::I420;

/// What films are encoded as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// RFC 6386.
    Vp8,
    /// ITU-T H.264, constrained baseline profile, as a byte stream (annex B).
    H264,
}

impl Codec {
    /// Whether it is built in.
    #[must_use]
    pub const fn is_built_in(self) -> bool {
        match self {
            Self::Vp8 => cfg!(feature = "vp8"),
            Self::H264 => cfg!(feature = "h264"),
        }
    }

    /// Whether it can do pictures of this size, in pixels: even sides within what its library takes.
    #[must_use]
    pub const fn takes(self, width: u32, height: u32) -> bool {
        const LEAST: u32 = 16;
        let (long, short) = match self {
            // RFC 6386, 9.1: 14 bits.
            Self::Vp8 => (16_383, 16_383),
            // Level 5.2, as openh264 has no higher one.
            Self::H264 => (3840, 2160),
        };
        let (longer, shorter) = if width < height {
            (height, width)
        } else {
            (width, height)
        };
        let is_even = width.is_multiple_of(2) && height.is_multiple_of(2);
        is_even && shorter >= LEAST && shorter <= short && longer <= long
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vp8 => "VP8",
            Self::H264 => "H.264",
        })
    }
}

/// What an encoder is to make.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Pixels across, of every picture.
    pub width: u32,
    /// Pixels down, of every picture.
    pub height: u32,
    /// Pictures a second, about: how many of them share a second's bits.
    pub rate: f64,
    /// Bits a second.
    pub bits: u32,
}

/// A picture for the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// What a decoder takes at once.
    pub bytes: Vec<u8>,
    /// It refers to no picture before it.
    pub is_key: bool,
}

/// An encoder of one film.
pub trait Encoder: Send {
    /// Encodes the film's next picture, which it shows so long after its start; a key picture if that is wanted.
    /// Its first one always is. Times go up.
    ///
    /// # Errors
    /// If the picture has another size than the film, or the library refuses it. Then the next picture should
    /// be a key picture.
    fn encode(&mut self, picture: &I420, at: Duration, wants_key: bool) -> Result<Encoded, Error>;

    /// From the next picture on so many bits a second.
    ///
    /// # Errors
    /// If the library refuses; then it stays as it was.
    fn set_bits(&mut self, bits: u32) -> Result<(), Error>;
}

/// Why a film is not encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It was built without the codec.
    #[error("{0} is not built in")]
    NotBuiltIn(Codec),
    /// [`Codec::takes`] says no, or the film has another size.
    #[error("{codec} can not do a picture of {width} × {height} pixels here")]
    Size {
        /// Which codec.
        codec: Codec,
        /// Pixels across.
        width: u32,
        /// Pixels down.
        height: u32,
    },
    /// The codec's library refused.
    #[error("{codec}: could not {what} ({code})")]
    Library {
        /// Which codec.
        codec: Codec,
        /// What it was asked for.
        what: &'static str,
        /// Its reason, as it numbers them.
        code: i64,
    },
}

/// Opens an encoder.
///
/// # Errors
/// If the codec is not built in, can not do such pictures, or its library refuses.
pub fn open(codec: Codec, settings: Settings) -> Result<Box<dyn Encoder>, Error> {
    let Settings { width, height, .. } = settings;
    if !codec.is_built_in() {
        return Err(Error::NotBuiltIn(codec));
    }
    if !codec.takes(width, height) {
        return Err(Error::Size {
            codec,
            width,
            height,
        });
    }
    match codec {
        #[cfg(feature = "vp8")]
        Codec::Vp8 => Ok(Box::new(vp8::Vp8::open(settings)?)),
        #[cfg(feature = "h264")]
        Codec::H264 => Ok(Box::new(h264::H264::open(settings)?)),
        #[cfg(not(all(feature = "vp8", feature = "h264")))]
        codec => Err(Error::NotBuiltIn(codec)),
    }
}
