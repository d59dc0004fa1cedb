//! A Unix socket as the host's end of a connection.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;

use caraway_virtio::vsock::HostStream;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// The socket, and what was read of it already.
pub(super) struct Stream {
    socket: UnixStream,
    ahead: Vec<u8>,
}

impl Stream {
    /// Whoever connected; of what it said, `ahead` is for the guest.
    pub(super) fn arrived(socket: UnixStream, ahead: Vec<u8>) -> Self {
        Self { socket, ahead }
    }

    /// Connects to whoever listens on `path`. Never waits: a listener that has too many waiting for
    /// it is as good as none.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn connect(path: &Path) -> io::Result<Self> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Self {
            socket: socket.into(),
            ahead: Vec::new(),
        })
    }

    pub(super) fn socket(&self) -> &UnixStream {
        &self.socket
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ahead.is_empty() {
            return self.socket.read(buffer);
        }
        let count = self.ahead.as_slice().read(buffer)?;
        self.ahead.drain(..count);
        Ok(count)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl HostStream for Stream {
    fn accepted(&mut self, port: u32) -> io::Result<()> {
        // Nothing was written yet: a socket has room for a line.
        self.socket.write_all(format!("OK {port}\n").as_bytes())
    }

    fn shutdown(&mut self, how: Shutdown) {
        // A socket whose other end is gone needs no such thing.
        let _ = self.socket.shutdown(how);
    }
}
