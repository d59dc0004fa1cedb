//! A machine under the built program.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::api::Api;
use crate::guest;
use crate::picture::Picture;
use crate::process::Process;
use crate::wait::{PATIENCE, wait_for};

/// The built program: `CARAWAY_BIN`, or the newest in the target folder that this test is in.
///
/// # Panics
/// If it is nowhere.
pub fn caraway() -> PathBuf {
    if let Some(path) = std::env::var_os("CARAWAY_BIN") {
        return path.into();
    }
    let here = std::env::current_exe().unwrap();
    let profiles = here
        .ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").exists());
    let target = profiles.expect("tests are built into a target folder");
    ["release", "debug"]
        .map(|profile| target.join(profile).join("caraway"))
        .into_iter()
        .filter(|path| path.exists())
        .max_by_key(|path| path.metadata().and_then(|data| data.modified()).ok())
        .unwrap_or_else(|| panic!("no caraway in {target:?}: `make build` makes it"))
}

/// A machine that runs; it ends with this value, and its folder with it.
#[derive(Debug)]
pub struct Vm {
    process: Process,
    folder: TempDir,
    api: Api,
}

impl Vm {
    /// Runs `config` and waits until the API answers.
    pub fn start(config: &Value) -> Self {
        let vm = Self::start_with(config, &[]);
        wait_for("the API", || vm.api.ask("GET", "vm.info", "").ok());
        vm
    }

    /// Runs `config` with more arguments, and does not wait.
    pub fn start_with(config: &Value, arguments: &[&str]) -> Self {
        Self::start_by(Command::new(caraway()), config, arguments)
    }

    /// Runs `config` with more arguments, and does not wait; `command` starts [`caraway`], wherever
    /// it is to run.
    pub fn start_by(mut command: Command, config: &Value, arguments: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let config_file = folder.path().join("vm.json");
        fs::write(&config_file, config.to_string()).unwrap();
        let socket = folder.path().join("api");
        command.arg("run");
        if !arguments.contains(&"--timeout") {
            command.args(["--timeout", "120s"]);
        }
        command
            .arg(&config_file)
            .arg("--api")
            .arg(&socket)
            .arg("--serial-file")
            .arg(folder.path().join("serial"))
            .args(arguments)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(File::create(folder.path().join("stdout")).unwrap())
            .stderr(File::create(folder.path().join("stderr")).unwrap());
        Self {
            process: Process::start(&mut command),
            folder,
            api: Api::new(socket),
        }
    }

    /// The bare guest with this command line and more of a config.
    pub fn bare(cmdline: &str, more: Value) -> Self {
        Self::start_with(&merge(bare_config(cmdline), more), &[])
    }

