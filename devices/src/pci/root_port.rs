//! A PCI Express root port whose slot takes a device while the machine runs (PCI Express Base 5.0,
//! 6.7 and 7.5.3; the bridge's header is PCI-to-PCI Bridge 1.2, chapter 3).
//!
//! A device comes without a question: the guest hears that something is present, powers the slot and
//! looks. Before a device goes the guest is asked, by the slot's attention button, and answers by
//! taking the slot's power away. A device is seen only while its slot has power.

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::{Bar, BarKind, Capability, ConfigSpace, Ids, PciFunction};
use crate::interrupt::{InterruptLine, Wire};

/// Bus numbers: the one behind the port, with the primary below and the subordinate above it.
const SECONDARY_BUS: usize = 0x19;
/// Base and limit of the memory that the port passes on, in MiB in bits 15:4.
const MEMORY_WINDOW: usize = 0x20;
/// The same of prefetchable memory, with the upper halves behind it.
const PREFETCHABLE_WINDOW: usize = 0x24;
const PREFETCHABLE_UPPER: usize = 0x28;
/// Status register: INTx is driven.
const STATUS: usize = 0x06;
const INTX_STATUS: u16 = 1 << 3;

const EXPRESS_CAPABILITY: u8 = 0x10;
/// Registers of the capability, from its start (7.5.3).
const EXPRESS_CAPABILITIES: usize = 0x02;
const DEVICE_CAPABILITIES: usize = 0x04;
const DEVICE_CONTROL: usize = 0x08;
const LINK_CAPABILITIES: usize = 0x0c;
const LINK_CONTROL: usize = 0x10;
const LINK_STATUS: usize = 0x12;
const SLOT_CAPABILITIES: usize = 0x14;
const SLOT_CONTROL: usize = 0x18;
const SLOT_STATUS: usize = 0x1a;
const ROOT_CONTROL: usize = 0x1c;
const EXPRESS_LENGTH: usize = 0x3c;

/// Version 2 of the capability, of a root port, with a slot.
const IS_ROOT_PORT_WITH_SLOT: u16 = 2 | 4 << 4 | 1 << 8;
/// Errors are reported by their role, as all functions since 1.1 do.
const ROLE_BASED_ERRORS: u32 = 1 << 15;
/// One lane of 2.5 GT/s: what counts is that there is a link.
const LINK_SPEED: u16 = 1 | 1 << 4;
/// Link capabilities: whether the link is up can be read.
const LINK_STATE_IS_TOLD: u32 = 1 << 20;
/// Link status: the link is up.
const LINK_UP: u16 = 1 << 13;

/// Slot capabilities: attention button, power controller, both lamps, devices come and go, and
/// commands need no time.
const SLOT_FEATURES: u32 = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 6 | 1 << 18;

/// Slot control: what interrupts, each at the place of its bit in the slot status but the last.
const CONTROL_EVENTS: u16 = 0x1f;
const CONTROL_LINK_EVENT: u16 = 1 << 12;
const CONTROL_INTERRUPT: u16 = 1 << 5;
/// Slot control: the lamps, which are on, blink or are off, and the power.
const ATTENTION_LAMP: u16 = 3 << 6;
const ATTENTION_ON: u16 = 1 << 6;
const ATTENTION_OFF: u16 = 3 << 6;
const POWER_LAMP: u16 = 3 << 8;
const POWER_LAMP_ON: u16 = 1 << 8;
const POWER_LAMP_OFF: u16 = 3 << 8;
const POWER_OFF: u16 = 1 << 10;
const CONTROL_WRITABLE: u16 = CONTROL_EVENTS
    | CONTROL_INTERRUPT
    | ATTENTION_LAMP
    | POWER_LAMP
    | POWER_OFF
    | CONTROL_LINK_EVENT;

/// Slot status: what happened since the guest cleared it.
const BUTTON_PRESSED: u16 = 1 << 0;
const PRESENCE_CHANGED: u16 = 1 << 3;
const LINK_CHANGED: u16 = 1 << 8;
const STATUS_EVENTS: u16 = 0x1f | LINK_CHANGED;
/// Slot status: there is something in the slot.
const PRESENT: u16 = 1 << 6;

/// What the guest did about a slot's device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotAnswer {
    /// It powered the slot and took the device.
    Accepted,
    /// It lit the attention lamp: the device did not work for it.
    Refused,
    /// It took the slot's power away: the device may go.
    Released,
}

/// There is a device in the slot already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is a device in the slot already")]
pub struct SlotTaken;

