//! VGA modes, as firmware sets them.

use std::sync::Arc;

use caraway_devices::BusDevice;
use caraway_spice::{ClientCapabilities, DisplaySource, Size};

use crate::Qxl;
use crate::testing::*;

/// The legacy accesses of a guest.
struct Legacy {
    guest: Guest,
    ports: Arc<dyn BusDevice>,
    vbe: Arc<dyn BusDevice>,
    window: Arc<dyn BusDevice>,
}

/// The registers of a BIOS video mode: miscellaneous, sequencer 1 to 4, CRTC, attributes,
/// graphics.
struct BiosMode {
    misc: u8,
    sequencer: [u8; 4],
    crtc: [u8; 25],
    attributes: [u8; 20],
    graphics: [u8; 9],
}

const TEXT_80X25: BiosMode = BiosMode {
    misc: 0x67,
    sequencer: [0x00, 0x03, 0x00, 0x02],
    crtc: [
        0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0x00, 0x4f, 0x0d, 0x0e, 0x00, 0x00, 0x00,
        0x00, 0x9c, 0x8e, 0x8f, 0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff,
    ],
    attributes: [
        0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e,
        0x3f, 0x0c, 0x00, 0x0f, 0x08,
    ],
    graphics: [0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x0e, 0x0f, 0xff],
};

const PLANAR_640X480: BiosMode = BiosMode {
    misc: 0xe3,
    sequencer: [0x01, 0x0f, 0x00, 0x06],
    crtc: [
        0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0x0b, 0x3e, 0x00, 0x40, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0xea, 0x8c, 0xdf, 0x28, 0x00, 0xe7, 0x04, 0xe3, 0xff,
    ],
    attributes: [
        0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e,
        0x3f, 0x01, 0x00, 0x0f, 0x00,
    ],
    graphics: [0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x05, 0x0f, 0xff],
};

const BYTES_320X200: BiosMode = BiosMode {
    misc: 0x63,
    sequencer: [0x01, 0x0f, 0x00, 0x0e],
    crtc: [
        0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0xbf, 0x1f, 0x00, 0x41, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x9c, 0x8e, 0x8f, 0x28, 0x40, 0x96, 0xb9, 0xa3, 0xff,
    ],
    attributes: [
        0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e,
        0x0f, 0x41, 0x00, 0x0f, 0x00,
    ],
    graphics: [0x00, 0x00, 0x00, 0x00, 0x00, 0x40, 0x05, 0x0f, 0xff],
};

const CGA_320X200: BiosMode = BiosMode {
    misc: 0x63,
    sequencer: [0x09, 0x03, 0x00, 0x02],
    crtc: [
        0x2d, 0x27, 0x28, 0x90, 0x2b, 0x80, 0xbf, 0x1f, 0x00, 0xc1, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x9c, 0x8e, 0x8f, 0x14, 0x00, 0x96, 0xb9, 0xa2, 0xff,
    ],
    attributes: [
        0x00, 0x13, 0x15, 0x17, 0x02, 0x04, 0x06, 0x07, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16,
        0x17, 0x01, 0x00, 0x03, 0x00,
    ],
    graphics: [0x00, 0x00, 0x00, 0x00, 0x00, 0x30, 0x0f, 0x0f, 0xff],
};

const CGA_640X200: BiosMode = BiosMode {
    misc: 0x63,
    sequencer: [0x01, 0x01, 0x00, 0x06],
    crtc: [
        0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0xbf, 0x1f, 0x00, 0xc1, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x9c, 0x8e, 0x8f, 0x28, 0x00, 0x96, 0xb9, 0xc2, 0xff,
    ],
    attributes: [
        0x00, 0x17, 0x17, 0x17, 0x17, 0x17, 0x17, 0x17, 0x17, 0x17, 0x17, 0x17, 0x17, 0x17, 0x17,
        0x17, 0x01, 0x00, 0x01, 0x00,
    ],
    graphics: [0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x0d, 0x0f, 0xff],
};

impl Legacy {
    fn new() -> Self {
        let guest = Guest::new();
        let [(_, _, ports), (_, _, vbe)] = guest.qxl.vga_ports();
        let (_, _, window) = guest.qxl.vga_window();
        Self {
            guest,
            ports,
            vbe,
            window,
        }
    }

    fn qxl(&self) -> &Qxl {
        &self.guest.qxl
    }

    fn out(&self, port: u64, bytes: &[u8]) {
        self.ports.write(port - 0x3b0, bytes);
    }

    fn input(&self, port: u64) -> u8 {
        let mut byte = [0];
        self.ports.read(port - 0x3b0, &mut byte);
        byte[0]
    }

