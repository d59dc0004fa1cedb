//! Sockets that wait for clients.

use std::io;
use std::net::{TcpListener, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

use crate::address::{AddressError, ListenAddress, MAX_PATH};
use crate::link::guard::{Peer, Source};
use crate::tls::Tls;
use crate::transport::Security;
use crate::wire::{BoxedStream, PATIENCE};

/// Why a listener could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else listens there.
    #[error(
        "cannot listen at {0}: the address is already in use; choose another or stop who uses it"
    )]
    InUse(ListenAddress),
    /// A file that is no socket is where the socket should be.
    #[error(
        "cannot listen at {0}: a file that is not a socket is there; remove it or choose another path"
    )]
    NotASocket(ListenAddress),
    /// The address itself is wrong.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The system refused.
    #[error("cannot listen at {address}")]
    System {
        /// Where.
        address: ListenAddress,
        /// What it said.
        source: io::Error,
    },
}

/// A bound socket. Made before any runtime exists, so that a program can fail early.
#[derive(Debug)]
pub struct Listener {
    address: ListenAddress,
    socket: Socket,
    tls: Option<Arc<Tls>>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// Removes the socket's file when dropped, unless it is another's by now.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    identity: Option<(u64, u64)>,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.identity.is_some() && self.identity == identity(&self.path) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

impl Listener {
    /// Binds `address` and listens. A Unix socket gets mode 0600, replaces one that nobody listens
    /// on any more, and is removed when the listener is dropped.
    ///
    /// # Errors
    ///
    /// Each [`ListenError`] names the address.
    pub fn bind(address: &ListenAddress) -> Result<Self, ListenError> {
        match address {
            ListenAddress::Tcp { host, port } => Self::bind_tcp(address, host, *port),
            ListenAddress::Unix(path) => Self::bind_unix(address, path),
        }
    }

    /// The same listener for TLS only. Who connects to it plainly is told so.
    #[must_use]
    pub fn secured(self, tls: Arc<Tls>) -> Self {
        let tls = Some(tls);
        Self { tls, ..self }
    }

    /// Whether it takes TLS only.
    #[must_use]
    pub fn is_secured(&self) -> bool {
        self.tls.is_some()
    }

    /// Where it listens really: the port is never 0.
    #[must_use]
    pub fn address(&self) -> &ListenAddress {
        &self.address
    }

    fn bind_tcp(address: &ListenAddress, host: &str, port: u16) -> Result<Self, ListenError> {
        let system = |source| system_error(address, source);
        let resolved: Vec<_> = (host, port).to_socket_addrs().map_err(system)?.collect();
        let socket = TcpListener::bind(resolved.as_slice()).map_err(system)?;
        socket.set_nonblocking(true).map_err(system)?;
        let port = socket.local_addr().map_err(system)?.port();
        Ok(Self {
            address: ListenAddress::Tcp {
                host: host.to_owned(),
                port,
            },
            socket: Socket::Tcp(socket),
            tls: None,
        })
    }

    fn bind_unix(address: &ListenAddress, path: &Path) -> Result<Self, ListenError> {
        if path.as_os_str().len() > MAX_PATH {
            return Err(AddressError::LongPath(path.to_owned()).into());
        }
        let system = |source| system_error(address, source);
        if let Ok(metadata) = std::fs::symlink_metadata(path) {
            if !metadata.file_type().is_socket() {
                return Err(ListenError::NotASocket(address.clone()));
            }
            match UnixStream::connect(path) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path).map_err(system)?;
                }
                Ok(_) => return Err(ListenError::InUse(address.clone())),
                Err(error) => return Err(system(error)),
            }
        }
        let socket = UnixListener::bind(path).map_err(system)?;
        let file = SocketFile {
            path: path.to_owned(),
            identity: identity(path),
        };
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(system)?;
        socket.set_nonblocking(true).map_err(system)?;
        Ok(Self {
            address: address.clone(),
            socket: Socket::Unix(socket, file),
            tls: None,
        })
    }

    pub(crate) fn into_acceptor(self) -> Result<(Acceptor, Option<Arc<Tls>>), ListenError> {
        let address = self.address;
        let system = |source| system_error(&address, source);
        let acceptor = match self.socket {
            Socket::Tcp(socket) => {
                Acceptor::Tcp(tokio::net::TcpListener::from_std(socket).map_err(system)?)
            }
            Socket::Unix(socket, file) => Acceptor::Unix(
                tokio::net::UnixListener::from_std(socket).map_err(system)?,
                file,
            ),
        };
        Ok((acceptor, self.tls))
    }
}

fn system_error(address: &ListenAddress, source: io::Error) -> ListenError {
    if source.kind() == io::ErrorKind::AddrInUse {
        ListenError::InUse(address.clone())
    } else {
        ListenError::System {
            address: address.clone(),
            source,
        }
    }
}

/// Somebody who has connected and said nothing yet.
pub(crate) struct Connection {
    pub(crate) stream: BoxedStream,
    pub(crate) security: Security,
    pub(crate) peer: Peer,
}

