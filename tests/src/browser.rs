//! A console in headless Chromium.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::client::decode_base64;
use crate::picture::Picture;
use crate::process::Process;

/// A browser with one page open; closed when dropped.
#[derive(Debug)]
pub struct Browser {
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    process: Process,
    _folder: TempDir,
}

impl Browser {
    /// Opens a page.
    ///
    /// # Panics
    /// If there is no browser.
    pub fn open(url: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/browser.mjs");
        let mut command = Command::new("node");
        command
            .args([script, url])
            .arg(folder.path())
            .env("HOME", folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut process = Process::start(&mut command);
        let input = process.child().stdin.take();
        let output = BufReader::new(process.child().stdout.take().unwrap());
        Self {
            input,
            output,
            process,
            _folder: folder,
        }
    }

    fn ask(&mut self, command: &str) -> Value {
        let input = self.input.as_mut().unwrap();
        writeln!(input, "{command}").unwrap();
        let mut line = String::new();
        let read = self.output.read_line(&mut line).unwrap();
        assert!(read > 0, "the browser is gone: {:?}", self.process.status());
        serde_json::from_str(&line).unwrap()
    }

    /// What the console shows; `None` while it has no screen.
    pub fn picture(&mut self) -> Option<Picture> {
        let answer = self.ask("picture");
        Some(Picture::from_png(&decode_base64(answer.as_str()?)))
    }

    /// Presses and releases a key, by its `KeyboardEvent.code` and `.keyCode`.
    pub fn press(&mut self, code: &str, number: u8) {
        self.ask(&format!("press {code} {number}"));
    }

    /// What the page's scripts said.
    pub fn said(&mut self) -> Vec<String> {
        let said = self.ask("said");
        let lines = said.as_array().into_iter().flatten();
        lines
            .filter_map(|line| line.as_str().map(str::to_owned))
            .collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The script closes its browser when nobody can ask it any more.
        drop(self.input.take());
        let _ = self.process.wait(std::time::Duration::from_secs(5));
    }
}
