//! Opus, in pieces of 10 ms, where it is built in (feature `opus`) and can do the format.

use std::time::Duration;

/// Whether it is built in.
pub(crate) const BUILT_IN: bool = cfg!(feature = "opus");

/// How long a piece is: what clients expect (`SND_CODEC_OPUS_FRAME_SIZE`, 480 samples at 48 kHz).
pub(crate) const PIECE: Duration = Duration::from_millis(10);

#[cfg(feature = "opus")]
pub(crate) use with_library::{Decoder, Encoder};
#[cfg(not(feature = "opus"))]
pub(crate) use without_library::{Decoder, Encoder};

#[cfg(feature = "opus")]
mod with_library {
    use opus::{Application, Bitrate, Channels};

    use super::super::AudioFormat;

    /// Whether it can do a format (RFC 6716, 2).
    fn has(format: AudioFormat) -> bool {
        [8_000, 12_000, 16_000, 24_000, 48_000].contains(&format.rate())
    }

    fn channels(format: AudioFormat) -> Channels {
        if format.channels() == 1 {
            Channels::Mono
        } else {
            Channels::Stereo
        }
    }

    /// Encodes pieces of [`super::PIECE`].
    pub(crate) struct Encoder(opus::Encoder);

    impl Encoder {
        /// Transparent for most people and most music.
        const BITS_PER_SECOND: i32 = 128_000;
        /// Bytes of a piece at most; more than ten times the usual.
        const MAX_PIECE: usize = 1275;

        pub(crate) fn new(format: AudioFormat) -> Option<Self> {
            if !has(format) {
                return None;
            }
            let mut encoder =
                opus::Encoder::new(format.rate(), channels(format), Application::Audio).ok()?;
            encoder
                .set_bitrate(Bitrate::Bits(Self::BITS_PER_SECOND))
                .ok()?;
            Some(Self(encoder))
        }

        /// `None` if the library refuses; then the piece is lost.
        pub(crate) fn encode(&mut self, samples: &[i16]) -> Option<Vec<u8>> {
            self.0.encode_vec(samples, Self::MAX_PIECE).ok()
        }
    }

    /// Decodes pieces of any length.
    pub(crate) struct Decoder {
        decoder: opus::Decoder,
        format: AudioFormat,
    }

    impl Decoder {
        /// Milliseconds of a piece at most (RFC 6716, 3.4).
        const LONGEST: u32 = 120;

        pub(crate) fn new(format: AudioFormat) -> Option<Self> {
            if !has(format) {
                return None;
            }
            let decoder = opus::Decoder::new(format.rate(), channels(format)).ok()?;
            Some(Self { decoder, format })
        }

        /// `None` if that is no piece.
        pub(crate) fn decode(&mut self, bytes: &[u8]) -> Option<Vec<i16>> {
            // No bytes would mean a lost piece, which this transport does not know.
            if bytes.is_empty() {
                return None;
            }
            let channels = usize::from(self.format.channels());
            let most = self.format.rate() / 1000 * Self::LONGEST;
            let mut samples = vec![0; most as usize * channels];
            let moments = self.decoder.decode(bytes, &mut samples, false).ok()?;
            samples.truncate(moments * channels);
            Some(samples)
        }
    }
}

#[cfg(not(feature = "opus"))]
mod without_library {
    use super::super::AudioFormat;

    /// There is none.
    pub(crate) enum Encoder {}

    impl Encoder {
        pub(crate) fn new(_: AudioFormat) -> Option<Self> {
            None
        }

        pub(crate) fn encode(&mut self, _: &[i16]) -> Option<Vec<u8>> {
            match *self {}
        }
    }

    /// There is none.
    pub(crate) enum Decoder {}

    impl Decoder {
        pub(crate) fn new(_: AudioFormat) -> Option<Self> {
            None
        }

        pub(crate) fn decode(&mut self, _: &[u8]) -> Option<Vec<i16>> {
            match *self {}
        }
    }
}

#[cfg(all(test, feature = "opus"))]
mod tests {
    use proptest::prelude::*;

    use super::super::AudioFormat;
    use super::*;

    #[test]
    fn a_tone_comes_back_about_as_loud() {
        let format = AudioFormat::STEREO;
        let (mut encoder, mut decoder) = (
            Encoder::new(format).expect("it can do 48 kHz"),
            Decoder::new(format).expect("it can do 48 kHz"),
        );
        let tone = |n: usize| {
            ((n as f64 * 440.0 * std::f64::consts::TAU / 48_000.0).sin() * 10_000.0) as i16
        };
        let mut loudest = 0;
        for piece in 0..20 {
            let samples: Vec<i16> = (0..960).map(|n| tone(piece * 480 + n / 2)).collect();
            let bytes = encoder.encode(&samples).expect("it is a piece");
            assert!(bytes.len() < 480);
            let back = decoder.decode(&bytes).expect("it is a piece");
            assert_eq!(back.len(), 960);
            loudest = back.iter().copied().max().unwrap_or(0).max(loudest);
        }
        assert!((9_000..11_000).contains(&loudest), "{loudest}");
    }

    #[test]
    fn formats_that_it_has_not_are_refused() {
        let format = AudioFormat::new(2, 44_100).expect("it is possible");
        assert!(Encoder::new(format).is_none() && Decoder::new(format).is_none());
    }

    proptest! {
        #[test]
        fn anything_is_decoded_or_refused(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..600), 1..5)) {
            let mut decoder = Decoder::new(AudioFormat::STEREO).expect("it can do 48 kHz");
            for piece in pieces {
                if let Some(samples) = decoder.decode(&piece) {
                    prop_assert!(samples.len() <= 11_520);
                }
            }
        }
    }
}
