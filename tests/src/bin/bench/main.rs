//! `make bench`: figures next to those of others, on this machine and in one run.
//!
//! A section is a module with a function that prints its table. Without arguments all of them run,
//! else those that are named.

mod disk;
mod load;
mod net;
mod replay;
mod startup;
mod ticks;
mod viewing;

use std::io;
use std::process::ExitCode;

/// A section's name, what it measures, and how.
type Section = (&'static str, &'static str, fn() -> io::Result<()>);

const SECTIONS: &[Section] = &[
    ("startup", "a guest that ends at once", startup::bench),
    (
        "slow-link",
        "a busy screen at 80 ms and 10 Mbit/s",
        viewing::slow_link,
    ),
    ("lan", "a busy screen without a limit", viewing::lan),
    (
        "disk",
        "requests of a disk, and what they cost",
        disk::bench,
    ),
    (
        "net",
        "frames of a network card on a tap, and what they cost",
        net::bench,
    ),
    (
        "ticks",
        "timer ticks of a guest that is held up half of the time",
        ticks::bench,
    ),
    (
        "replay",
        "recorded desktops through this server and the reference (RECORDINGS=folder)",
        replay::bench,
    ),
];

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let known = |name: &String| SECTIONS.iter().any(|(section, ..)| section == name);
    if let Some(unknown) = wanted.iter().find(|name| !known(name)) {
        println!("bench: there is no section {unknown}; there are:");
        for (name, about, _) in SECTIONS {
            println!("  {name:<12} {about}");
        }
        return ExitCode::from(64);
    }
    let mut code = ExitCode::SUCCESS;
    for (name, about, bench) in SECTIONS {
        if !wanted.is_empty() && !wanted.iter().any(|wanted| wanted == name) {
            continue;
        }
        println!("\n== {name}: {about}\n");
        if let Err(error) = bench() {
            println!("bench: {name}: {error}");
            code = ExitCode::FAILURE;
        }
    }
    code
}
