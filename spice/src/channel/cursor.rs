//! The cursor channel: the shape of the guest's pointer and, in server mouse mode, its place.
//!
//! `INIT` must be the first message: spice-gtk drops anything before it. Clients hide the pointer's
//! own place in client mouse mode, so `MOVE` is sent in server mode only.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::{Context, Endless, ignore};
use crate::geometry::Point;
use crate::protocol::{MouseMode, cursor as id};
use crate::session::Ending;
use crate::source::{CursorImage, CursorKind, CursorState};
use crate::wire::{Message, MessageReader, MessageWriter};

/// Pixels of a cursor's side at most; past that it is a guest's mistake.
const MAX_SIDE: u16 = 512;
/// Between two looks at the cursor; a pointer that moves faster is shown where it is then.
const PACE: Duration = Duration::from_millis(5);
/// `SPICE_CURSOR_FLAGS_NONE`: there is no shape.
const NO_SHAPE: u16 = 1;

pub(super) async fn serve(
    context: &Context,
    reader: &mut MessageReader,
    writer: &mut MessageWriter,
) -> Endless {
    tokio::select! {
        end = read(reader) => end,
        end = write(context, writer) => end,
    }
}

async fn read(reader: &mut MessageReader) -> Endless {
    loop {
        let (kind, _) = reader.next().await?;
        ignore(kind)?;
    }
}

async fn write(context: &Context, writer: &mut MessageWriter) -> Endless {
    let hub = context
        .server
        .devices()
        .displays
        .get(usize::from(context.channel.id));
    let hub = hub.ok_or(Ending::Closed)?;
    let watch = hub.watch_cursor(Arc::new(Notify::new()));
    let mut mouse_changes = context.server.mouse_changes();

    let mut shown = watch.source().cursor();
    let init = place(Message::new(id::INIT), shown.position)
        .u16(0) // trail length
        .u16(0) // trail frequency
        .u8(shown.visible.into());
    writer.send(shape(init, shown.image.as_deref())).await?;
    loop {
        let pause = Instant::now() + PACE;
        tokio::select! {
            () = watch.wake.notified() => {}
            _ = mouse_changes.changed() => {}
        }
        sleep_until(pause).await;
        let now = watch.source().cursor();
        let mode = context.session.mouse_mode(context.server.absolute());
        if let Some(message) = difference(&shown, &now, mode) {
            writer.send(message).await?;
        }
        shown = now;
    }
}

/// The message that makes a client show `now` instead of `shown`.
fn difference(shown: &CursorState, now: &CursorState, mode: MouseMode) -> Option<Message> {
    let same_shape = match (&shown.image, &now.image) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    };
    if !now.visible {
        return shown.visible.then(|| Message::new(id::HIDE));
    }
    if !same_shape || !shown.visible {
        let set = place(Message::new(id::SET), now.position).u8(1);
        return Some(shape(set, now.image.as_deref()));
    }
    let moved = shown.position != now.position && mode == MouseMode::Server;
    moved.then(|| place(Message::new(id::MOVE), now.position))
}

fn place(message: Message, position: Point) -> Message {
    let clamp = |n: i32| n.clamp(i16::MIN.into(), i16::MAX.into()) as i16;
    message.i16(clamp(position.x)).i16(clamp(position.y))
}

/// Appends `SpiceCursor`. Every shape is sent whole and kept out of the client's cache.
fn shape(message: Message, image: Option<&CursorImage>) -> Message {
    let Some(image) = image.filter(|image| is_sound(image)) else {
        return message.u16(NO_SHAPE);
    };
    let kind = match image.kind {
        CursorKind::Alpha => 0,
        CursorKind::Mono => 1,
    };
    message
        .u16(0)
        .u64(0)
        .u8(kind)
        .u16(image.width)
        .u16(image.height)
        .u16(image.hot_x)
        .u16(image.hot_y)
        .bytes(&image.data)
}

/// Whether the bytes are those of the size: clients trust that.
fn is_sound(image: &CursorImage) -> bool {
    let (width, height) = (usize::from(image.width), usize::from(image.height));
    let expected = match image.kind {
        CursorKind::Alpha => width * height * 4,
        CursorKind::Mono => width.div_ceil(8) * height * 2,
    };
    (1..=MAX_SIDE).contains(&image.width)
        && (1..=MAX_SIDE).contains(&image.height)
        && image.data.len() == expected
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrow() -> Arc<CursorImage> {
        Arc::new(CursorImage {
            kind: CursorKind::Alpha,
            width: 2,
            height: 1,
            hot_x: 0,
            hot_y: 0,
            data: vec![9; 8],
        })
    }

    fn state(x: i32, visible: bool, image: &Arc<CursorImage>) -> CursorState {
        CursorState {
            position: Point { x, y: 0 },
            visible,
            image: Some(image.clone()),
        }
    }

    #[test]
    fn a_move_is_told_in_server_mode_only() {
        let image = arrow();
        let (here, there) = (state(1, true, &image), state(2, true, &image));
        let told = difference(&here, &there, MouseMode::Server);
        assert_eq!(told, Some(Message::new(id::MOVE).i16(2).i16(0)));
        assert_eq!(difference(&here, &there, MouseMode::Client), None);
    }

    #[test]
    fn hiding_showing_and_changing_are_told_in_both_modes() {
        let image = arrow();
        let (seen, hidden) = (state(1, true, &image), state(1, false, &image));
        let set = shape(Message::new(id::SET).i16(1).i16(0).u8(1), Some(&image));
        for mode in [MouseMode::Server, MouseMode::Client] {
            assert_eq!(
                difference(&seen, &hidden, mode),
                Some(Message::new(id::HIDE))
            );
            assert_eq!(difference(&hidden, &seen, mode), Some(set.clone()));
            assert_eq!(
                difference(&seen, &state(1, true, &arrow()), mode),
                Some(set.clone())
            );
            assert_eq!(difference(&hidden, &hidden, mode), None);
        }
    }

    #[test]
    fn a_shape_whose_bytes_do_not_fit_its_size_is_not_sent() {
        let mut image = CursorImage::clone(&arrow());
        image.data.pop();
        assert_eq!(
            shape(Message::new(1), Some(&image)),
            Message::new(1).u16(NO_SHAPE)
        );
    }
}
