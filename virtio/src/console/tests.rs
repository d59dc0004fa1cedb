use caraway_devices::{Lifecycle, StateError, state_tests};
use proptest::prelude::*;

use super::control::{Message, event};
use super::*;
use crate::testing::*;
use crate::transport::VirtioPci;

/// A host's end that a test turns by hand.
#[derive(Default)]
struct End(Mutex<Inside>);

#[derive(Default)]
struct Inside {
    open: bool,
    guest: Vec<bool>,
    room: usize,
    taken: Vec<u8>,
    to_give: Vec<u8>,
}

impl PortEnd for End {
    fn is_open(&self) -> bool {
        self.0.lock().open
    }
    fn guest_opened(&self, open: bool) {
        self.0.lock().guest.push(open);
    }
    fn take(&self, bytes: &[u8]) -> usize {
        let mut inside = self.0.lock();
        let count = bytes.len().min(inside.room);
        inside.room -= count;
        inside.taken.extend(&bytes[..count]);
        count
    }
    fn give(&self, buffer: &mut [u8]) -> usize {
        let mut inside = self.0.lock();
        let count = buffer.len().min(inside.to_give.len());
        let given: Vec<u8> = inside.to_give.drain(..count).collect();
        buffer[..count].copy_from_slice(&given);
        count
    }
}

/// The queues of port 1.
const IN: u16 = 4;
const OUT: u16 = 5;

fn console(end: &Arc<End>) -> Console {
    let port = |name: &str, end: Arc<dyn PortEnd>| PortConfig {
        name: name.to_owned(),
        end,
    };
    let other: Arc<End> = Arc::default();
    Console::new(vec![
        port("com.example.0", end.clone()),
        port("com.example.1", other),
    ])
    .unwrap()
}

/// A console whose driver has taken port 1 on and opened it; the host's end is open and has room.
fn open() -> (Machine<Console>, Arc<End>) {
    let end: Arc<End> = Arc::default();
    end.0.lock().open = true;
    end.0.lock().room = usize::MAX;
    let mut machine = Machine::ready(console(&end));
    give_control_buffers(&mut machine, 16);
    say(&mut machine, 0, event::DEVICE_READY, 1);
    say(&mut machine, 1, event::PORT_READY, 1);
    say(&mut machine, 1, event::PORT_OPEN, 1);
    heard(&mut machine);
    (machine, end)
}

fn give_control_buffers(machine: &mut Machine<Console>, count: u16) {
    for _ in 0..count {
        let at = BUFFERS + 64 * u64::from(machine.queues[2].next_avail);
        machine.submit(TO_DRIVER, &[writable(at, 64)]);
    }
    machine.notify(TO_DRIVER);
}

/// The driver sends a control message.
fn say(machine: &mut Machine<Console>, port: u32, event: u16, value: u16) {
    let at = BUFFERS + 0x8000;
    let message = Message { port, event, value };
    machine.put(at, &message.to_bytes());
    machine.submit(FROM_DRIVER, &[readable(at, 8)]);
    machine.notify(FROM_DRIVER);
}

/// What the driver was told since the last call, with what stands behind each message.
fn heard(machine: &mut Machine<Console>) -> Vec<(Message, String)> {
    let used = machine.used(TO_DRIVER);
    used.into_iter()
        .map(|(head, len)| {
            let bytes: [u8; 64] = machine.get(BUFFERS + 64 * u64::from(head));
            let message = Message::parse(&bytes[..8]).unwrap();
            let rest = String::from_utf8_lossy(&bytes[8..len as usize]);
            (message, rest.into_owned())
        })
        .collect()
}

fn events(machine: &mut Machine<Console>) -> Vec<(u32, u16, u16)> {
    heard(machine)
        .into_iter()
        .map(|(message, _)| (message.port, message.event, message.value))
        .collect()
}

fn write(machine: &mut Machine<Console>, bytes: &[u8]) {
    let at = BUFFERS + 0x1_0000 + 0x100 * u64::from(machine.queues[usize::from(OUT)].next_avail);
    machine.put(at, bytes);
    machine.submit(OUT, &[readable(at, bytes.len() as u32)]);
    machine.notify(OUT);
}