/// A root port 1b36:000c with one slot, for device 0, function 0 of the bus behind it.
///
/// It passes memory on, no I/O ports, and reports to the guest by INTx.
pub struct RootPort {
    config: Mutex<ConfigSpace>,
    /// Where the PCI Express capability is.
    express: usize,
    slot: RwLock<Option<Arc<dyn PciFunction>>>,
    guest: Mutex<Guest>,
    answered: Box<dyn Fn(SlotAnswer) + Send + Sync>,
}

/// The guest's side of the slot.
struct Guest {
    line: Wire,
    /// The slot control register as it was last.
    control: u16,
}

impl RootPort {
    /// An empty slot with the physical slot `number` (1 to 8,191, as guests name it). Interrupts go by
    /// `line`, the port's INTA; `answered` hears what the guest does about devices.
    ///
    /// `None` if `number` is out of its range.
    pub fn new(
        number: u16,
        line: Arc<dyn InterruptLine>,
        answered: impl Fn(SlotAnswer) + Send + Sync + 'static,
    ) -> Option<Arc<Self>> {
        if !(1..1 << 13).contains(&number) {
            return None;
        }
        let mut config = ConfigSpace::bridge(Ids {
            vendor: 0x1b36,
            device: 0x000c,
            class: 0x06_04_00,
            ..Ids::default()
        })
        .multifunction()
        .with_interrupt_pin(1);
        let mut body = vec![0; EXPRESS_LENGTH - 2];
        let mut set = |at: usize, bytes: &[u8]| {
            body[at - 2..at - 2 + bytes.len()].copy_from_slice(bytes);
        };
        set(EXPRESS_CAPABILITIES, &IS_ROOT_PORT_WITH_SLOT.to_le_bytes());
        set(DEVICE_CAPABILITIES, &ROLE_BASED_ERRORS.to_le_bytes());
        let link = u32::from(LINK_SPEED) | LINK_STATE_IS_TOLD | u32::from(number & 0xff) << 24;
        set(LINK_CAPABILITIES, &link.to_le_bytes());
        let slot = SLOT_FEATURES | u32::from(number) << 19;
        set(SLOT_CAPABILITIES, &slot.to_le_bytes());
        let express = usize::from(config.add_capability(&Capability {
            id: EXPRESS_CAPABILITY,
            body,
            writable: Vec::new(),
        })?);
        config.allow(express + DEVICE_CONTROL, &0x000f_u16.to_le_bytes());
        config.allow(express + LINK_CONTROL, &0x00d8_u16.to_le_bytes());
        config.allow(express + SLOT_CONTROL, &CONTROL_WRITABLE.to_le_bytes());
        config.clear_on_write(express + SLOT_STATUS, &STATUS_EVENTS.to_le_bytes());
        config.allow(express + ROOT_CONTROL, &0x000f_u16.to_le_bytes());
        let port = Self {
            config: Mutex::new(config),
            express,
            slot: RwLock::new(None),
            guest: Mutex::new(Guest {
                line: Wire::new(line),
                control: 0,
            }),
            answered: Box::new(answered),
        };
        port.show(false);
        port.show_at_reset(false);
        port.settle();
        Some(Arc::new(port))
    }

