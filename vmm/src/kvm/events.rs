//! Eventfds that the kernel writes when the guest writes to an address, without an exit to us.

use std::sync::Arc;

use caraway_virtio::NotifyRegistrar;
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
}

impl NotifyRegistrar for IoEvents {
    fn register(&self, address: u64, event: &EventFd) -> std::io::Result<()> {
        let address = IoEventAddress::Mmio(address);
        self.vm
            .register_ioevent(event, &address, NoDatamatch)
            .map_err(Into::into)
    }

    fn unregister(&self, address: u64, event: &EventFd) {
        let doorbell = IoEventAddress::Mmio(address);
        if let Err(error) = self.vm.unregister_ioevent(event, &doorbell, NoDatamatch) {
            tracing::warn!(address, %error, "a doorbell could not be taken away");
        }
    }
}
