//! Child processes that don't outlive their test.

use std::io;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use crate::wait::poll;

/// A child that is killed, by its handle, when it is dropped.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    /// Starts `command`.
    ///
    /// # Panics
    /// If it can't be started.
    pub fn start(command: &mut Command) -> Self {
        match command.spawn() {
            Ok(child) => Self(child),
            Err(error) => panic!("{command:?}: {error}; does `install.sh test` have to run?"),
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Stops it where it is, as a debugger would; it still ends with this value.
    pub fn stop(&self) {
        // SAFETY: the child is ours and not waited for yet, so its id is still its own.
        let stopped = unsafe { libc::kill(self.0.id() as libc::pid_t, libc::SIGSTOP) };
        assert_eq!(stopped, 0, "a child of ours can be stopped");
    }

    /// The child itself, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    /// Its status, once it has ended.
    pub fn status(&mut self) -> Option<ExitStatus> {
        self.0
            .try_wait()
            .expect("a child of ours can be waited for")
    }

    /// Waits for its end.
    pub fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        poll(patience, || self.status())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already, which is as well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs `command` to its end.
///
/// # Panics
/// If it takes longer than `patience`; it is killed then.
pub fn run(command: &mut Command, patience: Duration) -> Output {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut process = Process::start(command);
    let (out, err) = (process.0.stdout.take(), process.0.stderr.take());
    let stdout = std::thread::spawn(move || read_all(out));
    let stderr = std::thread::spawn(move || read_all(err));
    let status = process.wait(patience);
    drop(process);
    let output = (stdout.join().unwrap(), stderr.join().unwrap());
    let Some(status) = status else {
        panic!(
            "{command:?} took longer than {patience:?}:\n{}{}",
            String::from_utf8_lossy(&output.0),
            String::from_utf8_lossy(&output.1)
        );
    };
    Output {
        status,
        stdout: output.0,
        stderr: output.1,
    }
}

/// What a monitor's threads have taken of the processors, without those that run the guest.
///
/// # Errors
/// If there is no such process.
pub fn cpu_beside_guest(pid: u32) -> io::Result<Duration> {
    let mut ticks = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end meanwhile.
        let Ok(stat) = std::fs::read_to_string(task?.path().join("stat")) else {
            continue;
        };
        let (name, fields) = stat.rsplit_once(')').unwrap_or_default();
        let name = name.split_once('(').unwrap_or_default().1;
        // Ours, and QEMU's.
        if name.starts_with("vcpu") || name.starts_with("CPU ") {
            continue;
        }
        let times = fields.split_ascii_whitespace().skip(11).take(2);
        ticks += times
            .filter_map(|time| time.parse::<u64>().ok())
            .sum::<u64>();
    }
    // Of 10 ms each: USER_HZ is 100 on every Linux that KVM runs on.
    Ok(Duration::from_millis(10 * ticks))
}

/// What the children that were waited for have taken of the processors, each from its start to its end.
///
/// # Errors
/// The system's.
pub fn cpu_of_children() -> io::Result<Duration> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the place is of the size that the call fills.
    if unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all zeros is a value of it, and the call has filled it.
    let usage = unsafe { usage.assume_init() };
    let time = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec as u64) + Duration::from_micros(time.tv_usec as u64)
    };
    Ok(time(usage.ru_utime) + time(usage.ru_stime))
}

/// KiB of a process that are resident.
///
/// # Errors
/// If there is no such process.
pub fn resident_kib(pid: u32) -> io::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let lines = status
        .lines()
        .filter_map(|line| line.strip_prefix("VmRSS:"));
    let number = lines
        .filter_map(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
        .next();
    number.ok_or_else(|| io::Error::other("it has ended"))
}

fn read_all(pipe: Option<impl std::io::Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        // What came before an error is still worth showing.
        let _ = pipe.read_to_end(&mut bytes);
    }
    bytes
}
