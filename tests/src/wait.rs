//! Waiting for what other processes do, always with an end.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// Long enough for anything here on a busy machine of two cores.
pub const PATIENCE: Duration = Duration::from_secs(40);

const STEP: Duration = Duration::from_millis(20);

/// Asks until there is an answer.
///
/// # Panics
/// If there is none within [`PATIENCE`], saying `what` was waited for.
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    poll(PATIENCE, &mut ask).unwrap_or_else(|| panic!("waited {PATIENCE:?} in vain for {what}"))
}

/// Asks until there is an answer or the time is over.
pub fn poll<T>(patience: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + patience;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() > end {
            return None;
        }
        sleep(STEP);
    }
}
