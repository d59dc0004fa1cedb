//! What this host can and can't do, and the fix for each.

use std::fmt::Write;
use std::path::Path;

use caraway_arch::memory::PageSize;
use kvm_ioctls::{Cap, Kvm};
use serde::Serialize;

use crate::config::Host;
use crate::config::units::{MIB, Size};
use crate::exit::Exit;
use crate::machine::PASST;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It is there.
    Ok,
    /// Something optional is missing.
    Warn,
    /// No machine can run, or none with firmware.
    Fail,
}

/// One check of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: &'static str,
    /// How it came out.
    pub outcome: Outcome,
    /// What was found.
    pub detail: String,
    /// What to do if it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
    /// Whether no machine runs without it.
    pub vital: bool,
}

impl Finding {
    fn new(check: &'static str, outcome: Outcome, detail: impl Into<String>) -> Self {
        Self {
            check,
            outcome,
            detail: detail.into(),
            fix: None,
            vital: false,
        }
    }

    fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    fn vital(mut self) -> Self {
        self.vital = true;
        self
    }
}

/// The capabilities of KVM that a machine needs, and what for.
const CAPABILITIES: [(Cap, &str, &str); 7] = [
    (
        Cap::Irqchip,
        "kvm: irqchip",
        "interrupt controllers in the kernel",
    ),
    (Cap::Irqfd, "kvm: irqfd", "interrupts by eventfd"),
    (
        Cap::Ioeventfd,
        "kvm: ioeventfd",
        "queue notifications by eventfd",
    ),
    (
        Cap::SignalMsi,
        "kvm: signal MSI",
        "message-signalled interrupts",
    ),
    (
        Cap::UserMemory,
        "kvm: user memory",
        "guest memory of our own",
    ),
    (
        Cap::ImmediateExit,
        "kvm: immediate exit",
        "vCPUs that can be stopped",
    ),
    (
        Cap::AdjustClock,
        "kvm: adjust clock",
        "a clock that survives pauses",
    ),
];

/// Looks at everything; changes nothing.
#[must_use]
pub fn examine(host: &Host) -> Vec<Finding> {
    let mut findings = kvm();
    findings.push(firmware(host, "seabios", "bios-256k.bin"));
    findings.push(firmware(host, "vga bios", "vgabios-qxl.bin"));
    findings.extend([ovmf(), memory(), huge_pages(), ksm(), io_uring()]);
    findings.extend([tap(), passt()]);
    findings
}

/// How `caraway doctor` ends: 69 if no machine can run here.
#[must_use]
pub fn exit(findings: &[Finding]) -> Exit {
    let lacking = |f: &Finding| f.vital && f.outcome == Outcome::Fail;
    if findings.iter().any(lacking) {
        Exit::Unsupported
    } else {
        Exit::Success
    }
}

/// What to do about a `/dev/kvm` that can't be opened for the reason `errno`.
#[must_use]
pub fn kvm_fix(errno: i32) -> &'static str {
    match errno {
        libc::ENOENT => {
            "load the module (modprobe kvm_intel or kvm_amd), turn virtualization on in the \
             firmware setup, or allow nested virtualization if this is itself a guest"
        }
        libc::EACCES | libc::EPERM => "join the group kvm: usermod -aG kvm $USER, then log in anew",
        libc::EBUSY => "another hypervisor uses the CPU's virtualization: stop it",
        _ => "see what `dmesg | grep -i kvm` says",
    }
}

