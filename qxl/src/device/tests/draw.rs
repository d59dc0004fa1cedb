//! What commands draw.

use caraway_spice::{CursorKind, DisplaySource, Point, Size};

use crate::testing::*;

/// Rows of 32-bit pixels, each different: x in the low byte, y in the next.
fn gradient(width: u32, height: u32) -> Vec<Vec<u8>> {
    let row = |y: u32| (0..width).flat_map(move |x| (0x40_0000 | y << 8 | x).to_le_bytes());
    (0..height).map(|y| row(y).collect()).collect()
}

const PACKED: Form = Form {
    format: 8,
    top_down: true,
    stride: 40,
    chunk: None,
};

/// Copies a gradient of 10x6 pixels to 20,10 and says which pixels came out there.
fn copied(form: Form) -> Vec<u32> {
    let guest = Guest::native(64, 48);
    let image = guest.image(10, &gradient(10, 6), form, 0);
    let to = rect(20, 10, 30, 16);
    let body = Guest::copy_body(image, rect(0, 0, 10, 6));
    guest.run(CMD_DRAW, guest.drawable(3, 0, to, &[], body));
    guest.pixels(to)
}

fn expected_gradient() -> Vec<u32> {
    (0..6)
        .flat_map(|y| (0..10).map(move |x| 0x40_0000 | y << 8 | x))
        .collect()
}

#[test]
fn a_copy_puts_every_pixel_in_its_place_however_it_is_stored() {
    for format in [8, 9] {
        for top_down in [true, false] {
            for stride in [40, 44, 400] {
                for chunk in [None, Some(10_000), Some(40), Some(7)] {
                    let form = Form {
                        format,
                        top_down,
                        stride,
                        chunk,
                    };

                    assert_eq!(copied(form), expected_gradient(), "{form:?}");
                }
            }
        }
    }
}

#[test]
fn a_copy_takes_the_part_of_the_image_that_it_names() {
    let guest = Guest::native(64, 48);
    let image = guest.image(10, &gradient(10, 6), PACKED, 0);
    let body = Guest::copy_body(image, rect(3, 2, 5, 4));

    guest.run(CMD_DRAW, guest.drawable(3, 0, rect(0, 0, 2, 2), &[], body));

    let expected = [0x40_0203, 0x40_0204, 0x40_0303, 0x40_0304];
    assert_eq!(guest.pixels(rect(0, 0, 2, 2)), expected);
}

#[test]
fn a_copy_stays_inside_of_its_clip_rectangles() {
    let guest = Guest::native(64, 48);
    let image = guest.image(10, &gradient(10, 6), PACKED, 0);
    let body = Guest::copy_body(image, rect(0, 0, 10, 6));
    let clip = [rect(1, 1, 3, 2), rect(2, 1, 4, 3), rect(9, 0, 99, 1)];

    guest.run(
        CMD_DRAW,
        guest.drawable(3, 0, rect(0, 0, 10, 6), &clip, body),
    );

    let inside = |x: i32, y: i32| {
        clip.iter()
            .any(|r| (r.left..r.right).contains(&x) && (r.top..r.bottom).contains(&y))
    };
    for (x, y) in (0..12).flat_map(|x| (0..8).map(move |y| (x, y))) {
        let drawn = inside(x, y) && x < 10 && y < 6;
        let expected = if drawn { 0x40_0000 | y << 8 | x } else { 0 };
        assert_eq!(guest.pixel(x, y), expected as u32, "at {x},{y}");
    }
}

#[test]
fn a_copy_is_cut_off_at_the_edges_of_the_screen() {
    let guest = Guest::native(8, 4);
    let image = guest.image(10, &gradient(10, 6), PACKED, 0);
    let body = Guest::copy_body(image, rect(0, 0, 10, 6));

    guest.run(
        CMD_DRAW,
        guest.drawable(3, 0, rect(-2, -1, 8, 5), &[], body),
    );

    assert_eq!(guest.pixel(0, 0), 0x40_0102);
    assert_eq!(guest.pixel(7, 3), 0x40_0409);
}

