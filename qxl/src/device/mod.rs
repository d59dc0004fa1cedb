//! The contract of the PCI device: what a driver and the host may do, and who does it.
//!
//! | thread | does |
//! |---|---|
//! | vCPU | VGA accesses under the `vga` lock; ports: most only wake the display thread, the synchronous ones work under the `core` lock |
//! | display | [`Qxl::process`] and [`Qxl::refresh`], a command or a picture at a time under `core`; alone tells the observers |
//! | a server's | [`DisplaySource`](caraway_spice::DisplaySource), under `screen` |
//!
//! Locks are taken in the order `core`, `screen`, `cursor`; `vga` and `pending` are leaves.

mod interrupts;
mod memslots;
mod monitors;
mod native;
mod pci;
mod ports;
mod ram;
mod release;
mod rings;
mod rom;
mod screen;
mod source;
mod state;
mod surfaces;
#[cfg(test)]
mod tests;
mod vga;

pub(crate) use memslots::{AddressError, GuestAddress, Place, Slots};

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use caraway_devices::pci::ConfigSpace;
use caraway_devices::{Clock, InterruptLine};
use caraway_spice::{CursorState, DisplayObserver};
use parking_lot::{Mutex, RwLock};
use vm_memory::MmapRegion;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::command::Dialect;
use crate::config::{QxlConfig, QxlError};
use crate::memory::Memory;
use crate::recorder::Recorder;
use crate::vga::{Vga, View};
use interrupts::Interrupts;
use ports::Request;
use ram::Ram;
use release::Releases;
use rom::Rom;
use screen::{News, Screen};
use serde::{Deserialize, Serialize};
use surfaces::Surfaces;

pub use source::Screenshot;

/// Number of the BAR with frame buffer, commands and rings.
const BAR_RAM: u8 = 0;
/// Number of the BAR with surfaces.
const BAR_VRAM: u8 = 1;
/// Number of the BAR with the ROM.
const BAR_ROM: u8 = 2;
/// Number of the BAR with the ports.
const BAR_PORTS: u8 = 3;
/// Number of the optional 64-bit BAR with surfaces.
const BAR_VRAM64: u8 = 4;

/// Who decides what is to be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
enum Mode {
    /// The VGA and VBE registers.
    Vga,
    /// Nobody: the primary surface is gone.
    Undefined,
    /// The guest's commands.
    Native,
    /// Those of the first drivers (port SET_MODE).
    Compat,
    /// The same in modes of 16 bits.
    Compat16,
}

impl Mode {
    /// What a device is in before its driver comes.
    const fn at_reset(config: &QxlConfig) -> Self {
        if config.vga {
            Self::Vga
        } else {
            Self::Undefined
        }
    }

    /// Whether there is a primary surface, which the guest draws on.
    const fn has_primary(self) -> bool {
        matches!(self, Self::Native | Self::Compat | Self::Compat16)
    }
}

/// What native mode is about, under one lock.
struct Core {
    slots: Slots,
    surfaces: Surfaces,
    releases: Releases,
    /// What the VGA picture was drawn from.
    view: View,
    /// Writes down what is drawn, if somebody wants to have it.
    recorder: Option<Recorder>,
    /// What has been logged already: each kind of thing once.
    logged: std::collections::BTreeSet<&'static str>,
}

/// Memory behind a BAR that a snapshot has to keep beside the device's state.
#[derive(Clone)]
pub struct BarRegion {
    /// Number of the BAR.
    pub bar: u8,
    /// Its memory; most of it may never have been touched.
    pub region: Arc<MmapRegion>,
}

