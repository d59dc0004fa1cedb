//! Disks of every format, under a driver that knows what must be on them, and judged by `qemu-img`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use caraway_tests::vm::{Vm, bare_config, caraway, merge};
use caraway_tests::wait::{poll, wait_for};
use serde_json::{Value, json};
use tempfile::TempDir;

#[path = "../../guests/bare/src/virtio/plan.rs"]
#[allow(dead_code, reason = "the guest uses all of it")]
mod plan;

use plan::{BLOCK, BLOCKS, Known, Op, Plan, SECTOR, place};

const SIZE: u64 = 64 << 20;
const SECTORS: u64 = SIZE / SECTOR as u64;

/// Images in a folder of their own.
struct Images(TempDir);

impl Images {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// `qemu-img` in the folder; what it prints.
    fn qemu_img(&self, arguments: &str) -> String {
        let (said, sound) = self.try_qemu_img(arguments);
        assert!(sound, "qemu-img {arguments}: {said}");
        said
    }

    fn try_qemu_img(&self, arguments: &str) -> (String, bool) {
        let mut command = Command::new("qemu-img");
        command.args(arguments.split(' ')).current_dir(&self.0);
        let output = command.output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (String::from_utf8(said).unwrap(), output.status.success())
    }

    /// A raw image with something in every block, which is what an image may be put upon.
    fn base(&self, name: &str) {
        let file = File::create(self.path(name)).unwrap();
        file.set_len(SIZE).unwrap();
        for megabyte in 0..SIZE >> 20 {
            let bytes = vec![0xb0 ^ megabyte as u8; 64 << 10];
            file.write_all_at(&bytes, megabyte << 20).unwrap();
        }
    }

    /// The disk in an image, as bytes.
    fn disk(&self, name: &str, format: &str) -> Vec<u8> {
        self.qemu_img(&format!(
            "convert -U -f {format} -O raw {name} {name}.bytes"
        ));
        let bytes = fs::read(self.path(&format!("{name}.bytes"))).unwrap();
        fs::remove_file(self.path(&format!("{name}.bytes"))).unwrap();
        bytes
    }
}

/// What must be known of each block after the first `count` requests of a plan.
fn known_after(plan: Plan, count: usize) -> Vec<Known> {
    let mut known = vec![Known::Nothing; BLOCKS];
    for op in plan.take(count) {
        if let Some(block) = op.block() {
            known[block] = known[block].after(op);
        }
    }
    known
}

