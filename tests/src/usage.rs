//! What a process holds, from `/proc`.

use std::fs;

/// What a process holds at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// KiB that are resident, guest RAM included.
    pub resident: u64,
    /// KiB of it that are files', mostly the program, which comes as it is needed.
    pub mapped: u64,
    /// Open files.
    pub files: usize,
    /// Threads.
    pub threads: usize,
}

impl Usage {
    /// That of the process with this id.
    ///
    /// # Panics
    /// If it is gone.
    pub fn of(pid: u32) -> Self {
        let count = |folder: &str| {
            fs::read_dir(format!("/proc/{pid}/{folder}"))
                .unwrap()
                .count()
        };
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok());
            kib.expect("a process has memory")
        };
        Self {
            resident: kib("VmRSS:"),
            mapped: kib("RssFile:"),
            files: count("fd"),
            threads: count("task"),
        }
    }
}
