//! Commands as the guest wrote them, copied once, checked, and turned into types of our own.
//!
//! After that nothing depends on guest memory but the pixels of images, whose places are resolved
//! already. Every loop here is bounded by a constant of this module.

mod chunks;
mod color_cursor;
mod cursor;
mod draw;
mod image;
mod path;
mod quic;
mod string;
mod surface;
mod update;
pub(crate) mod wire;

pub(crate) use chunks::Chunks;
pub(crate) use cursor::CursorCommand;
pub(crate) use draw::Drawable;
pub(crate) use image::{BitmapPixels, Image};
pub(crate) use surface::{SurfaceCommand, SurfaceShape};
pub(crate) use update::UpdateCommand;

use crate::canvas::from_555;
use crate::device::{AddressError, GuestAddress};

/// The most pieces that one chain of chunks may have: a line each of the tallest screen, and then
/// some.
const MAX_CHUNKS: usize = 16384;
/// The most rectangles that a clip list may have.
const MAX_CLIP_RECTS: u32 = 4096;
/// The most pixels across or down an image, a surface or a screen.
pub(crate) const MAX_SIDE: u32 = 16384;
/// The most bytes that a packed image becomes: the largest frame buffer of all.
const MAX_UNPACKED: u64 = 256 << 20;
/// The most bytes of a path, or of the letters of a text.
const MAX_SHAPES: u64 = 1 << 20;
/// How far from the top left corner of a surface anything may be drawn or taken.
const MAX_DISTANCE: i32 = 1 << 24;
/// The most pixels across or down a cursor.
const MAX_CURSOR_SIDE: u16 = 512;

/// How a driver writes its commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// As all do that came after the first.
    Native,
    /// As the first did, in the compatibility modes: there is one surface only.
    Compat,
    /// The same in modes of 16 bits, where colours of brushes and palettes have 5 bits each.
    Compat16,
}

impl Dialect {
    /// A colour as it is drawn.
    const fn color(self, color: u32) -> u32 {
        match self {
            Self::Native | Self::Compat => color,
            Self::Compat16 => from_555(color as u16),
        }
    }
}

/// What an entry of the command ring is (`QXLCommand.type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CommandKind {
    Nop,
    Draw,
    Update,
    Cursor,
    Message,
    Surface,
}

impl CommandKind {
    pub(crate) const fn of(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Nop,
            1 => Self::Draw,
            2 => Self::Update,
            3 => Self::Cursor,
            4 => Self::Message,
            5 => Self::Surface,
            _ => return None,
        })
    }
}

/// Why a command means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CommandError {
    /// Something it points to is not there.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// A number that names one of several kinds names none.
    #[error("{what} {value} is unknown")]
    Unknown {
        /// What is named.
        what: &'static str,
        /// Its number.
        value: u32,
    },
    /// A number is larger than anything sensible.
    #[error("{what} {value} is over {max}")]
    TooLarge {
        /// What is counted.
        what: &'static str,
        /// How many.
        value: u64,
        /// The most there may be.
        max: u64,
    },
    /// It is something that nobody knows how to do.
    #[error("drawing {0} is not possible")]
    Unsupported(&'static str),
    /// A rectangle has its sides the wrong way round, or is far away.
    #[error("{what} is no area: {area:?}")]
    Area {
        /// What should be one.
        what: &'static str,
        /// What it is.
        area: caraway_spice::Rect,
    },
    /// Rows of this many bytes do not hold that many pixels.
    #[error("a stride of {stride} bytes is impossible for {width} pixels")]
    Stride {
        /// Bytes from row to row.
        stride: i64,
        /// Pixels across.
        width: u32,
    },
    /// A chain of chunks ends too early.
    #[error("the data has {found} bytes instead of {expected}")]
    Short {
        /// How many bytes there are.
        found: u64,
        /// How many there should be.
        expected: u64,
    },
}

impl CommandError {
    pub(crate) const fn unknown(what: &'static str, value: u32) -> Self {
        Self::Unknown { what, value }
    }

    /// Refuses a `value` over `max`.
    pub(crate) fn at_most(
        what: &'static str,
        value: impl Into<u64>,
        max: impl Into<u64>,
    ) -> Result<(), Self> {
        let (value, max) = (value.into(), max.into());
        if value > max {
            return Err(Self::TooLarge { what, value, max });
        }
        Ok(())
    }
}

/// Address 0 stands for "nothing".
fn some(address: u64) -> Option<GuestAddress> {
    (address != 0).then_some(GuestAddress(address))
}
