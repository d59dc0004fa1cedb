//! The board: the q35 chipset and the devices that every PC has, wired together.

use std::io::Write;
use std::sync::Arc;

use caraway_arch::{Layout, layout};
use caraway_devices::debug::{DEBUG_PORT, POST_PORT, PVPANIC_PORT};
use caraway_devices::i8042::{COMMAND_PORT, DATA_PORT, KEYBOARD_GSI, MOUSE_GSI};
use caraway_devices::pci::{
    ConfigPorts, HostBridge, IntxRouter, LPC_ADDRESS, LpcBridge, MemoryMapper, PciAddress, PciRoot,
    PmPorts, RootError,
};
use caraway_devices::rtc::FirmwareFacts;
use caraway_devices::system::PORT92;
use caraway_devices::{
    AcpiPm, ApmPorts, Bus, BusDevice, BusError, Clock, DebugExit, DebugPort, I8042, I8042Port,
    InterruptLine, Lifecycle, Port92, PostPort, PvPanic, RealClock, ResetRegister, SerialPort,
    SharedLine, SystemControl, TimerClient,
};
use parking_lot::Mutex;

use super::event_loop::{Keep, Source};
use super::tickers::{TickerParts, Tickers};
use super::timers::Timers;
use crate::vcpu::Buses;

/// The interrupt and the ports of COM1.
const COM1_GSI: usize = 4;
const COM1_PORT: u64 = 0x3f8;
const COM1_PORTS: u64 = 8;
/// The interrupt of ACPI events.
const SCI_GSI: usize = 9;
/// The host bridge's register that places the PCI Express configuration window, and its switch.
const PCIEXBAR: u16 = 0x60;
const PCIEXBAR_ENABLE: u64 = 1;
/// The SMI command port and the scratch port behind it.
const APM_PORT: u64 = 0xb2;

/// Why the board could not be put together.
#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    /// Two devices want the same addresses: only a configured port can.
    #[error("{device} can't have its addresses")]
    Address {
        /// Which device.
        device: &'static str,
        /// What is in the way.
        #[source]
        source: BusError,
    },
    /// Two functions want the same PCI address.
    #[error("a PCI function can't be placed")]
    Pci(#[from] RootError),
    /// No timer could be had.
    #[error("no timer for {device}")]
    Timer {
        /// Which device.
        device: &'static str,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
}

/// What the board is made from.
pub struct Parts<'a> {
    /// The address spaces that the vCPUs see.
    pub buses: &'a Buses,
    /// GSI 0 to 23, of which 0 and 8 are the timers' own.
    pub lines: Vec<Arc<dyn InterruptLine>>,
    /// Where the memory behind BARs goes.
    pub mapper: Arc<dyn MemoryMapper>,
    /// The machine's time.
    pub clock: Arc<RealClock>,
    /// Its timers.
    pub timers: &'a Timers,
    /// Who hears of resets and the like.
    pub system: Arc<dyn SystemControl>,
    /// How much memory there is.
    pub layout: &'a Layout,
    /// How many vCPUs.
    pub cpus: u8,
    /// PIT and RTC.
    pub tickers: TickerParts,
    /// Where the serial port's output goes.
    pub serial: Box<dyn Write + Send>,
    /// Called when the serial port can take more input.
    pub serial_room: Box<dyn Fn() + Send + Sync>,
    /// The port whose value ends the machine.
    pub debug_exit: Option<u16>,
}

/// The board with its devices.
pub struct Board {
    /// Bus 0.
    pub pci: Arc<PciRoot>,
    /// Where INTx lines go.
    pub intx: Arc<IntxRouter>,
    /// COM1.
    pub serial: Arc<Mutex<SerialPort>>,
    /// The PS/2 keyboard and mouse.
    pub i8042: Arc<Mutex<I8042>>,
    /// Power button, sleep, and the timer.
    pub acpi_pm: Arc<Mutex<AcpiPm>>,
    /// PIT and RTC.
    pub tickers: Tickers,
    /// Whatever has state, in the order in which it is reset and saved.
    pub lifecycles: Vec<Arc<dyn Lifecycle>>,
    /// The timers that the event loop must serve.
    pub sources: Vec<Source>,
}

