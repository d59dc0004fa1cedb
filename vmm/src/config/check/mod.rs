//! From what the config says to what will run; a file for each part of the config.

mod balloon;
mod board;
mod boot;
mod channels;
mod devices;
mod disks;
mod display;
mod files;
mod hotplug;
mod memory;
mod names;
mod nets;
mod pipes;
mod plugged;
mod rng;
mod spice;
mod tls;
mod vsock;

use std::collections::BTreeMap;

use super::path::JsonPath;
use super::policy::{LostTicks, PitModel};
use super::problem::{Kind, Problem};
use super::slots::Slots;
use super::spec::MachineSpec;
use super::{Config, Document, Host};

pub(crate) use plugged::Present;

pub(crate) fn check(
    document: &Document,
    config: &Config,
    host: &Host,
) -> Result<MachineSpec, Vec<Problem>> {
    let mut checker = Checker {
        document,
        host,
        problems: Vec::new(),
        ids: BTreeMap::new(),
        slots: Slots::new(),
    };
    let spec = checker.machine(config);
    match spec {
        Some(spec) if checker.problems.is_empty() => Ok(spec),
        _ => Err(checker.problems),
    }
}

struct Checker<'a> {
    document: &'a Document,
    host: &'a Host,
    problems: Vec<Problem>,
    ids: BTreeMap<String, JsonPath>,
    slots: Slots,
}

impl Checker<'_> {
    /// The machine; `None` only if a problem was noted.
    fn machine(&mut self, config: &Config) -> Option<MachineSpec> {
        self.claim_what_is_given(config);
        let name = self.name(config);
        let cpus = self.cpus(config.cpus.unwrap_or(1));
        let memory = config.memory.unwrap_or_default();
        let (memory, ram) = self.memory(&memory, config.balloon.is_some());
        let boot = self.boot(&config.boot);
        let displays = self.displays(config);
        let spice = config.spice.as_ref().and_then(|spice| self.spice(spice));
        let inputs = self.inputs(config);
        let disks = self.disks(&config.disks);
        let uuid = config.uuid.unwrap_or_else(|| self.identity(&name));
        let nets = self.nets(&config.nets, uuid);
        let console = self.channels(config);
        let balloon = config.balloon.as_ref();
        let balloon = balloon.and_then(|balloon| self.balloon(balloon));
        let vsock = config.vsock.as_ref().and_then(|vsock| self.vsock(vsock));
        let rng = config.rng.as_ref().and_then(|rng| self.rng(rng));
        let hotplug = config.hotplug.as_ref();
        let hotplug = hotplug.and_then(|hotplug| self.hotplug(hotplug));
        let serial = self.serial(config);
        let debug_exit = config.debug_exit.and_then(|port| self.debug_exit(port));
        let clock = config.clock.unwrap_or_default();
        let on = config.on.unwrap_or_default();
        let lost_ticks = clock.lost_ticks.unwrap_or_default();
        let mut notes = Vec::new();
        if (lost_ticks, clock.pit) == (LostTicks::Slew, Some(PitModel::Kernel)) {
            let note = "clock.lost_ticks: the kernel's PIT knows no slewing and replays its ticks";
            notes.push(note.to_owned());
        }
        Some(MachineSpec {
            name,
            uuid,
            cpus,
            memory,
            ram,
            boot: boot?,
            displays,
            spice,
            inputs,
            disks,
            nets,
            console,
            vsock,
            balloon,
            rng,
            hotplug,
            serial,
            vmgenid: config.vmgenid.unwrap_or_default(),
            clock_base: clock.base.unwrap_or_default(),
            lost_ticks,
            on_resume: clock.on_resume.unwrap_or_default(),
            pit: clock.pit.unwrap_or_default(),
            debug_exit,
            on_poweroff: on.poweroff.unwrap_or_default(),
            on_reset: on.reset.unwrap_or_default(),
            on_panic: on.panic.unwrap_or_default(),
            notes,
            document: self.document.clone(),
        })
    }

    fn note(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    fn bad(&mut self, path: JsonPath, message: impl Into<String>, hint: impl Into<String>) {
        self.note(Problem::new(Kind::BadValue, path, message).hint(hint));
    }

    fn unsupported(&mut self, path: JsonPath, what: &str) {
        let message = format!("{what}: not supported by this build yet");
        let hint = "remove it to run the machine without";
        self.note(Problem::new(Kind::Unsupported, path, message).hint(hint));
    }
}
