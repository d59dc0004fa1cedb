//! No sequence of accesses makes any device panic, and what it leaves behind can be saved and
//! restored.

use std::sync::Arc;

use parking_lot::Mutex;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::acpi_pm::AcpiPm;
use crate::bus::{Bus, BusDevice, Registers};
use crate::clock::{FakeClock, FakeTimer, TimerClient};
use crate::debug::DebugPort;
use crate::i8042::{I8042, MouseButtons};
use crate::interrupt::{FakeLine, FakeMsi};
use crate::pci::{
    ConfigPorts, FakeMapper, HostBridge, IntxRouter, LPC_ADDRESS, LpcBridge, Msix, PciAddress,
    PciRoot, PmPorts,
};
use crate::pit::{ControlPortB, Pit};
use crate::rtc::{Rtc, RtcBase};
use crate::serial::SerialPort;
use crate::state::{Stateful, restore_payload, save_payload};
use crate::system::{FakeSystem, Port92, ResetRegister};
use crate::ticks::TickPolicy;

/// One thing that happens to a device.
#[derive(Debug, Clone)]
enum Step {
    Read(u64, usize),
    Write(u64, Vec<u8>),
    /// So many nanoseconds pass, and the timer rings.
    Pass(u64),
}

/// Steps with offsets below `ports`, mostly of one byte, and some that no bus would make.
fn steps(ports: u64) -> impl Strategy<Value = Vec<Step>> {
    let offset = prop_oneof![20 => 0..ports, 1 => any::<u64>()];
    let len = prop_oneof![6 => Just(1_usize), 1 => 0_usize..=8];
    let bytes = prop_oneof![6 => vec(any::<u8>(), 1), 1 => vec(any::<u8>(), 0..=8)];
    let time = prop_oneof![4 => 0_u64..2_000_000_000, 1 => any::<u64>()];
    let step = prop_oneof![
        4 => (offset.clone(), len).prop_map(|(offset, len)| Step::Read(offset, len)),
        8 => (offset, bytes).prop_map(|(offset, bytes)| Step::Write(offset, bytes)),
        1 => time.prop_map(Step::Pass),
    ];
    vec(step, 0..100)
}

/// Does the steps; `ring` is called after time has passed.
fn run<D: Registers>(device: &mut D, clock: &FakeClock, steps: &[Step], ring: impl Fn(&mut D)) {
    for step in steps {
        match step {
            Step::Read(offset, len) => device.read(*offset, &mut vec![0; *len]),
            Step::Write(offset, bytes) => device.write(*offset, bytes),
            Step::Pass(time) => {
                clock.advance(*time);
                ring(device);
            }
        }
    }
}

/// What the device saved, it takes back unchanged.
fn survives<D: Stateful>(device: &mut D) {
    let saved = save_payload(device).unwrap();
    restore_payload(device, &saved).unwrap();
    assert_eq!(save_payload(device).unwrap(), saved);
}

fn nobody<D>(_: &mut D) {}

fn root() -> Arc<PciRoot> {
    let pio = Arc::new(Bus::new());
    let root = PciRoot::new(Arc::new(Bus::new()), pio.clone(), FakeMapper::new());
    let bridge = HostBridge::new(Arc::downgrade(&root));
    let device = Arc::new(Mutex::new(DebugPort::new()));
    let lpc = LpcBridge::new(IntxRouter::new(&[]), PmPorts { device, pio });
    root.add(PciAddress::from_rid(0), Arc::new(bridge)).unwrap();
    root.add(LPC_ADDRESS, lpc).unwrap();
    root
}

proptest! {
    #[test]
    fn acpi_pm(steps in steps(0x80)) {
        let clock = FakeClock::new(0);
        let (timer, line) = (FakeTimer::new(), FakeLine::new());
        let mut device = AcpiPm::new(clock.clone(), timer, line, FakeSystem::new());

        run(&mut device, &clock, &steps, AcpiPm::expired);

        survives(&mut device);
    }

    #[test]
    fn pit(steps in steps(4), port_b: u8) {
        let clock = FakeClock::new(0);
        let device = Pit::new(clock.clone(), FakeTimer::new(), FakeLine::new(), TickPolicy::Replay);
        let device = Arc::new(Mutex::new(device));
        ControlPortB(Arc::clone(&device)).write(0, &[port_b]);

        run(&mut *device.lock(), &clock, &steps, |pit| {
            pit.expired();
            pit.acknowledged();
        });

        survives(&mut *device.lock());
    }

    #[test]
    fn rtc(steps in steps(4), wall: u64) {
        let clock = FakeClock::new(wall);
        let (timer, line) = (FakeTimer::new(), FakeLine::new());
        let mut device = Rtc::new(clock.clone(), timer, line, RtcBase::Utc, TickPolicy::Replay);

        run(&mut device, &clock, &steps, Rtc::expired);

        survives(&mut device);
    }

    #[test]
    fn i8042(steps in steps(5), keys in vec(any::<(u8, bool, bool)>(), 0..20)) {
        let clock = FakeClock::new(0);
        let (keyboard, mouse) = (FakeLine::new(), FakeLine::new());
        let mut device = I8042::new(keyboard, mouse, FakeSystem::new());

        run(&mut device, &clock, &steps, |device| {
            for &(code, extended, down) in &keys {
                device.keyboard_event(code, extended, down);
                device.mouse_motion(i32::from(code) - 128, i32::MIN);
                device.mouse_buttons(MouseButtons { left: down, ..MouseButtons::default() });
                device.wheel(i32::MIN);
            }
        });

        survives(&mut device);
    }

    #[test]
    fn serial(steps in steps(8)) {
        let clock = FakeClock::new(0);
        let mut device = SerialPort::new(FakeLine::new(), Box::new(std::io::sink()));

        run(&mut device, &clock, &steps, |device| {
            device.enqueue(&[1; 50]);
        });

        survives(&mut device);
    }

    #[test]
    fn system_ports(steps in steps(1)) {
        let clock = FakeClock::new(0);
        let mut port = Port92::new(FakeSystem::new());
        let mut debug = DebugPort::new();

        run(&mut port, &clock, &steps, nobody);
        run(&mut debug, &clock, &steps, nobody);

        survives(&mut port);
        survives(&mut debug);
    }

    #[test]
    fn pci_configuration(steps in steps(8), device in prop_oneof![Just(0_u32), Just(0xf800)]) {
        let clock = FakeClock::new(0);
        let reset = Arc::new(Mutex::new(ResetRegister::new(FakeSystem::new())));
        let mut ports = ConfigPorts::new(root(), reset);

        for (register, step) in (0..).step_by(4).zip(&steps) {
            let address = 0x8000_0000 | device | register & 0xfc;
            ports.write(0, &address.to_le_bytes());
            run(&mut ports, &clock, std::slice::from_ref(step), nobody);
        }

        survives(&mut ports);
    }

    #[test]
    fn msix(steps in steps(80)) {
        let mut device = Msix::new(5, &FakeMsi::default()).unwrap();

        for step in &steps {
            match step {
                Step::Read(offset, len) => {
                    device.read_table(*offset, &mut vec![0; *len]);
                    device.read_pba(*offset, &mut vec![0; *len]);
                }
                Step::Write(offset, bytes) => device.write_table(*offset, bytes),
                Step::Pass(time) => device.trigger(*time as u16),
            }
        }

        survives(&mut device);
    }
}