/// A QXL device (PCI 1b36:0100 revision 5, class VGA), with its VGA core.
pub struct Qxl {
    config: QxlConfig,
    space: Mutex<ConfigSpace>,
    clock: Arc<dyn Clock>,
    memory: Memory,
    vram: Memory,
    vram64: Option<Memory>,
    rom_memory: Memory,
    rom: Rom,
    ram: Ram,
    interrupts: Interrupts,
    kick: EventFd,
    vga: Mutex<Vga>,
    core: Mutex<Core>,
    /// What an asynchronous port asked for and the display thread has not done yet.
    pending: Mutex<Option<Request>>,
    /// A [`Mode`]; changes under the `core` lock only.
    mode: AtomicU8,
    /// The guest did something impossible: only a reset helps.
    guest_bug: AtomicBool,
    /// How often it did.
    bugs: AtomicU64,
    screen: RwLock<Screen>,
    cursor: Mutex<CursorState>,
    news: News,
    observers: Mutex<Vec<Weak<dyn DisplayObserver>>>,
    clients_present: AtomicBool,
    /// When the VGA picture was last drawn.
    refreshed: AtomicU64,
}

impl Qxl {
    /// A device as after power-on. It drives `irq` as its INTx pin and never starts a thread: the
    /// machine calls [`process`](Self::process) and [`refresh`](Self::refresh).
    ///
    /// # Errors
    /// [`QxlError`] if a size is impossible or the host has no memory for it.
    pub fn new(
        config: QxlConfig,
        irq: Arc<dyn InterruptLine>,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, QxlError> {
        config.check()?;
        let memory = Memory::new("ram", config.ram)?;
        let vram = Memory::new("vram", config.vram)?;
        let vram64 = match config.vram64 {
            Some(size) => Some(Memory::new("vram64", size)?),
            None => None,
        };
        let rom_memory = Memory::new("rom", rom::ROM_LEN)?;
        let mut memories = vec![(BAR_RAM, memory.clone()), (BAR_VRAM, vram.clone())];
        memories.extend(vram64.clone().map(|memory| (BAR_VRAM64, memory)));
        Ok(Arc::new(Self {
            config,
            space: Mutex::new(pci::config_space(&config)),
            clock,
            rom: Rom::new(rom_memory.clone(), config),
            ram: Ram::new(memory.clone()),
            interrupts: Interrupts::new(irq),
            kick: EventFd::new(EFD_NONBLOCK).map_err(QxlError::Event)?,
            vga: Mutex::new(Vga::new(memory.clone(), config.vgamem)),
            core: Mutex::new(Core {
                slots: Slots::new(memories),
                surfaces: Surfaces::new(&config),
                releases: Releases::default(),
                view: View::default(),
                recorder: None,
                logged: std::collections::BTreeSet::new(),
            }),
            pending: Mutex::new(None),
            mode: AtomicU8::new(Mode::at_reset(&config) as u8),
            guest_bug: AtomicBool::new(false),
            bugs: AtomicU64::new(0),
            screen: RwLock::new(Screen::default()),
            cursor: Mutex::default(),
            news: News::default(),
            observers: Mutex::default(),
            clients_present: AtomicBool::new(false),
            refreshed: AtomicU64::new(0),
            memory,
            vram,
            vram64,
            rom_memory,
        }))
    }

    /// What the device was made with.
    #[must_use]
    pub fn settings(&self) -> &QxlConfig {
        &self.config
    }

    /// Becomes readable when [`process`](Self::process) has something to do.
    #[must_use]
    pub fn kick(&self) -> &EventFd {
        &self.kick
    }

    /// The memories whose contents belong to a snapshot. They are complete only after
    /// [`save`](caraway_devices::Lifecycle::save), which writes pictures back into them, and must
    /// be there again before [`restore`](caraway_devices::Lifecycle::restore). The ROM is not
    /// among them.
    #[must_use]
    pub fn regions(&self) -> Vec<BarRegion> {
        let vram64 = self.vram64.as_ref().map(|memory| (BAR_VRAM64, memory));
        let all = [(BAR_RAM, &self.memory), (BAR_VRAM, &self.vram)];
        let region = |(bar, memory): (u8, &Memory)| BarRegion {
            bar,
            region: memory.region(),
        };
        all.into_iter().chain(vram64).map(region).collect()
    }

    /// Writes to `out` what the guest draws by commands from now on, in the format of the reference
    /// server's recordings. The thread that draws writes it, so `out` had better not wait for anything
    /// but a disk. Once it fails the recording ends, with a line in the log.
    ///
    /// # Errors
    /// What `out` says to the first line.
    pub fn record(&self, out: Box<dyn std::io::Write + Send>) -> std::io::Result<()> {
        let recorder = Recorder::new(out, self.clock.clone())?;
        self.core.lock().recorder = Some(recorder);
        Ok(())
    }

    fn mode(&self) -> Mode {
        match self.mode.load(Ordering::SeqCst) {
            0 => Mode::Vga,
            1 => Mode::Undefined,
            2 => Mode::Native,
            3 => Mode::Compat,
            _ => Mode::Compat16,
        }
    }

    /// How the guest writes its commands.
    fn dialect(&self) -> Dialect {
        match self.mode() {
            Mode::Vga | Mode::Undefined | Mode::Native => Dialect::Native,
            Mode::Compat => Dialect::Compat,
            Mode::Compat16 => Dialect::Compat16,
        }
    }

    /// Wakes the display thread.
    fn wake(&self) {
        // It fails only when the counter is full, and then the thread is woken anyway.
        let _ = self.kick.write(1);
    }

    /// The guest did something impossible: tell it, and listen to nothing but a reset.
    fn guest_bug(&self, what: &dyn std::fmt::Display) {
        // One that does so on purpose is not to fill the log.
        let times = self.bugs.fetch_add(1, Ordering::SeqCst) + 1;
        if times.is_power_of_two() {
            tracing::warn!(
                "the guest's QXL driver is wrong: {what}; waiting for its reset (bug {times})"
            );
        }
        self.guest_bug.store(true, Ordering::SeqCst);
        self.interrupts.raise(&self.ram, interrupts::ERROR);
    }

    /// Back to VGA mode, if there is a VGA, with empty rings, as port RESET asks for.
    fn hard_reset(&self, core: &mut Core) {
        *self.pending.lock() = None;
        self.guest_bug.store(false, Ordering::SeqCst);
        self.rom.reset();
        self.ram.reset();
        core.slots.clear();
        core.surfaces.clear();
        core.releases = Releases::default();
        core.logged.clear();
        self.interrupts.update(&self.ram);
        if self.mode().has_primary() {
            core.note(|recorder, _| recorder.destroy_primary());
        }
        let mode = Mode::at_reset(&self.config);
        if self.mode() != mode {
            self.set_mode(core, mode);
        }
        self.set_cursor(CursorState::default());
    }

    /// Changes the mode; what was to be seen is gone.
    fn set_mode(&self, core: &mut Core, mode: Mode) {
        self.mode.store(mode as u8, Ordering::SeqCst);
        core.view.forget();
        self.refreshed.store(0, Ordering::SeqCst);
        if !mode.has_primary() {
            self.screen.write().remove();
            self.news.layout();
            self.wake();
        }
    }

    fn set_cursor(&self, cursor: CursorState) {
        let mut current = self.cursor.lock();
        if *current != cursor {
            *current = cursor;
            drop(current);
            self.news.cursor();
        }
    }
}

impl Core {
    /// Has the recorder write something, if there is one.
    fn note(&mut self, write: impl FnOnce(&mut Recorder, &Slots) -> std::io::Result<()>) {
        let Some(recorder) = self.recorder.as_mut() else {
            return;
        };
        if let Err(error) = write(recorder, &self.slots) {
            tracing::warn!("the recording of the display ends here: {error}");
            self.recorder = None;
        }
    }

    /// Logs a thing that a guest may do ever so often, once.
    fn log_once(&mut self, what: &'static str, message: &dyn std::fmt::Display) {
        if self.logged.insert(what) {
            tracing::info!("QXL: {message}");
        }
    }
}