fn word(bytes: &[u8], sector: u64, index: u64) -> u64 {
    let at = (sector * SECTOR as u64 + index * 8) as usize;
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn assert_holds(disk: &[u8], known: &[Known]) {
    for (block, known) in known.iter().enumerate() {
        for at in 0..BLOCK {
            let sector = place(block, SECTORS) + at;
            for index in 0..SECTOR as u64 / 8 {
                if let Some(wanted) = known.word(sector, index) {
                    let found = word(disk, sector, index);
                    assert_eq!(found, wanted, "block {block}, sector {sector}, {known:?}");
                }
            }
        }
    }
}

fn run(cmdline: &str, disk: Value) -> String {
    let mut vm = Vm::bare(cmdline, json!({ "disks": [disk] }));
    let code = vm.wait();
    assert_eq!(code, 0, "{}\n{}", vm.serial(), vm.stderr());
    vm.serial()
}

/// Runs the plan of `seed` on `disk`, and checks what it left in the image `name`.
fn exercise(images: &Images, name: &str, format: &str, disk: Value, seed: u64) {
    run(&format!("test=disk seed={seed} rounds=250"), disk);

    let known = known_after(Plan::new(seed, true), 250);
    assert_holds(&images.disk(name, format), &known);
    if format == "qcow2" {
        let said = images.qemu_img(&format!("check {name}"));
        assert!(said.contains("No errors were found"), "{said}");
    }
}

#[test]
fn a_qcow2_disk_holds_what_was_written() {
    let images = Images::new();
    images.qemu_img(&format!("create -q -f qcow2 a.qcow2 {SIZE}"));
    let path = images.path("a.qcow2");

    exercise(&images, "a.qcow2", "qcow2", json!({ "path": path }), 1);
}

#[test]
fn a_qcow2_disk_on_a_chain_leaves_what_is_under_it_alone() {
    let images = Images::new();
    images.base("base.img");
    images.qemu_img("create -q -f qcow2 -b base.img -F raw middle.qcow2");
    images.qemu_img("create -q -f qcow2 -b middle.qcow2 -F qcow2 -o cluster_size=4096 top.qcow2");
    let below = ["base.img", "middle.qcow2"].map(|name| fs::read(images.path(name)).unwrap());
    let backing = [images.path("middle.qcow2"), images.path("base.img")];
    let backing = backing.map(|path| json!({ "path": path }));

    let disk = json!({ "path": images.path("top.qcow2"), "backing": backing });
    exercise(&images, "top.qcow2", "qcow2", disk, 2);

    let after = ["base.img", "middle.qcow2"].map(|name| fs::read(images.path(name)).unwrap());
    assert!(below == after, "an image under the disk's own has changed");
    let (disk, base) = (images.disk("top.qcow2", "qcow2"), &below[0]);
    let used: Vec<u64> = (0..BLOCKS).map(|block| place(block, SECTORS)).collect();
    let same = (0..SECTORS).filter(|sector| !used.contains(&(sector / BLOCK * BLOCK)));
    for at in same.map(|sector| sector as usize * SECTOR) {
        assert!(disk[at..at + SECTOR] == base[at..at + SECTOR], "byte {at}");
    }
}

#[test]
fn compressed_clusters_can_be_overwritten() {
    let images = Images::new();
    images.base("base.img");
    images.qemu_img("convert -c -f raw -O qcow2 base.img packed.qcow2");
    let path = images.path("packed.qcow2");

    exercise(&images, "packed.qcow2", "qcow2", json!({ "path": path }), 3);
}

#[test]
fn version_2_and_the_smallest_clusters_do_too() {
    let images = Images::new();
    images.qemu_img(&format!(
        "create -q -f qcow2 -o compat=0.10 old.qcow2 {SIZE}"
    ));
    images.qemu_img(&format!(
        "create -q -f qcow2 -o cluster_size=512 small.qcow2 {SIZE}"
    ));

    for (name, seed) in [("old.qcow2", 4), ("small.qcow2", 5)] {
        let path = images.path(name);
        exercise(&images, name, "qcow2", json!({ "path": path }), seed);
    }
}

#[test]
fn every_cache_mode_holds_what_was_written_on_several_queues() {
    let images = Images::new();
    for (mode, seed) in ["none", "writethrough", "directsync", "unsafe"]
        .iter()
        .zip(6..)
    {
        for format in ["raw", "qcow2"] {
            let name = format!("{mode}.{format}");
            images.qemu_img(&format!("create -q -f {format} {name} {SIZE}"));
            let disk =
                json!({ "path": images.path(&name), "format": format, "cache": mode, "queues": 4 });

            let serial = run(&format!("test=disk queues=4 seed={seed} rounds=30"), disk);

            assert!(serial.contains("queues 4"), "{serial}");
            let known = known_after(Plan::new(seed, true), 30);
            assert_holds(&images.disk(&name, format), &known);
        }
    }
}

#[test]
fn a_flat_vmdk_disk_reads_as_qemu_reads_it() {
    let images = Images::new();
    images.base("base.img");
    images.qemu_img("convert -f raw -O vmdk -o subformat=monolithicFlat base.img flat.vmdk");
    let disk = json!({ "path": images.path("flat.vmdk"), "readonly": true });
    let mut vm = Vm::bare("test=blk", json!({ "disks": [disk] }));

    // The guest's first request is a write, which a disk that is read-only refuses.
    assert_eq!(vm.wait(), 1, "{}", vm.serial());

    assert!(
        vm.serial().contains(&format!("blk sectors {SECTORS}")),
        "{}",
        vm.serial()
    );
    assert!(
        vm.serial().contains("type 1, sector 0: status 1"),
        "{}",
        vm.serial()
    );
}

/// What is wrong with disks, which must end the program with 71 before anything is written.
fn refused(disk: Value, word: &str) {
    let path = PathBuf::from(disk["path"].as_str().unwrap());
    let before = fs::read(&path).unwrap();
    let mut vm = Vm::bare("test=nothing", json!({ "disks": [disk] }));

    let code = vm.wait();

    let said = vm.stderr();
    assert_eq!(code, 71, "{said}");
    assert!(said.contains(word), "{said:?} does not say {word:?}");
    assert!(
        fs::read(&path).unwrap() == before,
        "{path:?} was written to"
    );
}

#[test]
fn images_that_can_not_be_used_are_refused_by_name() {
    let images = Images::new();
    images.base("base.img");
    images.qemu_img("create -q -f qcow2 -b base.img -F raw top.qcow2");
    images.qemu_img("convert -f raw -O vmdk base.img sparse.vmdk");
    images.qemu_img("create -q -f qcow2 alone.qcow2 1M");
    let path = |name: &str| images.path(name);
    let end = fs::metadata(path("alone.qcow2")).unwrap().len();
    fs::copy(path("alone.qcow2"), path("cut.qcow2")).unwrap();
    let cut = File::options().write(true).open(path("cut.qcow2")).unwrap();
    cut.set_len(end / 2).unwrap();

    refused(json!({ "path": path("top.qcow2") }), "add it to `backing`");
    refused(
        json!({ "path": path("alone.qcow2"), "backing": [{ "path": path("base.img") }] }),
        "has no backing file",
    );
    let twice =
        [path("base.img"), path("base.img")].map(|path| json!({ "path": path, "format": "qcow2" }));
    refused(
        json!({ "path": path("top.qcow2"), "backing": twice }),
        "does not begin as a qcow2",
    );
    images.qemu_img("create -q -f qcow2 -u -b top.qcow2 -F qcow2 self.qcow2 1M");
    refused(
        json!({ "path": path("self.qcow2"), "backing": [{ "path": path("self.qcow2") }] }),
        "twice in one chain",
    );
    refused(
        json!({ "path": path("base.img"), "format": "qcow2" }),
        "say the right `format`",
    );
    refused(json!({ "path": path("cut.qcow2") }), "cut off");
    refused(
        json!({ "path": path("sparse.vmdk"), "readonly": true }),
        "sparse vmdk",
    );
}

#[test]
fn an_image_under_two_disks_may_only_be_read() {
    let images = Images::new();
    images.base("base.img");
    let backing = json!([{ "path": images.path("base.img") }]);
    for name in ["a.qcow2", "b.qcow2"] {
        images.qemu_img(&format!("create -q -f qcow2 -b base.img -F raw {name}"));
    }
    let on_base = |name: &str| json!({ "path": images.path(name), "backing": backing });
    let shared = json!({ "disks": [on_base("a.qcow2"), on_base("b.qcow2")] });
    let written = json!({ "disks": [on_base("a.qcow2"), { "path": images.path("base.img") }] });

    let mut both = Vm::bare("test=nothing", shared);
    assert_eq!(both.wait(), 0, "{}", both.stderr());
    let mut clash = Vm::bare("test=nothing", written);
    assert_eq!(clash.wait(), 71);
    assert!(
        clash.stderr().contains("in use by process"),
        "{}",
        clash.stderr()
    );
}

#[test]
fn qemu_may_read_what_is_under_a_running_disk_and_not_write_it() {
    let images = Images::new();
    images.base("base.img");
    images.qemu_img("create -q -f qcow2 -b base.img -F raw top.qcow2");
    let disk = json!({
        "path": images.path("top.qcow2"), "backing": [{ "path": images.path("base.img") }],
    });
    let vm = Vm::bare("test=nothing hold", json!({ "disks": [disk] }));
    vm.wait_for_serial("ok nothing");

    let (_, reads) = images.try_qemu_img("convert -f raw -O raw base.img copy.img");
    let (said, writes) = images.try_qemu_img("resize -f raw base.img +1M");
    let (_, writes_top) = images.try_qemu_img("resize top.qcow2 +1M");

    assert!(reads && !writes && !writes_top, "{said}");
}

#[test]
fn a_running_disk_grows_and_is_limited() {
    let images = Images::new();
    images.qemu_img(&format!("create -q -f qcow2 a.qcow2 {SIZE}"));
    let disk = json!({ "id": "root", "path": images.path("a.qcow2") });
    let vm = Vm::bare("test=disk rounds=0 discards=0", json!({ "disks": [disk] }));
    vm.wait_for_serial("flushed ");

    vm.api()
        .put("disk.resize", r#"{ "id": "root", "size": "96M" }"#);
    let slow = r#"{ "id": "root", "limits": { "ops_per_second": 20, "ops_burst": 1 } }"#;
    vm.api().put("disk.limit", slow);
    let reads = || metric(&vm, "disk_reads_total") + metric(&vm, "disk_writes_total");
    let before = reads();
    std::thread::sleep(Duration::from_secs(1));
    let within = reads() - before;

    let disks = vm.api().json("disk.list");
    assert_eq!(disks["disks"][0]["size"], 96 << 20);
    assert_eq!(disks["disks"][0]["limits"]["ops_per_second"], 20);
    assert!(within <= 40, "{within} requests in a second");
    assert!(metric(&vm, "disk_throttled_total") > 0);
    let smaller = vm
        .api()
        .ask("PUT", "disk.resize", r#"{ "id": "root", "size": "1M" }"#);
    assert_eq!(smaller.unwrap().status, 400);
    let unknown = vm
        .api()
        .ask("PUT", "disk.resize", r#"{ "id": "rot", "size": "1M" }"#);
    assert_eq!(unknown.unwrap().status, 404);
    let events = String::from_utf8(vm.api().get("events?since=0&replay_only=true")).unwrap();
    assert!(
        events.contains("disk.resized") && events.contains("disk.limited"),
        "{events}"
    );
    vm.api().put("vm.shutdown", "");
    drop(vm);
    let said = images.qemu_img("check a.qcow2");
    assert!(said.contains("No errors were found"), "{said}");
}

#[test]
fn a_full_host_pauses_the_machine_which_goes_on_when_there_is_room() {
    let images = Images::new();
    let folder = images.0.path().display().to_string();
    let mut command = Command::new("unshare");
    let script = "mount -t tmpfs -o size=8M none \"$0\" && truncate -s 64M \"$0/disk.img\" \
                  && head -c 7900K /dev/zero >\"$0/ballast\" && exec \"$@\"";
    command
        .args(["-rm", "sh", "-c", script, &folder])
        .arg(caraway());
    let disk = json!({ "id": "root", "path": images.path("disk.img") });
    let config = merge(
        bare_config("test=disk rounds=900 discards=0"),
        json!({ "disks": [disk] }),
    );
    let mut vm = Vm::start_by(command, &config, &[]);
    let events = || String::from_utf8(vm.api().get("events?since=0&replay_only=true"));
    let stopped = poll(Duration::from_secs(60), || {
        let paused = vm.api().ask("GET", "vm.info", "").ok()?;
        let paused = String::from_utf8(paused.body)
            .ok()?
            .contains(r#""state":"paused""#);
        paused.then(|| events().unwrap())
    });

    let ballast = format!("/proc/{}/root{folder}/ballast", vm.pid());
    fs::remove_file(ballast).unwrap();
    vm.api().put("vm.resume", "");

    let stopped = stopped.unwrap();
    let told = [
        "disk.error",
        r#""no_space":true"#,
        r#""action":"pause""#,
        "vm.paused",
    ];
    assert!(told.iter().all(|told| stopped.contains(told)), "{stopped}");
    assert_eq!(vm.wait(), 0, "{}", vm.serial());
}

fn metric(vm: &Vm, name: &str) -> u64 {
    let text = String::from_utf8(vm.api().get("metrics")).unwrap();
    let line = text
        .lines()
        .find(|line| line.starts_with(&format!("caraway_{name}{{")));
    let number = line.and_then(|line| line.rsplit(' ').next());
    number.unwrap().parse().unwrap()
}

/// Kills a program in the middle of writes; what was flushed must be there.
fn kill_in_the_middle(images: &Images, name: &str, format: &str, seed: u64, after: Duration) {
    images.qemu_img(&format!("create -q -f {format} {name} {SIZE}"));
    let disk = json!({ "path": images.path(name), "format": format });
    let vm = Vm::bare(
        &format!("test=disk rounds=0 discards=0 seed={seed}"),
        json!({ "disks": [disk] }),
    );
    vm.wait_for_serial("flushed ");
    std::thread::sleep(after);
    kill(vm.pid());
    // Of a line that is not whole, the number may not be either.
    let serial = vm.serial();
    let whole = serial.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let mut flushes = whole
        .lines()
        .filter_map(|line| line.strip_prefix("flushed "));
    let flushed = flushes
        .next_back()
        .map_or(0, |number| number.trim().parse::<usize>().unwrap());
    drop(vm);
    // The kernel lets go of what its io_uring has open a moment after the process has gone. Only what reads
    // a raw image minds its lock, and "info" does not.
    wait_for("the image to be free", || {
        let (_, is_free) = images.try_qemu_img(&format!("map -f {format} {name}"));
        is_free.then_some(())
    });

    if format == "qcow2" {
        let (said, _) = images.try_qemu_img(&format!("check {name}"));
        assert!(said.contains("No errors were found"), "seed {seed}: {said}");
    }
    // Of what came after the last flush, the disk may have any part, sector by sector.
    let disk = images.disk(name, format);
    let mut known = known_after(Plan::new(seed, false), flushed);
    let mut later: HashMap<usize, Vec<u64>> = HashMap::new();
    for op in Plan::new(seed, false).skip(flushed).take(100_000) {
        if let Op::Write { block, generation } = op {
            later.entry(block).or_default().push(generation);
        }
    }
    for (block, known) in known.iter_mut().enumerate() {
        for at in 0..BLOCK {
            let sector = place(block, SECTORS) + at;
            let found = word(&disk, sector, 0);
            let is_flushed = known.word(sector, 0).unwrap_or(0) == found;
            let is_later = later
                .get(&block)
                .is_some_and(|later| later.contains(&found));
            assert!(
                is_flushed || is_later,
                "seed {seed}, block {block}: {found} after {known:?} was flushed"
            );
            let whole = match found {
                0 => Known::Zeroes,
                generation => Known::Written(generation),
            };
            for index in 1..SECTOR as u64 / 8 {
                assert_eq!(Some(word(&disk, sector, index)), whole.word(sector, index));
            }
        }
    }
}

fn kill(pid: u32) {
    let pid = pid.to_string();
    assert!(
        Command::new("kill")
            .args(["-KILL", &pid])
            .status()
            .unwrap()
            .success()
    );
}

/// How often to kill: `CARAWAY_KILLS`, or a few times.
fn kills() -> u64 {
    let kills = std::env::var("CARAWAY_KILLS").ok();
    kills.and_then(|kills| kills.parse().ok()).unwrap_or(4)
}

#[test]
fn whoever_is_killed_loses_nothing_that_was_flushed() {
    let images = Images::new();
    for seed in 0..kills() {
        let format = if seed % 4 == 3 { "raw" } else { "qcow2" };
        let after = Duration::from_micros(seed * 7919 % 300_000);

        kill_in_the_middle(&images, &format!("killed.{format}"), format, seed, after);
    }
}
