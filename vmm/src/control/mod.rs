//! Runs a machine from its config to its end: the control loop, and what stands around it.
//!
//! The loop is the only one that changes the machine. Command line, API and signals send it
//! [`Command`]s; the machine's own threads leave it [`Notice`]s.

mod access;
mod balloon;
mod certificate;
mod console;
mod disks;
mod display;
mod ending;
mod hotplug;
mod net;
mod nets;
mod pipes;

use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use caraway_devices::{Nanos, RealClock, SystemEvent};
use caraway_spice::InputSink;
use uuid::Uuid;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use crate::command::{
    ApiError, Command, ControlHandle, ControlReceiver, ErrorCode, Generation, InputEvent, VmInfo,
    VmState, control_channel,
};
use crate::config::MachineSpec;
use crate::config::policy::{OnPanic, OnReset, OnResume};
use crate::config::spice::OnDisconnect;
use crate::console::Watch;
use crate::events::{Event, EventLog, Origin};
use crate::exit::{Exit, Failure};
use crate::footprint::{forget_touched_code, share_one_heap};
use crate::machine::{
    EventLoop, HostClockJumps, Inherited, Machine, Notice, Notices, Offset, Signals, Surroundings,
};
use crate::metrics::Metrics;
use crate::vcpu::Stop;

use access::Access;
use certificate::Certificate;
use disks::Disks;
use display::Display;
use ending::Artifacts;
use hotplug::Coming;
use net::Net;

/// What the command line adds to the config.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// Serve the API on this Unix socket.
    pub api: Option<PathBuf>,
    /// End with [`Exit::Timeout`] after this long.
    pub timeout: Option<Duration>,
    /// Wait for `vm.resume` before the first instruction.
    pub paused: bool,
    /// For tests: how much longer than it was every pause is made out to be.
    pub longer_pauses: Duration,
    /// What to look for in the serial output.
    pub watch: Watch,
    /// Write what the guest's QXL driver draws here.
    pub record_display: Option<PathBuf>,
    /// Write a picture of every head here when the machine ends.
    pub screenshot_on_exit: Option<PathBuf>,
    /// Write a connection file for viewers here.
    pub vv: Option<PathBuf>,
    /// Write the serial output here too.
    pub serial_file: Option<PathBuf>,
    /// Leave serial log, events, pictures, config and exit report in this folder.
    pub artifacts: Option<PathBuf>,
    /// Print nothing for people: no viewer's line, no hint how to leave.
    pub quiet: bool,
}

