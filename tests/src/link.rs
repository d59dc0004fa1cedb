//! A shaped link: two network namespaces, and what is between them.

use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::process::Process;

/// The server's address on a link.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// The client's address on a link.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);

/// What a link does to packets, each way.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// How long each packet takes, beside its time on the wire.
    pub delay: Duration,
    /// Bits a second on the wire.
    pub rate: u64,
    /// Packets that are kept; more are dropped.
    pub limit: usize,
}

impl Shape {
    /// A round trip of 80 ms, 10 Mbit/s, and the queue that netem has if not told otherwise.
    pub const WAN: Self = Self {
        delay: Duration::from_millis(40),
        rate: 10_000_000,
        limit: 1000,
    };

    /// Both ways' delay.
    pub fn round_trip(&self) -> Duration {
        self.delay * 2
    }

    /// How long a packet of this many bytes keeps the wire busy.
    pub fn wire_time(&self, bytes: usize) -> Duration {
        Duration::from_nanos(bytes as u64 * 8 * 1_000_000_000 / self.rate.max(1))
    }

    fn arguments(&self) -> [String; 6] {
        [
            "--delay-us".to_owned(),
            self.delay.as_micros().to_string(),
            "--rate-bps".to_owned(),
            self.rate.to_string(),
            "--limit".to_owned(),
            self.limit.to_string(),
        ]
    }

    /// The shape that the shaper's command line describes.
    ///
    /// # Errors
    /// Says which argument is wrong.
    pub fn from_arguments(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut shape = Self::WAN;
        while let Some(name) = arguments.next() {
            let value = arguments.next().and_then(|text| text.parse::<u64>().ok());
            let value = value.ok_or_else(|| format!("{name} needs a number"))?;
            match name.as_str() {
                "--delay-us" => shape.delay = Duration::from_micros(value),
                "--rate-bps" => shape.rate = value,
                "--limit" => shape.limit = value as usize,
                _ => return Err(format!("there is no option {name}")),
            }
        }
        Ok(shape)
    }
}

/// A link that is there for as long as this value.
#[derive(Debug)]
pub struct Link {
    shaper: Process,
    kind: String,
    server: PathBuf,
    client: PathBuf,
}

impl Link {
    /// Makes a link.
    ///
    /// # Panics
    /// If the `shaper` program, which is built with the tests, can't make one.
    pub fn new(shape: Shape) -> Self {
        let mut command = Command::new(shaper());
        command
            .args(shape.arguments())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut shaper = Process::start(&mut command);
        let mut line = String::new();
        let said = shaper.child().stdout.take().unwrap();
        BufReader::new(said).read_line(&mut line).unwrap();
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let [kind @ ("netem" | "tun"), server, client] = words[..] else {
            panic!("the shaper makes no link: {line}");
        };
        Self {
            kind: kind.to_owned(),
            server: server.into(),
            client: client.into(),
            shaper,
        }
    }

    /// What shapes it: `netem`, or `tun` where the kernel lacks that.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// A command that runs `program` at the server's end.
    pub fn at_server(&self, program: impl Into<PathBuf>) -> Command {
        self.inside(&self.server, program.into())
    }

    /// A command that runs `program` at the client's end.
    pub fn at_client(&self, program: impl Into<PathBuf>) -> Command {
        self.inside(&self.client, program.into())
    }

    fn inside(&self, namespace: &Path, program: PathBuf) -> Command {
        let mut command = Command::new("nsenter");
        let user = format!("/proc/{}/ns/user", self.shaper.id());
        // Root stays in the user namespace that it is in; others enter the one that owns the link.
        if std::fs::read_link(&user).ok() != std::fs::read_link("/proc/self/ns/user").ok() {
            command.arg(format!("--user={user}"));
            command.arg("--preserve-credentials");
        }
        command.arg(format!("--net={}", namespace.display()));
        command.arg(program);
        command
    }
}

/// The `shaper` beside this program or this test.
fn shaper() -> PathBuf {
    let here = std::env::current_exe().unwrap();
    let mut folders = here.ancestors().skip(1).map(|folder| folder.join("shaper"));
    folders
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("no shaper near {here:?}: `cargo build -p caraway-tests --bins`"))
}
