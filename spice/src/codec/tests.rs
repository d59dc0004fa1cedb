use proptest::prelude::*;
use shakenfist_spice_compression as independent;

use super::*;

const ALL: [Codec; 8] = [
    Codec::Auto,
    Codec::AutoLz,
    Codec::Raw,
    Codec::Lz,
    Codec::LzPalette,
    Codec::Glz,
    Codec::Lz4,
    Codec::Quic,
];

/// A client made of decoders that are not ours.
#[derive(Default)]
struct Client {
    dictionary: independent::glz::GlzDictionary,
}

impl Client {
    /// Rows of RGBA.
    fn decode(&self, image: &Image) -> Vec<u8> {
        match image.kind {
            ImageKind::GlzRgb => self.decode_glz(&image.data),
            ImageKind::ZlibGlzRgb => {
                let glz = miniz_oxide::inflate::decompress_to_vec_zlib(&image.data)
                    .expect("the stream is well formed");
                assert_eq!(image.unpacked, u32::try_from(glz.len()).ok());
                self.decode_glz(&glz)
            }
            _ => decode(image),
        }
    }

    /// Keeps what the window lets it keep, and no more.
    fn decode_glz(&self, stream: &[u8]) -> Vec<u8> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime needs nothing");
        let decoded = runtime
            .block_on(independent::glz::decompress_glz(stream, &self.dictionary))
            .expect("the stream is well formed");
        let window = u32::from_be_bytes(stream[29..33].try_into().expect("four bytes"));
        let id = u64::from_be_bytes(stream[21..29].try_into().expect("eight bytes"));
        self.dictionary.insert(id, decoded.pixels.clone());
        self.dictionary.evict_older_than(id - u64::from(window));
        decoded.pixels
    }
}

/// Decodes with decoders that are not ours; rows of RGBA.
fn decode(image: &Image) -> Vec<u8> {
    match image.kind {
        ImageKind::GlzRgb | ImageKind::ZlibGlzRgb => {
            unreachable!("no dictionary was given to the encoder")
        }
        ImageKind::Bitmap => image.data[18..]
            .chunks(4)
            .flat_map(|p| [p[2], p[1], p[0], 255])
            .collect(),
        ImageKind::LzPalette => match &image.palette {
            Some(Palette::New { colours, .. }) => decode_indices(image, colours),
            palette => panic!("{palette:?} was never sent"),
        },
        ImageKind::Quic => independent::quic::quic_decode(&image.data, image.width, image.height)
            .expect("the stream is well formed"),
        ImageKind::LzRgb => {
            independent::lz::decompress_lz(&image.data)
                .expect("the stream is well formed")
                .pixels
        }
        ImageKind::Jpeg => jpeg_decoder::Decoder::new(&*image.data)
            .decode()
            .expect("the picture is well formed")
            .chunks(3)
            .flat_map(|p| [p[0], p[1], p[2], 255])
            .collect(),
        ImageKind::Lz4 => {
            independent::lz4::decompress_spice_lz4(
                &image.data,
                image.width as usize,
                image.height as usize,
            )
            .expect("the stream is well formed")
            .pixels
        }
    }
}

/// Rows of RGBA of an indexed image. No crate decodes these; `compressions` of the
/// end-to-end tests has spice-gtk do it.
fn decode_indices(image: &Image, colours: &[u32]) -> Vec<u8> {
    let (header, stream) = image.data.split_at(28);
    let word = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().expect("four bytes"));
    let bits = match word(8) {
        2 => 1,
        4 => 4,
        5 => 8,
        other => panic!("indices of type {other}"),
    };
    let (width, height, stride) = (word(12), word(16), word(20));
    assert_eq!((width, height), (image.width, image.height));
    assert_eq!(stride, (width * bits).div_ceil(8));
    let bytes = decode_bytes(stream);
    assert_eq!(bytes.len(), stride as usize * height as usize);
    let rows = bytes.chunks(stride as usize);
    rows.flat_map(|row| {
        (0..width).flat_map(move |x| {
            let shift = 8 - bits - x * bits % 8;
            let byte = u32::from(row[(x * bits / 8) as usize]);
            let index = byte >> shift & ((1 << bits) - 1);
            let [blue, green, red, _] = colours[index as usize].to_le_bytes();
            [red, green, blue, 255]
        })
    })
    .collect()
}

