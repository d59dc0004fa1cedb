//! Time that stays right: a guest that counts timer interrupts has all of them in the end, though
//! its vCPU was held up; what it does to the timers does the host no harm; pauses are accounted for.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use std::time::Duration;

use caraway_tests::guest;
use caraway_tests::hold::{self, HeldUp};
use caraway_tests::ticks::{Reports, Ticking, Tsc, WATCHED};
use caraway_tests::vm::{Vm, bare_config};
use caraway_tests::wait::{PATIENCE, poll, wait_for};
use serde_json::json;

/// How long a vCPU is held up.
const LOAD: Duration = Duration::from_secs(6);
/// 18.2, 100 and 1,000 Hz of the PIT, 1,024 Hz of the RTC; each with the way that its interrupts go.
const TIMERS: [(Ticking, &str); 4] = [
    (Ticking::Pit(0), "pic"),
    (Ticking::Pit(11_932), "ioapic"),
    (Ticking::Pit(1_193), "pic"),
    (Ticking::Rtc(6), "ioapic"),
];

/// A guest that counts.
struct Counting {
    vm: Vm,
    ticking: Ticking,
}

impl Counting {
    fn start((ticking, route): (Ticking, &str), lost_ticks: &str, more: &str) -> Self {
        let clock = json!({ "clock": { "lost_ticks": lost_ticks } });
        let vm = Vm::bare(&format!("{} {more}", ticking.cmdline(route)), clock);
        vm.wait_for_serial("ticks from ");
        Self { vm, ticking }
    }

    fn vcpu(&self) -> i32 {
        hold::threads(self.vm.pid(), &["vcpu0"])[0]
    }

    fn metric(&self, name: &str) -> u64 {
        metric(&self.vm, name, self.ticking.device())
    }

    /// How many more ticks the guest had taken than were due, at each report from now on.
    fn excess(&self, tsc: &Tsc) -> Vec<i64> {
        let seen = self.reports().all.len();
        std::thread::sleep(WATCHED);
        self.reports().excess(self.ticking, tsc.hz())[seen..].to_vec()
    }

    /// How many more ticks the guest had taken than were due once it has caught up. A busy host may
    /// make some of the reports early.
    fn caught_up(&self, tsc: &Tsc) -> i64 {
        wait_for("the end of the backlog", || {
            (self.metric("ticks_backlog") == 0).then_some(())
        });
        *self.excess(tsc).iter().max().expect("reports")
    }

    fn reports(&self) -> Reports {
        wait_for("the first whole line of ticks", || {
            Reports::of(&self.vm.serial())
        })
    }
}

