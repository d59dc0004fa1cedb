//! A disk's image, whatever it is stored in.

use std::io;

use super::layered::Layered;
use super::plain::Direction;
use super::raw::RawImage;

/// What is done to an image for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Move the request's buffers.
    Transfer { direction: Direction, offset: u64 },
    /// Make everything durable.
    Flush,
    /// Give bytes back.
    Discard { offset: u64, len: u64 },
    /// Make bytes zero; durable at once if so.
    Zero {
        offset: u64,
        len: u64,
        unmap: bool,
        durable: bool,
    },
}

impl Work {
    /// A word for it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Transfer {
                direction: Direction::Read,
                ..
            } => "read",
            Self::Transfer { .. } => "write",
            Self::Flush => "flush",
            Self::Discard { .. } => "discard",
            Self::Zero { .. } => "write of zeroes",
        }
    }

    /// Where it begins.
    pub(crate) fn offset(self) -> Option<u64> {
        match self {
            Self::Flush => None,
            Self::Transfer { offset, .. }
            | Self::Discard { offset, .. }
            | Self::Zero { offset, .. } => Some(offset),
        }
    }
}

/// An opened and locked image.
pub(crate) enum Image {
    Raw(RawImage),
    Layered(Box<Layered>),
}

impl Image {
    /// The disk's size in bytes.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::Raw(raw) => raw.size(),
            Self::Layered(layered) => layered.size(),
        }
    }

    /// The image whose bytes are the disk's, on which the kernel can do a request by itself.
    pub(crate) fn raw(&self) -> Option<&RawImage> {
        match self {
            Self::Raw(raw) => Some(raw),
            Self::Layered(_) => None,
        }
    }

    /// Does `work`, and returns when it is done.
    ///
    /// # Errors
    /// The host's.
    ///
    /// # Safety
    /// As of [`plain::transfer`](super::plain::transfer), for `buffers`.
    pub(crate) unsafe fn perform(&self, work: Work, buffers: &[libc::iovec]) -> io::Result<()> {
        match self {
            // SAFETY: by the caller's word.
            Self::Raw(raw) => unsafe { raw.perform(work, buffers) },
            Self::Layered(image) => match work {
                // SAFETY: by the caller's word.
                Work::Transfer { direction, offset } => unsafe {
                    image.transfer(direction, offset, buffers)
                },
                Work::Flush => image.flush(),
                Work::Discard { offset, len } => image.discard(offset, len),
                Work::Zero {
                    offset,
                    len,
                    unmap,
                    durable,
                } => {
                    image.write_zeroes(offset, len, unmap)?;
                    if durable { image.flush() } else { Ok(()) }
                }
            },
        }
    }

    /// Lets what the image says of itself into its file, which need not be durable.
    ///
    /// # Errors
    /// The host's.
    pub(crate) fn settle(&self) -> io::Result<()> {
        match self {
            Self::Raw(_) => Ok(()),
            Self::Layered(layered) => layered.settle(),
        }
    }

    /// Makes the disk `size` bytes long, which is more than it was.
    ///
    /// # Errors
    /// The host's.
    pub(crate) fn grow(&self, size: u64) -> io::Result<()> {
        match self {
            Self::Raw(raw) => raw.grow(size),
            Self::Layered(layered) => layered.grow(size),
        }
    }
}
