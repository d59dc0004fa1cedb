//! What a recorded desktop costs: each recording is played by Caraway's example and by a program
//! around the reference server, one after the other, to the same client at the same pace.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Output, Stdio};
use std::time::Duration;

use caraway_tests::latency::PYTHON;
use caraway_tests::picture::Picture;
use caraway_tests::process::{Process, cpu_of_children, run};
use caraway_tests::vm::caraway;
use serde::Deserialize;
use tempfile::TempDir;

use crate::viewing::free_port;

/// Each recording is played so often to each server; the middle one counts.
const ROUNDS: usize = 3;
/// Between two commands.
const DELAY_MS: u32 = 10;
/// The longest recording: the pace may be slower than wished for on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_secs(60);
/// The window of `zstd --long=31`, the largest.
const ZSTD_WINDOW_LOG: u32 = 31;

/// Plays a recording to one SPICE client: says `listening`, how many `commands` there were, and ends
/// when the client leaves.
trait Player {
    const NAME: &str;

    fn command(&self, recording: &Path, address: SocketAddr) -> Command;
}

/// `qxl/examples/replay`, beside the program.
struct Ours {
    program: PathBuf,
    /// Where it writes what its canvas shows at the end.
    canvas: PathBuf,
}

/// `tests/servers/reference_replay.c`.
struct Reference {
    program: PathBuf,
}

impl Player for Ours {
    const NAME: &str = "caraway";

    fn command(&self, recording: &Path, address: SocketAddr) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(recording).args(["--wait-client", "--listen"]);
        command.arg(address.to_string());
        command.args(["--delay", &format!("{DELAY_MS}ms"), "--quiet", "60s"]);
        command.arg("--save").arg(&self.canvas);
        command
    }
}

impl Player for Reference {
    const NAME: &str = "reference";

    fn command(&self, recording: &Path, address: SocketAddr) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(recording).arg(address.port().to_string());
        command.arg(DELAY_MS.to_string());
        command
    }
}

impl Reference {
    /// Compiles it.
    fn build(folder: &Path) -> io::Result<Self> {
        let program = folder.join("reference_replay");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/servers/reference_replay.c");
        let mut libraries = Command::new("pkg-config");
        libraries.args(["--cflags", "--libs", "spice-server"]);
        let libraries = succeed(run(&mut libraries, SHORT), "pkg-config")?;
        let libraries = String::from_utf8_lossy(&libraries.stdout).into_owned();
        let mut cc = Command::new("cc");
        cc.args(["-O2", "-std=gnu11", "-Wall", "-Werror", source, "-o"]);
        cc.arg(&program).args(libraries.split_ascii_whitespace());
        succeed(run(cc.arg("-lpthread"), SHORT), "cc")?;
        Ok(Self { program })
    }
}

fn succeed(output: Output, what: &str) -> io::Result<Output> {
    match output.status.success() {
        true => Ok(output),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(io::Error::other(format!("{what}: {}", said.trim_end())))
        }
    }
}

/// What the client says.
#[derive(Deserialize)]
struct Seen {
    seconds: f64,
    bytes: f64,
}

/// One playing of a recording.
struct Round {
    seen: Seen,
    /// What the server said of its commands.
    said: String,
    cpu: Duration,
    picture: Picture,
}

/// The middle of several.
struct Row {
    bytes: f64,
    cpu_ms: f64,
    seconds: f64,
}

impl Row {
    fn of(rounds: &[Round]) -> Self {
        let middle = |value: &dyn Fn(&Round) -> f64| {
            let mut values: Vec<f64> = rounds.iter().map(value).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
        };
        Self {
            bytes: middle(&|round| round.seen.bytes),
            cpu_ms: middle(&|round| round.cpu.as_secs_f64() * 1000.0),
            seconds: middle(&|round| round.seen.seconds),
        }
    }

    fn print(&self, name: &str) {
        let Self {
            bytes,
            cpu_ms,
            seconds,
        } = self;
        println!("{name:<10} {bytes:>12.0} {cpu_ms:>9.0} ms {seconds:>10.2} s");
    }
}

/// Every recording in turn.
///
/// # Errors
/// There is none, something can't be built or started, or a client of ours sees other pixels than
/// the canvas has.
pub fn bench() -> io::Result<()> {
    let folder = TempDir::new()?;
    let ours = Ours {
        program: caraway().with_file_name("examples").join("replay"),
        canvas: folder.path().join("canvas.ppm"),
    };
    let reference = Reference::build(folder.path())?;
    println!(
        "{DELAY_MS} ms after each command; the middle of {ROUNDS} rounds; CPU of the server alone, its\n\
         RSA keys included: one for all links here, one for each there\n"
    );
    for path in recordings()? {
        let recording = unpack(&path, folder.path())?;
        let (mut us, mut them) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            us.push(play(&ours, &recording, folder.path())?);
            them.push(play(&reference, &recording, folder.path())?);
        }
        let name = path.file_name().unwrap_or_default().display();
        let canvas = Picture::from_ppm(&ours.canvas);
        println!("{name}, {}×{} at the end:", canvas.width, canvas.height);
        print(&Row::of(&us), &Row::of(&them));
        if let Some(Round { said, .. }) = us.last() {
            println!("display    {said}");
        }
        compare(&canvas, &us, &them)?;
        // Unpacked, recordings are large.
        if recording != path {
            fs::remove_file(recording)?;
        }
    }
    Ok(())
}

