//! The bare-metal guest that device tests and benchmarks share.
//!
//! A PVH ELF. Its command line says which tests run, `test=NAME[,NAME…]`, and gives them options,
//! `KEY=VALUE`; `hold` keeps the machine as it is afterwards. Each test says `ok NAME` or
//! `not ok NAME: why` on COM1, and the debug-exit port gets the verdict: 0 if all were ok, else 1.

#![no_std]
#![no_main]

mod busy;
mod canvas;
mod cpu;
mod desk;
mod failure;
mod hostile;
mod hotplug;
mod interrupts;
mod memory;
mod pci;
mod qxl;
mod serial;
mod start_info;
mod symbols;
mod tick;
mod timer;
mod unmapped;
mod virtio;
mod vmgenid;

use core::arch::global_asm;
use core::panic::PanicInfo;

use failure::Outcome;
use start_info::StartInfo;

global_asm!(include_str!("entry.s"), options(att_syntax));

/// Where the verdict goes.
const DEBUG_EXIT: u16 = 0x501;

/// A test's name and what it does.
type Test = (&'static str, fn(&StartInfo) -> Outcome);

const TESTS: &[Test] = &[
    ("nothing", |_| Ok(())),
    ("memory", memory::test),
    ("pci", pci::test),
    ("hotplug", hotplug::test_disk),
    ("hotplug-net", hotplug::test_net),
    ("unmapped", unmapped::test),
    ("smp", interrupts::test_smp),
    ("ipi", interrupts::test_ipi),
    ("abuse", virtio::abuse::test),
    ("blk", virtio::blk::test),
    ("blk-msix", virtio::blk::test_interrupts),
    ("disk", virtio::disk::test),
    ("disk-load", virtio::load::test),
    ("console", virtio::console::test),
    ("input", virtio::input::test),
    ("rng", virtio::rng::test),
    ("vsock-server", virtio::vsock::test_server),
    ("vsock-client", virtio::vsock::test_client),
    ("balloon", virtio::balloon::test),
    ("balloon-report", virtio::balloon::test_report),
    ("relay", virtio::relay::test),
    ("vmgenid", vmgenid::test),
    ("net", virtio::net::test),
    ("net-hostile", virtio::net::test_hostile),
    ("net-send", virtio::net_load::test_send),
    ("net-receive", virtio::net_load::test_receive),
    ("qxl", qxl::test),
    ("qxl-compatible", qxl::test_compatible),
    ("heads", qxl::test_heads),
    ("displays", qxl::test_devices),
    ("canvas", canvas::test),
    ("hostile", hostile::test),
    ("desk", desk::run),
    ("busy", busy::run),
    ("ticks", timer::test_count),
    ("timer-abuse", timer::test_abuse),
    ("silence", timer::test_silence),
    ("set-clock", timer::test_set_clock),
    ("tick", tick::test),
    ("triple", |_| cpu::triple_fault()),
];

/// Where ring 3 begins; `start_info` is the structure that PVH hands over.
#[unsafe(no_mangle)]
extern "C" fn main(start_info: u64, _cpu: u32) -> ! {
    serial::init();
    let info = StartInfo::at(start_info);
    let mut verdict = 0;
    for name in info.option("test").unwrap_or("nothing").split(',') {
        let outcome = match TESTS.iter().find(|(known, _)| *known == name) {
            Some((_, test)) => test(&info),
            None => Err(failure::why(format_args!("no such test"))),
        };
        match outcome {
            Ok(()) => say!("ok {name}"),
            Err(why) => {
                say!("not ok {name}: {why}");
                verdict = 1;
            }
        }
    }
    while info.has("hold") {
        cpu::halt();
    }
    exit(verdict)
}

/// Ends the machine.
fn exit(verdict: u8) -> ! {
    cpu::out8(DEBUG_EXIT, verdict);
    loop {
        cpu::halt();
    }
}

/// Where `entry.s` sends an exception that nobody expected.
#[unsafe(no_mangle)]
extern "C" fn on_fault(vector: u64, error: u64, rip: u64, cr2: u64) -> ! {
    say!("not ok exception {vector}: error {error:#x} at {rip:#x}, address {cr2:#x}");
    exit(1)
}

#[panic_handler]
fn on_panic(info: &PanicInfo) -> ! {
    say!("not ok panic: {info}");
    exit(1)
}