fn taken(end: &End) -> Vec<u8> {
    std::mem::take(&mut end.0.lock().taken)
}

state_tests!(
    state,
    Arc::into_inner(Machine::new(console(&Arc::default())).pci).unwrap(),
    |pci: &mut VirtioPci<Console>| {
        let console = pci.device();
        let mut state = console.save();
        state.driver_ready = true;
        console.restore(state).unwrap();
    }
);

#[test]
fn there_is_a_port_more_than_are_named() {
    let machine = Machine::ready(console(&Arc::default()));

    assert_eq!(machine.read32(reg::DEVICE + 4), 3);
    assert_eq!(machine.read16(reg::NUM_QUEUES), 8);
}

#[test]
fn a_driver_learns_of_ports_their_names_and_whether_they_are_open() {
    let end: Arc<End> = Arc::default();
    end.0.lock().open = true;
    let mut machine = Machine::ready(console(&end));
    give_control_buffers(&mut machine, 16);

    say(&mut machine, 0, event::DEVICE_READY, 1);
    assert_eq!(
        events(&mut machine),
        [(1, event::DEVICE_ADD, 1), (2, event::DEVICE_ADD, 1)]
    );
    say(&mut machine, 1, event::PORT_READY, 1);

    let told = heard(&mut machine);
    let names: Vec<_> = told.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(names, ["com.example.0", ""]);
    assert_eq!(told[0].0.event, event::PORT_NAME);
    assert_eq!((told[1].0.event, told[1].0.value), (event::PORT_OPEN, 1));
}

#[test]
fn a_driver_that_resumes_has_its_ports_again() {
    let end: Arc<End> = Arc::default();
    end.0.lock().open = true;
    end.0.lock().room = usize::MAX;
    // It was reset; the driver sets it up again, and does not begin from the start.
    let mut machine = Machine::ready(console(&end));
    give_control_buffers(&mut machine, 16);

    say(&mut machine, 1, event::PORT_READY, 1);

    let told: Vec<_> = events(&mut machine)
        .into_iter()
        .filter(|event| event.0 == 1)
        .collect();
    assert_eq!(told, [(1, event::PORT_NAME, 1), (1, event::PORT_OPEN, 1)]);
    write(&mut machine, b"after");
    assert_eq!(taken(&end), b"after");
}

#[test]
fn an_end_that_opens_and_closes_is_told_to_the_driver() {
    let (mut machine, end) = open();

    end.0.lock().open = false;
    machine.device().serve_ends();
    assert_eq!(events(&mut machine), [(1, event::PORT_OPEN, 0)]);
    end.0.lock().open = true;
    machine.device().serve_ends();

    assert_eq!(events(&mut machine), [(1, event::PORT_OPEN, 1)]);
}

#[test]
fn a_driver_without_buffers_hears_it_all_later() {
    let (mut machine, end) = open();
    // 16 were given, and five of them used.
    for turn in 0..30 {
        end.0.lock().open = turn % 2 != 0;
        machine.device().serve_ends();
    }
    end.0.lock().open = false;
    assert_eq!(events(&mut machine).len(), 12);

    give_control_buffers(&mut machine, 8);

    let last = events(&mut machine).pop();
    assert_eq!(last, Some((1, event::PORT_OPEN, 0)));
}

#[test]
fn the_end_hears_of_the_guest_s() {
    let (mut machine, end) = open();

    say(&mut machine, 1, event::PORT_OPEN, 0);
    say(&mut machine, 1, event::PORT_OPEN, 1);
    machine.write8(reg::STATUS, 0);

    assert_eq!(end.0.lock().guest, [true, false, true, false]);
}

#[test]
fn what_the_guest_writes_arrives() {
    let (mut machine, end) = open();

    write(&mut machine, b"hello");

    assert_eq!(taken(&end), b"hello");
    assert_eq!(machine.used(OUT).len(), 1);
}