/// A listener that a runtime drives.
#[derive(Debug)]
pub(crate) enum Acceptor {
    Tcp(tokio::net::TcpListener),
    Unix(
        tokio::net::UnixListener,
        #[expect(dead_code, reason = "held for its drop")] SocketFile,
    ),
}

/// Bytes that TCP may hold which it has not sent yet (`TCP_NOTSENT_LOWAT`). Small, because what is
/// in there can no longer be replaced by newer pixels; what is on the link is the window's business,
/// so the system may size the send buffer by the link, for which 80 ms at 100 Mbit/s take 1 MB.
const MAX_UNSENT: u32 = 32 * 1024;
/// Bytes that a Unix socket may hold (Linux reserves twice that, for its own bookkeeping). Nothing
/// is on the way there, so all of it is unsent.
const UNIX_BUFFER: usize = 128 * 1024;
/// Quiet seconds after which the system asks a peer whether it is still there, and between asking.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(20);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// Seconds that a peer may leave data unacknowledged before its connection is given up.
const USER_TIMEOUT: Duration = PATIENCE;

impl Acceptor {
    /// The next connection.
    pub(crate) async fn accept(&self) -> io::Result<Connection> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // Options make a connection better, none is needed to serve it.
                let socket = SockRef::from(&stream);
                let _ = socket.set_tcp_nodelay(true);
                let _ = socket.set_tcp_notsent_lowat(MAX_UNSENT);
                let keepalive = TcpKeepalive::new()
                    .with_time(KEEPALIVE_IDLE)
                    .with_interval(KEEPALIVE_INTERVAL);
                let _ = socket.set_tcp_keepalive(&keepalive);
                let _ = socket.set_tcp_user_timeout(Some(USER_TIMEOUT));
                let peer = Peer {
                    name: peer.to_string(),
                    source: peer.ip().into(),
                };
                Ok(Connection {
                    stream: Box::new(stream),
                    security: Security::Plain,
                    peer,
                })
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                let _ = SockRef::from(&stream).set_send_buffer_size(UNIX_BUFFER);
                let credentials = stream.peer_cred().ok();
                let process = credentials.and_then(|peer| peer.pid());
                let peer = Peer {
                    name: process
                        .map_or_else(|| "unix".to_owned(), |pid| format!("unix:pid={pid}")),
                    source: Source::Process {
                        user: credentials.map_or(0, |peer| peer.uid()),
                        process: process.and_then(|pid| pid.try_into().ok()).unwrap_or(0),
                    },
                };
                Ok(Connection {
                    stream: Box::new(stream),
                    security: Security::Local,
                    peer,
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unix(path: &Path) -> ListenAddress {
        ListenAddress::Unix(path.to_owned())
    }

    #[test]
    fn port_zero_becomes_a_real_port() {
        let address = "127.0.0.1:0".parse().expect("it is well formed");
        let listener = Listener::bind(&address).expect("some port is free");
        assert!(matches!(
            listener.address(),
            ListenAddress::Tcp { port: 1.., .. }
        ));
    }

    #[test]
    fn a_port_in_use_is_named() {
        let any = "127.0.0.1:0".parse().expect("it is well formed");
        let first = Listener::bind(&any).expect("some port is free");
        let error = Listener::bind(first.address()).expect_err("it is taken");
        assert!(matches!(&error, ListenError::InUse(a) if a == first.address()));
    }

    #[test]
    fn a_unix_socket_is_private_and_goes_with_its_listener() {
        let folder = tempfile::tempdir().expect("there is a temporary folder");
        let path = folder.path().join("s");
        let listener = Listener::bind(&unix(&path)).expect("the path is free");
        let mode = std::fs::metadata(&path)
            .expect("it exists")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().expect("there is a temporary folder");
        let path = folder.path().join("s");
        drop(UnixListener::bind(&path).expect("the path is free"));
        let live = Listener::bind(&unix(&path)).expect("nobody listens any more");
        assert!(matches!(
            Listener::bind(&unix(&path)),
            Err(ListenError::InUse(_))
        ));
        drop(live);
    }

    #[test]
    fn a_plain_file_is_never_replaced() {
        let folder = tempfile::tempdir().expect("there is a temporary folder");
        let path = folder.path().join("s");
        std::fs::write(&path, "precious").expect("the folder is writable");
        assert!(matches!(
            Listener::bind(&unix(&path)),
            Err(ListenError::NotASocket(_))
        ));
        assert_eq!(
            std::fs::read_to_string(&path).ok().as_deref(),
            Some("precious")
        );
    }

    #[test]
    fn a_socket_that_was_replaced_is_left_alone() {
        let folder = tempfile::tempdir().expect("there is a temporary folder");
        let path = folder.path().join("s");
        let old = Listener::bind(&unix(&path)).expect("the path is free");
        std::fs::rename(&path, folder.path().join("old")).expect("it can be moved");
        let _new = Listener::bind(&unix(&path)).expect("the path is free again");
        drop(old);
        assert!(path.exists());
    }
}
