//! The machine's time over its pauses: its own clock and timers, and the clocks that KVM keeps.

use std::sync::Arc;

use caraway_arch::clocks::{Advance, ClockState, tell_stopped};
use caraway_arch::state::StateError;
use caraway_devices::{AfterPause, Pause, RealClock};
use kvm_ioctls::VmFd;

use super::timers::Timers;
use crate::vcpu::Vcpus;

/// Everything of a machine that shows time.
pub struct Time {
    clock: Arc<RealClock>,
    timers: Timers,
    /// What KVM's clocks showed when the machine stopped.
    stopped: Option<ClockState>,
}

impl Time {
    /// Running time, by `clock`, for which `timers` ring.
    #[must_use]
    pub fn new(clock: Arc<RealClock>, timers: Timers) -> Self {
        Self {
            clock,
            timers,
            stopped: None,
        }
    }

    /// The clock, and the timers that go by it, for a device that comes later.
    pub fn parts(&self) -> (&Arc<RealClock>, &Timers) {
        (&self.clock, &self.timers)
    }

    /// Time stands still. No vCPU may be running.
    pub fn stop(&mut self, vm: &VmFd, vcpus: &Vcpus) {
        self.timers.suspend();
        self.clock.stop();
        let first = vcpus.parked().next();
        let saved = first.map(|first| ClockState::save(vm, &first));
        self.stopped = saved.and_then(|saved| logged("the guest's clocks can't be read", saved));
        tell(vcpus);
    }

    /// Time goes on; the pause that this ends. No vCPU may be running yet.
    pub fn start(&mut self, vm: &VmFd, vcpus: &Vcpus, after: AfterPause) -> Option<Pause> {
        let pause = self.clock.start(after);
        if let (Some(pause), Some(stopped)) = (pause, self.stopped.take()) {
            go_on(vm, vcpus, &stopped, pause);
        }
        self.timers.resume();
        pause
    }

    /// The guest starts anew: its clocks may show what they do.
    pub fn forget(&mut self) {
        self.stopped = None;
    }

    /// The host's wall clock was set, or the host slept, which is a pause that nobody asked for. No
    /// vCPU may be running.
    pub fn host_changed(&self, vm: &VmFd, vcpus: &Vcpus, after: AfterPause) -> Option<Pause> {
        let pause = self.clock.slept(after);
        if let Some(pause) = pause {
            let before = ClockState::before(vm, pause.length);
            if let Some(before) = logged("the guest's clocks can't be read", before) {
                go_on(vm, vcpus, &before, pause);
            }
        }
        // Deadlines that were reckoned by the wall clock are reckoned again.
        self.timers.ring_all();
        pause
    }
}

fn go_on(vm: &VmFd, vcpus: &Vcpus, from: &ClockState, pause: Pause) {
    let advance = Advance {
        by: pause.advance,
        at: pause.ended,
    };
    let all: Vec<_> = vcpus.parked().collect();
    let done = from.resume(vm, all.iter().map(|vcpu| &**vcpu), advance);
    logged("the guest's clocks can't be set", done);
    drop(all);
    // Once more: a guest that turned kvmclock on, or was reset, since the pause knows nothing of it.
    tell(vcpus);
}

fn tell(vcpus: &Vcpus) {
    for vcpu in vcpus.parked() {
        logged("a vCPU can't be told of its pause", tell_stopped(&vcpu));
    }
}

/// What came of it; a clock that is wrong is no reason to keep the guest from running.
fn logged<T>(what: &str, result: Result<T, StateError>) -> Option<T> {
    result
        .inspect_err(|error| tracing::error!(%error, "{what}"))
        .ok()
}
