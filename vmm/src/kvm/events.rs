//! Eventfds that the kernel writes when the guest writes to an address, without an exit to us.

use std::sync::Arc;

use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use vmm_sys_util::eventfd::EventFd;

/// Registers doorbells with KVM.
pub struct IoEvents {
    vm: Arc<VmFd>,
}

impl IoEvents {
    /// For the doorbells of this VM's devices.
    #[must_use]
    pub fn new(vm: Arc<VmFd>) -> Arc<Self> {
        Arc::new(Self { vm })
    }

    /// Lets any write to physical address `address` signal `event`.
    ///
    /// # Errors
    /// The kernel's; the device then hears of the write by an exit, as without this.
    pub fn register(&self, event: &EventFd, address: u64) -> std::io::Result<()> {
        let address = IoEventAddress::Mmio(address);
        self.vm
            .register_ioevent(event, &address, NoDatamatch)
            .map_err(Into::into)
    }

    /// Undoes [`register`](Self::register).
    pub fn unregister(&self, event: &EventFd, address: u64) {
        let address = IoEventAddress::Mmio(address);
        if let Err(error) = self.vm.unregister_ioevent(event, &address, NoDatamatch) {
            tracing::warn!(?address, %error, "a doorbell could not be taken away");
        }
    }
}
