//! The compatibility modes of the first drivers, whose commands have guest-physical addresses.

use caraway_devices::Lifecycle;
use caraway_devices::pci::PciFunction;
use caraway_spice::{DisplaySource, Rect, Size};

use super::lifecycle::copy_regions;
use crate::QxlConfig;
use crate::testing::*;

const PORT_SET_MODE: u64 = 6;
const CMD_UPDATE: u32 = 2;
/// Places of 640x480 at 16 and 32 bits in the list of modes.
const MODES: [u8; 2] = [0, 1];
const COPY: u8 = 3;
const ALPHA_BLEND: u8 = 13;

fn without_mode() -> Guest {
    let guest = Guest::with(QxlConfig {
        ram: 8 << 20,
        vram: 4 << 20,
        vgamem: 2 << 20,
        ..QxlConfig::default()
    });
    guest.set_word(8, 0x27);
    guest
}

/// A driver that has set a mode.
fn with_mode(place: u8) -> Guest {
    let guest = without_mode();
    guest.out(PORT_SET_MODE, place);
    guest.set_word(8, 0x27);
    guest.qxl.process();
    guest
}

/// Puts bytes into memory; their physical address.
fn put(guest: &Guest, bytes: &[u8]) -> u64 {
    RAM_BASE + (guest.put(bytes) & 0xffff_ffff)
}

/// Draws as the first drivers do; `itself` is what an image with no address is.
fn draw(guest: &Guest, kind: u8, area: Rect, itself: Option<Rect>, body: &Bytes) -> u64 {
    let drawable = Bytes::default()
        .u64(7)
        .u8(1)
        .u8(kind)
        .u16(if itself.is_some() { 60 } else { 0 })
        .rect(itself.unwrap_or_default())
        .rect(area)
        .zeros(16)
        .bytes(&body.0);
    let drawable = drawable.zeros(68 - body.0.len());
    assert_eq!(drawable.0.len(), 128);
    let address = put(guest, &drawable.0);
    guest.run(CMD_DRAW, address);
    address
}

fn fill(guest: &Guest, area: Rect, color: u32) -> u64 {
    draw(guest, 1, area, None, &Guest::fill_body(color))
}

/// An image of 8 x 1 pixels that are the second colour of a palette.
fn image(guest: &Guest, color: u32) -> u64 {
    let data = put(guest, &[0xff]);
    let palette = put(guest, &Bytes::default().u64(0).u16(2).u32(0).u32(color).0);
    let image = Bytes::default().zeros(10).u32(8).u32(1).u8(2).u8(5);
    put(guest, &image.u32(8).u32(1).u32(1).u64(palette).u64(data).0)
}

#[test]
fn a_mode_is_set_and_drawn_in_by_physical_addresses() {
    let guest = with_mode(MODES[1]);

    let drawable = fill(&guest, rect(3, 3, 20, 20), 0x12_3456);

    let (width, height) = (640, 480);
    assert_eq!(guest.qxl.layout().primary, Some(Size { width, height }));
    assert_eq!(guest.pixel(3, 3), 0x12_3456);
    assert_eq!(guest.read(2, 0x14, 4), [1, 0, 0, 0]);
    assert_eq!(guest.take_interrupts() & INT_ERROR, 0);
    // The list of what is given back runs through the commands, whose ids are the driver's own.
    assert_eq!(guest.take_releases(|_| drawable - RAM_BASE), [7]);
}

#[test]
fn in_modes_of_16_bits_brushes_and_palettes_are_of_five_bits_a_colour() {
    for (place, green, red) in [(MODES[0], 0x03e0, 0x7c00), (MODES[1], 0xff00, 0xff_0000)] {
        let guest = with_mode(place);

        fill(&guest, rect(0, 0, 9, 9), green);
        let body = Guest::copy_body(image(&guest, red), rect(0, 0, 8, 1));
        draw(&guest, COPY, rect(20, 0, 28, 1), None, &body);

        assert_eq!(guest.pixel(5, 5), 0xff00, "mode {place}");
        assert_eq!(guest.pixel(25, 0), 0xff_0000, "mode {place}");
    }
}

#[test]
fn an_alpha_blend_has_no_flags() {
    let guest = with_mode(MODES[1]);
    let body = Bytes::default()
        .u8(255)
        .u64(image(&guest, 0xff00_00ff))
        .rect(rect(0, 0, 8, 1));

    draw(&guest, ALPHA_BLEND, rect(0, 0, 8, 1), None, &body);

    assert_eq!(guest.pixel(7, 0), 0xff);
}

