//! The devices whose interrupts guests count, PIT and RTC: how they hear of what became of their
//! ticks, and who hears of them.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use caraway_devices::rtc::{self, FirmwareFacts, RtcBase};
use caraway_devices::{
    BusDevice, Clock, ClockChanged, ClockSink, ControlPortB, Lifecycle, Pit, Rtc, TickCounters,
    TickLine, TickPolicy, pit,
};
use parking_lot::Mutex;
use vmm_sys_util::eventfd::EventFd;

use super::board::{BoardError, Ports, Timed};
use super::event_loop::{Keep, Source};
use super::notices::{Notice, Notices};
use crate::kvm::{KernelPit, KvmError, TickGsi};
use crate::metrics::Metrics;

/// What they are made from.
pub struct TickerParts {
    /// Which PIT.
    pub pit: PitParts,
    /// The RTC's line.
    pub rtc_line: Arc<dyn TickLine>,
    /// What becomes of ticks that the guest could not take.
    pub policy: TickPolicy,
    /// What the RTC shows at the start.
    pub rtc_base: RtcBase,
}

/// Which PIT.
pub enum PitParts {
    /// Ours.
    Ours {
        /// Its line.
        line: Arc<dyn TickLine>,
        /// Readable at each end of its interrupt.
        ended: EventFd,
    },
    /// The kernel's.
    Kernel(KernelPit),
}

impl PitParts {
    /// Ours, on the kernel's interrupt controllers.
    ///
    /// # Errors
    /// [`KvmError::Call`].
    pub fn ours(vm: Arc<kvm_ioctls::VmFd>) -> Result<Self, KvmError> {
        let (line, ended) = TickGsi::with_reports(vm, pit::GSI)?;
        let line = Arc::new(line);
        Ok(Self::Ours { line, ended })
    }
}

/// The devices.
pub struct Tickers {
    rtc: Arc<Mutex<Rtc>>,
    /// Ours, if it is not the kernel's.
    pit: Option<Arc<Mutex<Pit>>>,
    kernel_pit: Option<Arc<Mutex<KernelPit>>>,
    offset: Arc<Mutex<Offset>>,
}

impl Tickers {
    /// Makes them and puts them at their ports.
    ///
    /// # Errors
    /// [`BoardError`].
    pub(super) fn new(
        parts: TickerParts,
        clock: &Arc<dyn Clock>,
        facts: &FirmwareFacts,
        timed: &mut Timed<'_>,
        ports: &Ports<'_>,
    ) -> Result<Self, BoardError> {
        let timer = timed.timer("the RTC")?;
        let rtc = Arc::new(Mutex::new(Rtc::new(
            Arc::clone(clock),
            timer.clone(),
            parts.rtc_line,
            parts.rtc_base,
            parts.policy,
        )));
        rtc.lock().describe(facts);
        timed.serve(&timer, &rtc);
        ports.insert("the RTC", rtc::PORT.into(), rtc::PORTS.into(), rtc.clone())?;

        let (mut ours, mut kernels) = (None, None);
        match parts.pit {
            PitParts::Ours { line, ended } => {
                let timer = timed.timer("the PIT")?;
                let pit = Pit::new(Arc::clone(clock), timer.clone(), line, parts.policy);
                let pit = Arc::new(Mutex::new(pit));
                timed.serve(&timer, &pit);
                timed.sources.push(on_end(ended, Arc::clone(&pit)));
                let device: Arc<dyn BusDevice> = pit.clone();
                ports.insert("the PIT", pit::PORT.into(), pit::PORTS.into(), device)?;
                let control = Arc::new(ControlPortB(Arc::clone(&pit)));
                ports.insert("port 0x61", pit::CONTROL_PORT_B.into(), 1, control)?;
                ours = Some(pit);
            }
            PitParts::Kernel(pit) => kernels = Some(Arc::new(Mutex::new(pit))),
        }
        Ok(Self {
            rtc,
            pit: ours,
            kernel_pit: kernels,
            offset: Arc::default(),
        })
    }

    /// Tells `notices` whenever the guest sets its clock.
    pub(super) fn report_to(&self, notices: &Arc<Notices>) {
        let sink = GuestSetClock {
            offset: Arc::clone(&self.offset),
            pit: self.pit.clone(),
            notices: Arc::clone(notices),
        };
        self.rtc.lock().report_to(Arc::new(sink));
    }

