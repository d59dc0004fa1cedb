//! What the device needs of the host: streams of bytes, and somebody who opens them.

use std::io::{self, Read, Write};
use std::net::Shutdown;

/// Names a connection for as long as the device is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// The host's end of a connection. No method waits: what can't be done now is
/// [`WouldBlock`](io::ErrorKind::WouldBlock), and whoever watches the stream says later, by
/// [`Vsock::ready`](super::Vsock::ready), that it can.
pub trait HostStream: Read + Write + Send {
    /// The guest took the connection that the host asked for, which is known to it by `port` of
    /// the host's.
    ///
    /// # Errors
    /// The stream is of no use any more.
    fn accepted(&mut self, port: u32) -> io::Result<()>;

    /// Nothing more will be written, or nothing more read.
    fn shutdown(&mut self, how: Shutdown);
}

/// Opens what the guest connects to.
pub trait Host: Send {
    /// A stream to whoever serves `port` of the host, which is `id` from now on.
    ///
    /// # Errors
    /// Nobody does, or the host has no room: the guest is refused.
    fn connect(&mut self, port: u32, id: ConnectionId) -> io::Result<Box<dyn HostStream>>;
}

/// What a stream can do now that it could not do before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Readiness {
    /// It has bytes, or has ended.
    pub readable: bool,
    /// It takes bytes.
    pub writable: bool,
    /// Its other end is gone altogether.
    pub hung_up: bool,
}
