//! The clocks that KVM keeps for the guest, over a pause: kvmclock and the time-stamp counters.
//!
//! Both run on while no processor does. [`ClockState::save`] notes what they show when the machine
//! stops; [`ClockState::resume`] makes them go on from there, or from as much later as is wanted.
//!
//! Source: Linux `Documentation/virt/kvm/api.rst` (`KVM_SET_CLOCK`, `KVM_KVMCLOCK_CTRL`) and
//! `Documentation/virt/kvm/devices/vcpu.rst` (`KVM_VCPU_TSC_CTRL`).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use kvm_bindings::{
    KVM_CLOCK_REALTIME, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, Msrs, kvm_clock_data,
    kvm_device_attr, kvm_msr_entry,
};
use kvm_ioctls::{Cap, VcpuFd, VmFd};
use vmm_sys_util::ioctl::ioctl_with_ref;

use crate::msr;
use crate::state::{StateError, get, put};

/// Calls that kvm-ioctls does not have for the processors of this architecture.
mod call {
    use kvm_bindings::{KVMIO, kvm_device_attr};
    use vmm_sys_util::ioctl_iow_nr;

    ioctl_iow_nr!(KVM_SET_DEVICE_ATTR, KVMIO, 0xe1, kvm_device_attr);
    ioctl_iow_nr!(KVM_GET_DEVICE_ATTR, KVMIO, 0xe2, kvm_device_attr);
    ioctl_iow_nr!(KVM_HAS_DEVICE_ATTR, KVMIO, 0xe3, kvm_device_attr);
}

const COUNTER: &str = "time-stamp counter";

/// What the guest's clocks show while it stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockState {
    /// kvmclock, in nanoseconds.
    kvmclock: u64,
    /// The first processor's time-stamp counter; `None` leaves the counters to themselves.
    tsc: Option<u64>,
}

/// Where the guest's time goes on after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advance {
    /// Nanoseconds that the guest's clocks are to be ahead of what they showed.
    pub by: u64,
    /// When that is to be so: the host's `CLOCK_REALTIME`, in nanoseconds since 1970. Kernels that
    /// know it make up for the time until they are told.
    pub at: u64,
}

impl ClockState {
    /// What the clocks of `vm` show; `first` is its first processor, and none may be running.
    ///
    /// # Errors
    /// [`StateError::Kvm`] if KVM refuses.
    pub fn save(vm: &VmFd, first: &VcpuFd) -> Result<Self, StateError> {
        let kvmclock = || Ok(vm.get_clock().map_err(get("clock"))?.clock);
        let (tsc, kvmclock) = at_once(first, kvmclock)?;
        Ok(Self {
            kvmclock,
            tsc: Some(tsc),
        })
    }

    /// What kvmclock of `vm` showed `ago` nanoseconds ago, by a clock that runs with the host: for
    /// a sleep of the host, whose start nobody could note. The counters went through that, or
    /// stood still, as the hardware does; there is no telling.
    ///
    /// # Errors
    /// [`StateError::Kvm`] if KVM refuses.
    pub fn before(vm: &VmFd, ago: u64) -> Result<Self, StateError> {
        let now = vm.get_clock().map_err(get("clock"))?.clock;
        Ok(Self {
            kvmclock: now.saturating_sub(ago),
            tsc: None,
        })
    }

    /// Lets the clocks go on. Every one of the `vcpus` is moved by the same distance, so that
    /// counters in step stay so, and with them kvmclock.
    ///
    /// # Errors
    /// [`StateError::Kvm`] if KVM refuses. One that can't move the counters is not an error.
    pub fn resume<'a>(
        &self,
        vm: &VmFd,
        vcpus: impl IntoIterator<Item = &'a VcpuFd>,
        advance: Advance,
    ) -> Result<(), StateError> {
        let knows_wall = vm.check_extension_int(Cap::AdjustClock) as u32 & KVM_CLOCK_REALTIME != 0;
        let mut distance = None;
        for vcpu in vcpus {
            let Some(saved) = self.tsc else { break };
            let distance = match distance {
                Some(distance) => distance,
                None => {
                    let (now, wall) = at_once(vcpu, || Ok(wall_clock()))?;
                    // What the kernel makes up for in kvmclock, a guest would miss in its counters.
                    let late = if knows_wall {
                        wall.saturating_sub(advance.at)
                    } else {
                        0
                    };
                    let ticks = in_ticks(vcpu, advance.by.saturating_add(late))?;
                    *distance.insert(saved.wrapping_add(ticks).wrapping_sub(now))
                }
            };
            move_tsc(vcpu, distance)?;
        }
        // After the counters, on which the kernel builds kvmclock where they are in step.
        let clock = kvm_clock_data {
            clock: self.kvmclock.saturating_add(advance.by),
            flags: if knows_wall { KVM_CLOCK_REALTIME } else { 0 },
            realtime: if knows_wall { advance.at } else { 0 },
            ..Default::default()
        };
        vm.set_clock(&clock).map_err(put("clock"))
    }
}

