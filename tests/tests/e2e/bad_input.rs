//! What cannot work is refused: with its exit code, a message that names the file, the place, the
//! value and the remedy, and nothing left behind.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use caraway_tests::guest;
use caraway_tests::process::run;
use caraway_tests::vm::{Vm, bare_config, caraway, merge};
use serde_json::{Value, json};
use tempfile::TempDir;

const CONFIG: i32 = 65;
const UNAVAILABLE: i32 = 69;
const RESOURCE: i32 = 71;

/// A folder with a config in it, to be refused.
struct Case {
    folder: TempDir,
}

impl Case {
    fn new(config: &str) -> Self {
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("vm.json"), config).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs the config as it is.
    fn run(&self) -> Refusal {
        let mut command = Command::new(caraway());
        command.args(["run", "vm.json", "--api", "api"]);
        self.run_as(command)
    }

    fn run_as(&self, mut command: Command) -> Refusal {
        let before = files(self.folder.path());
        let output = run(
            command.current_dir(self.folder.path()),
            Duration::from_secs(20),
        );
        Refusal {
            code: output.status.code(),
            message: String::from_utf8_lossy(&output.stderr).into_owned(),
            left: files(self.folder.path())
                .difference(&before)
                .cloned()
                .collect(),
        }
    }
}

fn files(folder: &Path) -> BTreeSet<PathBuf> {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect()
}

/// How the program refused.
struct Refusal {
    code: Option<i32>,
    message: String,
    left: Vec<PathBuf>,
}

impl Refusal {
    /// Fails unless the code and every word are there, and nothing else.
    #[track_caller]
    fn assert(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.message);
        for word in words {
            assert!(
                self.message.contains(word),
                "{word:?} is not in:\n{}",
                self.message
            );
        }
        assert!(!self.message.contains("panicked"), "{}", self.message);
        assert_eq!(self.left, [] as [PathBuf; 0]);
    }
}

fn refuse(config: &Value) -> Refusal {
    Case::new(&config.to_string()).run()
}

fn bare(more: Value) -> Value {
    merge(bare_config("hold"), more)
}

/// Runs the program where `mounts` has changed `/dev`, in a mount namespace of its own.
fn run_with_mounts(case: &Case, mounts: &str) -> Refusal {
    let mut command = Command::new("unshare");
    if !fs::metadata("/proc/self").is_ok_and(|data| std::os::unix::fs::MetadataExt::uid(&data) == 0)
    {
        command.arg("--map-root-user");
    }
    let script = format!(
        "set -e; {mounts}; exec {} run vm.json --api api",
        caraway().display()
    );
    command.args(["--mount", "sh", "-c", &script]);
    case.run_as(command)
}

#[test]
fn a_host_without_kvm() {
    let case = Case::new(&bare(json!({})).to_string());
    let other = TempDir::new().unwrap();
    let mut mounts = format!("cd {}", other.path().display());
    for device in ["null", "zero", "urandom"] {
        mounts += &format!("; touch {device}; mount --bind /dev/{device} {device}");
    }
    mounts += &format!(
        "; mount --rbind . /dev; cd {}",
        case.folder.path().display()
    );

    let refusal = run_with_mounts(&case, &mounts);

    refusal.assert(UNAVAILABLE, &["/dev/kvm", "modprobe kvm"]);
}

#[test]
fn a_user_without_the_right_to_kvm() {
    let case = Case::new(&bare(json!({})).to_string());
    let mounts = "mount --bind /dev/kvm /dev/kvm; mount -o remount,bind,nodev /dev/kvm";

    let refusal = run_with_mounts(&case, mounts);

    refusal.assert(UNAVAILABLE, &["/dev/kvm", "permission denied", "kvm group"]);
}

#[test]
fn a_config_that_is_not_there() {
    let case = Case::new("{}");
    fs::remove_file(case.path("vm.json")).unwrap();

    case.run().assert(CONFIG, &["vm.json", "No such file"]);
}

#[test]
fn a_config_that_is_not_json() {
    let refusal = Case::new("{\n  \"boot\": { \"firmware\": \"seabios\" },,\n}").run();

    refusal.assert(CONFIG, &["vm.json:2"]);
}

#[test]
fn an_unknown_key() {
    let refusal = refuse(&bare(json!({ "memroy": "1G" })));

    refusal.assert(CONFIG, &["vm.json", "memroy", "memory"]);
}

