//! Network namespaces with taps in them, for whoever is allowed to make them.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::process::{Process, run};

/// The host's address in a namespace; the bare guest's is the next.
pub const HOST: &str = "10.9.0.1";
/// The bare guest's address.
pub const GUEST: &str = "10.9.0.2";

/// A network namespace that is there for as long as this value.
#[derive(Debug)]
pub struct Netns {
    holder: Process,
}

impl Netns {
    /// A namespace with nothing but a loopback interface, and what the lines of shell in `set_up` make.
    ///
    /// # Panics
    /// If one of them fails.
    pub fn new(set_up: &str) -> Self {
        let mut command = Command::new("unshare");
        // SAFETY: it only asks.
        if unsafe { libc::geteuid() } != 0 {
            command.arg("--map-root-user");
        }
        let script = format!("set -e; ip link set lo up; {set_up}\necho ready; exec cat");
        command
            .args(["--net", "sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut holder = Process::start(&mut command);
        let said = holder.child().stdout.take().unwrap();
        let mut line = String::new();
        BufReader::new(said).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "{set_up}");
        Self { holder }
    }

    /// A namespace with the tap `tap0` of the address [`HOST`].
    pub fn with_tap(options: &str) -> Self {
        Self::new(&format!(
            "ip tuntap add tap0 mode tap {options}; ip addr add {HOST}/24 dev tap0; \
             ip link set tap0 up"
        ))
    }

    /// A command that runs `program` there with `tap0` open as its descriptor 9.
    pub fn command_with_tap(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let open = "import fcntl, os, struct, sys\n\
            tap = os.open('/dev/net/tun', os.O_RDWR)\n\
            fcntl.ioctl(tap, 0x400454ca, struct.pack('16sH22x', b'tap0', 0x5002))\n\
            os.dup2(tap, 9)\n\
            os.execv(sys.argv[1], sys.argv[1:])";
        let mut command = self.command("/usr/bin/python3");
        command.args(["-c", open]).arg(program);
        command
    }

    /// A command that runs `program` there.
    pub fn command(&self, program: impl Into<PathBuf>) -> Command {
        let mut command = Command::new("nsenter");
        let namespace = |kind: &str| format!("/proc/{}/ns/{kind}", self.holder.id());
        let own = std::fs::read_link("/proc/self/ns/user").ok();
        if std::fs::read_link(namespace("user")).ok() != own {
            command.arg(format!("--user={}", namespace("user")));
            command.arg("--preserve-credentials");
        }
        command.arg(format!("--net={}", namespace("net")));
        command.arg(program.into());
        command
    }

    /// Runs a line of shell there; what it said.
    ///
    /// # Panics
    /// If it fails.
    pub fn shell(&self, line: &str) -> String {
        let mut command = self.command("sh");
        let output = run(command.args(["-ec", line]), Duration::from_secs(30));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{line}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Sends datagrams of these sizes to an echo port; the sizes that came back, each after at most
    /// `patience`. A size of 0 tells the bare guest to end.
    pub fn echo(&self, to: (&str, u16), patience: Duration, sizes: &[usize]) -> Vec<Option<usize>> {
        let mut command = self.command("/usr/bin/python3");
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/clients/udp_echo.py"));
        command.args([to.0, &to.1.to_string(), &patience.as_secs_f64().to_string()]);
        command.args(sizes.iter().map(ToString::to_string));
        let whole = (patience + Duration::from_secs(1)) * sizes.len() as u32;
        let output = run(&mut command, whole + Duration::from_secs(20));
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        lines.lines().map(|line| line.parse().ok()).collect()
    }
}
