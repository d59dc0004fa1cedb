//! Why the guest stopped running, as a type: the one place that reads `kvm_run`.

use std::sync::Arc;

use caraway_devices::Bus;
use kvm_bindings::{
    KVM_EXIT_FAIL_ENTRY, KVM_EXIT_HLT, KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_INTR, KVM_EXIT_IO,
    KVM_EXIT_IO_OUT, KVM_EXIT_MMIO, KVM_EXIT_SHUTDOWN, KVM_INTERNAL_ERROR_EMULATION, kvm_run,
};
use kvm_ioctls::VcpuFd;

/// The two address spaces of the machine.
#[derive(Clone, Default)]
pub struct Buses {
    /// I/O ports.
    pub ports: Arc<Bus>,
    /// Physical addresses that are no memory of ours.
    pub mmio: Arc<Bus>,
}

/// What one stretch of running ended in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Nothing that needs more: an access was served, or nothing happened.
    Handled,
    /// Somebody wants the vCPU out of the guest.
    Interrupted,
    /// The guest triple-faulted.
    Shutdown,
    /// KVM can't go on with this guest.
    Failed(Failure),
}

/// Why KVM can't go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// An instruction that KVM has to emulate and can't.
    Emulation,
    /// Another internal error of KVM's.
    Internal {
        /// KVM's number for it (`KVM_INTERNAL_ERROR_*`).
        suberror: u32,
    },
    /// The processor refused the guest's state.
    Entry {
        /// The hardware's reason.
        reason: u64,
    },
    /// An exit that this monitor never asked for.
    Unexpected {
        /// `KVM_EXIT_*`.
        reason: u32,
    },
    /// The call itself failed.
    Call {
        /// The error number.
        errno: i32,
    },
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::Emulation => write!(f, "KVM can't emulate the instruction the guest is at"),
            Self::Internal { suberror } => {
                write!(f, "KVM has an internal error, number {suberror}")
            }
            Self::Entry { reason } => {
                write!(
                    f,
                    "the processor refused the guest's state, reason {reason:#x}"
                )
            }
            Self::Unexpected { reason } => write!(f, "KVM gave the unknown exit {reason}"),
            Self::Call { errno } => {
                write!(
                    f,
                    "KVM_RUN failed: {}",
                    std::io::Error::from_raw_os_error(errno)
                )
            }
        }
    }
}

/// Runs the guest until it needs us, and serves it if it is a port or an address it wants.
pub(super) fn run(vcpu: &mut VcpuFd, buses: &Buses) -> Exit {
    match vcpu.run() {
        Ok(_) => {}
        Err(error) => {
            return match error.errno() {
                libc::EINTR | libc::EAGAIN => Exit::Interrupted,
                errno => Exit::Failed(Failure::Call { errno }),
            };
        }
    }
    let run = vcpu.get_kvm_run();
    match run.exit_reason {
        KVM_EXIT_IO => {
            serve_ports(run, &buses.ports);
            Exit::Handled
        }
        KVM_EXIT_MMIO => {
            serve_mmio(run, &buses.mmio);
            Exit::Handled
        }
        // With the interrupt controller in the kernel HLT does not come here, but may harmlessly.
        KVM_EXIT_INTR | KVM_EXIT_HLT => Exit::Interrupted,
        KVM_EXIT_SHUTDOWN => Exit::Shutdown,
        KVM_EXIT_FAIL_ENTRY => {
            // SAFETY: the kernel fills `fail_entry` for this exit reason; all bits are valid.
            let reason = unsafe {
                run.__bindgen_anon_1
                    .fail_entry
                    .hardware_entry_failure_reason
            };
            Exit::Failed(Failure::Entry { reason })
        }
        KVM_EXIT_INTERNAL_ERROR => {
            // SAFETY: the kernel fills `internal` for this exit reason; all bits are valid.
            let suberror = unsafe { run.__bindgen_anon_1.internal.suberror };
            Exit::Failed(match suberror {
                KVM_INTERNAL_ERROR_EMULATION => Failure::Emulation,
                suberror => Failure::Internal { suberror },
            })
        }
        reason => Exit::Failed(Failure::Unexpected { reason }),
    }
}

/// Serves `in`, `out` and their string forms: `count` accesses of `size` bytes to one port.
fn serve_ports(run: &mut kvm_run, ports: &Bus) {
    // SAFETY: the kernel fills `io` for this exit reason; all bits are valid.
    let io = unsafe { run.__bindgen_anon_1.io };
    let size = usize::from(io.size).max(1);
    let len = size * io.count as usize;
    // SAFETY: the kernel puts `count * size` bytes at `data_offset` from the start of `kvm_run`,
    // inside of the mapping that `VcpuFd` keeps and that `run` borrows for us alone.
    let data = unsafe {
        let start = std::ptr::from_mut(run)
            .cast::<u8>()
            .add(io.data_offset as usize);
        std::slice::from_raw_parts_mut(start, len)
    };
    let port = u64::from(io.port);
    for access in data.chunks_exact_mut(size) {
        let decoded = if u32::from(io.direction) == KVM_EXIT_IO_OUT {
            ports.write(port, access)
        } else {
            ports.read(port, access)
        };
        if !decoded {
            tracing::trace!(
                port = format_args!("{port:#x}"),
                size,
                "nobody decodes the port"
            );
        }
    }
}

fn serve_mmio(run: &mut kvm_run, mmio: &Bus) {
    // SAFETY: the kernel fills `mmio` for this exit reason; all bits are valid.
    let access = unsafe { &mut run.__bindgen_anon_1.mmio };
    let (address, len) = (access.phys_addr, (access.len as usize).min(8));
    let data = &mut access.data[..len];
    let decoded = if access.is_write != 0 {
        mmio.write(address, data)
    } else {
        mmio.read(address, data)
    };
    if !decoded {
        tracing::trace!(
            address = format_args!("{address:#x}"),
            len,
            "nobody decodes the address"
        );
    }
}
