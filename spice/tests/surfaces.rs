//! What clients get of a new surface, with a scripted client.

#![allow(clippy::panic, reason = "a test says no by a panic")]

mod common;

use caraway_spice::{Config, Rect, Size};
use common::{COPY, Canvas, FILL, Fixture};

const SCREEN: Size = Size {
    width: 640,
    height: 384,
};
const WHOLE: [u32; 4] = [0, 0, 640, 384];
const SPOT: Rect = Rect {
    left: 100,
    top: 50,
    right: 200,
    bottom: 100,
};

#[test]
fn the_first_picture_is_one_image() {
    let fixture = Fixture::new(Config::default(), SCREEN);
    fixture.paint(SPOT, 1);
    let (_main, mut display) = fixture.viewer();
    let mut canvas = Canvas::default();

    canvas.catch_up(&mut display, &fixture.screen);

    assert_eq!(canvas.drawings, [(COPY, WHOLE)]);
}

#[test]
fn a_later_surface_is_black_and_then_what_is_on_it() {
    let fixture = Fixture::new(Config::default(), SCREEN);
    let (_main, mut display) = fixture.viewer();
    let mut canvas = Canvas::default();
    fixture.paint(Rect::of_size(SCREEN), 1);
    canvas.catch_up(&mut display, &fixture.screen);

    fixture.screen.set_size(SCREEN);
    fixture.paint(SPOT, 2);
    canvas.catch_up(&mut display, &fixture.screen);

    let (first, others) = canvas.drawings.split_first().expect("something was drawn");
    assert_eq!(*first, (FILL, WHOLE));
    let is_inside = |&(_, [left, top, right, bottom]): &(u16, [u32; 4])| {
        left >= 100 && top >= 50 && right <= 200 && bottom <= 100
    };
    assert!(others.iter().all(is_inside), "{others:?}");
    assert!(!others.is_empty());
}
