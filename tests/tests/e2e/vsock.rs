//! The virtio socket device: the bare guest as server and as client, programs of the host at the other
//! ends.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream as Blocking;

use caraway_tests::vm::Vm;
use caraway_tests::wait::{PATIENCE, wait_for};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Connections at a time; the guest has room for 1024.
const MANY: usize = 1000;

fn guest(cmdline: &str) -> Vm {
    let vsock = json!({ "cid": 42, "to": "unix:guest.vsock" });
    Vm::bare(cmdline, json!({ "vsock": vsock }))
}

/// Each connection is a descriptor here too.
fn raise_limit() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is there to be written to, and then to be read.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
    }
}

/// Waits for what must not take for ever, among many.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().unwrap();
    runtime.block_on(async { timeout(PATIENCE, work).await.expect("it takes too long") })
}

/// A connection to a port of the guest's.
fn connect(vm: &Vm, port: u32) -> Blocking {
    let path = vm.folder().join("guest.vsock");
    let mut stream = wait_for("the guest's socket", || Blocking::connect(&path).ok());
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    writeln!(stream, "CONNECT {port}").unwrap();
    stream
}

/// What the guest is expected to send back.
fn pattern(number: usize, length: usize) -> Vec<u8> {
    (0..length).map(|at| (number * 31 + at * 7) as u8).collect()
}

#[test]
fn a_program_talks_to_the_guest_and_half_closes() {
    let mut vm = guest("test=vsock-server");
    vm.wait_for_serial("vsock cid 42\r\n");
    let mut stream = connect(&vm, 1024);
    // More than either side has room for.
    let sent = pattern(1, 300_000);
    let mut writer = stream.try_clone().unwrap();
    let bytes = sent.clone();
    let writing = std::thread::spawn(move || {
        writer.write_all(&bytes).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });

    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();

    writing.join().unwrap();
    let line = answer.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    assert!(answer.starts_with(b"OK 1073741824\n"));
    assert!(answer[line..] == sent, "the guest sends back what it got");
    assert_eq!(vm.wait(), 0, "{}{}", vm.serial(), vm.stderr());
}

#[test]
fn a_thousand_programs_talk_to_the_guest_at_a_time() {
    raise_limit();
    let mut vm = guest(&format!("test=vsock-server connections={MANY}"));
    vm.wait_for_serial("vsock cid 42\r\n");
    let path = vm.folder().join("guest.vsock");

    block_on(async {
        let mut open = Vec::new();
        for number in 0..MANY {
            let mut stream = UnixStream::connect(&path).await.unwrap();
            let greeting = format!("CONNECT {}\n", 1 + number % 7);
            stream.write_all(greeting.as_bytes()).await.unwrap();
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            assert!(line.starts_with("OK "), "{number}: {line:?}");
            open.push(stream);
        }
        // Now all of them are open.
        let mut echoes = JoinSet::new();
        for (number, stream) in open.into_iter().enumerate() {
            echoes.spawn(async move {
                let sent = pattern(number, 5000);
                let (mut reader, mut writer) = stream.into_inner().into_split();
                let bytes = sent.clone();
                let writing = tokio::spawn(async move {
                    writer.write_all(&bytes).await.unwrap();
                    writer.shutdown().await.unwrap();
                });
                let mut got = Vec::new();
                reader.read_to_end(&mut got).await.unwrap();
                writing.await.unwrap();
                assert!(got == sent, "connection {number} has other bytes");
            });
        }
        echoes.join_all().await;
    });

    assert_eq!(vm.wait(), 0, "{}{}", vm.serial(), vm.stderr());
    let most = format!("vsock had {MANY} connections at a time");
    assert!(vm.serial().contains(&most), "{}", vm.serial());
}

#[test]
fn the_guest_talks_to_a_program_over_a_thousand_connections_at_a_time() {
    raise_limit();
    let mut vm = guest(&format!(
        "test=vsock-client connections={MANY} bytes=2000 port=1234"
    ));
    let path = vm.folder().join("guest.vsock_1234");

    block_on(async {
        let listener = UnixListener::bind(&path).unwrap();
        let mut echoes = JoinSet::new();
        for _ in 0..MANY {
            let (mut stream, _) = listener.accept().await.unwrap();
            echoes.spawn(async move {
                let (mut reader, mut writer) = stream.split();
                tokio::io::copy(&mut reader, &mut writer).await.unwrap()
            });
        }
        let echoed: u64 = echoes.join_all().await.iter().sum();
        assert_eq!(echoed, 2000 * MANY as u64);
    });

    assert_eq!(vm.wait(), 0, "{}{}", vm.serial(), vm.stderr());
    let all = format!("vsock established {MANY}\r\n");
    assert!(vm.serial().contains(&all), "{}", vm.serial());
}

#[test]
fn the_guest_is_refused_a_port_that_nobody_serves() {
    let mut vm = guest("test=vsock-client port=5555");

    assert_eq!(vm.wait(), 1);

    let refused = "connection 0 is refused";
    assert!(vm.serial().contains(refused), "{}", vm.serial());
}

#[test]
fn a_program_that_says_nonsense_is_sent_away() {
    let vm = guest("test=vsock-server");
    vm.wait_for_serial("vsock cid 42\r\n");
    let path = vm.folder().join("guest.vsock");
    let mut stream = Blocking::connect(&path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();

    stream.write_all(b"GET / HTTP/1.1\n").unwrap();

    let mut answer = Vec::new();
    // Closed with bytes that nobody read, it may be reset.
    let _ = stream.read_to_end(&mut answer);
    assert_eq!(answer, b"");
}

#[test]
fn a_guest_without_a_driver_refuses() {
    let vm = guest("test=nothing hold");
    vm.wait_for_serial("ok nothing");

    let mut answer = Vec::new();
    let _ = connect(&vm, 22).read_to_end(&mut answer);

    assert_eq!(answer, b"");
}