impl Board {
    /// Puts the board together.
    ///
    /// # Errors
    /// [`BoardError`].
    pub fn new(parts: Parts<'_>) -> Result<Self, BoardError> {
        let ports = Ports(&parts.buses.ports);
        let lines: Vec<_> = parts.lines.into_iter().map(SharedLine::new).collect();
        let line = |gsi: usize| lines[gsi].input();
        let system = &parts.system;
        let clock: Arc<dyn Clock> = parts.clock;
        let mut timed = Timed {
            timers: parts.timers,
            sources: Vec::new(),
        };

        let inputs: Vec<_> = lines.iter().map(SharedLine::input).collect();
        let intx = IntxRouter::new(&inputs);
        let pci = PciRoot::new(
            Arc::clone(&parts.buses.mmio),
            Arc::clone(&parts.buses.ports),
            parts.mapper,
        );

        let pm_timer = timed.timer("the ACPI timer")?;
        let acpi_pm = Arc::new(Mutex::new(AcpiPm::new(
            Arc::clone(&clock),
            pm_timer.clone(),
            line(SCI_GSI),
            Arc::clone(system),
        )));
        timed.serve(&pm_timer, &acpi_pm);
        ports.insert(
            "the APM ports",
            APM_PORT,
            2,
            Arc::new(ApmPorts(Arc::clone(&acpi_pm))),
        )?;
        let pm_ports = PmPorts {
            device: acpi_pm.clone(),
            pio: Arc::clone(&parts.buses.ports),
        };
        let lpc = LpcBridge::new(Arc::clone(&intx), pm_ports);
        pci.add(LPC_ADDRESS, lpc)?;
        let host_bridge = Arc::new(HostBridge::new(Arc::downgrade(&pci)));
        pci.add(PciAddress::from_rid(0), host_bridge)?;

        let reset_register = Arc::new(Mutex::new(ResetRegister::new(Arc::clone(system))));
        let config_ports = Arc::new(Mutex::new(ConfigPorts::new(
            Arc::clone(&pci),
            Arc::clone(&reset_register),
        )));
        ports.insert(
            "the PCI configuration ports",
            ConfigPorts::BASE.into(),
            ConfigPorts::LEN.into(),
            config_ports.clone(),
        )?;

        let i8042 = Arc::new(Mutex::new(I8042::new(
            line(KEYBOARD_GSI as usize),
            line(MOUSE_GSI as usize),
            Arc::clone(system),
        )));
        let data = I8042Port::data(Arc::clone(&i8042));
        ports.insert("the keyboard controller", DATA_PORT.into(), 1, data)?;
        let command = I8042Port::command(Arc::clone(&i8042));
        ports.insert("the keyboard controller", COMMAND_PORT.into(), 1, command)?;

        let facts = FirmwareFacts {
            memory_below_4g: parts.layout.low_end(),
            memory_above_4g: parts.layout.high_size(),
            cpus: parts.cpus.into(),
            boot_order: Vec::new(),
        };
        let tickers = Tickers::new(parts.tickers, &clock, &facts, &mut timed, &ports)?;

        let serial = SerialPort::with_room_hook(line(COM1_GSI), parts.serial, parts.serial_room);
        let serial = Arc::new(Mutex::new(serial));
        ports.insert("COM1", COM1_PORT, COM1_PORTS, serial.clone())?;

        let port92 = Arc::new(Mutex::new(Port92::new(Arc::clone(system))));
        ports.insert("port 0x92", PORT92.into(), 1, port92.clone())?;
        let debug = Arc::new(Mutex::new(DebugPort::new()));
        ports.insert("the debug port", DEBUG_PORT.into(), 1, debug.clone())?;
        ports.insert("the POST port", POST_PORT.into(), 1, Arc::new(PostPort))?;
        let panic = Arc::new(PvPanic::new(Arc::clone(system)));
        ports.insert("the panic port", PVPANIC_PORT.into(), 1, panic)?;
        if let Some(port) = parts.debug_exit {
            let exit = Arc::new(DebugExit::new(Arc::clone(system)));
            ports.insert(
                "the debug-exit port",
                port.into(),
                DebugExit::LEN.into(),
                exit,
            )?;
        }

        let mut lifecycles: Vec<Arc<dyn Lifecycle>> = vec![
            pci.clone(),
            config_ports,
            reset_register,
            acpi_pm.clone(),
            i8042.clone(),
        ];
        lifecycles.extend(tickers.lifecycles());
        let last: [Arc<dyn Lifecycle>; 3] = [serial.clone(), port92, debug];
        lifecycles.extend(last);
        Ok(Self {
            pci,
            intx,
            serial,
            i8042,
            acpi_pm,
            tickers,
            lifecycles,
            sources: timed.sources,
        })
    }

    /// Does what firmware would have done for a kernel that starts without one: puts the PCI
    /// Express configuration window where the tables say that it is.
    pub fn enable_ecam(&self) {
        let register = layout::ECAM_START | PCIEXBAR_ENABLE;
        let host_bridge = PciAddress::from_rid(0);
        self.pci
            .config_write(host_bridge, PCIEXBAR, &(register as u32).to_le_bytes());
    }
}

/// The I/O ports, with errors that name the device.
pub(super) struct Ports<'a>(&'a Bus);

impl Ports<'_> {
    pub(super) fn insert(
        &self,
        name: &'static str,
        base: u64,
        len: u64,
        device: Arc<dyn BusDevice>,
    ) -> Result<(), BoardError> {
        self.0
            .insert(base, len, device)
            .map_err(|source| BoardError::Address {
                device: name,
                source,
            })
    }
}

/// Collects the timers that the event loop is to serve.
pub(super) struct Timed<'a> {
    timers: &'a Timers,
    pub(super) sources: Vec<Source>,
}

impl Timed<'_> {
    pub(super) fn timer(
        &self,
        device: &'static str,
    ) -> Result<Arc<super::timers::DeviceTimer>, BoardError> {
        self.timers
            .timer()
            .map_err(|source| BoardError::Timer { device, source })
    }

    pub(super) fn serve<T: TimerClient + 'static>(
        &mut self,
        timer: &Arc<super::timers::DeviceTimer>,
        device: &Arc<Mutex<T>>,
    ) {
        let (timer, device) = (Arc::clone(timer), Arc::clone(device));
        self.sources.push(Source::new(timer.descriptor(), move || {
            if timer.acknowledge() {
                device.lock().expired();
            }
            Keep::Yes
        }));
    }
}
