//! Cursor commands.

use std::sync::Arc;

use caraway_spice::{CursorImage, CursorKind, Point};
use zerocopy::{FromZeros, IntoBytes};

use super::color_cursor::Depth;
use super::wire;
use super::{Chunks, CommandError, MAX_CURSOR_SIDE};
use crate::device::{GuestAddress, Slots};

const SHAPE_ALPHA: u16 = 0;
const SHAPE_MONO: u16 = 1;

/// What to do with the cursor (`QXLCursorCmd`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CursorCommand {
    /// Another shape.
    Set {
        position: Point,
        visible: bool,
        image: Arc<CursorImage>,
    },
    /// Show it there.
    Move(Point),
    /// Don't show it.
    Hide,
    /// Leave a trail, which nobody does any more.
    Trail,
}

impl CursorCommand {
    /// The cursor command at `address`.
    pub(crate) fn decode(slots: &Slots, address: GuestAddress) -> Result<Self, CommandError> {
        let wire: wire::CursorCommand = slots.get(address)?;
        Ok(match wire.kind {
            0 => {
                let mut set = wire::CursorSet::new_zeroed();
                set.as_mut_bytes().copy_from_slice(&wire.body);
                Self::Set {
                    position: point(set.x.get(), set.y.get()),
                    visible: set.visible != 0,
                    image: image(slots, GuestAddress(set.shape.get()))?,
                }
            }
            1 => {
                let mut to = wire::CursorPosition::new_zeroed();
                to.as_mut_bytes().copy_from_slice(&wire.body[..4]);
                Self::Move(point(to.x.get(), to.y.get()))
            }
            2 => Self::Hide,
            3 => Self::Trail,
            other => return Err(CommandError::unknown("cursor command", other.into())),
        })
    }
}

fn point(x: i16, y: i16) -> Point {
    Point {
        x: x.into(),
        y: y.into(),
    }
}

/// The shape at `address` (`QXLCursor`).
fn image(slots: &Slots, address: GuestAddress) -> Result<Arc<CursorImage>, CommandError> {
    let wire: wire::Cursor = slots.get(address)?;
    let (width, height) = (wire.width.get(), wire.height.get());
    CommandError::at_most("cursor width", width, MAX_CURSOR_SIDE)?;
    CommandError::at_most("cursor height", height, MAX_CURSOR_SIDE)?;
    let (columns, rows) = (usize::from(width), usize::from(height));
    let depth = Depth::of(wire.kind.get());
    let (kind, len) = match (wire.kind.get(), depth) {
        (SHAPE_ALPHA, _) => (CursorKind::Alpha, columns * rows * 4),
        (SHAPE_MONO, _) => (CursorKind::Mono, columns.div_ceil(8) * rows * 2),
        (_, Some(depth)) => (CursorKind::Alpha, depth.len(columns, rows)),
        (other, None) => return Err(CommandError::unknown("cursor type", other.into())),
    };
    let mut data = vec![0; len];
    let chunks = address.plus(size_of::<wire::Cursor>() as u64);
    Chunks::chain(slots, chunks, len as u64)?.read(0, &mut data)?;
    if let Some(depth) = depth {
        data = depth.to_alpha(columns, rows, &data);
    }
    Ok(Arc::new(CursorImage {
        kind,
        width,
        height,
        hot_x: wire.hot_x.get(),
        hot_y: wire.hot_y.get(),
        data,
    }))
}
