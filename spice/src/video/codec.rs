//! What films are encoded as, and which of it a client gets.

use crate::geometry::Size;
use crate::link::message::Capabilities;
use crate::protocol::display as id;

/// The form of a stream's pictures (`SPICE_VIDEO_CODEC_TYPE_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VideoCodec {
    /// Each picture is a JPEG picture.
    Mjpeg = 1,
    Vp8 = 2,
    H264 = 3,
}

impl VideoCodec {
    /// The best first: the one whose films take the fewest bytes.
    const ALL: [Self; 3] = [Self::H264, Self::Vp8, Self::Mjpeg];

    /// Who encodes it, if its pictures refer to those before them.
    pub(crate) fn library(self) -> Option<caraway_video::Codec> {
        match self {
            Self::Mjpeg => None,
            Self::Vp8 => Some(caraway_video::Codec::Vp8),
            Self::H264 => Some(caraway_video::Codec::H264),
        }
    }

    fn is_built_in(self) -> bool {
        self.library().is_none_or(caraway_video::Codec::is_built_in)
    }

    fn capability(self) -> u32 {
        match self {
            Self::Mjpeg => id::CAP_CODEC_MJPEG,
            Self::Vp8 => id::CAP_CODEC_VP8,
            Self::H264 => id::CAP_CODEC_H264,
        }
    }

    /// Whether it can do a film of this size, made even.
    fn takes(self, size: Size) -> bool {
        let even = |side: u32| side.next_multiple_of(2);
        self.library()
            .is_none_or(|library| library.takes(even(size.width), even(size.height)))
    }

    /// What a film's pictures take as this, of what they take as JPEG: more than was found with films that
    /// move much, so that no stream is begun which costs more than exact pixels.
    pub(crate) fn share_of_jpeg(self) -> f64 {
        match self {
            Self::Mjpeg => 1.0,
            Self::Vp8 | Self::H264 => 0.4,
        }
    }
}

/// The codecs that a client gets films in, the one to try first at first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Codecs(pub(crate) Vec<VideoCodec>);

impl Codecs {
    /// Those that both sides have. A client that names none is from the time when there was only MJPEG.
    pub(crate) fn of(capabilities: &Capabilities) -> Self {
        Self::common(capabilities, VideoCodec::is_built_in)
    }

    /// For the browser console, unless it says what it prefers: browsers play no video on a page on which nobody has
    /// clicked or typed yet, and show its first picture above all else.
    pub(crate) fn of_browser(capabilities: &Capabilities) -> Self {
        let mut codecs = Self::of(capabilities);
        codecs.prefer(&[VideoCodec::Mjpeg as u8]);
        codecs
    }

    fn common(capabilities: &Capabilities, is_built_in: impl Fn(VideoCodec) -> bool) -> Self {
        let names_them = capabilities.has(id::CAP_MULTI_CODEC);
        let has = |codec: VideoCodec| match names_them {
            true => capabilities.has(codec.capability()),
            false => codec == VideoCodec::Mjpeg,
        };
        let both = |codec: &VideoCodec| is_built_in(*codec) && has(*codec);
        Self(VideoCodec::ALL.into_iter().filter(both).collect())
    }

    /// A client's wish, the best first, by their numbers: what it does not name comes after what it does.
    pub(crate) fn prefer(&mut self, wish: &[u8]) {
        let place = |codec: &VideoCodec| {
            let named = wish.iter().position(|&number| number == *codec as u8);
            let usual = VideoCodec::ALL.iter().position(|other| other == codec);
            (named.unwrap_or(wish.len()), usual)
        };
        self.0.sort_by_key(place);
    }

    /// It turned out to be none of them.
    pub(crate) fn strike(&mut self, codec: VideoCodec) {
        self.0.retain(|&other| other != codec);
    }

    /// Whether it is one of them.
    pub(crate) fn has(&self, codec: VideoCodec) -> bool {
        self.0.contains(&codec)
    }

    /// The one for a film of this size, if there is any.
    pub(crate) fn best(&self, size: Size) -> Option<VideoCodec> {
        self.0.iter().copied().find(|codec| codec.takes(size))
    }
}

#[cfg(test)]
mod tests {
    use super::VideoCodec::{H264, Mjpeg, Vp8};
    use super::*;

    const SIZE: Size = Size {
        width: 321,
        height: 240,
    };

    fn capabilities(bits: &[u32]) -> Capabilities {
        Capabilities(vec![bits.iter().map(|bit| 1 << bit).sum()])
    }

    fn all() -> Codecs {
        Codecs(VideoCodec::ALL.to_vec())
    }

    #[test]
    fn a_client_gets_what_both_sides_have_and_the_smallest_first() {
        let every: &[VideoCodec] = &[Mjpeg, Vp8, H264];
        let cases: [(&[u32], &[VideoCodec], &[VideoCodec]); 9] = [
            // Without MULTI_CODEC there is MJPEG, whatever else is said.
            (&[], every, &[Mjpeg]),
            (&[10, 11], every, &[Mjpeg]),
            (&[8], every, &[]),
            (&[8, 9], every, &[Mjpeg]),
            (&[8, 9, 10, 11, 13, 14], every, &[H264, Vp8, Mjpeg]),
            (&[8, 9, 10], every, &[Vp8, Mjpeg]),
            (&[8, 11], every, &[H264]),
            (&[8, 9, 10, 11], &[Mjpeg, Vp8], &[Vp8, Mjpeg]),
            (&[8, 10, 11], &[Mjpeg], &[]),
        ];
        for (bits, built_in, expected) in cases {
            let found = Codecs::common(&capabilities(bits), |codec| built_in.contains(&codec));
            assert_eq!(found.0, expected, "{bits:?} {built_in:?}");
        }
    }

    #[test]
    fn a_wish_orders_what_there_is_and_adds_nothing() {
        let cases: [(&[u8], [VideoCodec; 3]); 6] = [
            (&[], [H264, Vp8, Mjpeg]),
            (&[1], [Mjpeg, H264, Vp8]),
            (&[2, 1], [Vp8, Mjpeg, H264]),
            (&[4, 5, 0, 200], [H264, Vp8, Mjpeg]),
            (&[5, 2, 4, 3], [Vp8, H264, Mjpeg]),
            (&[1, 1, 3, 1], [Mjpeg, H264, Vp8]),
        ];
        for (wish, expected) in cases {
            let mut codecs = all();
            codecs.prefer(&[1, 2, 3]);
            codecs.prefer(wish);
            assert_eq!(codecs.0, expected, "{wish:?}");
        }
        let mut one = Codecs(vec![Mjpeg]);
        one.prefer(&[3, 2]);
        assert_eq!(one.0, [Mjpeg]);
    }

    #[test]
    fn what_was_struck_does_not_come_back() {
        let mut codecs = all();
        let mut found = Vec::new();
        while let Some(codec) = codecs.best(SIZE) {
            found.push(codec);
            codecs.strike(codec);
            codecs.prefer(&[3, 2, 1]);
        }
        assert_eq!(found, [H264, Vp8, Mjpeg]);
    }

    #[test]
    fn a_film_that_is_too_large_for_a_codec_goes_by_the_next() {
        let best = |width, height| all().best(Size { width, height });
        assert_eq!(best(3839, 2159), Some(H264));
        assert_eq!(best(3842, 2160), Some(Vp8));
        assert_eq!(best(16_383, 96), Some(Mjpeg));
    }
}
