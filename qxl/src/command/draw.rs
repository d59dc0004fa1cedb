//! Draw commands.

use caraway_spice::{Point, Rect};
use zerocopy::{FromBytes, IntoBytes};

use super::wire::{self, WireRect};
use super::{
    Chunks, CommandError, Dialect, Image, MAX_CLIP_RECTS, MAX_DISTANCE, path, some, string,
};
use crate::canvas::{
    AlphaBlend, Brush, Composite, Draw, Filter, Mask, Operand, Operator, Region, Repeat, Rop, Rop3,
    Source, Stroke, Text, Transform,
};
use crate::device::{GuestAddress, Slots};

const CLIP_NONE: u32 = 0;
const CLIP_RECTS: u32 = 1;

// `SpiceBrushType`, spice-protocol `enums.h`.
const BRUSH_NONE: u32 = 0;
const BRUSH_SOLID: u32 = 1;
const BRUSH_PATTERN: u32 = 2;

// `SpiceImageScaleMode`.
const SCALE_INTERPOLATE: u8 = 0;
const SCALE_NEAREST: u8 = 1;

/// `SpiceMaskFlags`.
const MASK_INVERS: u8 = 1;

// `SpiceAlphaFlags`.
const DEST_HAS_ALPHA: u16 = 1;
const SRC_SURFACE_HAS_ALPHA: u16 = 1 << 1;

/// The raster operation that is the only one for letters with something behind them.
const OP_PUT: u16 = 1 << 3;

// Bits of `SpiceCompositeFlags` after the number of the operator.
const COMPOSITE_SOURCE_FILTER: u32 = 8;
const COMPOSITE_MASK_FILTER: u32 = 11;
const COMPOSITE_SOURCE_REPEAT: u32 = 14;
const COMPOSITE_MASK_REPEAT: u32 = 16;
const COMPOSITE_COMPONENT_ALPHA: u32 = 1 << 18;
const COMPOSITE_HAS_MASK: u32 = 1 << 19;
const COMPOSITE_HAS_SOURCE_TRANSFORM: u32 = 1 << 20;
const COMPOSITE_HAS_MASK_TRANSFORM: u32 = 1 << 21;
const COMPOSITE_SOURCE_OPAQUE: u32 = 1 << 22;
const COMPOSITE_DEST_OPAQUE: u32 = 1 << 24;

/// A draw command (`QXLDrawable`).
pub(crate) struct Drawable {
    /// Which surface it draws on; 0 is the primary one.
    pub(crate) surface: u32,
    /// Where its effect is, unclipped.
    pub(crate) area: Rect,
    /// The pixels it changes.
    pub(crate) region: Region,
    /// What it does there.
    pub(crate) draw: Draw<Image>,
}

/// What the commands of every dialect begin with.
struct Common {
    surface: u32,
    kind: u8,
    /// The part of the surface that is an image with no address.
    itself: Option<WireRect>,
    bbox: WireRect,
    clip_kind: u32,
    clip_data: GuestAddress,
    body: [u8; 68],
}

impl From<wire::Drawable> for Common {
    fn from(wire: wire::Drawable) -> Self {
        Self {
            surface: wire.surface_id.get(),
            kind: wire.kind,
            itself: (wire.self_bitmap != 0).then_some(wire.self_bitmap_area),
            bbox: wire.bbox,
            clip_kind: wire.clip_kind.get(),
            clip_data: GuestAddress(wire.clip_data.get()),
            body: wire.body,
        }
    }
}

impl From<wire::CompatDrawable> for Common {
    fn from(wire: wire::CompatDrawable) -> Self {
        Self {
            surface: 0,
            kind: wire.kind,
            itself: (wire.bitmap_offset.get() != 0).then_some(wire.bitmap_area),
            bbox: wire.bbox,
            clip_kind: wire.clip_kind.get(),
            clip_data: GuestAddress(wire.clip_data.get()),
            body: wire.body,
        }
    }
}

