//! H.264 by openh264.

use std::ffi::c_int;
use std::time::Duration;

use openh264::OpenH264API;
use openh264::encoder::{
    BitRate, Complexity, EncoderConfig, FrameRate, FrameType, IntraFramePeriod, Profile, QpRange,
    RateControlMode, UsageType, VuiConfig,
};
use openh264::formats::YUVSource;
use openh264::{Timestamp, encoder};
use openh264_sys2::{
    ENCODER_OPTION, ENCODER_OPTION_BITRATE, ENCODER_OPTION_MAX_BITRATE, ENCODER_OPTION_TRACE_LEVEL,
    SBitrateInfo, SPATIAL_LAYER_0, SPATIAL_LAYER_ALL, WELS_LOG_QUIET,
};

use crate::{Codec, Encoded, Encoder, Error, I420, Settings};

/// Quantisers: at the least a picture is as good as anyone notices, whatever the link would carry.
const QUANTIZERS: QpRange = QpRange::new(18, 46);
/// Bits a second, at least and at most. The library refuses to go over the most that it was told of.
const BITS: (u32, u32) = (50_000, 100_000_000);

/// An encoder of one film.
pub(crate) struct H264 {
    encoder: encoder::Encoder,
    settings: Settings,
    /// It has its settings from the first picture on.
    is_begun: bool,
}

/// What the library says, as ours.
fn refusal(what: &'static str) -> impl Fn(openh264::Error) -> Error {
    move |error| Error::Library {
        codec: Codec::H264,
        what,
        code: error.native_code(),
    }
}

fn accepted(answer: c_int, what: &'static str) -> Result<(), Error> {
    match answer {
        0 => Ok(()),
        code => Err(Error::Library {
            codec: Codec::H264,
            what,
            code: code.into(),
        }),
    }
}

impl H264 {
    /// For pictures that are watched as they are made: nothing looks ahead, none is left out, and only who asks
    /// for a key picture gets one. The baseline profile, as it has no pictures that wait for others.
    pub(crate) fn open(settings: Settings) -> Result<Self, Error> {
        let settings = Settings {
            bits: settings.bits.clamp(BITS.0, BITS.1),
            ..settings
        };
        let config = EncoderConfig::new()
            .bitrate(BitRate::from_bps(settings.bits))
            .max_frame_rate(FrameRate::from_hz(settings.rate.clamp(1.0, 60.0) as f32))
            .rate_control_mode(RateControlMode::Bitrate)
            .skip_frames(false)
            .usage_type(UsageType::CameraVideoRealTime)
            .profile(Profile::Baseline)
            .complexity(Complexity::Low)
            .qp(QUANTIZERS)
            .scene_change_detect(false)
            .adaptive_quantization(false)
            .background_detection(false)
            .intra_frame_period(IntraFramePeriod::from_num_frames(0))
            .num_threads(1)
            .vui(VuiConfig::bt601());
        let encoder = encoder::Encoder::with_api_config(OpenH264API::from_source(), config)
            .map_err(refusal("open an encoder"))?;
        let mut encoder = Self {
            encoder,
            settings,
            is_begun: false,
        };
        encoder.hush()?;
        Ok(encoder)
    }

    /// Has it keep its opinions to itself: it writes them to standard error, where nobody asked for them.
    fn hush(&mut self) -> Result<(), Error> {
        let mut level = WELS_LOG_QUIET;
        // SAFETY: the option takes an `int`, also before the encoder is set up; no pointer to it is kept.
        let answer = unsafe {
            let api = self.encoder.raw_api();
            api.set_option(ENCODER_OPTION_TRACE_LEVEL, (&raw mut level).cast())
        };
        accepted(answer, "set up an encoder")
    }

    fn set(&mut self, option: ENCODER_OPTION, layer: i32, bits: u32) -> Result<(), Error> {
        let mut info = SBitrateInfo {
            iLayer: layer,
            iBitrate: bits.cast_signed(),
        };
        // SAFETY: the encoder is set up, both options take this structure, and the library keeps no pointer to it.
        // The bit rate is nothing that the safe interface relies on.
        let answer = unsafe {
            let api = self.encoder.raw_api();
            api.set_option(option, (&raw mut info).cast())
        };
        accepted(answer, "change the bit rate")
    }
}

impl Encoder for H264 {
    fn encode(&mut self, picture: &I420, at: Duration, wants_key: bool) -> Result<Encoded, Error> {
        let Settings { width, height, .. } = self.settings;
        if (picture.width(), picture.height()) != (width, height) {
            return Err(Error::Size {
                codec: Codec::H264,
                width: picture.width(),
                height: picture.height(),
            });
        }
        if wants_key && self.is_begun {
            self.encoder.force_intra_frame();
        }
        let millis = u64::try_from(at.as_millis()).unwrap_or(0);
        let stream = self
            .encoder
            .encode_at(&Planes(picture), Timestamp::from_millis(millis))
            .map_err(refusal("encode a picture"))?;
        let encoded = Encoded {
            bytes: stream.to_vec(),
            is_key: stream.frame_type() == FrameType::IDR,
        };
        // It leaves none out, as it was told not to.
        if encoded.bytes.is_empty() {
            return Err(Error::Library {
                codec: Codec::H264,
                what: "make anything of a picture",
                code: 0,
            });
        }
        if !self.is_begun {
            self.is_begun = true;
            self.set(ENCODER_OPTION_MAX_BITRATE, SPATIAL_LAYER_0, BITS.1)?;
            self.set_bits(self.settings.bits)?;
        }
        Ok(encoded)
    }

    fn set_bits(&mut self, bits: u32) -> Result<(), Error> {
        let bits = bits.clamp(BITS.0, BITS.1);
        if self.is_begun {
            self.set(ENCODER_OPTION_BITRATE, SPATIAL_LAYER_ALL, bits)?;
        }
        self.settings.bits = bits;
        Ok(())
    }
}

/// A picture as the library names it.
struct Planes<'a>(&'a I420);

impl YUVSource for Planes<'_> {
    fn dimensions(&self) -> (usize, usize) {
        (self.0.width() as usize, self.0.height() as usize)
    }

    fn strides(&self) -> (usize, usize, usize) {
        let (width, _) = self.dimensions();
        (width, width / 2, width / 2)
    }

    fn y(&self) -> &[u8] {
        self.0.planes()[0]
    }

    fn u(&self) -> &[u8] {
        self.0.planes()[1]
    }

    fn v(&self) -> &[u8] {
        self.0.planes()[2]
    }
}