/// Tells the guest, through its kvmclock, that it was stopped, so that its watchdogs do not take
/// the time for their own. A guest without kvmclock is not told.
///
/// # Errors
/// [`StateError::Kvm`] if KVM refuses.
pub fn tell_stopped(vcpu: &VcpuFd) -> Result<(), StateError> {
    match vcpu.kvmclock_ctrl() {
        Err(error) if error.errno() != libc::EINVAL => Err(put("notice of a pause")(error)),
        _ => Ok(()),
    }
}

/// As many ticks of the time-stamp counter as `nanos` have.
fn in_ticks(vcpu: &VcpuFd, nanos: u64) -> Result<u64, StateError> {
    let khz = vcpu.get_tsc_khz().map_err(get(COUNTER))?;
    Ok((u128::from(nanos) * u128::from(khz) / 1_000_000) as u64)
}

/// What the counter of `vcpu` and another clock, in nanoseconds, show at the same time. Linux takes a
/// fraction of a millisecond between the two for a counter that can't be trusted, and this thread may
/// be held up between them: the closest of some readings counts.
fn at_once(
    vcpu: &VcpuFd,
    other: impl Fn() -> Result<u64, StateError>,
) -> Result<(u64, u64), StateError> {
    const READINGS: usize = 8;
    let mut closest: Option<(u64, (u64, u64))> = None;
    for _ in 0..READINGS {
        let before = other()?;
        let tsc = read_tsc(vcpu)?;
        let gap = other()?.saturating_sub(before);
        if closest.is_none_or(|(least, _)| gap < least) {
            closest = Some((gap, (tsc, before + gap / 2)));
        }
    }
    Ok(closest.map_or((0, 0), |(_, pair)| pair))
}

/// The host's `CLOCK_REALTIME`, in nanoseconds since 1970.
fn wall_clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64)
}

fn read_tsc(vcpu: &VcpuFd) -> Result<u64, StateError> {
    let wanted = kvm_msr_entry {
        index: msr::TSC,
        ..Default::default()
    };
    let mut msrs = Msrs::from_entries(&[wanted]).map_err(|_| StateError::Size {
        what: COUNTER,
        size: size_of_val(&wanted),
    })?;
    vcpu.get_msrs(&mut msrs).map_err(get(COUNTER))?;
    Ok(msrs.as_slice().first().map_or(0, |entry| entry.data))
}

/// Moves the processor's counter by `distance` ticks, modulo 2^64, if KVM can (Linux 5.16).
fn move_tsc(vcpu: &VcpuFd, distance: u64) -> Result<(), StateError> {
    let offset = AtomicU64::new(0);
    let attribute = kvm_device_attr {
        group: KVM_VCPU_TSC_CTRL,
        attr: KVM_VCPU_TSC_OFFSET.into(),
        addr: offset.as_ptr().expose_provenance() as u64,
        ..Default::default()
    };
    // SAFETY: the attribute is 8 bytes at `offset`, which lives until the end of this function; the
    // three calls look whether there is such an attribute, write it there, and read it from there.
    let call = |number| match unsafe { ioctl_with_ref(vcpu, number, &attribute) } {
        0 => Ok(()),
        _ => Err(kvm_ioctls::Error::last()),
    };
    if call(call::KVM_HAS_DEVICE_ATTR()).is_err() {
        return Ok(());
    }
    call(call::KVM_GET_DEVICE_ATTR()).map_err(get(COUNTER))?;
    offset.fetch_add(distance, Ordering::Relaxed);
    call(call::KVM_SET_DEVICE_ATTR()).map_err(put(COUNTER))
}
