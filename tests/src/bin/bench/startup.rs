//! What it costs to run a guest that ends at once, next to QEMU's microvm.
//!
//! Both run the same kernel in turn, so that a machine that gets slower does so for both. Each
//! run's time is taken by the wall clock, its CPU time from what the kernel charged the finished
//! process. Memory is read from `smaps` while a guest waits: everything resident but guest RAM.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use caraway_tests::guest;
use caraway_tests::qemu;
use caraway_tests::vm::caraway;

/// Counted runs of each; the median of so many moves little.
const RUNS: usize = 25;
/// Guest memory in MiB.
const GUEST_MIB: u64 = 128;
/// A mapping of at least this many KiB is guest RAM.
const GUEST_RAM_KIB: u64 = 64 << 10;
/// Until a waiting guest is looked at.
const SETTLED: Duration = Duration::from_secs(2);

/// What was asked for: the most of QEMU's wall time and CPU time, and of memory in KiB.
const WALL_GOAL: f64 = 0.12;
const CPU_GOAL: f64 = 0.1;
const MEMORY_GOAL_KIB: u64 = 5 << 10;

pub fn bench() -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    let config = |name: &str, cmdline: &str| {
        let path = folder.path().join(name);
        let config = serde_json::json!({
            "memory": format!("{GUEST_MIB}M"),
            "boot": { "kernel": guest::EXIT, "cmdline": cmdline },
            "debug_exit": guest::DEBUG_EXIT,
        });
        std::fs::write(&path, config.to_string()).map(|()| path)
    };
    let exit = config("exit.json", "")?;
    let wait = config("wait.json", "wait")?;

    let ours = || run_caraway(&exit);
    let theirs = || run_qemu(Path::new(guest::EXIT));
    // The first of each fills the page cache.
    measure(&mut ours())?;
    measure(&mut theirs())?;
    let (mut our_runs, mut their_runs) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        our_runs.push(measure(&mut ours())?);
        their_runs.push(measure(&mut theirs())?);
    }
    let our_memory = resident(&mut run_caraway(&wait))?;
    let their_memory = resident(run_qemu(Path::new(guest::EXIT)).args(["-append", "wait"]))?;

    let wall = |runs: &[Run]| median(runs.iter().map(|run| run.wall));
    let cpu = |runs: &[Run]| median(runs.iter().map(|run| run.cpu));
    println!(
        "A guest that ends at once: 1 vCPU, {GUEST_MIB} MiB, headless; medians of {RUNS} runs.\n"
    );
    println!(
        "{:<10} {:>10} {:>10} {:>18}",
        "", "wall", "CPU", "memory beside RAM"
    );
    let row = |name, runs: &[Run], memory| {
        let (wall, cpu) = (millis(wall(runs)), millis(cpu(runs)));
        println!(
            "{name:<10} {wall:>7.1} ms {cpu:>7.1} ms {:>14.1} MiB",
            memory as f64 / 1024.0
        );
    };
    row("caraway", &our_runs, our_memory);
    row("QEMU", &their_runs, their_memory);
    let ratio = |of: fn(&Run) -> Duration| {
        median(our_runs.iter().map(of)).as_secs_f64()
            / median(their_runs.iter().map(of)).as_secs_f64()
    };
    let (wall, cpu) = (ratio(|run| run.wall), ratio(|run| run.cpu));
    println!("{:<10} {wall:>10.3} {cpu:>10.3}", "ratio");
    println!(
        "{:<10} {WALL_GOAL:>10.3} {CPU_GOAL:>10.3} {:>14.1} MiB",
        "goal",
        MEMORY_GOAL_KIB as f64 / 1024.0
    );
    Ok(())
}

fn run_caraway(config: &Path) -> Command {
    let mut command = Command::new(caraway());
    command.arg("run").arg(config);
    command
}

fn run_qemu(kernel: &Path) -> Command {
    let mut command = Command::new(qemu::PROGRAM);
    command
        .args(["-M", "microvm", "-enable-kvm", "-smp", "1", "-m"])
        .arg(GUEST_MIB.to_string())
        .args(["-display", "none", "-no-reboot", "-kernel"])
        .arg(kernel)
        .arg("-device")
        .arg(format!(
            "isa-debug-exit,iobase={:#x},iosize=4",
            guest::DEBUG_EXIT
        ));
    command
}

/// What one run took.
#[derive(Clone, Copy)]
struct Run {
    wall: Duration,
    cpu: Duration,
}

fn measure(command: &mut Command) -> io::Result<Run> {
    let before = children_cpu()?;
    let start = Instant::now();
    let status = quiet(command).status()?;
    let wall = start.elapsed();
    // QEMU's device makes 1 of the guest's 0.
    match status.code() {
        Some(0 | 1) => Ok(Run {
            wall,
            cpu: children_cpu()?.saturating_sub(before),
        }),
        _ => Err(io::Error::other(format!("{command:?}: {status}"))),
    }
}

fn quiet(command: &mut Command) -> &mut Command {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
}

/// What the kernel charged all children that have ended.
fn children_cpu() -> io::Result<Duration> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: `usage` has room for what getrusage writes.
    if unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: getrusage succeeded, so it has filled `usage`.
    let usage = unsafe { usage.assume_init() };
    let time = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
    Ok(time(usage.ru_utime) + time(usage.ru_stime))
}

/// KiB that are resident and not guest RAM, while the guest waits.
fn resident(command: &mut Command) -> io::Result<u64> {
    let mut child = quiet(command).spawn()?;
    std::thread::sleep(SETTLED);
    let smaps = std::fs::read_to_string(format!("/proc/{}/smaps", child.id()));
    child.kill()?;
    child.wait()?;
    let smaps = smaps?;
    let field = |line: &str, name| {
        let rest = line.strip_prefix(name)?;
        rest.trim().trim_end_matches(" kB").parse::<u64>().ok()
    };
    let (mut total, mut size) = (0, 0);
    for line in smaps.lines() {
        if let Some(kib) = field(line, "Size:") {
            size = kib;
        } else if let Some(kib) = field(line, "Rss:").filter(|_| size < GUEST_RAM_KIB) {
            total += kib;
        }
    }
    Ok(total)
}

fn median(times: impl Iterator<Item = Duration>) -> Duration {
    let mut times: Vec<_> = times.collect();
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