/// Runs the machine in the foreground until it ends.
///
/// # Errors
/// It could not be built or run; everything made for it is gone again.
pub fn run(spec: &MachineSpec, options: &RunOptions) -> Result<Exit, Failure> {
    let host = |error: std::io::Error| {
        Failure::of(Exit::Internal, &error).context("the control loop can't be set up")
    };
    share_one_heap();
    // Before anything of our own is open.
    let inherited = Arc::new(Inherited::now().map_err(host)?);
    let signals = Signals::take().map_err(host)?;
    let clock_jumps = HostClockJumps::new().map_err(host)?;
    let notices = Notices::new().map_err(host)?;
    let (handle, receiver) = control_channel().map_err(host)?;
    let artifacts = Artifacts::open(options.artifacts.as_deref(), spec)?;
    let events = Arc::new(EventLog::new(artifacts.events()?));
    let metrics = Arc::new(Metrics::default());
    // What others may hold is taken first, so that a port in use is known before anything runs.
    let certificate = Certificate::load(spec)?;
    let tls = certificate.as_ref().map(Certificate::tls);
    let listeners = net::Listeners::bind(spec, options.api.as_deref(), tls)?;

    let (input, mut sources, serial) = console::open(spec, options, &artifacts, &handle)?;
    let net_later = Arc::new(std::sync::OnceLock::<Arc<caraway_spice::Server>>::new());
    let (pointer, lamps) = (Arc::clone(&net_later), Arc::clone(&net_later));
    let surroundings = Surroundings {
        serial: Box::new(serial),
        serial_room: input.room_hook(),
        pointer_changed: Arc::new(move || {
            pointer.get().inspect(|server| server.refresh_mouse_mode());
        }),
        lamps_changed: Arc::new(move || {
            lamps.get().inspect(|server| server.refresh_locks());
        }),
        disk_failed: disks::reporter(&events, &notices),
        notices: Arc::clone(&notices),
        clock: RealClock::with_longer_pauses(options.longer_pauses.as_nanos() as Nanos),
        inherited,
    };
    let (machine, machine_sources) = Machine::build(spec, surroundings)?;
    sources.extend(machine_sources);
    machine.export(&metrics);
    if let Some(path) = &options.record_display {
        display::record(path, machine.displays())?;
    }
    input.connect(machine.serial());

    let addresses = listeners.viewer_addresses();
    let display = Display::new(spec, &machine, addresses, certificate, &notices);
    let server = display.server(spec, listeners.pipes(), &events, &metrics)?;
    if let Some(server) = &server {
        // Nobody else sets it.
        let _ = net_later.set(Arc::clone(server));
    }
    let net = Net::start(listeners, server.clone(), &handle, &events, &metrics)?;
    let devices = EventLoop::start("devices", sources).map_err(host)?;
    if let Some(path) = &options.vv {
        display.write_vv(path)?;
    }
    if !options.quiet {
        display.greet(input.is_terminal());
    }

    let disks = Disks::new(spec, &machine, &events, &metrics);
    let mut control = Control {
        spec,
        devices,
        machine,
        disks,
        coming: Vec::new(),
        display,
        server,
        commands: handle,
        events: Arc::clone(&events),
        metrics,
        state: VmState::Paused,
        started: Instant::now(),
    };
    let deadline = options.timeout.map(|timeout| Instant::now() + timeout);
    if !options.paused {
        control.resume(spec.on_resume);
        events.emit(Event::Started);
    }
    let exit = control.work(
        receiver,
        &notices,
        signals,
        &clock_jumps,
        deadline,
        options.watch.expect.is_some(),
    );
    let exit = exit.map_err(host)?;

    control.machine.pause();
    events.emit(Event::Shutdown {
        reason: exit.word().to_owned(),
        code: exit.code(),
    });
    let pictures = control
        .display
        .write_pictures(options.screenshot_on_exit.as_deref(), &artifacts);
    drop(net);
    drop(control);
    artifacts.report(exit)?;
    pictures?;
    Ok(exit)
}

/// The control loop's state.
struct Control<'a> {
    spec: &'a MachineSpec,
    // Ends before the machine that it serves.
    devices: EventLoop,
    machine: Machine,
    disks: Disks,
    coming: Vec<Coming>,
    display: Display,
    server: Option<Arc<caraway_spice::Server>>,
    commands: ControlHandle,
    events: Arc<EventLog>,
    metrics: Arc<Metrics>,
    state: VmState,
    started: Instant,
}

/// A machine that lives this long is worth tidying up after its start.
const SETTLED: Duration = Duration::from_millis(250);

/// What is readable.
const COMMANDS: u64 = 0;
const NOTICES: u64 = 1;
const SIGNALS: u64 = 2;
const CLOCK_JUMPS: u64 = 3;

