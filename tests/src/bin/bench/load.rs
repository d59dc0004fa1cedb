//! A load of the bare guest, here and under QEMU in turn: how fast it goes, and what the monitor takes of
//! the processors for it.

#![allow(
    clippy::panic,
    reason = "a failed step ends the section, with what failed"
)]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use caraway_tests::guest;
use caraway_tests::process::{Process, cpu_beside_guest};
use caraway_tests::ticks::Tsc;
use caraway_tests::vm::{bare_config, caraway, merge};
use caraway_tests::wait::poll;
use serde_json::Value;
use tempfile::TempDir;

/// How long the guest does it each time, in milliseconds: many ticks of the clock by which processor time is
/// counted.
pub const RUN_MS: u64 = 1500;
const PATIENCE: Duration = Duration::from_secs(120);

/// What is measured: the guest's command line, and the devices for it.
pub struct Load<'a> {
    /// What the bare guest does.
    pub cmdline: String,
    /// Of a config of ours.
    pub devices: Value,
    /// The same for QEMU.
    pub qemu: Vec<String>,
    /// What runs a monitor's program.
    pub command: &'a dyn Fn(&Path) -> Command,
    /// What is to run beside the guest once that has begun.
    pub beside: Option<&'a dyn Fn() -> Command>,
}

/// What one run took.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// Requests or frames a second.
    pub rate: f64,
    /// Microseconds of the host's processors for each of them, beside those of the guest's.
    pub cpu: f64,
}

/// Runs `load` under either monitor in turn, `rounds` times; the medians of ours and of QEMU's.
pub fn compare(load: &Load<'_>, rounds: usize, tsc: &Tsc) -> [Cost; 2] {
    let mut costs = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        costs[0].push(run(load, tsc, run_caraway));
        costs[1].push(run(load, tsc, run_qemu));
    }
    costs.map(|costs| median(&costs))
}

/// The rounds that the variable `name` asks for.
pub fn rounds(name: &str) -> usize {
    let asked = std::env::var(name).ok();
    asked.map_or(5, |text| text.parse().expect("the rounds are a number"))
}

fn run(load: &Load<'_>, tsc: &Tsc, start: fn(&Load<'_>, &Path, &Path) -> Command) -> Cost {
    let folder = TempDir::new().expect("a folder can be made");
    let serial = folder.path().join("serial");
    let mut command = start(load, folder.path(), &serial);
    let process = Process::start(quiet(&mut command));
    let said = || fs::read_to_string(&serial).unwrap_or_default();
    let begun = poll(PATIENCE, || said().contains("load begins").then_some(()));
    begun.unwrap_or_else(|| panic!("{command:?} does not begin: {}", said()));
    let cpu = || {
        cpu_beside_guest(process.id())
            .expect("it runs")
            .as_secs_f64()
    };
    let before = cpu();
    let _beside = load
        .beside
        .map(|beside| Process::start(quiet(&mut beside())));
    let took = poll(PATIENCE, || {
        let said = said();
        assert!(!said.contains("not ok"), "{said}");
        let line = said.lines().find_map(|line| line.strip_prefix("load of "));
        let (count, ticks) = line?.split_once(" took ")?;
        said.contains("\nok ").then_some(())?;
        count
            .parse::<f64>()
            .ok()
            .zip(ticks.trim().parse::<f64>().ok())
    });
    let (count, ticks) = took.unwrap_or_else(|| panic!("{command:?} does not end: {}", said()));
    Cost {
        rate: count / (ticks / tsc.hz()),
        cpu: (cpu() - before) * 1e6 / count,
    }
}

fn quiet(command: &mut Command) -> &mut Command {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
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

fn run_caraway(load: &Load<'_>, folder: &Path, serial: &Path) -> Command {
    let cmdline = format!("{} hold", load.cmdline);
    let config = merge(bare_config(&cmdline), load.devices.clone());
    let path = folder.join("vm.json");
    fs::write(&path, config.to_string()).expect("a config can be written");
    let mut command = (load.command)(&caraway());
    command
        .arg("run")
        .arg(path)
        .arg("--serial-file")
        .arg(serial);
    command
}

fn run_qemu(load: &Load<'_>, _: &Path, serial: &Path) -> Command {
    let mut command = (load.command)(Path::new("qemu-system-x86_64"));
    command
        .args(["-M", "q35", "-accel", "kvm", "-m", "128", "-nodefaults"])
        .args(["-display", "none", "-no-reboot"])
        .args(["-kernel", guest::BARE, "-append"])
        .arg(format!("{} hold", load.cmdline))
        .args(&load.qemu)
        .arg("-serial")
        .arg(format!("file:{}", serial.display()));
    command
}
