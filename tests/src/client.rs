//! SPICE clients that others wrote, run without a person.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::picture::Picture;
use crate::process::{Process, run};
use crate::wait::{PATIENCE, wait_for};

/// A connection that takes longer than this has failed.
const SHORT: Duration = Duration::from_secs(20);

/// What spice-gtk's `spicy-screenshot` sees.
///
/// # Panics
/// If it does not connect.
pub fn spicy_screenshot(server: SocketAddr) -> Picture {
    try_spicy_screenshot(server, None).unwrap_or_else(|said| panic!("spicy-screenshot: {said}"))
}

/// What spice-gtk's `spicy-screenshot` sees, with a password or without.
///
/// # Errors
/// What it says if it does not connect.
///
/// # Panics
/// If it does neither for long.
pub fn try_spicy_screenshot(server: SocketAddr, password: Option<&str>) -> Result<Picture, String> {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("screen.ppm");
    let mut command = Command::new("spicy-screenshot");
    command.args(["-h", &server.ip().to_string()]);
    command.args(["-p", &server.port().to_string()]);
    command.args(password.iter().flat_map(|password| ["-w", password]));
    command.arg("-o").arg(&file).env("HOME", folder.path());
    let output = run(&mut command, SHORT);
    if output.status.success() {
        Ok(Picture::from_ppm(&file))
    } else {
        Err(format!("{output:?}"))
    }
}

/// Presses and releases a key (a PC scancode of set 1) through spice-gtk's library.
///
/// # Panics
/// If it does not connect.
pub fn glib_key(server: SocketAddr, scancode: u8) {
    try_glib_key(server, scancode, "", Duration::ZERO)
        .unwrap_or_else(|said| panic!("glib_key.py: {said}"));
}

/// Presses and releases a key (a PC scancode of set 1) through spice-gtk's library, with a password
/// and with all channels but the main one so late.
///
/// # Errors
/// What it says if a channel does not open.
///
/// # Panics
/// If it does neither for long.
pub fn try_glib_key(
    server: SocketAddr,
    scancode: u8,
    password: &str,
    late: Duration,
) -> Result<(), String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/glib_key.py");
    let mut command = Command::new("/usr/bin/python3");
    command
        .arg(script)
        .args([&server.ip().to_string(), &server.port().to_string()]);
    command.args([
        &scancode.to_string(),
        password,
        &late.as_millis().to_string(),
    ]);
    let output = run(&mut command, SHORT);
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{output:?}")),
    }
}

/// What spice-gtk's library made of every channel that a server offers; see `glib_channels.py`.
///
/// # Panics
/// If a channel fails or something does not come in time.
pub fn glib_channels(server: SocketAddr, wanted: &str, options: &[&str]) -> Value {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/glib_channels.py");
    let mut command = Command::new("/usr/bin/python3");
    command
        .arg(script)
        .args([&server.ip().to_string(), &server.port().to_string(), wanted])
        .args(options);
    let output = run(&mut command, PATIENCE);
    assert!(output.status.success(), "glib_channels.py: {output:?}");
    // The library complains of what it finds odd, and goes on.
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What spice-gtk's library made of the display of this channel, once it is still, and what it shows; see
/// `glib_watch.py`.
///
/// # Panics
/// If it does not connect.
pub fn glib_watch(server: SocketAddr, channel: u8) -> (Value, Picture) {
    GlibWatch::start(server, channel).finish()
}

/// What a client asks a server for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wishes {
    /// The number of a video codec.
    pub codec: Option<u8>,
    /// The number of an image compression.
    pub compression: Option<u8>,
}

/// spice-gtk's library, watching a display; see `glib_watch.py`.
#[derive(Debug)]
pub struct GlibWatch {
    process: Process,
    folder: TempDir,
}

impl GlibWatch {
    /// Connects and watches the display of this channel.
    pub fn start(server: SocketAddr, channel: u8) -> Self {
        Self::start_with(server, channel, Wishes::default())
    }

