use std::time::{Duration, Instant};

use caraway_spice::{Size, Update};
use proptest::prelude::*;

use super::super::{Canvas, Memory, PixelFormat};
use super::*;

fn rect(left: i32, top: i32, right: i32, bottom: i32) -> Rect {
    Rect {
        left,
        top,
        right,
        bottom,
    }
}

/// A pixel of an endless page of letters: mostly paper, never the same line twice.
fn page(x: i64, y: i64) -> u32 {
    let letter = (x.div_euclid(8) * 31 + y.div_euclid(13) * 7919) as u32;
    let stroke = (x.rem_euclid(8) * 13 + y.rem_euclid(13)) as u32;
    let ink = letter.wrapping_mul(2_654_435_761) >> (stroke % 29) & 3 == 0;
    if ink && stroke % 13 < 10 {
        0x0020_2020
    } else {
        0x00ff_fff0
    }
}

/// A window that shows the page from this place on, on a plain ground.
fn draw(canvas: &mut Canvas, window: Rect, (right, down): (i64, i64)) {
    let whole = canvas.area();
    canvas.paint(&whole.into(), |x, y, row| {
        for (x, pixel) in (i64::from(x)..).zip(row) {
            let (x, y) = (
                x - i64::from(window.left),
                i64::from(y) - i64::from(window.top),
            );
            let inside =
                x >= 0 && y >= 0 && x < window.width().into() && y < window.height().into();
            *pixel = if inside {
                page(x + right, y + down)
            } else {
                0x0030_6090
            };
        }
        true
    });
}

fn canvas(width: u32, height: u32) -> Canvas {
    let size = Size { width, height };
    Canvas::on_screen(PixelFormat::Xrgb, size, Memory::default())
}

fn pixels(updates: &[Update]) -> u64 {
    let rects = updates.iter().map(|update| match update {
        Update::Pixels(rect) => rect.pixels(),
        _ => 0,
    });
    rects.sum()
}

/// Whoever does as they are told has the same pixels in the end.
fn follow(before: &Canvas, updates: &[Update], after: &Canvas) {
    let mut seen = before.copy(before.area()).0;
    for update in updates {
        let (from, to, of) = match update {
            Update::Copy { from, to } => (*from, *to, &seen.copy(seen.area()).0),
            Update::Pixels(to) => (
                Point {
                    x: to.left,
                    y: to.top,
                },
                *to,
                after,
            ),
            _ => continue,
        };
        for y in 0..to.height() {
            let row = of
                .row(from.x as u32, from.y as u32 + y, to.width())
                .expect("inside");
            seen.put_row(to.left as u32, to.top as u32 + y, row);
        }
    }
    assert!(seen.pixels == after.pixels);
    for part in after.area().around(after.drawn()) {
        for y in part.top..part.bottom {
            let row = after.row(part.left as u32, y as u32, part.width());
            let is_black = row.is_some_and(|row| row.iter().all(|&pixel| pixel == 0));
            assert!(is_black, "row {y} of {part:?}");
        }
    }
}

#[test]
fn a_scrolled_page_is_a_copy_and_its_last_line() {
    let mut canvas = canvas(640, 480);
    let window = rect(40, 40, 526, 381);
    draw(&mut canvas, window, (0, 0));
    canvas.take_damage();
    let before = canvas.copy(canvas.area()).0;

    draw(&mut canvas, window, (0, 26));

    let updates = canvas.take_damage();
    assert!(
        updates
            .iter()
            .any(|update| matches!(update, Update::Copy { .. }))
    );
    assert!(pixels(&updates) < 486 * 341 / 4, "{updates:?}");
    follow(&before, &updates, &canvas);
}

/// A console: few letters, lines of one letter again and again.
#[test]
fn a_scrolled_console_is_a_copy_and_its_last_line() {
    let mut canvas = canvas(640, 400);
    let mix = |n: u32| (n.wrapping_mul(FACTOR) >> 15 ^ n).wrapping_mul(FACTOR) >> 16;
    let letter = |column: u32, line: u32| match line % 4 {
        3 => 7,
        _ => mix(column * 131 + line * 7919) % 20,
    };
    let pixel = |x: u32, y: u32| {
        let ink = mix(letter(x / 8, y / 16) * 256 + y % 16 * 8 + x % 8);
        if ink % 4 == 0 { 0x00aa_aaaa } else { 0 }
    };
    for line in 1..20 {
        let before = canvas.copy(canvas.area()).0;
        canvas.paint(&canvas.area().into(), |x, y, row| {
            (x..)
                .zip(row)
                .for_each(|(x, new)| *new = pixel(x, y + 16 * line));
            true
        });

        let updates = canvas.take_damage();
        let is_copy = |update: &Update| matches!(update, Update::Copy { .. });
        assert!(line == 1 || updates.iter().any(is_copy), "line {line}");
        follow(&before, &updates, &canvas);
    }
}

