//! The machine: a small struct that owns its parts, and what is done to all of them together.

mod balloon;
mod board;
mod boot;
mod build;
mod disks;
mod display_thread;
mod event_loop;
mod firmware;
mod generation;
mod host_clock;
mod hotplug;
mod input;
mod nets;
mod notices;
mod port_ends;
mod ram;
mod rng;
mod signals;
mod tickers;
mod time;
mod timer_fd;
mod timers;
mod virtio;
mod vsock;

use std::sync::Arc;

use caraway_arch::state::{ChipState, SaveContext, VcpuState};
use caraway_arch::{GuestMemory, Layout};
use caraway_devices::{AfterPause, Pause, SerialPort};
use caraway_qxl::Qxl;
use caraway_spice::Agent;
use caraway_virtio::{Console, Rng, Vsock};
use kvm_ioctls::VmFd;
use parking_lot::Mutex;
use uuid::Uuid;

pub use build::Surroundings;
pub use disks::{DiskFailed, DiskHandle};
pub use event_loop::{EventLoop, Keep, Source};
pub use host_clock::HostClockJumps;
pub use hotplug::{Device, HostParts, HotplugSlots, Plug, PlugError, Question, Unplugged};
pub use input::Input;
pub use nets::{Inherited, NetCard, PASST};
pub use notices::{Notice, Notices};
pub use signals::Signals;
pub use tickers::Offset;

use crate::balloon::BalloonStatus;
use crate::exit::{Exit, Failure};
use crate::guest_agent::GuestAgent;
use crate::kvm::{GuestSpace, Interrupts};
use crate::metrics::Metrics;
use crate::vcpu::Vcpus;

/// A machine with its vCPUs, devices and their threads. Dropping it ends them all.
pub struct Machine {
    // The order is that of dropping: the vCPUs end first, guest memory goes last.
    vcpus: Vcpus,
    disks: Vec<disks::RunningDisk>,
    slots: hotplug::HotplugSlots,
    disk_failed: DiskFailed,
    notices: Arc<Notices>,
    inherited: Arc<Inherited>,
    /// Of disks and network cards so far, those that have gone included.
    numbers: usize,
    nets: Vec<NetCard>,
    _display_threads: Vec<display_thread::DisplayThread>,
    board: board::Board,
    displays: Vec<Arc<Qxl>>,
    input: Arc<Input>,
    generation: Option<generation::Generation>,
    agent: Option<Arc<Agent>>,
    console: Option<Arc<Console>>,
    guest_agent: Option<Arc<GuestAgent>>,
    vsock: Option<Arc<Vsock>>,
    balloon: Option<balloon::BalloonSlot>,
    rng: Option<Arc<Rng>>,
    time: time::Time,
    boot: boot::Boot,
    tables: firmware::Tables,
    initial: Initial,
    layout: Layout,
    interrupts: Interrupts,
    vm: Arc<VmFd>,
    _space: Arc<GuestSpace>,
    memory: GuestMemory,
}

/// The vCPUs and interrupt controllers at the start, which is what a reset goes back to.
struct Initial {
    context: SaveContext,
    vcpus: Vec<VcpuState>,
    chips: ChipState,
}

impl Machine {
    /// Lets the guest run, its time going on as `after` says; the pause that this ends, if there
    /// was one.
    pub fn resume(&mut self, after: AfterPause) -> Option<Pause> {
        let pause = self.time.start(&self.vm, &self.vcpus, after);
        self.all_disks().for_each(disks::RunningDisk::resume);
        self.nets().for_each(|net| net.device().resume());
        self.slots.wait_anew();
        self.vcpus.run();
        pause
    }

    /// Stops the guest and its time. When this returns no vCPU runs and no request is under way.
    pub fn pause(&mut self) {
        self.vcpus.park();
        self.all_disks().for_each(disks::RunningDisk::pause);
        self.nets().for_each(|net| net.device().pause());
        self.time.stop(&self.vm, &self.vcpus);
    }

    fn all_disks(&self) -> impl Iterator<Item = &disks::RunningDisk> {
        self.disks.iter().chain(self.slots.disks())
    }

    /// The host's wall clock jumped; if the host slept, the guest's time goes on as `after` says,
    /// and that sleep is returned. The guest must be running.
    pub fn host_clock_jumped(&self, after: AfterPause) -> Option<Pause> {
        self.vcpus.park();
        let slept = self.time.host_changed(&self.vm, &self.vcpus, after);
        self.vcpus.run();
        slept
    }