    /// As [`start`](Self::start), with wishes.
    pub fn start_with(server: SocketAddr, channel: u8, wishes: Wishes) -> Self {
        let folder = TempDir::new().unwrap();
        let file = |name: &str| File::create(folder.path().join(name)).unwrap();
        let mut command = Command::new("/usr/bin/python3");
        command
            .arg("-B")
            .arg(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/clients/glib_watch.py"
            ))
            .args([&server.ip().to_string(), &server.port().to_string()])
            .arg(folder.path().join("screen.ppm"))
            .arg(channel.to_string())
            .args([wishes.codec, wishes.compression].map(|wish| wish.unwrap_or(0).to_string()))
            .envs([("SPICE_DEBUG", "1"), ("G_MESSAGES_DEBUG", "all")])
            .stdin(Stdio::piped())
            .stdout(file("out"))
            .stderr(file("err"));
        let process = Process::start(&mut command);
        Self { process, folder }
    }

    /// All that the library said so far of what it does.
    pub fn log(&self) -> String {
        // With its reasons, GLib's own words come on standard output.
        let read = |name: &str| std::fs::read(self.folder.path().join(name)).unwrap();
        String::from_utf8_lossy(&[read("out"), read("err")].concat()).into_owned()
    }

    /// What it shows now, be it a picture of a stream.
    ///
    /// # Panics
    /// If it does not say.
    pub fn snapshot(&mut self) -> Picture {
        let file = self.folder.path().join("now.ppm");
        let stdin = self.process.child().stdin.as_mut().unwrap();
        writeln!(stdin, "{}", file.display()).unwrap();
        let picture = wait_for("a picture of the moment", || {
            file.exists().then(|| Picture::from_ppm(&file))
        });
        std::fs::remove_file(file).unwrap();
        picture
    }

    /// Waits until the display is still: what the library made of it, and what it shows.
    ///
    /// # Panics
    /// If it did not connect.
    pub fn finish(&mut self) -> (Value, Picture) {
        drop(self.process.child().stdin.take());
        let status = self.process.wait(PATIENCE);
        let log = self.log();
        assert!(status.is_some_and(|status| status.success()), "{log}");
        let report = log.lines().find(|line| line.starts_with('{')).unwrap();
        let picture = Picture::from_ppm(&self.folder.path().join("screen.ppm"));
        (serde_json::from_str(report).unwrap(), picture)
    }
}

/// Opens main, display and inputs channel by TLS through spice-gtk's library, which wants the
/// certificate to have this subject.
///
/// # Errors
/// Which channel failed, and how.
pub fn glib_open(server: SocketAddr, ca: &Path, subject: &str) -> Result<(), String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/glib_open.py");
    let mut command = Command::new("/usr/bin/python3");
    command
        .arg(script)
        .args([&server.ip().to_string(), &server.port().to_string()])
        .arg(ca)
        .arg(subject);
    let output = run(&mut command, SHORT);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() {
        Ok(())
    } else {
        Err(said)
    }
}

/// ryll, headless, driven through its control socket.
#[derive(Debug)]
pub struct Ryll {
    process: Process,
    folder: TempDir,
    control: BufReader<UnixStream>,
    last_id: u64,
}

impl Ryll {
    /// Connects and waits for a picture; what it can't draw is noted as a gap.
    ///
    /// # Panics
    /// If it does not connect.
    pub fn connect(server: SocketAddr) -> Self {
        Self::connect_with(server, &[])
    }

    /// As [`connect`](Self::connect), with more arguments.
    ///
    /// # Panics
    /// If it does not connect.
    pub fn connect_with(server: SocketAddr, arguments: &[&OsStr]) -> Self {
        let connection = format!(
            "[virt-viewer]\ntype=spice\nhost={}\nport={}\n",
            server.ip(),
            server.port()
        );
        Self::open_with(&connection, arguments)
    }

    /// Connects by this connection file and waits for a picture.
    ///
    /// # Panics
    /// If it does not connect.
    pub fn open(connection: &str) -> Self {
        Self::open_with(connection, &[])
    }

