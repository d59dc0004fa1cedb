//! The decoders of the libraries that the encoders are from.

use crate::{Codec, I420};

pub(super) enum Decoder {
    #[cfg(feature = "vp8")]
    Vp8(vp8::Decoder),
    #[cfg(feature = "h264")]
    H264(openh264::decoder::Decoder),
}

impl Decoder {
    pub(super) fn new(codec: Codec) -> Self {
        match codec {
            #[cfg(feature = "vp8")]
            Codec::Vp8 => Self::Vp8(vp8::Decoder::new()),
            #[cfg(feature = "h264")]
            Codec::H264 => {
                let decoder = openh264::decoder::Decoder::new();
                Self::H264(decoder.expect("there is a decoder"))
            }
            #[cfg(not(all(feature = "vp8", feature = "h264")))]
            codec => panic!("{codec} is not built in"),
        }
    }

    /// The picture that these bytes are; `None` if they are none, or it comes only later.
    pub(super) fn decode(&mut self, bytes: &[u8]) -> Option<I420> {
        match self {
            #[cfg(feature = "vp8")]
            Self::Vp8(decoder) => decoder.decode(bytes),
            #[cfg(feature = "h264")]
            Self::H264(decoder) => {
                use openh264::formats::YUVSource;
                let decoded = decoder.decode(bytes).ok()??;
                let planes = [decoded.y(), decoded.u(), decoded.v()];
                let (width, height) = decoded.dimensions();
                let strides = decoded.strides();
                let strides = [strides.0, strides.1, strides.2];
                Some(assembled(width, height, planes.into_iter().zip(strides)))
            }
        }
    }
}

/// A picture of planes, each with bytes from row to row.
fn assembled<'a>(
    width: usize,
    height: usize,
    planes: impl Iterator<Item = (&'a [u8], usize)>,
) -> I420 {
    let mut bytes = Vec::new();
    for ((plane, stride), part) in planes.zip([1, 2, 2]) {
        for row in plane.chunks(stride).take(height / part) {
            bytes.extend(&row[..width / part]);
        }
    }
    I420::of_planes(width, height, bytes)
}

#[cfg(feature = "vp8")]
mod vp8 {
    use std::mem::MaybeUninit;
    use std::ptr::{null, null_mut};
    use std::slice;

    use vpx_sys::{
        VPX_DECODER_ABI_VERSION, vpx_codec_ctx_t, vpx_codec_dec_init_ver, vpx_codec_decode,
        vpx_codec_destroy, vpx_codec_err_t, vpx_codec_get_frame, vpx_codec_vp8_dx,
    };

    use crate::I420;

    pub(in super::super) struct Decoder(Box<vpx_codec_ctx_t>);

    impl Decoder {
        pub(super) fn new() -> Self {
            // SAFETY: its fields are pointers, integers and an error whose `VPX_CODEC_OK` is 0.
            let empty = unsafe { MaybeUninit::<vpx_codec_ctx_t>::zeroed().assume_init() };
            let mut context = Box::new(empty);
            // SAFETY: the context is valid for the call, and a configuration may be missing.
            let answer = unsafe {
                vpx_codec_dec_init_ver(
                    &raw mut *context,
                    vpx_codec_vp8_dx(),
                    null(),
                    0,
                    VPX_DECODER_ABI_VERSION as i32,
                )
            };
            assert_eq!(answer, vpx_codec_err_t::VPX_CODEC_OK);
            Self(context)
        }

        pub(super) fn decode(&mut self, bytes: &[u8]) -> Option<I420> {
            let context = &raw mut *self.0;
            // SAFETY: the context is open and the bytes are as many as said.
            let answer = unsafe {
                let length = bytes.len() as u32;
                vpx_codec_decode(context, bytes.as_ptr(), length, null_mut(), 0)
            };
            if answer != vpx_codec_err_t::VPX_CODEC_OK {
                return None;
            }
            let mut place = null();
            // SAFETY: the context is open; what it gives lives until it decodes more.
            let image = unsafe { vpx_codec_get_frame(context, &raw mut place).as_ref() }?;
            let (width, height) = (image.d_w as usize, image.d_h as usize);
            let planes = [1, 2, 2].into_iter().enumerate().map(|(plane, part)| {
                let stride = image.stride[plane] as usize;
                let length = stride * (height / part - 1) + width / part;
                // SAFETY: the plane has that many rows and this stride.
                let bytes = unsafe { slice::from_raw_parts(image.planes[plane], length) };
                (bytes, stride)
            });
            Some(super::assembled(width, height, planes))
        }
    }

    impl Drop for Decoder {
        fn drop(&mut self) {
            // SAFETY: it is open, and nobody uses it any more.
            let _ = unsafe { vpx_codec_destroy(&raw mut *self.0) };
        }
    }
}