/// The recordings in `RECORDINGS`, or else our own, by name.
fn recordings() -> io::Result<Vec<PathBuf>> {
    let ours = concat!(env!("CARGO_MANIFEST_DIR"), "/recordings");
    let folder = std::env::var_os("RECORDINGS").unwrap_or_else(|| ours.into());
    let files: io::Result<Vec<PathBuf>> = fs::read_dir(&folder)
        .map_err(|error| io::Error::other(format!("{}: {error}", folder.display())))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect();
    let is_recording = |path: &PathBuf| {
        let name = path.to_string_lossy();
        name.ends_with(".rec") || name.ends_with(".rec.zst")
    };
    let mut files: Vec<PathBuf> = files?.into_iter().filter(is_recording).collect();
    files.sort();
    match files.is_empty() {
        true => Err(io::Error::other(format!(
            "no *.rec or *.rec.zst in {}; RECORDINGS names another folder",
            folder.display()
        ))),
        false => Ok(files),
    }
}

/// The recording as text, which is all that the reference reads; neither server unpacks anything
/// while it is measured.
fn unpack(recording: &Path, folder: &Path) -> io::Result<PathBuf> {
    if recording.extension().is_none_or(|end| end != "zst") {
        return Ok(recording.to_owned());
    }
    let unpacked = folder.join("unpacked.rec");
    let mut decoder = zstd::Decoder::new(File::open(recording)?)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG)?;
    io::copy(&mut decoder, &mut File::create(&unpacked)?)?;
    Ok(unpacked)
}

fn play<P: Player>(player: &P, recording: &Path, folder: &Path) -> io::Result<Round> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    let picture = folder.join("client.ppm");
    let mut command = player.command(recording, address);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command.stderr(File::create(folder.join("server.log"))?);
    let mut server = Process::start(&mut command);
    let gone = || {
        let said = fs::read_to_string(folder.join("server.log")).unwrap_or_default();
        io::Error::other(format!("the {} ended: {}", P::NAME, said.trim_end()))
    };
    let mut said = BufReader::new(server.child().stdout.take().ok_or_else(gone)?);
    wait_for_line(&mut said, "listening")?.ok_or_else(gone)?;

    let mut client = Command::new(PYTHON);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/glib_watch.py");
    client.args([
        script,
        &address.ip().to_string(),
        &address.port().to_string(),
    ]);
    client
        .arg(&picture)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut client = Process::start(&mut client);
    let commands = wait_for_line(&mut said, "commands")?.ok_or_else(gone)?;
    // Its end is what the client waits for.
    drop(client.child().stdin.take());
    let answer = client.child().stdout.take().map(io::read_to_string);
    let status = client.wait(SHORT);
    if !status.is_some_and(|status| status.success()) {
        let error = format!("the client of the {} failed: {status:?}", P::NAME);
        return Err(io::Error::other(error));
    }
    let seen = serde_json::from_str(&answer.transpose()?.unwrap_or_default())?;

    // Nothing else is waited for meanwhile.
    let before = cpu_of_children()?;
    server.wait(PATIENCE).ok_or_else(gone)?;
    Ok(Round {
        seen,
        said: commands,
        cpu: cpu_of_children()?.saturating_sub(before),
        picture: Picture::from_ppm(&picture),
    })
}

/// Reads up to a line that has `word`; `None` if there is none.
fn wait_for_line(said: &mut BufReader<ChildStdout>, word: &str) -> io::Result<Option<String>> {
    let mut lines = said.lines();
    let wanted = |line: &io::Result<String>| line.as_ref().is_ok_and(|line| line.contains(word));
    lines.find(wanted).transpose()
}

fn print(ours: &Row, theirs: &Row) {
    let head = ["bytes", "CPU", "last pixel"];
    println!("{:<10} {:>12} {:>12} {:>12}", "", head[0], head[1], head[2]);
    ours.print(Ours::NAME);
    theirs.print(Reference::NAME);
    println!(
        "{:<10} {:>12.3} {:>12.3} {:>12.3}",
        "ratio",
        ours.bytes / theirs.bytes,
        ours.cpu_ms / theirs.cpu_ms,
        ours.seconds / theirs.seconds
    );
}

/// Says what differs from the canvas, which is a failure in what a client of ours sees.
fn compare(canvas: &Picture, ours: &[Round], theirs: &[Round]) -> io::Result<()> {
    let worst = |rounds: &[Round]| {
        let differences = rounds.iter().map(|round| differ(&round.picture, canvas));
        differences.flatten().next()
    };
    match worst(theirs) {
        None => println!("pixels     equal at the end\n"),
        Some(difference) => println!("pixels     the reference's client differs {difference}\n"),
    }
    match worst(ours) {
        None => Ok(()),
        Some(difference) => Err(io::Error::other(format!(
            "the client differs from the canvas {difference}"
        ))),
    }
}

fn differ(picture: &Picture, canvas: &Picture) -> Option<String> {
    let size = |picture: &Picture| (picture.width, picture.height);
    if size(picture) != size(canvas) {
        return Some(format!("in size: {:?}", size(picture)));
    }
    Some(picture.difference(canvas)?.to_string())
}
