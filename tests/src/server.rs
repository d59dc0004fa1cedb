//! `caraway-spice` with every kind of device, and no machine: what plays and records is the test.

use std::f64::consts::TAU;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use caraway_spice::{
    AudioFormat, ChannelKind, Config, Devices, Framebuffer, Listener, Microphone, Pipe, Port, Rect,
    Server, Size, Speaker,
};
use tokio::io::{copy, duplex, split};
use tokio::time::{MissedTickBehavior, interval};

/// The port that gives back every byte.
pub const ECHO: &str = "org.example.echo.0";

/// A running server with a screen, a tone to hear, a microphone, [`ECHO`], shared folders and one USB
/// slot.
#[derive(Debug)]
pub struct AllChannels {
    address: SocketAddr,
    server: Arc<Server>,
    /// Records in [`AudioFormat::STEREO`].
    pub microphone: Arc<Microphone>,
    thread: Option<JoinHandle<()>>,
}

impl AllChannels {
    /// Starts it; it plays a sine of `hertz`.
    ///
    /// # Panics
    /// If it can't listen.
    pub fn start(hertz: f64) -> Self {
        let screen = Framebuffer::new(Size {
            width: 320,
            height: 200,
        });
        screen.fill(Rect::of_size(screen.size()), 0x0020_4060);
        let (speaker, microphone, echo) = (Speaker::new(), Microphone::new(), Pipe::new());
        let (webdav, slot) = (Pipe::new(), Pipe::new());
        webdav.open();
        slot.open();
        microphone.start(AudioFormat::STEREO);
        let devices = Devices {
            displays: vec![screen],
            playback: Some(speaker.clone()),
            record: Some(microphone.clone()),
            ports: vec![Port {
                name: ECHO.to_owned(),
                pipe: echo.clone(),
            }],
            webdav: Some(webdav),
            usb_slots: vec![slot],
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
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::spawn(play(speaker, hertz));
                tokio::spawn(give_back(echo));
                served.serve(listener).await.unwrap();
            });
        });
        Self {
            address,
            server,
            microphone,
            thread: Some(thread),
        }
    }

    /// The kinds of the channels that clients have open.
    pub fn channels(&self) -> Vec<ChannelKind> {
        let sessions = self.server.info().sessions.into_iter();
        let channels = sessions.flat_map(|session| session.channels);
        channels.map(|channel| channel.kind).collect()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for AllChannels {
    fn drop(&mut self) {
        self.server.shutdown();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn play(speaker: Arc<Speaker>, hertz: f64) {
    let format = AudioFormat::STEREO;
    let moments = format.rate() / 100;
    let mut pieces = interval(Duration::from_millis(10));
    pieces.set_missed_tick_behavior(MissedTickBehavior::Burst);
    speaker.start(format);
    for moment in (0_u64..).step_by(moments as usize) {
        pieces.tick().await;
        let sample = |n: u32| {
            let turns = hertz * (moment + u64::from(n)) as f64 / f64::from(format.rate());
            (10_000.0 * (turns * TAU).sin()) as i16
        };
        let samples: Vec<i16> = (0..moments).flat_map(|n| [sample(n); 2]).collect();
        speaker.play(&samples);
    }
}

async fn give_back(pipe: Arc<Pipe>) {
    let (ours, theirs) = duplex(4096);
    let (mut reader, mut writer) = split(ours);
    let (_, _) = tokio::join!(pipe.relay(theirs, false), copy(&mut reader, &mut writer));
}
