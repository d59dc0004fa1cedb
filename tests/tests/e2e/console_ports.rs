//! Console ports of the virtio device, as the bare guest drives them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use caraway_tests::vm::Vm;
use caraway_tests::wait::{PATIENCE, wait_for};
use serde_json::json;

fn connect(vm: &Vm) -> UnixStream {
    let path = vm.folder().join("port.sock");
    let stream = wait_for("the channel's socket", || UnixStream::connect(&path).ok());
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends `text` and reads as many bytes.
fn echo(stream: &mut UnixStream, text: &str) -> String {
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer).unwrap();
    String::from_utf8(answer).unwrap()
}

#[test]
fn a_socket_is_joined_to_its_port_again_and_again() {
    let channels = json!([{ "name": "org.example.echo.0", "to": "unix:port.sock" }]);
    let mut vm = Vm::bare("test=console bytes=1010", json!({ "channels": channels }));
    let long = "abcdefghij".repeat(100);

    let mut first = connect(&vm);
    let answer = echo(&mut first, "hello");
    drop(first);
    let mut second = connect(&vm);
    // The guest's buffers hold 64 bytes each.
    let later = echo(&mut second, &long);
    let last = echo(&mut second, "there");

    assert_eq!((answer.as_str(), last.as_str()), ("hello", "there"));
    assert_eq!(later, long);
    assert_eq!(vm.wait(), 0, "{}{}", vm.serial(), vm.stderr());
    let serial = vm.serial();
    assert!(
        serial.contains("console port org.example.echo.0"),
        "{serial}"
    );
}

#[test]
fn a_second_program_waits_for_the_first_to_leave() {
    let channels = json!([{ "name": "org.example.echo.0", "to": "unix:port.sock" }]);
    let mut vm = Vm::bare("test=console bytes=10", json!({ "channels": channels }));
    let mut first = connect(&vm);
    echo(&mut first, "first");

    let mut second = connect(&vm);
    second.write_all(b"other").unwrap();
    drop(first);
    let mut answer = [0; 5];
    second.read_exact(&mut answer).unwrap();

    assert_eq!(&answer, b"other");
    assert_eq!(vm.wait(), 0, "{}{}", vm.serial(), vm.stderr());
}

#[test]
fn a_guest_waits_for_whoever_is_at_the_other_end() {
    let channels = json!([
        { "name": "org.example.log.0", "to": "file:log" },
        { "name": "org.example.echo.0", "to": "unix:port.sock" },
    ]);
    // The guest takes port 1 on, the file, from which nothing ever comes.
    let vm = Vm::bare("test=console", json!({ "channels": channels }));

    vm.wait_for_serial("console open");

    assert!(vm.serial().contains("console port org.example.log.0"));
    assert_eq!(std::fs::read(vm.folder().join("log")).unwrap(), b"");
}
