//! QEMU with spice-server on a guest of ours: what the program is measured against.

use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::guest;
use crate::process::Process;
use crate::wait::poll;

/// QEMU's program.
pub const PROGRAM: &str = "qemu-system-x86_64";

/// QEMU has firmware that starts the kernel, which a KVM in software takes long for.
const FIRMWARE: Duration = Duration::from_secs(120);

/// A machine of QEMU's with a QXL display; it ends with this value.
#[derive(Debug)]
pub struct Qemu {
    process: Process,
    folder: TempDir,
    spice: SocketAddr,
}

impl Qemu {
    /// The bare guest with this command line, seen at `spice` by as many clients as wish. `command`
    /// starts [`PROGRAM`], wherever it is to run. Waits until the guest says `ready` on COM1.
    ///
    /// # Panics
    /// If it doesn't.
    pub fn bare(mut command: Command, cmdline: &str, spice: SocketAddr, ready: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let serial = folder.path().join("serial");
        let address = match spice.ip() {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        command
            .args(["-accel", "kvm", "-m", "128", "-display", "none"])
            .args(["-vga", "none", "-device", "qxl-vga", "-no-reboot", "-spice"])
            .arg(format!(
                "addr={address},port={},disable-ticketing=on",
                spice.port()
            ))
            .args(["-kernel", guest::BARE, "-append", cmdline, "-device"])
            .arg(format!(
                "isa-debug-exit,iobase={:#x},iosize=4",
                guest::DEBUG_EXIT
            ))
            .arg("-serial")
            .arg(format!("file:{}", serial.display()))
            .env("SPICE_DEBUG_ALLOW_MC", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(folder.path().join("stderr")).unwrap());
        let qemu = Self {
            process: Process::start(&mut command),
            folder,
            spice,
        };
        let said = poll(FIRMWARE, || qemu.serial().contains(ready).then_some(()));
        assert!(said.is_some(), "QEMU's guest never says {ready:?}");
        qemu
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Where its SPICE server listens.
    pub fn spice(&self) -> SocketAddr {
        self.spice
    }

    /// How it ended, and the last that it and its guest said; `None` if it still runs.
    pub fn fate(&mut self) -> Option<String> {
        let status = self.process.status()?;
        let stderr = fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default();
        let [said, guest] =
            [stderr, self.serial()].map(|text| text.lines().last().unwrap_or_default().to_owned());
        Some(format!("{status}; {said}; its guest: {guest}"))
    }

    /// What COM1 said so far.
    pub fn serial(&self) -> String {
        let path: PathBuf = self.folder.path().join("serial");
        // The file may not be there yet.
        String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
    }
}
