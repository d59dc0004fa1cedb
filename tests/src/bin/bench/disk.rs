//! Requests per second of a disk, and what they cost, here and under QEMU.
//!
//! The same guest drives the same kind of disk on both, one after the other in turn; the figure is
//! the median of `DISK_ROUNDS` rounds (5 if nobody says).

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed step ends the section, with what failed"
)]

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use caraway_tests::guest;
use caraway_tests::process::Process;
use caraway_tests::ticks::Tsc;
use caraway_tests::vm::{bare_config, caraway, merge};
use caraway_tests::wait::poll;
use serde_json::json;
use tempfile::TempDir;

const SIZE: &str = "256M";
const PATIENCE: Duration = Duration::from_secs(120);

/// A row: what the guest does.
struct Load {
    name: &'static str,
    format: &'static str,
    options: &'static str,
    bytes: u64,
}

const fn load(name: &'static str, format: &'static str, options: &'static str, bytes: u64) -> Load {
    Load {
        name,
        format,
        options,
        bytes,
    }
}

const LOADS: [Load; 8] = [
    load("raw, read 4 KiB", "raw", "count=20000", 4096),
    load(
        "raw, read 4 KiB, 5 at once",
        "raw",
        "depth=5 count=40000",
        4096,
    ),
    load("raw, write 4 KiB", "raw", "writes=1 count=20000", 4096),
    load(
        "raw, write 4 KiB, 5 at once",
        "raw",
        "writes=1 depth=5 count=40000",
        4096,
    ),
    load("raw, read 256 KiB", "raw", "depth=5 count=4000", 256 << 10),
    load(
        "raw, write 256 KiB",
        "raw",
        "writes=1 depth=5 count=4000",
        256 << 10,
    ),
    load("qcow2, read 4 KiB", "qcow2", "count=20000", 4096),
    load("qcow2, write 4 KiB", "qcow2", "writes=1 count=20000", 4096),
];

#[derive(Clone, Copy)]
enum Monitor {
    Caraway,
    Qemu,
}

/// What one run took.
#[derive(Debug, Clone, Copy)]
struct Cost {
    /// Requests a second.
    rate: f64,
    /// Microseconds of the host's processors a request, the guest's own among them.
    cpu: f64,
}

/// Prints the table.
pub fn bench() -> io::Result<()> {
    let asked = std::env::var("DISK_ROUNDS").ok();
    let rounds = asked.map_or(5, |text| text.parse().expect("DISK_ROUNDS is a number"));
    let tsc = Tsc::begin();
    std::thread::sleep(Duration::from_secs(1));
    let images = TempDir::new()?;
    println!(
        "{:<28} {:>22} {:>22} {:>17}",
        "", "caraway", "QEMU", "caraway/QEMU"
    );
    println!(
        "{:<28} {:>9} {:>12} {:>9} {:>12} {:>8} {:>8}",
        "", "MB/s", "req/s", "MB/s", "req/s", "req/s", "CPU"
    );
    for load in &LOADS {
        let image = prepared(images.path(), load.format);
        let mut costs = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            for (monitor, costs) in [Monitor::Caraway, Monitor::Qemu].iter().zip(&mut costs) {
                costs.push(run(*monitor, load, &image, &tsc));
            }
        }
        let [ours, theirs] = costs.map(|costs| median(&costs));
        let throughput = |cost: Cost| cost.rate * load.bytes as f64 / 1e6;
        println!(
            "{:<28} {:>9.0} {:>12.0} {:>9.0} {:>12.0} {:>8.2} {:>8.2}",
            load.name,
            throughput(ours),
            ours.rate,
            throughput(theirs),
            theirs.rate,
            ours.rate / theirs.rate,
            ours.cpu / theirs.cpu,
        );
    }
    println!("\nEvery request was answered; a guest that misses one ends the section.");
    Ok(())
}

/// A full image: what is measured is not how clusters are found.
fn prepared(folder: &Path, format: &str) -> std::path::PathBuf {
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

fn run(monitor: Monitor, load: &Load, image: &Path, tsc: &Tsc) -> Cost {
    let folder = TempDir::new().unwrap();
    let serial = folder.path().join("serial");
    let cmdline = format!("test=disk-load hold bytes={} {}", load.bytes, load.options);
    let mut command = match monitor {
        Monitor::Caraway => run_caraway(folder.path(), &serial, &cmdline, load, image),
        Monitor::Qemu => run_qemu(&serial, &cmdline, load, image),
    };
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let process = Process::start(&mut command);
    let said = || fs::read_to_string(&serial).unwrap_or_default();
    let begun = poll(PATIENCE, || said().contains("load begins").then_some(()));
    begun.unwrap_or_else(|| panic!("{command:?} does not begin"));
    let before = cpu_seconds(process.id());
    let took = poll(PATIENCE, || {
        let said = said();
        assert!(!said.contains("not ok"), "{said}");
        let line = said
            .lines()
            .find_map(|line| line.strip_prefix("load of "))?;
        let (count, ticks) = line.split_once(" took ")?;
        said.contains("ok disk-load").then_some(())?;
        Some((
            count.parse::<f64>().ok()?,
            ticks.trim().parse::<f64>().ok()?,
        ))
    });
    let (count, ticks) = took.unwrap_or_else(|| panic!("{command:?} does not end: {}", said()));
    let cpu = cpu_seconds(process.id()) - before;
    Cost {
        rate: count / (ticks / tsc.hz()),
        cpu: cpu * 1e6 / count,
    }
}

/// Processor time of a process with all its threads.
fn cpu_seconds(pid: u32) -> f64 {
    /// `USER_HZ`, which is the same on every x86-64 kernel.
    const TICKS_A_SECOND: f64 = 100.0;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks = |index: usize| fields[index].parse::<f64>().unwrap();
    (ticks(11) + ticks(12)) / TICKS_A_SECOND
}

fn median(costs: &[Cost]) -> Cost {
    let middle = |figure: fn(&Cost) -> f64| {
        let mut figures: Vec<f64> = costs.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    };
    Cost {
        rate: middle(|cost| cost.rate),
        cpu: middle(|cost| cost.cpu),
    }
}

fn run_caraway(folder: &Path, serial: &Path, cmdline: &str, load: &Load, image: &Path) -> Command {
    let disks = json!({ "disks": [{ "path": image, "format": load.format }] });
    let config = merge(bare_config(cmdline), disks);
    let path = folder.join("vm.json");
    fs::write(&path, config.to_string()).unwrap();
    let mut command = Command::new(caraway());
    command
        .arg("run")
        .arg(path)
        .arg("--serial-file")
        .arg(serial);
    command
}

/// QEMU as it is set up for speed: a thread of its own for the disk, and io_uring.
fn run_qemu(serial: &Path, cmdline: &str, load: &Load, image: &Path) -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(["-M", "q35", "-accel", "kvm", "-m", "128", "-nodefaults"])
        .args([
            "-display",
            "none",
            "-no-reboot",
            "-object",
            "iothread,id=disk",
        ])
        .args(["-kernel", guest::BARE, "-append", cmdline])
        .arg("-drive")
        .arg(format!(
            "if=none,id=d,file={},format={},cache=writeback,aio=io_uring",
            image.display(),
            load.format
        ))
        .args(["-device", "virtio-blk-pci,drive=d,iothread=disk"])
        .arg("-serial")
        .arg(format!("file:{}", serial.display()));
    command
}
