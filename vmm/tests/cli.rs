//! The program as people and scripts see it: exit codes, and what is on which stream.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

fn caraway(folder: &Path, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_caraway"))
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

fn folder_with(config: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("vm.json"), config).unwrap();
    std::fs::write(folder.path().join("vmlinux"), [0; 64]).unwrap();
    folder
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const GOOD: &str = r#"{ "boot": { "kernel": "vmlinux" } }"#;

#[test]
fn a_wrong_command_line_ends_with_64() {
    let folder = folder_with(GOOD);
    for arguments in [
        &["fly"][..],
        &[],
        &["run"],
        &["run", "vm.json", "--timeout", "soon"],
        &["run", "vm.json", "--expect-serial", "("],
    ] {
        let output = caraway(folder.path(), arguments, "");
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        assert!(
            output.stdout.is_empty() && !output.stderr.is_empty(),
            "{arguments:?}"
        );
    }
}

#[test]
fn an_api_path_that_is_too_long_ends_with_64() {
    let folder = folder_with(GOOD);
    let long = format!("/tmp/{}", "x".repeat(120));

    let output = caraway(folder.path(), &["run", "vm.json", "--api", &long], "");

    assert_eq!(output.status.code(), Some(64));
    assert!(text(&output.stderr).contains("125 bytes"));
}

#[test]
fn a_config_that_is_not_there_ends_with_65() {
    let folder = tempfile::tempdir().unwrap();

    let output = caraway(folder.path(), &["run", "nothing.json"], "");

    assert_eq!(output.status.code(), Some(65));
    assert!(text(&output.stderr).contains("nothing.json"));
}

#[test]
fn an_error_names_file_line_path_value_and_remedy() {
    let folder = folder_with("{\n  \"boot\": { \"kernel\": \"vmlinux\" },\n  \"disk\": []\n}");

    for verb in ["run", "check"] {
        let output = caraway(folder.path(), &[verb, "vm.json"], "");

        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(65), "{said}");
        for part in ["vm.json:3:3", "unknown key `disk`", "did you mean `disks`?"] {
            assert!(said.contains(part), "{part} in {said}");
        }
    }
}

#[test]
fn an_error_can_be_read_by_programs() {
    let folder = folder_with(r#"{ "boot": { "kernel": "vmlinux" }, "cpus": 0 }"#);

    let output = caraway(
        folder.path(),
        &["check", "vm.json", "--log-format", "json"],
        "",
    );

    let error: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(error["code"], "bad-value");
    assert_eq!(error["path"], "cpus");
    assert_eq!(error["exit"], 65);
    assert_eq!(error["problems"][0]["line"], 1);
}

#[test]
fn check_shows_the_machine_and_starts_nothing() {
    let folder = folder_with(GOOD);

    let output = caraway(folder.path(), &["check", "vm.json"], "");

    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0));
    assert!(
        said.contains("vmlinux") && said.contains("512M") && said.contains("00:1f.0"),
        "{said}"
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn check_fills_in_every_default() {
    let folder = folder_with(r#"{ "boot": { "kernel": "vmlinux" }, "display": {} }"#);

    let output = caraway(folder.path(), &["check", "--json", "vm.json"], "");

    let config: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(config["name"], "vm");
    assert_eq!(config["display"]["address"], "00:02.0");
    assert_eq!(config["inputs"][0]["address"], "00:03.0");
    assert_eq!(config["clock"]["on_resume"], "catch-up");
}

#[test]
fn a_config_can_come_from_standard_input() {
    let folder = folder_with("");

    let output = caraway(folder.path(), &["check", "-"], GOOD);

    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn the_schema_is_json() {
    let output = caraway(Path::new("/"), &["schema"], "");

    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(schema["additionalProperties"], false);
    assert_eq!(schema["required"], serde_json::json!(["boot"]));
}

#[test]
fn shells_get_their_completions() {
    for shell in ["bash", "zsh", "fish"] {
        let output = caraway(Path::new("/"), &["completions", shell], "");

        assert_eq!(output.status.code(), Some(0));
        assert!(
            text(&output.stdout).contains("screenshot-on-exit"),
            "{shell}"
        );
    }
}

#[test]
fn the_doctor_says_what_it_finds() {
    let output = caraway(Path::new("/"), &["doctor", "--json"], "");

    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = if report["able"] == true { 0 } else { 69 };
    assert_eq!(output.status.code(), Some(expected));
    assert!(report["findings"].as_array().unwrap().len() > 5);
}

#[test]
fn ctl_without_a_machine_ends_with_71() {
    let output = caraway(Path::new("/"), &["ctl", "/nowhere/api", "vm.info"], "");

    assert_eq!(output.status.code(), Some(71));
    assert!(text(&output.stderr).contains("/nowhere/api"));
    assert!(text(&output.stderr).contains("--api"));
}
