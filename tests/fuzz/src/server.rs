//! The server under test, and what it shows and drives.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::messages;
use caraway_spice::{
    Agent, Buttons, Config, Devices, Framebuffer, InputSink, Key, Locks, Microphone, Pipe,
    PipeEvent, PointerEvent, Port, Server, SessionEvent, SessionObserver, Size, Speaker,
};

/// Pixels of the screen's sides: small, as its pixels are not what is tested.
pub const SCREEN: Size = Size {
    width: 24,
    height: 16,
};

/// A guest's keyboard and pointer, which remember what is held down.
#[derive(Default)]
pub struct Desk(Mutex<Held>);

#[derive(Default)]
struct Held {
    keys: BTreeSet<(u8, bool)>,
    buttons: Buttons,
    lamps: Locks,
    absolute: bool,
}

impl Desk {
    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The guest loads or drops the driver of its tablet.
    pub fn set_absolute(&self, absolute: bool) {
        self.held().absolute = absolute;
    }

    /// The guest switches its lamps.
    pub fn set_lamps(&self, lamps: Locks) {
        self.held().lamps = lamps;
    }

    /// Whether nothing is pressed.
    pub fn is_idle(&self) -> bool {
        let held = self.held();
        held.keys.is_empty() && held.buttons == Buttons::default()
    }
}

impl InputSink for Desk {
    fn key(&self, key: Key, down: bool) {
        assert!(key.code < 0x80, "a make code has seven bits: {key:?}");
        let mut held = self.held();
        if down {
            held.keys.insert((key.code, key.extended));
        } else {
            held.keys.remove(&(key.code, key.extended));
        }
    }

    fn pointer(&self, event: PointerEvent) {
        let mut held = self.held();
        match event {
            PointerEvent::Motion { dx, dy } => {
                assert!(dx.abs() <= 0x7fff && dy.abs() <= 0x7fff, "{event:?}");
            }
            PointerEvent::Position { .. } => assert!(held.absolute, "{event:?} for no tablet"),
            PointerEvent::Buttons(buttons) => held.buttons = buttons,
            PointerEvent::Wheel(notches) => assert_eq!(notches.abs(), 1),
        }
    }

    fn locks(&self) -> Locks {
        self.held().lamps
    }

    fn absolute(&self) -> bool {
        self.held().absolute
    }
}

/// How many sessions began and ended.
#[derive(Default)]
pub struct Census(Mutex<(usize, usize)>);

impl Census {
    fn counts(&self) -> std::sync::MutexGuard<'_, (usize, usize)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sessions that began.
    pub fn began(&self) -> usize {
        self.counts().0
    }

    /// Whether all that began have ended.
    pub fn is_even(&self) -> bool {
        let (began, ended) = *self.counts();
        began == ended
    }
}

impl SessionObserver for Census {
    fn event(&self, event: SessionEvent) {
        let mut counts = self.counts();
        match event {
            SessionEvent::Connected { .. } => counts.0 += 1,
            SessionEvent::Disconnected { .. } => counts.1 += 1,
            _ => {}
        }
    }
}

/// The machine's end of a pipe, which holds the clients' end to its order: one joins, talks, leaves.
#[derive(Default)]
pub struct Machine {
    joined: bool,
}

impl Machine {
    /// Takes all that happened.
    ///
    /// # Panics
    /// If it happened in an order in which nothing can.
    pub fn drain(&mut self, pipe: &Pipe) {
        while let Some(event) = pipe.take() {
            let was_joined = self.joined;
            match &event {
                PipeEvent::Joined => self.joined = true,
                PipeEvent::Left => self.joined = false,
                PipeEvent::Bytes(bytes) => assert!(!bytes.is_empty(), "no bytes"),
                PipeEvent::Break => {}
            }
            assert_eq!(
                was_joined,
                event != PipeEvent::Joined,
                "{event:?} out of turn"
            );
        }
    }

    /// The machine closes its end.
    pub fn close(&mut self, pipe: &Pipe) {
        pipe.close();
        self.drain(pipe);
        self.joined = false;
    }
}

/// A server of one small screen and one pipe of each sort.
pub struct Rig {
    /// The server.
    pub server: Arc<Server>,
    /// Its screen.
    pub screen: Arc<Framebuffer>,
    /// Its input.
    pub desk: Arc<Desk>,
    /// Its sessions.
    pub census: Arc<Census>,
    /// A port, the shared folders and a USB slot.
    pub pipes: [Arc<Pipe>; 3],
    /// What the guest plays.
    pub speaker: Arc<Speaker>,
    /// The guest's agent.
    pub agent: Arc<Agent>,
    /// What the guest records.
    pub microphone: Arc<Microphone>,
}

impl Rig {
    /// A server with this configuration.
    pub fn new(config: Config) -> Self {
        let screen = Framebuffer::new(SCREEN);
        let (desk, census) = (Arc::new(Desk::default()), Arc::new(Census::default()));
        let pipes = [Pipe::new(), Pipe::new(), Pipe::new()];
        let (speaker, microphone) = (Speaker::new(), Microphone::new());
        let agent = Agent::new();
        let [port, webdav, slot] = pipes.clone();
        let devices = Devices {
            displays: vec![screen.clone()],
            inputs: desk.clone(),
            ports: vec![Port {
                name: "org.example.port.0".to_owned(),
                pipe: port,
            }],
            playback: Some(speaker.clone()),
            record: Some(microphone.clone()),
            webdav: Some(webdav),
            usb_slots: vec![slot],
            agent: Some(agent.clone()),
        };
        let server = Server::new(config, devices, census.clone());
        Self {
            server,
            screen,
            desk,
            census,
            pipes,
            speaker,
            microphone,
            agent,
        }
    }

    /// The pipe behind a channel of this kind.
    pub fn pipe(&self, kind: u8) -> Option<&Arc<Pipe>> {
        match kind {
            messages::PORT => self.pipes.first(),
            messages::WEBDAV => self.pipes.get(1),
            messages::USBREDIR => self.pipes.get(2),
            _ => None,
        }
    }

    /// Fails unless the server is as it was before its clients came.
    ///
    /// # Panics
    /// If something of them is left.
    pub fn assert_clean(&self) {
        assert!(self.desk.is_idle(), "a key or button is left pressed");
        assert!(self.server.info().sessions.is_empty(), "a session is left");
        assert!(self.census.is_even(), "a session's end was not told");
        let has_client = self.pipes.iter().any(|pipe| pipe.has_client());
        assert!(!has_client, "a client is left on a pipe");
    }
}

/// Runs `work` where time passes as soon as nothing else is to be done.
///
/// # Panics
/// If there can be no runtime.
pub fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.expect("a runtime can be made").block_on(work)
}
