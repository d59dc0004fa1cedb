//! What the checks must know of the host.

use std::path::{Path, PathBuf};

/// Where distributions put guest firmware.
const FIRMWARE_FOLDERS: [&str; 4] = [
    "/usr/share/seabios",
    "/usr/share/qemu",
    "/usr/share/seavgabios",
    "/usr/share/OVMF",
];

/// What the checks must know of the host; a test makes its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Bytes of physical memory; 0 if unknown.
    pub memory: u64,
    /// Folders that may hold guest firmware, the first one first.
    pub firmware: Vec<PathBuf>,
}

impl Host {
    /// The host that this runs on. `CARAWAY_FIRMWARE` may name a folder that is looked at first.
    #[must_use]
    pub fn probe() -> Self {
        let own = std::env::var_os("CARAWAY_FIRMWARE").map(PathBuf::from);
        Self {
            memory: meminfo("MemTotal").unwrap_or(0),
            firmware: own
                .into_iter()
                .chain(FIRMWARE_FOLDERS.map(PathBuf::from))
                .collect(),
        }
    }

    /// Where the firmware file `name` is.
    #[must_use]
    pub fn find_firmware(&self, name: &str) -> Option<PathBuf> {
        self.firmware
            .iter()
            .map(|folder| folder.join(name))
            .find(|path| path.is_file())
    }
}

/// Bytes of the field `name` of `/proc/meminfo`.
pub(crate) fn meminfo(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(Path::new("/proc/meminfo")).ok()?;
    let rest = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kib: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}
