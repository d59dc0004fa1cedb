//! A relay that lets bytes through at a steady pace, as a slow link does.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

/// Bytes that are passed on at once.
const PIECE: usize = 4096;
/// Bytes of a segment.
const SEGMENT: u32 = 1448;
/// Between two looks at whether somebody comes.
const POLL: Duration = Duration::from_millis(5);

/// A slow way to a server, until it is dropped. Each connection has a pace of its own, towards the client.
pub struct Throttle {
    address: SocketAddr,
    closed: Arc<AtomicBool>,
    doorman: Option<JoinHandle<()>>,
}

impl Throttle {
    /// A way to `server` that carries so many bytes a second.
    ///
    /// # Panics
    /// If it can't listen.
    pub fn open(server: SocketAddr, bytes_per_second: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let closed = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&closed);
        let doorman = spawn(move || {
            let mut streams = Vec::new();
            while !ends.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((client, _)) => {
                        client.set_nonblocking(false).unwrap();
                        let server = reach(server);
                        streams.extend([&client, &server].map(|end| end.try_clone().unwrap()));
                        relay(client, server, bytes_per_second);
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => sleep(POLL),
                    Err(error) => panic!("{error}"),
                }
            }
            for stream in streams {
                let _ = stream.shutdown(Shutdown::Both);
            }
        });
        Self {
            address,
            closed,
            doorman: Some(doorman),
        }
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
        if let Some(doorman) = self.doorman.take() {
            let _ = doorman.join();
        }
    }
}

/// Connects so that what waits, waits in the server's own queue: little is in ours, in segments as small as
/// those of an Ethernet, of which a few fit into that.
fn reach(server: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, None).unwrap();
    socket.set_tcp_mss(SEGMENT).unwrap();
    socket.set_recv_buffer_size(4 * PIECE).unwrap();
    socket.connect(&server.into()).unwrap();
    socket.into()
}

/// Passes on what comes, each way in a thread of its own, until one end closes.
fn relay(client: TcpStream, server: TcpStream, bytes_per_second: u32) {
    let _ = client.set_nodelay(true);
    let (to_client, from_client) = (client.try_clone().unwrap(), client);
    let (to_server, from_server) = (server.try_clone().unwrap(), server);
    spawn(move || pass(from_client, to_server, None));
    spawn(move || pass(from_server, to_client, Some(bytes_per_second)));
}

fn pass(mut from: TcpStream, mut to: TcpStream, bytes_per_second: Option<u32>) {
    let mut due = Instant::now();
    let mut buffer = [0; PIECE];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if let Some(rate) = bytes_per_second {
            // The last byte arrives when all have been on the wire.
            due = due.max(Instant::now()) + Duration::from_secs(count as u64) / rate;
            sleep(due.saturating_duration_since(Instant::now()));
        }
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
