//! The SPICE proxy Kerbside between a client and a machine.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::certificates::{Certificates, escaped};
use crate::client::cache;
use crate::process::Process;
use crate::wait::wait_for;

/// A proxy that lets every client through to one server, and enforces its firewall.
#[derive(Debug)]
pub struct Kerbside {
    certificates: Certificates,
    folder: TempDir,
    secure: u16,
    metrics: u16,
    _proxy: Process,
    _control: Process,
}

impl Kerbside {
    /// A proxy to `target`: `port`, and perhaps `tls_port`, `ca`, `subject` and `ticket`.
    ///
    /// # Panics
    /// If it does not start.
    pub fn before(target: &Value) -> Self {
        let folder = TempDir::new().unwrap();
        let certificates = Certificates::new("proxy");
        let file = |name: &str| folder.path().join(name);
        let log = |name: &str| File::create(file(name)).unwrap();
        let mut control = Command::new(cache().join("venv/bin/python"));
        control
            .arg(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/clients/kerbside_control.py"
            ))
            .arg(file("control"))
            .arg(target.to_string())
            .stdin(Stdio::null())
            .stdout(log("control.log"))
            .stderr(log("control.err"));
        let control = Process::start(&mut control);
        wait_for("the control plane", || {
            file("control").exists().then_some(())
        });
        let [secure, insecure, metrics] = free_ports();
        let mut proxy = Command::new(cache().join("venv/bin/kerbside-proxy"));
        proxy
            .args([
                "--vdi-address",
                "127.0.0.1",
                "--node-name",
                "tests",
                "--verbose",
            ])
            .args(["--secure-port", &secure.to_string()])
            .args(["--insecure-port", &insecure.to_string()])
            .args(["--prometheus-port", &metrics.to_string()])
            .args(["--host-subject", &certificates.subject()])
            .arg("--cert")
            .arg(certificates.path("server-cert.pem"))
            .arg("--cert-key")
            .arg(certificates.path("server-key.pem"))
            .arg("--cacert")
            .arg(certificates.ca())
            .arg("--api-socket")
            .arg(file("control"))
            .stdin(Stdio::null())
            .stdout(log("proxy.log"))
            .stderr(log("proxy.err"));
        let proxy = Process::start(&mut proxy);
        let kerbside = Self {
            certificates,
            folder,
            secure,
            metrics,
            _proxy: proxy,
            _control: control,
        };
        wait_for("the proxy", || {
            TcpStream::connect(("127.0.0.1", secure)).ok()
        });
        kerbside
    }

    /// The connection file for clients.
    pub fn connection_file(&self) -> String {
        format!(
            "[virt-viewer]\ntype=spice\nhost=127.0.0.1\ntls-port={}\npassword=token\n\
             host-subject={}\nca={}\n",
            self.secure,
            self.certificates.subject(),
            escaped(&self.certificates.ca()),
        )
    }

    /// The proxy's counters whose names contain `word`, as it prints them.
    ///
    /// # Panics
    /// If it does not answer.
    pub fn metrics(&self, word: &str) -> Vec<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.metrics)).unwrap();
        let request = "GET /metrics HTTP/1.1\r\nHost: proxy\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let lines = answer.lines().filter(|line| !line.starts_with('#'));
        lines
            .filter(|line| line.contains(word))
            .map(str::to_owned)
            .collect()
    }

    /// The sum of the counters whose names contain `word`.
    pub fn count(&self, word: &str) -> f64 {
        let lines = self.metrics(word);
        let values = lines.iter().filter_map(|line| line.rsplit(' ').next());
        values.filter_map(|value| value.parse::<f64>().ok()).sum()
    }

    /// What the proxy and its control plane wrote.
    pub fn log(&self) -> String {
        ["proxy.log", "proxy.err", "control.log", "control.err"]
            .map(|name| std::fs::read_to_string(self.folder.path().join(name)).unwrap_or_default())
            .concat()
    }
}

/// Ports that nobody listens on just now.
fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}
