//! Structures as a guest writes them, byte for byte (spice-protocol `qxl_dev.h`; all packed).

use caraway_spice::Rect;
use zerocopy::little_endian::{I16, I32, U16, U32, U64};

/// Declares structures without padding that can be copied out of guest memory.
macro_rules! wire {
    ($($(#[$doc:meta])* struct $name:ident { $($field:ident: $type:ty),* $(,)? })*) => { $(
        $(#[$doc])*
        #[derive(
            Debug,
            Clone,
            Copy,
            zerocopy::FromBytes,
            zerocopy::IntoBytes,
            zerocopy::Immutable,
            zerocopy::KnownLayout,
            zerocopy::Unaligned,
        )]
        #[repr(C)]
        pub(crate) struct $name { $(pub(crate) $field: $type),* }
    )* };
}
pub(crate) use wire;

wire! {
    /// `QXLRect`: note the order.
    struct WireRect { top: I32, left: I32, bottom: I32, right: I32 }

    /// `QXLCommand`: an entry of the command and cursor rings.
    struct RingCommand { data: U64, kind: U32, padding: U32 }

    /// `QXLDrawable` up to the part that depends on its type.
    struct Drawable {
        release: [u8; 8],
        surface_id: U32,
        effect: u8,
        kind: u8,
        self_bitmap: u8,
        self_bitmap_area: WireRect,
        bbox: WireRect,
        clip_kind: U32,
        clip_data: U64,
        mm_time: U32,
        surfaces_dest: [I32; 3],
        surfaces_rects: [WireRect; 3],
        body: [u8; 68],
    }

    /// `QXLCompatDrawable` up to the part that depends on its type.
    struct CompatDrawable {
        release: [u8; 8],
        effect: u8,
        kind: u8,
        bitmap_offset: U16,
        bitmap_area: WireRect,
        bbox: WireRect,
        clip_kind: U32,
        clip_data: U64,
        mm_time: U32,
        body: [u8; 68],
    }

    /// `QXLUpdateCmd` without its surface, which came later.
    struct Update { release: [u8; 8], area: WireRect, id: U32 }

    /// The surface of a `QXLUpdateCmd`, or of an image that is one.
    struct SurfaceId { id: U32 }

    /// `QXLQMask`.
    struct Mask { flags: u8, x: I32, y: I32, bitmap: U64 }

    /// `QXLBrush`: what is after its type is a colour or a pattern.
    struct Brush { kind: U32, value: U64, x: I32, y: I32 }

    /// `QXLCopy`, `QXLBlend`.
    struct Copy { image: U64, area: WireRect, rop: U16, scale_mode: u8, mask: Mask }

    /// `QXLOpaque`.
    struct Opaque { image: U64, area: WireRect, brush: Brush, rop: U16, scale_mode: u8, mask: Mask }

    /// `QXLRop3`.
    struct Rop3 { image: U64, area: WireRect, brush: Brush, rop: u8, scale_mode: u8, mask: Mask }

    /// `QXLTransparent`.
    struct Transparent { image: U64, area: WireRect, coded_color: U32, color: U32 }

    /// `QXLAlphaBlend`.
    struct AlphaBlend { flags: U16, alpha: u8, image: U64, area: WireRect }

    /// `QXLCompatAlphaBlend`.
    struct CompatAlphaBlend { alpha: u8, image: U64, area: WireRect }

    /// `QXLComposite`.
    struct Composite {
        flags: U32,
        source: U64,
        source_transform: U64,
        mask: U64,
        mask_transform: U64,
        source_origin: [I16; 2],
        mask_origin: [I16; 2],
    }

    /// `QXLTransform`.
    struct Transform { rows: [[I32; 3]; 2] }

    /// `QXLFill`.
    struct Fill { brush: Brush, rop: U16, mask: Mask }

    /// `QXLStroke` with its `QXLLineAttr`.
    struct Stroke {
        path: U64,
        flags: u8,
        join_style: u8,
        end_style: u8,
        dashes: u8,
        width: I32,
        miter_limit: I32,
        dash_lengths: U64,
        brush: Brush,
        rop: U16,
        back_rop: U16,
    }

    /// `QXLPathSeg` without its points.
    struct PathSegment { flags: U32, count: U32 }

    /// `QXLPointFix`: 28.4 fixed point.
    struct FixedPoint { x: I32, y: I32 }

    /// `QXLText`.
    struct Text {
        string: U64,
        back_area: WireRect,
        brush: Brush,
        back_brush: Brush,
        rop: U16,
        back_rop: U16,
    }

    /// `QXLString` without its chunks.
    struct String { data_size: U32, length: U16, flags: U16 }

    /// `QXLRasterGlyph` without its pixels.
    struct Glyph { x: I32, y: I32, origin_x: I32, origin_y: I32, width: U16, height: U16 }

    /// `QXLCopyBits`.
    struct CopyBits { x: I32, y: I32 }

    /// `QXLImageDescriptor`.
    struct ImageDescriptor { id: U64, kind: u8, flags: u8, width: U32, height: U32 }

    /// `QXLBitmap`.
    struct Bitmap { format: u8, flags: u8, width: U32, height: U32, stride: U32, palette: U64, data: U64 }

    /// `QXLPalette` without its entries.
    struct Palette { unique: U64, count: U16 }

    /// `QXLDataChunk` without its data.
    struct Chunk { size: U32, previous: U64, next: U64 }

    /// `QXLSurfaceCmd`.
    struct Surface {
        release: [u8; 8],
        surface_id: U32,
        kind: u8,
        flags: U32,
        format: U32,
        width: U32,
        height: U32,
        stride: I32,
        data: U64,
    }

    /// `QXLCursorCmd` without the device's own data.
    struct CursorCommand { release: [u8; 8], kind: u8, body: [u8; 13] }

    /// The `set` part of `QXLCursorCmd`.
    struct CursorSet { x: I16, y: I16, visible: u8, shape: U64 }

    /// The `position` part of `QXLCursorCmd`.
    struct CursorPosition { x: I16, y: I16 }

    /// `QXLCursor` up to its first chunk.
    struct Cursor { unique: U64, kind: U16, width: U16, height: U16, hot_x: U16, hot_y: U16, data_size: U32 }

    /// `QXLMonitorsConfig` without its heads.
    struct Monitors { count: U16, max_allowed: U16 }

    /// `QXLHead`.
    struct MonitorHead { id: U32, surface_id: U32, width: U32, height: U32, x: U32, y: U32, flags: U32 }

    /// `QXLSurfaceCreate`, in the RAM header.
    struct SurfaceCreate {
        width: U32,
        height: U32,
        stride: I32,
        format: U32,
        position: U32,
        mouse_mode: U32,
        flags: U32,
        kind: U32,
        mem: U64,
    }
}

const _: () = {
    assert!(size_of::<Drawable>() == 191);
    assert!(size_of::<CompatDrawable>() == 128);
    assert!(size_of::<Surface>() == 41);
    assert!(size_of::<CursorCommand>() == 22);
    assert!(size_of::<Mask>() == 17);
    assert!(size_of::<Copy>() == 44);
    assert!(size_of::<Brush>() == 20);
    assert!(size_of::<Opaque>() == 64);
    assert!(size_of::<Text>() == 68);
    assert!(size_of::<Stroke>() == 52);
    assert!(size_of::<Composite>() == 44);
    assert!(size_of::<SurfaceCreate>() == 40);
};

impl From<WireRect> for Rect {
    fn from(rect: WireRect) -> Self {
        Self {
            left: rect.left.get(),
            top: rect.top.get(),
            right: rect.right.get(),
            bottom: rect.bottom.get(),
        }
    }
}

impl From<Rect> for WireRect {
    fn from(rect: Rect) -> Self {
        Self {
            top: rect.top.into(),
            left: rect.left.into(),
            bottom: rect.bottom.into(),
            right: rect.right.into(),
        }
    }
}
