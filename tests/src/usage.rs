//! What a process holds, from `/proc`.

use std::fs;

/// What a process holds at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// KiB that are resident, guest RAM included.
    pub resident: u64,
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
        let resident = status.lines().find_map(|line| {
            let rest = line.strip_prefix("VmRSS:")?;
            rest.trim().trim_end_matches(" kB").parse().ok()
        });
        Self {
            resident: resident.expect("a process has memory"),
            files: count("fd"),
            threads: count("task"),
        }
    }
}
