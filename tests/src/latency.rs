//! How long it takes from a key to the pixels that it changes, as a client that others wrote sees it.

use std::fmt;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;

use crate::process::run;

/// The client's interpreter: the one that Debian's packages are for.
pub const PYTHON: &str = "/usr/bin/python3";
/// A pixel of the square that the bare guest's `busy` changes at each key.
const MARKER: (u32, u32) = (32, 32);

/// What one client saw.
#[derive(Debug, Clone, Deserialize)]
pub struct KeyToDraw {
    /// Each key's milliseconds; `None` for those that never showed.
    delays: Vec<Option<f64>>,
    seconds: f64,
    connected: f64,
    bytes: f64,
    pixels: f64,
    invalidations: u64,
}

impl KeyToDraw {
    /// Presses `keys` keys at the `busy` guest behind `server`, one after the other; about a third
    /// of a second and a delay each, after four seconds to settle. `client` starts [`PYTHON`],
    /// wherever it is to run.
    ///
    /// # Panics
    /// If the client does not connect.
    pub fn measure(mut client: Command, server: SocketAddr, keys: usize) -> Self {
        client.arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/clients/key_to_draw.py"
        ));
        client.args([server.ip().to_string(), server.port().to_string()]);
        client.args([keys.to_string(), MARKER.0.to_string(), MARKER.1.to_string()]);
        let patience = Duration::from_secs(60 + 5 * keys as u64);
        let output = run(&mut client, patience);
        let text = String::from_utf8_lossy(&output.stdout);
        match serde_json::from_str(&text) {
            Ok(seen) => seen,
            Err(_) => panic!("key_to_draw.py: {output:?}"),
        }
    }

    /// The delay that this part of the keys, 0 to 1, did not exceed; a key that never showed took
    /// forever.
    pub fn quantile(&self, part: f64) -> Duration {
        let mut delays = self.delays.clone();
        delays.sort_by(|a, b| {
            let [a, b] = [a, b].map(|delay| delay.unwrap_or(f64::INFINITY));
            a.total_cmp(&b)
        });
        let rank = (part * delays.len() as f64).ceil() as usize;
        match delays.get(rank.saturating_sub(1)) {
            Some(Some(ms)) => Duration::from_secs_f64(ms / 1000.0),
            _ => Duration::MAX,
        }
    }

    /// Bits a second that came on the display channel meanwhile.
    pub fn rate(&self) -> f64 {
        self.bytes * 8.0 / self.seconds
    }

    /// Times a second that the client drew.
    pub fn draws(&self) -> f64 {
        self.invalidations as f64 / self.seconds
    }

    /// Pictures of this size a second that the client drew, whole or in pieces.
    pub fn pictures(&self, (width, height): (u32, u32)) -> f64 {
        self.pixels / self.seconds / (f64::from(width) * f64::from(height))
    }

    /// How long the client was connected.
    pub fn connected(&self) -> Duration {
        Duration::from_secs_f64(self.connected)
    }

    /// Keys that were pressed.
    pub fn keys(&self) -> usize {
        self.delays.len()
    }
}

impl fmt::Display for KeyToDraw {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |part| self.quantile(part).as_secs_f64() * 1000.0;
        write!(
            out,
            "p50 {:.0} ms, p95 {:.0} ms of {} keys at {:.1} Mbit/s, {:.0} draws a second",
            ms(0.5),
            ms(0.95),
            self.keys(),
            self.rate() / 1e6,
            self.draws()
        )
    }
}
