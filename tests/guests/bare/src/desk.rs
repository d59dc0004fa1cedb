//! A desktop as a driver without acceleration shows it: a terminal scrolls, is dragged over a
//! wallpaper, and a video plays, all as copies of pixels. For recordings.
//!
//! `frames` (40) is how many pictures each of the three parts has.

use crate::busy::{Slots, next};
use crate::cpu::wait_until;
use crate::ensure;
use crate::failure::Outcome;
use crate::qxl::{Qxl, Rect, rect};
use crate::start_info::StartInfo;

const WIDTH: u32 = 800;
const HEIGHT: u32 = 600;
/// The terminal's size, and that of a character in it.
const TERMINAL: (u32, u32) = (400, 320);
const CELL: (u32, u32) = (8, 16);
const VIDEO: (u32, u32) = (192, 144);
const VIDEO_AT: (u32, u32) = (520, 380);
/// Commands that the device may have at a time.
const SLOTS: u32 = 4;

/// What is to be seen at a time.
struct Scene {
    terminal: (u32, u32),
    /// Lines that have gone.
    scrolled: u32,
    frame: u32,
}

impl Scene {
    fn pixel(&self, x: u32, y: u32) -> u32 {
        if let Some((x, y)) = within((x, y), self.terminal, TERMINAL) {
            return self.text(x, y);
        }
        if let Some((x, y)) = within((x, y), VIDEO_AT, VIDEO) {
            return self.video(x, y);
        }
        // The wallpaper.
        (x * 80 / WIDTH) << 16 | (40 + y * 120 / HEIGHT) << 8 | 0x60
    }

    /// Characters, each the same at every place where it is, in lines of different lengths.
    fn text(&self, x: u32, y: u32) -> u32 {
        const PAPER: u32 = 0x10_1010;
        const INK: u32 = 0xd0_d0d0;
        let (column, line) = (x / CELL.0, y / CELL.1 + self.scrolled);
        let length = mix(u64::from(line)) as u32 % (TERMINAL.0 / CELL.0);
        let character = mix(u64::from(line) << 8 | u64::from(column)) % 60;
        let glyph = mix(character << 32 | 1);
        let (dot_x, dot_y) = (x % CELL.0, y % CELL.1);
        let inked =
            dot_x < 6 && (3..12).contains(&dot_y) && glyph >> ((dot_y - 3) * 6 + dot_x) & 1 != 0;
        if column < length && inked { INK } else { PAPER }
    }

    /// Soft shapes that move, with the least noise.
    fn video(&self, x: u32, y: u32) -> u32 {
        let wave = |at: u32| {
            let at = at % 256;
            if at < 128 { at } else { 255 - at }
        };
        let noise = mix(u64::from(self.frame) << 40 | u64::from(y) << 20 | u64::from(x)) as u32 & 1;
        let red = wave(x + 5 * self.frame) + wave(y * 2) / 2 + noise;
        let green = wave(y + 3 * self.frame) + wave(x / 2 + y) / 2 + noise;
        let blue = wave(x + y + 7 * self.frame) + 32 + noise;
        red << 16 | green << 8 | blue
    }
}

/// A number that depends on every bit of another.
fn mix(number: u64) -> u64 {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    next(&mut state);
    next(&mut state)
}

/// The place in a rectangle, if it is there.
fn within(at: (u32, u32), corner: (u32, u32), size: (u32, u32)) -> Option<(u32, u32)> {
    let (x, y) = (at.0.checked_sub(corner.0)?, at.1.checked_sub(corner.1)?);
    (x < size.0 && y < size.1).then_some((x, y))
}

struct Desk {
    qxl: Qxl,
    free: Slots,
}

impl Desk {
    /// Shows a part of the scene, given by its corner and an even size.
    fn draw(&mut self, (x, y): (u32, u32), (width, height): (u32, u32), scene: &Scene) -> Outcome {
        let free = &mut self.free;
        let qxl = &self.qxl;
        let mut slot = None;
        wait_until(|| {
            // What is not ours is found by its slot being one too many.
            let _ = qxl.collect(|slot| free.give(slot));
            slot = free.take();
            if slot.is_none() {
                qxl.ask_back();
            }
            slot.is_some()
        });
        ensure!(slot.is_some(), "no command comes back");
        let area: Rect = rect(x, y, width, height);
        let mut at = 0;
        let pixels = || {
            let (left, top) = (x + at % width, y + at / width);
            at += 2;
            u64::from(scene.pixel(left, top)) | u64::from(scene.pixel(left + 1, top)) << 32
        };
        match slot {
            Some(slot) => self.qxl.put(slot, area, pixels),
            None => Ok(()),
        }
    }
}

/// Plays all of it.
pub fn run(info: &StartInfo) -> Outcome {
    let frames = info.number("frames", 40) as u32;
    let mut qxl = Qxl::open(WIDTH, HEIGHT)?;
    qxl.create_primary();
    qxl.set_monitors()?;
    let mut free = Slots::new();
    for _ in 0..SLOTS {
        free.give(qxl.slot(WIDTH * HEIGHT));
    }
    let mut desk = Desk { qxl, free };
    let mut scene = Scene {
        terminal: (40, 40),
        scrolled: 0,
        frame: 0,
    };
    desk.draw((0, 0), (WIDTH, HEIGHT), &scene)?;
    for _ in 0..frames {
        scene.scrolled += 1;
        desk.draw(scene.terminal, TERMINAL, &scene)?;
    }
    for _ in 0..frames {
        let (x, y) = scene.terminal;
        scene.terminal = (x + 4, y + 2);
        desk.draw((x, y), (TERMINAL.0 + 4, TERMINAL.1 + 2), &scene)?;
    }
    for _ in 0..frames {
        scene.frame += 1;
        desk.draw(VIDEO_AT, VIDEO, &scene)?;
    }
    Ok(())
}