fn metric(vm: &Vm, name: &str, device: &str) -> u64 {
    let text = String::from_utf8(vm.api().get("metrics")).unwrap();
    let start = format!("caraway_{name}{{device=\"{device}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&start));
    line.unwrap_or_else(|| panic!("no {start:?} in {text}"))
        .parse()
        .unwrap()
}

/// Guests for all timers under `lost_ticks`, that have counted with their vCPUs held up for half of
/// the time.
fn under_load(lost_ticks: &str, more: &str) -> [Counting; 4] {
    let guests = TIMERS.map(|timer| Counting::start(timer, lost_ticks, more));
    let loads: Vec<_> = (1..)
        .zip(&guests)
        .map(|(seed, guest)| HeldUp::begin(guest.vcpu(), seed))
        .collect();
    std::thread::sleep(LOAD);
    for load in loads {
        let share = load.end();
        assert!(
            (0.3..0.7).contains(&share),
            "held up for {share} of the time"
        );
    }
    guests
}

/// Fails unless every guest has all ticks, to within one, once it has caught up.
fn assert_all_are_there(guests: &[Counting], tsc: &Tsc) {
    for guest in guests {
        let excess = guest.caught_up(tsc);
        assert!(excess.abs() <= 1, "{:?}: {excess}", guest.ticking);
        assert!(
            guest.metric("ticks_replayed_total") > 0,
            "{:?}",
            guest.ticking
        );
    }
}

#[test]
fn replayed_ticks_are_all_there_in_the_end() {
    let tsc = Tsc::begin();

    let guests = under_load("replay", "");

    assert_all_are_there(&guests, &tsc);
}

#[test]
fn slewed_ticks_are_all_there_in_the_end() {
    let tsc = Tsc::begin();

    let guests = under_load("slew", "");

    assert_all_are_there(&guests, &tsc);
}

#[test]
fn discarded_ticks_are_exactly_those_that_are_missing() {
    let tsc = Tsc::begin();
    std::thread::sleep(Duration::from_millis(100));
    let length = (LOAD.as_secs_f64() + 1.0) * tsc.hz();

    let guests = under_load("discard", &format!("hold tries=1 for={length:.0}"));

    for guest in &guests {
        guest.vm.wait_for_serial("ok ticks\r\n");
        let reports = guest.reports();
        let &[running, stopped] = reports.all.last_chunk().unwrap();
        let taken = stopped.taken as i64;
        let [due, dropped] =
            ["ticks_due_total", "ticks_dropped_total"].map(|name| guest.metric(name) as i64);
        let due_by = |report| reports.due(report, guest.ticking, tsc.hz());
        let ([least, _], [_, most]) = (due_by(running), due_by(stopped));
        let what = format!(
            "{:?}: {taken} taken of {due} due, {least} to {most} by the clock; {dropped} dropped",
            guest.ticking
        );
        assert!(dropped > 0, "{what}");
        assert!((taken - (due - dropped)).abs() <= 1, "{what}");
        assert!((least - 1..=most + 1).contains(&due), "{what}");
    }
}

#[test]
fn the_bios_count_of_ticks_is_right_in_the_end() {
    let tsc = Tsc::begin();
    let config = json!({
        "memory": "64M",
        "boot": { "firmware": "seabios" },
        "disks": [
            { "path": guest::BIOS_TICKS, "format": "raw", "readonly": true }
        ],
        // Its count begins anew at midnight.
        "clock": { "base": "2006-06-17T12:00:00" },
    });
    let patience = bios_load() + 4 * PATIENCE;
    let patience = format!("{}s", patience.as_secs());
    let vm = Vm::start_with(&config, &["--timeout", &patience]);
    // Firmware is slow where KVM has to interpret it, the more so on a busy host.
    let booted = || vm.serial().contains("ticks from ").then_some(());
    poll(3 * PATIENCE, booted).expect("a booted guest");
    let guest = Counting {
        vm,
        ticking: Ticking::Pit(0),
    };

    // Firmware sets its clock by the RTC, then goes about without interrupts for a while.
    let before = guest.caught_up(&tsc);

    let load = HeldUp::begin(guest.vcpu(), 5);
    std::thread::sleep(bios_load());
    load.end();

    let after = guest.caught_up(&tsc);
    assert!(guest.metric("ticks_replayed_total") > 0);
    assert!((after - before).abs() <= 2, "{before}, then {after}");
}

/// How long the BIOS's vCPU is held up: ten minutes, by hand, with `CARAWAY_BIOS_LOAD=600`.
fn bios_load() -> Duration {
    let asked = std::env::var("CARAWAY_BIOS_LOAD").ok();
    let seconds = asked.map(|text| text.parse().expect("seconds"));
    Duration::from_secs(seconds.unwrap_or(10))
}

#[test]
fn only_the_vcpu_is_held_up() {
    let guest = Counting::start(TIMERS[0], "replay", "");
    let vcpu = guest.vcpu();
    let pid = guest.vm.pid();

    let holder = std::thread::spawn(move || hold::hold(vcpu, Duration::from_millis(500)));
    wait_for("a held vCPU", || {
        (hold::state(pid, vcpu) == Some('t')).then_some(())
    });
    let others = hold::threads(pid, &[""]);
    let held: Vec<_> = others
        .into_iter()
        .filter(|&tid| hold::state(pid, tid) == Some('t'))
        .collect();
    let answer = guest.vm.api().json("vm.info");
    holder.join().unwrap();

    assert_eq!(held, [vcpu]);
    assert_eq!(answer["state"], "running");
}

#[test]
fn what_a_guest_does_to_its_timers_harms_neither_the_host_nor_its_time() {
    let tsc = Tsc::begin();
    let vm = Vm::bare(
        "test=timer-abuse,silence,ticks source=rtc code=6 route=ioapic",
        json!({}),
    );
    vm.wait_for_serial("silence begins\r\n");
    // The guest spins meanwhile: its thread is not what the timers cost.
    let busy = |pid| {
        let others = hold::threads(pid, &["devices"]);
        others
            .into_iter()
            .map(|tid| hold::cpu_time(pid, tid))
            .sum::<Duration>()
    };
    let (before, began) = (busy(vm.pid()), std::time::Instant::now());
    vm.wait_for_serial("silence ends\r\n");
    let share = (busy(vm.pid()) - before).as_secs_f64() / began.elapsed().as_secs_f64();
    vm.wait_for_serial("ticks from ");
    let guest = Counting {
        vm,
        ticking: Ticking::Rtc(6),
    };
    let excess = guest.excess(&tsc);

    assert!(
        share < 0.5,
        "the devices thread was busy for {share} of the time"
    );
    assert!(excess.iter().max().unwrap().abs() <= 1, "{excess:?}");
}

#[test]
fn a_guest_that_sets_its_clock_is_heard_of() {
    let vm = Vm::bare(
        "test=set-clock hold",
        json!({ "clock": { "base": "2006-06-17T16:01:21" } }),
    );
    vm.wait_for_serial("ok set-clock\r\n");

    let changed = wait_for("the event", || {
        let events = vm.api().events(Duration::from_millis(300)).unwrap();
        let line = events
            .lines()
            .find(|line| line.contains("\"clock.changed\""))?;
        serde_json::from_str::<serde_json::Value>(line).ok()
    });

    // To the last hours of 2099.
    let years = changed["step_ms"].as_i64().unwrap() / 1000 / 86_400 / 365;
    assert_eq!(years, 93, "{changed}");
}

#[test]
fn a_pause_is_told_of_with_its_length() {
    let arguments = ["--longer-pauses", "10m"];
    let vm = Vm::start_with(&bare_config("hold"), &arguments);
    wait_for("the API", || vm.api().ask("GET", "vm.info", "").ok());

    vm.api().put("vm.pause", "");
    vm.api().put("vm.resume?clock=continue", "");

    let events = vm.api().events(Duration::from_millis(500)).unwrap();
    let line = events
        .lines()
        .find(|line| line.contains("\"vm.resumed\""))
        .unwrap();
    let resumed: serde_json::Value = serde_json::from_str(line).unwrap();
    let paused = resumed["paused_ms"].as_u64().unwrap();
    assert!((600_000..630_000).contains(&paused), "{resumed}");
    assert_eq!(resumed["clock"], "continue");
}
