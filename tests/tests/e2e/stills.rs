//! Photographs on a slow link, and those that come again, as clients that others wrote see them.

use std::time::{Duration, Instant};

use caraway_spice::{Framebuffer, Rect};
use caraway_tests::client::{GlibWatch, Ryll};
use caraway_tests::picture::Picture;
use caraway_tests::screen::Screen;
use caraway_tests::throttle::Throttle;
use caraway_tests::wait::wait_for;

/// 1 Mbit/s: exact pixels of the photograph take four seconds.
const BYTES_PER_SECOND: u32 = 125_000;
const PHOTOGRAPH: Rect = Rect {
    left: 48,
    top: 30,
    right: 688,
    bottom: 510,
};
/// Below it, something that no codec makes smaller: it keeps the link busy, and so shows how slow it is.
const NOISE: Rect = Rect {
    left: 0,
    top: 520,
    right: 720,
    bottom: 600,
};
/// Nothing more comes after so long without anything, …
const REST: Duration = Duration::from_secs(1);
/// … or on the slow link.
const SLOW_REST: Duration = Duration::from_secs(4);
/// Each JPEG picture has these bytes near its start (ITU-T T.871), and hardly anything else does.
const JPEG: &[u8] = b"JFIF\0";
/// What covers most of the photograph for a while, across pieces and images.
const WINDOW: Rect = Rect {
    left: 60,
    top: 50,
    right: 661,
    bottom: 453,
};
/// What a colour of a lossy image may be off by.
const NEAR: u8 = 48;

fn make_noise(screen: &Framebuffer) {
    let number = |i: u32| i.wrapping_mul(2_654_435_761);
    let pixels: Vec<u32> = (0..NOISE.width() * NOISE.height())
        .map(|i| (number(i) ^ number(i) >> 15) & 0x00ff_ffff)
        .collect();
    assert!(screen.blit(NOISE, &pixels));
}

/// Hangs up something smooth with a little grain.
fn hang(screen: &Framebuffer) {
    hang_one(screen, 1);
}

/// One of several: they have another grain.
fn hang_one(screen: &Framebuffer, number: u32) {
    let mut noise = number;
    let mut pixels = Vec::new();
    for y in 0..PHOTOGRAPH.height() {
        for x in 0..PHOTOGRAPH.width() {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let grain = noise >> 29;
            let (red, green) = (x * 240 / 640 + grain, y * 240 / 480 + grain);
            pixels.push(red << 16 | green << 8 | ((x + y) / 5 + grain));
        }
    }
    assert!(screen.blit(PHOTOGRAPH, &pixels));
}

fn is_near(screen: &Picture, shown: &Picture) -> bool {
    screen
        .difference(shown)
        .is_none_or(|difference| difference.most <= NEAR)
}

/// Waits until ryll shows exactly what is on the screen now.
fn wait_until_shown(screen: &Screen, ryll: &mut Ryll) {
    let wanted = screen.picture();
    wait_for("the screen in ryll", || {
        let difference = wanted.difference(&ryll.screenshot());
        difference.is_none().then_some(())
    });
}

fn assert_no_gaps(ryll: &Ryll) {
    let none = Vec::<std::path::PathBuf>::new();
    assert_eq!(ryll.gaps(), none, "{}", ryll.log());
}

/// Waits until more than `least` bytes were sent, and then nothing for as long as `rest`.
fn wait_for_rest(screen: &Screen, least: u64, rest: Duration) {
    let (mut bytes, mut since) = (screen.bytes_sent(), Instant::now());
    wait_for("rest", || {
        let now = screen.bytes_sent();
        if std::mem::replace(&mut bytes, now) != now {
            since = Instant::now();
        }
        (bytes > least && since.elapsed() > rest).then_some(())
    });
}

#[test]
fn ryll_shows_a_photograph_early_and_then_exactly() {
    let screen = Screen::open(720, 600);
    let way = Throttle::open(screen.address(), BYTES_PER_SECOND);
    let mut ryll = Ryll::connect(way.address());
    make_noise(screen.framebuffer());
    wait_until_shown(&screen, &mut ryll);
    let before = screen.bytes_sent();

    hang(screen.framebuffer());

    let wanted = screen.picture();
    let early = wait_for("the photograph in ryll", || {
        let sent = screen.bytes_sent() - before;
        is_near(&wanted, &ryll.screenshot()).then_some(sent)
    });
    wait_until_shown(&screen, &mut ryll);
    let all = screen.bytes_sent() - before;
    println!("{early} bytes until it showed, {all} until it was exact");
    assert!(early * 2 < all, "{early} bytes of {all}");
    assert!(way.has_passed(JPEG));
    assert_no_gaps(&ryll);
}

