//! A link between two network namespaces with the delay, rate and queue of a wide area network.
//!
//! `shaper --delay-us N --rate-bps N --limit N` makes the namespaces, says where they are on one
//! line (`KIND SERVER CLIENT`, the latter two files for `nsenter --net=`), and passes packets until
//! its standard input ends. Addresses are those of [`caraway_tests::link`]. TCP has the congestion
//! control that the host has.
//!
//! Where the kernel has them, a veth pair and `tc netem` are the link (KIND is `netem`). Elsewhere
//! each namespace has a TUN device, and this program does to the packets between them what netem
//! would: each way has one queue of at most `limit` packets, and a packet leaves it once `delay`
//! has passed and the packets before it have had their time on the wire (KIND is `tun`).

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use caraway_tests::link::{CLIENT, SERVER, Shape};

/// The device's name in both namespaces.
const DEVICE: &str = "link0";
/// The longest packet.
const MTU: usize = 1500;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    let shape = Shape::from_arguments(std::env::args().skip(1)).map_err(io::Error::other)?;
    become_root()?;
    let server = enter_new_namespace()?;
    let server_tun = Tun::open()?;
    let client = enter_new_namespace()?;
    let client_tun = Tun::open()?;
    let path = |file: &File| format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    for namespace in [&server, &client] {
        shell(&path(namespace), "ip link set lo up")?;
    }
    let kind = if netem(&shape, &path(&server), &path(&client)).is_ok() {
        "netem"
    } else {
        for (namespace, address, peer) in [(&server, SERVER, CLIENT), (&client, CLIENT, SERVER)] {
            configure(&path(namespace), "tun0", address, peer)?;
        }
        pass(&server_tun, &client_tun, shape)?;
        pass(&client_tun, &server_tun, shape)?;
        "tun"
    };
    println!("{kind} {} {}", path(&server), path(&client));
    io::stdout().flush()?;
    // The end of our input is the end of who started us.
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

/// Makes this process root of a user namespace of its own, unless it is root already.
fn become_root() -> io::Result<()> {
    // SAFETY: these only ask.
    let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
    if user == 0 {
        return Ok(());
    }
    // SAFETY: this process has one thread yet; no memory is involved.
    check(unsafe { libc::unshare(libc::CLONE_NEWUSER) })?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {group} 1"))
}

/// Leaves this thread in a new network namespace, which lives as long as the file.
fn enter_new_namespace() -> io::Result<File> {
    // SAFETY: only this thread's namespace changes.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
    File::open("/proc/thread-self/ns/net")
}

/// A veth pair with netem on both ends.
fn netem(shape: &Shape, server: &str, client: &str) -> io::Result<()> {
    let netem = format!(
        "tc qdisc add dev {DEVICE} root netem delay {}us rate {}bit limit {}",
        shape.delay.as_micros(),
        shape.rate,
        shape.limit
    );
    let pair = format!("ip link add {DEVICE} type veth peer name {DEVICE} netns {client}");
    shell(server, &pair)?;
    let configured = [(server, SERVER, CLIENT), (client, CLIENT, SERVER)]
        .into_iter()
        .try_for_each(|(namespace, address, peer)| {
            shell(namespace, &netem)?;
            configure(namespace, DEVICE, address, peer)
        });
    configured.inspect_err(|_| {
        // Half a link would be in the other one's way; if this fails, so does that one, and says why.
        let _ = shell(server, &format!("ip link del {DEVICE}"));
    })
}

fn configure(namespace: &str, device: &str, address: Ipv4Addr, peer: Ipv4Addr) -> io::Result<()> {
    shell(
        namespace,
        &format!("ip addr add {address} peer {peer} dev {device} && ip link set {device} up"),
    )
}

/// Runs a line of shell in a network namespace.
fn shell(namespace: &str, line: &str) -> io::Result<()> {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={namespace}"));
    let output = command
        .args(["sh", "-c", line])
        .stdin(Stdio::null())
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{line}: {}", said.trim())))
}

/// A TUN device of the namespace in which it was opened.
struct Tun(Arc<File>);

impl Tun {
    fn open() -> io::Result<Self> {
        const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
        let file = File::options()
            .read(true)
            .write(true)
            .open("/dev/net/tun")?;
        // SAFETY: all zero is a request without name and flags.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(b"tun0") {
            *to = *from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as i16;
        // SAFETY: the request is one that TUNSETIFF reads, and lives over the call.
        check(unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw const request) })?;
        Ok(Self(Arc::new(file)))
    }
}

/// A packet and when it leaves the link.
struct Packet {
    due: Instant,
    bytes: Vec<u8>,
}

/// Passes packets one way, on two threads.
fn pass(from: &Tun, to: &Tun, shape: Shape) -> io::Result<()> {
    let (enter, leave) = channel();
    let queued = Arc::new(AtomicUsize::new(0));
    let (from, to, counter) = (from.0.clone(), to.0.clone(), queued.clone());
    thread::Builder::new().spawn(move || take_in(&from, &enter, &queued, shape))?;
    thread::Builder::new().spawn(move || let_out(&to, &leave, &counter))?;
    Ok(())
}

fn take_in(mut from: &File, enter: &Sender<Packet>, queued: &AtomicUsize, shape: Shape) {
    let mut last = Instant::now();
    let mut buffer = [0; MTU];
    while let Ok(length) = from.read(&mut buffer) {
        if queued.load(Ordering::Relaxed) >= shape.limit {
            continue;
        }
        // As netem: the wire is free once the packet before has left it.
        let due = last.max(Instant::now() + shape.delay) + shape.wire_time(length);
        last = due;
        queued.fetch_add(1, Ordering::Relaxed);
        let bytes = buffer[..length].to_vec();
        if enter.send(Packet { due, bytes }).is_err() {
            return;
        }
    }
}

fn let_out(mut to: &File, leave: &Receiver<Packet>, queued: &AtomicUsize) {
    for packet in leave {
        let wait = packet.due.saturating_duration_since(Instant::now());
        if wait > Duration::ZERO {
            thread::sleep(wait);
        }
        queued.fetch_sub(1, Ordering::Relaxed);
        // A device that is down or full drops packets, as such do.
        let _ = to.write(&packet.bytes);
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