impl Drawable {
    /// The draw command at `address`.
    pub(crate) fn decode(
        slots: &Slots,
        address: GuestAddress,
        dialect: Dialect,
    ) -> Result<Self, CommandError> {
        let common: Common = match dialect {
            Dialect::Native => slots.get::<wire::Drawable>(address)?.into(),
            Dialect::Compat | Dialect::Compat16 => {
                slots.get::<wire::CompatDrawable>(address)?.into()
            }
        };
        let area = place("where something is drawn", common.bbox)?;
        let region = match common.clip_kind {
            CLIP_NONE => area.into(),
            CLIP_RECTS => clip(slots, common.clip_data, area)?,
            other => return Err(CommandError::unknown("clip type", other)),
        };
        let reader = Reader {
            slots,
            dialect,
            // Windows' driver names one even where there is an image, and then it does not matter.
            itself: common
                .itself
                .and_then(|area| place("what is read of the surface itself", area).ok()),
        };
        Ok(Self {
            surface: common.surface,
            area,
            region,
            draw: reader.draw(&common, area)?,
        })
    }
}

/// What it takes to read the parts of a draw command.
struct Reader<'a> {
    slots: &'a Slots,
    dialect: Dialect,
    itself: Option<Rect>,
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

/// A rectangle with its sides the right way round and not far away.
fn place(what: &'static str, wire: WireRect) -> Result<Rect, CommandError> {
    let area = Rect::from(wire);
    let Rect {
        left,
        top,
        right,
        bottom,
    } = area;
    let near = |side| (-MAX_DISTANCE..=MAX_DISTANCE).contains(&side);
    if left <= right && top <= bottom && [left, top, right, bottom].into_iter().all(near) {
        Ok(area)
    } else {
        Err(CommandError::Area { what, area })
    }
}

