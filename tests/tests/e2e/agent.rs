//! Viewers that others wrote, and a scripted agent: clipboard, files and monitors, by way of our
//! server.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use caraway_spice::Config;
use caraway_tests::agent::Desk;
use caraway_tests::client::Ryll;
use caraway_tests::glib_agent::GlibAgent;

#[test]
fn a_viewer_pastes_what_the_guest_copies() {
    let desk = Desk::new(Config::default());
    let mut viewer = GlibAgent::connect(desk.address);
    viewer.wait_for("agent 0 1 2 5 6 7 8 10 11 15 16 17");

    desk.copy("from the guest");
    viewer.wait_for("offered");
    viewer.say("paste");

    viewer.wait_for("pasted from the guest");
}

#[test]
fn the_guest_pastes_what_a_viewer_copies() {
    let desk = Desk::new(Config::default());
    let mut viewer = GlibAgent::connect(desk.address);
    viewer.wait_for("agent 0 1 2 5 6 7 8 10 11 15 16 17");

    viewer.say("copy from the viewer");
    desk.wait_for_text("from the viewer");

    // And in turns, so that the numbers of grabs stay in step.
    desk.copy("one");
    viewer.wait_for("offered");
    viewer.say("copy two");
    desk.wait_for_text("two");
    desk.copy("three");
    viewer.wait_for("offered");
    viewer.say("paste");
    viewer.wait_for("pasted three");
}

#[test]
fn clipboards_work_again_after_the_agent_came_again() {
    let desk = Desk::new(Config::default());
    let mut viewer = GlibAgent::connect(desk.address);
    viewer.wait_for("agent 0 1 2 5 6 7 8 10 11 15 16 17");
    viewer.say("copy before");
    desk.wait_for_text("before");

    desk.restart_agent();
    viewer.wait_for("no agent");
    viewer.wait_for("agent 0 1 2 5 6 7 8 10 11 15 16 17");
    viewer.say("copy after");
    desk.wait_for_text("after");
    desk.copy("back");
    viewer.wait_for("offered");
    viewer.say("paste");

    viewer.wait_for("pasted back");
}

#[test]
fn a_viewer_sends_a_file() {
    let desk = Desk::new(Config::default());
    let mut viewer = GlibAgent::connect(desk.address);
    viewer.wait_for("agent 0 1 2 5 6 7 8 10 11 15 16 17");
    let content: Vec<u8> = (0..300_000_u32).map(|n| (n * 7 % 253) as u8).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("numbers.bin");
    std::fs::write(&path, &content).unwrap();

    viewer.say(&format!("send {}", path.display()));

    assert_eq!(desk.wait_for_file("numbers.bin", content.len()), content);
}

#[test]
fn a_viewer_s_window_asks_for_a_monitor() {
    let desk = Desk::new(Config::default());
    let mut viewer = GlibAgent::connect(desk.address);
    viewer.wait_for("agent 0 1 2 5 6 7 8 10 11 15 16 17");

    viewer.say("resize 1024 600");

    desk.wait_for_monitor((1024, 600));
}

#[test]
fn what_the_config_forbids_a_viewer_cannot_do() {
    let desk = Desk::new(Config {
        clipboard: false,
        file_transfer: false,
        ..Config::default()
    });
    let mut viewer = GlibAgent::connect(desk.address);
    // No clipboard by demand (5), selections (6) and the rest; file transfer disabled (13).
    viewer.wait_for("agent 0 1 2 7 8 11 13 15");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "secret").unwrap();

    viewer.say(&format!("send {}", file.path().display()));
    viewer.wait_for_start("not sent: ");
    viewer.say("copy secret");
    desk.copy("secret");
    // What comes later proves that the rest did not come.
    viewer.say("resize 800 600");
    desk.wait_for_monitor((800, 600));

    assert_eq!(desk.counts(), (0, 0, 0));
    assert!(!viewer.has_said("offered"));
}

#[test]
fn two_viewers_of_different_makes_share_one_agent() {
    let desk = Desk::new(Config::default());
    let mut viewer = GlibAgent::connect(desk.address);
    viewer.wait_for("agent 0 1 2 5 6 7 8 10 11 15 16 17");
    let mut ryll = Ryll::connect(desk.address);
    ryll.wait_for_agent();

    ryll.set_clipboard("from ryll");
    desk.wait_for_text("from ryll");
    desk.copy("for both");
    viewer.wait_for("offered");
    viewer.say("paste");
    viewer.wait_for("pasted for both");
    ryll.wait_for_clipboard("for both");
    ryll.resize(896, 696);

    desk.wait_for_monitor((896, 696));
    assert!(ryll.gaps().is_empty(), "{:?}", ryll.gaps());
}
