//! The virtio source of random numbers.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use caraway_virtio::Rng;

use super::virtio::Slots;
use crate::config::RngSpec;
use crate::exit::{Exit, Failure};
use crate::metrics::Metrics;

/// Puts the device in its slot.
///
/// # Errors
/// Its source can't be opened, or the host lacks what it needs.
pub(super) fn add(spec: &RngSpec, slots: &mut Slots<'_>) -> Result<Arc<Rng>, Failure> {
    let failed = |place: &str, error: &dyn std::error::Error| {
        Failure::of(Exit::Resource, error).context(place.to_owned())
    };
    // A source that has nothing yet must not hold the event loop up.
    let source = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(&spec.source)
        .map_err(|error| failed("rng.source", &error))?;
    let timer = slots
        .timers
        .timer()
        .map_err(|error| failed("rng", &error))?;
    let rng = Rng::new(source, spec.limit, slots.clock.clone(), timer.clone());
    let rng = Arc::new(rng);
    slots
        .attach_to_loop(spec.address, Arc::clone(&rng))
        .map_err(|error| failed("rng", &error))?;
    let served = Arc::clone(&rng);
    slots.serve_timer(timer, move || served.expired());
    Ok(rng)
}

/// Shows what went to the guest.
pub(super) fn export(rng: &Arc<Rng>, metrics: &Metrics) {
    let asked = Arc::clone(rng);
    let help = "Random bytes given to the guest.";
    metrics.counter_of("rng_bytes_total", help, &[], move || asked.counts().bytes);
    let asked = Arc::clone(rng);
    let help = "How often the guest waited for the limit of its random bytes.";
    metrics.counter_of("rng_limited_total", help, &[], move || {
        asked.counts().limited
    });
}