impl Control<'_> {
    /// Serves commands, notices and signals until one of them ends the machine.
    fn work(
        &mut self,
        mut commands: ControlReceiver,
        notices: &Notices,
        mut signals: Signals,
        clock_jumps: &HostClockJumps,
        deadline: Option<Instant>,
        expecting: bool,
    ) -> std::io::Result<Exit> {
        let epoll = Epoll::new()?;
        let watch = |fd, token| {
            epoll.ctl(
                ControlOperation::Add,
                fd,
                EpollEvent::new(EventSet::IN, token),
            )
        };
        watch(commands.as_raw_fd(), COMMANDS)?;
        watch(notices.as_raw_fd(), NOTICES)?;
        watch(signals.descriptor(), SIGNALS)?;
        watch(clock_jumps.as_raw_fd(), CLOCK_JUMPS)?;
        let mut ready = [EpollEvent::default(); 4];
        let mut settled = Some(Instant::now() + SETTLED);
        loop {
            let now = Instant::now();
            if deadline.is_some_and(|at| at <= now) {
                return Ok(Exit::Timeout);
            }
            if settled.take_if(|at| *at <= now).is_some() {
                forget_touched_code();
            }
            self.tell_unanswered();
            // Rounded up, so as not to spin through the last millisecond.
            let ends = [deadline, settled, self.patience_ends()];
            let patience = ends.into_iter().flatten().min().map_or(-1, |at| {
                let left = at.saturating_duration_since(now);
                i32::try_from(left.as_millis() + 1).unwrap_or(i32::MAX)
            });
            match epoll.wait(patience, &mut ready) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            // All are asked whenever one is ready: none blocks, and the serial port's last
            // words count before the power-off that follows them.
            while let Some(command) = commands.try_next() {
                if let Some(exit) = self.command(command) {
                    return Ok(exit);
                }
            }
            for notice in notices.take() {
                if let Some(exit) = self.notice(notice) {
                    // The watcher may have seen its text in the same breath.
                    while let Some(command) = commands.try_next() {
                        if let Command::Serial(verdict) = command {
                            return Ok(verdict.into());
                        }
                    }
                    // Whoever waits for a text is told that it did not come, however it ended.
                    return Ok(if expecting { Exit::NotSeen } else { exit });
                }
            }
            if clock_jumps.take() {
                self.host_clock_jumped();
            }
            if let Some(signal) = signals.take_next() {
                return Ok(match signal {
                    libc::SIGINT => Exit::Interrupted,
                    _ => Exit::Terminated,
                });
            }
        }
    }

    /// Lets the guest run, if it does not; milliseconds that it stood still.
    fn resume(&mut self, clock: OnResume) -> Option<u64> {
        if self.state == VmState::Running {
            return None;
        }
        self.state = VmState::Running;
        let pause = self.machine.resume(clock.into());
        let length = pause.map_or(self.started.elapsed(), |pause| {
            Duration::from_nanos(pause.length)
        });
        Some(length.as_millis() as u64)
    }

    fn host_clock_jumped(&mut self) {
        // A machine that stands still learns of it when it goes on.
        if self.state == VmState::Paused {
            return;
        }
        let clock = self.spec.on_resume;
        if let Some(sleep) = self.machine.host_clock_jumped(clock.into()) {
            let slept_ms = Duration::from_nanos(sleep.length).as_millis() as u64;
            self.events.emit(Event::HostSlept { slept_ms, clock });
        }
    }

    fn pause(&mut self) {
        if self.state == VmState::Running {
            self.machine.pause();
            self.state = VmState::Paused;
        }
    }

    /// Starts the guest anew; it runs afterwards if it ran before.
    fn reset(&mut self, by: Origin) -> Result<(), Failure> {
        let ran = self.state == VmState::Running;
        self.pause();
        self.machine.reset()?;
        self.events.emit(Event::Reset { by });
        if ran {
            self.resume(self.spec.on_resume);
        }
        Ok(())
    }

    fn reset_or_end(&mut self, by: Origin) -> Option<Exit> {
        let failure = self.reset(by).err()?;
        tracing::error!("{failure}");
        Some(failure.exit())
    }

    /// Does what is asked; `Some` ends the machine.
    fn command(&mut self, command: Command) -> Option<Exit> {
        // Whoever asked may be gone; that concerns nobody else.
        match command {
            Command::VmInfo(reply) => drop(reply.send(Ok(self.info()))),
            Command::Pause(reply) => {
                let ran = self.state == VmState::Running;
                self.pause();
                if ran {
                    self.events.emit(Event::Paused);
                }
                drop(reply.send(Ok(())));
            }
            Command::Resume { clock, reply } => {
                let clock = clock.unwrap_or(self.spec.on_resume);
                if let Some(paused_ms) = self.resume(clock) {
                    self.events.emit(Event::Resumed { paused_ms, clock });
                }
                drop(reply.send(Ok(())));
            }
            Command::Reset(reply) => match self.reset(Origin::Host) {
                Ok(()) => drop(reply.send(Ok(()))),
                Err(failure) => {
                    tracing::error!("{failure}");
                    drop(reply.send(Err(ApiError::new(ErrorCode::Internal, failure.to_string()))));
                    return Some(failure.exit());
                }
            },
            Command::PowerButton(reply) => drop(reply.send(self.power_button())),
            Command::RenewGeneration(reply) => drop(reply.send(self.renew_generation())),
            Command::BalloonInfo(reply) => drop(reply.send(self.balloon())),
            Command::SetBalloon { target, reply } => {
                drop(reply.send(self.set_balloon(target)));
            }
            Command::GuestAgent(reply) => drop(reply.send(self.guest_agent())),
            Command::Shutdown(reply) => {
                drop(reply.send(Ok(())));
                return Some(Exit::Success);
            }
            Command::DisplayInfo(reply) => {
                drop(reply.send(self.display.info(self.server.as_deref())));
            }
            Command::Screenshot { head, reply } => drop(reply.send(self.display.screenshot(head))),
            Command::DisplayStamp(reply) => drop(reply.send(self.display.stamp())),
            Command::DisplayText(reply) => drop(reply.send(self.display.text())),
            Command::Viewer { ticket, reply } => {
                drop(reply.send(self.access().viewer(ticket.as_deref())));
            }
            Command::AddTicket { ticket, reply } => drop(reply.send(self.access().add(ticket))),
            Command::Tickets(reply) => drop(reply.send(self.access().tickets())),
            Command::RevokeTicket { ticket, reply } => {
                drop(reply.send(self.access().revoke(&ticket)));
            }
            Command::Sessions(reply) => drop(reply.send(self.access().sessions())),
            Command::Terminate { session, reply } => {
                drop(reply.send(self.access().terminate(&session)));
            }
            Command::TlsReload(reply) => {
                let reloaded = self.display.reload_certificate();
                if let Ok(info) = &reloaded {
                    self.events.emit(Event::TlsReloaded {
                        subject: info.subject.clone(),
                        expires: info.expires.clone(),
                    });
                }
                drop(reply.send(reloaded));
            }
            Command::Nets(reply) => drop(reply.send(Ok(self.nets()))),
            Command::NetLink { change, reply } => drop(reply.send(self.set_link(change))),
            Command::AddNet { net, reply } => self.add_net(&net, reply),
            Command::NetOpened(opened) => self.net_opened(*opened),
            Command::RemoveNet { net, reply } => drop(reply.send(self.remove_net(&net))),
            Command::NetLimit { change, reply } => drop(reply.send(self.set_limits(&change))),
            Command::Input { events, reply } => {
                self.input(&events);
                drop(reply.send(Ok(())));
            }
            Command::Disks(reply) => drop(reply.send(Ok(self.disks.list()))),
            Command::ResizeDisk { resize, reply } => self.disks.resize(resize, reply),
            Command::AddDisk { disk, reply } => self.add_disk(&disk, reply),
            Command::DiskOpened(opened) => self.disk_opened(*opened),
            Command::RemoveDisk { disk, reply } => drop(reply.send(self.remove_disk(&disk))),
            Command::LimitDisk { limit, reply } => drop(reply.send(self.disks.limit(&limit))),
            Command::Serial(verdict) => return Some(verdict.into()),
            Command::End(exit) => return Some(exit),
        }
        None
    }

    fn access(&self) -> Access<'_> {
        Access {
            server: self.server.as_ref(),
            display: &self.display,
            events: &self.events,
        }
    }

    /// Acts on the last viewer's going; `Some` ends the machine.
    fn no_viewers(&self) -> Option<Exit> {
        // Another one may have come since.
        let (spice, server) = (self.spec.spice.as_ref()?, self.server.as_ref()?);
        if !server.info().sessions.is_empty() {
            return None;
        }
        match spice.on_disconnect {
            OnDisconnect::KeepRunning => None,
            OnDisconnect::PowerButton => {
                let pressed = self.power_button();
                pressed.unwrap_or_else(|error| tracing::warn!("the last viewer has gone: {error}"));
                None
            }
            OnDisconnect::End => Some(Exit::Success),
        }
    }

    fn power_button(&self) -> Result<(), ApiError> {
        let deaf = || {
            ApiError::new(
                ErrorCode::WrongState,
                "the guest does not listen to its power button",
            )
            .hint("it may not have started yet; `vm.shutdown` ends it without asking")
        };
        self.machine.power_button().then_some(()).ok_or_else(deaf)
    }

    fn renew_generation(&self) -> Result<Generation, ApiError> {
        let id = Uuid::new_v4();
        if !self.machine.renew_generation(id) {
            let message = "the machine has no generation id";
            let error = ApiError::new(ErrorCode::WrongState, message);
            return Err(error
                .path("vmgenid")
                .hint("remove \"none\" from its config"));
        }
        let generation = id.to_string();
        self.events.emit(Event::GenerationRenewed {
            generation: generation.clone(),
        });
        Ok(Generation { generation })
    }

    fn input(&self, events: &[InputEvent]) {
        let sink = self.machine.input();
        for event in events {
            match *event {
                InputEvent::Key { key, down } => sink.key(key, down),
                InputEvent::Pointer(event) => sink.pointer(event),
            }
        }
    }

    /// Acts on what the machine reports; `Some` ends it.
    fn notice(&mut self, notice: Notice) -> Option<Exit> {
        match notice {
            Notice::System(SystemEvent::PowerOff) => Some(Exit::Success),
            Notice::System(SystemEvent::Reset) => match self.spec.on_reset {
                OnReset::Reboot => self.reset_or_end(Origin::Guest),
                OnReset::Exit => Some(Exit::GuestReset),
            },
            Notice::System(SystemEvent::Sleep) => {
                // There is no sleeping yet: the guest wakes up at once, as by any wake-up event.
                self.machine.wake();
                self.reset_or_end(Origin::Guest)
            }
            Notice::System(SystemEvent::Panicked) => {
                self.events.emit(Event::Panicked);
                match self.spec.on_panic {
                    OnPanic::Exit => Some(Exit::GuestPanic),
                    OnPanic::Reboot => self.reset_or_end(Origin::Guest),
                }
            }
            Notice::System(SystemEvent::DebugExit(value)) => Some(Exit::Guest(value as u8)),
            Notice::Display => {
                let event = self.display.mode_event();
                event.into_iter().for_each(|event| self.events.emit(event));
                None
            }
            Notice::NoViewers => self.no_viewers(),
            Notice::NetLost { number, reason } => {
                self.net_lost(number, reason);
                None
            }
            Notice::NetJoined { number } => {
                self.net_joined(number);
                None
            }
            Notice::ClockSet => {
                let Offset { offset_ms, step_ms } = self.machine.clock_offset();
                self.events.emit(Event::ClockChanged { offset_ms, step_ms });
                None
            }
            Notice::Slot { port, answer } => {
                self.slot_answered(port, answer);
                None
            }
            Notice::DiskStopped => {
                if self.state == VmState::Running {
                    self.pause();
                    self.events.emit(Event::Paused);
                }
                None
            }
            Notice::Stopped {
                vcpu,
                stop: Stop::TripleFault,
            } => {
                tracing::error!(vcpu, "the guest had a triple fault");
                Some(Exit::GuestReset)
            }
            Notice::Stopped {
                vcpu,
                stop: Stop::Failed { reason },
            } => {
                tracing::error!(vcpu, "{reason}");
                Some(Exit::Internal)
            }
        }
    }

    fn info(&self) -> VmInfo {
        VmInfo {
            name: self.spec.name.clone(),
            uuid: self.spec.uuid.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            state: self.state,
            cpus: self.spec.cpus.into(),
            memory: self.spec.memory,
            generation: self.machine.generation().map(|id| id.to_string()),
            uptime_ms: self.started.elapsed().as_millis() as u64,
            devices: self.devices(),
        }
    }
}