#[test]
fn palettes_and_narrow_pixels_become_32_bits() {
    let palette_of = |guest: &Guest| {
        let palette = Bytes::default().u64(0).u16(4);
        let colors = [0x11_1111, 0xff_0000, 0x00_ff00, 0x00_00ff];
        let palette = colors.iter().fold(palette, |b, c| b.u32(*c));
        guest.put(&palette.0)
    };
    let cases: [(u8, &[u8], [u32; 4]); 8] = [
        (5, &[1, 2, 3, 0], [0xff_0000, 0xff00, 0xff, 0x11_1111]),
        (3, &[0x21, 0x03], [0xff_0000, 0xff00, 0xff, 0x11_1111]),
        (4, &[0x12, 0x30], [0xff_0000, 0xff00, 0xff, 0x11_1111]),
        (1, &[0b0101], [0xff_0000, 0x11_1111, 0xff_0000, 0x11_1111]),
        (
            2,
            &[0b1010_0000],
            [0xff_0000, 0x11_1111, 0xff_0000, 0x11_1111],
        ),
        (
            6,
            &[0x00, 0x7c, 0xe0, 0x03, 0x1f, 0, 0, 0],
            [0xff_0000, 0xff00, 0xff, 0],
        ),
        (
            7,
            &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
            [0x03_0201, 0x06_0504, 0x09_0807, 0x0c_0b0a],
        ),
        (
            8,
            &[1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0],
            [1, 2, 3, 4],
        ),
    ];

    for (format, row, expected) in cases {
        let guest = Guest::native(64, 48);
        let form = Form {
            format,
            stride: 16,
            ..PACKED
        };
        let palette = palette_of(&guest);
        let image = guest.image(4, &[row.to_vec()], form, palette);
        let body = Guest::copy_body(image, rect(0, 0, 4, 1));

        guest.run(CMD_DRAW, guest.drawable(3, 0, rect(0, 0, 4, 1), &[], body));

        assert_eq!(guest.pixels(rect(0, 0, 4, 1)), expected, "format {format}");
    }
}

#[test]
fn only_tiles_with_other_pixels_are_reported() {
    let guest = Guest::native(640, 400);
    guest.fill(0, rect(0, 0, 640, 400), 0x12_3456);
    let watcher = Watcher::of(&guest.qxl);

    guest.fill(0, rect(0, 0, 640, 400), 0x12_3456);
    let same = watcher.updates.lock().clone();
    guest.fill(0, rect(100, 100, 101, 101), 0);

    assert_eq!(same, []);
    assert_eq!(*watcher.updates.lock(), [rect(96, 96, 128, 112)]);
}

#[test]
fn copy_bits_moves_pixels_that_overlap() {
    let guest = Guest::native(64, 48);
    let image = guest.image(10, &gradient(10, 6), PACKED, 0);
    let body = Guest::copy_body(image, rect(0, 0, 10, 6));
    guest.run(CMD_DRAW, guest.drawable(3, 0, rect(0, 0, 10, 6), &[], body));

    let from = Bytes::default().u32(0).u32(0);
    guest.run(CMD_DRAW, guest.drawable(4, 0, rect(1, 1, 11, 7), &[], from));

    assert_eq!(guest.pixels(rect(1, 1, 11, 7)), expected_gradient());
}

#[test]
fn plain_colours_are_drawn() {
    let guest = Guest::native(64, 48);
    let mask = || Bytes::default().zeros(17);
    let area = rect(0, 0, 4, 4);

    guest.fill(0, area, 0x12_3456);
    let filled = guest.pixel(3, 3);
    guest.run(CMD_DRAW, guest.drawable(8, 0, area, &[], mask()));
    let inverted = guest.pixel(3, 3);
    guest.run(CMD_DRAW, guest.drawable(7, 0, area, &[], mask()));
    let white = guest.pixel(3, 3);
    guest.run(CMD_DRAW, guest.drawable(6, 0, area, &[], mask()));

    let seen = [filled, inverted, white, guest.pixel(3, 3)];
    assert_eq!(seen, [0x12_3456, 0xed_cba9, 0xff_ffff, 0]);
    assert_eq!(guest.pixel(4, 4), 0);
}

