//! What a viewer on a slow link feels, and what one that stalls costs the others.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use std::net::SocketAddr;
use std::time::Duration;

use caraway_tests::latency::{KeyToDraw, PYTHON};
use caraway_tests::link::{Link, SERVER, Shape};
use caraway_tests::vm::{Vm, busy_config, caraway};

/// Beside the round trip, what a key may take to show.
const ALLOWED: Duration = Duration::from_millis(100);
const KEYS: usize = 20;

/// 15 s: the link has to settle, and each key waits for the one before.
#[test]
fn a_key_shows_soon_on_a_slow_link_while_the_screen_is_busy() {
    let link = Link::new(Shape::WAN);
    let server = SocketAddr::from((SERVER, 5900));
    let config = busy_config("fps=20", &server.to_string());
    let vm = Vm::start_by(link.at_server(caraway()), &config, &[]);
    vm.wait_for_serial("busy ");

    let seen = KeyToDraw::measure(link.at_client(PYTHON), server, KEYS);

    println!("{} link: {seen}", link.kind());
    // The screen was busy indeed: the link was full.
    assert!(seen.rate() > 0.7 * Shape::WAN.rate as f64, "{seen}");
    let bound = Shape::WAN.round_trip() + ALLOWED;
    assert!(seen.quantile(0.95) <= bound, "{seen}");
}
