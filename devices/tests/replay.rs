//! Two minutes of a guest that counts the interrupts of the PIT and the RTC while its vCPU stands
//! still at random for half of the time, on a clock that is turned by hand.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use caraway_devices::rtc::RtcBase;
use caraway_devices::{
    Clock, Delivery, FakeClock, FakeTimer, Nanos, Pit, Registers, Rtc, TickCounters, TickLine,
    TickPolicy, TimerClient,
};

const MICROSECOND: Nanos = 1_000;
const MS: Nanos = 1_000_000;
const SECOND: Nanos = 1_000_000_000;

/// An interrupt controller that keeps one edge until the vCPU takes it.
#[derive(Default)]
struct Controller {
    latched: AtomicBool,
}

impl TickLine for Controller {
    fn raise(&self) -> Delivery {
        if self.latched.swap(true, Ordering::Relaxed) {
            Delivery::Coalesced
        } else {
            Delivery::Delivered
        }
    }

    fn lower(&self) {}

    fn reports_acknowledgements(&self) -> bool {
        true
    }
}

/// A device whose ticks are counted.
trait Ticker: TimerClient {
    /// What the guest's handler does at the device.
    fn handle(&mut self);
    /// The end of interrupt is known.
    fn ended(&mut self);
    fn counters(&mut self) -> TickCounters;
}

impl Ticker for Pit {
    fn handle(&mut self) {}

    fn ended(&mut self) {
        self.acknowledged();
    }

    fn counters(&mut self) -> TickCounters {
        Pit::counters(self)
    }
}

impl Ticker for Rtc {
    fn handle(&mut self) {
        self.write(0, &[0x0c]);
        self.read(1, &mut [0]);
    }

    fn ended(&mut self) {}

    fn counters(&mut self) -> TickCounters {
        Rtc::counters(self)
    }
}

/// A sequence of numbers that are no better than a test needs.
struct Numbers(u64);

impl Numbers {
    /// One of `from` to `to`, without the latter.
    fn between(&mut self, from: u64, to: u64) -> u64 {
        let next = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = next.wrapping_add(1_442_695_040_888_963_407);
        from + (self.0 >> 33) % (to - from)
    }
}

/// Something that happens at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// The device's thread hears that its timer rang.
    Ring,
    /// The vCPU's thread stops or goes on.
    Switch,
    /// The guest's handler is at its end.
    HandlerEnds,
    /// The device's thread hears of an end of interrupt.
    Acknowledgement,
    /// The end of the measurement.
    End,
}

/// The guest, its host, and the device.
struct World<'a> {
    parts: Parts,
    device: &'a mut dyn Ticker,
    numbers: Numbers,
    /// How long the guest's handler takes.
    handler: Nanos,
    runs: bool,
    switch: Option<Nanos>,
    /// The timer's setting, and when the device's thread will hear of it.
    ring: Option<(Nanos, Nanos)>,
    /// How much of the handler is still to be done, while there is one.
    handling: Option<Nanos>,
    acknowledgements: VecDeque<Nanos>,
    taken: u64,
    /// When the ticks of the last second were taken, and the most that there were in one.
    recent: VecDeque<Nanos>,
    busiest: usize,
}

impl World<'_> {
    fn now(&self) -> Nanos {
        self.parts.clock.now()
    }

    /// Lets `length` pass, with the vCPU stopped for half of it or not at all.
    fn pass(&mut self, length: Nanos, stops: bool) {
        let end = self.now() + length;
        self.runs = true;
        self.switch = stops.then(|| self.now() + 1);
        loop {
            self.look();
            let (at, event) = self.next(end);
            let passed = at.saturating_sub(self.now());
            self.parts.clock.advance(passed);
            if let Some(rest) = self.handling.as_mut().filter(|_| self.runs) {
                *rest -= passed;
            }
            match event {
                Event::Ring => {
                    self.ring = None;
                    self.device.expired();
                }
                Event::Switch => {
                    self.runs = !self.runs;
                    self.switch = Some(at + self.numbers.between(MS, 200 * MS));
                }
                Event::HandlerEnds => {
                    self.handling = None;
                    let latency = self.numbers.between(5 * MICROSECOND, 200 * MICROSECOND);
                    self.acknowledgements.push_back(at + latency);
                }
                Event::Acknowledgement => {
                    self.acknowledgements.pop_front();
                    self.device.ended();
                }
                Event::End => return,
            }
        }
    }

    /// The vCPU takes an interrupt if it can, and the host sees the timer's setting.
    fn look(&mut self) {
        if self.runs
            && self.handling.is_none()
            && self.parts.controller.latched.swap(false, Ordering::Relaxed)
        {
            self.take();
        }
        let deadline = self.parts.timer.deadline();
        if self.ring.map(|(deadline, _)| deadline) != deadline {
            // Now and then the device's thread is late itself.
            let late = match self.numbers.between(0, 500) {
                0 if self.switch.is_some() => self.numbers.between(MS, 30 * MS),
                _ => self.numbers.between(0, 100 * MICROSECOND),
            };
            self.ring = deadline.map(|at| (at, at + late));
        }
    }

    fn take(&mut self) {
        self.taken += 1;
        self.handling = Some(self.handler);
        self.device.handle();
        let now = self.now();
        self.recent.push_back(now);
        while self.recent.front().is_some_and(|at| at + SECOND <= now) {
            self.recent.pop_front();
        }
        self.busiest = self.busiest.max(self.recent.len());
    }

    fn next(&self, end: Nanos) -> (Nanos, Event) {
        let now = self.now();
        let handler = self.handling.filter(|_| self.runs).map(|rest| now + rest);
        let acknowledgement = self.acknowledgements.front().copied();
        let events = [
            self.ring.map(|(_, at)| (at, Event::Ring)),
            self.switch.map(|at| (at, Event::Switch)),
            handler.map(|at| (at, Event::HandlerEnds)),
            acknowledgement.map(|at| (at, Event::Acknowledgement)),
            Some((end, Event::End)),
        ];
        events.into_iter().flatten().min().unwrap()
    }
}

