//! How a busy screen is to look at and to type at, next to QEMU with spice-server: the same guest,
//! the same client, one after the other.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;
use std::time::Duration;

use caraway_tests::latency::{KeyToDraw, PYTHON};
use caraway_tests::link::{Link, SERVER, Shape};
use caraway_tests::process::cpu_beside_guest;
use caraway_tests::qemu::{self, Qemu};
use caraway_tests::vm::{Vm, busy_config, caraway};

/// Keys pressed at each.
const SLOW_LINK_KEYS: usize = 60;
const LAN_KEYS: usize = 40;

/// Where programs run, by the command that starts them.
struct Place<'a> {
    server: &'a dyn Fn(&str) -> Command,
    client: &'a dyn Fn(&str) -> Command,
}

/// What a client saw of a server, and what that took.
struct Row {
    seen: KeyToDraw,
    cpu: Duration,
}

/// Key to draw on a link that is full.
pub fn slow_link() -> io::Result<()> {
    let link = Link::new(Shape::WAN);
    let place = Place {
        server: &|program| link.at_server(program),
        client: &|program| link.at_client(program),
    };
    let size = (640, 480);
    let [ours, theirs] = compare(&place, SERVER, size, 20, SLOW_LINK_KEYS)?;
    println!(
        "640x480, noise at 20 pictures a second, link by {}:",
        link.kind()
    );
    print(&ours, &theirs, size);
    let bound = Shape::WAN.round_trip() + Duration::from_millis(100);
    println!("{:<10} {:>10} {:>7.0} ms", "goal", "", millis(bound));
    Ok(())
}

/// Pictures a second and what each costs.
pub fn lan() -> io::Result<()> {
    let place = Place {
        server: &|program| Command::new(program),
        client: &|program| Command::new(program),
    };
    for (fps, about) in [(10, "noise at 10 pictures a second"), (0, "still")] {
        let size = (1920, 1080);
        let [ours, theirs] = compare(&place, Ipv4Addr::LOCALHOST, size, fps, LAN_KEYS)?;
        println!("1920x1080, {about}:");
        print(&ours, &theirs, size);
    }
    Ok(())
}

fn compare(
    place: &Place,
    address: Ipv4Addr,
    (width, height): (u32, u32),
    fps: u32,
    keys: usize,
) -> io::Result<[Row; 2]> {
    let options = format!("width={width} height={height} fps={fps}");
    let client = || (place.client)(PYTHON);

    let spice = SocketAddr::from((address, free_port()?));
    let config = busy_config(&options, &spice.to_string());
    let program = caraway();
    let program = program
        .to_str()
        .ok_or_else(|| io::Error::other("a path that is no text"))?;
    let vm = Vm::start_by((place.server)(program), &config, &["--timeout", "600s"]);
    vm.wait_for_serial("busy ");
    let ours = watch(vm.pid(), || KeyToDraw::measure(client(), spice, keys))?;
    drop(vm);

    let spice = SocketAddr::from((address, free_port()?));
    let cmdline = format!("test=busy {options}");
    let mut qemu = Qemu::bare((place.server)(qemu::PROGRAM), &cmdline, spice, "busy ");
    let theirs = watch(qemu.pid(), || KeyToDraw::measure(client(), spice, keys))?;
    if let Some(fate) = qemu.fate() {
        println!("QEMU ended before its time: {fate}");
    }
    Ok([ours, theirs])
}

/// A port that is free in this namespace, and surely in a new one.
pub fn free_port() -> io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}

fn watch(server: u32, measure: impl FnOnce() -> KeyToDraw) -> io::Result<Row> {
    let before = cpu_beside_guest(server)?;
    let seen = measure();
    let cpu = cpu_beside_guest(server)?.saturating_sub(before);
    Ok(Row { seen, cpu })
}

fn print(ours: &Row, theirs: &Row, size: (u32, u32)) {
    println!(
        "{:<10} {:>10} {:>10} {:>12} {:>12} {:>14}",
        "", "p50", "p95", "Mbit/s", "pictures/s", "CPU a picture"
    );
    for (name, row) in [("caraway", ours), ("QEMU", theirs)] {
        let seen = &row.seen;
        println!(
            "{name:<10} {:>10} {:>10} {:>12.1} {:>12.1} {:>11.1} ms",
            delay(seen.quantile(0.5)),
            delay(seen.quantile(0.95)),
            seen.rate() / 1e6,
            seen.pictures(size),
            // The client settles before it measures, and the server works for it then, too.
            millis(row.cpu) / (seen.pictures(size) * seen.connected().as_secs_f64()),
        );
    }
    let ratio =
        |part| ours.seen.quantile(part).as_secs_f64() / theirs.seen.quantile(part).as_secs_f64();
    println!("{:<10} {:>10.3} {:>10.3}", "ratio", ratio(0.5), ratio(0.95));
}

/// A key's time; the longest stands for a key that never showed.
fn delay(time: Duration) -> String {
    match time {
        Duration::MAX => "never".to_owned(),
        time => format!("{:.0} ms", millis(time)),
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
