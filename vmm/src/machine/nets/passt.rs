//! User-mode networking by `passt`, which makes of a guest's frames what any user's program may do: sockets
//! of the host.

use std::io::{self, ErrorKind, Read};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::stream::Stream;
use crate::config::net::{Protocol, UserSpec};

/// The program.
pub const PASST: &str = "passt";
/// How long it may take to start on a busy host.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often it is looked at until then.
const PACE: Duration = Duration::from_millis(2);
/// Of what it says when it fails.
const WORDS: u64 = 4096;

/// Why there is no user-mode network.
#[derive(Debug, thiserror::Error)]
pub enum PasstError {
    /// The program is not there.
    #[error("the program {PASST} is not installed")]
    NotInstalled,
    /// It can't be started.
    #[error("{PASST} can't be started")]
    Start(#[source] io::Error),
    /// It gave up.
    #[error("{PASST} refuses: {0}")]
    Refused(String),
    /// It does nothing.
    #[error("{PASST} is not ready after {} s", PATIENCE.as_secs())]
    Late,
    /// Nobody listens where it should.
    #[error("cannot connect to {PASST} at {}", path.display())]
    Connect {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl PasstError {
    /// The key of the config that named it.
    #[must_use]
    pub fn key(&self) -> &'static str {
        match self {
            Self::Connect { .. } => "passt",
            Self::NotInstalled | Self::Start(_) | Self::Refused(_) | Self::Late => "user",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::NotInstalled => {
                format!("install it (apt install {PASST}), or join the card to a tap")
            }
            Self::Refused(_) => {
                "it needs an interface of the host with a default route, and host ports \
                that are free and, below 1024, allowed"
                    .to_owned()
            }
            Self::Connect { path, .. } => {
                format!("start it first: {PASST} --socket {}", path.display())
            }
            Self::Start(_) | Self::Late => {
                format!("see whether `{PASST} --foreground` works by itself")
            }
        }
    }
}

/// A `passt`, and how one gets to it.
#[derive(Debug, Clone)]
pub enum Passt {
    /// One of our own, which ends when its end of the connection does, however this program ends.
    Own {
        /// What it is to do.
        spec: UserSpec,
        /// The longest packet, in bytes.
        mtu: Option<u16>,
    },
    /// One that listens on this socket.
    Running(PathBuf),
}

impl Passt {
    /// Starts it and waits until it is ready, or connects to it.
    ///
    /// # Errors
    /// [`PasstError`].
    pub fn join(&self) -> Result<Stream, PasstError> {
        match self {
            Self::Own { spec, mtu } => start(spec, *mtu),
            Self::Running(path) => connect(path).map_err(|source| PasstError::Connect {
                path: path.clone(),
                source,
            }),
        }
    }
}

/// Never waits: a listener that has too many waiting for it is as good as none.
fn connect(path: &Path) -> io::Result<Stream> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Stream::new(socket.into())
}

fn start(spec: &UserSpec, mtu: Option<u16>) -> Result<Stream, PasstError> {
    let (ours, theirs) = UnixStream::pair().map_err(PasstError::Start)?;
    let mut command = Command::new(PASST);
    command
        .args(arguments(spec, mtu))
        .arg("--fd")
        .arg(theirs.as_raw_fd().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let inherited = theirs.as_raw_fd();
    // SAFETY: between fork and exec only flags of descriptors change.
    unsafe {
        command.pre_exec(move || {
            // What libraries or whoever started us left open is none of its business. Kernels before
            // 5.11 have no such call.
            let (first, flag) = (3_u32, libc::CLOSE_RANGE_CLOEXEC);
            libc::syscall(libc::SYS_close_range, first, u32::MAX, flag);
            match libc::fcntl(inherited, libc::F_SETFD, 0) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        });
    }
    let spawned = command.spawn();
    let mut child = spawned.map_err(|error| match error.kind() {
        ErrorKind::NotFound => PasstError::NotInstalled,
        _ => PasstError::Start(error),
    })?;
    drop(OwnedFd::from(theirs));
    // It goes into the background once it is ready.
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait().map_err(PasstError::Start)? {
            Some(status) => break status,
            None if Instant::now() >= deadline => {
                // It ends with our end of the connection, too.
                let _ = child.kill().and_then(|()| child.wait());
                return Err(PasstError::Late);
            }
            None => std::thread::sleep(PACE),
        }
    };
    if status.success() {
        return Stream::new(ours).map_err(PasstError::Start);
    }
    let mut words = String::new();
    if let Some(said) = child.stderr.take() {
        // What can't be read is not told.
        let _ = said.take(WORDS).read_to_string(&mut words);
    }
    Err(PasstError::Refused(match reason(&words) {
        reason if reason.is_empty() => status.to_string(),
        reason => reason,
    }))
}

/// What of its words tells why it gave up.
fn reason(words: &str) -> String {
    // On a host without a system log it says so for each line; its user is as it should be.
    const BESIDE: [&str; 2] = ["Failed to send", "Don't run as root"];
    let lines = words.lines().map(str::trim);
    let lines =
        lines.filter(|line| !line.is_empty() && !BESIDE.iter().any(|b| line.starts_with(b)));
    lines.collect::<Vec<_>>().join("; ")
}

fn arguments(spec: &UserSpec, mtu: Option<u16>) -> Vec<String> {
    let mut arguments = vec!["--quiet".to_owned()];
    if !spec.host_access {
        arguments.push("--no-map-gw".to_owned());
    }
    if let Some(mtu) = mtu {
        arguments.extend(["--mtu".to_owned(), mtu.to_string()]);
    }
    for forward in &spec.forwards {
        let option = match forward.protocol {
            Protocol::Tcp => "--tcp-ports",
            Protocol::Udp => "--udp-ports",
        };
        arguments.extend([option.to_owned(), ports(forward.host, forward.guest)]);
    }
    arguments
}

fn ports(host: SocketAddr, guest: u16) -> String {
    format!("{}/{}:{guest}", host.ip(), host.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::net::Forward;

    #[test]
    fn a_guest_gets_what_the_config_says_and_not_the_host() {
        let forward = |protocol, host: &str, guest| Forward {
            protocol,
            host: host.parse().unwrap(),
            guest,
        };
        let spec = UserSpec {
            forwards: vec![
                forward(Protocol::Tcp, "127.0.0.1:2222", 22),
                forward(Protocol::Udp, "[::1]:5353", 53),
            ],
            host_access: false,
        };

        let arguments = arguments(&spec, Some(1400)).join(" ");

        assert_eq!(
            arguments,
            "--quiet --no-map-gw --mtu 1400 --tcp-ports 127.0.0.1/2222:22 --udp-ports ::1/5353:53"
        );
    }

    #[test]
    fn a_refusal_tells_the_reason_alone() {
        let words = "Failed to send 47 bytes to syslog\nDon't run as root. Changing to nobody...\n\
                     Failed to bind any port for '-t 127.0.0.1/22:22', exiting\n\n";

        assert_eq!(
            reason(words),
            "Failed to bind any port for '-t 127.0.0.1/22:22', exiting"
        );
    }

    #[test]
    fn a_socket_that_nobody_takes_connections_of_holds_nothing_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passt");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();

        let mut held = Vec::new();
        let refused = loop {
            match connect(&path) {
                Ok(stream) => held.push(stream),
                Err(error) => break error,
            }
        };

        assert_eq!(refused.kind(), ErrorKind::WouldBlock);
    }
}
