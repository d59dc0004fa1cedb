//! The virtio memory balloon.

use std::sync::Arc;

use caraway_devices::{Clock, Nanos, RealClock};
use caraway_virtio::balloon::Stats;
use caraway_virtio::{Balloon, BalloonConfig, BalloonInfo, VirtioPci};

use super::virtio::Slots;
use crate::balloon::{BalloonStats, BalloonStatus};
use crate::config::BalloonSpec;
use crate::exit::{Exit, Failure};
use crate::metrics::Metrics;

/// The device in its slot.
pub(super) struct BalloonSlot {
    pci: Arc<VirtioPci<Balloon>>,
    clock: Arc<RealClock>,
    memory: u64,
}

impl BalloonSlot {
    /// Puts the device of a guest with so many bytes of memory in its slot.
    ///
    /// # Errors
    /// The host lacks what it needs.
    pub(super) fn add(
        spec: &BalloonSpec,
        memory: u64,
        slots: &mut Slots<'_>,
    ) -> Result<Self, Failure> {
        let failed = |error: &dyn std::error::Error| {
            Failure::of(Exit::Resource, error).context("the balloon can't be made")
        };
        let interval = spec.stats_interval.map(|span| span.0.as_nanos() as Nanos);
        let config = BalloonConfig {
            memory,
            stats_interval: interval,
            deflate_on_oom: spec.deflate_on_oom,
            free_page_reporting: spec.free_page_reporting,
        };
        let timer = slots.timers.timer().map_err(|error| failed(&error))?;
        let clock = slots.clock.clone();
        let balloon = Arc::new(Balloon::new(config, clock.clone(), timer.clone()));
        let pci = slots
            .attach_to_loop(spec.address, Arc::clone(&balloon))
            .map_err(|error| failed(&error))?;
        slots.serve_timer(timer, move || balloon.expired());
        Ok(Self { pci, clock, memory })
    }

    /// Asks the guest to keep `bytes` of its memory, and to give the rest back.
    pub(super) fn set_target(&self, bytes: u64) {
        let balloon = self.pci.device();
        balloon.set_target(self.memory.saturating_sub(bytes));
        self.pci.config_changed();
    }

    /// What the balloon does.
    pub(super) fn status(&self) -> BalloonStatus {
        let info = self.pci.device().info();
        let BalloonInfo {
            is_active,
            target,
            actual,
            inflated,
            reported,
            stats,
            stats_at,
        } = info;
        let kept = |given: u64| self.memory.saturating_sub(given);
        let age = self.clock.now().saturating_sub(stats_at) / 1_000_000;
        BalloonStatus {
            active: is_active,
            memory: self.memory,
            target: kept(target),
            actual: kept(actual),
            returned_by_balloon: inflated,
            returned_unused: reported,
            stats_age_ms: stats.map(|_| age),
            stats: stats.map(shown),
        }
    }

    /// Shows what the balloon does, and what the guest says of its memory.
    pub(super) fn export(&self, metrics: &Metrics) {
        let asked = |number: fn(&BalloonInfo) -> u64| {
            let pci = Arc::clone(&self.pci);
            move || number(&pci.device().info())
        };
        let help = "Bytes that the guest is asked to give back.";
        metrics.gauge_of("balloon_target_bytes", help, &[], asked(|info| info.target));
        let help = "Bytes that the guest says it has given back.";
        metrics.gauge_of("balloon_actual_bytes", help, &[], asked(|info| info.actual));
        let help = "Bytes given back to the host, by the balloon or because they were unused.";
        for (by, number) in [
            ("balloon", asked(|info| info.inflated)),
            ("unused", asked(|info| info.reported)),
        ] {
            metrics.counter_of("balloon_returned_bytes_total", help, &[("by", by)], number);
        }
        let help = "Bytes of memory as the guest last said, by kind; 0 if it did not.";
        let said = |field: fn(Stats) -> Option<u64>| {
            let pci = Arc::clone(&self.pci);
            move || pci.device().info().stats.and_then(field).unwrap_or(0)
        };
        for (kind, number) in [
            ("free", said(|stats| stats.free)),
            ("total", said(|stats| stats.total)),
            ("available", said(|stats| stats.available)),
            ("disk_caches", said(|stats| stats.disk_caches)),
        ] {
            metrics.gauge_of("guest_memory_bytes", help, &[("kind", kind)], number);
        }
    }
}

fn shown(stats: Stats) -> BalloonStats {
    let Stats {
        swap_in,
        swap_out,
        major_faults,
        minor_faults,
        free,
        total,
        available,
        disk_caches,
    } = stats;
    BalloonStats {
        swap_in,
        swap_out,
        major_faults,
        minor_faults,
        free,
        total,
        available,
        disk_caches,
    }
}