/// The operations of LZ over bytes.
fn decode_bytes(stream: &[u8]) -> Vec<u8> {
    let mut bytes: Vec<u8> = Vec::new();
    let mut rest = stream.iter().copied();
    let mut next = || rest.next();
    while let Some(code) = next() {
        let mut get = || usize::from(next().expect("the stream is well formed"));
        if code < 32 {
            bytes.extend((0..=code).map(|_| get() as u8));
            continue;
        }
        let mut length = usize::from(code >> 5) + 2;
        if code >> 5 == 7 {
            loop {
                let more = get();
                length += more;
                if more < 255 {
                    break;
                }
            }
        }
        let high = usize::from(code & 31);
        let low = get();
        let back = match (high, low) {
            (31, 255) => 8191 + get() * 256 + get(),
            _ => high * 256 + low,
        };
        let start = bytes.len() - back - 1;
        for place in start..start + length {
            bytes.push(bytes[place]);
        }
    }
    bytes
}

fn assert_exact(codec: Codec, width: u32, height: u32, bytes: &[u8]) -> Image {
    let pixels = Pixels::new(width, height, bytes).expect("the size is right");
    let image = Encoder::default().encode(codec, pixels);
    let expected: Vec<u8> = bytes
        .chunks(4)
        .flat_map(|p| [p[2], p[1], p[0], 255])
        .collect();
    let decoded: Vec<u8> = decode(&image)
        .chunks(4)
        .flat_map(|p| [p[0], p[1], p[2], 255])
        .collect();
    assert!(decoded == expected, "{codec:?} {width}x{height} differs");
    image
}

