//! What a config says becomes a machine, or an error that names file, place, value and remedy.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use std::path::{Path, PathBuf};

use caraway::config::endpoint::{Listen, SerialTo};
use caraway::config::units::{GIB, MIB};
use caraway::config::{BootSpec, ConfigErrors, Document, Host, Kind, MachineSpec, Problem};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A folder with a kernel, a disk and firmware, and a host of 8 GiB.
struct World {
    folder: TempDir,
    host: Host,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["vmlinux", "disk.img", "bios-256k.bin", "vgabios-qxl.bin"] {
            std::fs::write(folder.path().join(name), vec![0; 4096]).unwrap();
        }
        let host = Host {
            memory: 8 * GIB,
            firmware: vec![folder.path().to_owned()],
        };
        Self { folder, host }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, text: &str) -> Result<MachineSpec, ConfigErrors> {
        let document = Document::new(text, self.folder.path());
        document.check(&document.parse()?, &self.host)
    }

    fn check(&self, config: &Value) -> Result<MachineSpec, ConfigErrors> {
        self.text(&config.to_string())
    }

    /// The machine of a direct boot with `extra` keys.
    fn machine(&self, extra: Value) -> MachineSpec {
        self.check(&with(extra)).unwrap()
    }

    /// What is wrong with a direct boot with `extra` keys; one thing only.
    fn problem(&self, extra: Value) -> Problem {
        only(self.check(&with(extra)))
    }
}