#[test]
fn spice_gtk_takes_lossy_images_and_ends_with_the_exact_pixels() {
    let screen = Screen::open(720, 600);
    let way = Throttle::open(screen.address(), BYTES_PER_SECOND);
    let mut gtk = GlibWatch::start(way.address(), 0);
    make_noise(screen.framebuffer());
    wait_for_rest(&screen, 100_000, SLOW_REST);
    let before = screen.bytes_sent();
    assert!(!way.has_passed(JPEG));

    hang(screen.framebuffer());

    wait_for_rest(&screen, before + 100_000, SLOW_REST);
    let (_, picture) = gtk.finish();
    assert!(way.has_passed(JPEG));
    screen.picture().assert_same(&picture, "spice-gtk");
}

#[test]
fn ryll_has_what_it_keeps_of_a_photograph_drawn_again() {
    let screen = Screen::open(720, 600);
    let mut ryll = Ryll::connect(screen.address());
    wait_until_shown(&screen, &mut ryll);
    hang(screen.framebuffer());
    wait_until_shown(&screen, &mut ryll);
    let whole = screen.bytes_sent();
    screen.framebuffer().fill(WINDOW, 0x0070_8090);
    wait_until_shown(&screen, &mut ryll);
    let before = screen.bytes_sent();

    hang(screen.framebuffer());

    wait_until_shown(&screen, &mut ryll);
    let bytes = screen.bytes_sent() - before;
    println!("{bytes} bytes, the whole photograph {whole}");
    assert!(bytes * 4 < whole, "{bytes} bytes of {whole}");
    assert_no_gaps(&ryll);
}

#[test]
fn spice_gtk_has_what_it_keeps_of_a_photograph_drawn_again() {
    let screen = Screen::open(720, 600);
    let mut gtk = GlibWatch::start(screen.address(), 0);
    hang(screen.framebuffer());
    wait_for_rest(&screen, 100_000, REST);
    let whole = screen.bytes_sent();
    screen.framebuffer().fill(WINDOW, 0x0070_8090);
    wait_for_rest(&screen, whole, REST);
    let before = screen.bytes_sent();

    hang(screen.framebuffer());

    wait_for_rest(&screen, before, REST);
    let bytes = screen.bytes_sent() - before;
    let (_, picture) = gtk.finish();
    screen.picture().assert_same(&picture, "spice-gtk");
    println!("{bytes} bytes, the whole photograph {whole}");
    assert!(bytes * 4 < whole, "{bytes} bytes of {whole}");
}

/// Each has 307,200 pixels, and a client keeps four million at most.
const PHOTOGRAPHS: u32 = 17;

/// Has a client shown all photographs, and then one that it keeps and one that it had to forget, by `show`, which
/// tells the bytes that one took.
fn assert_forgets_the_oldest(mut show: impl FnMut(u32) -> u64) {
    let first: Vec<u64> = (1..=PHOTOGRAPHS).map(&mut show).collect();

    let (recent, oldest) = (show(PHOTOGRAPHS - 3), show(1));

    println!("{first:?}, again {recent}, forgotten {oldest}");
    let least = first.iter().min().copied().unwrap_or_default();
    assert!(recent * 4 < least, "{recent} bytes of {least}");
    assert!(oldest * 2 > least, "{oldest} bytes of {least}");
}

#[test]
fn spice_gtk_forgets_what_it_has_no_room_for_and_shows_what_it_keeps() {
    let screen = Screen::open(720, 600);
    let mut gtk = GlibWatch::start(screen.address(), 0);
    wait_for_rest(&screen, 0, REST);

    assert_forgets_the_oldest(|number| {
        let before = screen.bytes_sent();
        hang_one(screen.framebuffer(), number);
        wait_for_rest(&screen, before, REST);
        screen.bytes_sent() - before
    });

    let (_, picture) = gtk.finish();
    screen.picture().assert_same(&picture, "spice-gtk");
}

#[test]
fn ryll_forgets_what_it_has_no_room_for_and_shows_what_it_keeps() {
    let screen = Screen::open(720, 600);
    let mut ryll = Ryll::connect(screen.address());

    assert_forgets_the_oldest(|number| {
        let before = screen.bytes_sent();
        hang_one(screen.framebuffer(), number);
        wait_until_shown(&screen, &mut ryll);
        screen.bytes_sent() - before
    });

    assert_no_gaps(&ryll);
}
