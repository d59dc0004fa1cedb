//! The messages of video streams (`spice.proto`, display channel).

use crate::geometry::Rect;
use crate::protocol::display as id;
use crate::video::codec::VideoCodec;
use crate::video::pace::Report;
use crate::wire::{Message, Reader, Truncated};

/// The one surface that clients show.
const PRIMARY: u32 = 0;
/// `SPICE_STREAM_FLAGS_TOP_DOWN`.
const TOP_DOWN: u8 = 1;
/// `SPICE_CLIP_TYPE_NONE` and `SPICE_CLIP_TYPE_RECTS`.
const CLIP_NONE: u8 = 0;
const CLIP_RECTS: u8 = 1;

/// A stream of pictures that are shown at `area`.
pub(super) fn create(stream: u32, codec: VideoCodec, area: Rect) -> Message {
    Message::new(id::STREAM_CREATE)
        .u32(PRIMARY)
        .u32(stream)
        .u8(TOP_DOWN)
        .u8(codec as u8)
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
pub(super) fn data(picture: Picture, encoded: &[u8]) -> Message {
    let kind = picture
        .area
        .map_or(id::STREAM_DATA, |_| id::STREAM_DATA_SIZED);
    // Clients take 0 for a mistake.
    let message = Message::with_capacity(kind, encoded.len() + 64)
        .u32(picture.stream)
        .u32(picture.time.max(1));
    let message = match picture.area {
        Some(area) => message.u32(area.width()).u32(area.height()).rect(area),
        None => message,
    };
    message
        .u32(u32::try_from(encoded.len()).unwrap_or(u32::MAX))
        .bytes(encoded)
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

/// Reads a wish for codecs: their numbers, the best first (`SPICE_MSGC_DISPLAY_PREFERRED_VIDEO_CODEC_TYPE`).
pub(super) fn parse_wish<'a>(fields: &mut Reader<'a>) -> Result<&'a [u8], Truncated> {
    let count = fields.u8()?;
    fields.bytes(count.into())
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
    fn a_wish_for_codecs_is_read() {
        assert_eq!(parse_wish(&mut Reader(&[2, 3, 1, 9])), Ok(&[3, 1][..]));
        assert_eq!(parse_wish(&mut Reader(&[0])), Ok(&[][..]));
        assert_eq!(parse_wish(&mut Reader(&[3, 1, 2])), Err(Truncated));
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
