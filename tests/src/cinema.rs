//! `caraway-spice` with a screen on which a film plays, and no machine.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use caraway_spice::{Config, Devices, Framebuffer, Listener, Rect, Server, Size};

use crate::picture::Picture;

/// A running server whose screen shows a film of 320 × 240 pixels, 30 pictures a second, on flat ground.
pub struct Cinema {
    address: SocketAddr,
    server: Arc<Server>,
    screen: Arc<Framebuffer>,
    plays: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Cinema {
    /// Opens it; the film begins at once.
    ///
    /// # Panics
    /// If it can't listen.
    pub fn open() -> Self {
        let screen = Framebuffer::new(Size {
            width: 640,
            height: 480,
        });
        screen.fill(Rect::of_size(screen.size()), 0x0020_4060);
        let devices = Devices {
            displays: vec![screen.clone()],
            ..Devices::default()
        };
        let server = Server::new(Config::default(), devices, Arc::new(()));
        let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.address().to_string().parse().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let served = Arc::clone(&server);
        let serve = spawn(move || runtime.block_on(served.serve(listener)).unwrap());
        let plays = Arc::new(AtomicBool::new(true));
        let (shown, goes_on) = (screen.clone(), plays.clone());
        let play = spawn(move || play(&shown, &goes_on));
        Self {
            address,
            server,
            screen,
            plays,
            threads: vec![serve, play],
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops the film at the picture that it shows.
    pub fn stop(&self) {
        self.plays.store(false, Ordering::Relaxed);
    }

    /// What the screen shows.
    pub fn picture(&self) -> Picture {
        let Size { width, height } = self.screen.size();
        let places = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        let pixel = |(x, y)| {
            let [blue, green, red, _] = self.screen.pixel(x, y).unwrap().to_le_bytes();
            [red, green, blue]
        };
        let pixels = places.map(pixel).collect();
        Picture::new(width as usize, height as usize, pixels)
    }
}

impl Drop for Cinema {
    fn drop(&mut self) {
        self.stop();
        self.server.shutdown();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// A camera that moves past something smooth with a little grain.
fn play(screen: &Framebuffer, goes_on: &AtomicBool) {
    let area = Rect {
        left: 33,
        top: 17,
        right: 353,
        bottom: 257,
    };
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