fn kvm() -> Vec<Finding> {
    let kvm = match Kvm::new() {
        Ok(kvm) => kvm,
        Err(error) => {
            let detail = std::io::Error::from_raw_os_error(error.errno()).to_string();
            let finding = Finding::new("kvm: /dev/kvm", Outcome::Fail, detail);
            return vec![finding.fix(kvm_fix(error.errno())).vital()];
        }
    };
    let version = kvm.get_api_version();
    let detail = format!("API version {version}, up to {} vCPUs", kvm.get_max_vcpus());
    let mut findings = vec![Finding::new("kvm: /dev/kvm", Outcome::Ok, detail).vital()];
    findings.extend(CAPABILITIES.map(|(capability, check, what)| {
        if kvm.check_extension(capability) {
            Finding::new(check, Outcome::Ok, what).vital()
        } else {
            Finding::new(check, Outcome::Fail, format!("missing: {what}"))
                .fix("run a newer kernel, 5.10 or later")
                .vital()
        }
    }));
    findings
}

fn firmware(host: &Host, check: &'static str, file: &str) -> Finding {
    match host.find_firmware(file) {
        Some(path) => Finding::new(check, Outcome::Ok, path.display().to_string()),
        None => Finding::new(check, Outcome::Warn, format!("no {file}"))
            .fix("apt install seabios; direct kernel boot works without"),
    }
}

fn ovmf() -> Finding {
    const PATH: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
    if Path::new(PATH).is_file() {
        Finding::new("ovmf", Outcome::Ok, PATH)
    } else {
        Finding::new("ovmf", Outcome::Warn, "not installed").fix("apt install ovmf")
    }
}

fn memory() -> Finding {
    let field = |name| crate::config::meminfo(name).unwrap_or(0) / MIB * MIB;
    let (total, free) = (field("MemTotal"), field("MemAvailable"));
    let detail = format!("{} of {} available", Size(free), Size(total));
    if free < 256 * MIB {
        Finding::new("memory", Outcome::Warn, detail).fix("end something, or use small machines")
    } else {
        Finding::new("memory", Outcome::Ok, detail)
    }
}

fn number(path: &str) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// How the host comes to find huge pages for guests that ask for them.
pub const HUGE_PAGES_FIX: &str = "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled";
/// How it comes to merge equal pages.
pub const KSM_FIX: &str = "echo 1 > /sys/kernel/mm/ksm/run";

/// When the host looks for huge pages.
fn transparent() -> String {
    let text = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    let text = text.unwrap_or_default();
    text.split(['[', ']']).nth(1).unwrap_or("absent").to_owned()
}

/// Whether guests that ask for huge pages get some.
#[must_use]
pub fn huge_pages_are_found() -> bool {
    matches!(transparent().as_str(), "always" | "madvise")
}

/// Whether the host merges pages that are equal.
#[must_use]
pub fn ksm_runs() -> bool {
    number("/sys/kernel/mm/ksm/run") == Some(1)
}

fn huge_pages() -> Finding {
    let sizes = PageSize::ALL
        .into_iter()
        .filter(|size| size.folder().is_dir());
    let reserved = sizes.map(|size| {
        let (all, free) = size.reserved();
        format!("{all} of {size} ({free} free)")
    });
    let reserved: Vec<_> = reserved.collect();
    let reserved = match reserved.as_slice() {
        [] => "none".to_owned(),
        sizes => sizes.join(", "),
    };
    let detail = format!("transparent: {}; reserved: {reserved}", transparent());
    if huge_pages_are_found() {
        Finding::new("huge pages", Outcome::Ok, detail)
    } else {
        Finding::new("huge pages", Outcome::Warn, detail).fix(HUGE_PAGES_FIX)
    }
}

fn ksm() -> Finding {
    match number("/sys/kernel/mm/ksm/run") {
        Some(1) => {
            let pages = number("/sys/kernel/mm/ksm/pages_sharing").unwrap_or(0);
            let saved = Size(pages * 4096 / MIB * MIB);
            Finding::new("ksm", Outcome::Ok, format!("running, {saved} saved"))
        }
        Some(_) => Finding::new("ksm", Outcome::Warn, "present, not running").fix(format!(
            "{KSM_FIX}, if machines should share equal pages (`\"mergeable\": true`)"
        )),
        None => Finding::new("ksm", Outcome::Warn, "not in this kernel"),
    }
}

