//! Interrupt lines and messages: the GSI routing table and the eventfds that feed it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use caraway_devices::{InterruptLine, MsiError, MsiMessage, MsiProvider, MsiVector};
use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, KvmIrqRouting, kvm_irq_routing_entry, kvm_irq_routing_irqchip,
    kvm_irq_routing_msi,
};
use kvm_ioctls::VmFd;
use parking_lot::Mutex;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::KvmError;

/// Pins of the I/O APIC; GSIs from here on are messages.
const IOAPIC_PINS: u32 = 24;
/// Lines of both PICs together.
const PIC_PINS: u32 = 16;
/// GSI 0 is the PIT; firmware's tables say that it arrives at I/O APIC pin 2, where on real
/// hardware the cascade of the second PIC leaves room.
const PIT_IOAPIC_PIN: u32 = 2;
/// What the kernel allows in one table (`KVM_MAX_IRQ_ROUTES`).
const MAX_ROUTES: usize = 4096;

/// The VM's interrupt lines, and the [`MsiProvider`] of its devices.
pub struct Interrupts {
    routes: Arc<Routes>,
}

/// The routing table: fixed lines, and a message or nothing for each vector handed out.
struct Routes {
    vm: Arc<VmFd>,
    messages: Mutex<Messages>,
}

#[derive(Default)]
struct Messages {
    /// Of every vector that was ever handed out.
    all: Vec<Option<MsiMessage>>,
    /// Which of them were given back.
    free: Vec<usize>,
}

impl Interrupts {
    /// Sets up the routes of the lines; no message yet.
    ///
    /// # Errors
    /// [`KvmError::Call`].
    pub fn new(vm: Arc<VmFd>) -> Result<Self, KvmError> {
        let routes = Routes {
            vm,
            messages: Mutex::default(),
        };
        let what = "KVM_SET_GSI_ROUTING";
        routes
            .commit(&[])
            .map_err(|source| KvmError::Call { what, source })?;
        Ok(Self {
            routes: Arc::new(routes),
        })
    }

    /// The 24 lines of the I/O APIC, of which the first 16 reach the PICs too.
    #[must_use]
    pub fn lines(&self) -> Vec<Arc<dyn InterruptLine>> {
        let line = |gsi| GsiLine {
            vm: Arc::clone(&self.routes.vm),
            gsi,
            level: AtomicBool::new(false),
        };
        (0..IOAPIC_PINS)
            .map(|gsi| Arc::new(line(gsi)) as Arc<dyn InterruptLine>)
            .collect()
    }
}

impl Routes {
    /// Tells the kernel the whole table, which is the only way it takes one.
    fn commit(&self, messages: &[Option<MsiMessage>]) -> std::io::Result<()> {
        let mut entries = line_routes();
        let message_gsis = (IOAPIC_PINS..).zip(messages);
        entries.extend(message_gsis.filter_map(|(gsi, m)| m.map(|m| message_route(gsi, m))));
        let table = KvmIrqRouting::from_entries(&entries)
            .map_err(|_| std::io::Error::from_raw_os_error(libc::ENOSPC))?;
        self.vm.set_gsi_routing(&table).map_err(Into::into)
    }

    fn set_message(&self, index: usize, message: Option<MsiMessage>) -> std::io::Result<()> {
        let mut messages = self.messages.lock();
        let Some(slot) = messages.all.get_mut(index) else {
            return Ok(());
        };
        if *slot == message {
            return Ok(());
        }
        *slot = message;
        self.commit(&messages.all)
    }

    /// Takes `count` vectors, those that were given back first.
    fn take(&self, count: u16) -> Result<Vec<usize>, MsiError> {
        let mut messages = self.messages.lock();
        let again = messages.free.len().min(count.into());
        let (first, new) = (messages.all.len(), usize::from(count) - again);
        if line_routes().len() + first + new > MAX_ROUTES {
            return Err(MsiError::Exhausted { wanted: count });
        }
        messages.all.resize(first + new, None);
        let kept = messages.free.len() - again;
        let mut indices = messages.free.split_off(kept);
        indices.extend(first..first + new);
        Ok(indices)
    }

