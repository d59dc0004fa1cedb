//! A screen on which a film plays.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use caraway_spice::{Framebuffer, Rect};

use crate::picture::Picture;
use crate::screen::Screen;

/// Where the film plays.
pub const FILM: Rect = Rect {
    left: 33,
    top: 17,
    right: 353,
    bottom: 257,
};
/// How far a colour may be off in a picture of a stream.
const BLUR: i32 = 20;

/// A screen that shows a film of 320 × 240 pixels, 30 pictures a second, on flat ground.
pub struct Cinema {
    screen: Screen,
    plays: Arc<AtomicBool>,
    player: Option<JoinHandle<()>>,
}

impl Cinema {
    /// Opens it; the film begins at once.
    ///
    /// # Panics
    /// If it can't listen.
    pub fn open() -> Self {
        let screen = Screen::open(640, 480);
        let plays = Arc::new(AtomicBool::new(true));
        let (shown, goes_on) = (screen.framebuffer().clone(), plays.clone());
        let player = spawn(move || play(&shown, &goes_on));
        Self {
            screen,
            plays,
            player: Some(player),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.screen.address()
    }

    /// Stops the film at the picture that it shows.
    pub fn stop(&self) {
        self.plays.store(false, Ordering::Relaxed);
    }

    /// How many percent of a picture of the film are of colours that it never has, not even blurred.
    pub fn percent_wrong(film: &Picture) -> usize {
        let (width, height) = (film.width, film.height);
        let places = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        let is_wrong = |&(x, y): &(usize, usize)| {
            let [red, green, blue] = film.pixel(x, y).map(i32::from);
            (blue - 200).abs() > BLUR || (red - 2 * green).abs() > BLUR
        };
        places.filter(is_wrong).count() * 100 / (width * height)
    }

    /// What the screen shows.
    pub fn picture(&self) -> Picture {
        self.screen.picture()
    }
}

impl Drop for Cinema {
    fn drop(&mut self) {
        self.stop();
        if let Some(player) = self.player.take() {
            let _ = player.join();
        }
    }
}

/// A camera that moves past something smooth with a little grain.
fn play(screen: &Framebuffer, goes_on: &AtomicBool) {
    let area = FILM;
    let start = Instant::now();
    let mut noise = 1_u32;
    for at in 0_u32.. {
        if !goes_on.load(Ordering::Relaxed) {
            break;
        }
        let mut pixels = Vec::new();
        for y in 0..area.height() {
            for x in 0..area.width() {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let shade = (x + y / 2 + at * 4) & 511;
                let shade = shade.min(511 - shade) * 15 / 16 + (noise >> 30);
                pixels.push(shade << 16 | (shade / 2) << 8 | 200);
            }
        }
        assert!(screen.blit(area, &pixels));
        let due = start + Duration::from_secs(1) * (at + 1) / 30;
        sleep(due.saturating_duration_since(Instant::now()));
    }
}
