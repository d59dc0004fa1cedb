//! Certificates as `caraway tls init` makes them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::run;
use crate::vm::caraway;

/// A folder with a CA and a server's certificate.
#[derive(Debug)]
pub struct Certificates {
    folder: TempDir,
    name: String,
}

impl Certificates {
    /// Certificates for a server of this name on the loopback.
    ///
    /// # Panics
    /// If the program does not make them.
    pub fn new(name: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let name = name.to_owned();
        let certificates = Self { folder, name };
        certificates.init(&[]);
        certificates
    }

    /// Another certificate by the same CA.
    ///
    /// # Panics
    /// If the program does not make it.
    pub fn renew(&self) {
        self.init(&["--force", "--keep-ca"]);
    }

    fn init(&self, more: &[&str]) {
        let mut command = Command::new(caraway());
        command.args(["tls", "init", "--name", &self.name, "--dir"]);
        command.arg(self.folder.path()).args(more);
        let output = run(&mut command, Duration::from_secs(20));
        assert!(output.status.success(), "{output:?}");
    }

    /// One of the files.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What viewers are to trust.
    pub fn ca(&self) -> PathBuf {
        self.path("ca-cert.pem")
    }

    /// The certificate's subject.
    pub fn subject(&self) -> String {
        format!("O=Caraway,CN={}", self.name)
    }

    /// `spice.tls` of a config that uses them, on a free port.
    pub fn config(&self) -> Value {
        json!({
            "listen": ["127.0.0.1:0"],
            "certificate": self.path("server-cert.pem"),
            "key": self.path("server-key.pem"),
            "ca": self.ca(),
        })
    }
}

/// A file's text as it stands in a connection file.
///
/// # Panics
/// If it can't be read.
pub fn escaped(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap().replace('\n', "\\n")
}
