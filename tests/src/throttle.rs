//! A relay that lets bytes through at a steady pace, as a slow link does.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

/// Bytes that are passed on at once.
const PIECE: usize = 4096;
/// Bytes of a segment.
const SEGMENT: u32 = 1448;
/// Between two looks at whether somebody comes.
const POLL: Duration = Duration::from_millis(5);

/// What went to the client, of all connections.
type Passed = Arc<Mutex<Vec<u8>>>;

/// A slow way to a server, until it is dropped. Each connection has a pace of its own, towards the client.
pub struct Throttle {
    address: SocketAddr,
    closed: Arc<AtomicBool>,
    passed: Passed,
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
        let passed = Passed::default();
        let (ends, to_clients) = (Arc::clone(&closed), Arc::clone(&passed));
        let doorman = spawn(move || {
            let mut streams = Vec::new();
            while !ends.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((client, _)) => {
                        client.set_nonblocking(false).unwrap();
                        let server = reach(server);
                        streams.extend([&client, &server].map(|end| end.try_clone().unwrap()));
                        relay(client, server, bytes_per_second, &to_clients);
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
            passed,
            doorman: Some(doorman),
        }
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether these bytes went to the client.
    ///
    /// # Panics
    /// If they are none.
    pub fn has_passed(&self, bytes: &[u8]) -> bool {
        let passed = self.passed.lock().unwrap();
        passed.windows(bytes.len()).any(|some| some == bytes)
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
fn relay(client: TcpStream, server: TcpStream, bytes_per_second: u32, passed: &Passed) {
    let _ = client.set_nodelay(true);
    let (to_client, from_client) = (client.try_clone().unwrap(), client);
    let (to_server, from_server) = (server.try_clone().unwrap(), server);
    spawn(move || pass(from_client, to_server, |_| {}));
    let (passed, mut due) = (Arc::clone(passed), Instant::now());
    spawn(move || {
        pass(from_server, to_client, |bytes| {
            // The last byte arrives when all have been on the wire.
            let wire_time = Duration::from_secs(bytes.len() as u64) / bytes_per_second;
            due = due.max(Instant::now()) + wire_time;
            sleep(due.saturating_duration_since(Instant::now()));
            passed.lock().unwrap().extend(bytes);
        });
    });
}

/// Passes on what comes, after `wait` let it.
fn pass(mut from: TcpStream, mut to: TcpStream, mut wait: impl FnMut(&[u8])) {
    let mut buffer = [0; PIECE];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        wait(&buffer[..count]);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