#[test]
fn what_makes_no_sense_changes_nothing_and_is_given_back() {
    let guest = Guest::native(640, 400);
    guest.qxl.process();
    let watcher = Watcher::of(&guest.qxl);

    let text = guest.drawable(11, 0, rect(0, 0, 10, 10), &[], Bytes::default());
    guest.run(CMD_DRAW, text);

    assert_eq!(*watcher.updates.lock(), []);
    assert_eq!(guest.take_releases(|id| id), [text]);
}

/// Creates off-screen surface 5 of 16x16 pixels in slot 2.
fn create_surface(guest: &Guest) {
    let surface = Bytes::default()
        .u64(77)
        .u32(5)
        .u8(0)
        .u32(0)
        .u32(96)
        .u32(16)
        .u32(16)
        .u32(64)
        .u64(2 << 56);
    guest.run(CMD_SURFACE, guest.put(&surface.0));
}

/// Linux's driver looks at the one command when it writes the other.
#[test]
fn the_command_that_makes_a_surface_is_kept_as_long_as_the_surface() {
    let guest = Guest::native(64, 48);
    create_surface(&guest);
    guest.fill(0, rect(0, 0, 1, 1), 7);
    guest.qxl.process();
    let while_it_is_there = guest.take_releases(|id| id);

    guest.out(14, 5);
    guest.out(23, 0);
    guest.qxl.process();

    assert!(!while_it_is_there.contains(&77));
    assert_eq!(guest.take_releases(|id| id).first(), Some(&77));
}

#[test]
fn an_off_screen_surface_can_be_drawn_on_and_copied_from() {
    let guest = Guest::native(64, 48);
    create_surface(&guest);
    guest.fill(5, rect(2, 2, 4, 4), 0xff_00ff);

    let image = Bytes::default().u64(0).u8(104).u8(0).zeros(8).u32(5);
    let image = guest.put(&image.0);
    let body = Guest::copy_body(image, rect(0, 0, 16, 16));
    guest.run(
        CMD_DRAW,
        guest.drawable(3, 0, rect(10, 10, 26, 26), &[], body),
    );

    assert_eq!(guest.pixel(12, 12), 0xff_00ff);
    assert_eq!(guest.pixel(14, 14), 0);
    assert_eq!(guest.pixel(11, 11), 0);
}

#[test]
fn update_area_writes_pixels_back_into_guest_memory() {
    let guest = Guest::native(64, 48);
    guest.fill(0, rect(0, 0, 64, 48), 0x12_3456);
    let area = Bytes::default().rect(rect(1, 2, 3, 4)).u32(0);
    guest.write_header(0x1488, &area.0);

    guest.out(PORT_UPDATE_AREA, 0);

    let at = |x: u64, y: u64| guest.read(0, (y * 64 + x) * 4, 4);
    assert_eq!(at(1, 2), [0x56, 0x34, 0x12, 0]);
    assert_eq!(at(2, 3), [0x56, 0x34, 0x12, 0]);
    assert_eq!(at(3, 3), [0; 4]);
    assert_eq!(at(1, 1), [0; 4]);
}

#[test]
fn update_area_sees_commands_that_were_not_taken_yet() {
    let guest = Guest::native(64, 48);
    let fill = guest.drawable(1, 0, rect(0, 0, 9, 9), &[], Guest::fill_body(0x0a_0b0c));
    guest.push(CMD_DRAW, fill);
    let area = Bytes::default().rect(rect(0, 0, 1, 1)).u32(0);
    guest.write_header(0x1488, &area.0);

    guest.out(PORT_UPDATE_AREA, 0);

    assert_eq!(guest.read(0, 0, 4), [0x0c, 0x0b, 0x0a, 0]);
}