impl Reader<'_> {
    /// What a drawable does to `area`.
    fn draw(&self, common: &Common, area: Rect) -> Result<Draw<Image>, CommandError> {
        let body = &common.body;
        Ok(match common.kind {
            0 => Draw::Nop,
            1 => {
                let wire: wire::Fill = part(body);
                Draw::Fill {
                    brush: self.brush(&wire.brush)?,
                    rop: Rop::of_brush(wire.rop.get()),
                    mask: self.mask(&wire.mask)?,
                }
            }
            2 => {
                let wire: wire::Opaque = part(body);
                Draw::Opaque {
                    source: self.source(wire.image.get(), wire.area, wire.scale_mode)?,
                    brush: self.brush(&wire.brush)?,
                    rop: Rop::of_brush_on_image(wire.rop.get()),
                    mask: self.mask(&wire.mask)?,
                }
            }
            // A blend is a copy by another name.
            3 | 5 => {
                let wire: wire::Copy = part(body);
                Draw::Copy {
                    source: self.source(wire.image.get(), wire.area, wire.scale_mode)?,
                    rop: Rop::of_image(wire.rop.get()),
                    mask: self.mask(&wire.mask)?,
                }
            }
            4 => copy_bits(&part(body), common.surface, area)?,
            6 => self.solid(&part(body), Brush::Solid(0), Rop::PUT)?,
            7 => self.solid(&part(body), Brush::Solid(u32::MAX), Rop::PUT)?,
            8 => self.solid(&part(body), Brush::None, Rop::INVERS)?,
            9 => {
                let wire: wire::Rop3 = part(body);
                Draw::Rop3 {
                    source: self.source(wire.image.get(), wire.area, wire.scale_mode)?,
                    brush: self.brush(&wire.brush)?,
                    rop: Rop3(wire.rop),
                    mask: self.mask(&wire.mask)?,
                }
            }
            10 => self.stroke(&part(body))?,
            11 => self.text(&part(body))?,
            12 => {
                let wire: wire::Transparent = part(body);
                Draw::Transparent {
                    source: self.source(wire.image.get(), wire.area, SCALE_NEAREST)?,
                    color: wire.color.get(),
                }
            }
            13 => {
                let wire = self.alpha_blend(body);
                let flags = wire.flags.get();
                let source = self.source(wire.image.get(), wire.area, SCALE_NEAREST)?;
                let surface = matches!(source.image, Image::Surface(_));
                Draw::AlphaBlend(AlphaBlend {
                    source,
                    alpha: wire.alpha,
                    source_has_alpha: surface && flags & SRC_SURFACE_HAS_ALPHA != 0,
                    dest_has_alpha: flags & DEST_HAS_ALPHA != 0,
                })
            }
            14 => self.composite(&part(body))?,
            other => return Err(CommandError::unknown("draw type", other.into())),
        })
    }

    fn source(
        &self,
        image: u64,
        area: WireRect,
        scale_mode: u8,
    ) -> Result<Source<Image>, CommandError> {
        Ok(Source {
            image: self.image(image)?,
            area: place("the drawn part of an image", area)?,
            filter: match scale_mode {
                SCALE_INTERPOLATE => Filter::Bilinear,
                SCALE_NEAREST => Filter::Nearest,
                other => return Err(CommandError::unknown("scale mode", other.into())),
            },
        })
    }

    fn brush(&self, wire: &wire::Brush) -> Result<Brush<Image>, CommandError> {
        Ok(match wire.kind.get() {
            BRUSH_NONE => Brush::None,
            BRUSH_SOLID => Brush::Solid(self.dialect.color(wire.value.get() as u32)),
            BRUSH_PATTERN => Brush::Pattern {
                image: self.image(wire.value.get())?,
                origin: point(wire.x.get(), wire.y.get()),
            },
            other => return Err(CommandError::unknown("brush type", other)),
        })
    }

    fn mask(&self, wire: &wire::Mask) -> Result<Option<Mask<Image>>, CommandError> {
        if some(wire.bitmap.get()).is_none() {
            return Ok(None);
        }
        Ok(Some(Mask {
            image: self.image(wire.bitmap.get())?,
            corner: point(wire.x.get(), wire.y.get()),
            inverted: wire.flags & MASK_INVERS != 0,
        }))
    }

    fn solid(
        &self,
        wire: &wire::Mask,
        brush: Brush<Image>,
        rop: Rop,
    ) -> Result<Draw<Image>, CommandError> {
        let mask = self.mask(wire)?;
        Ok(Draw::Fill { brush, rop, mask })
    }

    fn stroke(&self, wire: &wire::Stroke) -> Result<Draw<Image>, CommandError> {
        Ok(Draw::Stroke(Stroke {
            lines: path::lines(self.slots, GuestAddress(wire.path.get()))?,
            dashes: path::dashes(self.slots, wire)?,
            brush: self.brush(&wire.brush)?,
            rop: Rop::of_brush(wire.rop.get()),
        }))
    }

    fn text(&self, wire: &wire::Text) -> Result<Draw<Image>, CommandError> {
        let area = Rect::from(wire.back_area);
        let back = if area.is_empty() {
            None
        } else if wire.rop.get() == OP_PUT {
            Some((area, self.brush(&wire.back_brush)?))
        } else {
            return Err(CommandError::Unsupported("letters by raster operation"));
        };
        Ok(Draw::Text(Text {
            glyphs: string::glyphs(self.slots, GuestAddress(wire.string.get()))?,
            brush: self.brush(&wire.brush)?,
            back,
        }))
    }

    fn composite(&self, wire: &wire::Composite) -> Result<Draw<Image>, CommandError> {
        let flags = wire.flags.get();
        let number = flags & 0xff;
        let operator = Operator::of(number).ok_or(CommandError::unknown("operator", number))?;
        let has = |flag: u32| flags & flag != 0;
        let operand =
            |image: u64, transform: Option<u64>, filter: u32, repeat: u32, origin: [_; 2]| {
                let [x, y] = origin.map(|at: zerocopy::little_endian::I16| at.get().into());
                Ok::<_, CommandError>(Operand {
                    image: self.image(image)?,
                    transform: match transform {
                        Some(address) => {
                            let wire: wire::Transform = self.slots.get(GuestAddress(address))?;
                            Transform(wire.rows.map(|row| row.map(|number| number.get())))
                        }
                        None => Transform::IDENTITY,
                    },
                    filter: filter_of(flags >> filter & 7)?,
                    repeat: repeat_of(flags >> repeat & 3),
                    origin: point(x, y),
                    opaque: false,
                })
            };
        let transform =
            |flag: u32, address: zerocopy::little_endian::U64| has(flag).then(|| address.get());
        let source = operand(
            wire.source.get(),
            transform(COMPOSITE_HAS_SOURCE_TRANSFORM, wire.source_transform),
            COMPOSITE_SOURCE_FILTER,
            COMPOSITE_SOURCE_REPEAT,
            wire.source_origin,
        )?;
        let mask = if has(COMPOSITE_HAS_MASK) {
            Some(operand(
                wire.mask.get(),
                transform(COMPOSITE_HAS_MASK_TRANSFORM, wire.mask_transform),
                COMPOSITE_MASK_FILTER,
                COMPOSITE_MASK_REPEAT,
                wire.mask_origin,
            )?)
        } else {
            None
        };
        let surface = matches!(source.image, Image::Surface(_));
        Ok(Draw::Composite(Composite {
            operator,
            source: Operand {
                opaque: surface && has(COMPOSITE_SOURCE_OPAQUE),
                ..source
            },
            mask,
            component_alpha: has(COMPOSITE_COMPONENT_ALPHA),
            dest_opaque: has(COMPOSITE_DEST_OPAQUE),
        }))
    }

    /// An alpha blend; the first drivers had no flags for it.
    fn alpha_blend(&self, body: &[u8]) -> wire::AlphaBlend {
        if self.dialect == Dialect::Native {
            return part(body);
        }
        let wire: wire::CompatAlphaBlend = part(body);
        wire::AlphaBlend {
            flags: 0.into(),
            alpha: wire.alpha,
            image: wire.image,
            area: wire.area,
        }
    }

    /// The image at an address; with none it is a part of the surface, if the command names one.
    fn image(&self, address: u64) -> Result<Image, CommandError> {
        match (some(address), self.itself) {
            (None, Some(area)) => Ok(Image::Itself(area)),
            _ => Image::decode(self.slots, GuestAddress(address), self.dialect),
        }
    }
}

