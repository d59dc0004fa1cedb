//! Through the SPICE proxy Kerbside, which parses what passes and lets through only what it knows.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use std::io::Read;
use std::os::unix::net::UnixStream;

use caraway_tests::certificates::Certificates;
use caraway_tests::client::Ryll;
use caraway_tests::kerbside::Kerbside;
use caraway_tests::server::AllChannels;
use caraway_tests::vm::{Vm, colours_config, merge};
use caraway_tests::wait::{PATIENCE, wait_for};
use serde_json::{Value, json};

const ENTER: u8 = 28;
/// What a client opens that has no device to redirect: main, display, cursor, inputs.
const CHANNELS: f64 = 4.0;

fn machine(spice: Value) -> Vm {
    let vm = Vm::start(&merge(colours_config(), json!({ "spice": spice })));
    vm.wait_for_text("press any key");
    vm
}

/// Looks and types through the proxy; its firewall must have nothing to say.
fn assert_passes(vm: &Vm, target: &Value) {
    let kerbside = Kerbside::before(target);

    let mut ryll = Ryll::open(&kerbside.connection_file());
    let ours = vm.screenshot();
    wait_for("the screen in ryll", || {
        (ryll.screenshot() == ours).then_some(())
    });
    vm.wait_for_keyboards(1);
    ryll.press(ENTER);
    vm.wait_for_serial("colour 1 green\r\n");
    let ours = vm.screenshot();
    wait_for("green in ryll", || {
        (ryll.screenshot() == ours).then_some(())
    });

    assert_eq!(ryll.gaps(), Vec::<std::path::PathBuf>::new());
    assert_eq!(
        kerbside.count("verdicts"),
        0.0,
        "{:?}",
        kerbside.metrics("verdicts")
    );
    assert!(
        kerbside.count("authorized") >= CHANNELS,
        "{}",
        kerbside.log()
    );
    assert!(
        kerbside.count("bytes_relayed") > 0.0,
        "{:?}",
        kerbside.metrics("")
    );
    assert!(
        !kerbside.log().contains("lacks capabilities"),
        "{}",
        kerbside.log()
    );
}

/// What the firewall said, but for what Kerbside 0.8.0 says of every server: it ends port and WebDAV
/// channels at `PORT_INIT`.
fn verdicts(kerbside: &Kerbside) -> Vec<String> {
    let expected = |line: &String| ["port", "webdav"].iter().any(|kind| line.contains(kind));
    let mut lines = kerbside.metrics("verdicts");
    lines.retain(|line| !expected(line));
    lines
}

#[test]
fn sound_passes_kerbside() {
    let server = AllChannels::start(440.0);
    let kerbside = Kerbside::before(&json!({ "port": server.address().port() }));

    let ryll = Ryll::open(&kerbside.connection_file());

    wait_for("Opus in ryll", || {
        ryll.log()
            .contains("Opus decoder initialized")
            .then_some(())
    });
    assert_eq!(verdicts(&kerbside), Vec::<String>::new());
}

#[test]
fn a_usb_disk_passes_kerbside() {
    let vm = machine(json!({ "listen": ["127.0.0.1:0"], "usb_redirection": ["unix:usb"] }));
    let disk = vm.folder().join("stick.img");
    std::fs::write(&disk, vec![7; 1 << 20]).unwrap();
    let mut slot = UnixStream::connect(vm.folder().join("usb")).unwrap();
    slot.set_read_timeout(Some(PATIENCE)).unwrap();
    let kerbside = Kerbside::before(&json!({ "port": vm.spice().port() }));

    let arguments = ["--usb-disk".as_ref(), disk.as_os_str()];
    let _ryll = Ryll::open_with(&kerbside.connection_file(), &arguments);

    // A hello begins with its number, 0.
    let mut kind = [0xff; 4];
    slot.read_exact(&mut kind).unwrap();
    assert_eq!(kind, [0; 4]);
    assert_eq!(verdicts(&kerbside), Vec::<String>::new());
}

#[test]
fn ryll_passes_kerbside_to_a_plain_server_with_a_password() {
    let vm = machine(json!({ "listen": ["127.0.0.1:0"], "password": "secret" }));

    assert_passes(
        &vm,
        &json!({ "port": vm.spice().port(), "ticket": "secret" }),
    );
}

#[test]
fn ryll_passes_kerbside_to_a_server_that_sends_it_to_tls() {
    let certificates = Certificates::new("desk");
    let vm = machine(json!({ "listen": ["127.0.0.1:0"], "tls": certificates.config() }));
    let target = json!({
        "port": vm.spice().port(),
        "tls_port": vm.secure().port(),
        "ca": std::fs::read_to_string(certificates.ca()).unwrap(),
        "subject": certificates.subject(),
    });

    assert_passes(&vm, &target);

    let info = vm.api().json("display.info");
    assert!(info["sessions"].is_array(), "{info}");
}
