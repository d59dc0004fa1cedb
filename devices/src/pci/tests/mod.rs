//! The root, its ports and the bridges together, as a guest sees them.

use std::sync::Arc;

use parking_lot::Mutex;
use vm_memory::MmapRegion;

use super::*;
use crate::bus::{Bus, BusDevice};
use crate::interrupt::{FakeLine, InterruptLine};
use crate::state::{Lifecycle, StateError};
use crate::system::{FakeSystem, ResetRegister, SystemEvent};

mod slots;

const REGISTERS: u8 = 0;
const PORTS: u8 = 1;
const MEMORY: u8 = 2;

/// A function with one BAR of each kind: registers, ports, memory.
struct Example {
    config: Mutex<ConfigSpace>,
    memory: Arc<MmapRegion>,
    moves: Mutex<Vec<(u8, Option<u64>)>>,
}

impl Example {
    fn new() -> Arc<Self> {
        let config = ConfigSpace::new(Ids {
            vendor: 0x1b36,
            device: 0x1234,
            ..Ids::default()
        })
        .with_bar(REGISTERS, BarKind::Mem32, 0x1000)
        .with_bar(PORTS, BarKind::Io, 0x20)
        .with_bar(MEMORY, BarKind::Mem64, 0x10_0000)
        .with_interrupt_pin(1);
        Arc::new(Self {
            config: Mutex::new(config),
            memory: Arc::new(MmapRegion::new(0x10_0000).unwrap()),
            moves: Mutex::default(),
        })
    }
}

impl PciFunction for Example {
    fn config(&self) -> &Mutex<ConfigSpace> {
        &self.config
    }

    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) {
        data.fill(bar << 4 | offset as u8);
    }

    fn bar_write(&self, _bar: u8, _offset: u64, _data: &[u8]) {}

    fn bar_memory(&self, bar: u8) -> Option<BarMemory> {
        (bar == MEMORY).then(|| BarMemory {
            region: Arc::clone(&self.memory),
            read_only: false,
        })
    }

    fn bar_moved(&self, bar: u8, base: Option<u64>) {
        self.moves.lock().push((bar, base));
    }
}

struct Machine {
    mmio: Arc<Bus>,
    pio: Arc<Bus>,
    mapper: Arc<FakeMapper>,
    root: Arc<PciRoot>,
}

const ONE: PciAddress = PciAddress::from_rid(2 << 3);
const OTHER: PciAddress = PciAddress::from_rid(3 << 3);

fn machine() -> Machine {
    let (mmio, pio, mapper) = (
        Arc::new(Bus::new()),
        Arc::new(Bus::new()),
        FakeMapper::new(),
    );
    let root = PciRoot::new(mmio.clone(), pio.clone(), mapper.clone());
    Machine {
        mmio,
        pio,
        mapper,
        root,
    }
}

impl Machine {
    fn with_example(self, address: PciAddress) -> (Self, Arc<Example>) {
        let example = Example::new();
        self.root.add(address, example.clone()).unwrap();
        (self, example)
    }

    fn write32(&self, address: PciAddress, offset: u16, value: u32) {
        self.root
            .config_write(address, offset, &value.to_le_bytes());
    }

    fn read32(&self, address: PciAddress, offset: u16) -> u32 {
        let mut data = [0; 4];
        self.root.config_read(address, offset, &mut data);
        u32::from_le_bytes(data)
    }

    /// Places the three BARs from `base` on and switches them on.
    fn place(&self, address: PciAddress, base: u32) {
        self.write32(address, 0x10, base);
        self.write32(address, 0x14, 0xc000);
        self.write32(address, 0x18, base + 0x10_0000);
        self.write32(address, 0x1c, 0);
        self.root.config_write(address, 0x04, &[7, 0]);
    }

    fn mmio_byte(&self, address: u64) -> Option<u8> {
        let mut data = [0];
        self.mmio.read(address, &mut data).then_some(data[0])
    }
}

#[test]
fn bars_appear_where_the_guest_puts_them() {
    let (machine, example) = machine().with_example(ONE);

    machine.place(ONE, 0xe000_0000);

    let mut port = [0];
    assert!(machine.pio.read(0xc01f, &mut port));
    assert_eq!(port, [0x1f]);
    assert_eq!(machine.mmio_byte(0xe000_0003), Some(3));
    assert_eq!(machine.mapper.mappings(), [(0xe010_0000, 0x10_0000)]);
    assert_eq!(
        *example.moves.lock(),
        [
            (REGISTERS, Some(0xe000_0000)),
            (PORTS, Some(0xc000)),
            (MEMORY, Some(0xe010_0000))
        ]
    );
}

