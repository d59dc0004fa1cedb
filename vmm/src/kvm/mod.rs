//! What the machine asks of KVM: a VM, its memory slots, interrupts, and events on addresses.

mod events;
mod interrupts;
mod memory;
mod ticks;

use std::os::fd::FromRawFd;
use std::sync::Arc;

use caraway_arch::layout;
use kvm_bindings::KVM_API_VERSION;
use kvm_ioctls::{Cap, Kvm, VmFd};

pub use events::IoEvents;
pub use interrupts::{GsiLine, Interrupts};
pub use memory::GuestSpace;
pub use ticks::{KernelPit, TickGsi};

/// The capabilities that a machine can't do without, with the names that `doctor` prints.
pub const REQUIRED: &[(Cap, &str)] = &[
    (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
    (Cap::IrqRouting, "KVM_CAP_IRQ_ROUTING"),
    (Cap::Irqfd, "KVM_CAP_IRQFD"),
    (Cap::Ioeventfd, "KVM_CAP_IOEVENTFD"),
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::ReadonlyMem, "KVM_CAP_READONLY_MEM"),
    (Cap::ExtCpuid, "KVM_CAP_EXT_CPUID"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
    (Cap::MpState, "KVM_CAP_MP_STATE"),
];

/// Why KVM can't be used, or refused something.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// There is no KVM.
    #[error(
        "{path} does not exist: `sudo modprobe kvm_intel` (or kvm_amd, kvm_pvm) loads it, if the \
         firmware set-up allows virtualization"
    )]
    Missing {
        /// The device file.
        path: String,
    },
    /// KVM is there for others.
    #[error(
        "{path}: permission denied; join the kvm group (`sudo usermod -aG kvm $USER`), then log in \
         again"
    )]
    Denied {
        /// The device file.
        path: String,
    },
    /// Opening failed otherwise.
    #[error("can't open {path}")]
    Open {
        /// The device file.
        path: String,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The kernel's KVM is of another kind.
    #[error(
        "{path} speaks KVM API version {found}, not {KVM_API_VERSION}: it is no KVM or a very old one"
    )]
    Version {
        /// The device file.
        path: String,
        /// What it said.
        found: i32,
    },
    /// The kernel's KVM lacks something.
    #[error("this host's KVM lacks {0}: a newer kernel has it")]
    Lacks(&'static str),
    /// A call failed.
    #[error("{what} failed")]
    Call {
        /// The call.
        what: &'static str,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
}

impl KvmError {
    pub(crate) fn call(what: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |errno| Self::Call {
            what,
            source: errno.into(),
        }
    }
}

/// The host's KVM, opened and found good enough.
pub struct Host {
    kvm: Kvm,
}

impl Host {
    /// Opens `path` (usually `/dev/kvm`) and checks its version and capabilities.
    ///
    /// # Errors
    /// [`KvmError`], each variant with its remedy.
    pub fn open(path: &str) -> Result<Self, KvmError> {
        let kvm = Self::open_unchecked(path)?;
        for &(cap, name) in REQUIRED {
            if !kvm.check_extension(cap) {
                return Err(KvmError::Lacks(name));
            }
        }
        Ok(Self { kvm })
    }

    /// Opens `path` and checks only that KVM is behind it: for a report on what it lacks.
    ///
    /// # Errors
    /// As [`open`](Self::open), but for [`KvmError::Lacks`].
    pub fn open_unchecked(path: &str) -> Result<Kvm, KvmError> {
        use std::fs::OpenOptions;
        use std::io::ErrorKind;
        use std::os::fd::IntoRawFd;

        let file = OpenOptions::new().read(true).write(true).open(path);
        let file = file.map_err(|source| match source.kind() {
            ErrorKind::NotFound => KvmError::Missing {
                path: path.to_owned(),
            },
            ErrorKind::PermissionDenied => KvmError::Denied {
                path: path.to_owned(),
            },
            _ => KvmError::Open {
                path: path.to_owned(),
                source,
            },
        })?;
        // SAFETY: the descriptor is owned, open, and nobody else's from here on.
        let kvm = unsafe { Kvm::from_raw_fd(file.into_raw_fd()) };
        let found = kvm.get_api_version();
        if found != KVM_API_VERSION as i32 {
            return Err(KvmError::Version {
                path: path.to_owned(),
                found,
            });
        }
        Ok(kvm)
    }

    /// The file descriptor's wrapper, for what has no method here.
    #[must_use]
    pub fn kvm(&self) -> &Kvm {
        &self.kvm
    }

    /// How many vCPUs the kernel allows in one VM.
    #[must_use]
    pub fn max_vcpus(&self) -> usize {
        self.kvm.get_max_vcpus()
    }

    /// A new VM with the full interrupt controller in the kernel and no memory yet.
    ///
    /// # Errors
    /// [`KvmError::Call`].
    pub fn create_vm(&self) -> Result<Arc<VmFd>, KvmError> {
        let vm = loop {
            match self.kvm.create_vm() {
                // A signal during the call is no reason to give up.
                Err(error) if error.errno() == libc::EINTR => {}
                other => break other.map_err(KvmError::call("KVM_CREATE_VM"))?,
            }
        };
        vm.set_identity_map_address(layout::KVM_IDENTITY_MAP)
            .map_err(KvmError::call("KVM_SET_IDENTITY_MAP_ADDR"))?;
        vm.set_tss_address(layout::KVM_TSS as usize)
            .map_err(KvmError::call("KVM_SET_TSS_ADDR"))?;
        vm.create_irq_chip()
            .map_err(KvmError::call("KVM_CREATE_IRQCHIP"))?;
        Ok(Arc::new(vm))
    }
}
