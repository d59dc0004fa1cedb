//! The console in a browser, straight at the SPICE port, without a proxy.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use caraway_tests::browser::Browser;
use caraway_tests::certificates::Certificates;
use caraway_tests::vm::{Vm, colours_config, merge};
use caraway_tests::wait::poll;
use serde_json::{Value, json};
use std::time::Duration;

const CONSOLE: &str = "/usr/share/spice-html5";

fn machine(more: Value) -> Vm {
    let spice = merge(
        json!({ "listen": ["127.0.0.1:0"], "console": CONSOLE }),
        more,
    );
    let vm = Vm::start(&merge(colours_config(), json!({ "spice": spice })));
    vm.wait_for_text("press any key");
    vm
}

/// Waits until the browser shows what the machine does.
fn assert_shows(browser: &mut Browser, vm: &Vm) {
    let ours = vm.screenshot();
    let patience = Duration::from_secs(60);
    let same = poll(patience, || (browser.picture()? == ours).then_some(()));
    assert!(
        same.is_some(),
        "the browser does not show it: {:#?}",
        browser.said()
    );
}

fn assert_works(url: &str, vm: &Vm) {
    let mut browser = Browser::open(url);
    assert_shows(&mut browser, vm);

    browser.press("Enter", 13);

    vm.wait_for_serial("colour 1 green\r\n");
    assert_shows(&mut browser, vm);
}

#[test]
fn the_start_page_is_a_console() {
    let vm = machine(json!({}));

    assert_works(&format!("http://{}/", vm.spice()), &vm);
}

#[test]
fn the_console_works_by_tls_and_plain_visitors_are_led_to_it() {
    let certificates = Certificates::new("desk");
    let vm = machine(json!({ "tls": certificates.config() }));

    assert_works(&format!("http://{}/", vm.spice()), &vm);

    let info = vm.api().json("display.info");
    let channels = info["sessions"][0]["channels"].as_array();
    let secured = |channel: &Value| channel["security"] == "tls";
    assert!(channels.into_iter().flatten().all(secured), "{info}");
}

#[test]
fn a_password_in_the_address_is_the_ticket() {
    let vm = machine(json!({ "password": "secret" }));

    let mut browser = Browser::open(&format!("http://{}/?password=secret", vm.spice()));

    assert_shows(&mut browser, &vm);
}
