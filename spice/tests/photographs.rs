//! Photographs on a screen, and what a client keeps of them, with a scripted client.

#![allow(clippy::panic, reason = "a test says no by a panic")]

mod common;

use caraway_spice::{Config, Rect, Size};
use common::{Canvas, Channel, DISPLAY, Fixture};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const SCREEN: Size = Size {
    width: 640,
    height: 384,
};

#[test]
fn a_photograph_on_a_page_is_an_image_of_its_own() {
    let fixture = Fixture::new(Config::default(), SCREEN);
    let (_main, mut display) = fixture.viewer();
    let mut canvas = Canvas::default();
    canvas.catch_up(&mut display, &fixture.screen);

    let photograph = [165, 70, 491, 259];
    let [left, top, right, bottom] = photograph;
    fixture.screen.draw(Rect::of_size(SCREEN), |x, y| {
        match (left..right).contains(&x) && (top..bottom).contains(&y) {
            true => (x / 4) | (y / 4) << 8 | ((x * 31 + y * 17) % 29) << 16,
            false if x % 7 < 2 && y % 9 < 6 => 0,
            false => 0x00ff_ffff,
        }
    });
    canvas.catch_up(&mut display, &fixture.screen);

    // Small pieces, as the first are, go as one although they have a little of the page.
    let pixels = |[left, top, right, bottom]: [u32; 4]| (right - left) * (bottom - top);
    let common = |image: &[u32; 4]| {
        let [x, y] = [0, 1].map(|from| image[from].max(photograph[from]));
        let [right, bottom] = [2, 3].map(|to| image[to].min(photograph[to]));
        right.saturating_sub(x) * bottom.saturating_sub(y)
    };
    let images = &canvas.photographs;
    let sent: u32 = images.iter().copied().map(pixels).sum();
    let of_photograph: u32 = images.iter().map(common).sum();
    assert!(of_photograph > pixels(photograph) / 4 * 3, "{images:?}");
    assert!((sent - of_photograph) * 8 < sent, "{images:?}");
}

/// A client that keeps images of so many pixels.
fn keeper(fixture: &Fixture, pixels: usize) -> (Channel, Channel, Canvas) {
    let (main, session) = fixture.main();
    let mut display = fixture
        .link(DISPLAY, session)
        .expect("the session is there");
    let bytes = (pixels * 4) as u64;
    let init = [&[1][..], &bytes.to_le_bytes(), &[0; 5]].concat();
    display.send(101, &init);
    let mut canvas = Canvas::default();
    canvas.keeps = pixels;
    (main, display, canvas)
}

/// The colours of one of several photographs at a place on it.
fn photograph(number: u32) -> impl Fn(u32, u32) -> u32 {
    move |x, y| {
        let grain = (x * 31 + y * 17 + number * 7) % 29;
        let channels = [x / 3 + number, y / 3 + number * 5, grain + number, 0];
        u32::from_le_bytes(channels.map(|channel| channel as u8))
    }
}

#[test]
fn a_photograph_that_is_uncovered_comes_from_what_the_client_keeps() {
    let fixture = Fixture::new(Config::default(), SCREEN);
    let (_main, mut display, mut canvas) = keeper(&fixture, 1 << 20);
    canvas.catch_up(&mut display, &fixture.screen);
    fixture.screen.draw(Rect::of_size(SCREEN), photograph(1));
    canvas.catch_up(&mut display, &fixture.screen);
    let window = Rect {
        left: 100,
        top: 50,
        right: 401,
        bottom: 303,
    };
    fixture.screen.fill(window, 0x0080_8080);
    canvas.catch_up(&mut display, &fixture.screen);
    let before = canvas.repeated;

    fixture
        .screen
        .draw(window, |x, y| photograph(1)(x + 100, y + 50));
    canvas.catch_up(&mut display, &fixture.screen);

    // Pieces are cut otherwise than before, and what is left over may be too little.
    let (all, repeated) = (window.width() * window.height(), canvas.repeated - before);
    assert!(repeated > all / 4 * 3, "{repeated} of {all} pixels");
}

#[test]
fn what_a_client_keeps_stays_within_its_room_and_is_what_the_screen_shows() {
    const KEPT: usize = 100_000;
    let size = Size {
        width: 500,
        height: 400,
    };
    let fixture = Fixture::new(Config::default(), size);
    let (_main, mut display, mut canvas) = keeper(&fixture, KEPT);
    let mut random = StdRng::seed_from_u64(5);
    let mut below = |end: u32| random.gen_range(0..end);
    for step in 0..150 {
        let (left, top) = (below(400), below(300));
        let (right, bottom) = (left + 30 + below(70), top + 30 + below(70));
        let area = Rect {
            left: left as i32,
            top: top as i32,
            right: right as i32,
            bottom: bottom as i32,
        };
        // Photographs that stay where they are, ones that are scrolled, and other things.
        let (number, by) = (below(4), below(2) * below(90));
        match below(4) {
            0 => fixture.paint(area, step),
            _ => fixture
                .screen
                .draw(area, |x, y| photograph(number)(x + by, y + by)),
        }
        if below(3) == 0 {
            canvas.catch_up(&mut display, &fixture.screen);
        }
        if step % 50 == 49 {
            let size = Size {
                width: 500 + step,
                height: 400,
            };
            fixture.screen.set_size(size);
        }
    }
    canvas.catch_up(&mut display, &fixture.screen);
    let (repeated, forgotten) = (canvas.repeated, canvas.forgotten);
    assert!(
        repeated > 20_000,
        "{repeated} pixels came from what is kept"
    );
    assert!(forgotten > 20, "{forgotten} images were forgotten");
}
