//! Lines whose edges guests count: what KVM says became of an edge, its word of each end of
//! interrupt, and its own PIT.

use std::sync::Arc;

use caraway_devices::{Delivery, StateError, Stateful, TickLine, TickPolicy};
use kvm_bindings::{
    KVM_PIT_SPEAKER_DUMMY, kvm_irq_level, kvm_irq_level__bindgen_ty_1, kvm_pit_config,
    kvm_pit_state2, kvm_reinject_control,
};
use kvm_ioctls::VmFd;
use parking_lot::Mutex;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};
use vmm_sys_util::ioctl::{ioctl_with_mut_ref, ioctl_with_ref};

use super::KvmError;

/// Calls that kvm-ioctls does not have.
mod call {
    use kvm_bindings::{KVMIO, kvm_irq_level};
    use vmm_sys_util::{ioctl_io_nr, ioctl_iowr_nr};

    ioctl_iowr_nr!(KVM_IRQ_LINE_STATUS, KVMIO, 0x67, kvm_irq_level);
    ioctl_io_nr!(KVM_REINJECT_CONTROL, KVMIO, 0x71);
}

/// A line into the kernel's interrupt controllers that tells what became of each edge.
pub struct TickGsi {
    vm: Arc<VmFd>,
    gsi: u32,
    /// Whether the line is high. Held over the calls, so that an edge is one.
    level: Mutex<bool>,
    /// Kept for as long as the kernel reports ends of interrupt.
    ended: Option<Ended>,
}

/// A resampling irqfd: the kernel writes `_report` at each end of the interrupt. Its other end,
/// which would raise the line, nobody writes.
struct Ended {
    _raise: EventFd,
    _report: EventFd,
}

impl TickGsi {
    /// The line `gsi`, which nobody else may drive.
    #[must_use]
    pub fn new(vm: Arc<VmFd>, gsi: u32) -> Self {
        Self {
            vm,
            gsi,
            level: Mutex::new(false),
            ended: None,
        }
    }

    /// The line `gsi`, and what becomes readable at each end of its interrupt, at whichever
    /// controller the guest takes it from.
    ///
    /// # Errors
    /// [`KvmError::Call`].
    pub fn with_reports(vm: Arc<VmFd>, gsi: u32) -> Result<(Self, EventFd), KvmError> {
        let event = || EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC);
        let failed = |what| move |source| KvmError::Call { what, source };
        let raise = event().map_err(failed("eventfd"))?;
        let report = event().map_err(failed("eventfd"))?;
        vm.register_irqfd_with_resample(&raise, &report, gsi)
            .map_err(KvmError::call("KVM_IRQFD"))?;
        let reader = report.try_clone().map_err(failed("dup"))?;
        let mut line = Self::new(vm, gsi);
        line.ended = Some(Ended {
            _raise: raise,
            _report: report,
        });
        Ok((line, reader))
    }

    /// Drives the line; what the kernel says became of it: the number of controllers that took it,
    /// or below 0 if all have it masked.
    fn set(&self, level: bool) -> Option<i32> {
        let mut line = kvm_irq_level {
            __bindgen_anon_1: kvm_irq_level__bindgen_ty_1 { irq: self.gsi },
            level: level.into(),
        };
        // SAFETY: `line` is the structure that the call reads and writes.
        let done = unsafe { ioctl_with_mut_ref(&*self.vm, call::KVM_IRQ_LINE_STATUS(), &mut line) };
        if done != 0 {
            let error = std::io::Error::last_os_error();
            tracing::error!(gsi = self.gsi, level, %error, "the interrupt line did not move");
            return None;
        }
        // SAFETY: the kernel has filled it in; all bits are valid.
        Some(unsafe { line.__bindgen_anon_1.status })
    }
}

impl TickLine for TickGsi {
    fn raise(&self) -> Delivery {
        let mut level = self.level.lock();
        if std::mem::replace(&mut *level, true) {
            self.set(false);
        }
        match self.set(true) {
            Some(1..) => Delivery::Delivered,
            Some(0) => Delivery::Coalesced,
            Some(_) => Delivery::Masked,
            None => Delivery::Unknown,
        }
    }

    fn lower(&self) {
        let mut level = self.level.lock();
        if std::mem::replace(&mut *level, false) {
            self.set(false);
        }
    }

    fn reports_acknowledgements(&self) -> bool {
        self.ended.is_some()
    }
}

/// The kernel's PIT, in place of ours.
pub struct KernelPit {
    vm: Arc<VmFd>,
    initial: kvm_pit_state2,
}

impl KernelPit {
    /// Creates it, with port 0x61. It replays what the guest could not take, or not, as `policy`
    /// says; it knows no slewing.
    ///
    /// # Errors
    /// [`KvmError::Call`].
    pub fn create(vm: Arc<VmFd>, policy: TickPolicy) -> Result<Self, KvmError> {
        let config = kvm_pit_config {
            flags: KVM_PIT_SPEAKER_DUMMY,
            ..Default::default()
        };
        vm.create_pit2(config)
            .map_err(KvmError::call("KVM_CREATE_PIT2"))?;
        let control = kvm_reinject_control {
            pit_reinject: (policy != TickPolicy::Discard).into(),
            ..Default::default()
        };
        // SAFETY: the kernel reads the structure and nothing else.
        if unsafe { ioctl_with_ref(&*vm, call::KVM_REINJECT_CONTROL(), &control) } != 0 {
            return Err(KvmError::Call {
                what: "KVM_REINJECT_CONTROL",
                source: std::io::Error::last_os_error(),
            });
        }
        let initial = vm.get_pit2().map_err(KvmError::call("KVM_GET_PIT2"))?;
        Ok(Self { vm, initial })
    }

    fn set(&self, state: &kvm_pit_state2) -> std::io::Result<()> {
        self.vm.set_pit2(state).map_err(Into::into)
    }
}

impl Stateful for KernelPit {
    type State = kvm_pit_state2;
    const KIND: &'static str = "kernel-pit";
    const VERSION: u32 = 1;

    fn save(&self) -> kvm_pit_state2 {
        self.vm.get_pit2().unwrap_or(self.initial)
    }

    fn restore(&mut self, state: kvm_pit_state2) -> Result<(), StateError> {
        self.set(&state).map_err(|error| StateError::Invalid {
            kind: Self::KIND,
            what: error.to_string(),
        })
    }

    fn reset(&mut self) {
        if let Err(error) = self.set(&self.initial) {
            tracing::error!(%error, "the kernel's PIT could not be reset");
        }
    }
}
