//! Root ports: devices that come and go.

use parking_lot::Mutex;

use super::*;

const PORT: PciAddress = PciAddress::from_rid(4 << 3);
const BEHIND: PciAddress = PciAddress::from_rid(1 << 8);

// Registers of the port, with its PCI Express capability at 0x40.
const SLOT_CONTROL: u16 = 0x58;
const SLOT_STATUS: u16 = 0x5a;
const LINK_STATUS: u16 = 0x52;
const LINK_UP: u16 = 1 << 13;
const BUTTON: u16 = 1 << 0;
const PRESENCE_CHANGED: u16 = 1 << 3;
const LINK_CHANGED: u16 = 1 << 8;
const PRESENT: u16 = 1 << 6;
/// Every event interrupts; lamps and power in the other bits.
const LISTEN: u16 = 0x102b;
const RUNNING: u16 = LISTEN | 3 << 6 | 1 << 8;
const BLINKING: u16 = LISTEN | 3 << 6 | 2 << 8;
const DARK: u16 = LISTEN | 3 << 6 | 3 << 8 | 1 << 10;
const BROKEN: u16 = LISTEN | 1 << 6 | 3 << 8 | 1 << 10;

struct Slot {
    machine: Machine,
    port: Arc<RootPort>,
    line: Arc<FakeLine>,
    answers: Arc<Mutex<Vec<SlotAnswer>>>,
}

/// A machine with an empty slot, whose port passes everything from 0xe0000000 to 0xe02fffff on.
fn slot() -> Slot {
    let machine = machine();
    let line = FakeLine::new();
    let answers = Arc::<Mutex<Vec<SlotAnswer>>>::default();
    let heard = Arc::clone(&answers);
    let port = RootPort::new(1, line.clone(), move |answer| heard.lock().push(answer)).unwrap();
    machine.root.add_port(PORT, Arc::clone(&port)).unwrap();
    let slot = Slot {
        machine,
        port,
        line,
        answers,
    };
    slot.set_up();
    slot
}

impl Slot {
    /// What firmware does.
    fn set_up(&self) {
        self.machine.write32(PORT, 0x18, 0x0001_0100);
        self.machine.write32(PORT, 0x20, 0xe020_e000);
        self.machine.root.config_write(PORT, 0x04, &[6, 0]);
    }

    fn control(&self, value: u16) {
        self.machine
            .root
            .config_write(PORT, SLOT_CONTROL, &value.to_le_bytes());
    }

    fn read16(&self, offset: u16) -> u16 {
        let mut data = [0; 2];
        self.machine.root.config_read(PORT, offset, &mut data);
        u16::from_le_bytes(data)
    }

    fn plug(&self) -> Arc<Example> {
        let example = Example::new();
        self.machine.root.plug(PORT, example.clone()).unwrap();
        example
    }
}

#[test]
fn a_device_that_comes_interrupts_and_is_seen_once_its_slot_has_power() {
    let slot = slot();
    slot.control(DARK);

    slot.plug();
    let told = (slot.line.level(), slot.read16(SLOT_STATUS));
    let without_power = slot.machine.read32(BEHIND, 0);
    slot.control(RUNNING);

    assert_eq!(told, (true, PRESENT | PRESENCE_CHANGED | LINK_CHANGED));
    assert_ne!(slot.read16(LINK_STATUS) & LINK_UP, 0);
    assert_eq!(without_power, u32::MAX);
    assert_eq!(slot.machine.read32(BEHIND, 0), 0x1234_1b36);
    assert_eq!(*slot.answers.lock(), [SlotAnswer::Accepted]);
}

#[test]
fn events_are_cleared_by_writing_ones_and_end_the_interrupt() {
    let slot = slot();
    slot.control(DARK);
    slot.plug();

    slot.machine
        .root
        .config_write(PORT, SLOT_STATUS, &PRESENCE_CHANGED.to_le_bytes());
    let one_left = (slot.line.level(), slot.read16(SLOT_STATUS));
    slot.machine
        .root
        .config_write(PORT, SLOT_STATUS + 1, &[(LINK_CHANGED >> 8) as u8]);

    assert_eq!(one_left, (true, PRESENT | LINK_CHANGED));
    assert_eq!(slot.read16(SLOT_STATUS), PRESENT);
    assert!(!slot.line.level());
}