#[test]
fn bars_follow_when_the_guest_moves_them() {
    let (machine, example) = machine().with_example(ONE);
    machine.place(ONE, 0xe000_0000);
    example.moves.lock().clear();

    machine.write32(ONE, 0x10, 0xd000_0000);
    machine.write32(ONE, 0x1c, 0x10);

    assert_eq!(machine.mmio_byte(0xe000_0003), None);
    assert_eq!(machine.mmio_byte(0xd000_0003), Some(3));
    assert_eq!(machine.mapper.mappings(), [(0x10_e010_0000, 0x10_0000)]);
    assert_eq!(
        *example.moves.lock(),
        [
            (REGISTERS, None),
            (REGISTERS, Some(0xd000_0000)),
            (MEMORY, None),
            (MEMORY, Some(0x10_e010_0000))
        ]
    );
}

#[test]
fn bars_vanish_when_the_command_register_switches_them_off() {
    let (machine, _) = machine().with_example(ONE);
    machine.place(ONE, 0xe000_0000);

    machine.root.config_write(ONE, 0x04, &[0, 0]);

    assert_eq!(machine.mmio_byte(0xe000_0003), None);
    assert!(!machine.pio.read(0xc000, &mut [0]));
    assert!(machine.mapper.mappings().is_empty());
}

#[test]
fn a_sizing_probe_of_a_bar_that_is_on_maps_nothing() {
    let (machine, example) = machine().with_example(ONE);
    machine.place(ONE, 0xe000_0000);
    example.moves.lock().clear();

    machine.write32(ONE, 0x10, u32::MAX);
    let size = machine.read32(ONE, 0x10);
    machine.write32(ONE, 0x10, 0xe000_0000);

    assert_eq!(size, 0xffff_f000);
    assert_eq!(
        *example.moves.lock(),
        [(REGISTERS, None), (REGISTERS, Some(0xe000_0000))]
    );
}

#[test]
fn a_bar_in_the_way_is_placed_once_the_other_has_gone() {
    let (machine, _) = machine().with_example(ONE);
    let (machine, other) = machine.with_example(OTHER);
    machine.place(ONE, 0xe000_0000);
    machine.place(OTHER, 0xe000_0000);
    let before = other.moves.lock().clone();

    machine.root.config_write(ONE, 0x04, &[0, 0]);

    assert_eq!(before, []);
    assert_eq!(other.moves.lock().len(), 3);
    assert_eq!(machine.mapper.mappings().len(), 1);
}

#[test]
fn addresses_are_given_once_and_on_bus_0_only() {
    let (machine, _) = machine().with_example(ONE);
    let far = PciAddress::new(1, 0, 0).unwrap();

    assert_eq!(
        machine.root.add(ONE, Example::new()),
        Err(RootError::Taken { address: ONE })
    );
    assert_eq!(
        machine.root.add(far, Example::new()),
        Err(RootError::Bus { address: far })
    );
}

#[test]
fn absent_functions_read_as_ones() {
    assert_eq!(machine().read32(ONE, 0), u32::MAX);
}

fn ports(machine: &Machine) -> (Arc<FakeSystem>, Mutex<ConfigPorts>) {
    let system = FakeSystem::new();
    let reset = Arc::new(Mutex::new(ResetRegister::new(system.clone())));
    let ports = ConfigPorts::new(Arc::clone(&machine.root), reset);
    (system, Mutex::new(ports))
}

#[test]
fn the_ports_reach_any_byte_of_a_function() {
    let (machine, _) = machine().with_example(ONE);
    let (_, ports) = ports(&machine);
    let mut data = [0; 2];

    BusDevice::write(&ports, 0, &0x8000_1000_u32.to_le_bytes());
    BusDevice::read(&ports, 6, &mut data);

    assert_eq!(u16::from_le_bytes(data), 0x1234);
}

#[test]
fn the_ports_show_nothing_while_they_are_off() {
    let (machine, _) = machine().with_example(ONE);
    let (_, ports) = ports(&machine);
    let mut data = [0; 4];

    BusDevice::write(&ports, 0, &0x0000_1000_u32.to_le_bytes());
    BusDevice::read(&ports, 4, &mut data);

    assert_eq!(data, [0xff; 4]);
}

#[test]
fn a_byte_at_cf9_goes_to_the_reset_register() {
    let machine = machine();
    let (system, ports) = ports(&machine);

    BusDevice::write(&ports, 1, &[0x06]);

    assert_eq!(system.events(), [SystemEvent::Reset]);
}

const BRIDGE: PciAddress = PciAddress::from_rid(0);

fn with_bridge(machine: Machine) -> Machine {
    let bridge = HostBridge::new(Arc::downgrade(&machine.root));
    machine.root.add(BRIDGE, Arc::new(bridge)).unwrap();
    machine
}

