//! Requests per second of a disk, and what they cost, here and under QEMU.
//!
//! The same guest drives the same kind of disk on both, one after the other in turn; the figure is
//! the median of `DISK_ROUNDS` rounds (5 if nobody says).

#![allow(
    clippy::unwrap_used,
    reason = "a failed step ends the section, with what failed"
)]

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use caraway_tests::ticks::Tsc;
use serde_json::json;
use tempfile::TempDir;

use crate::load::{self, compare};

const SIZE: &str = "256M";

/// A row: what the guest does.
struct Row {
    format: &'static str,
    does: Does,
    /// Requests at a time.
    depth: u64,
    /// Of each request.
    kib: u64,
}

#[derive(Clone, Copy)]
enum Does {
    Read,
    Write,
}
use Does::{Read, Write};

const fn row(format: &'static str, does: Does, depth: u64, kib: u64) -> Row {
    Row {
        format,
        does,
        depth,
        kib,
    }
}

const ROWS: [Row; 10] = [
    row("raw", Read, 1, 4),
    row("raw", Read, 4, 4),
    row("raw", Read, 16, 4),
    row("raw", Write, 1, 4),
    row("raw", Write, 4, 4),
    row("raw", Write, 16, 4),
    row("raw", Read, 4, 256),
    row("raw", Write, 4, 256),
    row("qcow2", Read, 1, 4),
    row("qcow2", Write, 1, 4),
];

impl Row {
    fn name(&self) -> String {
        let does = match self.does {
            Read => "read",
            Write => "write",
        };
        format!(
            "{}, {does} {} KiB, {} at once",
            self.format, self.kib, self.depth
        )
    }

    fn cmdline(&self) -> String {
        let writes = u8::from(matches!(self.does, Write));
        format!(
            "test=disk-load bytes={} depth={} writes={writes} ms={}",
            self.kib << 10,
            self.depth,
            load::RUN_MS
        )
    }
}

/// Prints the table.
pub fn bench() -> io::Result<()> {
    let rounds = load::rounds("DISK_ROUNDS");
    let tsc = Tsc::begin();
    std::thread::sleep(Duration::from_secs(1));
    let images = TempDir::new()?;
    println!(
        "{:<34} {:>22} {:>22} {:>17}",
        "", "caraway", "QEMU", "caraway/QEMU"
    );
    println!(
        "{:<34} {:>9} {:>12} {:>9} {:>12} {:>8} {:>8}",
        "", "MB/s", "req/s", "MB/s", "req/s", "req/s", "CPU"
    );
    for row in &ROWS {
        let image = prepared(images.path(), row.format);
        let [ours, theirs] = compare(&on(row, &image), rounds, &tsc);
        let throughput = |cost: load::Cost| cost.rate * (row.kib << 10) as f64 / 1e6;
        println!(
            "{:<34} {:>9.0} {:>12.0} {:>9.0} {:>12.0} {:>8.2} {:>8.2}",
            row.name(),
            throughput(ours),
            ours.rate,
            throughput(theirs),
            theirs.rate,
            ours.rate / theirs.rate,
            ours.cpu / theirs.cpu,
        );
    }
    println!("\nCPU is the monitor's, beside its vCPU, for each request. Every one was answered.");
    Ok(())
}

/// A full image: what is measured is not how clusters are found.
fn prepared(folder: &Path, format: &str) -> PathBuf {
    let image = folder.join(format!("disk.{format}"));
    let mut command = Command::new("qemu-img");
    command.args(["create", "-q", "-f", format]);
    let options: &[&str] = match format {
        "raw" => &["-o", "preallocation=full"],
        _ => &["-o", "preallocation=full,lazy_refcounts=off"],
    };
    let made = command.args(options).arg(&image).arg(SIZE).status();
    assert!(made.unwrap().success(), "no image can be made");
    image
}

/// QEMU is set up for speed: a thread of its own for the disk, and io_uring.
fn on(row: &Row, image: &Path) -> load::Load<'static> {
    let path = image.display();
    let qemu = [
        "-object",
        "iothread,id=disk",
        "-drive",
        &format!(
            "if=none,id=d,file={path},format={},cache=writeback,aio=io_uring",
            row.format
        ),
        "-device",
        "virtio-blk-pci,drive=d,iothread=disk",
    ];
    load::Load {
        cmdline: row.cmdline(),
        devices: json!({ "disks": [{ "path": image, "format": row.format }] }),
        qemu: qemu.map(str::to_owned).to_vec(),
        command: &|program| Command::new(program),
        beside: None,
    }
}