#[test]
fn a_dragged_window_is_a_copy_and_its_edges() {
    let mut canvas = canvas(1024, 768);
    draw(&mut canvas, rect(100, 80, 586, 421), (0, 0));
    for (dx, dy) in [(7, 5), (-13, 22), (31, 0), (-3, -40)] {
        canvas.take_damage();
        let before = canvas.copy(canvas.area()).0;
        let moved = rect(100, 80, 586, 421).shifted(Point { x: dx, y: dy });

        draw(&mut canvas, moved, (0, 0));

        let updates = canvas.take_damage();
        assert!(pixels(&updates) < 486 * 341 / 2, "{dx},{dy}: {updates:?}");
        follow(&before, &updates, &canvas);
        draw(&mut canvas, rect(100, 80, 586, 421), (0, 0));
    }
}

#[test]
fn a_page_that_scrolls_where_a_film_was_is_soon_noticed() {
    let mut canvas = canvas(320, 240);
    let film = rect(30, 20, 190, 140);
    for frame in 0..20_u32 {
        let before = canvas.copy(canvas.area()).0;
        canvas.paint(&film.into(), |x, y, row| {
            let colour = |x: u32| (frame << 20 | y << 10 | x).wrapping_mul(FACTOR) >> 8;
            (x..).zip(row).for_each(|(x, pixel)| *pixel = colour(x));
            true
        });
        follow(&before, &canvas.take_damage(), &canvas);
    }

    let moved = (0..=i64::from(LONGEST_PAUSE) + 1).position(|line| {
        let before = canvas.copy(canvas.area()).0;
        canvas.paint(&film.into(), |x, y, row| {
            (x..)
                .zip(row)
                .for_each(|(x, pixel)| *pixel = page(x.into(), i64::from(y) + 13 * line));
            true
        });
        let updates = canvas.take_damage();
        follow(&before, &updates, &canvas);
        let is_copy = |update: &Update| matches!(update, Update::Copy { .. });
        updates.iter().any(is_copy)
    });

    // A pause had begun.
    assert!(moved.is_some_and(|times| times > 1), "{moved:?}");
}

/// A gradient, in which nothing can be found again.
#[test]
fn pixels_that_are_said_to_be_moved_are_a_copy() {
    let mut canvas = canvas(320, 240);
    let from = rect(10, 20, 110, 100);
    canvas.paint(&from.into(), |x, y, row| {
        (x..).zip(row).for_each(|(x, pixel)| *pixel = x << 8 | y);
        true
    });
    canvas.take_damage();
    let before = canvas.copy(canvas.area()).0;

    let to = from.shifted(Point { x: 150, y: 100 });
    canvas.paint_from(&to.into(), Some((150, 100)), |x, y, row| {
        (x - 150..)
            .zip(row)
            .for_each(|(x, pixel)| *pixel = x << 8 | (y - 100));
        true
    });

    let updates = canvas.take_damage();
    let corner = Point { x: 10, y: 20 };
    assert_eq!(updates, [Update::Copy { from: corner, to }]);
    follow(&before, &updates, &canvas);
}

#[test]
fn a_spot_on_a_large_screen_is_damage_of_its_size() {
    let mut canvas = canvas(3840, 2160);
    let fill = |canvas: &mut Canvas, spot: u32| {
        canvas.paint(&canvas.area().into(), |x, y, row| {
            row.fill(7);
            if (1600..1616).contains(&y) && x == 0 {
                row[2000..2016].fill(spot);
            }
            true
        });
    };
    fill(&mut canvas, 1);
    canvas.take_damage();
    let start = Instant::now();

    fill(&mut canvas, 2);

    assert!(start.elapsed() < Duration::from_secs(2));
    assert_eq!(
        canvas.take_damage(),
        [Update::Pixels(rect(1984, 1600, 2016, 1616))]
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_moves_the_updates_explain_it(
        steps in prop::collection::vec(
            (0..200_i32, 0..120_i32, 40..200_i32, 40..120_i32, 0..40_i64, 0..60_i64), 1..6
        )
    ) {
        let mut canvas = canvas(256, 192);
        for (left, top, width, height, right, down) in steps {
            let before = canvas.copy(canvas.area()).0;
            let window = rect(left, top, left + width, top + height);

            draw(&mut canvas, window, (right, down));

            let updates = canvas.take_damage();
            follow(&before, &updates, &canvas);
        }
    }

    /// Every run looks like every other.
    #[test]
    fn a_screen_of_one_pattern_takes_no_longer(period in 1..9_u32, shift in 0..9_u32) {
        let mut canvas = canvas(512, 512);
        let fill = |canvas: &mut Canvas, shift: u32| {
            canvas.paint(&canvas.area().into(), |_, y, row| {
                for (x, pixel) in (0..).zip(row) {
                    *pixel = (x + y + shift) / period % 2;
                }
                true
            });
        };
        fill(&mut canvas, 0);
        canvas.take_damage();
        let before = canvas.copy(canvas.area()).0;

        fill(&mut canvas, shift);

        follow(&before, &canvas.take_damage(), &canvas);
    }
}
