//! Desks kept from others: TLS, with clients that others wrote.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use caraway_tests::certificates::Certificates;
use caraway_tests::client::{RemoteViewer, Ryll, glib_open, try_spicy_screenshot};
use caraway_tests::vm::{Vm, colours_config, merge};
use caraway_tests::wait::wait_for;
use serde_json::{Value, json};

const ENTER: u8 = 28;

/// The colours guest whose viewers come by TLS, with more keys for `spice`.
fn secured(certificates: &Certificates, more: Value) -> Vm {
    let spice = json!({ "listen": ["127.0.0.1:0"], "tls": certificates.config() });
    let vm = Vm::start(&merge(
        colours_config(),
        json!({ "spice": merge(spice, more) }),
    ));
    vm.wait_for_text("press any key");
    vm
}

fn reason_for_refusal(vm: &Vm, words: &str) {
    wait_for(&format!("{words:?} in the events"), || {
        let answer = vm.api().get("events?since=0&replay_only=true");
        let events = String::from_utf8_lossy(&answer).into_owned();
        let mut refusals = events.lines().filter(|line| line.contains("spice.refused"));
        refusals.any(|line| line.contains(words)).then_some(())
    });
}

#[test]
fn ryll_shows_the_screen_by_our_connection_file_and_every_channel_is_secured() {
    let certificates = Certificates::new("desk");
    let vm = secured(&certificates, json!({}));

    let mut ryll = Ryll::open(&vm.connection_file());

    let ours = vm.screenshot();
    wait_for("the screen in ryll", || {
        (ryll.screenshot() == ours).then_some(())
    });
    vm.wait_for_keyboards(1);
    ryll.press(ENTER);
    vm.wait_for_serial("colour 1 green\r\n");
    assert_eq!(ryll.gaps(), Vec::<std::path::PathBuf>::new());
    let info = vm.api().json("display.info");
    let channels = info["sessions"][0]["channels"].as_array().unwrap();
    assert!(channels.len() >= 4, "{info}");
    assert!(
        channels.iter().all(|channel| channel["security"] == "tls"),
        "{info}"
    );
}

#[test]
fn ryll_takes_no_other_subject() {
    let certificates = Certificates::new("desk");
    let vm = secured(&certificates, json!({}));
    let other = vm.connection_file().replace("CN=desk", "CN=other");

    Ryll::assert_refused(&other);

    assert_eq!(vm.api().json("display.info")["sessions"], json!([]));
}

#[test]
fn the_glib_client_takes_our_subject_and_no_other() {
    let certificates = Certificates::new("desk, of A\\B");
    let vm = secured(&certificates, json!({}));
    let subject = r"O=Caraway,CN=desk\, of A\\B";

    let right = glib_open(vm.secure(), &certificates.ca(), subject);
    let wrong = glib_open(vm.secure(), &certificates.ca(), "O=Caraway,CN=other");

    assert_eq!(right, Ok(()));
    assert!(wrong.unwrap_err().contains("error-tls"));
    let file = vm.connection_file();
    // Backslashes are doubled once more in the file.
    assert!(
        file.contains(r"host-subject=O=Caraway,CN=desk\\, of A\\\\B"),
        "{file}"
    );
}

#[test]
fn remote_viewer_shows_the_screen_by_our_connection_file() {
    let certificates = Certificates::new("desk");
    let vm = secured(&certificates, json!({}));

    let viewer = RemoteViewer::open(&vm.connection_file());

    viewer.wait_for(&vm.screenshot());
}

#[test]
fn some_channels_can_be_secured_and_others_plain() {
    let certificates = Certificates::new("desk");
    let mut tls = certificates.config();
    tls["channels"] = json!(["main", "inputs"]);
    let vm = secured(&certificates, json!({ "tls": tls }));

    let viewer = RemoteViewer::open(&vm.connection_file());

    viewer.wait_for(&vm.screenshot());
    let info = vm.api().json("display.info");
    for channel in info["sessions"][0]["channels"].as_array().unwrap() {
        let secured = ["main", "inputs"]
            .iter()
            .any(|kind| channel["kind"] == *kind);
        let wanted = if secured { "tls" } else { "plain" };
        assert_eq!(channel["security"], wanted, "{info}");
    }
}

#[test]
fn who_comes_plainly_is_sent_to_tls_and_the_reason_is_told() {
    let certificates = Certificates::new("desk");
    let vm = secured(&certificates, json!({}));

    let plain = try_spicy_screenshot(vm.spice(), None);

    assert!(plain.is_err());
    reason_for_refusal(&vm, "without TLS");
}

#[test]
fn who_does_not_trust_the_ca_is_told_of_in_the_events() {
    let (certificates, others) = (Certificates::new("desk"), Certificates::new("desk"));
    let vm = secured(&certificates, json!({}));

    let refused = glib_open(vm.secure(), &others.ca(), &certificates.subject());

    assert!(refused.is_err());
    reason_for_refusal(&vm, "does not trust our certificate's CA");
}

#[test]
fn another_certificate_is_shown_after_a_reload_and_sessions_go_on() {
    let certificates = Certificates::new("desk");
    let vm = secured(&certificates, json!({}));
    let file = vm.connection_file();
    let mut old = Ryll::open(&file);

    certificates.renew();
    vm.api().put("display.tls.reload", "");

    let mut new = Ryll::open(&file);
    vm.wait_for_keyboards(2);
    assert!(new.is_connected() && old.is_connected());
    old.press(ENTER);
    vm.wait_for_serial("colour 1 green\r\n");
}

#[test]
fn a_bad_certificate_is_not_taken_by_a_reload_and_the_old_one_stays() {
    let certificates = Certificates::new("desk");
    let vm = secured(&certificates, json!({}));
    std::fs::write(certificates.path("server-cert.pem"), "nonsense").unwrap();

    let answer = vm.api().ask("PUT", "display.tls.reload", "").unwrap();

    assert_eq!(answer.status, 409);
    let error: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(error["code"], "bad-certificate");
    assert_eq!(error["path"], "spice.tls.certificate");
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("server-cert.pem"),
        "{error}"
    );
    assert_eq!(
        glib_open(vm.secure(), &certificates.ca(), &certificates.subject()),
        Ok(())
    );
}
