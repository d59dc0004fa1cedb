//! Draw commands.

use caraway_spice::{Point, Rect};
use zerocopy::{FromBytes, IntoBytes};

use super::wire::{self, WireRect};
use super::{Bitmap, Chunks, CommandError, MAX_CLIP_RECTS, some};
use crate::canvas::{Region, Rop};
use crate::device::{GuestAddress, Slots};

const CLIP_NONE: u32 = 0;
const CLIP_RECTS: u32 = 1;
const BRUSH_SOLID: u32 = 1;
const IMAGE_BITMAP: u8 = 0;
const IMAGE_SURFACE: u8 = 104;

/// A draw command (`QXLDrawable`).
pub(crate) struct Drawable {
    /// Which surface it draws on; 0 is the primary one.
    pub(crate) surface: u32,
    /// Where its effect is, unclipped.
    pub(crate) area: Rect,
    /// The pixels it changes.
    pub(crate) region: Region,
    /// What it does there.
    pub(crate) draw: Draw,
}

/// What a draw command does.
pub(crate) enum Draw {
    /// Nothing.
    Nop,
    /// One colour.
    Fill { color: u32, rop: Rop },
    /// An image whose `area` goes to the drawable's.
    Copy {
        source: Source,
        area: Rect,
        rop: Rop,
    },
    /// Pixels of the same surface, from here.
    CopyBits { from: Point },
    /// All black.
    Blackness,
    /// All white.
    Whiteness,
    /// The opposite of what is there.
    Invers,
    /// Something that can't be drawn: the name of it.
    Unsupported(&'static str),
}

/// Where an image comes from.
pub(crate) enum Source {
    /// Guest memory.
    Bitmap(Bitmap),
    /// An off-screen surface, or the primary one.
    Surface(u32),
}

impl Drawable {
    /// The draw command at `address`.
    pub(crate) fn decode(slots: &Slots, address: GuestAddress) -> Result<Self, CommandError> {
        let wire: wire::Drawable = slots.get(address)?;
        let area = Rect::from(wire.bbox);
        let region = match wire.clip_kind.get() {
            CLIP_NONE => area.into(),
            CLIP_RECTS => clip(slots, GuestAddress(wire.clip_data.get()), area)?,
            other => return Err(CommandError::unknown("clip type", other)),
        };
        Ok(Self {
            surface: wire.surface_id.get(),
            area,
            region,
            draw: Draw::decode(slots, wire.kind, &wire.body, area)?,
        })
    }
}

/// The pixels of `area` that are in the clip list at `address` (`QXLClipRects`).
fn clip(slots: &Slots, address: GuestAddress, area: Rect) -> Result<Region, CommandError> {
    let count: zerocopy::little_endian::U32 = slots.get(address)?;
    let count = count.get();
    CommandError::at_most("number of clip rectangles", count, MAX_CLIP_RECTS)?;
    let mut rects = vec![WireRect::from(Rect::default()); count as usize];
    let bytes = rects.as_mut_slice().as_mut_bytes();
    Chunks::chain(slots, address.plus(4), bytes.len() as u64)?.read(0, bytes)?;
    let clipped = rects
        .iter()
        .map(|rect| Rect::from(*rect).intersection(area));
    Ok(Region::union(clipped.collect()))
}

impl Draw {
    fn decode(slots: &Slots, kind: u8, body: &[u8; 68], area: Rect) -> Result<Self, CommandError> {
        Ok(match kind {
            0 => Self::Nop,
            1 => Self::fill(&part(body)),
            3 => Self::copy(slots, &part(body), area)?,
            4 => {
                let wire: wire::CopyBits = part(body);
                let (x, y) = (wire.x.get(), wire.y.get());
                let from = Point { x, y };
                Self::CopyBits { from }
            }
            6 => Self::unless_masked(&part(body), Self::Blackness),
            7 => Self::unless_masked(&part(body), Self::Whiteness),
            8 => Self::unless_masked(&part(body), Self::Invers),
            2 => Self::Unsupported("opaque"),
            5 => Self::Unsupported("blend"),
            9 => Self::Unsupported("rop3"),
            10 => Self::Unsupported("stroke"),
            11 => Self::Unsupported("text"),
            12 => Self::Unsupported("transparent"),
            13 => Self::Unsupported("alpha blend"),
            14 => Self::Unsupported("composite"),
            other => return Err(CommandError::unknown("draw type", other.into())),
        })
    }

    fn unless_masked(mask: &wire::Mask, draw: Self) -> Self {
        match some(mask.bitmap.get()) {
            Some(_) => Self::Unsupported("a mask"),
            None => draw,
        }
    }

    fn fill(wire: &wire::Fill) -> Self {
        if wire.brush_kind.get() != BRUSH_SOLID {
            return Self::Unsupported("a brush that is not one colour");
        }
        let fill = Self::Fill {
            color: wire.brush.get() as u32,
            rop: Rop::of_brush(wire.rop.get()),
        };
        Self::unless_masked(&wire.mask, fill)
    }

    fn copy(slots: &Slots, wire: &wire::Copy, to: Rect) -> Result<Self, CommandError> {
        let area = Rect::from(wire.src_area);
        if (area.width(), area.height()) != (to.width(), to.height()) {
            return Ok(Self::Unsupported("scaling"));
        }
        if some(wire.mask.bitmap.get()).is_some() {
            return Ok(Self::Unsupported("a mask"));
        }
        let Some(source) = Source::decode(slots, GuestAddress(wire.src_bitmap.get()))? else {
            return Ok(Self::Unsupported("a QUIC image"));
        };
        let rop = Rop::of_image(wire.rop.get());
        Ok(Self::Copy { source, area, rop })
    }
}

impl Source {
    /// The image at `address` (`QXLImage`); `None` if it is in a form that can't be read.
    fn decode(slots: &Slots, address: GuestAddress) -> Result<Option<Self>, CommandError> {
        let descriptor: wire::ImageDescriptor = slots.get(address)?;
        let body = address.plus(size_of::<wire::ImageDescriptor>() as u64);
        Ok(match descriptor.kind {
            IMAGE_BITMAP => Some(Self::Bitmap(Bitmap::decode(slots, body)?)),
            IMAGE_SURFACE => {
                let id: zerocopy::little_endian::U32 = slots.get(body)?;
                Some(Self::Surface(id.get()))
            }
            _ => None,
        })
    }
}

/// The structure at the start of a command's variable part, which has room for each of them.
fn part<T: FromBytes + IntoBytes>(body: &[u8]) -> T {
    let mut value = T::new_zeroed();
    let bytes = value.as_mut_bytes();
    let len = bytes.len().min(body.len());
    bytes[..len].copy_from_slice(&body[..len]);
    value
}
