//! `caraway-spice` with a screen that a test draws on, and no machine.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{JoinHandle, spawn};

use caraway_spice::{ChannelKind, Config, Devices, Framebuffer, Listener, Rect, Server, Size};

use crate::picture::Picture;

/// Threads that encode.
const ENCODERS: usize = 2;

/// A running server with a screen of flat ground.
pub struct Screen {
    address: SocketAddr,
    server: Arc<Server>,
    framebuffer: Arc<Framebuffer>,
    thread: Option<JoinHandle<()>>,
}

impl Screen {
    /// Opens one of this size.
    ///
    /// # Panics
    /// If it can't listen.
    pub fn open(width: u32, height: u32) -> Self {
        let framebuffer = Framebuffer::new(Size { width, height });
        framebuffer.fill(Rect::of_size(framebuffer.size()), 0x0020_4060);
        let devices = Devices {
            displays: vec![framebuffer.clone()],
            ..Devices::default()
        };
        let server = Server::new(Config::default(), devices, Arc::new(()));
        let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.address().to_string().parse().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(ENCODERS)
            .enable_all()
            .build()
            .unwrap();
        let served = Arc::clone(&server);
        let thread = spawn(move || runtime.block_on(served.serve(listener)).unwrap());
        Self {
            address,
            server,
            framebuffer,
            thread: Some(thread),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What is drawn on.
    pub fn framebuffer(&self) -> &Arc<Framebuffer> {
        &self.framebuffer
    }

    /// Bytes that the display channels of all clients have sent.
    pub fn bytes_sent(&self) -> u64 {
        let sessions = self.server.info().sessions;
        let channels = sessions.iter().flat_map(|session| &session.channels);
        channels
            .filter(|channel| channel.kind == ChannelKind::Display)
            .map(|channel| channel.bytes_out)
            .sum()
    }

    /// What it shows.
    pub fn picture(&self) -> Picture {
        let Size { width, height } = self.framebuffer.size();
        let places = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        let pixel = |(x, y)| {
            let [blue, green, red, _] = self.framebuffer.pixel(x, y).unwrap().to_le_bytes();
            [red, green, blue]
        };
        let pixels = places.map(pixel).collect();
        Picture::new(width as usize, height as usize, pixels)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.server.shutdown();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
