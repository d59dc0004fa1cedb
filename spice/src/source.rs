//! How a server reads a display: [`DisplaySource`], and what the source tells it in return.

use std::sync::Arc;

use crate::geometry::{Point, Rect, Size};

/// How a pixel of a surface is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PixelFormat {
    /// 32 bits, blue in the lowest byte, the highest byte unused (`SPICE_SURFACE_FMT_32_xRGB`).
    Xrgb,
    /// 32 bits, blue in the lowest byte, alpha in the highest (`SPICE_SURFACE_FMT_32_ARGB`).
    Argb,
}

/// One monitor's part of the primary surface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Monitor number, from 0.
    pub id: u32,
    /// Which pixels of the primary surface it shows.
    pub area: Rect,
}

/// What a display looks like as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Layout {
    /// Size of the primary surface; `None` while there is none (the guest is between two modes).
    pub primary: Option<Size>,
    /// The monitors; never empty while there is a primary surface.
    pub heads: Vec<Head>,
    /// The largest number of heads the guest may show.
    pub max_heads: u32,
    /// Goes up whenever the primary surface is made anew, so that damage of an old one is known.
    pub generation: u64,
}

/// What changed on the primary surface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Update {
    /// These pixels are new.
    Pixels(Rect),
    /// `to` holds the pixels now that were, just before, in the rectangle of the same size whose top
    /// left corner is `from`; the two may overlap. Everything that was drawn before was told before,
    /// and nobody could read the surface between the copy and this.
    Copy {
        /// The source's top left corner.
        from: Point,
        /// Where the pixels are now.
        to: Rect,
    },
}

/// How a cursor's pixels are stored (spice-protocol `enums.h`, `SpiceCursorType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CursorKind {
    /// 32-bit premultiplied ARGB, rows of `width * 4` bytes.
    Alpha,
    /// An AND mask, then an XOR mask, each with rows of `ceil(width / 8)` bytes.
    Mono,
}

/// The shape of a cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CursorImage {
    /// How `data` is laid out.
    pub kind: CursorKind,
    /// Size in pixels.
    pub width: u16,
    /// Size in pixels.
    pub height: u16,
    /// The pixel that points.
    pub hot_x: u16,
    /// The pixel that points.
    pub hot_y: u16,
    /// The pixels, as `kind` says.
    pub data: Vec<u8>,
}

/// The cursor as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CursorState {
    /// Where it points, in pixels of the primary surface.
    pub position: Point,
    /// Whether it is shown.
    pub visible: bool,
    /// Its shape; the same `Arc` for as long as the shape is the same.
    pub image: Option<Arc<CursorImage>>,
}

/// A monitor as a client wishes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadRequest {
    /// Pixels across; 0 turns the monitor off.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// Where its left edge is on the client's desktop.
    pub x: i32,
    /// Where its top edge is.
    pub y: i32,
}

/// What the connected clients can do: `SPICE_DISPLAY_CAP_*` that all of them have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClientCapabilities {
    /// Whether any client is connected to the display.
    pub present: bool,
    /// Capability bits; bit 0 of word 0 is `SPICE_DISPLAY_CAP_SIZED_STREAM`.
    pub bits: u32,
}

/// Told by a [`DisplaySource`] of everything that happens on it.
///
/// Calls come from the source's thread and from inside its drawing, so they only note what
/// happened: they never wait for a client and never call back into the source.
pub trait DisplayObserver: Send + Sync {
    /// Pixels of the primary surface changed; the new ones can be read already.
    fn updated(&self, updates: &[Update]);
    /// [`DisplaySource::layout`] is different now.
    fn layout_changed(&self);
    /// [`DisplaySource::cursor`] is different now.
    fn cursor_changed(&self);
}

/// A display that a server can show: always current, readable at any time, by many.
pub trait DisplaySource: Send + Sync {
    /// Surfaces and monitors as they are now.
    fn layout(&self) -> Layout;

    /// Copies the pixels of `area` into `pixels`, rows of `area.width() * 4` bytes without gaps,
    /// in [`PixelFormat::Xrgb`]. `false`, and nothing copied, if `generation` is not the current
    /// one, `area` is not inside of the primary surface or `pixels` has another length.
    fn read(&self, generation: u64, area: Rect, pixels: &mut [u8]) -> bool;

    /// The part of the primary surface outside of which every pixel is black; all of it, if that is not known.
    fn drawn(&self) -> Rect {
        let primary = self.layout().primary;
        primary.map_or(Rect::default(), Rect::of_size)
    }

    /// The cursor as it is now.
    fn cursor(&self) -> CursorState;

    /// Tells `observer` of everything from now on, for as long as somebody else holds it.
    fn observe(&self, observer: std::sync::Weak<dyn DisplayObserver>);

    /// Who is looking has changed. A source that has to work to notice changes (a frame buffer
    /// that it must compare) rests while nobody is.
    fn clients_changed(&self, clients: ClientCapabilities) {
        let _ = clients;
    }

    /// A client wishes for these monitors. `false` if the guest can't be told.
    fn request_heads(&self, heads: &[HeadRequest]) -> bool {
        let _ = heads;
        false
    }
}