    /// SeaBIOS and the colours guest, with a SPICE server, at the first colour.
    pub fn colours() -> Self {
        let vm = Self::start(&colours_config());
        vm.wait_for_serial("colour 0 blue\r\n");
        vm.wait_for_text("press any key");
        vm
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The folder that it runs in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its control API.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// What COM1 said so far.
    pub fn serial(&self) -> String {
        // The file may not be there yet.
        let bytes = fs::read(self.folder.path().join("serial")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What the program said on its standard error.
    pub fn stderr(&self) -> String {
        fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default()
    }

    /// Waits until COM1 said `text`.
    pub fn wait_for_serial(&self, text: &str) {
        wait_for(&format!("{text:?} on COM1"), || {
            self.serial().contains(text).then_some(())
        });
    }

    /// The cells of the text screen.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.api.get("display.text")).into_owned()
    }

    /// Waits until the text screen has `text`.
    pub fn wait_for_text(&self, text: &str) {
        wait_for(&format!("{text:?} on the screen"), || {
            // Not in text mode yet, or any more, is an error.
            let answer = self.api.ask("GET", "display.text", "").ok()?;
            String::from_utf8_lossy(&answer.body)
                .contains(text)
                .then_some(())
        });
    }

    /// The screen as the program sees it, once nothing changes any more.
    pub fn screenshot(&self) -> Picture {
        self.api.get("display.wait?stable=200ms");
        Picture::from_png(&self.api.get("display.screenshot?head=0"))
    }

    /// Where the SPICE server listens on TCP.
    pub fn spice(&self) -> SocketAddr {
        let info = self.api.json("display.info");
        let listeners = info["listeners"].as_array().expect("listeners");
        let mut addresses = listeners.iter().filter_map(|listener| {
            let text = listener.as_str()?;
            text.trim_start_matches("spice://").parse().ok()
        });
        addresses
            .next()
            .unwrap_or_else(|| panic!("no TCP listener in {info}"))
    }

    /// Waits until so many viewers have opened their keyboards. Viewers show the screen before that, and
    /// lose what they are told to press.
    pub fn wait_for_keyboards(&self, viewers: usize) {
        wait_for("keyboards", || {
            let info = self.api.json("display.info");
            let channels = info["sessions"].as_array()?.iter();
            let channels = channels.filter_map(|session| session["channels"].as_array());
            let keyboards = channels
                .flatten()
                .filter(|channel| channel["kind"] == "inputs");
            (keyboards.count() >= viewers).then_some(())
        });
    }

    /// Where the SPICE server listens for TLS.
    pub fn secure(&self) -> SocketAddr {
        let info = self.api.json("display.info");
        let listener = info["tls"]["listeners"][0].as_str();
        let listener = listener.unwrap_or_else(|| panic!("no TLS listener in {info}"));
        listener.parse().unwrap()
    }

    /// The connection file for viewers.
    pub fn connection_file(&self) -> String {
        String::from_utf8(self.api.get("display.vv")).unwrap()
    }

    /// Waits for the end; the exit code.
    pub fn wait(&mut self) -> i32 {
        let Some(status) = self.process.wait(PATIENCE) else {
            panic!("the machine does not end; COM1: {}", self.serial());
        };
        status
            .code()
            .unwrap_or_else(|| panic!("{status}: {}", self.stderr()))
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let show = |name: &str| {
                let mut text = Vec::new();
                if let Ok(mut file) = File::open(self.folder.path().join(name)) {
                    let length = file.metadata().map_or(0, |data| data.len());
                    // The end is what matters of a long one.
                    let _ = file.seek(SeekFrom::Start(length.saturating_sub(8192)));
                    let _ = file.read_to_end(&mut text);
                }
                println!(
                    "--- {name} of the machine\n{}",
                    String::from_utf8_lossy(&text)
                );
            };
            show("stderr");
            show("serial");
        }
    }
}

/// The config of the bare guest.
pub fn bare_config(cmdline: &str) -> Value {
    json!({
        "memory": "128M",
        "boot": { "kernel": guest::BARE, "cmdline": cmdline },
        "debug_exit": guest::DEBUG_EXIT,
    })
}

/// The config of the bare guest's `busy` with these options, on a display, with SPICE at an address.
pub fn busy_config(options: &str, spice: &str) -> Value {
    let more = json!({
        "display": { "device": "qxl" },
        "spice": { "listen": [spice], "auth": "none" },
    });
    merge(bare_config(&format!("test=busy {options}")), more)
}

/// The config of the colours guest on a display, with SPICE on a free port.
pub fn colours_config() -> Value {
    json!({
        "memory": "64M",
        "boot": { "firmware": "seabios" },
        "display": { "device": "qxl" },
        "spice": { "listen": ["127.0.0.1:0"], "auth": "none" },
        "disks": [
            { "id": "root", "path": guest::COLOURS, "format": "raw", "readonly": true }
        ],
    })
}

/// `base` with the keys of `more` added or replaced.
pub fn merge(mut base: Value, more: Value) -> Value {
    if let (Value::Object(base), Value::Object(more)) = (&mut base, more) {
        base.extend(more);
    }
    base
}
