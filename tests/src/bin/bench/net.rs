//! Frames of a network card on a tap, and what they cost, here and under QEMU.
//!
//! The same guest drives the same kind of card on both; the figure is the median of `NET_ROUNDS` rounds (5
//! if nobody says). What comes to the guest is sent as fast as it takes it and no faster: frames that
//! overflow the tap's queue would measure that queue.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step ends the section, with what failed"
)]

use std::io;
use std::path::Path;

use caraway_tests::netns::Netns;
use caraway_tests::ticks::Tsc;
use serde_json::json;

use crate::load::{self, Load, compare};

const MAC: &str = "52:54:00:12:34:56";

/// A row.
struct Row {
    name: &'static str,
    bytes: u64,
    to: To,
}

/// Which way the frames go.
enum To {
    /// To the host; bytes of the segments that are to be cut from each, if any.
    Host { segment: u16 },
    /// To the guest, in bursts, with so many of them ahead of what was received.
    Guest {
        burst: u64,
        window: u64,
        segment: u16,
    },
}

const fn out(name: &'static str, bytes: u64, segment: u16) -> Row {
    let to = To::Host { segment };
    Row { name, bytes, to }
}

const fn into(name: &'static str, bytes: u64, (burst, window): (u64, u64), segment: u16) -> Row {
    let to = To::Guest {
        burst,
        window,
        segment,
    };
    Row { name, bytes, to }
}

/// Of the payload of a segment on an Ethernet.
const SEGMENT: u16 = 1448;

const ROWS: [Row; 7] = [
    out("guest sends, 60 bytes", 60, 0),
    out("guest sends, 1514 bytes", 1514, 0),
    out("guest sends, 64 KiB segments", 65_214, SEGMENT),
    into("guest receives, 60 bytes", 60, (64, 8), 0),
    into("guest receives, 1514 bytes", 1514, (44, 8), 0),
    into("guest receives, 64 KiB segments", 65_214, (4, 8), SEGMENT),
    into("there and back, one at a time", 60, (1, 1), 0),
];

/// Prints the table.
pub fn bench() -> io::Result<()> {
    let rounds = load::rounds("NET_ROUNDS");
    let tsc = Tsc::begin();
    std::thread::sleep(std::time::Duration::from_secs(1));
    let netns = Netns::with_tap("");
    netns.shell(&format!("ip neigh add 10.9.0.2 lladdr {MAC} dev tap0"));
    println!(
        "{:<32} {:>28} {:>28} {:>15}",
        "", "caraway", "QEMU, vhost=off", "caraway/QEMU"
    );
    let titles = ["Mbit/s", "frames/s", "us CPU"];
    let [a, b, c] = titles;
    println!(
        "{:<32} {a:>9} {b:>10} {c:>7} {a:>9} {b:>10} {c:>7} {b:>8} {:>6}",
        "", "CPU"
    );
    for row in &ROWS {
        let [ours, theirs] = compare_row(row, &netns, rounds, &tsc);
        let megabits = |rate: f64| rate * row.bytes as f64 * 8.0 / 1e6;
        println!(
            "{:<32} {:>9.0} {:>10.0} {:>7.2} {:>9.0} {:>10.0} {:>7.2} {:>8.2} {:>6.2}",
            row.name,
            megabits(ours.rate),
            ours.rate,
            ours.cpu,
            megabits(theirs.rate),
            theirs.rate,
            theirs.cpu,
            ours.rate / theirs.rate,
            ours.cpu / theirs.cpu,
        );
    }
    println!("\nCPU is the monitor's, beside its vCPU, for each frame. None was lost.");
    match Path::new("/dev/vhost-net").exists() {
        true => println!("This host has /dev/vhost-net; neither used it."),
        false => println!("This host has no /dev/vhost-net."),
    }
    Ok(())
}

fn compare_row(row: &Row, netns: &Netns, rounds: usize, tsc: &Tsc) -> [load::Cost; 2] {
    let bytes = row.bytes;
    let load = format!("bytes={bytes} ms={}", load::RUN_MS);
    let mut flood = vec![bytes.to_string()];
    let (cmdline, is_flooded) = match row.to {
        To::Host { segment } => (format!("test=net-send {load} segment={segment}"), false),
        To::Guest {
            burst,
            window,
            segment,
        } => {
            flood.extend([burst.to_string(), window.to_string()]);
            flood.extend(Some(segment.to_string()).filter(|_| segment > 0));
            (format!("test=net-receive {load} credit={burst}"), true)
        }
    };
    let beside = || {
        let mut command = netns.command("/usr/bin/python3");
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/clients/net_flood.py"));
        command.args(&flood);
        command
    };
    let load = Load {
        cmdline,
        devices: json!({ "nets": [{ "tap": "tap0", "mac": MAC }] }),
        qemu: vec![
            "-netdev".to_owned(),
            "tap,id=n,ifname=tap0,script=no,downscript=no,vhost=off".to_owned(),
            "-device".to_owned(),
            format!("virtio-net-pci,netdev=n,mac={MAC},romfile="),
        ],
        command: &|program| netns.command(program),
        beside: is_flooded.then_some(&beside),
    };
    compare(&load, rounds, tsc)
}
