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

    /// `QXLQMask`.
    struct Mask { flags: u8, x: I32, y: I32, bitmap: U64 }

    /// `QXLCopy`, `QXLOpaque` without its brush, `QXLBlend`.
    struct Copy { src_bitmap: U64, src_area: WireRect, rop: U16, scale_mode: u8, mask: Mask }

    /// `QXLFill`: the brush is flattened; what is after its type is a colour or a pattern.
    struct Fill { brush_kind: U32, brush: U64, brush_position: [I32; 2], rop: U16, mask: Mask }

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
    assert!(size_of::<Surface>() == 41);
    assert!(size_of::<CursorCommand>() == 22);
    assert!(size_of::<Mask>() == 17);
    assert!(size_of::<Copy>() == 44);
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