fn io_uring() -> Finding {
    let mut parameters = [0_u64; 16];
    // SAFETY: the kernel reads and writes a struct io_uring_params of 120 bytes, all zero to
    // begin with, for which the array has room.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()) };
    if fd < 0 {
        let error = std::io::Error::last_os_error();
        return Finding::new(
            "io_uring",
            Outcome::Warn,
            format!("{error}; disks are slower"),
        )
        .fix("sysctl kernel.io_uring_disabled=0, or allow it in the container's seccomp filter");
    }
    // SAFETY: the kernel has just given us this descriptor.
    unsafe { libc::close(fd as libc::c_int) };
    Finding::new("io_uring", Outcome::Ok, "usable")
}

fn tap() -> Finding {
    const NET_ADMIN: u64 = 1 << 12;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let capable = status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok())
        .is_some_and(|set| set & NET_ADMIN != 0);
    let node = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun");
    match (node, capable) {
        (Ok(_), true) => Finding::new("tap", Outcome::Ok, "may make tap interfaces"),
        (Ok(_), false) => Finding::new("tap", Outcome::Warn, "may use taps, not make them")
            .fix("have root make one: ip tuntap add tap0 mode tap user $USER"),
        (Err(error), _) => Finding::new("tap", Outcome::Warn, format!("/dev/net/tun: {error}"))
            .fix("modprobe tun; the node should be readable and writable"),
    }
}

fn passt() -> Finding {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).map(|folder| folder.join(PASST));
    match places.find(|place| place.is_file()) {
        Some(place) => Finding::new(PASST, Outcome::Ok, place.display().to_string()),
        None => Finding::new(PASST, Outcome::Warn, "not installed").fix(
            "apt install passt, if machines should have networks (`\"user\": {}`) without rights",
        ),
    }
}

/// The findings as a table, the fixes below what they fix.
#[must_use]
pub fn to_text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let mark = match finding.outcome {
            Outcome::Ok => "ok",
            Outcome::Warn => "warn",
            Outcome::Fail => "FAIL",
        };
        // Writing to a string can't fail.
        let _ = writeln!(text, "{mark:<5} {:<20} {}", finding.check, finding.detail);
        if let Some(fix) = &finding.fix {
            let _ = writeln!(text, "      {:<20} fix: {fix}", "");
        }
    }
    let _ = match exit(findings) {
        Exit::Success => writeln!(text, "\nMachines can run here."),
        _ => writeln!(
            text,
            "\nNo machine can run here until what failed is fixed."
        ),
    };
    text
}

/// The findings for programs.
#[must_use]
pub fn to_json(findings: &[Finding]) -> String {
    let able = exit(findings) == Exit::Success;
    let report = serde_json::json!({ "able": able, "findings": findings });
    format!("{report:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_something_vital_is_unsupported() {
        let findings = [Finding::new("kvm", Outcome::Fail, "").vital()];

        assert_eq!(exit(&findings), Exit::Unsupported);
    }

    #[test]
    fn a_host_that_lacks_extras_will_do() {
        let findings = [
            Finding::new("kvm", Outcome::Ok, "").vital(),
            Finding::new("tap", Outcome::Warn, ""),
        ];

        assert_eq!(exit(&findings), Exit::Success);
    }

    #[test]
    fn everything_that_is_not_there_has_a_fix() {
        let host = Host {
            memory: 0,
            firmware: Vec::new(),
        };

        let findings = examine(&host);

        let seabios = findings.iter().find(|f| f.check == "seabios").unwrap();
        assert_eq!(seabios.outcome, Outcome::Warn);
        assert!(
            seabios
                .fix
                .as_deref()
                .unwrap()
                .contains("apt install seabios")
        );
    }

    #[test]
    fn fixes_stand_below_what_they_fix() {
        let text = to_text(&[Finding::new("tap", Outcome::Warn, "none").fix("make one")]);

        assert!(text.contains("warn  tap"), "{text}");
        assert!(text.contains("fix: make one"), "{text}");
    }
}