/// Bytes with runs and repeats at all distances, from a few numbers.
fn patterned(width: u32, height: u32, period: u32, noise: u32) -> Vec<u8> {
    (0..width * height)
        .flat_map(|i| {
            let repeat = (i % period).wrapping_mul(0x0101_6b35);
            let odd = if noise != 0 && i % noise == 0 { i } else { 0 };
            repeat.wrapping_add(odd).to_le_bytes()
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn independent_decoders_return_the_same_pixels(
        width in 1u32..200, height in 1u32..60, period in 1u32..5000, noise in 0u32..40
    ) {
        let bytes = patterned(width, height, period, noise);
        for codec in ALL {
            assert_exact(codec, width, height, &bytes);
        }
    }

    #[test]
    fn random_pixels_survive(
        bytes in prop::collection::vec(any::<u8>(), 4..2000), few in any::<bool>()
    ) {
        let mut bytes = bytes;
        bytes.truncate(bytes.len() / 4 * 4);
        if few {
            bytes.iter_mut().for_each(|byte| *byte &= 1);
        }
        let width = (bytes.len() / 4) as u32;
        for codec in ALL {
            assert_exact(codec, width, 1, &bytes);
        }
    }
}

/// The same with most bits of each pixel left out.
fn of_256_colours(bytes: &[u8]) -> Vec<u8> {
    let pixels = bytes.chunks(4);
    pixels.flat_map(|pixel| [0, 0, pixel[2], 0]).collect()
}

#[test]
fn matches_at_every_edge_of_the_distance_forms_are_exact() {
    for period in [
        1, 2, 8190, 8191, 8192, 8193, 65_535, 73_725, 73_726, 73_727, 73_728,
    ] {
        let bytes: Vec<u8> = (0..1024 * 160u32)
            .flat_map(|i| (i % period).wrapping_mul(2_654_435_761).to_le_bytes())
            .collect();
        assert_exact(Codec::Lz, 1024, 160, &bytes);
        let bytes = of_256_colours(&bytes);
        assert_exact(Codec::LzPalette, 1024, 160, &bytes);
    }
}

#[test]
fn matches_at_every_edge_of_the_length_form_are_exact() {
    for length in [
        1, 2, 3, 6, 7, 8, 9, 10, 261, 262, 263, 264, 265, 516, 517, 518, 519, 520,
    ] {
        let bytes: Vec<u8> = (0..4096u32)
            .flat_map(|i| (i / length).wrapping_mul(2_654_435_761).to_le_bytes())
            .collect();
        assert_exact(Codec::Lz, 4096, 1, &bytes);
        let bytes = of_256_colours(&bytes);
        assert_exact(Codec::LzPalette, 4096, 1, &bytes);
    }
}

/// Smooth with a little grain, as a photograph.
fn photograph(width: u32, height: u32) -> Vec<u8> {
    (0..width * height)
        .flat_map(|i| {
            let (x, y) = (i % width, i / width);
            let grain = i.wrapping_mul(2_654_435_761) >> 30;
            [
                (x + y + grain) as u8,
                (x / 5 + grain) as u8,
                (y * 2) as u8,
                0,
            ]
        })
        .collect()
}

#[test]
fn a_photograph_is_sent_as_quic_and_far_shorter_than_lz_makes_it() {
    for (width, height) in [(3, 500), (640, 100), (5000, 9)] {
        let bytes = photograph(width, height);
        let auto = assert_exact(Codec::Auto, width, height, &bytes);
        let lz = assert_exact(Codec::Lz, width, height, &bytes);
        assert_eq!(auto.kind, ImageKind::Quic);
        assert!(auto.data.len() * 9 < lz.data.len() * 5);
    }
}

/// Waves of grey: gradual, and made of the same row again and again.
fn waves(width: u32, height: u32) -> Vec<u8> {
    let wave = |x: u32| {
        if x % 64 < 32 {
            x % 64 * 6
        } else {
            (63 - x % 64) * 6
        }
    };
    (0..width * height)
        .flat_map(|i| [wave(i % width) as u8; 3].into_iter().chain([0]))
        .collect()
}

#[test]
fn of_what_is_gradual_glz_has_what_repeats_and_quic_the_rest() {
    let mut encoder = Encoder::with_dictionary(&Dictionary::default(), 1, WINDOW);
    let client = Client::default();
    let (waves, photograph) = (waves(640, 100), photograph(640, 100));
    let expected = [
        (&waves, ImageKind::ZlibGlzRgb),
        (&photograph, ImageKind::Quic),
        (&photograph, ImageKind::Quic),
        (&waves, ImageKind::ZlibGlzRgb),
    ];
    for (bytes, kind) in expected {
        let image = encoder.encode(Codec::Auto, pixels(640, 100, bytes));
        encoder.sent();
        assert_eq!(image.kind, kind);
        assert_eq!(shown(&client.decode(&image)), colours(bytes));
    }
}

#[test]
fn a_lossy_image_of_a_photograph_is_short_and_nearly_right() {
    let bytes = photograph(640, 100);
    let mut encoder = Encoder::default();

    let image = encoder.encode_lossy(&pixels(640, 100, &bytes));

    let image = image.expect("it is a photograph");
    let exact = encoder.encode(Codec::Auto, pixels(640, 100, &bytes));
    assert!(
        image.data.len() * 3 < exact.data.len(),
        "{}",
        image.data.len()
    );
    let both = std::iter::zip(shown(&decode(&image)), colours(&bytes)).flat_map(|(a, b)| {
        let difference = |channel: usize| u64::from(a[channel].abs_diff(b[channel])).pow(2);
        [0, 1, 2].map(difference)
    });
    let squares: Vec<u64> = both.collect();
    let mean = squares.iter().sum::<u64>() / squares.len() as u64;
    // 30 dB.
    assert!(mean < 65, "{mean}");
}

#[test]
fn what_is_no_photograph_or_small_has_no_lossy_image() {
    let mut encoder = Encoder::default();
    let text = patterned(300, 50, 23, 1000);
    for pixels in [
        pixels(300, 50, &text),
        pixels(40, 50, &photograph(40, 50)),
        pixels(64, 64, &noise(64, 64, 1)),
    ] {
        assert_eq!(encoder.encode_lossy(&pixels), None);
    }
}

#[test]
fn noise_is_sent_raw() {
    let bytes: Vec<u8> = (0..64 * 64u32)
        .flat_map(|i| (i.wrapping_mul(2_654_435_761) >> 3).to_le_bytes())
        .collect();
    let image = assert_exact(Codec::Lz4, 64, 64, &bytes);
    assert_eq!(image.kind, ImageKind::Bitmap);
}

/// What follows a refused image need not be one: a plain area is sent as a fill.
#[test]
fn an_image_that_is_never_sent_is_not_taken_for_the_fill_after_it() {
    let mut encoder = Encoder::with_dictionary(&Dictionary::default(), 1, WINDOW);
    let client = Client::default();
    let bytes = noise(70, 50, 2);
    let _refused = encoder.encode(Codec::Glz, pixels(70, 50, &bytes));
    let plain = encoder.pixels(4, 4, |_| true).expect("the size is right");
    encoder.recycle(plain);
    encoder.sent();

    let image = encoder.encode(Codec::Glz, pixels(70, 50, &bytes));

    encoder.sent();
    assert_eq!(shown(&client.decode(&image)), colours(&bytes));
    assert_eq!(client.dictionary.image_ids(), [0]);
}

#[test]
fn one_colour_is_seen_whatever_the_unused_byte_holds() {
    let pixels = Pixels::new(2, 1, &[1, 2, 3, 0, 1, 2, 3, 255]).expect("the size is right");
    assert_eq!(pixels.solid(), Some(0x0003_0201));
    let two = Pixels::new(2, 1, &[1, 2, 3, 0, 1, 2, 4, 0]).expect("the size is right");
    assert_eq!(two.solid(), None);
}

#[test]
fn a_wrong_number_of_bytes_is_refused() {
    assert_eq!(Pixels::new(2, 2, &[0; 15]), None);
    assert_eq!(Pixels::new(0, 2, &[]), None);
    assert_eq!(Pixels::new(u32::MAX, u32::MAX, &[0; 4]), None);
}

fn pixels(width: u32, height: u32, bytes: &[u8]) -> Pixels {
    Pixels::new(width, height, bytes).expect("the size is right")
}

/// What a client shows, without the unused byte.
fn colours(bytes: &[u8]) -> Vec<[u8; 3]> {
    bytes.chunks(4).map(|p| [p[2], p[1], p[0]]).collect()
}

fn shown(rgba: &[u8]) -> Vec<[u8; 3]> {
    rgba.chunks(4).map(|p| [p[0], p[1], p[2]]).collect()
}

/// Enough for every test that does not want it to be full.
const WINDOW: usize = 1 << 20;

#[test]
fn an_image_that_was_sent_before_takes_a_few_bytes() {
    let mut encoder = Encoder::with_dictionary(&Dictionary::default(), 1, WINDOW);
    let client = Client::default();
    let bytes = noise(100, 80, 1);
    for (round, most) in [(0, usize::MAX), (1, 120)] {
        let image = encoder.encode(Codec::Glz, pixels(100, 80, &bytes));
        encoder.sent();
        assert!(
            image.data.len() < most,
            "round {round}: {}",
            image.data.len()
        );
        assert_eq!(shown(&client.decode(&image)), colours(&bytes));
    }
}

/// Pixels that repeat nothing; others for each seed.
fn noise(width: u32, height: u32, seed: u32) -> Vec<u8> {
    let number = |i: u32| (i ^ seed << 20).wrapping_mul(2_654_435_761);
    (0..width * height)
        .flat_map(|i| (number(i) ^ number(i) >> 15).to_le_bytes())
        .collect()
}

#[test]
fn an_image_that_is_never_sent_is_never_referred_to() {
    let mut encoder = Encoder::with_dictionary(&Dictionary::default(), 1, WINDOW);
    let client = Client::default();
    let (seen, unseen) = (noise(50, 50, 1), noise(70, 50, 2));
    for (bytes, width, is_sent) in [
        (&seen, 50, true),
        (&unseen, 70, false),
        (&unseen, 70, false),
        (&seen, 50, true),
        (&unseen, 70, true),
        (&unseen, 70, true),
    ] {
        let image = encoder.encode(Codec::Glz, pixels(width, 50, bytes));
        if is_sent {
            encoder.sent();
            assert_eq!(shown(&client.decode(&image)), colours(bytes));
        }
    }
}

#[test]
fn a_dictionary_that_is_full_forgets_what_the_client_forgets() {
    const SMALL: usize = 20_000;
    let mut encoder = Encoder::with_dictionary(&Dictionary::default(), 1, SMALL);
    let client = Client::default();
    for round in 0..60 {
        // A few pictures in turns, some of them forgotten in the meantime.
        let (width, height) = (40 + round % 7, 90);
        let bytes = noise(width, height, round % 7);
        let image = encoder.encode(Codec::Glz, pixels(width, height, &bytes));
        encoder.sent();
        assert_eq!(
            shown(&client.decode(&image)),
            colours(&bytes),
            "round {round}"
        );
        assert!(client.dictionary.total_bytes() <= SMALL * 4);
    }
}

#[test]
fn an_image_that_is_larger_than_the_dictionary_is_sent_as_lz() {
    let mut encoder = Encoder::with_dictionary(&Dictionary::default(), 1, 100);
    let bytes = patterned(10, 10, 9, 0);
    let image = encoder.encode(Codec::Glz, pixels(10, 10, &bytes));
    assert_eq!(image.kind, ImageKind::LzRgb);
}

#[test]
fn channels_that_share_a_dictionary_share_ids_but_refer_to_their_own_images() {
    let dictionary = Dictionary::default();
    let mut channels = [(); 2].map(|()| Encoder::with_dictionary(&dictionary, 1, WINDOW));
    let client = Client::default();
    let bytes = noise(60, 60, 3);
    let sizes: Vec<usize> = [0, 1, 0, 1]
        .map(|channel| {
            let encoder: &mut Encoder = &mut channels[channel];
            let image = encoder.encode(Codec::Glz, pixels(60, 60, &bytes));
            encoder.sent();
            assert_eq!(shown(&client.decode(&image)), colours(&bytes));
            image.data.len()
        })
        .to_vec();
    assert_eq!(client.dictionary.image_ids(), [0, 1, 2, 3]);
    assert!(sizes[1] > sizes[0] / 2, "refers to another channel's");
    assert!(sizes[2] < 120 && sizes[3] < 120);
}

#[test]
fn a_channel_goes_without_while_another_has_not_sent_and_where_the_client_has_another_dictionary() {
    let dictionary = Dictionary::default();
    let mut first = Encoder::with_dictionary(&dictionary, 1, WINDOW);
    let mut second = Encoder::with_dictionary(&dictionary, 1, WINDOW);
    let mut other = Encoder::with_dictionary(&dictionary, 2, WINDOW);
    let bytes = patterned(100, 100, 77, 0);
    let piece = || pixels(100, 100, &bytes);

    let _coming = first.encode(Codec::Glz, piece());
    let meanwhile = second.encode(Codec::Glz, piece());
    first.sent();
    let after = second.encode(Codec::Glz, piece());
    let elsewhere = other.encode(Codec::Glz, piece());

    assert_eq!(meanwhile.kind, ImageKind::LzRgb);
    assert!(matches!(
        after.kind,
        ImageKind::GlzRgb | ImageKind::ZlibGlzRgb
    ));
    assert_eq!(elsewhere.kind, ImageKind::LzRgb);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_sequence_of_images_of_two_channels_is_exact(
        seed in any::<u32>(),
        window in 500usize..60_000,
        steps in prop::collection::vec(
            (0usize..2, 1u32..120, 1u32..60, 1u32..3000, 0u32..40, any::<bool>()), 1..40
        ),
    ) {
        let dictionary = Dictionary::default();
        let mut channels = [(); 2].map(|()| Encoder::with_dictionary(&dictionary, 1, window));
        let client = Client::default();
        for (channel, width, height, period, noise, is_sent) in steps {
            let bytes = patterned(width, height, period + seed % 3, noise);
            let image = channels[channel].encode(Codec::Glz, pixels(width, height, &bytes));
            if is_sent {
                channels[channel].sent();
                prop_assert_eq!(shown(&client.decode(&image)), colours(&bytes));
            }
        }
    }
}

#[test]
fn text_that_scrolled_takes_half_the_bytes_in_glz_that_it_takes_in_lz() {
    // Glyphs of 8×16 pixels, 5 rows of 60.
    let glyph =
        |n: u32, x: u32, y: u32| n.wrapping_mul(2_654_435_761) >> ((x / 2 + y / 4 * 3) % 31) & 1;
    let screen = |scroll: u32| -> Vec<u8> {
        (0..480 * 80)
            .flat_map(|i| {
                let (x, y) = (i % 480, i / 480);
                let letter = (x / 8 * 7 + (y / 16 + scroll) * 131) % 53;
                let ink = glyph(letter, x % 8, y % 16) * 0x00ff_ffff;
                ink.to_le_bytes()
            })
            .collect()
    };
    let mut encoder = Encoder::with_dictionary(&Dictionary::default(), 1, WINDOW);
    let client = Client::default();
    let mut glz = Vec::new();
    for scroll in 0..2 {
        let bytes = screen(scroll);
        let image = encoder.encode(Codec::Auto, pixels(480, 80, &bytes));
        encoder.sent();
        assert_eq!(shown(&client.decode(&image)), colours(&bytes));
        glz.push(image.data.len());
    }
    let lz = assert_exact(Codec::Lz, 480, 80, &screen(0)).data.len();
    assert!(glz[0] < lz && glz[1] * 2 < lz, "{glz:?} {lz}");
}

#[test]
fn what_is_too_far_to_be_referred_to_takes_no_time() {
    // Twice the same noise, farther apart than LZ reaches.
    let mut bytes = noise(1024, 80, 4);
    bytes.extend_from_within(..);
    let start = std::time::Instant::now();
    assert_exact(Codec::Lz, 1024, 160, &bytes);
    assert!(start.elapsed() < std::time::Duration::from_secs(20));
}