    fn vbe(&self, index: u16, value: u16) {
        self.vbe.write(0, &index.to_le_bytes());
        self.vbe.write(1, &value.to_le_bytes());
    }

    fn vbe_value(&self, index: u16) -> u16 {
        let mut value = [0; 2];
        self.vbe.write(0, &index.to_le_bytes());
        self.vbe.read(1, &mut value);
        u16::from_le_bytes(value)
    }

    /// Sets a mode with 16-bit writes of index and value, as a VGA BIOS does.
    fn set(&self, mode: &BiosMode) {
        self.input(0x3ba);
        self.input(0x3da);
        for (index, value) in (0..).zip(mode.attributes) {
            self.out(0x3c0, &[index]);
            self.out(0x3c0, &[value]);
        }
        self.out(0x3c0, &[0x14]);
        self.out(0x3c0, &[0]);
        self.out(0x3c4, &[0, 3]);
        for (index, value) in (1..).zip(mode.sequencer) {
            self.out(0x3c4, &[index, value]);
        }
        for (index, value) in (0..).zip(mode.graphics) {
            self.out(0x3ce, &[index, value]);
        }
        self.out(0x3c2, &[mode.misc]);
        self.out(0x3d4, &[0x11, 0]);
        for (index, value) in (0..).zip(mode.crtc) {
            self.out(0x3d4, &[index, value]);
        }
        self.out(0x3c8, &[0]);
        for index in 0..64_u8 {
            // Two bits a colour, each in the middle and in the low place, as EGA has it.
            let level = |high: u8, low: u8| 42 * (index >> high & 1) + 21 * (index >> low & 1);
            for value in [level(2, 5), level(1, 4), level(0, 3)] {
                self.out(0x3c9, &[value]);
            }
        }
        self.input(0x3da);
        self.out(0x3c0, &[0x20]);
    }

    /// Puts a font there whose character `n` has rows of the byte `n`.
    fn load_font(&self) {
        self.out(0x3c4, &[2, 4]);
        self.out(0x3c4, &[4, 7]);
        self.out(0x3ce, &[5, 0]);
        self.out(0x3ce, &[6, 4]);
        for at in 0..0x2000_u64 {
            self.window.write(at, &[(at / 32) as u8]);
        }
        self.out(0x3c4, &[2, 3]);
        self.out(0x3c4, &[4, 2]);
        self.out(0x3ce, &[5, 0x10]);
        self.out(0x3ce, &[6, 0x0e]);
    }

    fn text_mode() -> Self {
        let legacy = Self::new();
        legacy.set(&TEXT_80X25);
        legacy.load_font();
        legacy
    }

    fn print(&self, column: u64, row: u64, text: &[u8], attribute: u8) {
        for (column, byte) in (column..).zip(text) {
            let at = 0x1_8000 + (row * 80 + column) * 2;
            self.window.write(at, &[*byte, attribute]);
        }
    }

    fn size(&self) -> (u32, u32) {
        let size = self.qxl().layout().primary.unwrap();
        (size.width, size.height)
    }

    fn look(&self) {
        self.guest.clock.advance_by_a_picture();
        self.qxl().layout();
    }
}

trait Later {
    fn advance_by_a_picture(&self);
}

impl Later for caraway_devices::FakeClock {
    fn advance_by_a_picture(&self) {
        self.advance(31_000_000);
    }
}

#[test]
fn before_any_firmware_the_screen_is_black() {
    let legacy = Legacy::new();

    assert_eq!(legacy.size(), (720, 400));
    assert_eq!(legacy.guest.pixel(719, 399), 0);
    assert_eq!(legacy.qxl().text(), None);
}

#[test]
fn text_is_rendered_cell_by_cell() {
    let legacy = Legacy::text_mode();
    legacy.print(2, 1, &[0xf0], 0x1e);

    // Four pixels of yellow, five of blue; the cursor is at 0,0.
    let y = 16;
    let row = legacy.guest.pixels(rect(18, y, 27, y + 1));
    assert_eq!(legacy.size(), (720, 400));
    let (yellow, blue) = (0xff_ff55, 0x00_00aa);
    assert_eq!(row[..4], [yellow; 4]);
    assert_eq!(row[4..], [blue; 5]);
    assert_eq!(legacy.guest.pixel(27, y), 0);
}

#[test]
fn line_graphics_reach_the_next_cell() {
    let legacy = Legacy::text_mode();
    legacy.print(0, 1, &[0xc1, 0xe1], 0x07);

    let row = legacy.guest.pixels(rect(7, 16, 18, 17));

    let grey = 0xaa_aaaa;
    assert_eq!(row[..2], [grey, grey]);
    assert_eq!(row[9..], [grey, 0]);
}

