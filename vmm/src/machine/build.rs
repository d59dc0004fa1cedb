//! Puts a machine together from its checked config.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use caraway_arch::cpuid::CpuTemplate;
use caraway_arch::state::{ChipState, SaveContext, VcpuState};
use caraway_arch::{Entry, GuestMemory, Layout};
use caraway_devices::pci::{BarMemory, MemoryMapper};
use caraway_devices::rtc::{self, RtcBase};
use caraway_devices::{Lifecycle, RealClock, SystemControl, TickPolicy};
use caraway_firmware::place::Firmware;
use caraway_qxl::{Qxl, QxlConfig};
use caraway_spice::DisplaySource;
use caraway_virtio::{Console, Keyboard, Tablet};
use kvm_ioctls::{VcpuFd, VmFd};
use vm_memory::{MmapRegion, VolatileMemory};

use super::balloon::BalloonSlot;
use super::board::{Board, Parts};
use super::boot::Boot;
use super::disks::{self, DiskFailed, RunningDisk};
use super::display_thread::DisplayThread;
use super::event_loop::{Keep, Source};
use super::firmware::Tables;
use super::generation::Generation;
use super::hotplug::HotplugSlots;
use super::input::Input;
use super::nets::{Inherited, NetCard, NetEnds};
use super::notices::{Notice, Notices};
use super::port_ends::PortEnds;
use super::tickers::{PitParts, TickerParts};
use super::time::Time;
use super::timers::Timers;
use super::virtio::Slots;
use super::{Initial, Machine, ram, rng, vsock};
use crate::config::clock_base::ClockBase;
use crate::config::input::InputDevice;
use crate::config::policy::{LostTicks, PitModel};
use crate::config::{ConsoleSpec, DisplaySpec, InputSpec, MachineSpec};
use crate::exit::{Exit, Failure};
use crate::kvm::{GuestSpace, Host, Interrupts, IoEvents, KernelPit, KvmError, TickGsi};
use crate::vcpu::{Buses, Vcpus};

/// Where KVM is.
const KVM: &str = "/dev/kvm";
/// The display interrupts by INTA; it has no MSI.
const INTA: u8 = 1;

/// Where the machine's bytes go and its news are heard.
pub struct Surroundings {
    /// Takes what the guest writes to COM1.
    pub serial: Box<dyn Write + Send>,
    /// Called when COM1 can take more input.
    pub serial_room: Box<dyn Fn() + Send + Sync>,
    /// Called when the guest starts or stops listening to the tablet.
    pub pointer_changed: Arc<dyn Fn() + Send + Sync>,
    /// Called when the lamps of a keyboard change.
    pub lamps_changed: Arc<dyn Fn() + Send + Sync>,
    /// Called when the host could not do what the guest asked of a disk.
    pub disk_failed: DiskFailed,
    /// Hears what concerns the whole machine.
    pub notices: Arc<Notices>,
    /// The machine's clock.
    pub clock: Arc<RealClock>,
    /// Descriptors that whoever started the machine left open for it.
    pub inherited: Arc<Inherited>,
}

