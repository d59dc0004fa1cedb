//! VP8 by libvpx.

use std::ffi::{c_int, c_uchar};
use std::mem::MaybeUninit;
use std::ptr::null;
use std::slice;
use std::time::Duration;

use vpx_sys::{
    VPX_DL_REALTIME, VPX_EFLAG_FORCE_KF, VPX_ENCODER_ABI_VERSION, VPX_FRAME_IS_KEY,
    vp8e_enc_control_id as control, vpx_codec_control_, vpx_codec_ctx_t, vpx_codec_cx_pkt_kind,
    vpx_codec_destroy, vpx_codec_enc_cfg_t, vpx_codec_enc_config_default, vpx_codec_enc_config_set,
    vpx_codec_enc_init_ver, vpx_codec_encode, vpx_codec_err_t, vpx_codec_get_cx_data,
    vpx_codec_vp8_cx, vpx_enc_pass, vpx_image_t, vpx_img_fmt, vpx_img_wrap, vpx_kf_mode,
    vpx_rational, vpx_rc_mode,
};

use crate::{Codec, Encoded, Encoder, Error, I420, Settings};

/// Ticks a second in which libvpx is told times.
const TICKS: i32 = 1000;
/// Bits are counted by thousands, and a film needs some.
const LEAST_KBITS: u32 = 50;
/// Quantisers: at the least a picture is as good as anyone notices, whatever the link would carry.
const QUANTIZERS: (u32, u32) = (8, 56);
/// Milliseconds of bits that are spent ahead at most, at first, and usually.
const BUFFER: (u32, u32, u32) = (1000, 500, 600);
/// A key picture may take so many percent of a picture's share of the bits.
const KEY_PERCENT: c_int = 900;
/// Effort: from 0 to -16, which is the least. At 1920×1080, -4 takes twice the time of this for 0.2 dB more at best, and
/// -12 a fifth less for up to 0.3 dB less.
const SPEED: c_int = -8;
/// Differences below this are not encoded.
const STATIC_THRESHOLD: c_int = 1;

/// An encoder of one film.
pub(crate) struct Vp8 {
    /// In a place of its own, as libvpx may keep where it is.
    context: Box<vpx_codec_ctx_t>,
    config: vpx_codec_enc_cfg_t,
    /// When the last picture was shown, in ticks.
    last: Option<i64>,
}

// SAFETY: a context belongs to no thread; libvpx asks only that calls do not overlap, and every one is made
// through `&mut self`.
unsafe impl Send for Vp8 {}

/// What libvpx says, as ours.
fn check(answer: vpx_codec_err_t, what: &'static str) -> Result<(), Error> {
    match answer {
        vpx_codec_err_t::VPX_CODEC_OK => Ok(()),
        refusal => Err(Error::Library {
            codec: Codec::Vp8,
            what,
            code: refusal as i64,
        }),
    }
}

impl Vp8 {
    pub(crate) fn open(settings: Settings) -> Result<Self, Error> {
        let config = configured(settings)?;
        // SAFETY: its fields are pointers, integers and an error whose `VPX_CODEC_OK` is 0.
        let empty = unsafe { MaybeUninit::<vpx_codec_ctx_t>::zeroed().assume_init() };
        let mut context = Box::new(empty);
        // SAFETY: both pointers are valid for the call; libvpx copies the configuration. What it needs to know of
        // the header that the bindings were made from is in the version.
        let answer = unsafe {
            vpx_codec_enc_init_ver(
                &raw mut *context,
                vpx_codec_vp8_cx(),
                &raw const config,
                0,
                VPX_ENCODER_ABI_VERSION as c_int,
            )
        };
        check(answer, "open an encoder")?;
        let mut encoder = Self {
            context,
            config,
            last: None,
        };
        encoder.control(control::VP8E_SET_CPUUSED, SPEED)?;
        encoder.control(control::VP8E_SET_STATIC_THRESHOLD, STATIC_THRESHOLD)?;
        encoder.control(control::VP8E_SET_MAX_INTRA_BITRATE_PCT, KEY_PERCENT)?;
        Ok(encoder)
    }

    fn control(&mut self, setting: control, value: c_int) -> Result<(), Error> {
        // SAFETY: the context is open, and each setting that is used here takes one `int`.
        let answer = unsafe { vpx_codec_control_(&raw mut *self.context, setting as c_int, value) };
        check(answer, "set up an encoder")
    }

    /// All that the last call made.
    fn collect(&mut self) -> Encoded {
        let mut encoded = Encoded {
            bytes: Vec::new(),
            is_key: false,
        };
        let mut place = null();
        loop {
            // SAFETY: the context is open, and `place` is null or from the call before.
            let packet = unsafe { vpx_codec_get_cx_data(&raw mut *self.context, &raw mut place) };
            // SAFETY: it is null or lives until the next call that encodes.
            let Some(packet) = (unsafe { packet.as_ref() }) else {
                return encoded;
            };
            if packet.kind != vpx_codec_cx_pkt_kind::VPX_CODEC_CX_FRAME_PKT {
                continue;
            }
            // SAFETY: this is the member that the kind means, and it has `sz` bytes at `buf`.
            let (bytes, flags) = unsafe {
                let frame = packet.data.frame;
                let bytes = slice::from_raw_parts(frame.buf.cast::<u8>(), frame.sz as usize);
                (bytes, frame.flags)
            };
            encoded.bytes.extend_from_slice(bytes);
            encoded.is_key |= flags & VPX_FRAME_IS_KEY != 0;
        }
    }
}