#[test]
fn the_configuration_window_follows_its_register() {
    let (machine, _) = with_bridge(machine()).with_example(ONE);
    let id = |base: u64| {
        let mut data = [0; 4];
        let found = machine.mmio.read(base + (2 << 15), &mut data);
        found.then(|| u32::from_le_bytes(data))
    };

    machine.write32(BRIDGE, 0x60, 0xb000_0001);
    let first = id(0xb000_0000);
    machine.write32(BRIDGE, 0x60, 0xe000_0001);

    assert_eq!(first, Some(0x1234_1b36));
    assert_eq!(id(0xb000_0000), None);
    assert_eq!(id(0xe000_0000), Some(0x1234_1b36));
}

#[test]
fn a_reset_takes_the_configuration_window_away() {
    let machine = with_bridge(machine());
    machine.write32(BRIDGE, 0x60, 0xb000_0001);

    machine.root.reset();

    assert_eq!(machine.mmio_byte(0xb000_0000), None);
}

#[test]
fn firmware_can_use_the_host_bridges_registers() {
    let machine = with_bridge(machine());

    machine.write32(BRIDGE, 0x90, 0x3333_3330);
    machine.write32(BRIDGE, 0x50, 0xffff);

    assert_eq!(machine.read32(BRIDGE, 0x90), 0x3333_3330);
    assert_eq!(machine.read32(BRIDGE, 0x50) & 0xffff, 0xffff);
    assert_eq!(machine.read32(BRIDGE, 0x2c), 0x1100_1af4);
}

struct Pm;

impl BusDevice for Pm {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0x5a);
    }

    fn write(&self, _offset: u64, _data: &[u8]) {}
}

fn with_lpc(machine: Machine) -> (Machine, Vec<Arc<FakeLine>>, Arc<IntxRouter>) {
    let lines: Vec<_> = (0..24).map(|_| FakeLine::new()).collect();
    let gsis: Vec<_> = lines
        .iter()
        .map(|line| Arc::clone(line) as Arc<dyn InterruptLine>)
        .collect();
    let router = IntxRouter::new(&gsis);
    let pm = PmPorts {
        device: Arc::new(Pm),
        pio: Arc::clone(&machine.pio),
    };
    let lpc = LpcBridge::new(Arc::clone(&router), pm);
    machine.root.add(LPC_ADDRESS, lpc).unwrap();
    (machine, lines, router)
}

#[test]
fn the_power_management_ports_are_there_from_the_start_and_move() {
    let (machine, ..) = with_lpc(machine());
    let at = |port| machine.pio.read(port, &mut [0]);
    let first = (at(0x600), at(0xb000));

    machine.write32(LPC_ADDRESS, 0x40, 0xb001);

    assert_eq!(first, (true, false));
    assert_eq!((at(0x600), at(0xb000)), (false, true));
    assert_eq!(machine.read32(LPC_ADDRESS, 0x40), 0xb001);
}

#[test]
fn firmware_routes_pirqs_by_the_lpc_bridge() {
    let (machine, lines, router) = with_lpc(machine());
    let pin = router.line(ONE, 1);
    pin.set(true);

    machine.root.config_write(LPC_ADDRESS, 0x6a, &[10]);

    assert!(lines[10].level());
    assert!(lines[22].level());
}

#[test]
fn the_roots_state_survives_the_round_trip() {
    let (used, _) = with_bridge(machine()).with_example(ONE);
    used.place(ONE, 0xe000_0000);
    used.write32(BRIDGE, 0x60, 0xb000_0001);
    let (other, _) = with_bridge(machine()).with_example(ONE);

    other.root.restore(&used.root.save().unwrap()).unwrap();

    assert_eq!(other.root.save().unwrap(), used.root.save().unwrap());
    assert_eq!(other.mmio_byte(0xe000_0003), Some(3));
    assert!(other.mmio_byte(0xb000_0000).is_some());
}

#[test]
fn a_reset_gives_a_fresh_root() {
    let (used, _) = machine().with_example(ONE);
    let fresh = used.root.save().unwrap();
    used.place(ONE, 0xe000_0000);

    used.root.reset();

    assert_eq!(used.root.save().unwrap(), fresh);
    assert!(used.mapper.mappings().is_empty());
}

#[test]
fn the_state_of_a_machine_with_other_functions_is_refused() {
    let (used, _) = machine().with_example(ONE);
    let (other, _) = machine().with_example(OTHER);

    let result = other.root.restore(&used.root.save().unwrap());

    assert!(matches!(result, Err(StateError::Invalid { .. })));
}

crate::state_tests!(
    ports_state,
    ConfigPorts::new(
        machine().root,
        Arc::new(Mutex::new(ResetRegister::new(FakeSystem::new())))
    ),
    |ports: &mut ConfigPorts| {
        crate::bus::Registers::write(ports, 0, &0x8000_1000_u32.to_le_bytes());
    }
);
