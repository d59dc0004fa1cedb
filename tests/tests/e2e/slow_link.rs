//! What a viewer on a slow link feels.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use std::net::SocketAddr;
use std::time::Duration;

use caraway_tests::latency::{KeyToDraw, PYTHON};
use caraway_tests::link::{Link, SERVER, Shape};
use caraway_tests::vm::{Vm, busy_config, caraway};

/// What a busy screen may add to a key's time.
const ALLOWED: Duration = Duration::from_millis(100);
const KEYS: usize = 20;

fn measure(link: &Link, port: u16, fps: u32) -> KeyToDraw {
    let server = SocketAddr::from((SERVER, port));
    let config = busy_config(&format!("fps={fps}"), &server.to_string());
    let vm = Vm::start_by(link.at_server(caraway()), &config, &[]);
    vm.wait_for_serial("busy ");
    KeyToDraw::measure(link.at_client(PYTHON), server, KEYS)
}

/// 25 s: twice a link has to settle, and each key waits for the one before. The still screen shows
/// what this machine adds to the round trip by itself, which is little unless others keep it busy.
#[test]
fn a_key_shows_soon_on_a_slow_link_while_the_screen_is_busy() {
    let link = Link::new(Shape::WAN);

    let still = measure(&link, 5900, 0);
    let busy = measure(&link, 5901, 20);

    println!(
        "{} link, still: {still}\n{} link, busy: {busy}",
        link.kind(),
        link.kind()
    );
    // The screen was busy indeed: the link was full.
    assert!(busy.rate() > 0.7 * Shape::WAN.rate as f64, "{busy}");
    let least = still.quantile(0.95).max(Shape::WAN.round_trip());
    assert!(busy.quantile(0.95) <= least + ALLOWED, "{still}; {busy}");
}