    /// As [`open`](Self::open), with more arguments.
    ///
    /// # Panics
    /// If it does not connect.
    pub fn open_with(connection: &str, arguments: &[&OsStr]) -> Self {
        let (process, folder) = Self::launch(connection, arguments);
        let control = wait_for("ryll's control socket", || {
            UnixStream::connect(folder.path().join("control")).ok()
        });
        control.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut ryll = Self {
            process,
            folder,
            control: BufReader::new(control),
            last_id: 0,
        };
        ryll.ask(
            "hello",
            json!({ "client_name": "tests", "protocol_version": "1.0" }),
        );
        wait_for("a surface in ryll", || {
            let status = ryll.ask("status", json!({}));
            (!status["surfaces"].as_array()?.is_empty()).then_some(())
        });
        ryll
    }

    /// Tries to connect by this connection file, which must fail.
    ///
    /// # Panics
    /// If it does not give up.
    pub fn assert_refused(connection: &str) {
        let (mut process, folder) = Self::launch(connection, &[]);
        let status = process.wait(PATIENCE);
        let log = std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
        assert!(
            status.is_some_and(|status| !status.success()),
            "{status:?}: {log}"
        );
    }

    fn launch(connection: &str, arguments: &[&OsStr]) -> (Process, TempDir) {
        let folder = TempDir::new().unwrap();
        let file = |name: &str| folder.path().join(name);
        std::fs::write(file("c.vv"), connection).unwrap();
        let log = std::fs::File::create(file("log")).unwrap();
        let mut command = Command::new(cache().join("venv/bin/ryll"));
        command
            .args(["--headless", "--pedantic", "--file"])
            .arg(file("c.vv"))
            .arg("--control-socket")
            .arg(file("control"))
            .arg("--pedantic-dir")
            .arg(file("gaps"))
            .args(arguments)
            .env("HOME", folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        (Process::start(&mut command), folder)
    }

    fn ask(&mut self, method: &str, parameters: Value) -> Value {
        self.last_id += 1;
        let request = json!({ "id": self.last_id, "method": method, "params": parameters });
        if let Err(error) = writeln!(self.control.get_mut(), "{request}") {
            panic!("ryll is gone: {error}\n{}", self.log());
        }
        loop {
            let mut line = String::new();
            let read = self.control.read_line(&mut line);
            assert!(
                read.is_ok_and(|read| read > 0),
                "ryll is gone: {}",
                self.log()
            );
            let answer: Value = serde_json::from_str(&line).unwrap();
            // Events have no id.
            if answer["id"] == self.last_id {
                assert_eq!(answer["ok"], true, "{method}: {answer}");
                return answer["result"].clone();
            }
        }
    }

    /// What it shows.
    pub fn screenshot(&mut self) -> Picture {
        let answer = self.ask("screenshot", json!({ "surface_id": 0, "format": "png" }));
        Picture::from_png(&decode_base64(answer["data_base64"].as_str().unwrap()))
    }

    /// Presses and releases a key, a PC scancode of set 1.
    pub fn press(&mut self, scancode: u8) {
        self.ask(
            "send_key",
            json!({ "scancode": scancode, "state": "press" }),
        );
    }

    /// Stops it where it is, so that it reads no more.
    pub fn stop(&self) {
        self.process.stop();
    }

    /// Waits until it knows of the guest's agent.
    pub fn wait_for_agent(&mut self) {
        wait_for("an agent in ryll", || {
            let status = self.ask("status", json!({}));
            (status["agent_connected"] == true).then_some(())
        });
    }

    /// Offers `text` to the guest.
    pub fn set_clipboard(&mut self, text: &str) {
        self.ask("clipboard_set", json!({ "text": text }));
    }

    /// Waits until it has got `text` from the guest's clipboard.
    pub fn wait_for_clipboard(&mut self, text: &str) {
        wait_for("the guest's clipboard in ryll", || {
            let answer = self.ask("clipboard_get", json!({}));
            (answer["text"] == text).then_some(())
        });
    }

    /// Asks for a monitor of this size, of which it makes multiples of eight.
    pub fn resize(&mut self, width: u32, height: u32) {
        self.ask("resize", json!({ "width": width, "height": height }));
    }

    /// Whether it is still connected.
    pub fn is_connected(&mut self) -> bool {
        self.process.status().is_none() && self.ask("status", json!({}))["spice_connected"] == true
    }

    /// The reports of what it met in the protocol and can't do.
    pub fn gaps(&self) -> Vec<PathBuf> {
        let folder = std::fs::read_dir(self.folder.path().join("gaps"));
        folder
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect()
    }

    /// What it said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

/// virt-viewer's remote-viewer on an X server of its own.
#[derive(Debug)]
pub struct RemoteViewer {
    viewer: Process,
    _display: Process,
    name: String,
    folder: TempDir,
}

impl RemoteViewer {
    /// Opens a viewer.
    ///
    /// # Panics
    /// If there is no X server for it.
    pub fn connect(server: SocketAddr) -> Self {
        Self::start(|_| format!("spice://{server}"))
    }

    /// Opens a viewer by this connection file.
    ///
    /// # Panics
    /// If there is no X server for it.
    pub fn open(connection: &str) -> Self {
        Self::start(|folder| {
            let file = folder.join("c.vv");
            std::fs::write(&file, connection).unwrap();
            file.display().to_string()
        })
    }

    fn start(target: impl FnOnce(&Path) -> String) -> Self {
        let folder = TempDir::new().unwrap();
        let mut xvfb = Command::new("Xvfb");
        xvfb.args([
            "-displayfd",
            "1",
            "-screen",
            "0",
            "1280x1024x24",
            "-nolisten",
            "tcp",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
        let mut display = Process::start(&mut xvfb);
        let mut number = String::new();
        let pipe = display.child().stdout.take().unwrap();
        BufReader::new(pipe).read_line(&mut number).unwrap();
        let name = format!(":{}", number.trim());
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let mut viewer = Command::new("remote-viewer");
        viewer
            .args(["--zoom=100", &target(folder.path())])
            .env("DISPLAY", &name)
            .env("GDK_BACKEND", "x11")
            .env("NO_AT_BRIDGE", "1")
            .env("HOME", folder.path())
            .env("XDG_RUNTIME_DIR", folder.path())
            // Where there is no sound card OpenAL says so at length, as if that were wrong.
            .env("GST_PLUGIN_FEATURE_RANK", "openalsink:NONE,openalsrc:NONE")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let viewer = Process::start(&mut viewer);
        Self {
            viewer,
            _display: display,
            name,
            folder,
        }
    }

    /// Waits until `picture` is in its window, to the pixel.
    ///
    /// # Panics
    /// If it never is.
    pub fn wait_for(&self, picture: &Picture) {
        wait_for("the picture in remote-viewer", || {
            picture.is_within(&self.screen()).then_some(())
        });
    }

    /// Whether it is still there.
    pub fn is_running(&mut self) -> bool {
        self.viewer.status().is_none()
    }

    /// What it complained of.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// All of its X server's screen.
    fn screen(&self) -> Picture {
        let file = self.folder.path().join("screen.ppm");
        let mut import = Command::new("import");
        import
            .args(["-window", "root", "-depth", "8"])
            .arg(&file)
            .env("DISPLAY", &self.name);
        let output = run(&mut import, SHORT);
        assert!(output.status.success(), "import: {output:?}");
        Picture::from_ppm(&file)
    }
}

/// What is built or fetched once: `CARAWAY_CACHE`, or its place in the home folder.
pub fn cache() -> PathBuf {
    std::env::var_os("CARAWAY_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/caraway"),
        PathBuf::from,
    )
}

pub(crate) fn decode_base64(text: &str) -> Vec<u8> {
    let digit = |byte| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let digits: Vec<u8> = text
        .bytes()
        .filter(|byte| *byte != b'=')
        .map(digit)
        .collect();
    let bits = |four: &[u8]| {
        four.iter()
            .fold(0_u32, |bits, digit| bits << 6 | u32::from(*digit))
    };
    digits
        .chunks(4)
        .flat_map(|four| {
            let missing = 4 - four.len();
            let bytes = (bits(four) << (6 * missing)).to_be_bytes();
            bytes[1..4 - missing].to_vec()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_every_length_is_decoded() {
        for (text, bytes) in [
            ("", ""),
            ("TQ==", "M"),
            ("TWE=", "Ma"),
            ("TWFu", "Man"),
            ("TWFuTQ==", "ManM"),
        ] {
            assert_eq!(decode_base64(text), bytes.as_bytes());
        }
    }
}