    /// What the guest's clock was set to, and since when.
    #[must_use]
    pub fn offset(&self) -> Offset {
        let mut offset = self.offset.lock();
        let told = *offset;
        offset.step_ms = 0;
        told
    }

    /// All that has state.
    pub fn lifecycles(&self) -> impl Iterator<Item = Arc<dyn Lifecycle>> {
        let rtc: Arc<dyn Lifecycle> = self.rtc.clone();
        let ours = self.pit.clone().map(|pit| pit as Arc<dyn Lifecycle>);
        let kernels = self.kernel_pit.clone();
        let kernels = kernels.map(|pit| pit as Arc<dyn Lifecycle>);
        [Some(rtc), ours, kernels].into_iter().flatten()
    }

    /// Shows what became of their ticks. The kernel does not tell of its own.
    pub fn export(&self, metrics: &Metrics) {
        let rtc = Arc::clone(&self.rtc);
        export(metrics, "rtc", move || rtc.lock().counters());
        if let Some(pit) = self.pit.clone() {
            export(metrics, "pit", move || pit.lock().counters());
        }
    }
}

fn on_end(ended: EventFd, pit: Arc<Mutex<Pit>>) -> Source {
    Source::new(ended.as_raw_fd(), move || {
        // Quiet it first: an end that comes in between is told of again.
        let _ = ended.read();
        pit.lock().acknowledged();
        Keep::Yes
    })
}

/// How far the guest's clock is from the host's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offset {
    /// Milliseconds that it is ahead of the host's UTC; negative if behind.
    pub offset_ms: i64,
    /// By how many of these the guest moved it since this was asked last.
    pub step_ms: i64,
}

struct GuestSetClock {
    offset: Arc<Mutex<Offset>>,
    pit: Option<Arc<Mutex<Pit>>>,
    notices: Arc<Notices>,
}

impl ClockSink for GuestSetClock {
    fn clock_changed(&self, change: ClockChanged) {
        let mut offset = self.offset.lock();
        offset.offset_ms = millis(change.offset);
        offset.step_ms = offset.step_ms.saturating_add(millis(change.step));
        drop(offset);
        // A guest that sets its clock knows the time: it does not want the old ticks too.
        if let Some(pit) = &self.pit {
            pit.lock().forget_lost_ticks();
        }
        self.notices.post(Notice::ClockSet);
    }
}

fn millis(nanos: i128) -> i64 {
    let millis = nanos / 1_000_000;
    i64::try_from(millis).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })
}

/// One number of [`TickCounters`]: its name, what it is, and whether it only grows.
type Number = (&'static str, &'static str, bool, fn(&TickCounters) -> u64);

const NUMBERS: [Number; 7] = [
    (
        "ticks_due_total",
        "Timer ticks whose time came.",
        true,
        |c| c.due,
    ),
    (
        "ticks_delivered_total",
        "Timer ticks that the guest took.",
        true,
        |c| c.delivered,
    ),
    (
        "ticks_coalesced_total",
        "Timer ticks that came while the guest had not taken the one before.",
        true,
        |c| c.coalesced,
    ),
    (
        "ticks_replayed_total",
        "Timer ticks that the guest took later than at their own time.",
        true,
        |c| c.replayed,
    ),
    (
        "ticks_dropped_total",
        "Timer ticks that the guest never gets.",
        true,
        |c| c.dropped,
    ),
    (
        "ticks_backlog",
        "Timer ticks that wait to be replayed.",
        false,
        |c| c.backlog,
    ),
    (
        "tick_lateness_max_nanoseconds",
        "The longest that a timer tick came after its time.",
        false,
        |c| c.largest_lateness,
    ),
];

fn export(
    metrics: &Metrics,
    device: &str,
    counters: impl Fn() -> TickCounters + Clone + Send + Sync + 'static,
) {
    let labels = [("device", device)];
    for (name, help, grows, number) in NUMBERS {
        let counters = counters.clone();
        let probe = move || number(&counters());
        if grows {
            metrics.counter_of(name, help, &labels, probe);
        } else {
            metrics.gauge_of(name, help, &labels, probe);
        }
    }
}
