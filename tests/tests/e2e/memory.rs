//! How the host keeps a guest's memory, as the kernel shows it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use std::fs;
use std::process::Command;
use std::time::Duration;

use caraway_tests::process::run;
use caraway_tests::vm::{Vm, bare_config, caraway, merge};
use caraway_tests::wait::wait_for;
use serde_json::{Value, json};

/// Of the guest.
const MIB: u64 = 128;
/// The same in huge pages.
const PAGES: u64 = MIB / 2;
const FOLDER: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";
const KSM: &str = "/sys/kernel/mm/ksm";
/// MiB of pages that differ from each other.
const FILLED: u64 = 48;

fn config(fill: u64, options: Value) -> Value {
    let memory = merge(json!({ "size": format!("{MIB}M") }), options);
    let cmdline = format!("test=memory fill={fill} hold");
    merge(bare_config(&cmdline), json!({ "memory": memory }))
}

/// Starts a guest that has written to its memory.
fn start(options: Value) -> Vm {
    start_filled(0, options)
}

/// The same, to every page of `mib` MiB.
fn start_filled(mib: u64, options: Value) -> Vm {
    let vm = Vm::start(&config(mib, options));
    vm.wait_for_serial("ok memory\r\n");
    vm
}

/// What the kernel shows of the mapping that is the guest's memory: names and values.
fn mapping(vm: &Vm) -> Vec<(String, String)> {
    let smaps = fs::read_to_string(format!("/proc/{}/smaps", vm.pid())).unwrap();
    let size = ("Size".to_owned(), format!("{} kB", MIB * 1024));
    let mut mappings = vec![Vec::new()];
    for line in smaps.lines() {
        match line.split_once(':') {
            Some((name, value)) if !name.contains(' ') => {
                let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
                mappings.last_mut().unwrap().push((name.to_owned(), value));
            }
            _ => mappings.push(Vec::new()),
        }
    }
    let mut ours = mappings.into_iter().filter(|it| it.contains(&size));
    ours.next()
        .unwrap_or_else(|| panic!("no mapping of {MIB} MiB in {smaps}"))
}

fn field(mapping: &[(String, String)], name: &str) -> String {
    let found = mapping.iter().find(|(key, _)| key == name);
    found.unwrap_or_else(|| panic!("no {name}")).1.clone()
}

fn flags(mapping: &[(String, String)]) -> Vec<String> {
    let flags = field(mapping, "VmFlags");
    flags.split(' ').map(str::to_owned).collect()
}

fn count(name: &str) -> u64 {
    let text = fs::read_to_string(format!("{FOLDER}/{name}")).unwrap();
    text.trim().parse().unwrap()
}

/// Huge pages that are nobody's.
fn free() -> u64 {
    count("free_hugepages") - count("resv_hugepages")
}

/// So many huge pages more on this host, for as long as this value is there.
struct Reservation(u64);

impl Reservation {
    fn new(pages: u64) -> Self {
        let before = count("nr_hugepages");
        set_reserved(before + pages);
        Self(before)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        set_reserved(self.0);
    }
}

fn set_reserved(pages: u64) {
    as_root(&format!("echo {pages} > {FOLDER}/nr_hugepages"));
}

fn as_root(script: &str) {
    // SAFETY: it only asks.
    let mut command = match unsafe { libc::geteuid() } {
        0 => Command::new("sh"),
        _ => {
            let mut command = Command::new("sudo");
            command.arg("sh");
            command
        }
    };
    let output = run(command.args(["-c", script]), Duration::from_secs(60));
    assert!(output.status.success(), "{script}: {output:?}");
}

/// The kernel looks for equal pages, and quickly, for as long as this value is there.
struct Merging(Vec<(&'static str, String)>);

impl Merging {
    fn start() -> Self {
        let wanted = [
            ("pages_to_scan", "10000"),
            ("sleep_millisecs", "10"),
            ("run", "1"),
        ];
        let before = wanted.map(|(name, _)| {
            let text = fs::read_to_string(format!("{KSM}/{name}")).unwrap();
            (name, text.trim().to_owned())
        });
        let this = Self(before.into());
        for (name, value) in wanted {
            as_root(&format!("echo {value} > {KSM}/{name}"));
        }
        this
    }
}

impl Drop for Merging {
    fn drop(&mut self) {
        for (name, value) in &self.0 {
            as_root(&format!("echo {value} > {KSM}/{name}"));
        }
    }
}

/// KiB of a field of a machine's memory.
fn kib(vm: &Vm, name: &str) -> u64 {
    let value = field(&mapping(vm), name);
    value.trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn memory_is_left_to_the_host_unless_the_config_says_more() {
    let vm = start(json!({}));

    let flags = flags(&mapping(&vm));

    for flag in ["mg", "hg", "nh", "ht", "lo"] {
        assert!(!flags.iter().any(|f| f == flag), "{flag} in {flags:?}");
    }
}

#[test]
fn memory_may_be_merged_and_made_of_huge_pages_where_the_host_finds_some() {
    let vm = start(json!({ "mergeable": true, "hugepages": "transparent" }));

    let flags = flags(&mapping(&vm));

    for flag in ["mg", "hg"] {
        assert!(flags.iter().any(|f| f == flag), "no {flag} in {flags:?}");
    }
}

#[test]
fn pages_that_two_machines_have_alike_are_kept_once() {
    let _merging = Merging::start();
    let machines = [(); 2].map(|()| start_filled(FILLED, json!({ "mergeable": true })));

    // A page that two have counts a half for each.
    wait_for("pages kept once", || {
        let shares = machines.iter().map(|vm| kib(vm, "Pss"));
        (shares.sum::<u64>() < FILLED * 1024 * 105 / 100).then_some(())
    });

    for vm in &machines {
        assert!(kib(vm, "Rss") >= FILLED * 1024);
    }
}

#[test]
fn reserved_huge_pages_are_counted_taken_and_given_back() {
    // More than others may have reserved.
    let wanted = free() + PAGES;
    let too_much = json!({ "size": format!("{}M", 2 * wanted), "hugepages": "2M" });
    let folder = tempfile::tempdir().unwrap();
    let text = config(0, too_much).to_string();
    fs::write(folder.path().join("vm.json"), text).unwrap();
    let mut command = Command::new(caraway());
    command.args(["run", "vm.json"]).current_dir(folder.path());
    let refusal = run(&mut command, Duration::from_secs(20));

    let reservation = Reservation::new(PAGES);
    let before = free();
    let vm = start(json!({ "hugepages": "2M" }));
    let mapping = mapping(&vm);
    let meanwhile = free();
    drop(vm);
    wait_for("the pages", || (free() == before).then_some(()));
    drop(reservation);

    let said = String::from_utf8_lossy(&refusal.stderr);
    assert_eq!(refusal.status.code(), Some(71), "{said}");
    let pages = format!("{wanted} huge pages of 2M");
    for words in ["memory.hugepages", &pages, "free", "nr_hugepages"] {
        assert!(said.contains(words), "{words:?} is not in:\n{said}");
    }
    assert_eq!(before - meanwhile, PAGES);
    assert_eq!(field(&mapping, "KernelPageSize"), "2048 kB");
    assert_ne!(field(&mapping, "Private_Hugetlb"), "0 kB");
}