/// Moving pixels is copying from the surface to itself.
fn copy_bits(wire: &wire::CopyBits, surface: u32, to: Rect) -> Result<Draw<Image>, CommandError> {
    let (left, top) = (wire.x.get(), wire.y.get());
    let from = Rect {
        left,
        top,
        right: left.saturating_add_unsigned(to.width()),
        bottom: top.saturating_add_unsigned(to.height()),
    };
    Ok(Draw::Copy {
        source: Source {
            image: Image::Surface(surface),
            area: place("what is moved", from.into())?,
            filter: Filter::Nearest,
        },
        rop: Rop::PUT,
        mask: None,
    })
}

/// `pixman_filter_t`: fast and nearest are the same, and so are good, best and bilinear.
const fn filter_of(number: u32) -> Result<Filter, CommandError> {
    Ok(match number {
        0 | 3 => Filter::Nearest,
        1 | 2 | 4 => Filter::Bilinear,
        other => return Err(CommandError::unknown("filter", other)),
    })
}

/// `pixman_repeat_t`.
const fn repeat_of(number: u32) -> Repeat {
    match number {
        0 => Repeat::None,
        1 => Repeat::Normal,
        2 => Repeat::Pad,
        _ => Repeat::Reflect,
    }
}

const fn point(x: i32, y: i32) -> Point {
    Point { x, y }
}

/// The structure at the start of a command's variable part, which has room for each of them.
fn part<T: FromBytes + IntoBytes>(body: &[u8]) -> T {
    let mut value = T::new_zeroed();
    let bytes = value.as_mut_bytes();
    let len = bytes.len().min(body.len());
    bytes[..len].copy_from_slice(&body[..len]);
    value
}
