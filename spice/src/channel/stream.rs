//! The messages of video streams (`spice.proto`, display channel).

use crate::geometry::Rect;
use crate::protocol::display as id;
use crate::video::pace::Report;
use crate::wire::{Message, Reader, Truncated};

/// The one surface that clients show.
const PRIMARY: u32 = 0;
/// `SPICE_STREAM_FLAGS_TOP_DOWN`.
const TOP_DOWN: u8 = 1;
/// `SPICE_VIDEO_CODEC_TYPE_MJPEG`.
const MJPEG: u8 = 1;
/// `SPICE_CLIP_TYPE_NONE` and `SPICE_CLIP_TYPE_RECTS`.
const CLIP_NONE: u8 = 0;
const CLIP_RECTS: u8 = 1;

/// A stream of JPEG pictures that are shown at `area`.
pub(super) fn create(stream: u32, area: Rect) -> Message {
    Message::new(id::STREAM_CREATE)
        .u32(PRIMARY)
        .u32(stream)
        .u8(TOP_DOWN)
        .u8(MJPEG)
        .u64(0)
        .u32(area.width())
        .u32(area.height())
        .u32(area.width())
        .u32(area.height())
        .rect(area)
        .u8(CLIP_NONE)
}

/// What is said of a picture before its bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Picture {
    pub(super) stream: u32,
    /// The media time at which it is to be shown.
    pub(super) time: u32,
    /// Where it is shown, if not where the stream began.
    pub(super) area: Option<Rect>,
}

/// A picture of a stream.
pub(super) fn data(picture: Picture, jpeg: &[u8]) -> Message {
    let kind = picture
        .area
        .map_or(id::STREAM_DATA, |_| id::STREAM_DATA_SIZED);
    // Clients take 0 for a mistake.
    let message = Message::with_capacity(kind, jpeg.len() + 64)
        .u32(picture.stream)
        .u32(picture.time.max(1));
    let message = match picture.area {
        Some(area) => message.u32(area.width()).u32(area.height()).rect(area),
        None => message,
    };
    message
        .u32(u32::try_from(jpeg.len()).unwrap_or(u32::MAX))
        .bytes(jpeg)
}

/// Whether the pictures of a stream are shown, or not at all.
pub(super) fn show(stream: u32, shown: bool) -> Message {
    let message = Message::new(id::STREAM_CLIP).u32(stream);
    if shown {
        message.u8(CLIP_NONE)
    } else {
        message.u8(CLIP_RECTS).u32(0)
    }
}

pub(super) fn destroy(stream: u32) -> Message {
    Message::new(id::STREAM_DESTROY).u32(stream)
}

/// Asks for a report on a stream after so many pictures, or so many milliseconds.
pub(super) fn ask_reports(stream: u32, report: u32) -> Message {
    const PICTURES: u32 = 15;
    const MILLISECONDS: u32 = 1000;
    Message::new(id::STREAM_ACTIVATE_REPORT)
        .u32(stream)
        .u32(report)
        .u32(PICTURES)
        .u32(MILLISECONDS)
}

/// Reads a report: the stream, the report's number, and what it says.
pub(super) fn parse_report(fields: &mut Reader) -> Result<(u32, u32, Report), Truncated> {
    let (stream, number) = (fields.u32()?, fields.u32()?);
    // The times of its first and its last picture.
    fields.bytes(8)?;
    let report = Report {
        frames: fields.u32()?,
        drops: fields.u32()?,
        early_ms: fields.i32()?,
    };
    Ok((stream, number, report))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AREA: Rect = Rect {
        left: 5,
        top: 6,
        right: 7,
        bottom: 9,
    };

    #[test]
    fn a_sized_picture_says_where_it_is_and_another_does_not() {
        let picture = Picture {
            stream: 1,
            time: 0,
            area: None,
        };
        assert_eq!(data(picture, &[0; 7]).len(), 12 + 7);
        let sized = Picture {
            area: Some(AREA),
            ..picture
        };
        assert_eq!(data(sized, &[0; 7]).len(), 12 + 24 + 7);
    }

    #[test]
    fn a_report_is_read() {
        let words = [3u32, 4, 10, 20, 30, 2, 5u32.wrapping_neg(), u32::MAX];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let report = Report {
            frames: 30,
            drops: 2,
            early_ms: -5,
        };
        assert_eq!(parse_report(&mut Reader(&bytes)), Ok((3, 4, report)));
        assert_eq!(parse_report(&mut Reader(&bytes[..20])), Err(Truncated));
    }
}