#[test]
fn the_cursor_is_drawn_in_its_rows() {
    let legacy = Legacy::text_mode();
    legacy.print(0, 0, b"\0", 0x07);
    let rows = |x: i32| -> Vec<i32> {
        let lit = |y: &i32| legacy.guest.pixel(x, *y) != 0;
        (0..16).filter(lit).collect()
    };
    legacy.look();
    let shown = rows(4);

    legacy.out(0x3d4, &[0x0a, 0x2d]);
    legacy.look();

    assert_eq!(shown, [13, 14]);
    assert_eq!(rows(4), [0; 0]);
}

#[test]
fn only_changed_cells_are_reported() {
    let legacy = Legacy::text_mode();
    legacy.qxl().clients_changed(ClientCapabilities {
        present: true,
        bits: 0,
    });
    legacy.qxl().refresh();
    let watcher = Watcher::of(legacy.qxl());

    legacy.qxl().refresh();
    let quiet = watcher.updates.lock().clone();
    legacy.print(40, 12, b"\xff", 0x07);
    legacy.qxl().refresh();

    assert_eq!(quiet, []);
    assert_eq!(*watcher.updates.lock(), [rect(352, 192, 384, 208)]);
}

#[test]
fn the_text_screen_is_text() {
    let legacy = Legacy::text_mode();
    legacy.print(0, 0, b"Booting \xb3 ", 0x07);
    legacy.print(3, 24, b"ok", 0x07);

    let screen = legacy.qxl().text().unwrap();

    let text = screen.rows;
    assert_eq!((text.len(), screen.columns), (25, 80));
    assert_eq!(text[0], "Booting │");
    assert_eq!(text[1], "");
    assert_eq!(text[24], "   ok");
}

#[test]
fn fifty_rows_fit_with_a_font_of_eight() {
    let legacy = Legacy::text_mode();
    legacy.out(0x3d4, &[9, 0x47]);

    assert_eq!(legacy.size(), (720, 400));
    assert_eq!(legacy.qxl().text().unwrap().rows.len(), 50);
}

#[test]
fn forty_columns_are_twice_as_wide() {
    let legacy = Legacy::text_mode();
    legacy.out(0x3c4, &[1, 8]);
    legacy.out(0x3d4, &[0x11, 0]);
    legacy.out(0x3d4, &[1, 39]);
    legacy.out(0x3d4, &[0x13, 20]);
    legacy.print(1, 0, &[0x80], 0x07);

    assert_eq!(legacy.size(), (720, 400));
    let row = legacy.guest.pixels(rect(18, 0, 21, 1));
    assert_eq!(row, [0xaa_aaaa, 0xaa_aaaa, 0]);
}

#[test]
fn planes_make_sixteen_colours() {
    let legacy = Legacy::new();
    legacy.set(&PLANAR_640X480);
    legacy.out(0x3c4, &[2, 0b0100]);

    legacy.window.write(80 * 479 + 79, &[0x01]);

    assert_eq!(legacy.size(), (640, 480));
    assert_eq!(legacy.guest.pixel(639, 479), 0xaa_0000);
    assert_eq!(legacy.guest.pixel(638, 479), 0);
}

#[test]
fn bytes_make_256_colours_at_twice_the_size() {
    let legacy = Legacy::new();
    legacy.set(&BYTES_320X200);

    legacy.window.write(320 * 199 + 319, &[4]);

    assert_eq!(legacy.size(), (640, 400));
    let corner = legacy.guest.pixels(rect(637, 397, 640, 400));
    let (red, black) = (0xaa_0000, 0);
    assert_eq!(corner[..3], [black; 3]);
    assert_eq!(corner[3..6], [black, red, red]);
    assert_eq!(corner[6..], [black, red, red]);
}

#[test]
fn cga_rows_are_interleaved() {
    let legacy = Legacy::new();
    legacy.set(&CGA_320X200);

    // Row 0 starts with colours 1, 2, 3, 0; row 1 is 8 KiB further on.
    legacy.window.write(0x1_8000, &[0b01_10_11_00]);
    legacy.window.write(0x1_a000, &[0b11_00_00_00]);

    // Attributes 0x13, 0x15 and 0x17 in the colours of an EGA's DAC.
    let (cyan, magenta, white) = (0x00_ffaa, 0xaa_55aa, 0xaa_ffaa);
    assert_eq!(legacy.size(), (640, 400));
    let row: Vec<u32> = legacy.guest.pixels(rect(0, 0, 8, 1));
    let colors = [cyan, cyan, magenta, magenta, white, white, 0, 0];
    assert_eq!(row, colors);
    assert_eq!(legacy.guest.pixel(0, 2), white);
}