fn with(extra: Value) -> Value {
    let mut config = json!({ "boot": { "kernel": "vmlinux" } });
    for (key, value) in extra.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

fn only(result: Result<MachineSpec, ConfigErrors>) -> Problem {
    let errors = result.unwrap_err();
    assert_eq!(errors.problems().len(), 1, "{errors}");
    errors.problems()[0].clone()
}

fn addresses(spec: &MachineSpec) -> Vec<(String, String)> {
    spec.pci_devices()
        .into_iter()
        .map(|d| (d.address.to_string(), d.id))
        .collect()
}

fn pair(address: &str, id: &str) -> (String, String) {
    (address.to_owned(), id.to_owned())
}

#[test]
fn only_boot_is_required() {
    let world = World::new();

    let spec = world.machine(json!({}));

    assert_eq!((spec.cpus, spec.memory), (1, 512 * MIB));
    assert_eq!(spec.serial, SerialTo::Stdio);
    assert!(spec.displays.is_empty() && spec.spice.is_none() && spec.inputs.is_empty());
    assert!(matches!(spec.boot, BootSpec::Kernel { path, .. } if path == world.path("vmlinux")));
}

#[test]
fn a_server_without_a_display_gets_one_and_a_tablet() {
    let spec = World::new().machine(json!({ "spice": {} }));

    assert_eq!(
        addresses(&spec),
        [pair("00:02.0", "display"), pair("00:03.0", "tablet")]
    );
    assert_eq!(
        spec.spice.unwrap().listen,
        [Listen::Tcp("127.0.0.1:5900".parse().unwrap())]
    );
}

#[test]
fn several_displays_have_addresses_and_names_of_their_own() {
    let spec = World::new().machine(json!({ "displays": [{ "heads": 2 }, {}, {}], "inputs": [] }));

    assert_eq!(
        addresses(&spec),
        [
            pair("00:02.0", "display"),
            pair("00:03.0", "display0"),
            pair("00:04.0", "display1")
        ]
    );
    assert_eq!(spec.displays[0].heads, 2);
    assert_eq!(spec.to_config().displays.len(), 3);
}

#[test]
fn a_display_beside_displays_is_refused() {
    let world = World::new();

    let problem = world.problem(json!({ "display": {}, "displays": [{}] }));

    assert_eq!(problem.path.to_string(), "displays");
}

#[test]
fn addresses_are_assigned_in_order_around_those_that_are_given() {
    let spec = World::new().machine(json!({
        "display": {},
        "inputs": [{ "device": "keyboard" }],
        "disks": [
            { "path": "disk.img" },
            { "path": "disk.img", "id": "given", "address": "00:04.0" },
            { "path": "disk.img" },
        ],
    }));

    assert_eq!(
        addresses(&spec),
        [
            pair("00:02.0", "display"),
            pair("00:03.0", "keyboard"),
            pair("00:04.0", "given"),
            pair("00:05.0", "disk0"),
            pair("00:06.0", "disk2"),
        ]
    );
}

#[test]
fn a_default_id_goes_around_one_that_is_given() {
    let spec = World::new().machine(json!({
        "disks": [{ "path": "disk.img" }, { "path": "disk.img", "id": "disk0" }],
    }));

    let ids: Vec<_> = spec.disks.iter().map(|disk| disk.id.as_str()).collect();
    assert_eq!(ids, ["disk1", "disk0"]);
}

#[test]
fn every_key_of_the_contract_is_known() {
    let config = json!({
        "name": "desk",
        "cpus": 2,
        "memory": "2G",
        "boot": { "firmware": "seabios" },
        "display": { "device": "qxl", "heads": 1, "vram": "64M" },
        "spice": { "listen": ["127.0.0.1:5900", "unix:desk.spice"], "auth": "none" },
        "disks": [{ "id": "root", "path": "disk.img", "format": "qcow2" }],
        "nets": [{ "id": "lan", "tap": "tap0", "mac": "52:54:00:12:34:56" }],
        "serial": { "to": "stdio" },
        "channels": [
            { "name": "com.redhat.spice.0", "to": "spice-agent" },
            { "name": "org.qemu.guest_agent.0", "to": "unix:ga.sock" },
        ],
        "vsock": { "cid": 3, "to": "unix:desk.vsock" },
        "balloon": {
            "stats_interval": "1s", "free_page_reporting": true, "deflate_on_oom": true,
        },
        "rng": { "source": "/dev/urandom" },
        "clock": { "base": "utc", "lost_ticks": "replay", "on_resume": "catch-up" },
        "debug_exit": 1281,
        "on": { "poweroff": "exit", "reset": "reboot", "panic": "exit" },
    });

    let document = Document::new(&config.to_string(), Path::new("/"));

    assert!(document.parse().is_ok());
}

#[test]
fn what_is_not_built_is_refused_by_its_path() {
    let errors = World::new()
        .check(&with(json!({
            "serial": { "to": "unix:com1" },
        })))
        .unwrap_err();

    let mut paths: Vec<_> = errors
        .problems()
        .iter()
        .map(|p| p.path.to_string())
        .collect();
    paths.sort();
    assert!(
        errors
            .problems()
            .iter()
            .all(|p| p.code == Kind::Unsupported)
    );
    assert!(
        errors
            .to_string()
            .contains("not supported by this build yet"),
        "{errors}"
    );
    assert_eq!(paths, ["serial.to"]);
}

#[test]
fn a_disk_that_makes_no_sense_is_refused_by_its_keys() {
    let errors = World::new()
        .check(&with(json!({
            "disks": [
                { "path": "disk.img", "format": "vmdk" },
                { "path": "disk.img", "queues": 17, "limits": { "ops_burst": 3 } },
                { "path": "disk.img", "limits": { "bytes_per_second": 0 } },
                { "path": "disk.img", "backing": [{ "path": "disk.img" }] },
                { "path": "disk.img", "format": "qcow2", "backing": [{ "path": "nowhere.img" }] },
            ],
        })))
        .unwrap_err();

    let mut paths: Vec<_> = errors
        .problems()
        .iter()
        .map(|p| p.path.to_string())
        .collect();
    paths.sort();
    assert_eq!(
        paths,
        [
            "disks[0].readonly",
            "disks[1].limits.ops_burst",
            "disks[1].queues",
            "disks[2].limits.bytes_per_second",
            "disks[3].backing[0]",
            "disks[4].backing[0].path",
        ]
    );
}

#[test]
fn the_filled_in_config_is_the_same_machine() {
    let world = World::new();
    let spec = world.machine(json!({
        "memory": "1G",
        "spice": { "listen": ["unix:x"] },
        "disks": [{ "path": "disk.img", "readonly": true }],
        "serial": { "to": "file:log" },
        "rng": { "limit": { "rate": "64K", "burst": "4K" } },
        "vsock": { "cid": 3, "to": "unix:v" },
        "balloon": { "stats_interval": "2s", "deflate_on_oom": true },
        "channels": [{ "name": "org.qemu.guest_agent.0", "to": "guest-agent" }],
        "vmgenid": "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
        "debug_exit": 0xf4,
        "on": { "reset": "exit" },
    }));
    let filled = serde_json::to_value(spec.to_config()).unwrap();

    let mut again = world.check(&filled).unwrap();

    again.document = spec.document.clone();
    again.notes.clone_from(&spec.notes);
    assert_eq!(again, spec);
}

#[test]
fn a_password_is_never_shown() {
    let spec = World::new().machine(json!({ "spice": { "password": "open-sesame" } }));

    let shown = format!("{:?}", spec.spice) + &serde_json::to_string(&spec.to_config()).unwrap();

    assert!(!shown.contains("sesame"), "{shown}");
    assert_eq!(
        spec.spice.unwrap().password.unwrap().reveal(),
        "open-sesame"
    );
}

#[test]
fn a_password_file_gives_its_first_line() {
    let world = World::new();
    std::fs::write(world.path("secret"), "abc\ndef\n").unwrap();

    let spec = world.machine(json!({ "spice": { "password_file": "secret" } }));

    assert_eq!(spec.spice.unwrap().password.unwrap().reveal(), "abc");
}

#[test]
fn text_that_is_not_json_is_shown_where_it_breaks() {
    let problem = only(World::new().text("{\n  \"cpus\": 2,\n  cpus\n}"));

    assert_eq!(problem.code, Kind::NotJson);
    assert_eq!(problem.location.unwrap().line, 3);
    assert!(
        problem.message.starts_with("not JSON: "),
        "{}",
        problem.message
    );
}

#[test]
fn text_after_the_end_is_not_json() {
    let problem = only(World::new().text("{\"boot\":{\"kernel\":\"vmlinux\"}} x"));

    assert_eq!(problem.code, Kind::NotJson);
}

#[test]
fn no_text_breaks_the_parser() {
    let world = World::new();
    let deep = "[".repeat(100_000);
    for text in [
        "",
        " ",
        "{",
        "null",
        "[]",
        "\"x\"",
        "{\"boot\":",
        "\u{feff}{}",
        "{\"é\":\"",
        &deep,
    ] {
        assert!(world.text(text).is_err(), "{text:.20}");
    }
}

#[test]
fn an_unknown_key_names_its_neighbour() {
    let problem = only(World::new().text(
        "{\n  \"boot\": { \"kernel\": \"vmlinux\" },\n  \"disks\": [ { \"pth\": \"x\" } ]\n}",
    ));

    assert_eq!(problem.code, Kind::UnknownKey);
    assert_eq!(problem.path.to_string(), "disks[0].pth");
    let hint = problem.hint.unwrap();
    assert!(hint.starts_with("did you mean `path`?"), "{hint}");
    let location = problem.location.unwrap();
    assert_eq!((location.line, location.column), (3, 16));
}

#[test]
fn a_missing_boot_is_named() {
    let problem = only(World::new().text("{}"));

    assert_eq!(problem.code, Kind::MissingKey);
    assert!(problem.message.contains("`boot`"), "{}", problem.message);
}

#[test]
fn a_value_of_the_wrong_type_is_shown() {
    let problem = World::new().problem(json!({ "cpus": "two" }));

    assert_eq!(
        (problem.code, problem.path.to_string().as_str()),
        (Kind::WrongType, "cpus")
    );
    assert_eq!(problem.value.as_deref(), Some("\"two\""));
    assert!(
        problem.message.contains("a whole number"),
        "{}",
        problem.message
    );
}

#[test]
fn a_word_that_is_not_allowed_names_its_neighbour() {
    let problem = World::new().problem(json!({ "on": { "reset": "rebot" } }));

    assert_eq!(problem.path.to_string(), "on.reset");
    assert_eq!(problem.allowed, ["reboot", "exit"]);
    assert!(problem.hint.unwrap().contains("did you mean `reboot`?"));
}

#[test]
fn nonsense_is_refused_by_its_path() {
    let world = World::new();
    for (extra, path) in [
        (json!({ "memory": "lots" }), "memory"),
        (json!({ "memory": 1.5 }), "memory"),
        (json!({ "memory": "1M" }), "memory"),
        (json!({ "memory": "4097K" }), "memory"),
        (json!({ "cpus": 0 }), "cpus"),
        (json!({ "cpus": 255 }), "cpus"),
        (json!({ "name": "" }), "name"),
        (
            json!({ "spice": { "listen": ["5900"] } }),
            "spice.listen[0]",
        ),
        (json!({ "spice": { "listen": [] } }), "spice.listen"),
        (json!({ "spice": { "auth": "password" } }), "spice.auth"),
        (
            json!({ "spice": { "auth": "ticket", "password": "x" } }),
            "spice.auth",
        ),
        (
            json!({ "spice": { "sharing": "view-only", "on_connect": "refuse" } }),
            "spice.on_connect",
        ),
        (
            json!({ "channels": [{ "name": "x", "to": "spice-agent" }] }),
            "channels[0].to",
        ),
        (
            json!({ "spice": {}, "channels": [
                { "name": "a", "to": "spice-agent" },
                { "name": "b", "to": "spice-agent" },
            ] }),
            "channels[1].to",
        ),
        (
            json!({ "channels": [{ "name": "a/b", "to": "unix:s" }] }),
            "channels[0].name",
        ),
        (
            json!({ "channels": [
                { "name": "a", "to": "unix:s" },
                { "name": "a", "to": "unix:t" },
            ] }),
            "channels[1].name",
        ),
        (
            json!({ "spice": { "max_sessions": 0 } }),
            "spice.max_sessions",
        ),
        (
            json!({ "spice": { "auth": "none", "password": "x" } }),
            "spice.auth",
        ),
        (
            json!({ "spice": { "password": "x".repeat(61) } }),
            "spice.password",
        ),
        (
            json!({ "spice": { "password": "x", "password_file": "y" } }),
            "spice.password_file",
        ),
        (json!({ "display": { "heads": 17 } }), "display.heads"),
        (json!({ "display": { "vram": "48M" } }), "display.vram"),
        (
            json!({ "display": { "address": "00:40.0" } }),
            "display.address",
        ),
        (
            json!({ "display": { "address": "01:02.0" } }),
            "display.address",
        ),
        (
            json!({ "display": { "address": "00:02.1" } }),
            "display.address",
        ),
        (json!({ "display": { "id": "a b" } }), "display.id"),
        (json!({ "serial": { "to": "tcp:1" } }), "serial.to"),
        (json!({ "debug_exit": 1016 }), "debug_exit"),
        (json!({ "debug_exit": 65536 }), "debug_exit"),
        (json!({ "boot": {} }), "boot"),
        (
            json!({ "boot": { "firmware": "seabios", "kernel": "vmlinux" } }),
            "boot",
        ),
        (
            json!({ "boot": { "firmware": "seabios", "cmdline": "x" } }),
            "boot.cmdline",
        ),
        (
            json!({ "boot": { "kernel": "vmlinux", "cmdline": "x".repeat(2048) } }),
            "boot.cmdline",
        ),
    ] {
        let problem = world.problem(extra.clone());
        assert_eq!(problem.path.to_string(), path, "{extra}");
        assert!(problem.hint.is_some(), "{extra}");
        assert!(problem.location.is_some(), "{extra}");
    }
}

#[test]
fn missing_files_are_named_with_the_place_that_was_looked_at() {
    let world = World::new();
    for (extra, path) in [
        (json!({ "boot": { "kernel": "nothing" } }), "boot.kernel"),
        (
            json!({ "boot": { "kernel": "vmlinux", "initrd": "nothing" } }),
            "boot.initrd",
        ),
        (
            json!({ "boot": { "firmware": "nothing" } }),
            "boot.firmware",
        ),
        (json!({ "disks": [{ "path": "nothing" }] }), "disks[0].path"),
    ] {
        let problem = world.problem(extra);
        assert_eq!(
            (problem.code, problem.path.to_string().as_str()),
            (Kind::MissingFile, path)
        );
        assert!(
            problem
                .message
                .contains("\"nothing\": there is no such file")
        );
        let looked = world.path("nothing").display().to_string();
        assert!(problem.hint.unwrap().contains(&looked));
    }
}

#[test]
fn a_folder_is_no_disk() {
    let problem = World::new().problem(json!({ "disks": [{ "path": "." }] }));

    assert!(
        problem.message.contains("it is a folder"),
        "{}",
        problem.message
    );
}

#[test]
fn firmware_that_is_not_installed_names_the_package() {
    let mut world = World::new();
    world.host.firmware = vec!["/nowhere".into()];

    let problem = world.problem(json!({ "boot": { "firmware": "seabios" } }));

    assert_eq!(problem.code, Kind::MissingFile);
    assert!(problem.hint.unwrap().contains("apt install seabios"));
}

#[test]
fn a_truncated_firmware_is_refused() {
    let world = World::new();
    std::fs::write(world.path("short.bin"), [0; 100]).unwrap();

    let problem = world.problem(json!({ "boot": { "firmware": "short.bin" } }));

    assert!(problem.message.contains("100 bytes"), "{}", problem.message);
}

#[test]
fn two_devices_of_one_id_are_refused_and_a_free_one_is_named() {
    let disk = json!({ "path": "disk.img", "id": "root" });

    let problem = World::new().problem(json!({ "disks": [disk, disk] }));

    assert_eq!(problem.code, Kind::DuplicateId);
    assert_eq!(problem.path.to_string(), "disks[1].id");
    assert!(
        problem.message.contains("disks[0].id"),
        "{}",
        problem.message
    );
    assert!(problem.hint.unwrap().contains("\"root0\" is free"));
}

#[test]
fn a_clash_of_addresses_names_the_owner_and_a_free_one() {
    for (address, owner) in [
        ("00:05.0", "disks[0]"),
        ("00:1f.0", "LPC"),
        ("00:00.0", "host"),
    ] {
        let problem = World::new().problem(json!({ "disks": [
            { "path": "disk.img", "address": "00:05.0" },
            { "path": "disk.img", "address": address },
        ] }));

        assert_eq!(problem.code, Kind::AddressClash);
        assert_eq!(problem.path.to_string(), "disks[1].address");
        assert!(problem.message.contains(owner), "{}", problem.message);
        assert!(problem.hint.unwrap().contains("\"00:03.0\""));
    }
}

#[test]
fn more_devices_than_addresses_are_refused() {
    let disks = vec![json!({ "path": "disk.img" }); 29];

    let problem = World::new().problem(json!({ "disks": disks }));

    assert_eq!(problem.path.to_string(), "disks[28]");
}

#[test]
fn a_socket_path_that_is_too_long_is_refused_with_its_length() {
    let long = format!("unix:/tmp/{}", "x".repeat(120));

    let problem = World::new().problem(json!({ "spice": { "listen": [long] } }));

    assert_eq!(problem.path.to_string(), "spice.listen[0]");
    assert!(problem.message.contains("125 bytes"), "{}", problem.message);
    assert!(problem.message.contains("107"), "{}", problem.message);
}

#[test]
fn more_memory_than_the_hosts_is_refused() {
    let problem = World::new().problem(json!({ "memory": "9G" }));

    assert_eq!(problem.path.to_string(), "memory");
    assert!(
        problem.message.contains("more than the host's 8G"),
        "{}",
        problem.message
    );
    assert_eq!(problem.hint.as_deref(), Some("use at most 8G"));
}

#[test]
fn every_mistake_is_told_at_once() {
    let errors = World::new()
        .check(&with(
            json!({ "cpus": 0, "memory": "9G", "disks": [{ "path": "nothing" }] }),
        ))
        .unwrap_err();

    assert_eq!(errors.problems().len(), 3);
}

#[test]
fn an_identity_is_that_of_the_file_and_name() {
    let world = World::new();

    let (one, same) = (
        world.machine(json!({ "name": "a" })),
        world.machine(json!({ "name": "a" })),
    );
    let other = world.machine(json!({ "name": "b" }));

    assert_eq!(one.uuid, same.uuid);
    assert_ne!(one.uuid, other.uuid);
}

#[test]
fn the_examples_are_machines() {
    let world = World::new();
    for file in [
        "guest.elf",
        "colours.img",
        "debian.img",
        "vmlinuz",
        "initrd.img",
        "desk.password",
    ] {
        std::fs::write(world.path(file), "x").unwrap();
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../resources/examples");
    let examples: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();

    assert!(!examples.is_empty());
    for example in examples {
        let text = std::fs::read_to_string(&example).unwrap();
        let result = world.text(&text);
        assert!(
            result.is_ok(),
            "{}:\n{}",
            example.display(),
            result.unwrap_err()
        );
    }
}

#[test]
fn pipes_of_the_spice_server_are_joined_to_sockets_beside_the_config() {
    let world = World::new();
    let port = json!({ "name": "org.example.console.0", "to": "unix:console" });

    let machine = world.machine(json!({ "spice": {
        "ports": [port], "webdav": "unix:folders", "usb_redirection": ["unix:usb"],
    } }));

    let pipes = machine.spice.unwrap().pipes;
    let console = ("org.example.console.0".to_owned(), world.path("console"));
    assert_eq!(pipes.ports, [console]);
    assert_eq!(pipes.webdav, Some(world.path("folders")));
    assert_eq!(pipes.usb_redirection, [world.path("usb")]);
}

#[test]
fn a_pipe_with_a_name_or_socket_that_cannot_be_is_refused_with_the_remedy() {
    let world = World::new();
    let port = |name: &str, to: &str| json!({ "name": name, "to": to });
    let refused = [
        (
            json!({ "ports": [port("a b", "unix:a")] }),
            "spice.ports[0].name",
        ),
        (
            json!({ "ports": [port("org.spice-space.webdav.0", "unix:a")] }),
            "spice.ports[0].name",
        ),
        (
            json!({ "ports": [port("a", "unix:a"), port("a", "unix:b")] }),
            "spice.ports[1].name",
        ),
        (
            json!({ "ports": [port("a", "unix:a")], "usb_redirection": ["unix:a"] }),
            "spice.usb_redirection[0]",
        ),
        (json!({ "webdav": "unix:none/a" }), "spice.webdav"),
    ];
    for (spice, place) in refused {
        let problem = world.problem(json!({ "spice": spice }));
        assert_eq!(problem.path.to_string(), place);
        assert!(problem.hint.is_some(), "{place}");
    }
}

#[test]
fn random_numbers_come_from_urandom_without_a_limit() {
    let rng = World::new().machine(json!({ "rng": {} })).rng.unwrap();

    assert_eq!(rng.source, Path::new("/dev/urandom"));
    assert_eq!((rng.id.as_str(), rng.limit), ("rng", None));
}

#[test]
fn a_limit_has_a_tenth_of_a_second_as_its_burst() {
    let limit = json!({ "limit": { "rate": "10K" } });

    let rng = World::new().machine(json!({ "rng": limit })).rng.unwrap();

    let limit = rng.limit.unwrap();
    assert_eq!((limit.per_second.get(), limit.burst.get()), (10240, 1024));
}

#[test]
fn random_numbers_that_can_not_be_are_refused() {
    for (rng, path) in [
        (json!({ "source": "/dev/no-such" }), "rng.source"),
        (json!({ "source": "disk.img" }), "rng.source"),
        (json!({ "limit": { "rate": 0 } }), "rng.limit.rate"),
        (
            json!({ "limit": { "rate": 1, "burst": 0 } }),
            "rng.limit.burst",
        ),
    ] {
        let problem = World::new().problem(json!({ "rng": rng }));

        assert_eq!(problem.path.to_string(), path);
    }
}

#[test]
fn a_socket_device_that_can_not_be_is_refused() {
    let long = format!("unix:/tmp/{}", "x".repeat(95));
    for (vsock, path) in [
        (json!({ "cid": 2, "to": "unix:v" }), "vsock.cid"),
        (json!({ "cid": u32::MAX, "to": "unix:v" }), "vsock.cid"),
        (json!({ "cid": 3, "to": "unix:no/such/v" }), "vsock.to"),
        (json!({ "cid": 3, "to": long }), "vsock.to"),
    ] {
        let problem = World::new().problem(json!({ "vsock": vsock }));

        assert_eq!(problem.path.to_string(), path);
    }
}

#[test]
fn a_generation_id_is_a_word_or_a_uuid() {
    let spec = World::new().machine(json!({ "vmgenid": "none" }));
    assert_eq!(spec.vmgenid.draw(), None);

    let problem = World::new().problem(json!({ "vmgenid": "new" }));

    assert_eq!(problem.path.to_string(), "vmgenid");
    assert!(problem.message.contains("\"auto\""), "{}", problem.message);
}

#[test]
fn slots_for_later_are_functions_of_one_device() {
    let spec = World::new().machine(json!({ "hotplug": { "slots": 3 } }));

    let hotplug = spec.hotplug.clone().unwrap();
    let ports: Vec<String> = hotplug.ports().map(|port| port.to_string()).collect();
    assert_eq!(ports, ["00:1e.0", "00:1e.1", "00:1e.2"]);
    assert_eq!(addresses(&spec), [pair("00:1e.0", "slots")]);
    assert_eq!(spec.to_config().hotplug.unwrap().slots, Some(3));
}

#[test]
fn more_slots_than_a_device_has_functions_are_refused() {
    let problem = World::new().problem(json!({ "hotplug": { "slots": 9 } }));

    assert_eq!(problem.path.to_string(), "hotplug.slots");
}

#[test]
fn a_balloon_that_asks_all_the_time_is_refused() {
    let problem = World::new().problem(json!({ "balloon": { "stats_interval": "0s" } }));

    assert_eq!(problem.path.to_string(), "balloon.stats_interval");
}

#[test]
fn a_guest_has_one_agent_of_a_kind() {
    let channels = json!([
        { "name": "a", "to": "guest-agent" },
        { "name": "b", "to": "guest-agent" },
    ]);

    let problem = World::new().problem(json!({ "channels": channels }));

    assert_eq!(problem.path.to_string(), "channels[1].to");
}
