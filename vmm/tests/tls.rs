//! TLS from the outside: certificates that are made, configs that use them, and files that are not
//! what they should be.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use caraway::config::tls::Channels;
use caraway::config::{Document, Host, Kind, MachineSpec, Problem};
use caraway_spice::ChannelKind;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A folder with a kernel, and certificates in `tls`.
struct World(TempDir);

impl World {
    fn new() -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        std::fs::write(world.path("vmlinux"), vec![0; 4096]).unwrap();
        let made = world.caraway(&["tls", "init", "--name", "desk", "--san", "10.0.0.7"]);
        assert!(made.status.success(), "{made:?}");
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn caraway(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_caraway"));
        command
            .args(arguments)
            .current_dir(self.0.path())
            .output()
            .unwrap()
    }

    fn config(&self, spice: &Value) -> Value {
        json!({ "boot": { "kernel": "vmlinux" }, "spice": spice })
    }

    fn check(&self, spice: &Value) -> Result<MachineSpec, Box<Problem>> {
        let document = Document::new(&self.config(spice).to_string(), self.0.path());
        let host = Host {
            memory: 0,
            firmware: vec![],
        };
        let checked = document
            .parse()
            .and_then(|config| document.check(&config, &host));
        checked.map_err(|errors| {
            assert_eq!(errors.problems().len(), 1, "{errors}");
            Box::new(errors.problems()[0].clone())
        })
    }

    fn problem(&self, spice: &Value) -> Problem {
        *self.check(spice).unwrap_err()
    }
}

fn tls() -> Value {
    json!({
        "certificate": "tls/server-cert.pem",
        "key": "tls/server-key.pem",
        "ca": "tls/ca-cert.pem",
    })
}

/// `spice` with another value at `key` of its `tls`.
fn with(key: &str, value: Value) -> Value {
    let mut tls = tls();
    tls[key] = value;
    json!({ "tls": tls })
}

#[test]
fn what_init_prints_can_be_pasted() {
    let world = World::new();

    let made = world.caraway(&["tls", "init", "--force", "--name", "desk"]);

    let text = String::from_utf8(made.stdout).unwrap();
    assert!(text.contains("host-subject: O=Caraway,CN=desk\n"), "{text}");
    let (_, config) = text.split_once("\"spice\": ").unwrap();
    let spec = world.check(&serde_json::from_str(config).unwrap()).unwrap();
    assert_eq!(spec.spice.unwrap().tls.unwrap().channels, Channels::All);
}

#[test]
fn init_replaces_nothing_unasked() {
    let world = World::new();

    let refused = world.caraway(&["tls", "init"]);

    assert_eq!(refused.status.code(), Some(71));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(
        said.contains("server-cert.pem exists") && said.contains("--force"),
        "{said}"
    );
}

#[test]
fn tls_alone_leaves_no_plain_listener() {
    let spec = World::new().check(&json!({ "tls": tls() })).unwrap();

    let spice = spec.spice.unwrap();

    assert_eq!(spice.listen, []);
    assert_eq!(
        spice.tls.unwrap().listen,
        ["127.0.0.1:5901".parse().unwrap()]
    );
}

#[test]
fn what_is_filled_in_says_the_same_again() {
    let world = World::new();
    let channels = json!(["main", "inputs"]);
    let spec = world.check(&with("channels", channels)).unwrap();

    let again = serde_json::to_value(spec.to_config()).unwrap();
    let spice = world.check(&again["spice"]).unwrap().spice.unwrap();

    assert_eq!(Some(&spice), spec.spice.as_ref());
    let only = Channels::Only(vec![ChannelKind::Main, ChannelKind::Inputs]);
    assert_eq!(spice.tls.unwrap().channels, only);
}

#[test]
fn channels_are_all_or_names() {
    let world = World::new();
    for (channels, path) in [
        (json!("al"), "spice.tls.channels"),
        (json!(["main", "input"]), "spice.tls.channels[1]"),
        (json!(7), "spice.tls.channels"),
    ] {
        let problem = world.problem(&with("channels", channels));
        assert_eq!(problem.path.to_string(), path);
    }
    let problem = world.problem(&with("channels", json!(["input"])));
    assert!(problem.hint.unwrap().contains("did you mean `inputs`?"));
}

#[test]
fn each_bad_file_is_named_with_its_place_and_the_remedy() {
    let world = World::new();
    let write = |name: &str, text: &str| std::fs::write(world.path(name), text).unwrap();
    write("empty.pem", "");
    write(
        "locked.pem",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    for (key, file, kind, words) in [
        (
            "certificate",
            "missing.pem",
            Kind::MissingFile,
            "caraway tls init",
        ),
        (
            "certificate",
            "tls/server-key.pem",
            Kind::BadValue,
            "openssl x509",
        ),
        ("certificate", "tls", Kind::BadValue, "PEM file"),
        ("key", "tls/ca-key.pem", Kind::BadValue, "openssl pkey"),
        ("key", "locked.pem", Kind::BadValue, "passphrase"),
        ("ca", "empty.pem", Kind::BadValue, "caraway tls init"),
    ] {
        let problem = world.problem(&with(key, json!(file)));
        assert_eq!(problem.path.to_string(), format!("spice.tls.{key}"));
        assert_eq!(problem.code, kind, "{problem:?}");
        assert!(problem.message.contains(file), "{}", problem.message);
        assert!(
            problem
                .hint
                .as_ref()
                .is_some_and(|hint| hint.contains(words)),
            "{problem:?}"
        );
    }
}

#[test]
fn check_ends_with_the_code_for_configs() {
    let world = World::new();
    let config = world
        .config(&with("key", json!("tls/ca-key.pem")))
        .to_string();
    std::fs::write(world.path("vm.json"), config).unwrap();

    let refused = world.caraway(&["check", "vm.json"]);

    assert_eq!(refused.status.code(), Some(65));
    let said = String::from_utf8(refused.stderr).unwrap();
    for word in ["vm.json", "spice.tls.key", "ca-key.pem", "is not the key"] {
        assert!(said.contains(word), "{word}: {said}");
    }
}

#[test]
fn tls_is_for_tcp() {
    let problem = World::new().problem(&with("listen", json!(["unix:x"])));

    assert_eq!(problem.path.to_string(), "spice.tls.listen[0]");
}

#[test]
fn a_console_is_a_folder_with_one() {
    let world = World::new();
    for folder in [Path::new("tls"), Path::new("missing")] {
        let problem = world.problem(&json!({ "console": folder }));
        assert_eq!(problem.path.to_string(), "spice.console");
        assert!(problem.hint.unwrap().contains("spice-html5"));
    }
}

#[test]
fn an_origin_is_not_an_address_of_a_page() {
    let problem = World::new().problem(&json!({ "origins": ["https://x/y"] }));

    assert_eq!(problem.path.to_string(), "spice.origins[0]");
}
