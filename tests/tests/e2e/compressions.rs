//! The forms of images that a client may ask for, as spice-gtk decodes them.

use std::time::Duration;

use caraway_spice::{Framebuffer, Rect};
use caraway_tests::client::{GlibWatch, Wishes};
use caraway_tests::screen::Screen;
use caraway_tests::throttle::Throttle;
use caraway_tests::wait::wait_for;

/// 100 Mbit/s.
const BYTES_PER_SECOND: u32 = 12_500_000;
/// `SPICE_IMAGE_COMPRESSION_LZ`.
const LZ: u8 = 6;
/// All of `SpiceImageCompression` but the one that is none.
const COMPRESSIONS: std::ops::RangeInclusive<u8> = 1..=7;
/// What an LZ stream begins with, up to the type.
const LZ_MAGIC: [u8; 8] = *b"  ZL\0\x01\0\x01";
/// `LZ_IMAGE_TYPE_PLT1_BE`, `LZ_IMAGE_TYPE_PLT4_BE`, `LZ_IMAGE_TYPE_PLT8` and `LZ_IMAGE_TYPE_RGB32`, by how many
/// colours have them.
const TYPES: [(u32, u8); 4] = [(2, 2), (13, 4), (250, 5), (1000, 8)];
/// `SPICE_MSG_DISPLAY_INVAL_PALETTE`, with the size of its body, in a short header.
const INVAL_PALETTE: [u8; 6] = [107, 0, 8, 0, 0, 0];
/// Palettes of which none has a colour of another, more than a client is to keep.
const PALETTES: u32 = 20;

/// Draws something of so many colours, with rows that end within a byte of indices.
fn draw(screen: &Framebuffer, top: i32, colours: u32, first: u32) {
    let area = Rect {
        left: 33,
        top,
        right: 322,
        bottom: top + 61,
    };
    let scrambled = |number: u32| (number ^ number >> 7).wrapping_mul(2_654_435_761) >> 11;
    let pixel = |place: u32| {
        // Lines of what repeats, and of what does not.
        let number = match place / area.width() % 3 {
            0 => place % 17,
            1 => place / 5,
            _ => scrambled(place),
        };
        ((first + number % colours) * 0x01_0203) & 0x00ff_ffff
    };
    let count = area.width() * area.height();
    let pixels: Vec<u32> = (0..count).map(pixel).collect();
    assert!(screen.blit(area, &pixels));
}

/// Waits until something was sent, and then nothing for a while.
fn wait_until_sent(screen: &Screen, before: u64) {
    let mut last = before;
    wait_for("all to be sent", || {
        std::thread::sleep(Duration::from_millis(100));
        let now = screen.bytes_sent();
        let is_still = std::mem::replace(&mut last, now) == now;
        (now > before && is_still).then_some(())
    });
}

fn watch(way: &Throttle, compression: u8) -> GlibWatch {
    let wishes = Wishes {
        compression: Some(compression),
        ..Wishes::default()
    };
    GlibWatch::start_with(way.address(), 0, wishes)
}

#[test]
fn spice_gtk_shows_the_screen_in_each_compression_that_it_can_ask_for() {
    for compression in COMPRESSIONS {
        let screen = Screen::open(400, 300);
        let way = Throttle::open(screen.address(), BYTES_PER_SECOND);
        let mut gtk = watch(&way, compression);
        wait_until_sent(&screen, 0);

        for (row, (colours, _)) in (0..).zip(TYPES) {
            let before = screen.bytes_sent();
            draw(screen.framebuffer(), 10 + row * 70, colours, 1);
            wait_until_sent(&screen, before);
        }

        let (_, picture) = gtk.finish();
        let name = format!("spice-gtk with compression {compression}");
        screen.picture().assert_same(&picture, &name);
        for (colours, kind) in TYPES {
            let header = [&LZ_MAGIC[..], &[0, 0, 0, kind]].concat();
            let has_passed = way.has_passed(&header);
            if compression == LZ {
                assert!(has_passed, "{colours} colours");
            } else {
                assert!(!has_passed || kind == 8, "{name}: {colours} colours");
            }
        }
    }
}

#[test]
fn spice_gtk_keeps_palettes_and_forgets_those_that_it_is_told_to() {
    let screen = Screen::open(400, 300);
    let way = Throttle::open(screen.address(), BYTES_PER_SECOND);
    let mut gtk = watch(&way, LZ);
    wait_until_sent(&screen, 0);
    let show = |number: u32| {
        let before = screen.bytes_sent();
        draw(screen.framebuffer(), 10, 256, number * 256);
        wait_until_sent(&screen, before);
        screen.bytes_sent() - before
    };

    let new = show(0);
    for number in 1..PALETTES {
        show(number);
    }
    let kept = show(PALETTES - 3);
    let forgotten = show(0);

    let (_, picture) = gtk.finish();
    screen.picture().assert_same(&picture, "spice-gtk");
    assert!(way.has_passed(&INVAL_PALETTE));
    println!("{new} bytes, {kept} with a palette that is kept, {forgotten} with one that is not");
    assert!(kept + 1000 < new, "{kept} and {new}");
    assert!(forgotten.abs_diff(new) < 500, "{forgotten} and {new}");
}