    /// Puts everything back to its start; the guest must be paused.
    ///
    /// # Errors
    /// What KVM, or the kernel's file, refuses.
    pub fn reset(&mut self) -> Result<(), Failure> {
        self.time.forget();
        for device in &self.board.lifecycles {
            device.reset();
        }
        let entry = self
            .boot
            .place(&self.memory, &self.layout, self.tables.rsdp())?;
        self.tables.place(&self.memory)?;
        if self.tables.rsdp().is_some() {
            self.board.enable_ecam();
        }
        let failed = |error: &dyn std::error::Error| {
            Failure::of(Exit::Internal, error).context("the vCPUs can't be reset")
        };
        for (vcpu, state) in self.vcpus.parked().zip(&self.initial.vcpus) {
            state
                .reset(&vcpu, &self.initial.context)
                .map_err(|error| failed(&error))?;
        }
        self.initial
            .chips
            .restore(&self.vm)
            .map_err(|error| failed(&error))?;
        if let Some(first) = self.vcpus.parked().next() {
            entry
                .apply(&first, &self.memory)
                .map_err(|error| failed(&error))?;
        }
        Ok(())
    }

    /// Presses the power button; `false` if the guest does not listen to it.
    #[must_use]
    pub fn power_button(&self) -> bool {
        self.board.acpi_pm.lock().power_button()
    }

    /// Wakes a guest that went to sleep.
    pub fn wake(&self) {
        self.board.acpi_pm.lock().wake();
    }

    /// The VM generation id, if the guest has one.
    #[must_use]
    pub fn generation(&self) -> Option<Uuid> {
        self.generation.as_ref().map(generation::Generation::id)
    }

    /// Tells the guest by this VM generation id that it goes on from a copy of itself; `false` if it
    /// has none.
    #[must_use]
    pub fn renew_generation(&self, id: Uuid) -> bool {
        self.generation.as_ref().map(|it| it.renew(id)).is_some()
    }

    /// What the guest last set its clock to, and how far it moved it since this was asked last.
    #[must_use]
    pub fn clock_offset(&self) -> Offset {
        self.board.tickers.offset()
    }

    /// Shows what became of the ticks of its timers, and what its devices did.
    pub fn export(&self, metrics: &Metrics) {
        self.board.tickers.export(metrics);
        self.nets().for_each(|net| net.export(metrics));
        if let Some(vsock) = &self.vsock {
            vsock::export(vsock, metrics);
        }
        if let Some(balloon) = &self.balloon {
            balloon.export(metrics);
        }
        if let Some(rng) = &self.rng {
            rng::export(rng, metrics);
        }
    }

    /// The disks, in the order of the config.
    pub fn disks(&self) -> impl Iterator<Item = DiskHandle> {
        self.disks.iter().map(disks::RunningDisk::handle)
    }

    /// COM1.
    #[must_use]
    pub fn serial(&self) -> &Arc<Mutex<SerialPort>> {
        &self.board.serial
    }

    /// Keyboards and pointers.
    #[must_use]
    pub fn input(&self) -> &Arc<Input> {
        &self.input
    }

    /// The port of the guest's SPICE agent, if a channel is for it.
    #[must_use]
    pub fn agent(&self) -> Option<&Arc<Agent>> {
        self.agent.as_ref()
    }

    /// The port of the QEMU guest agent, if a channel is for it.
    #[must_use]
    pub fn guest_agent(&self) -> Option<&Arc<GuestAgent>> {
        self.guest_agent.as_ref()
    }

    /// What the balloon does, if there is one.
    #[must_use]
    pub fn balloon(&self) -> Option<BalloonStatus> {
        self.balloon.as_ref().map(balloon::BalloonSlot::status)
    }

    /// Asks the guest to keep so many bytes of its memory; nothing happens without a balloon.
    pub fn set_balloon(&self, bytes: u64) {
        if let Some(balloon) = &self.balloon {
            balloon.set_target(bytes);
        }
    }

    /// The network cards: those of the config in its order, then those in slots.
    pub fn nets(&self) -> impl Iterator<Item = &NetCard> {
        self.nets.iter().chain(self.slots.nets())
    }

    /// The console of the channels, if there are any.
    #[must_use]
    pub fn console(&self) -> Option<&Arc<Console>> {
        self.console.as_ref()
    }

    /// The displays, in the order of their channels; the first has the VGA.
    #[must_use]
    pub fn displays(&self) -> &[Arc<Qxl>] {
        &self.displays
    }
}
