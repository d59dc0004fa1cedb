//! A SPICE server for any program that has pixels.
//!
//! The program implements [`DisplaySource`] for what it shows and [`InputSink`] for what it takes
//! (or uses the [`Framebuffer`] that is here), and gives its [`Devices`] to a [`Server`]. Stock viewers
//! (remote-viewer, virt-viewer, spicy, ryll, browsers behind a proxy) then show it, any number of
//! them at once, each at its own pace: a slow viewer gets fewer and newer pixels, and delays nobody.
//!
//! ```
//! use std::sync::Arc;
//! use caraway_spice::{
//!     Auth, Config, Devices, Framebuffer, InputSink, Key, Listener, Locks, Password, PointerEvent,
//!     Server, Size,
//! };
//!
//! struct Keys;
//! impl InputSink for Keys {
//!     fn key(&self, key: Key, down: bool) {
//!         println!("{key:?} {}", if down { "down" } else { "up" });
//!     }
//!     fn pointer(&self, _: PointerEvent) {}
//!     fn locks(&self) -> Locks {
//!         Locks::default()
//!     }
//!     fn absolute(&self) -> bool {
//!         true
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let screen = Framebuffer::new(Size { width: 800, height: 600 });
//! let auth = Auth::Password(Password::new("secret")?);
//! let config = Config { name: "demo".into(), auth, ..Config::default() };
//! let devices = Devices { displays: vec![screen.clone()], inputs: Arc::new(Keys), ..Devices::default() };
//! let server = Server::new(config, devices, Arc::new(()));
//! let listener = Listener::bind(&"127.0.0.1:0".parse()?)?;
//! println!("remote-viewer spice://{}", listener.address());
//!
//! let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
//! runtime.block_on(async {
//!     let serving = tokio::spawn(server.clone().serve(listener));
//!     screen.fill(caraway_spice::Rect::of_size(screen.size()), 0x0020_4060);
//!     server.shutdown(); // a real program waits for something first
//!     serving.await
//! })??;
//! # Ok(())
//! # }
//! ```
//!
//! The program `examples/test_pattern.rs` is a complete one. The crate's `README.md` says how to look
//! at it with each client, and what this server has and has not.
//!
//! # Threads
//!
//! Everything runs on the runtime that the program drives, and a runtime of one thread is enough;
//! the only thread of the crate's own makes RSA keys ahead. [`Server`]'s methods may be called from
//! any thread, and so may a display tell its observers.
//!
//! # Security
//!
//! Clients are hostile until proven otherwise: every length is checked before memory is reserved,
//! every stage of a link has a time limit, a client that breaks the protocol loses its session and
//! nobody else's. Tickets are compared in constant time, and whoever guesses at them has to wait. A
//! [`Listener`] speaks TLS if it is given a [`tls::Tls`], and [`Config::secure_channels`] says which
//! channels insist on that. Browsers connect to the same ports by WebSocket, if their page comes from
//! the same host.

#![forbid(unsafe_code)]

mod address;
mod agent;
mod audio;
mod channel;
mod clock;
pub mod codec;
mod damage;
mod devices;
mod flow;
mod framebuffer;
pub mod geometry;
mod heads;
mod hub;
pub mod input;
mod link;
mod listener;
mod pipe;
mod pool;
mod protocol;
mod server;
mod session;
pub mod source;
mod ticket;
mod tiles;
pub mod tls;
mod transport;
mod video;
mod wire;

pub use address::{AddressError, ListenAddress};
pub use agent::{Agent, AgentInfo, Counters as AgentCounters};
pub use audio::{
    AudioFormat, AudioListener, AudioSink, AudioSource, AudioState, Microphone, Speaker, Volume,
};
pub use devices::{Devices, Port};
pub use framebuffer::Framebuffer;
pub use geometry::{Point, Rect, Size};
pub use input::{Buttons, InputSink, Key, Locks, PointerEvent};
pub use listener::{ListenError, Listener};
pub use pipe::{Pipe, PipeEvent};
pub use protocol::{ChannelKind, MouseMode};
#[cfg(fuzzing)]
pub use server::fuzzing;
pub use server::{Config, Second, Server, Sharing};
pub use session::{ChannelInfo, Ending, ServerInfo, SessionEvent, SessionInfo, SessionObserver};
pub use source::{
    ClientCapabilities, CursorImage, CursorKind, CursorState, DisplayObserver, DisplaySource, Head,
    HeadRequest, Layout, PixelFormat, Update,
};
pub use ticket::{
    Auth, CONFIG_TICKET, Lapse, NewTicket, Password, PasswordError, Permissions, TicketError,
    TicketInfo,
};
pub use transport::{Console, ConsoleError, Origin, OriginError, Security};