#[test]
fn what_the_host_has_arrives() {
    let (mut machine, end) = open();
    let at = BUFFERS + 0x1_0000;
    machine.submit(IN, &[writable(at, 4)]);
    machine.submit(IN, &[writable(at + 64, 32)]);
    machine.notify(IN);

    end.0.lock().to_give = b"hello".to_vec();
    machine.device().serve_ends();

    let used: Vec<u32> = machine.used(IN).into_iter().map(|(_, len)| len).collect();
    assert_eq!(used, [4, 1]);
    assert_eq!(machine.get(at), *b"hell");
    assert_eq!(machine.get(at + 64), *b"o");
}

#[test]
fn a_slow_reader_loses_nothing() {
    let (mut machine, end) = open();
    end.0.lock().room = 3;

    write(&mut machine, b"hello");
    write(&mut machine, b" world");
    assert_eq!(machine.used(OUT).len(), 0);
    for _ in 0..4 {
        end.0.lock().room = 3;
        machine.device().serve_ends();
    }

    assert_eq!(taken(&end), b"hello world");
    assert_eq!(machine.used(OUT).len(), 2);
}

#[test]
fn an_end_that_is_closed_is_waited_for() {
    let (mut machine, end) = open();
    end.0.lock().open = false;
    write(&mut machine, b"later");
    assert_eq!(taken(&end), b"");

    end.0.lock().open = true;
    machine.device().serve_ends();

    assert_eq!(taken(&end), b"later");
}

#[test]
fn a_guest_that_has_not_opened_its_end_gets_nothing() {
    let (mut machine, end) = open();
    say(&mut machine, 1, event::PORT_OPEN, 0);
    machine.submit(IN, &[writable(BUFFERS + 0x1_0000, 64)]);
    machine.notify(IN);
    end.0.lock().to_give = b"early".to_vec();
    machine.device().serve_ends();
    assert_eq!(machine.used(IN), []);

    say(&mut machine, 1, event::PORT_OPEN, 1);

    assert_eq!(machine.used(IN).len(), 1);
}

#[test]
fn half_a_write_goes_on_after_a_restore() {
    let (mut machine, end) = open();
    end.0.lock().room = 3;
    write(&mut machine, b"hello");
    let saved = Lifecycle::save(&*machine.pci).unwrap();
    taken(&end);

    Lifecycle::restore(&*machine.pci, &saved).unwrap();
    end.0.lock().room = 100;
    machine.device().serve_ends();

    assert_eq!(taken(&end), b"lo");
    assert_eq!(machine.used(OUT).len(), 1);
}

#[test]
fn a_state_with_other_ports_is_refused() {
    let machine = Machine::ready(console(&Arc::default()));
    let mut state = machine.device().save();
    state.ports.pop();

    let refused = machine.device().restore(state);

    assert!(matches!(refused, Err(StateError::Invalid { .. })));
}

#[test]
fn a_control_message_for_a_port_that_is_not_there_does_nothing() {
    let (mut machine, _) = open();

    for (port, event) in [(0, 6), (3, 6), (u32::MAX, 3), (1, 99)] {
        say(&mut machine, port, event, 1);
    }

    assert_eq!(events(&mut machine), []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_hostile_driver_harms_nobody(
        steps in prop::collection::vec(
            (0u16..8, 0u64..(MEMORY as u64 + 4096), 0u32..9000, any::<bool>(), any::<u16>()),
            0..60,
        )
    ) {
        let (mut machine, end) = open();
        for (queue, address, len, write, descriptor) in steps {
            machine.put(BUFFERS + 0x8000, &descriptor.to_le_bytes());
            machine.submit(queue, &[(address, len, write), (BUFFERS + 0x8000, 8, write)]);
            end.0.lock().open = descriptor % 3 != 0;
            end.0.lock().room = usize::from(descriptor);
            end.0.lock().to_give.extend(&descriptor.to_le_bytes());
            machine.notify(queue);
            machine.device().serve_ends();
            if machine.read8(reg::STATUS) & 0x40 != 0 {
                machine.probe(u64::MAX);
            }
        }
    }
}