#[test]
fn a_bottom_up_primary_keeps_its_rows_upside_down_in_memory() {
    let guest = Guest::native(64, 48);
    guest.write(0, 47 * 256, &[1, 2, 3, 0]);
    guest.describe_primary(64, 48, -256, 1);

    guest.out(PORT_CREATE_PRIMARY, 0);

    assert_eq!(guest.pixel(0, 0), 0x03_0201);
}

fn cursor_set(guest: &Guest, kind: u16, data: &[u8]) -> u64 {
    let shape = Bytes::default()
        .u64(0)
        .u16(kind)
        .u16(2)
        .u16(2)
        .u16(1)
        .u16(0)
        .u32(data.len() as u32)
        .u32(data.len() as u32)
        .zeros(16)
        .bytes(data);
    let shape = guest.put(&shape.0);
    let set = Bytes::default()
        .u64(9)
        .u8(0)
        .u16(10)
        .u16(20)
        .u8(1)
        .u64(shape)
        .zeros(128);
    guest.put(&set.0)
}

#[test]
fn the_cursor_is_set_moved_and_hidden() {
    let guest = Guest::native(64, 48);
    let data: Vec<u8> = (0..16).collect();
    guest.run(CMD_CURSOR, cursor_set(&guest, 0, &data));
    let set = guest.qxl.cursor();

    let to = Bytes::default().u64(9).u8(1).u16(0xffff).u16(7).zeros(150);
    guest.run(CMD_CURSOR, guest.put(&to.0));
    let moved = guest.qxl.cursor();
    let hide = Bytes::default().u64(9).u8(2).zeros(150);
    guest.run(CMD_CURSOR, guest.put(&hide.0));

    let image = set.image.unwrap();
    assert_eq!((image.kind, &image.data), (CursorKind::Alpha, &data));
    assert_eq!((image.hot_x, image.hot_y), (1, 0));
    assert_eq!((set.position, set.visible), (Point { x: 10, y: 20 }, true));
    assert_eq!(moved.position, Point { x: -1, y: 7 });
    assert!(!guest.qxl.cursor().visible);
}

#[test]
fn a_mono_cursor_has_two_masks() {
    let guest = Guest::native(64, 48);

    guest.run(CMD_CURSOR, cursor_set(&guest, 1, &[1, 2, 3, 4]));

    let image = guest.qxl.cursor().image.unwrap();
    assert_eq!(
        (image.kind, &image.data[..]),
        (CursorKind::Mono, &[1, 2, 3, 4][..])
    );
}

#[test]
fn a_colour_cursor_is_shown_as_one_with_alpha() {
    let guest = Guest::native(64, 48);
    // Two rows of red and green, the second of which is left out by the mask's first bit.
    let pixels = [0x00, 0x7c, 0xe0, 0x03, 0, 0, 0xe0, 0x03];

    let shape = cursor_set(&guest, 4, &[&pixels[..], &[0, 0x80]].concat());
    guest.run(CMD_CURSOR, shape);

    let image = guest.qxl.cursor().image.unwrap();
    let (red, green) = ([0, 0, 255, 255], [0, 255, 0, 255]);
    assert_eq!(image.kind, CursorKind::Alpha);
    assert_eq!(image.data, [red, green, [0; 4], green].concat());
}

#[test]
fn a_cursor_with_too_few_bytes_changes_nothing() {
    let guest = Guest::native(64, 48);
    guest.run(CMD_CURSOR, cursor_set(&guest, 0, &[7; 16]));
    let before = guest.qxl.cursor();

    for kind in 0..=7 {
        guest.run(CMD_CURSOR, cursor_set(&guest, kind, &[7]));
    }

    assert_eq!(guest.qxl.cursor(), before);
}

#[test]
fn the_screenshot_is_what_the_head_shows() {
    let guest = Guest::native(64, 48);
    guest.fill(0, rect(0, 0, 64, 48), 0x12_3456);

    let shot = guest.qxl.screenshot(0).unwrap();

    let size = Size {
        width: 64,
        height: 48,
    };
    assert_eq!(shot.size, size);
    assert_eq!(shot.pixels[..4], [0x56, 0x34, 0x12, 0]);
    assert_eq!(guest.qxl.screenshot(1), None);
}