#[test]
fn an_unknown_key_deep_down() {
    let refusal = refuse(&bare(json!({ "display": { "devise": "qxl" } })));

    refusal.assert(CONFIG, &["vm.json", "display", "devise", "device"]);
}

#[test]
fn a_wrong_type() {
    let refusal = refuse(&bare(json!({ "cpus": "two" })));

    refusal.assert(CONFIG, &["vm.json", "cpus", "two"]);
}

#[test]
fn a_value_that_is_not_among_those_allowed() {
    let refusal = refuse(&bare(json!({ "on": { "reset": "explode" } })));

    refusal.assert(
        CONFIG,
        &["vm.json", "on.reset", "explode", "reboot", "exit"],
    );
}

#[test]
fn two_devices_of_one_id() {
    let disk = json!({ "id": "root", "path": guest::COLOURS, "format": "raw", "readonly": true });

    let refusal = refuse(&bare(json!({ "disks": [disk, disk] })));

    refusal.assert(CONFIG, &["vm.json", "disks[1]", "root"]);
}

#[test]
fn two_devices_at_one_address() {
    let disk = |id: &str| {
        json!({ "id": id, "path": guest::COLOURS, "format": "raw", "readonly": true,
                "address": "00:05.0" })
    };

    let refusal = refuse(&bare(json!({ "disks": [disk("a"), disk("b")] })));

    refusal.assert(CONFIG, &["vm.json", "disks[1].address", "00:05.0"]);
}

#[test]
fn a_missing_kernel() {
    let refusal = refuse(&json!({ "boot": { "kernel": "no-such-kernel" } }));

    refusal.assert(CONFIG, &["vm.json", "boot.kernel", "no-such-kernel"]);
}

#[test]
fn a_missing_disk() {
    let disks = json!([{ "path": "no-such-disk.raw", "format": "raw" }]);

    let refusal = refuse(&bare(json!({ "disks": disks })));

    refusal.assert(CONFIG, &["vm.json", "disks[0].path", "no-such-disk.raw"]);
}

#[test]
fn a_missing_firmware() {
    let refusal = refuse(&json!({ "boot": { "firmware": "/no/such/bios.bin" } }));

    refusal.assert(CONFIG, &["vm.json", "boot.firmware", "/no/such/bios.bin"]);
}

#[test]
fn a_disk_that_another_machine_uses() {
    let disk = tempfile::NamedTempFile::new().unwrap();
    disk.as_file().set_len(1 << 20).unwrap();
    let config = bare(json!({ "disks": [{ "path": disk.path(), "format": "raw" }] }));
    let first = Vm::start(&config);

    let refusal = refuse(&config);

    let user = first.pid().to_string();
    refusal.assert(RESOURCE, &[&disk.path().display().to_string(), &user]);
}

#[test]
fn a_port_in_use() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();

    let refusal = refuse(&bare(
        json!({ "display": {}, "spice": { "listen": [&address] } }),
    ));

    refusal.assert(RESOURCE, &[&address, "in use"]);
}

#[test]
fn a_socket_path_that_the_kernel_does_not_take() {
    let long = format!("unix:/tmp/{}", "x".repeat(103));

    let refusal = refuse(&bare(
        json!({ "display": {}, "spice": { "listen": [&long] } }),
    ));

    refusal.assert(CONFIG, &["vm.json", "spice.listen[0]", "107"]);
}

#[test]
fn more_memory_than_the_host_has() {
    let refusal = refuse(&bare(json!({ "memory": "100000G" })));

    refusal.assert(CONFIG, &["vm.json", "memory", "100000G"]);
}

#[test]
fn a_truncated_bzimage() {
    let case = Case::new(&json!({ "boot": { "kernel": "cut.bzImage" } }).to_string());
    let mut image = vec![0; 0x1200];
    image[0x1f1] = 30; // set-up sectors: more than there are
    image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x020f_u16.to_le_bytes());
    image[0x211] = 1;
    fs::write(case.path("cut.bzImage"), image).unwrap();

    case.run().assert(CONFIG, &["boot.kernel", "cut.bzImage"]);
}

#[test]
fn a_kernel_that_is_no_kernel() {
    let case = Case::new(&json!({ "boot": { "kernel": "text" } }).to_string());
    fs::write(case.path("text"), "not a kernel at all").unwrap();

    case.run()
        .assert(CONFIG, &["boot.kernel", "text", "bzImage"]);
}