    /// Whether there is a device in the slot.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.slot.read().is_some()
    }

    /// What is in the slot, whether the guest sees it or not.
    #[must_use]
    pub fn device(&self) -> Option<Arc<dyn PciFunction>> {
        self.slot.read().clone()
    }

    /// What the guest sees at device 0, function 0 of `bus`, if that is the bus behind this port.
    pub(super) fn on_bus(&self, bus: u8) -> Option<Arc<dyn PciFunction>> {
        let config = self.config.lock();
        let behind = config.u16_at(SECONDARY_BUS) as u8;
        let powered = config.u16_at(self.express + SLOT_CONTROL) & POWER_OFF == 0;
        drop(config);
        (bus != 0 && bus == behind && powered)
            .then(|| self.device())
            .flatten()
    }

    /// Whether the port lets accesses to where `bar` decodes through.
    pub(super) fn passes_on(&self, bar: &Bar) -> bool {
        let Some((base, last)) = bar
            .base
            .and_then(|base| Some((base, base.checked_add(bar.size - 1)?)))
        else {
            return false;
        };
        let config = self.config.lock();
        if bar.kind == BarKind::Io || !config.is_memory_enabled() {
            return false;
        }
        let window = |at: usize, upper: (u64, u64)| {
            let side = |at: usize| u64::from(config.u16_at(at) & 0xfff0) << 16;
            let from = side(at) | upper.0 << 32;
            let to = side(at + 2) | upper.1 << 32 | 0xf_ffff;
            from <= base && last <= to
        };
        let upper = |at: usize| u64::from(config.u32_at(at));
        let uppers = (upper(PREFETCHABLE_UPPER), upper(PREFETCHABLE_UPPER + 4));
        window(MEMORY_WINDOW, (0, 0)) || window(PREFETCHABLE_WINDOW, uppers)
    }

    /// Puts `device` into the slot, and tells the guest.
    ///
    /// # Errors
    /// [`SlotTaken`] if there is one already.
    pub(super) fn plug(&self, device: Arc<dyn PciFunction>) -> Result<(), SlotTaken> {
        {
            let mut slot = self.slot.write();
            if slot.is_some() {
                return Err(SlotTaken);
            }
            *slot = Some(device);
        }
        self.presence_changed(true);
        Ok(())
    }

    /// Takes the device out of the slot, and tells the guest.
    pub(super) fn unplug(&self) -> Option<Arc<dyn PciFunction>> {
        let device = self.slot.write().take()?;
        self.presence_changed(false);
        Some(device)
    }

    /// Asks the guest to let the device go. Pressed again before the guest acted, which waits for
    /// some seconds, it takes the wish back.
    pub fn press_button(&self) {
        self.happened(BUTTON_PRESSED);
        self.settle();
    }

    fn presence_changed(&self, present: bool) {
        self.show(present);
        self.show_at_reset(present);
        self.happened(PRESENCE_CHANGED | LINK_CHANGED);
        self.settle();
    }

    /// Shows the guest whether there is something in the slot.
    fn show(&self, present: bool) {
        let mut config = self.config.lock();
        let events = config.u16_at(self.express + SLOT_STATUS) & STATUS_EVENTS;
        let (slot, link) = states(present);
        config.put(self.express + SLOT_STATUS, &(events | slot).to_le_bytes());
        config.put(self.express + LINK_STATUS, &link.to_le_bytes());
    }

    /// Has a reset show it: a device that is there has power then, as firmware expects.
    fn show_at_reset(&self, present: bool) {
        let control = if present {
            ATTENTION_OFF | POWER_LAMP_ON
        } else {
            ATTENTION_OFF | POWER_LAMP_OFF | POWER_OFF
        };
        let (slot, link) = states(present);
        let mut config = self.config.lock();
        config.put_at_reset(self.express + SLOT_CONTROL, &control.to_le_bytes());
        config.put_at_reset(self.express + SLOT_STATUS, &slot.to_le_bytes());
        config.put_at_reset(self.express + LINK_STATUS, &link.to_le_bytes());
    }

    fn happened(&self, events: u16) {
        let mut config = self.config.lock();
        let status = config.u16_at(self.express + SLOT_STATUS) | events;
        config.put(self.express + SLOT_STATUS, &status.to_le_bytes());
    }

    /// Drives the interrupt as the registers say; gives the slot control register before and now.
    fn settle(&self) -> (u16, u16) {
        let mut guest = self.guest.lock();
        let mut config = self.config.lock();
        let control = config.u16_at(self.express + SLOT_CONTROL);
        let status = config.u16_at(self.express + SLOT_STATUS);
        let link_event = if control & CONTROL_LINK_EVENT != 0 {
            LINK_CHANGED
        } else {
            0
        };
        let wanted = control & CONTROL_EVENTS | link_event;
        let level = control & CONTROL_INTERRUPT != 0 && status & wanted != 0;
        let pci_status = config.u16_at(STATUS) & !INTX_STATUS;
        let pending = if level { INTX_STATUS } else { 0 };
        config.put(STATUS, &(pci_status | pending).to_le_bytes());
        guest.line.set(level && !config.is_intx_disabled());
        (std::mem::replace(&mut guest.control, control), control)
    }
}

/// Slot and link status without their events.
fn states(present: bool) -> (u16, u16) {
    if present {
        (PRESENT, LINK_SPEED | LINK_UP)
    } else {
        (0, LINK_SPEED)
    }
}

impl PciFunction for RootPort {
    fn config(&self) -> &Mutex<ConfigSpace> {
        &self.config
    }

    fn config_written(&self, _offset: u16, _len: usize) {
        let (before, now) = self.settle();
        if !self.is_taken() {
            return;
        }
        let became = |of: u16, value: u16| before & of != value && now & of == value;
        // Power goes off by the switch, and the lamp follows, in one write or in two.
        const DARK: u16 = POWER_OFF | POWER_LAMP_OFF;
        let answer = if became(DARK, DARK) {
            SlotAnswer::Released
        } else if became(ATTENTION_LAMP, ATTENTION_ON) {
            SlotAnswer::Refused
        } else if became(POWER_LAMP | POWER_OFF, POWER_LAMP_ON) {
            SlotAnswer::Accepted
        } else {
            return;
        };
        (self.answered)(answer);
    }

    fn config_restored(&self) {
        self.settle();
    }

    fn bar_read(&self, _bar: u8, _offset: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn bar_write(&self, _bar: u8, _offset: u64, _data: &[u8]) {}
}
