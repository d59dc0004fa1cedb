//! How many timer ticks a guest misses whose vCPU is held up for half of the time, here
//! and under QEMU.
//!
//! For each timer all monitors run at once and are held up alike, for two minutes or for as many
//! seconds as `TICKS_SECONDS` says; then they have a while to catch up.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed step ends the section, with what failed"
)]

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use caraway_tests::guest;
use caraway_tests::hold::{self, HeldUp};
use caraway_tests::process::Process;
use caraway_tests::ticks::{Reports, Ticking, Tsc};
use caraway_tests::vm::{bare_config, caraway, merge};
use caraway_tests::wait::poll;
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long the vCPUs are held up if nobody says.
const LOAD: u64 = 120;
/// How long they may take to catch up, and until a guest has started on a busy host.
const PATIENCE: Duration = Duration::from_secs(60);

/// The timers, with the way that their interrupts go.
const TIMERS: [(&str, Ticking, &str); 4] = [
    ("PIT 18.2 Hz", Ticking::Pit(0), "pic"),
    ("PIT 100 Hz", Ticking::Pit(11_932), "ioapic"),
    ("PIT 1,000 Hz", Ticking::Pit(1_193), "pic"),
    ("RTC 1,024 Hz", Ticking::Rtc(6), "ioapic"),
];

/// What runs the guest, and with which answer to lost ticks.
enum Monitor {
    /// Caraway with this `clock`.
    Caraway(fn() -> Value),
    /// QEMU with these arguments.
    Qemu(&'static [&'static str]),
}

const MONITORS: [(&str, Monitor); 7] = [
    (
        "caraway, replay",
        Monitor::Caraway(|| json!({ "lost_ticks": "replay" })),
    ),
    (
        "caraway, slew",
        Monitor::Caraway(|| json!({ "lost_ticks": "slew" })),
    ),
    (
        "caraway, discard",
        Monitor::Caraway(|| json!({ "lost_ticks": "discard" })),
    ),
    (
        "caraway, KVM's PIT, replay",
        Monitor::Caraway(|| json!({ "pit": "kernel", "lost_ticks": "replay" })),
    ),
    (
        "caraway, KVM's PIT, discard",
        Monitor::Caraway(|| json!({ "pit": "kernel", "lost_ticks": "discard" })),
    ),
    (
        "QEMU, delay, driftfix=slew",
        Monitor::Qemu(&[
            "-rtc",
            "driftfix=slew",
            "-global",
            "kvm-pit.lost_tick_policy=delay",
        ]),
    ),
    (
        "QEMU, discard, driftfix=none",
        Monitor::Qemu(&[
            "-rtc",
            "driftfix=none",
            "-global",
            "kvm-pit.lost_tick_policy=discard",
        ]),
    ),
];

/// Prints the table.
pub fn bench() -> io::Result<()> {
    let asked = std::env::var("TICKS_SECONDS").ok();
    let seconds = asked.map_or(LOAD, |text| {
        text.parse().expect("TICKS_SECONDS is a number")
    });
    let columns = TIMERS.map(|timer| column(timer, Duration::from_secs(seconds)));
    println!(
        "Ticks taken beyond those due after {seconds} s in which the vCPU was held up for half of"
    );
    println!("the time, once the guest had caught up.\n");
    print!("{:<30}", "");
    for (name, ..) in TIMERS {
        print!(" {name:>14}");
    }
    println!();
    for (row, (name, _)) in MONITORS.iter().enumerate() {
        print!("{name:<30}");
        for column in &columns {
            match column.excess[row] {
                Some(excess) => print!(" {excess:>14}"),
                None => print!(" {:>14}", "stands still"),
            }
        }
        println!();
    }
    print!("{:<30}", "of");
    for column in &columns {
        print!(" {:>14}", column.due);
    }
    println!();
    Ok(())
}

/// One timer under all monitors.
struct Column {
    /// Of each monitor's guest; `None` of one that counts no more.
    excess: Vec<Option<i64>>,
    due: i64,
}

fn column((_, ticking, route): (&str, Ticking, &str), load: Duration) -> Column {
    let tsc = Tsc::begin();
    let guests: Vec<Guest> = MONITORS
        .iter()
        .map(|(_, monitor)| Guest::start(monitor, &ticking.cmdline(route)))
        .collect();
    let loads: Vec<_> = (1..)
        .zip(&guests)
        .map(|(seed, guest)| {
            let vcpu = hold::threads(guest.process.id(), &["vcpu0", "CPU 0/KVM"])[0];
            HeldUp::begin(vcpu, seed)
        })
        .collect();
    std::thread::sleep(load);
    for load in loads {
        load.end();
    }
    let excess = guests
        .iter()
        .map(|guest| guest.settled(ticking, &tsc))
        .collect();
    let reports = guests[0].reports();
    let last = *reports.all.last().unwrap();
    let [due, _] = reports.due(last, ticking, tsc.hz());
    Column { excess, due }
}

struct Guest {
    process: Process,
    folder: TempDir,
}

impl Guest {
    fn start(monitor: &Monitor, cmdline: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let serial = folder.path().join("serial");
        let mut command = match monitor {
            Monitor::Caraway(clock) => run_caraway(folder.path(), &serial, cmdline, clock()),
            Monitor::Qemu(arguments) => run_qemu(&serial, cmdline, arguments),
        };
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let guest = Self {
            process: Process::start(&mut command),
            folder,
        };
        let told = poll(PATIENCE, || {
            guest.serial().contains("ticks from ").then_some(())
        });
        told.unwrap_or_else(|| panic!("{command:?} does not count"));
        guest
    }

    fn serial(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("serial")).unwrap_or_default()
    }

    fn reports(&self) -> Reports {
        Reports::of(&self.serial()).expect("reports")
    }

    /// What the guest has beyond what is due once that changes no more; `None` if it says nothing. A busy host may make single
    /// reports early.
    fn settled(&self, ticking: Ticking, tsc: &Tsc) -> Option<i64> {
        let best = || {
            let seen = self.reports().all.len();
            std::thread::sleep(Duration::from_secs(3));
            let excess = self.reports().excess(ticking, tsc.hz());
            excess[seen..].iter().max().copied()
        };
        let mut last = best();
        let settled = poll(PATIENCE, || {
            let before = std::mem::replace(&mut last, best());
            last.filter(|now| before.is_some_and(|before| (now - before).abs() <= 1))
        });
        settled.or(last)
    }
}

fn run_caraway(folder: &Path, serial: &Path, cmdline: &str, clock: Value) -> Command {
    let config = merge(bare_config(cmdline), json!({ "clock": clock }));
    let path = folder.join("vm.json");
    std::fs::write(&path, config.to_string()).unwrap();
    let mut command = Command::new(caraway());
    command
        .arg("run")
        .arg(path)
        .arg("--serial-file")
        .arg(serial);
    command
}

fn run_qemu(serial: &Path, cmdline: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args([
            "-M",
            "microvm,rtc=on,pit=on,pic=on",
            "-accel",
            // As a PC has it; a microvm would split it, and have a PIT that replays nothing.
            "kvm,kernel-irqchip=on",
            "-m",
            "128",
        ])
        .args([
            "-nodefaults",
            "-display",
            "none",
            "-name",
            "ticks,debug-threads=on",
        ])
        .args(["-kernel", guest::BARE, "-append", cmdline])
        .arg("-serial")
        .arg(format!("file:{}", serial.display()))
        .args(arguments);
    command
}
