//! Drivers of virtio that mean harm: whatever they do, the machine goes on, and the device serves the next driver.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use caraway_tests::vm::{Vm, bare_config, merge};
use caraway_tests::wait::wait_for;
use serde_json::json;

/// Seeds that are tried every time, and for how long each.
const SEEDS: [u64; 2] = [1, 2];
const SECONDS: u64 = 5;
/// To abuse for longer, by hand and by `cargo test`, as nextest ends what takes three minutes: seconds of each seed.
const SECONDS_VARIABLE: &str = "CARAWAY_HOSTILE_SECONDS";

#[test]
fn a_virtio_device_serves_the_driver_after_one_that_did_anything() {
    let seconds = std::env::var(SECONDS_VARIABLE).ok();
    let seconds = seconds.map_or(SECONDS, |seconds| seconds.parse().unwrap());
    for seed in SEEDS {
        abuse(seed, seconds);
    }
}

fn abuse(seed: u64, seconds: u64) {
    let disk = tempfile::NamedTempFile::new().unwrap();
    disk.as_file().set_len(1 << 20).unwrap();
    let tests = "abuse,blk,rng,balloon,console,vsock-server,input";
    let config = merge(
        bare_config(&format!(
            "test={tests} seed={seed} seconds={seconds} mib=16 bytes=1024 events=2"
        )),
        json!({
            "disks": [{ "path": disk.path(), "format": "raw" }],
            "rng": {},
            "balloon": {},
            "channels": [{ "name": "org.example.echo.0", "to": "unix:port.sock" }],
            "vsock": { "cid": 42, "to": "unix:guest.vsock" },
            "inputs": [{ "device": "keyboard" }],
        }),
    );
    let timeout = format!("{}s", seconds + 120);
    let mut vm = Vm::start_with(&config, &["--timeout", &timeout]);
    std::thread::sleep(Duration::from_secs(seconds));
    vm.wait_for_serial("balloon touched 16 MiB");
    vm.api().put("balloon.set", r#"{ "target": "120M" }"#);
    vm.wait_for_serial("balloon holds 8 MiB");

    let sent = "abcdefgh".repeat(128);
    let mut port = connect(&vm, "port.sock");
    port.write_all(sent.as_bytes()).unwrap();
    let mut answer = vec![0; sent.len()];
    port.read_exact(&mut answer).unwrap();
    assert_eq!(String::from_utf8(answer).unwrap(), sent);

    vm.wait_for_serial("vsock cid 42\r\n");
    let mut stream = connect(&vm, "guest.vsock");
    write!(stream, "CONNECT 1024\n{sent}").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with(&sent), "{answer}");

    vm.wait_for_serial("input ready\r\n");
    vm.api().put("input.keys", r#"{ "keys": ["a"] }"#);
    assert_eq!(vm.wait(), 0, "seed {seed}: {}{}", vm.serial(), vm.stderr());
    assert!(vm.serial().contains("event 1 30 1\r\n"), "{}", vm.serial());
    assert!(!vm.stderr().contains("panicked"), "{}", vm.stderr());
    let serial = vm.serial();
    let said = serial.lines().filter(|line| line.starts_with("abuse"));
    assert!(serial.contains("abuse devices 6\r\n"), "{serial}");
    println!("seed {seed}: {}", said.collect::<Vec<_>>().join(", "));
}

fn connect(vm: &Vm, socket: &str) -> UnixStream {
    let path = vm.folder().join(socket);
    let stream = wait_for("the socket", || UnixStream::connect(&path).ok());
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream
}