impl Encoder for Vp8 {
    fn encode(&mut self, picture: &I420, at: Duration, wants_key: bool) -> Result<Encoded, Error> {
        if (picture.width(), picture.height()) != (self.config.g_w, self.config.g_h) {
            return Err(Error::Size {
                codec: Codec::Vp8,
                width: picture.width(),
                height: picture.height(),
            });
        }
        let image = wrap(picture)?;
        let now = i64::try_from(at.as_millis()).unwrap_or(i64::MAX - 1);
        let now = self.last.map_or(now, |last| now.max(last + 1));
        let length = self.last.map_or(1, |last| now - last);
        let flags = if wants_key { VPX_EFLAG_FORCE_KF } else { 0 };
        // SAFETY: the context is open, and the image's planes live for the call; libvpx copies and does not
        // change them.
        let answer = unsafe {
            vpx_codec_encode(
                &raw mut *self.context,
                &raw const image,
                now,
                length.unsigned_abs(),
                flags.into(),
                VPX_DL_REALTIME.into(),
            )
        };
        check(answer, "encode a picture")?;
        self.last = Some(now);
        let encoded = self.collect();
        // It leaves none out, as it was told not to.
        if encoded.bytes.is_empty() {
            return Err(Error::Library {
                codec: Codec::Vp8,
                what: "make anything of a picture",
                code: 0,
            });
        }
        Ok(encoded)
    }

    fn set_bits(&mut self, bits: u32) -> Result<(), Error> {
        let config = vpx_codec_enc_cfg_t {
            rc_target_bitrate: kbits(bits),
            ..self.config
        };
        // SAFETY: both are valid for the call; libvpx copies the configuration.
        let answer = unsafe { vpx_codec_enc_config_set(&raw mut *self.context, &raw const config) };
        check(answer, "change the bit rate")?;
        self.config = config;
        Ok(())
    }
}

impl Drop for Vp8 {
    fn drop(&mut self) {
        // SAFETY: it is open, and nobody uses it any more. An answer would say only that it was not.
        let _ = unsafe { vpx_codec_destroy(&raw mut *self.context) };
    }
}

fn kbits(bits: u32) -> u32 {
    (bits / 1000).max(LEAST_KBITS)
}

/// For pictures that are watched as they are made: nothing looks ahead, none is left out, and only who asks
/// for a key picture gets one.
fn configured(settings: Settings) -> Result<vpx_codec_enc_cfg_t, Error> {
    let mut config = MaybeUninit::uninit();
    // SAFETY: it is written to, and whole if the answer is good.
    let mut config: vpx_codec_enc_cfg_t = unsafe {
        let answer = vpx_codec_enc_config_default(vpx_codec_vp8_cx(), config.as_mut_ptr(), 0);
        check(answer, "find its settings")?;
        config.assume_init()
    };
    config.g_w = settings.width;
    config.g_h = settings.height;
    config.g_threads = 1;
    config.g_timebase = vpx_rational { num: 1, den: TICKS };
    config.g_pass = vpx_enc_pass::VPX_RC_ONE_PASS;
    config.g_lag_in_frames = 0;
    config.g_error_resilient = 0;
    config.rc_end_usage = vpx_rc_mode::VPX_CBR;
    config.rc_target_bitrate = kbits(settings.bits);
    config.rc_dropframe_thresh = 0;
    config.rc_resize_allowed = 0;
    (config.rc_min_quantizer, config.rc_max_quantizer) = QUANTIZERS;
    config.rc_undershoot_pct = 100;
    config.rc_overshoot_pct = 15;
    (
        config.rc_buf_sz,
        config.rc_buf_initial_sz,
        config.rc_buf_optimal_sz,
    ) = BUFFER;
    config.kf_mode = vpx_kf_mode::VPX_KF_DISABLED;
    Ok(config)
}

/// A picture as libvpx names it.
fn wrap(picture: &I420) -> Result<vpx_image_t, Error> {
    let mut image = MaybeUninit::uninit();
    let planes: *const c_uchar = picture.bytes().as_ptr();
    // SAFETY: the image is written to, and whole if the answer is not null. Its sides are even, so its planes in
    // rows without gaps are all the bytes of the picture and no more.
    let image = unsafe {
        let wrapped = vpx_img_wrap(
            image.as_mut_ptr(),
            vpx_img_fmt::VPX_IMG_FMT_I420,
            picture.width(),
            picture.height(),
            1,
            planes.cast_mut(),
        );
        (!wrapped.is_null()).then(|| image.assume_init())
    };
    image.ok_or(Error::Library {
        codec: Codec::Vp8,
        what: "take a picture",
        code: 0,
    })
}
