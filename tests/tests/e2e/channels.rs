//! Sound, ports, shared folders and USB redirection, used by clients that others wrote.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use caraway_tests::client::{RemoteViewer, Ryll, glib_channels};
use caraway_tests::server::{AllChannels, ECHO};
use caraway_tests::vm::{Vm, colours_config, merge};
use caraway_tests::wait::{PATIENCE, wait_for};
use serde_json::{Value, json};
use shakenfist_spice_usbredir::messages::{Hello, UsbredirPayload, make_usbredir_message};
use shakenfist_spice_usbredir::parser::UsbredirParser;

/// Main, display, inputs, cursor, playback, record, usbredir, port, webdav.
const EVERY_CHANNEL: &str = "1.0,2.0,3.0,4.0,5.0,6.0,9.0,10.0,11.0";

/// A machine with more under `spice`; nobody cares how far its guest is.
fn colours_with(more: Value) -> Vm {
    let spice = merge(json!({ "listen": ["127.0.0.1:0"] }), more);
    Vm::start(&merge(colours_config(), json!({ "spice": spice })))
}

/// Connects to a socket in the machine's folder, as the program at the other end of a pipe.
fn join(vm: &Vm, socket: &str) -> UnixStream {
    let stream = UnixStream::connect(vm.folder().join(socket)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn exactly(stream: &mut UnixStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

#[test]
fn spice_gtk_opens_every_channel_and_hears_and_says_what_it_should() {
    let server = AllChannels::start(440.0);
    let microphone = server.microphone.clone();
    let recorded = thread::spawn(move || {
        let mut samples = Vec::new();
        wait_for("a second of recorded sound", || {
            let mut piece = vec![0; 9600];
            let count = microphone.read(&mut piece);
            samples.extend(piece[..count].iter().step_by(2).copied());
            (samples.len() > 48_000).then_some(())
        });
        samples
    });

    let said = "to the port and back";
    let options = ["--tone", "1000", "--say", said];
    let report = glib_channels(server.address(), EVERY_CHANNEL, &options);

    let hertz = report["playback"]["hertz"].as_f64().unwrap();
    let peak = report["playback"]["peak"].as_f64().unwrap();
    assert!((435.0..445.0).contains(&hertz), "{report}");
    assert!((9_000.0..11_000.0).contains(&peak), "{report}");
    assert_eq!(report["ports"][ECHO], said);
    assert_eq!(report["recording"], json!([[2, 48_000]]));
    let recorded = recorded.join().unwrap();
    let rises = recorded
        .windows(2)
        .filter(|pair| pair[0] < 0 && pair[1] >= 0);
    let hertz = rises.count() as f64 * 48_000.0 / recorded.len() as f64;
    assert!((970.0..1030.0).contains(&hertz), "recorded {hertz} Hz");
}

#[test]
fn ryll_hears_the_sound_and_finds_no_gap() {
    let server = AllChannels::start(440.0);

    let ryll = Ryll::connect(server.address());

    wait_for("Opus in ryll", || {
        ryll.log()
            .contains("Opus decoder initialized")
            .then_some(())
    });
    assert_eq!(ryll.gaps(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn remote_viewer_takes_every_channel_without_a_complaint() {
    let server = AllChannels::start(440.0);
    let mut viewer = RemoteViewer::connect(server.address());

    // Main, display, inputs, cursor, playback, record, port, webdav; a USB slot is opened for a device.
    wait_for("all channels of remote-viewer", || {
        (server.channels().len() >= 8).then_some(())
    });
    thread::sleep(Duration::from_secs(1));

    assert!(viewer.is_running());
    assert_eq!(viewer.log(), "");
}

#[test]
fn a_port_joins_a_viewer_to_a_socket() {
    let vm = colours_with(json!({
        "ports": [{ "name": "org.example.console.0", "to": "unix:console" }],
    }));
    let mut program = join(&vm, "console");
    let program = thread::spawn(move || {
        let heard = exactly(&mut program, 5);
        program.write_all(b"welcome").unwrap();
        // Stays until the viewer has it.
        let end = program.read(&mut [0]);
        (heard, end.map_err(|error| error.kind()))
    });

    let report = glib_channels(vm.spice(), "1.0,2.0,3.0,4.0,10.0", &["--say", "hello"]);

    assert_eq!(report["ports"]["org.example.console.0"], "welcome");
    drop(vm);
    let (heard, end) = program.join().unwrap();
    assert_eq!(heard, b"hello");
    assert!(
        matches!(end, Ok(0) | Err(ErrorKind::ConnectionReset)),
        "{end:?}"
    );
}

#[test]
fn spice_gtk_opens_a_usb_slot_that_is_offered_late() {
    let vm = colours_with(json!({
        "ports": [{ "name": "org.example.console.0", "to": "unix:console" }],
        "usb_redirection": ["unix:usb"],
    }));
    let (mut console, usb) = (join(&vm, "console"), vm.folder().join("usb"));
    let program = thread::spawn(move || {
        // The viewer is connected by now.
        exactly(&mut console, 5);
        let mut slot = UnixStream::connect(usb).unwrap();
        slot.set_read_timeout(Some(PATIENCE)).unwrap();
        console.write_all(b"later").unwrap();
        slot.write_all(&our_hello()).unwrap();
        match UsbPeer::new(slot).next() {
            UsbredirPayload::Hello(hello) => hello.version,
            other => panic!("{other:?}"),
        }
    });

    let wanted = "1.0,2.0,3.0,4.0,9.0,10.0";
    let report = glib_channels(vm.spice(), wanted, &["--say", "hello"]);

    let version = program.join().unwrap();
    assert!(version.starts_with("spice-gtk"), "{version} {report}");
}

/// Who speaks usbredir with a client.
struct UsbPeer {
    stream: UnixStream,
    parser: UsbredirParser,
}

impl UsbPeer {
    fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            parser: UsbredirParser::new(),
        }
    }

    fn next(&mut self) -> UsbredirPayload {
        loop {
            if let Some(message) = self.parser.next_message().unwrap() {
                return message.payload;
            }
            let mut bytes = [0; 4096];
            let count = self.stream.read(&mut bytes).unwrap();
            assert!(count > 0, "the client is gone");
            self.parser.feed(&bytes[..count]);
        }
    }
}

fn our_hello() -> Vec<u8> {
    let hello = Hello {
        version: "caraway tests".to_owned(),
        capabilities: 0,
    };
    let mut body = Vec::new();
    hello.write(&mut body).unwrap();
    make_usbredir_message(0, 0, &body)
}

#[test]
fn rylls_usb_disk_is_there_for_whoever_is_behind_the_slot() {
    let vm = colours_with(json!({ "usb_redirection": ["unix:usb"] }));
    let disk = vm.folder().join("stick.img");
    fs::write(&disk, vec![7; 1 << 20]).unwrap();
    let mut slot = join(&vm, "usb");
    slot.write_all(&our_hello()).unwrap();
    let mut peer = UsbPeer::new(slot);

    let _ryll = Ryll::connect_with(vm.spice(), &["--usb-disk".as_ref(), disk.as_os_str()]);

    assert!(matches!(peer.next(), UsbredirPayload::Hello(_)));
    wait_for("the device", || match peer.next() {
        UsbredirPayload::DeviceConnect(device) => Some(device.vendor_id),
        _ => None,
    });
}

#[test]
fn a_folder_that_ryll_shares_is_read_through_the_socket() {
    let vm = colours_with(json!({ "webdav": "unix:folders" }));
    let share = vm.folder().join("share");
    fs::create_dir(&share).unwrap();
    fs::write(share.join("letter.txt"), "dear guest").unwrap();
    let mut folders = join(&vm, "folders");

    let _ryll = Ryll::connect_with(vm.spice(), &["--share-dir".as_ref(), share.as_os_str()]);

    // As spice-webdavd does: each connection has a number, each piece its length.
    let request = b"GET /letter.txt HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let connection = 1_i64.to_le_bytes();
    let length = (request.len() as u16).to_le_bytes();
    folders
        .write_all(&[&connection, &length[..], request].concat())
        .unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"dear guest") {
        assert_eq!(exactly(&mut folders, 8), connection);
        let length = exactly(&mut folders, 2);
        let length = u16::from_le_bytes([length[0], length[1]]);
        assert!(length > 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend(exactly(&mut folders, length.into()));
    }
    assert!(answer.starts_with(b"HTTP/1.1 200"));
}