#[test]
fn cga_in_two_colours_is_interleaved_too() {
    let legacy = Legacy::new();
    legacy.set(&CGA_640X200);

    legacy.window.write(0x1_8000 + 80, &[0x80]);
    legacy.window.write(0x1_a000, &[0x40]);

    assert_eq!(legacy.size(), (640, 400));
    assert_ne!(legacy.guest.pixel(0, 4), 0);
    assert_ne!(legacy.guest.pixel(1, 2), 0);
    assert_eq!(legacy.guest.pixel(0, 0), 0);
}

#[test]
fn a_vga_bios_sets_a_linear_mode() {
    let legacy = Legacy::new();
    let found = [0xb0c0, 0xb0c5].map(|id| {
        legacy.vbe(0, id);
        legacy.vbe_value(0)
    });
    legacy.vbe(4, 0);
    for (index, value) in [(1, 400), (2, 300), (3, 32), (5, 0), (4, 0x41)] {
        legacy.vbe(index, value);
    }
    legacy.guest.write(0, (299 * 400 + 399) * 4, &[1, 2, 3, 0]);

    assert_eq!(found, [0xb0c0, 0xb0c5]);
    assert_eq!(legacy.size(), (400, 300));
    assert_eq!(legacy.guest.pixel(399, 299), 0x03_0201);
}

#[test]
fn linear_pixels_of_every_depth_become_32_bits() {
    let cases: [(u16, &[u8], u32); 4] = [
        (8, &[4], 0xaa_0000),
        (15, &[0x00, 0x7c], 0xff_0000),
        (16, &[0xe0, 0x07], 0x00_ff00),
        (24, &[1, 2, 3], 0x03_0201),
    ];

    for (bpp, bytes, expected) in cases {
        let legacy = Legacy::text_mode();
        for (index, value) in [(1, 320), (2, 200), (3, bpp), (4, 0x41)] {
            legacy.vbe(index, value);
        }
        legacy.guest.write(0, 320 * bytes.len() as u64, bytes);

        assert_eq!(legacy.guest.pixel(0, 1), expected, "{bpp} bits");
    }
}

#[test]
fn a_wider_virtual_screen_can_be_panned() {
    let legacy = Legacy::new();
    for (index, value) in [
        (1, 320),
        (2, 200),
        (3, 8),
        (4, 0x61),
        (6, 640),
        (8, 8),
        (9, 3),
    ] {
        legacy.vbe(index, value);
    }
    legacy.out(0x3c2, &[1]);
    legacy.out(0x3c8, &[7]);
    for value in [0x12, 0x34, 0x56] {
        legacy.out(0x3c9, &[value]);
    }

    legacy.guest.write(0, 3 * 640 + 8, &[7]);

    assert_eq!(legacy.guest.pixel(0, 0), 0x12_3456);
}

#[test]
fn a_new_mode_is_a_new_generation() {
    let legacy = Legacy::text_mode();
    let text = legacy.qxl().layout();
    for (index, value) in [(1, 320), (2, 200), (3, 32), (4, 0x41)] {
        legacy.vbe(index, value);
    }
    legacy.look();

    let linear = legacy.qxl().layout();

    assert!(linear.generation > text.generation);
    assert_eq!(linear.heads[0].area, rect(0, 0, 320, 200));
}

#[test]
fn refreshing_is_wanted_while_somebody_looks_at_a_vga_mode() {
    let legacy = Legacy::text_mode();
    let clients = |present| ClientCapabilities { present, bits: 0 };

    let alone = legacy.qxl().wants_refresh();
    legacy.qxl().clients_changed(clients(true));
    let watched = legacy.qxl().wants_refresh();
    legacy.guest.go_native(64, 48);
    let native = legacy.qxl().wants_refresh();

    assert_eq!([alone, watched, native], [false, true, false]);
}

#[test]
fn a_driver_takes_over_and_a_reset_gives_the_text_back() {
    let legacy = Legacy::text_mode();
    legacy.print(0, 0, b"hello", 0x07);
    legacy.guest.go_native(64, 48);
    let size = Size {
        width: 64,
        height: 48,
    };
    let native = (legacy.qxl().layout().primary, legacy.qxl().text());

    legacy.guest.out(PORT_RESET, 0);

    assert_eq!(native, (Some(size), None));
    assert_eq!(legacy.size(), (720, 400));
    assert_eq!(legacy.qxl().text().unwrap().rows[0], "hello");
}
