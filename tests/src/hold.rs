//! Holds single threads of another process up, as a busy host holds up a vCPU.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

/// The threads of process `pid` whose name begins with one of `names`.
///
/// # Panics
/// If there is none.
pub fn threads(pid: u32, names: &[&str]) -> Vec<i32> {
    let name = |tid: &i32| fs::read_to_string(task(pid, *tid).join("comm")).unwrap_or_default();
    let all = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let found: Vec<i32> = all
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|tid| names.iter().any(|wanted| name(tid).starts_with(wanted)))
        .collect();
    assert!(!found.is_empty(), "process {pid} has no thread {names:?}");
    found
}

/// The state of a thread, as `ps` shows it: `R`, `S`, or `t` while it is held.
pub fn state(pid: u32, tid: i32) -> Option<char> {
    let stat = fs::read_to_string(task(pid, tid).join("stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// How long a thread has run so far.
///
/// # Panics
/// If there is no such thread.
pub fn cpu_time(pid: u32, tid: i32) -> Duration {
    let schedstat = fs::read_to_string(task(pid, tid).join("schedstat")).expect("a thread");
    let nanos = schedstat
        .split(' ')
        .next()
        .and_then(|text| text.parse().ok());
    Duration::from_nanos(nanos.expect("nanoseconds"))
}

fn task(pid: u32, tid: i32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/task/{tid}"))
}

/// Holds a thread up for half of the time, in stretches from 1 to 300 ms at random, until told to
/// end.
pub struct HeldUp {
    end: Arc<AtomicBool>,
    worker: JoinHandle<Duration>,
    begun: Instant,
}

impl HeldUp {
    /// Begins with it; `seed` makes the stretches.
    pub fn begin(tid: i32, seed: u64) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&end);
        let worker = std::thread::spawn(move || {
            let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
            let mut held = Duration::ZERO;
            while !told.load(Ordering::Relaxed) {
                held += hold(tid, random.stretch());
                sleep(random.stretch());
            }
            held
        });
        Self {
            end,
            worker,
            begun: Instant::now(),
        }
    }

    /// Lets the thread run from now on; which part of the time it did not.
    ///
    /// # Panics
    /// If the thread could not be held.
    pub fn end(self) -> f64 {
        self.end.store(true, Ordering::Relaxed);
        let held = self.worker.join().expect("the thread could be held");
        held.as_secs_f64() / self.begun.elapsed().as_secs_f64()
    }
}

/// Stops one thread of another process for `time`, with the rest of it running on, by attaching to
/// it as a debugger does; for how long it stood.
///
/// # Panics
/// If that is not allowed: see `ptrace(2)`.
pub fn hold(tid: i32, time: Duration) -> Duration {
    let none = std::ptr::null_mut::<libc::c_void>();
    let call = |request, data: libc::c_long| {
        // SAFETY: none of the requests here has the kernel touch memory of ours.
        unsafe { libc::ptrace(request, tid, none, data) }
    };
    let seized = call(libc::PTRACE_SEIZE, 0);
    assert_eq!(seized, 0, "{}", std::io::Error::last_os_error());
    let begun = Instant::now();
    call(libc::PTRACE_INTERRUPT, 0);
    let mut status = 0;
    // SAFETY: `status` has room for what is written.
    let waited = unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL) };
    assert_eq!(waited, tid, "{}", std::io::Error::last_os_error());
    sleep(time);
    // It may have stopped at a signal instead, which it is still to get.
    let trap_of_ours = status >> 16 == libc::PTRACE_EVENT_STOP;
    let signal = match libc::WSTOPSIG(status) {
        _ if trap_of_ours => 0,
        signal => signal,
    };
    call(libc::PTRACE_DETACH, signal.into());
    begun.elapsed()
}

/// Marsaglia's xorshift: the same stretches for the same seed.
struct Random(u64);

impl Random {
    /// From 1 to 300 ms, with equal parts of each order of magnitude.
    fn stretch(&mut self) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let fraction = (self.0 >> 11) as f64 / (1_u64 << 53) as f64;
        Duration::from_secs_f64(0.001 * 300_f64.powf(fraction))
    }
}
