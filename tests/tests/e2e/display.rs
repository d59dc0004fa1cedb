//! A guest on screen: SeaBIOS and the colours guest, seen and typed at by clients that others wrote.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use caraway_tests::client::{RemoteViewer, Ryll, glib_key, spicy_screenshot, try_spicy_screenshot};
use caraway_tests::vm::{Vm, colours_config, merge};
use caraway_tests::wait::wait_for;
use serde_json::json;

const ENTER: u8 = 28;
const NO_GAPS: [PathBuf; 0] = [];

/// The colours guest's backgrounds, in the VGA's palette.
const BLUE: [u8; 3] = [0, 0, 0xaa];
const GREEN: [u8; 3] = [0, 0xaa, 0];
const CYAN: [u8; 3] = [0, 0xaa, 0xaa];

#[test]
fn the_firmwares_screen_is_there_as_text() {
    // With no disk there is nothing to boot, so that the firmware's screen stays.
    let vm = Vm::start(&merge(colours_config(), json!({ "disks": [] })));

    vm.wait_for_text("SeaBIOS (version");
}

#[test]
fn the_boot_sector_is_reached_and_its_screen_is_text() {
    let vm = Vm::colours();

    assert!(vm.text().contains("colour 0 blue"), "{}", vm.text());
    assert_eq!(vm.screenshot().pixel(0, 0), BLUE);
}

#[test]
fn spicy_screenshot_shows_the_screen() {
    let vm = Vm::colours();

    let seen = spicy_screenshot(vm.spice());

    seen.assert_same(&vm.screenshot(), "spicy-screenshot");
}

#[test]
fn ryll_shows_the_screen_and_finds_no_gap() {
    let vm = Vm::colours();

    let mut ryll = Ryll::connect(vm.spice());
    let ours = vm.screenshot();

    wait_for("the screen in ryll", || {
        (ryll.screenshot() == ours).then_some(())
    });
    assert_eq!(ryll.gaps(), NO_GAPS);
}

#[test]
fn remote_viewer_shows_the_screen() {
    let vm = Vm::colours();

    let viewer = RemoteViewer::connect(vm.spice());

    viewer.wait_for(&vm.screenshot());
}

#[test]
fn a_key_from_ryll_changes_the_colour() {
    let vm = Vm::colours();
    let mut ryll = Ryll::connect(vm.spice());
    vm.wait_for_keyboards(1);

    ryll.press(ENTER);

    vm.wait_for_serial("colour 1 green\r\n");
    wait_for("green in ryll", || {
        (ryll.screenshot().pixel(0, 0) == GREEN).then_some(())
    });
    ryll.screenshot().assert_same(&vm.screenshot(), "ryll");
    assert_eq!(ryll.gaps(), NO_GAPS);
}

#[test]
fn a_key_from_the_glib_client_changes_the_colour() {
    let vm = Vm::colours();

    glib_key(vm.spice(), ENTER);

    vm.wait_for_serial("colour 1 green\r\n");
    wait_for("green", || {
        (vm.screenshot().pixel(0, 0) == GREEN).then_some(())
    });
    spicy_screenshot(vm.spice()).assert_same(&vm.screenshot(), "spicy-screenshot");
}

#[test]
fn two_clients_at_once_see_the_same() {
    let vm = Vm::colours();
    let mut first = Ryll::connect(vm.spice());
    let mut second = Ryll::connect(vm.spice());
    vm.wait_for_keyboards(2);

    first.press(ENTER);
    vm.wait_for_serial("colour 1 green\r\n");
    second.press(ENTER);
    vm.wait_for_serial("colour 2 cyan\r\n");

    for client in [&mut first, &mut second] {
        wait_for("cyan", || {
            (client.screenshot().pixel(0, 0) == CYAN).then_some(())
        });
        client
            .screenshot()
            .assert_same(&vm.screenshot(), "a client of two");
        assert!(client.is_connected());
    }
}

#[test]
fn the_password_opens_the_screen_and_nothing_else_does() {
    let spice = json!({ "listen": ["127.0.0.1:0"], "auth": "password", "password": "secret" });
    let vm = Vm::start(&merge(colours_config(), json!({ "spice": spice })));
    vm.wait_for_text("press any key");

    let without = try_spicy_screenshot(vm.spice(), None);
    let wrong = try_spicy_screenshot(vm.spice(), Some("Secret"));
    let right = try_spicy_screenshot(vm.spice(), Some("secret"));

    assert!(without.is_err() && wrong.is_err());
    right
        .unwrap()
        .assert_same(&vm.screenshot(), "spicy-screenshot");
}

#[test]
fn a_client_that_vanishes_in_the_middle_of_a_message_harms_nobody() {
    let vm = Vm::colours();
    let mut bystander = Ryll::connect(vm.spice());
    vm.wait_for_keyboards(1);

    // In the link's header, its body, the ticket, and the first messages.
    for bytes in [3, 15, 18, 40, 100, 200, 250, 300] {
        let relay = relay_cut_after(vm.spice(), bytes);
        let _ = try_spicy_screenshot(relay, None);
    }

    assert!(bystander.is_connected());
    bystander.press(ENTER);
    vm.wait_for_serial("colour 1 green\r\n");
    spicy_screenshot(vm.spice()).assert_same(&vm.screenshot(), "spicy-screenshot");
}

/// Where a client can connect whose messages end, on each connection, after so many bytes.
fn relay_cut_after(server: SocketAddr, bytes: u64) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming() {
            let (Ok(client), Ok(server)) = (client, TcpStream::connect(server)) else {
                return;
            };
            thread::spawn(move || relay(&client, &server, bytes));
        }
    });
    address
}

fn relay(client: &TcpStream, server: &TcpStream, bytes: u64) {
    let (mut from_server, mut to_client) = (server, client);
    thread::scope(|scope| {
        // Either way ends with the other; what was lost on the way is the point.
        scope.spawn(move || {
            let _ = std::io::copy(&mut from_server, &mut to_client);
            let _ = to_client.shutdown(Shutdown::Both);
        });
        let _ = std::io::copy(&mut client.take(bytes), &mut &*server);
        let _ = (&*server).flush();
        thread::sleep(Duration::from_millis(20));
        let _ = server.shutdown(Shutdown::Both);
        let _ = client.shutdown(Shutdown::Both);
    });
}