impl Machine {
    /// Builds the machine of `spec`, with every vCPU parked at its start. The second value is what
    /// the `devices` thread must serve.
    ///
    /// # Errors
    /// Whatever the host or the files of the config lack, with the exit code it stands for.
    pub fn build(
        spec: &MachineSpec,
        surroundings: Surroundings,
    ) -> Result<(Self, Vec<Source>), Failure> {
        let mut boot = Boot::open(&spec.boot)?;
        let disks = disks::open(&spec.disks, &surroundings.clock)?;
        let net_ends = NetEnds::open(&spec.nets, &surroundings.inherited)?;
        let ports = spec
            .console
            .as_ref()
            .map_or(&[][..], |console| &console.ports);
        let ends = PortEnds::open(ports)?;
        let vsock_socket = spec.vsock.as_ref().map(vsock::bind).transpose()?;

        // Of all calls here the kernel takes longest over the first memory slot after the interrupt
        // controllers: milliseconds of waiting for what these left behind, which the end of the VM
        // would wait for otherwise. So it gets both as early as can be, the slot in a thread of its
        // own, and the rest of the machine is put together meanwhile.
        let host = Host::open(KVM).map_err(|error| unsupported(&error))?;
        let vm = host.create_vm().map_err(|error| unsupported(&error))?;
        let cpus =
            CpuTemplate::from_host(host.kvm(), spec.cpus.into()).map_err(|e| unsupported(&e))?;
        let layout = Layout::new(spec.memory, cpus.physical_bits())
            .map_err(|error| Failure::of(Exit::Config, &error).context("memory"))?;
        let memory = ram::create(&layout, spec.ram)?;
        let space = GuestSpace::new(Arc::clone(&vm));
        let ram = map_ram(&space, &memory, &layout)?;
        let interrupts = Interrupts::new(Arc::clone(&vm)).map_err(|error| unsupported(&error))?;

        let buses = Buses::default();
        let Surroundings {
            serial,
            serial_room,
            pointer_changed,
            lamps_changed,
            disk_failed,
            notices,
            clock,
            inherited,
        } = surroundings;
        let timers = Timers::new(clock.clone());
        let tickers = tickers(spec, &vm).map_err(|error| unsupported(&error))?;
        let mut board = Board::new(Parts {
            buses: &buses,
            lines: interrupts.lines(),
            mapper: space.clone(),
            clock: clock.clone(),
            timers: &timers,
            system: notices.clone() as Arc<dyn SystemControl>,
            layout: &layout,
            cpus: spec.cpus,
            tickers,
            serial,
            serial_room,
            debug_exit: spec.debug_exit,
        })
        .map_err(|error| Failure::of(Exit::Config, &error))?;

        let displays = spec.displays.iter().zip(0..);
        let displays: Result<Vec<_>, _> = displays
            .map(|(display, channel)| add_display(display, channel, &buses, &mut board, &clock))
            .collect();
        let displays = displays?;
        let hotplug = HotplugSlots::add(spec.hotplug.as_ref(), &board, &notices)
            .map_err(|error| Failure::of(Exit::Resource, &error).context("hotplug"))?;
        let mut slots = Slots {
            board: &mut board,
            memory: &memory,
            msi: &interrupts,
            doorbells: IoEvents::new(Arc::clone(&vm)),
            clock: clock.clone(),
            timers: &timers,
        };
        let (tablet, keyboard) = add_inputs(
            &spec.inputs,
            &mut slots,
            pointer_changed,
            lamps_changed.clone(),
        )?;
        let disks = disks
            .into_iter()
            .zip(&spec.disks)
            .enumerate()
            .map(|(index, (disk, spec))| {
                RunningDisk::start(&mut slots, index, spec, disk, Arc::clone(&disk_failed))
            })
            .collect::<Result<Vec<RunningDisk>, _>>()
            .map_err(|error| Failure::of(Exit::Resource, &error))?;
        let nets = net_ends.into_iter().zip(&spec.nets).enumerate();
        let nets = nets
            .map(|(index, (ends, spec))| {
                NetCard::attach(index, spec, ends, &mut slots, &notices).map_err(|error| {
                    Failure::of(Exit::Resource, &error).context(format!("nets[{index}]"))
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let agent = ends.agent().cloned();
        let guest_agent = ends.guest_agent().cloned();
        let console = spec
            .console
            .as_ref()
            .map(|spec| add_console(spec, ends, &mut slots))
            .transpose()?;
        let vsock = spec.vsock.as_ref().zip(vsock_socket);
        let vsock = vsock
            .map(|(spec, socket)| vsock::add(spec, socket, &mut slots))
            .transpose()?;
        let balloon = spec.balloon.as_ref();
        let balloon = balloon
            .map(|balloon| BalloonSlot::add(balloon, spec.memory, &mut slots))
            .transpose()?;
        let rng = spec
            .rng
            .as_ref()
            .map(|spec| rng::add(spec, &mut slots))
            .transpose()?;
        board
            .i8042
            .lock()
            .set_led_hook(Box::new(move |_| lamps_changed()));

        let tables = Tables::new(
            spec,
            &layout,
            matches!(boot, Boot::Firmware(_)),
            &buses,
            &memory,
        )?;
        board.lifecycles.extend(tables.lifecycle());
        if let Boot::Firmware(firmware) = &boot {
            map_rom(firmware, &space)?;
        }
        let entry = boot.place(&memory, &layout, tables.rsdp())?;
        if tables.rsdp().is_some() {
            board.enable_ecam();
        }

        let vcpus = create_vcpus(&vm, cpus, spec.cpus)?;
        let initial = Initial::of(&host, &vm, &vcpus, &entry, &memory)?;
        ram.wait()?;
        // Only now: KVM makes one memory slot at a time.
        let id = spec.vmgenid.draw();
        let generation = id.map(|id| Generation::new(id, &*space, board.acpi_pm.clone()));
        board.tickers.report_to(&notices);
        let sources = std::mem::take(&mut board.sources);
        let vcpus = start_vcpus(vcpus, buses, &notices)?;
        let threads: std::io::Result<Vec<_>> = displays
            .iter()
            .map(|qxl| DisplayThread::start(Arc::clone(qxl)))
            .collect();
        let threads = threads
            .map_err(|error| Failure::of(Exit::Internal, &error).context("the display thread"))?;
        let source = displays.first().cloned();
        let source = source.map(|qxl| qxl as Arc<dyn DisplaySource>);
        let input = Input::new(board.i8042.clone(), tablet, keyboard, source);

        let machine = Self {
            vcpus,
            vm,
            memory,
            layout,
            boot,
            tables,
            initial,
            board,
            displays,
            input,
            generation: generation.transpose()?,
            agent,
            console,
            guest_agent,
            vsock,
            balloon,
            rng,
            time: Time::new(clock, timers),
            _display_threads: threads,
            disks,
            numbers: spec.disks.len() + spec.nets.len(),
            slots: hotplug,
            disk_failed,
            notices,
            inherited,
            interrupts,
            nets,
            _space: space,
        };
        Ok((machine, sources))
    }
}

fn tickers(spec: &MachineSpec, vm: &Arc<VmFd>) -> Result<TickerParts, KvmError> {
    let policy = match spec.lost_ticks {
        LostTicks::Replay => TickPolicy::Replay,
        LostTicks::Slew => TickPolicy::Slew,
        LostTicks::Discard => TickPolicy::Discard,
    };
    Ok(TickerParts {
        pit: match spec.pit {
            PitModel::User => PitParts::ours(Arc::clone(vm))?,
            PitModel::Kernel => PitParts::Kernel(KernelPit::create(Arc::clone(vm), policy)?),
        },
        rtc_line: Arc::new(TickGsi::new(Arc::clone(vm), rtc::GSI)),
        policy,
        rtc_base: match spec.clock_base {
            ClockBase::Utc => RtcBase::Utc,
            ClockBase::Localtime => RtcBase::Local {
                utc_offset: local_offset(),
            },
            ClockBase::Date(date) => RtcBase::Date {
                seconds: date.seconds(),
            },
        },
    })
}

/// Seconds that the host's time zone is east of UTC now.
fn local_offset() -> i32 {
    let now = jiff::Timestamp::now();
    jiff::tz::TimeZone::system().to_offset(now).seconds()
}

fn unsupported(error: &dyn std::error::Error) -> Failure {
    Failure::of(Exit::Unsupported, error).hint("`caraway doctor` says what this host lacks")
}

/// Adds a graphics card, of which the first has the VGA, as the display channel of this number.
fn add_display(
    spec: &DisplaySpec,
    channel: u32,
    buses: &Buses,
    board: &mut Board,
    clock: &Arc<RealClock>,
) -> Result<Arc<Qxl>, Failure> {
    let failed = |error: &dyn std::error::Error| {
        Failure::of(Exit::Resource, error).context("the display can't be made")
    };
    let config = QxlConfig {
        vram: spec.vram,
        heads: spec.heads,
        vga: channel == 0,
        channel,
        ..QxlConfig::default()
    };
    let line = board.intx.line(spec.address, INTA);
    let qxl = Qxl::new(config, line, clock.clone()).map_err(|error| failed(&error))?;
    if qxl.settings().vga {
        for (base, len, device) in qxl.vga_ports() {
            buses
                .ports
                .insert(base.into(), len.into(), device)
                .map_err(|error| failed(&error))?;
        }
        let (base, len, window) = qxl.vga_window();
        buses
            .mmio
            .insert(base, len, window)
            .map_err(|error| failed(&error))?;
    }
    board
        .pci
        .add(spec.address, qxl.clone())
        .map_err(|error| failed(&error))?;
    board.lifecycles.push(qxl.clone() as Arc<dyn Lifecycle>);
    Ok(qxl)
}

type Pointers = (Option<Arc<Tablet>>, Option<Arc<Keyboard>>);

fn add_inputs(
    specs: &[InputSpec],
    slots: &mut Slots<'_>,
    pointer_changed: Arc<dyn Fn() + Send + Sync>,
    lamps_changed: Arc<dyn Fn() + Send + Sync>,
) -> Result<Pointers, Failure> {
    let (mut tablet, mut keyboard) = (None, None);
    for spec in specs {
        let attached = match spec.device {
            InputDevice::Tablet => {
                let changed = Arc::clone(&pointer_changed);
                let device = Arc::new(Tablet::new().on_listening(move || changed()));
                tablet.get_or_insert_with(|| Arc::clone(&device));
                slots.attach_to_loop(spec.address, device).map(drop)
            }
            InputDevice::Keyboard => {
                let changed = Arc::clone(&lamps_changed);
                let device = Arc::new(Keyboard::new(move |_| changed()));
                keyboard.get_or_insert_with(|| Arc::clone(&device));
                slots.attach_to_loop(spec.address, device).map(drop)
            }
        };
        attached.map_err(|error| Failure::of(Exit::Resource, &error).context(spec.id.clone()))?;
    }
    Ok((tablet, keyboard))
}

fn add_console(
    spec: &ConsoleSpec,
    mut ends: PortEnds,
    slots: &mut Slots<'_>,
) -> Result<Arc<Console>, Failure> {
    let failed = |error: &dyn std::error::Error| {
        Failure::of(Exit::Resource, error).context("the channels can't be made")
    };
    let console = Console::new(ends.take_ports()).map_err(|error| failed(&error))?;
    let console = Arc::new(console);
    slots
        .attach_to_loop(spec.address, Arc::clone(&console))
        .map_err(|error| failed(&error))?;
    let served = Arc::clone(&console);
    slots
        .board
        .sources
        .push(Source::new(console.wake().as_raw_fd(), move || {
            served.serve_ends();
            Keep::Yes
        }));
    slots.board.sources.extend(ends.join(console.wake()));
    Ok(console)
}

fn map_rom(firmware: &Firmware, space: &GuestSpace) -> Result<(), Failure> {
    let internal = |error: &dyn std::error::Error| {
        Failure::of(Exit::Internal, error).context("the firmware can't be mapped")
    };
    let Some(range) = firmware.rom() else {
        return Ok(());
    };
    let region = MmapRegion::new(firmware.image().len()).map_err(|error| internal(&error))?;
    region.as_volatile_slice().copy_from(firmware.image());
    let rom = BarMemory {
        region: Arc::new(region),
        read_only: true,
    };
    space
        .map(range.start(), &rom)
        .map_err(|error| internal(&error))?;
    Ok(())
}

/// Guest RAM on its way into the machine's address space.
struct MappingRam(JoinHandle<Result<(), KvmError>>);

fn map_ram(
    space: &Arc<GuestSpace>,
    memory: &GuestMemory,
    layout: &Layout,
) -> Result<MappingRam, Failure> {
    let (space, memory, ranges) = (Arc::clone(space), memory.clone(), layout.memory_slots());
    std::thread::Builder::new()
        .name("ram".to_owned())
        .spawn(move || space.add_ram(&memory, &ranges))
        .map(MappingRam)
        .map_err(|error| Failure::of(Exit::Internal, &error).context("guest RAM can't be mapped"))
}

impl MappingRam {
    fn wait(self) -> Result<(), Failure> {
        let panicked = |_| {
            Err(Failure::new(
                Exit::Internal,
                "guest RAM could not be mapped",
            ))
        };
        self.0
            .join()
            .map_or_else(panicked, |done| done.map_err(|error| unsupported(&error)))
    }
}

fn create_vcpus(vm: &VmFd, mut cpus: CpuTemplate, count: u8) -> Result<Vec<VcpuFd>, Failure> {
    let create = |index: u8| {
        let vcpu = vm
            .create_vcpu(index.into())
            .map_err(KvmError::call("KVM_CREATE_VCPU"))
            .map_err(|error| unsupported(&error))?;
        if let (0, Ok(khz)) = (index, vcpu.get_tsc_khz()) {
            cpus = cpus.clone().with_tsc_khz(khz);
        }
        let cpuid = cpus
            .for_vcpu(index.into())
            .map_err(|error| unsupported(&error))?;
        vcpu.set_cpuid2(&cpuid)
            .map_err(KvmError::call("KVM_SET_CPUID2"))
            .map_err(|error| unsupported(&error))?;
        Ok(vcpu)
    };
    (0..count).map(create).collect()
}

fn start_vcpus(vcpus: Vec<VcpuFd>, buses: Buses, notices: &Arc<Notices>) -> Result<Vcpus, Failure> {
    let notices = Arc::clone(notices);
    let stopped: Arc<dyn Fn(usize, crate::vcpu::Stop) + Send + Sync> =
        Arc::new(move |vcpu, stop| notices.post(Notice::Stopped { vcpu, stop }));
    Vcpus::start(vcpus, &Arc::new(buses), &stopped)
        .map_err(|error| Failure::of(Exit::Internal, &error))
}

impl Initial {
    /// Sets the first of `vcpus` to `entry`, and remembers how all were before and are now.
    fn of(
        host: &Host,
        vm: &VmFd,
        vcpus: &[VcpuFd],
        entry: &Entry,
        memory: &GuestMemory,
    ) -> Result<Self, Failure> {
        let failed = |error: &dyn std::error::Error| {
            Failure::of(Exit::Internal, error).context("the vCPUs can't be set up")
        };
        let Some(first) = vcpus.first() else {
            return Err(Failure::new(Exit::Internal, "a machine without a vCPU"));
        };
        let context = SaveContext::probe(host.kvm(), vm, first).map_err(|error| failed(&error))?;
        entry.apply(first, memory).map_err(|error| failed(&error))?;
        let states = vcpus.iter().map(|vcpu| VcpuState::save(vcpu, &context));
        let vcpus = states
            .collect::<Result<_, _>>()
            .map_err(|error| failed(&error))?;
        let chips = ChipState::save(vm).map_err(|error| failed(&error))?;
        Ok(Self {
            context,
            vcpus,
            chips,
        })
    }
}
