//! `caraway demo`.

use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd};
use std::path::Path;

use clap::Args;

use super::run::Options;
use crate::config::units::MIB;
use crate::config::{Document, Host};
use crate::control;
use crate::exit::{Exit, Failure};

/// A boot sector that shows another colour at every key.
const COLOURS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/colours.img"));

/// Where SPICE servers are expected, and how far to look for a free port.
const PORTS: std::ops::Range<u16> = 5900..6000;

/// The built-in guest.
#[derive(Debug, Args)]
pub(super) struct Demo {
    /// Where viewers connect; 127.0.0.1 and the first free port from 5900 if not given.
    #[arg(long, value_name = "LISTENER")]
    listen: Option<String>,
    #[command(flatten)]
    options: Options,
}

impl Demo {
    pub(super) fn act(self) -> Result<Exit, Failure> {
        let disk = colours_disk().map_err(|error| {
            let hint = "is there memory left? /proc must be mounted, too";
            Failure::of(Exit::Resource, &error).hint(hint)
        })?;
        let listen = match self.listen {
            Some(listen) => listen,
            None => free_listener()?,
        };
        let config = serde_json::json!({
            "name": "colours",
            "memory": "64M",
            "boot": { "firmware": "seabios" },
            "display": { "device": "qxl" },
            "spice": { "listen": [listen] },
            "disks": [{
                "id": "colours",
                "path": format!("/proc/self/fd/{}", disk.as_raw_fd()),
                "format": "raw",
            }],
            "serial": { "to": "stdio" },
        });
        let text = serde_json::to_string_pretty(&config)
            .map_err(|error| Failure::of(Exit::Internal, &error))?;
        let document = Document::new(&text, Path::new("."));
        let spec = document.check(&document.parse()?, &Host::probe())?;
        let exit = control::run(&spec, &self.options.into_run(false)?);
        drop(disk);
        exit
    }
}

/// The guest's disk, in memory: nothing is left behind however this ends.
fn colours_disk() -> std::io::Result<File> {
    // SAFETY: the name is a constant with its zero byte.
    let fd = unsafe { libc::memfd_create(c"colours".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
    let mut disk = unsafe { File::from_raw_fd(fd) };
    disk.write_all(COLOURS)?;
    disk.set_len(MIB)?;
    Ok(disk)
}

fn free_listener() -> Result<String, Failure> {
    PORTS
        .into_iter()
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .map(|port| format!("127.0.0.1:{port}"))
        .ok_or_else(|| {
            let message = format!(
                "no port from {} to {} is free on 127.0.0.1",
                PORTS.start,
                PORTS.end - 1
            );
            Failure::new(Exit::Resource, message).hint("choose one with --listen 127.0.0.1:PORT")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_guest_is_a_boot_sector() {
        assert_eq!(COLOURS.len(), 512);
        assert_eq!(COLOURS[510..], [0x55, 0xaa]);
    }

    #[test]
    fn its_disk_can_be_opened_by_its_path() {
        let disk = colours_disk().unwrap();

        let bytes = std::fs::read(format!("/proc/self/fd/{}", disk.as_raw_fd())).unwrap();

        assert_eq!(bytes.len() as u64, MIB);
        assert_eq!(bytes[..512], *COLOURS);
    }
}