#[test]
fn an_image_with_no_address_is_a_part_of_the_screen() {
    let guest = with_mode(MODES[1]);
    fill(&guest, rect(100, 100, 105, 110), 0xff);
    fill(&guest, rect(105, 100, 110, 110), 0xff00);
    let itself = rect(100, 100, 110, 110);
    let body = Guest::copy_body(0, rect(3, 0, 7, 4));

    draw(&guest, COPY, rect(0, 0, 4, 4), Some(itself), &body);

    let row = [0xff, 0xff, 0xff00, 0xff00];
    assert_eq!(guest.pixels(rect(0, 3, 4, 4)), row);
}

#[test]
fn other_drivers_may_draw_a_part_of_the_surface_too() {
    let guest = Guest::native(64, 48);
    guest.fill(0, rect(10, 10, 12, 20), 0xff);
    let copy = |from: Rect| {
        let body = Guest::copy_body(0, rect(0, 0, 4, 1));
        let draw = guest.drawable(COPY, 0, rect(0, 0, 4, 1), &[], body);
        guest.patch(draw + 14, &Bytes::default().u8(1).rect(from).0);
        guest.run(CMD_DRAW, draw);
        guest.pixels(rect(0, 0, 4, 1))
    };

    let inside = copy(rect(9, 10, 13, 12));
    let beyond = copy(rect(60, 10, 70, 20));

    assert_eq!(inside, [0, 0xff, 0xff, 0]);
    assert_eq!(beyond, inside);
}

#[test]
fn an_update_command_writes_pixels_back_and_says_so_in_the_rom() {
    let guest = with_mode(MODES[1]);
    fill(&guest, rect(0, 470, 640, 480), 0x12_3456);
    let area = rect(0, 479, 640, 480);
    let update = Bytes::default().u64(9).rect(area).u32(0xabcd);

    guest.run(CMD_UPDATE, put(&guest, &update.0));

    // The lowest row comes first.
    assert_eq!(guest.read(0, 0, 4), [0x56, 0x34, 0x12, 0]);
    assert_eq!(guest.read(0, 2560, 4), [0; 4]);
    assert_eq!(guest.read(2, 8, 4), 0xabcd_u32.to_le_bytes());
}

#[test]
fn an_update_command_of_later_drivers_names_a_surface() {
    let guest = Guest::native(64, 48);
    guest.fill(0, rect(0, 0, 64, 48), 0x12_3456);
    let update = |surface| {
        let update = Bytes::default().u64(9).rect(rect(0, 0, 64, 48));
        guest.put(&update.u32(5).u32(surface).0)
    };

    guest.run(CMD_UPDATE, update(3));
    let before = guest.read(0, 0, 4);
    guest.run(CMD_UPDATE, update(0));

    assert_eq!(before, [0; 4]);
    assert_eq!(guest.read(0, 0, 4), [0x56, 0x34, 0x12, 0]);
}

#[test]
fn a_mode_that_is_not_in_the_list_is_a_bug_and_so_is_one_before_the_bar_is_placed() {
    let unlisted = without_mode();
    unlisted.out(PORT_SET_MODE, 250);
    let unplaced = without_mode();
    unplaced.qxl.config().lock().write(0x04, &[0, 0]);
    unplaced.out(PORT_SET_MODE, MODES[0]);

    for guest in [unlisted, unplaced] {
        assert_eq!(guest.take_interrupts() & INT_ERROR, INT_ERROR);
        assert_ne!(guest.qxl.layout().primary.map(|size| size.width), Some(640));
    }
}

#[test]
fn a_reset_ends_a_mode_and_a_later_driver_may_follow() {
    let guest = with_mode(MODES[0]);

    guest.go_native(64, 48);

    guest.fill(0, rect(0, 0, 9, 9), 0x03e0);
    assert_eq!(guest.pixel(5, 5), 0x03e0);
    assert_eq!(guest.read(2, 0x14, 4), [0; 4]);
}

#[test]
fn a_mode_survives_a_snapshot() {
    let guest = with_mode(MODES[0]);
    fill(&guest, rect(0, 0, 9, 9), 0x7fff);
    let saved = Lifecycle::save(&*guest.qxl).unwrap();
    let other = without_mode();
    copy_regions(&guest.qxl.regions(), &other.qxl.regions());
    Lifecycle::restore(&*other.qxl, &saved).unwrap();

    fill(&other, rect(20, 0, 29, 9), 0x03e0);

    assert_eq!(other.pixel(5, 5), 0xff_ffff);
    assert_eq!(other.pixel(25, 5), 0xff00);
    assert_eq!(other.read(2, 0x14, 4), guest.read(2, 0x14, 4));
}