    /// Gives a vector back. The kernel keeps its route until it is told the next table, but nothing
    /// triggers it.
    fn give_back(&self, index: usize) {
        let mut messages = self.messages.lock();
        if let Some(slot) = messages.all.get_mut(index) {
            *slot = None;
            messages.free.push(index);
        }
    }
}

fn line_routes() -> Vec<kvm_irq_routing_entry> {
    let pic = (0..PIC_PINS).map(|gsi| match gsi {
        0..8 => chip_route(gsi, KVM_IRQCHIP_PIC_MASTER, gsi),
        _ => chip_route(gsi, KVM_IRQCHIP_PIC_SLAVE, gsi - 8),
    });
    let ioapic = (0..IOAPIC_PINS)
        .filter(|&gsi| gsi != PIT_IOAPIC_PIN)
        .map(|gsi| {
            let pin = if gsi == 0 { PIT_IOAPIC_PIN } else { gsi };
            chip_route(gsi, KVM_IRQCHIP_IOAPIC, pin)
        });
    pic.chain(ioapic).collect()
}

fn chip_route(gsi: u32, irqchip: u32, pin: u32) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_IRQCHIP,
        ..Default::default()
    };
    entry.u.irqchip = kvm_irq_routing_irqchip { irqchip, pin };
    entry
}

fn message_route(gsi: u32, message: MsiMessage) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_MSI,
        ..Default::default()
    };
    entry.u.msi = kvm_irq_routing_msi {
        address_lo: message.address as u32,
        address_hi: (message.address >> 32) as u32,
        data: message.data,
        ..Default::default()
    };
    entry
}

/// One interrupt line into the kernel's controllers.
pub struct GsiLine {
    vm: Arc<VmFd>,
    gsi: u32,
    level: AtomicBool,
}

impl InterruptLine for GsiLine {
    fn set(&self, level: bool) {
        if self.level.swap(level, Ordering::AcqRel) == level {
            return;
        }
        if let Err(error) = self.vm.set_irq_line(self.gsi, level) {
            tracing::error!(gsi = self.gsi, level, %error, "the interrupt line did not move");
        }
    }
}

/// Each vector is an eventfd that the kernel turns into a message.
impl MsiProvider for Interrupts {
    fn vectors(&self, count: u16) -> Result<Vec<Arc<dyn MsiVector>>, MsiError> {
        let vector = |index: usize| {
            let event = EventFd::new(EFD_NONBLOCK).map_err(MsiError::Host)?;
            let attached = AtomicBool::new(false);
            let routes = Arc::clone(&self.routes);
            Ok(Arc::new(Vector {
                routes,
                index,
                event,
                attached,
            }) as Arc<dyn MsiVector>)
        };
        self.routes.take(count)?.into_iter().map(vector).collect()
    }
}

struct Vector {
    routes: Arc<Routes>,
    index: usize,
    event: EventFd,
    /// Whether the kernel listens to `event`: from the first message on, since guests use few of
    /// the vectors that a device offers.
    attached: AtomicBool,
}

/// The kernel stops listening to an eventfd that is closed.
impl Drop for Vector {
    fn drop(&mut self) {
        self.routes.give_back(self.index);
    }
}

impl MsiVector for Vector {
    fn trigger(&self) {
        if self.attached.load(Ordering::Acquire) {
            // The counter of an eventfd that the kernel drains can't overflow.
            let _ = self.event.write(1);
        }
    }

    fn set_message(&self, message: Option<MsiMessage>) {
        let gsi = IOAPIC_PINS + self.index as u32;
        if let Err(error) = self.routes.set_message(self.index, message) {
            tracing::error!(gsi, %error, "the interrupt route did not change");
        }
        if message.is_some() && !self.attached.load(Ordering::Acquire) {
            match self.routes.vm.register_irqfd(&self.event, gsi) {
                Ok(()) => self.attached.store(true, Ordering::Release),
                Err(error) => tracing::error!(gsi, %error, "the irqfd was refused"),
            }
        }
    }
}