#[test]
fn the_button_asks_and_the_guest_answers_by_the_power() {
    let slot = slot();
    slot.plug();
    slot.control(RUNNING);
    slot.answers.lock().clear();

    slot.port.press_button();
    let asked = slot.read16(SLOT_STATUS) & BUTTON;
    slot.control(BLINKING);
    let in_between = slot.answers.lock().clone();
    slot.control(DARK);

    assert_eq!(asked, BUTTON);
    assert_eq!(in_between, []);
    assert_eq!(*slot.answers.lock(), [SlotAnswer::Released]);
}

#[test]
fn a_lit_attention_lamp_says_that_the_device_does_not_work() {
    let slot = slot();
    slot.control(DARK);
    slot.plug();

    slot.control(BROKEN);

    assert_eq!(*slot.answers.lock(), [SlotAnswer::Refused]);
}

#[test]
fn the_lamps_of_an_empty_slot_say_nothing() {
    let slot = slot();

    for control in [RUNNING, BROKEN, DARK] {
        slot.control(control);
    }

    assert_eq!(*slot.answers.lock(), []);
}

#[test]
fn bars_behind_a_port_decode_within_its_windows_only() {
    let slot = slot();
    let example = slot.plug();
    slot.control(RUNNING);

    slot.machine.place(BEHIND, 0xe000_0000);
    let inside = slot.machine.mmio_byte(0xe000_0003);
    slot.machine.write32(PORT, 0x20, 0xf000_f000);

    assert_eq!(inside, Some(3));
    assert_eq!(slot.machine.mmio_byte(0xe000_0003), None);
    assert!(slot.machine.mapper.mappings().is_empty());
    // No I/O ports behind this bridge.
    assert!(example.moves.lock().iter().all(|(bar, _)| *bar != PORTS));
}

#[test]
fn a_device_that_goes_takes_its_bars_along() {
    let slot = slot();
    let example = slot.plug();
    slot.control(RUNNING);
    slot.machine.place(BEHIND, 0xe000_0000);
    example.moves.lock().clear();

    let gone = slot.machine.root.unplug(PORT);

    assert!(gone.is_some());
    assert_eq!(slot.machine.mmio_byte(0xe000_0003), None);
    assert!(slot.machine.mapper.mappings().is_empty());
    assert_eq!(
        *example.moves.lock(),
        [(REGISTERS, None), (MEMORY, None)],
        "whoever keeps doorbells there must hear of it"
    );
    assert_eq!(slot.machine.read32(BEHIND, 0), u32::MAX);
    assert_eq!(slot.read16(SLOT_STATUS) & PRESENT, 0);
    assert_eq!(slot.read16(LINK_STATUS) & LINK_UP, 0);
}

#[test]
fn a_slot_takes_one_device() {
    let slot = slot();
    slot.plug();

    let second = slot.machine.root.plug(PORT, Example::new());

    assert_eq!(
        second,
        Err(RootError::Slot {
            address: PORT,
            source: SlotTaken
        })
    );
    assert_eq!(
        slot.machine.root.plug(ONE, Example::new()),
        Err(RootError::NoPort { address: ONE })
    );
}

#[test]
fn after_a_reset_a_device_that_is_there_has_power_and_an_empty_slot_has_none() {
    let slot = slot();
    slot.control(DARK);
    let empty = slot.port.clone();
    slot.plug();

    slot.machine.root.reset();
    let there = slot.read16(SLOT_CONTROL);
    slot.machine.root.unplug(PORT);
    slot.machine.root.reset();

    assert_eq!(there & 0x0700, 0x0100);
    assert_eq!(slot.read16(SLOT_CONTROL) & 0x0700, 0x0700);
    assert!(!empty.is_taken());
    assert_eq!(slot.read16(SLOT_STATUS), 0);
    assert_eq!(*slot.answers.lock(), [], "a reset is no answer");
}

#[test]
fn the_state_of_a_slot_survives_the_round_trip() {
    let used = slot();
    used.plug();
    used.control(RUNNING);
    used.machine.place(BEHIND, 0xe000_0000);
    let other = slot();
    other.plug();

    other
        .machine
        .root
        .restore(&used.machine.root.save().unwrap())
        .unwrap();

    assert_eq!(
        other.machine.root.save().unwrap(),
        used.machine.root.save().unwrap()
    );
    assert_eq!(other.machine.mmio_byte(0xe000_0003), Some(3));
    assert!(other.line.level(), "the events still wait to be cleared");
    assert_eq!(*other.answers.lock(), []);
}

#[test]
fn a_state_with_a_device_in_a_slot_is_refused_by_an_empty_one() {
    let used = slot();
    used.plug();

    let result = slot()
        .machine
        .root
        .restore(&used.machine.root.save().unwrap());

    assert!(matches!(result, Err(StateError::Invalid { .. })));
}