/// What came of a run.
struct Outcome {
    counters: TickCounters,
    /// Ticks that were due by the frequency.
    due: u64,
    taken: u64,
    /// The most ticks that were taken in any second.
    busiest: u64,
}

/// Clock, timer and line of a device.
struct Parts {
    clock: Arc<FakeClock>,
    timer: Arc<FakeTimer>,
    controller: Arc<Controller>,
}

impl Parts {
    fn new() -> Self {
        Self {
            clock: FakeClock::new(SECOND),
            timer: FakeTimer::new(),
            controller: Arc::default(),
        }
    }

    /// Two minutes at half speed, and then ten seconds to catch up.
    fn run(self, device: &mut dyn Ticker, handler: Nanos, due: impl Fn(Nanos) -> u64) -> Outcome {
        let mut world = World {
            parts: self,
            device,
            numbers: Numbers(1),
            handler,
            runs: true,
            switch: None,
            ring: None,
            handling: None,
            acknowledgements: VecDeque::new(),
            taken: 0,
            recent: VecDeque::new(),
            busiest: 0,
        };
        // So that the device knows that this guest acknowledges.
        world.pass(SECOND, false);
        world.pass(120 * SECOND, true);
        world.pass(10 * SECOND, false);
        Outcome {
            counters: world.device.counters(),
            due: due(world.now()),
            taken: world.taken,
            busiest: world.busiest as u64,
        }
    }
}

const HANDLER: Nanos = 30 * MICROSECOND;

/// A guest with the PIT at `count` clocks a tick.
fn pit(policy: TickPolicy, count: u64, handler: Nanos) -> Outcome {
    let parts = Parts::new();
    let (clock, timer) = (parts.clock.clone(), parts.timer.clone());
    let mut pit = Pit::new(clock, timer, parts.controller.clone(), policy);
    pit.write(3, &[0x34]);
    for byte in (count as u16).to_le_bytes() {
        pit.write(0, &[byte]);
    }
    let clocks = |now: Nanos| (u128::from(now) * 1_193_182 / u128::from(SECOND)) as u64;
    // The count is loaded by the clock after it was written.
    parts.run(&mut pit, handler, |now| (clocks(now) - 1) / count)
}

/// A guest with the RTC at 1,024 Hz.
fn rtc(policy: TickPolicy, handler: Nanos) -> Outcome {
    let parts = Parts::new();
    let (clock, timer) = (parts.clock.clone(), parts.timer.clone());
    let mut rtc = Rtc::new(clock, timer, parts.controller.clone(), RtcBase::Utc, policy);
    for (register, value) in [(0x0a, 0x26), (0x0b, 0x42)] {
        rtc.write(0, &[register]);
        rtc.write(1, &[value]);
    }
    let ticks = |now: Nanos| (u128::from(now) * 1_024 / u128::from(SECOND)) as u64;
    parts.run(&mut rtc, handler, ticks)
}

/// The four guests at their rates.
fn guests(policy: TickPolicy) -> [(&'static str, Outcome); 4] {
    let guests = [
        ("PIT at 18.2 Hz", pit(policy, 65_536, HANDLER)),
        ("PIT at 100 Hz", pit(policy, 11_932, HANDLER)),
        ("PIT at 1,000 Hz", pit(policy, 1_193, HANDLER)),
        ("RTC at 1,024 Hz", rtc(policy, HANDLER)),
    ];
    for (
        name,
        Outcome {
            counters, taken, ..
        },
    ) in &guests
    {
        println!("{policy:?}, {name}: {taken} taken, {counters:?}");
    }
    guests
}

fn assert_every_tick_taken(policy: TickPolicy) {
    for (name, outcome) in guests(policy) {
        assert_eq!(outcome.counters.due, outcome.due, "{name}");
        assert_eq!(outcome.counters.dropped, 0, "{name}");
        assert!(outcome.counters.replayed > outcome.due / 10, "{name}");
        let missing = outcome.due.abs_diff(outcome.taken);
        assert!(missing <= 1, "{name}: {missing} ticks");
    }
}

#[test]
fn replay_gives_every_tick_to_a_guest_that_stands_still_half_the_time() {
    assert_every_tick_taken(TickPolicy::Replay);
}

#[test]
fn slew_gives_every_tick_to_a_guest_that_stands_still_half_the_time() {
    assert_every_tick_taken(TickPolicy::Slew);
}

#[test]
fn discard_loses_what_came_while_the_guest_stood_still() {
    for (name, outcome) in guests(TickPolicy::Discard) {
        assert_eq!(outcome.counters.due, outcome.due, "{name}");
        assert!(outcome.counters.dropped > outcome.due / 10, "{name}");
        assert_eq!(outcome.counters.replayed, 0, "{name}");
        let given = outcome.due - outcome.counters.dropped;
        assert!(given.abs_diff(outcome.taken) <= 1, "{name}: {given} given");
    }
}

#[test]
fn catching_up_leaves_the_guest_time_for_its_main_program() {
    // A handler that takes 3 ms of a tick of 10 ms, and half of the ticks late.
    let handler = 3 * MS;
    let outcome = pit(TickPolicy::Replay, 11_932, handler);

    let in_handlers = outcome.busiest * handler;
    assert!(in_handlers < SECOND * 4 / 5, "{in_handlers} ns of a second");
    assert!(outcome.due.abs_diff(outcome.taken) <= 1);
}
