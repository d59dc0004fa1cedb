//! spice-gtk's client library, as far as the guest's agent goes.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use crate::process::Process;
use crate::wait::PATIENCE;

/// spice-gtk's library with the guest's agent, driven by lines.
#[derive(Debug)]
pub struct GlibAgent {
    process: Process,
    lines: Receiver<String>,
    said: Vec<String>,
}

impl GlibAgent {
    /// Starts to connect.
    ///
    /// # Panics
    /// If there is no Python with the library.
    pub fn connect(server: SocketAddr) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/glib_agent.py");
        let mut command = Command::new("/usr/bin/python3");
        command
            .arg(script)
            .args([&server.ip().to_string(), &server.port().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = Process::start(&mut command);
        let output = BufReader::new(process.child().stdout.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self {
            process,
            lines,
            said: Vec::new(),
        }
    }

    /// Tells it what to do; `glib_agent.py` says what it knows.
    pub fn say(&mut self, line: &str) {
        let input = self.process.child().stdin.as_mut().unwrap();
        writeln!(input, "{line}").unwrap();
    }

    /// Waits until it says this line; what it said before is passed over.
    ///
    /// # Panics
    /// If it never does.
    pub fn wait_for(&mut self, line: &str) {
        self.wait(line, |said| said == line);
    }

    /// Waits until it says a line that begins so.
    ///
    /// # Panics
    /// If it never does.
    pub fn wait_for_start(&mut self, start: &str) {
        self.wait(start, |said| said.starts_with(start));
    }

    fn wait(&mut self, what: &str, wanted: impl Fn(&str) -> bool) {
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("no {what:?} after {:?}", self.said));
            let found = wanted(&line);
            self.said.push(line);
            if found {
                return;
            }
        }
    }

    /// Whether it has said this line by now.
    pub fn has_said(&mut self, line: &str) -> bool {
        self.said.extend(self.lines.try_iter());
        self.said.iter().any(|said| said == line)
    }
}
